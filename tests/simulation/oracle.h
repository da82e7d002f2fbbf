// The oracle of a simulated run: what should have come out of the topics, recomputed naively from the contract and compared.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/json.h"

/// It shares no code with the windows, scores, decisions and pools it judges: every window is computed anew from the list of all
/// accepted reports of its agent, in exact rationals where a rounding is not decided beyond doubt; every allocation from the list
/// of all requests ever. It knows the JSON forms of a report (not CloudEvents, not Protobuf).
namespace assay::simulation {

using schemas::Json;

// ------------------------------------------------------------------------------------------------------------------- rules

struct MetricRule {
  std::string division = "*", window = "*", metric = "*";
  bool up = true;
  double low = 0, high = 1, weight = 1;
};

struct Grant {
  std::string pool;
  int64_t cpu = 0, gpu = 1, memory_mb = 0, priority = 0;
};

struct Pool {
  std::string name, unit = "gpu";
  int64_t capacity = 0;
  std::map<std::string, int64_t> quotas;
};

struct Rules {
  // [scoring]
  int64_t grace_ms = 45 * 60'000;
  int64_t dedupe_ms = 24 * 3'600'000;
  std::vector<MetricRule> metrics;
  // [promotion]
  double enter = 0.85, leave = 0.80;
  int64_t min_samples = 5, cooldown_ms = 24 * 3'600'000, max_per_week = 2;
  // [policy]
  std::vector<std::string> deny_pools;
  double max_delta = 5, min_confidence = 0;
  // [allocation]
  Grant grant;
  std::vector<Pool> pools;
};

enum class Section : uint8_t { kScoring, kPromotion, kPolicy, kAllocation };

/// A record of config.v1: from it on, the section is as in `rules`.
struct RuleChange {
  int64_t offset = 0;
  Section section = Section::kScoring;
  Rules rules;
};

/// Where a task folds several partitions, its manifests say in which order. One turn: the records of that partition (kConfig:
/// of config.v1) whose offset is below `to` and which were not folded yet. What no turn names comes after them, changes first.
struct Turn {
  static constexpr int32_t kConfig = -1;
  int32_t partition = kConfig;
  int64_t to = 0;
};

/// The rules at the start, and what became of them.
struct Timeline {
  Rules start;
  std::vector<RuleChange> changes;  // in log order
};

// ---------------------------------------------------------------------------------------------------------------- scoring

struct ReportRecord {
  int64_t offset = 0;
  int64_t timestamp_ms = 0;  // the record's own
  std::optional<std::string_view> key, value;
};

struct Component {
  std::string metric;
  uint64_t count = 0;
  double mean = 0;
  std::optional<double> variance;
  double min = 0, max = 0;
  std::optional<double> normalized;
  double weight = 0, contribution = 0;
};

struct Score {
  std::string agent, division, window;
  int64_t start_ms = 0, end_ms = 0;
  std::optional<double> score, lower, upper, confidence;
  uint64_t samples = 0;
  std::vector<Component> components;  // by metric name
};

struct DeadLetter {
  int64_t offset = 0;
  std::string_view reason;
};

/// What one partition of eval.reports.v1 leads to.
struct Scored {
  uint64_t delivered = 0, accepted = 0;
  std::map<std::string_view, uint64_t> refused;  // by reason: DUPLICATE and LATE are filtered, every other one is a dead letter
  std::vector<DeadLetter> dead_letters;          // in order
  std::vector<Score> closed;                     // eval.scores.v1, in order
  std::vector<Score> open;                       // `scores` without --at: by agent id, then 1h, 24h, 7d
};

enum class Arithmetic : uint8_t { kChecked, kExactOnly };  // 64-bit mantissas where their error decides nothing, or rationals alone

/// Folds one partition. Pure.
Scored expect_scores(const Timeline& timeline, int32_t partition, std::span<const ReportRecord> records,
                     std::span<const Turn> order = {}, Arithmetic arithmetic = Arithmetic::kChecked);

// --------------------------------------------------------------------------------------------------------------- decisions

struct Promotion {
  std::string entity, division, action, status;
  std::optional<double> score, confidence;
  int64_t ts_ms = 0;
  std::string wanted, stopped_by;  // of a hold: "cooldown", "rate-limit" or the id of the policy
};

/// What one partition of eval.scores.v1 leads to. `offsets` are those of its records, which turns speak of; none are needed when
/// there is no order.
std::vector<Promotion> expect_promotions(const Timeline& timeline, int32_t partition, std::span<const Score> closed,
                                         std::span<const int64_t> offsets = {}, std::span<const Turn> order = {});

/// A record of promotion.events.v1, as it stands there.
struct PromotionRecord {
  int64_t offset = 0;
  std::string id;
  Promotion event;
};

struct Allocation {
  size_t request = 0;  // equal numbers: the same allocation
  std::string entity, division, pool;
  int64_t cpu = 0, gpu = 0, memory_mb = 0;
  std::string state, cause;  // cause: id of the promotion record; empty: a config record
  int64_t ts_ms = 0;
};

struct PoolFigures {
  std::string pool, unit;
  int64_t capacity = 0, used = 0, reserved = 0;
  struct Quota {
    int64_t quota = 0, used = 0;
  };
  std::map<std::string, Quota> quotas;
};

struct Allocated {
  std::vector<Allocation> events;  // in folding order
  std::vector<PoolFigures> pools;  // by name
};

/// What all partitions of promotion.events.v1 (by number) lead to when they are folded in this order.
Allocated expect_allocations(const Timeline& timeline, std::span<const std::vector<PromotionRecord>> promotions,
                             std::span<const Turn> order);

// -------------------------------------------------------------------------------------------------------------- comparisons
// Each returns the first difference as one sentence, or nothing. Values are those of a partition's records, read committed, in
// order.

using Difference = std::optional<std::string>;

Difference compare_scores(std::span<const Score> expected, std::span<const std::string_view> values);
/// The rows of `scores -o json`, whose order is looked at too.
Difference compare_open(std::span<const Score> expected, const Json& rows);
Difference compare_promotions(std::span<const Promotion> expected, std::span<const std::string_view> values);

/// A record of eval.reports.v1.dlq.
struct DeadLetterRecord {
  std::string_view reason, source;  // headers assay-reason and assay-source: "<topic>/<partition>/<offset>"
  std::optional<std::string_view> key, value;
};
Difference compare_dead_letters(const Scored& expected, int32_t partition, std::span<const ReportRecord> records,
                                std::span<const DeadLetterRecord> actual);
/// `reasons`: how many were refused for which reason.
Difference compare_counts(const Scored& expected, uint64_t delivered, uint64_t accepted,
                          const std::map<std::string, uint64_t>& reasons);

/// Reads a value of promotion.events.v1. Requires: compare_promotions() found no difference.
PromotionRecord read_promotion(int64_t offset, std::string_view value);

/// The events of allocation.events.v1, partition by partition, against those expected in this folding order.
Difference compare_allocations(const Allocated& expected, std::span<const std::vector<std::string_view>> partitions);
/// The rows of `pools -o json`.
Difference compare_pools(std::span<const PoolFigures> expected, const Json& rows);

/// What holds in whatever order the promotions were folded: each applied promotion has exactly one chain of events, nothing else
/// has one, every chain takes legal steps, demotions give back, and after each event use stays within capacity and quotas (the
/// greatest that the rules ever allowed).
Difference check_allocations(const Timeline& timeline, std::span<const std::vector<PromotionRecord>> promotions,
                             std::span<const std::vector<std::string_view>> partitions);

}  // namespace assay::simulation
