#include "streams/lag.h"

#include <algorithm>
#include <chrono>

#include "schemas/time.h"

namespace assay::streams {

namespace {

std::string duration_text(int64_t ms) {
  // Whole units only, the two largest: a rule is read by people.
  if (ms < kSecondMs) return std::to_string(ms) + "ms";
  struct Unit {
    int64_t size_ms;
    const char* name;
  };
  static constexpr Unit kUnits[] = {{kDayMs, "d"}, {kHourMs, "h"}, {kMinuteMs, "m"}, {kSecondMs, "s"}};
  for (size_t i = 0; i < 4; ++i) {
    if (ms < kUnits[i].size_ms) continue;
    std::string text = std::to_string(ms / kUnits[i].size_ms) + kUnits[i].name;
    if (i + 1 < 4)
      if (int64_t rest = ms % kUnits[i].size_ms / kUnits[i + 1].size_ms; rest > 0)
        text += std::to_string(rest) + kUnits[i + 1].name;
    return text;
  }
  return "0ms";
}

std::string offset_text(const std::optional<Offset>& offset) { return offset ? std::to_string(offset->value) : "none"; }

Offset place(const LagSample& s) { return s.committed.value_or(s.start); }

// Since when the place has been the one it is now.
WallTime unchanged_since(std::span<const LagSample> history) {
  WallTime since = history.back().at;
  for (auto it = history.rbegin(); it != history.rend() && place(*it) == place(history.back()) && it->records_behind > 0; ++it)
    since = it->at;
  return since;
}

}  // namespace

std::string_view lag_state_name(LagState state) {
  static constexpr std::string_view kNames[] = {"ok",      "catching up", "falling behind",  "stalled",
                                                "stopped", "rewound",     "at risk of loss", "paused"};
  return kNames[static_cast<size_t>(state)];
}

Result<LagSample> sample_lag(Log& log, const LagTarget& target, WallTime now, const LagOptions& options) {
  LagSample sample;
  sample.at = now;
  sample.running = target.running;
  sample.retention_ms = target.retention_ms;
  sample.waits_ms = target.waits_ms;
  sample.paused = target.paused;
  // The committed offset first: were the end read before it, a commit in between would lie past the end.
  sample.committed = target.position;
  if (!sample.committed) {
    TRY_ASSIGN(auto committed, log.committed(target.group, std::span(&target.tp, 1)));
    if (auto it = committed.find(target.tp); it != committed.end()) sample.committed = it->second.offset;
  }
  TRY_ASSIGN(OffsetRange range, log.range(target.tp));
  sample.start = range.start;
  sample.end = range.end;
  Offset from = std::max(place(sample), range.start);
  if (target.held && target.held->oldest) {
    sample.records_behind = target.held->records + std::max<int64_t>(0, log.distance(target.tp, target.held->next, range.end));
    sample.time_behind_ms = std::max<int64_t>(0, now - *target.held->oldest);
    return sample;
  }
  if (target.held) from = std::max(from, target.held->next);  // only markers in between
  if (from >= range.end) return sample;

  TRY_ASSIGN(auto reader, log.open_reader({{target.tp, from}}));
  auto deadline = std::chrono::steady_clock::now() + Milliseconds(options.read_timeout_ms);
  Offset next = from;
  while (next < range.end && sample.records_behind < options.count_limit) {
    auto left = std::chrono::duration_cast<Milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() <= 0)
      return Error{Errc::kUnreachable, "measure the lag of " + target.group + " on " + to_string(target.tp) +
                                           ": no records between offset " + std::to_string(next.value) + " and the end " +
                                           std::to_string(range.end.value) + " within " + duration_text(options.read_timeout_ms)};
    TRY_ASSIGN(auto fetch, reader->poll(std::min(left, Milliseconds(200)), 1000));
    if (!fetch) continue;
    size_t seen = 0;
    for (const RecordView& record : fetch->records) {
      if (record.offset >= range.end || sample.records_behind >= options.count_limit) break;  // beyond: the next sample's
      if (sample.records_behind == 0) sample.time_behind_ms = std::max<int64_t>(0, now - record.timestamp);
      ++sample.records_behind;
      ++seen;
      next = record.offset + 1;
    }
    if (seen == fetch->records.size())
      next = std::max(next, fetch->next);  // past the markers behind them
    else if (sample.records_behind < options.count_limit)
      next = range.end;
  }
  if (next < range.end) sample.records_behind += log.distance(target.tp, next, range.end);
  return sample;
}

LagVerdict judge_lag(std::span<const LagSample> history, const LagRules& rules) {
  CHECK(!history.empty());
  const LagSample& now = history.back();
  auto verdict = [](LagState state, std::string rule) { return LagVerdict{state, std::move(rule)}; };

  if (now.committed && *now.committed < now.start)
    return verdict(LagState::kAtRiskOfLoss, "offsets " + offset_text(now.committed) + " to " + std::to_string(now.start.value - 1) +
                                                " were not processed and the log no longer has them");
  if (now.retention_ms > 0 && now.records_behind > 0 &&
      static_cast<double>(now.time_behind_ms) > rules.loss_share * static_cast<double>(now.retention_ms))
    return verdict(LagState::kAtRiskOfLoss, "the first unprocessed record is " + duration_text(now.time_behind_ms) +
                                                " old and the topic keeps " + duration_text(now.retention_ms) + ": " +
                                                (*now.time_left_ms() > 0 ? duration_text(*now.time_left_ms()) + " are left"
                                                                         : std::string("it may be gone any moment")));

  if (now.committed && *now.committed > now.end)
    return verdict(LagState::kRewound, "committed offset " + offset_text(now.committed) + " lies past the end " +
                                           std::to_string(now.end.value) + ": the topic was cut or made anew");
  std::optional<Offset> highest;
  for (const LagSample& s : history)
    if (s.committed && (!highest || *s.committed > *highest)) highest = s.committed;
  if (highest && (!now.committed || *now.committed < *highest))
    return verdict(LagState::kRewound,
                   "committed offset went back from " + offset_text(highest) + " to " + offset_text(now.committed));

  if (now.records_behind == 0) return verdict(LagState::kOk, "everything up to the end is processed");
  if (now.time_behind_ms <= rules.ok_ms + now.waits_ms)
    return verdict(LagState::kOk, "the first unprocessed record is " + duration_text(now.time_behind_ms) + " old, within " +
                                      duration_text(rules.ok_ms + now.waits_ms));

  if (!now.paused.empty()) return verdict(LagState::kPaused, "it is meant to wait: " + now.paused);
  const std::string waiting = std::to_string(now.records_behind) + (now.records_behind == 1 ? " record waits" : " records wait");
  if (now.running == false) return verdict(LagState::kStopped, "no task runs and " + waiting);
  int64_t unchanged_ms = now.at - unchanged_since(history);
  if (!now.running && unchanged_ms >= rules.stopped_ms)
    return verdict(LagState::kStopped, "nothing was committed for " + duration_text(unchanged_ms) + " and " + waiting);
  if (unchanged_ms >= rules.stalled_ms + now.waits_ms)
    return verdict(LagState::kStalled, "the committed offset stays at " + offset_text(now.committed) + " for " +
                                           duration_text(unchanged_ms) + " and " + waiting);

  const LagSample* before = nullptr;
  for (const LagSample& s : history.first(history.size() - 1)) {
    if (now.at - s.at > rules.trend_ms || now.at - s.at < rules.min_span_ms) continue;
    before = &s;
    break;
  }
  const std::string behind = duration_text(now.time_behind_ms);
  if (before == nullptr)
    return verdict(LagState::kFallingBehind,
                   "the first unprocessed record is " + behind + " old, and there is no earlier sample to compare");
  const std::string span = " in " + duration_text(now.at - before->at);
  if (now.time_behind_ms < before->time_behind_ms)
    return verdict(LagState::kCatchingUp,
                   "time behind fell from " + duration_text(before->time_behind_ms) + " to " + behind + span);
  if (now.records_behind < before->records_behind)
    return verdict(LagState::kCatchingUp, "records behind fell from " + std::to_string(before->records_behind) + " to " +
                                              std::to_string(now.records_behind) + span);
  return verdict(LagState::kFallingBehind, "time behind went from " + duration_text(before->time_behind_ms) + " to " + behind +
                                               span + " and the records from " + std::to_string(before->records_behind) + " to " +
                                               std::to_string(now.records_behind));
}

LagVerdict LagMonitor::record(const TopicPartition& tp, const std::string& group, const LagSample& sample) {
  std::deque<LagSample>& history = history_[{tp, group}];
  history.push_back(sample);
  while (sample.at - history.front().at > rules_.history_ms) history.pop_front();
  std::vector<LagSample> samples(history.begin(), history.end());
  return judge_lag(samples, rules_);
}

Result<std::vector<LagRow>> LagMonitor::observe(Log& log, std::span<const LagTarget> targets, WallTime now,
                                                const LagOptions& options) {
  std::vector<LagRow> rows;
  for (const LagTarget& target : targets) {
    TRY_ASSIGN(LagSample sample, sample_lag(log, target, now, options));
    rows.push_back({target.tp, target.group, sample, {}});
  }
  decltype(history_) kept;
  for (const LagRow& row : rows)
    if (auto it = history_.find({row.tp, row.group}); it != history_.end()) kept.insert(history_.extract(it));
  history_ = std::move(kept);
  for (LagRow& row : rows) row.verdict = record(row.tp, row.group, row.sample);
  return rows;
}

bool unhealthy(std::span<const LagRow> rows) {
  return std::any_of(rows.begin(), rows.end(), [](const LagRow& row) { return !is_healthy(row.verdict.state); });
}

Json lag_json(std::span<const LagRow> rows) {
  Json array = Json::array();
  for (const LagRow& row : rows) {
    const LagSample& s = row.sample;
    array.push_back(Json::object()
                        .set("topic", row.tp.topic)
                        .set("partition", row.tp.partition)
                        .set("group", row.group)
                        .set("endOffset", std::to_string(s.end.value))
                        .set("committedOffset", s.committed ? Json(std::to_string(s.committed->value)) : Json())
                        .set("recordsBehind", s.records_behind)
                        .set("timeBehindMs", s.time_behind_ms)
                        .set("state", lag_state_name(row.verdict.state))
                        .set("rule", row.verdict.rule));
  }
  return array;
}

void export_lag(Metrics& metrics, std::span<const LagRow> rows) {
  std::vector<GaugeSeries> records, seconds, left, states, depths;
  std::map<std::string, int64_t> waiting;  // by group
  for (const LagRow& row : rows) {
    std::vector<std::string> labels = {row.tp.topic, std::to_string(row.tp.partition), row.group};
    records.push_back({labels, static_cast<double>(row.sample.records_behind)});
    waiting[row.group] += row.sample.records_behind;
    seconds.push_back({labels, static_cast<double>(row.sample.time_behind_ms) / 1000});
    if (const auto left_ms = row.sample.time_left_ms()) left.push_back({labels, static_cast<double>(*left_ms) / 1000});
    if (is_healthy(row.verdict.state)) continue;
    labels.emplace_back(lag_state_name(row.verdict.state));
    states.push_back({labels, 1});
  }
  for (const auto& [group, count] : waiting) depths.push_back({{group}, static_cast<double>(count)});
  metrics.replace(Metric::kQueueDepth, depths);
  metrics.replace(Metric::kLagRecords, records);
  metrics.replace(Metric::kLagSeconds, seconds);
  metrics.replace(Metric::kLagTimeLeft, left);
  metrics.replace(Metric::kLagUnhealthy, states);
}

}  // namespace assay::streams
