#include "processors/scoring.h"

#include <algorithm>

#include "schemas/planted.h"
#include "schemas/time.h"

namespace assay::processors {
namespace {

// What a commit holds, about: rows of an agent that it changed with its three live scores, per metric of them, and for each
// report what it adds to panes and remembered ids.
constexpr size_t kChangedAgentBytes = 6000;
constexpr size_t kChangedMetricBytes = 1200;
constexpr size_t kReportBytes = 160;

constexpr std::string_view kProcessor = "scoring";
constexpr std::string_view kActor = "service:eval-engine";
constexpr int64_t kFutureMs = 5 * kMinuteMs;  // more than this after the record's own timestamp is the future

/// At equal ends the longer window comes first: a decision at the 1h score then has the 24h score of the same end.
constexpr Window kClosingOrder[] = {Window::k7d, Window::k24h, Window::k1h};

constexpr int64_t closing_step_ms(Window w) { return w == Window::k7d ? kDayMs : kHourMs; }

Id cause_of(const Input& input) { return place_id(topic_spec(input.topic).name, input.partition, input.record->offset); }

}  // namespace

void append_merkle_leaf_head(const RecordView& record, state::Encoder& head) {
  head.i(record.timestamp.value)
      .u(record.key.has_value() ? 1 : 0)
      .bytes(record.key.value_or(""))
      .u(record.value.has_value() ? 1 : 0);
}

const std::vector<ConfigKind>& Scoring::config_kinds() {
  static const std::vector<ConfigKind> kinds = {ConfigKind::kScoring};
  return kinds;
}

Scoring::Scoring(Rows& rows, ScoringOptions options)
    : rows_(rows), options_(options), rules_(rows, config_kinds()), rules_version_(rules_.version(ConfigKind::kScoring)) {}

AgentState& Scoring::agent(std::string_view id) {
  if (last_agent_ != nullptr && last_agent_->id == id) return *last_agent_;
  auto it = agents_.find(id);
  if (it == agents_.end()) {
    auto loaded = load_agent(rows_, id, names_);
    if (loaded == nullptr) loaded = std::make_unique<AgentState>(std::string(id));
    it = agents_.emplace(std::string(id), std::move(loaded)).first;
    measure(*it->second);
    commit_bytes_ += it->second->bytes;
  }
  last_agent_ = it->second.get();
  return *last_agent_;
}

void Scoring::dead_letter(const Input& input, Reason reason, std::string detail, Outputs& outputs) {
  const RecordView& record = *input.record;
  DeadLetter letter{reason, std::move(detail), input.topic, input.partition, record.offset, record.timestamp, {}, {}, {}};
  if (record.key) letter.key = std::string(*record.key);
  if (record.value) letter.value = std::string(*record.value);
  for (const HeaderView& h : record.headers)
    letter.headers.push_back({std::string(h.name), h.value ? std::optional<std::string>(*h.value) : std::nullopt});
  outputs.dead_letters.push_back(std::move(letter));
  ++outputs.tally.refused[static_cast<size_t>(reason)];
  ++range_tally_.refused[static_cast<size_t>(reason)];
}

void Scoring::process(const Input& input, Outputs& outputs) {
  if (input.topic == Topic::kConfig) {
    if (rules_.fold(input, outputs)) {
      rules_version_ = rules_.version(ConfigKind::kScoring);
      ++rules_epoch_;
    }
    return;
  }
  const RecordView& record = *input.record;
  if (merkle_.count() == 0) {
    range_partition_ = input.partition;
    range_from_ = record.offset;
  }
  range_to_ = record.offset + 1;
  leaf_head_.clear();
  append_merkle_leaf_head(record, leaf_head_);
  merkle_.add(leaf_head_.str(), record.value.value_or(""));
  ++outputs.tally.delivered;
  ++range_tally_.delivered;

  if (record.key.value_or("").size() + record.value.value_or("").size() > static_cast<size_t>(kMaxRecordBytes))
    return dead_letter(input, Reason::kTooLarge,
                       "key and value together are larger than " + std::to_string(kMaxRecordBytes) + " bytes", outputs);
  Reject reject;
  const EvalReport* report = decoder_.decode(record, &reject);
  if (report == nullptr) return dead_letter(input, reject.reason, std::move(reject.detail), outputs);
  outputs.tally.unknown_fields += report->unknown_fields;
  if (record.key != report->agent_id)
    return dead_letter(input, Reason::kKeyMismatch,
                       record.key ? "the key differs from the agent id" : "the record has no key; it must be the agent id",
                       outputs);
  if (report->timestamp.value > record.timestamp.value + kFutureMs)
    return dead_letter(input, Reason::kTimestampInFuture,
                       "timestamp " + format_rfc3339_ms(report->timestamp.value) +
                           " is more than 5 minutes after the record's own, " + format_rfc3339_ms(record.timestamp.value),
                       outputs);

  AgentState& state = agent(report->agent_id);
  const int64_t timestamp = report->timestamp.value;
  auto filter = [&](Reason reason) {
    ++outputs.tally.refused[static_cast<size_t>(reason)];
    ++range_tally_.refused[static_cast<size_t>(reason)];
  };
  // A report without an id gets one from its place; it cannot come twice, so it is not remembered.
  const std::string derived = report->id.empty() ? cause_of(input).hex() : std::string();
  const std::string_view id = report->id.empty() ? std::string_view(derived) : report->id;
  const UInt128 id_hash = report->id.empty() ? 0 : xxh3_128(id);
  const auto content = static_cast<uint64_t>(report->content_hash);
  if (!report->id.empty() && state.clock != Panes::kNever) {
    if (const Dedupe::Entry* seen = state.dedupe.find(id_hash, state.clock - rules_->scoring.dedupe_ms)) {
      if (seen->content_hash == content) return filter(Reason::kDuplicate);
      return dead_letter(input, Reason::kConflictingDuplicate,
                         "another report with id " + std::string(id) + " was accepted at " + format_rfc3339_ms(seen->timestamp),
                         outputs);
    }
  }
  // The horizon moves with the clock alone; a grace that was shortened since counts at once, and a longer one opens nothing again.
  if (state.clock != Panes::kNever && timestamp < std::max(state.horizon, state.clock - rules_->scoring.grace_ms))
    return filter(Reason::kLate);

  if (!report->id.empty()) state.dedupe.remember(state.id, {id_hash, content, timestamp});
  accept(input, *report, id, state, outputs);
}

void Scoring::accept(const Input& input, const EvalReport& report, std::string_view id, AgentState& state, Outputs& outputs) {
  ++outputs.tally.accepted;
  ++range_tally_.accepted;
  if (!state.dirty) {
    state.dirty = true;
    dirty_.push_back(&state);
    commit_bytes_ += kChangedAgentBytes + report.metrics.size() * kChangedMetricBytes;
  }
  commit_bytes_ += kReportBytes;
  state.last_offset = input.record->offset;
  const int64_t timestamp = report.timestamp.value;
  if (timestamp > state.clock) {
    state.clock = timestamp;
    // A longer grace never opens again what a shorter one has closed.
    const int64_t horizon = std::max(state.horizon, timestamp - rules_->scoring.grace_ms);
    if (horizon > state.horizon) {
      close_windows(input, state, horizon, outputs);
      state.horizon = horizon;
      state.panes.roll(horizon);
      state.dedupe.forget_before(timestamp - rules_->scoring.dedupe_ms);
    }
  }

  if (planted(Bug::kLatePaneLost) && floor_to(timestamp, kMinuteMs) < floor_to(state.clock, kMinuteMs)) return;
  Pane& pane = state.panes.at(timestamp);
  if (pane.samples == 0 || timestamp > pane.last_timestamp || (timestamp == pane.last_timestamp && id > pane.last_id)) {
    pane.last_timestamp = timestamp;
    pane.last_id = id;
    pane.last_division = report.division_id;
  }
  ++pane.samples;
  // Reports of an agent mostly carry the same metrics in the same order, so both guesses are nearly always right.
  if (pane.cells.empty()) pane.cells.reserve(report.metrics.size());
  state.last_metrics.resize(report.metrics.size(), 0);
  for (size_t k = 0; k < report.metrics.size(); ++k) {
    const MetricValue& metric = report.metrics[k];
    uint32_t& index = state.last_metrics[k];
    if (!names_.is(index, metric.name)) index = names_.intern(metric.name);
    pane.cell(index, k).moments.add(metric.micro);
  }

  if (options_.audit_each) {
    IdSequence ids("scoring.submit");
    ids.start(cause_of(input));
    Json source = Json::object();
    source.set("topic", topic_spec(input.topic).name).set("partition", int64_t{input.partition});
    source.set("from", std::to_string(input.record->offset.value)).set("to", std::to_string(input.record->offset.value + 1));
    Json data = Json::object();
    data.set("evalId", id).set("agentId", report.agent_id).set("timestamp", format_rfc3339_ms(timestamp));
    outputs.records.push_back(audit_output(ids.next(), ids.cause(), "eval.submit", kActor, format_rfc3339_ms(instant_.value),
                                           std::move(source), std::move(data)));
  }
  if (observer_) observer_(report, id);
}

void Scoring::close_windows(const Input& input, AgentState& state, int64_t horizon, Outputs& outputs) {
  if (state.horizon == Panes::kNever) return;  // the agent's first report: nothing lies before it
  if (floor_to(state.horizon, kHourMs) + kHourMs > horizon) return;
  const int64_t data_end = state.panes.newest_end();
  IdSequence ids(kProcessor);
  bool started = false;
  for (int64_t end = floor_to(state.horizon, kHourMs) + kHourMs; end <= horizon; end += kHourMs) {
    if (end - window_size_ms(Window::k7d) >= data_end) break;  // no window from here on holds a report
    state.panes.settle(end);                                   // the clock went past it by the grace
    for (Window window : kClosingOrder) {
      if (end % closing_step_ms(window) != 0) continue;
      const AgentScore* score = nullptr;
      if (window == Window::k24h) {
        if (state.day == nullptr) state.day = std::make_unique<RunningDay>();
        score = state.day->close(state.id, end, state.panes, rules_->scoring, rules_epoch_, names_);
      } else if (state.panes.content(end - window_size_ms(window), end, content_); content_.samples > 0) {
        score_window(state.id, window, end, content_, rules_->scoring, names_, score_);
        score = &score_;
      }
      if (score == nullptr) continue;
      if (!started) ids.start(cause_of(input));
      started = true;
      const Id id = ids.next();
      outputs.records.push_back({Topic::kScores, state.id, score->to_json(rules_version_, instant_), id, ids.cause()});
    }
  }
}

void Scoring::emit_live(AgentState& state, Outputs& outputs) {
  IdSequence ids("scoring.live");
  ids.start(place_id(topic_spec(Topic::kReports).name, range_partition_, state.last_offset));
  const std::vector<MetricRule>& rules = rules_->scoring.metrics;
  const bool alike = std::all_of(rules.begin(), rules.end(), [](const MetricRule& rule) { return rule.window == "*"; });
  for (Window window : kWindows) {
    const int64_t end = floor_to(state.clock, pane_size_ms(window)) + pane_size_ms(window);
    state.panes.content(end - window_size_ms(window), end, content_);
    // A longer window holds all reports of a shorter one: when it has no more of them, it comes to the same.
    if (alike && window != kWindows[0] && content_.samples == score_.samples) {
      score_.window = window;
      score_.end = end;
      score_.start = end - window_size_ms(window);
    } else {
      score_window(state.id, window, end, content_, rules_->scoring, names_, score_);
    }
    // One key per agent and window, so that compaction keeps the newest of each.
    outputs.records.push_back({Topic::kScoresLive, state.id + "/" + std::string(window_name(window)),
                               score_.to_json(rules_version_, instant_), ids.next(), ids.cause(), range_partition_});
  }
}

void Scoring::emit_range(Outputs& outputs) {
  if (merkle_.count() == 0) return;
  const std::string_view topic = topic_spec(Topic::kReports).name;
  IdSequence ids("scoring.range");
  ids.start(place_id(topic, range_partition_, range_from_));
  Json source = Json::object();
  source.set("topic", topic).set("partition", int64_t{range_partition_});
  source.set("from", std::to_string(range_from_.value)).set("to", std::to_string(range_to_.value));
  Json refused = Json::object();
  for (size_t r = 0; r < kReasonCount; ++r)
    if (range_tally_.refused[r] > 0) refused.set(reason_code(static_cast<Reason>(r)), range_tally_.refused[r]);
  Json data = Json::object();
  data.set("delivered", range_tally_.delivered).set("accepted", range_tally_.accepted).set("refused", std::move(refused));
  data.set("merkleRoot", to_hex(as_bytes(merkle_.root())));
  outputs.records.push_back(audit_output(ids.next(), ids.cause(), "eval.submit", kActor, format_rfc3339_ms(instant_.value),
                                         std::move(source), std::move(data)));
}

void Scoring::before_commit(WallTime instant, Outputs& outputs) {
  CHECK(instant == instant_ || merkle_.count() == 0);
  for (AgentState* state : dirty_) {
    if (options_.live) emit_live(*state, outputs);
    flush_agent(*state, rows_, names_);
    measure(*state);
  }
  dirty_.clear();
  if (!options_.audit_each) emit_range(outputs);
  merkle_.clear();
  range_tally_ = {};
}

void Scoring::measure(AgentState& state) {
  cached_bytes_ -= state.bytes;
  state.bytes = state.approximate_bytes();
  cached_bytes_ += state.bytes;
  state.used_in_commit = commit_;
}

void Scoring::after_commit() {
  ++commit_;
  commit_bytes_ = 0;
  if (names_.bytes() > options_.cache_bytes / 4) {
    // Nothing but the agents in memory refers to the names: they go together, and those in use come back.
    agents_.clear();
    names_ = {};
    cached_bytes_ = 0;
    last_agent_ = nullptr;
  }
  if (held().cache > options_.cache_bytes) let_go();
}

/// Forgets the agents used longest ago until a quarter of the room is free.
void Scoring::let_go() {
  std::vector<std::pair<uint64_t, AgentState*>> by_use;
  by_use.reserve(agents_.size());
  for (auto& [id, state] : agents_) by_use.emplace_back(state->used_in_commit, state.get());
  std::sort(by_use.begin(), by_use.end());
  for (auto [used, state] : by_use) {
    if (held().cache <= options_.cache_bytes / 4 * 3) break;
    if (state->dirty) continue;
    cached_bytes_ -= state->bytes;
    const std::string id = state->id;
    agents_.erase(id);
  }
  last_agent_ = nullptr;
}

}  // namespace assay::processors
