// Exact lag: how many records, and how old the first of them is, that a group has not processed; and what that means.
#pragma once

#include <algorithm>
#include <deque>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "schemas/json.h"
#include "streams/log.h"
#include "streams/metrics.h"

namespace assay::streams {

enum class LagState : uint8_t { kOk, kCatchingUp, kFallingBehind, kStalled, kStopped, kRewound, kAtRiskOfLoss, kPaused };
std::string_view lag_state_name(
    LagState state);  // "ok" "catching up" "falling behind" "stalled" "stopped" "rewound" "at risk of loss" "paused"
constexpr bool is_healthy(LagState s) { return s == LagState::kOk || s == LagState::kCatchingUp || s == LagState::kPaused; }

/// One group on one partition, and what the asker knows about it.
struct LagTarget {
  TopicPartition tp;
  std::string group;
  std::optional<Offset> position;  // overrides the group's committed offset (the projector's place is in PostgreSQL)
  std::optional<bool> running;     // whether its task runs; nullopt: not known here
  int64_t retention_ms = -1;       // of the topic; -1: for ever
  std::string paused = {};         // why somebody wants it to wait; empty: nobody does
  int64_t waits_ms = 0;            // how long a record may wait by design
  /// What the one who processes it holds and has not finished, so that the log need not be read again: `position` is then where
  /// its finished part ends.
  struct Held {
    Offset next;                     // read up to here
    int64_t records = 0;             // of them unfinished
    std::optional<WallTime> oldest;  // timestamp of the first of those
  };
  std::optional<Held> held = {};
};

/// What was seen at one instant.
struct LagSample {
  WallTime at;
  Offset start;                     // first offset that the log still has
  Offset end;                       // last stable offset
  std::optional<Offset> committed;  // nothing: the group never committed, everything from `start` is unprocessed
  int64_t records_behind = 0;       // see measure_lag
  int64_t time_behind_ms = 0;       // at − timestamp of the first unprocessed record, never below 0; 0 when there is none
  std::optional<bool> running;
  int64_t retention_ms = -1;
  std::string paused = {};
  int64_t waits_ms = 0;  // how long a record may wait by design

  /// Until retention takes the first unprocessed record; never below 0. Nothing: there is none, or it is kept for ever.
  std::optional<int64_t> time_left_ms() const {
    if (retention_ms <= 0 || records_behind == 0) return std::nullopt;
    return std::max<int64_t>(0, retention_ms - time_behind_ms);
  }
};

struct LagOptions {
  int64_t count_limit = 10000;     // behaviour: real records counted one by one from the committed offset
  int64_t read_timeout_ms = 5000;  // behaviour: of one partition
};

/// Looks at one target. `records_behind` counts real records: commit markers and aborted records between the committed offset
/// and the end are no lag. Up to count_limit it is exact; beyond, the distance of the offsets that remain is added, markers
/// included, so it is an upper bound there. `time_behind_ms` is exact always.
/// Errors: those of the log; kUnreachable when records that must be there do not come.
Result<LagSample> sample_lag(Log& log, const LagTarget& target, WallTime now, const LagOptions& options = {});

struct LagRules {
  int64_t ok_ms = 60 * kSecondMs;        // younger than this, beyond what it waits by design, is no news
  int64_t min_span_ms = 10 * kSecondMs;  // samples closer than this do not show a trend
  int64_t trend_ms = 2 * kMinuteMs;      // the trend is taken over this
  int64_t stalled_ms = kMinuteMs;        // committed offset unchanged for this long, beyond the same, with records waiting
  int64_t stopped_ms = 10 * kMinuteMs;   // the same, when nobody knows whether the task runs
  double loss_share = 0.8;               // of the retention: the first unprocessed record is older
  int64_t history_ms = 15 * kMinuteMs;   // samples older than this are forgotten
};

struct LagVerdict {
  LagState state = LagState::kOk;
  std::string rule;  // the rule that fired, with its numbers
};

/// Says what the samples mean. Pure. Requires: at least one sample, in rising time; the last one is judged.
/// First that holds: at risk of loss, rewound, ok, paused, stopped, stalled, catching up, falling behind. One sample alone shows no
/// trend: beyond ok_ms it is "falling behind" until a second one shows progress.
LagVerdict judge_lag(std::span<const LagSample> history, const LagRules& rules = {});

struct LagRow {
  TopicPartition tp;
  std::string group;
  LagSample sample;
  LagVerdict verdict;
};

/// Keeps the samples of each group and partition and judges the newest. Not thread-safe.
class LagMonitor {
 public:
  explicit LagMonitor(LagRules rules = {}) : rules_(rules) {}

  /// Samples every target and judges it; rows in the order of the targets. What is not among them any more is forgotten.
  /// Errors: the first that a target met; nothing is recorded then.
  Result<std::vector<LagRow>> observe(Log& log, std::span<const LagTarget> targets, WallTime now, const LagOptions& options = {});
  /// The same for a sample taken elsewhere.
  LagVerdict record(const TopicPartition& tp, const std::string& group, const LagSample& sample);

 private:
  LagRules rules_;
  std::map<std::pair<TopicPartition, std::string>, std::deque<LagSample>> history_;
};

/// Whether any row asks for a person: exit code 3.
bool unhealthy(std::span<const LagRow> rows);
/// [{"topic","partition","group","endOffset","committedOffset","recordsBehind","timeBehindMs","state","rule"}]; offsets are decimal
/// strings, committedOffset null when there is none.
Json lag_json(std::span<const LagRow> rows);
/// Sets the lag gauges.
void export_lag(Metrics& metrics, std::span<const LagRow> rows);

}  // namespace assay::streams
