#include "streams/queries.h"

#include <algorithm>
#include <set>

#include "processors/scoring.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"

namespace assay::streams {
namespace {

using processors::AgentScore;
using processors::Names;
using processors::WindowContent;

std::string scoring_task(int32_t partition) { return "scoring-" + std::to_string(partition); }

Result<const state::Reader*> store_of(const Stores& stores, const std::string& task) {
  auto it = stores.find(task);
  if (it == stores.end() || it->second == nullptr) return Error{Errc::kIncomplete, "the state of " + task + " cannot be had"};
  return it->second.get();
}

/// A window to be scored: which, and where it ends.
using Target = std::pair<Window, int64_t>;

int64_t last_boundary(int64_t at, Window w) { return floor_to(at, pane_size_ms(w)); }
int64_t next_boundary(int64_t clock, Window w) { return floor_to(clock, pane_size_ms(w)) + pane_size_ms(w); }

/// Content of windows gathered report by report, for instants that the panes have let go of.
class Collector {
 public:
  Collector(std::set<Target> targets, const std::string& agent_glob) : targets_(std::move(targets)), agent_glob_(agent_glob) {}

  void accept(const EvalReport& report, std::string_view id) {
    if (!glob_match(agent_glob_, report.agent_id)) return;
    const int64_t timestamp = report.timestamp.value;
    for (const Target& target : targets_) {
      if (timestamp >= target.second || timestamp < target.second - window_size_ms(target.first)) continue;
      processors::Pane& pane = found_[std::string(report.agent_id)][target];
      if (pane.samples == 0 || std::tie(timestamp, id) > std::make_tuple(pane.last_timestamp, std::string_view(pane.last_id))) {
        pane.last_timestamp = timestamp;
        pane.last_id = id;
        pane.last_division = report.division_id;
      }
      ++pane.samples;
      for (const MetricValue& metric : report.metrics) {
        const uint32_t index = names_.intern(metric.name);
        auto cell = std::find_if(pane.cells.begin(), pane.cells.end(), [&](auto& c) { return c.metric == index; });
        if (cell == pane.cells.end()) cell = pane.cells.insert(cell, {index, {}});
        cell->moments.add(metric.micro);
      }
    }
  }

  void score(const ScoringRules& rules, std::vector<AgentScore>& out) const {
    for (const auto& [agent, windows] : found_)
      for (const auto& [target, pane] : windows)
        out.push_back(processors::score_window(agent, target.first, target.second, {pane.samples, pane.last_division, pane.cells},
                                               rules, names_));
  }

 private:
  std::set<Target> targets_;
  std::string agent_glob_;
  Names names_;
  std::map<std::string, std::map<Target, processors::Pane>> found_;
};

/// Folds one partition of the reports again, from its first record to what is committed now, with these rules throughout.
Result<void> fold_again(Log& log, const TopicNames& names, int32_t partition, Offset until, const Rules& rules,
                        Collector& collector) {
  const TopicPartition tp{names.full(Topic::kReports), partition};
  TRY_ASSIGN(OffsetRange range, log.range(tp));
  if (range.start > Offset(0))
    return Error{Errc::kIncomplete, "records 0 to " + std::to_string(range.start.value - 1) + " of " + to_string(tp) +
                                        " are gone; that instant needs them"};
  auto scratch = state::open_memory_store();
  processors::Rows rows(*scratch, {}, &processors::scoring_row_digest);
  processors::Scoring scoring(rows, {.live = false});
  processors::Outputs outputs;
  RecordView config;
  const std::string event = encode_config_event(rules, ConfigKind::kScoring);
  config.value = event;
  scoring.process({Topic::kConfig, 0, &config, {}}, outputs);

  Offset at = range.start;
  scoring.observe([&](const EvalReport& report, std::string_view id) { collector.accept(report, id); });
  TRY_ASSIGN(auto reader, log.open_reader({{tp, at}}));
  while (at < until) {
    TRY_ASSIGN(auto fetch, reader->poll(Milliseconds(1000), 5000));
    if (!fetch) continue;
    for (const RecordView& record : fetch->records) {
      if (record.offset >= until) break;
      scoring.process({Topic::kReports, partition, &record, {}}, outputs);
      outputs.clear();
    }
    at = fetch->next;
    if (fetch->at_end && at < until) break;
  }
  return {};
}

}  // namespace

Result<std::vector<AgentScore>> query_scores(const Stores& stores, Log& log, const TopicNames& names, const ScoreQuery& query) {
  std::vector<AgentScore> out;
  for (int32_t p = 0; p < names.partitions(); ++p) {
    TRY_ASSIGN(const state::Reader* store, store_of(stores, scoring_task(p)));
    TRY_ASSIGN(Rules rules, processors::FoldedRules::read(*store, processors::Scoring::config_kinds()));
    TRY_ASSIGN(std::vector<std::string> ids, processors::agent_ids(*store));
    std::vector<AgentScore> found;
    bool whole = true;
    for (const std::string& id : ids) {
      if (!glob_match(query.agent, id)) continue;
      Names metric_names;
      TRY_ASSIGN(auto agent, processors::read_agent(*store, id, metric_names));
      for (Window window : kWindows) {
        if (query.window && *query.window != window) continue;
        const int64_t end = query.at_ms ? last_boundary(*query.at_ms, window) : next_boundary(agent->clock, window);
        const int64_t start = end - window_size_ms(window);
        if (agent->clock < start && query.at_ms) continue;  // its last report lies before the window
        if (!agent->panes.holds(start, end)) {
          whole = false;
          break;
        }
        const WindowContent content = agent->panes.content(start, end);
        if (content.samples > 0) found.push_back(processors::score_window(id, window, end, content, rules.scoring, metric_names));
      }
      if (!whole) break;
    }
    if (!whole) {
      std::set<Target> targets;
      for (Window window : kWindows)
        if (!query.window || *query.window == window) targets.insert({window, last_boundary(*query.at_ms, window)});
      TRY_ASSIGN(TaskMeta meta, read_meta(*store));
      auto position = meta.positions.find({std::string(topic_spec(Topic::kReports).name), p});
      Collector collector(targets, query.agent);
      TRY(fold_again(log, names, p, position == meta.positions.end() ? Offset(0) : position->second, rules, collector));
      found.clear();
      collector.score(rules.scoring, found);
    }
    for (AgentScore& score : found)
      if (glob_match(query.division, score.division_id)) out.push_back(std::move(score));
  }
  std::sort(out.begin(), out.end(), [](const AgentScore& a, const AgentScore& b) {
    return std::tie(a.agent_id, a.window) < std::tie(b.agent_id, b.window);
  });
  return out;
}

Result<Json> query_scoreboard(const Stores& stores, Log& log, const TopicNames& names, const BoardQuery& query) {
  // Without an instant the board ends at the first boundary after the greatest timestamp, so that it holds everything.
  std::optional<int64_t> end;
  if (query.at_ms) {
    end = last_boundary(*query.at_ms, query.window);
  } else {
    TRY_ASSIGN(auto open,
               query_scores(stores, log, names, {.agent = "*", .division = query.division, .window = query.window, .at_ms = {}}));
    for (const AgentScore& score : open) end = std::max(end.value_or(score.end), score.end);
  }
  Json::Array rows;
  if (!end) return Json(std::move(rows));

  auto ranked = [&](int64_t at) -> Result<std::vector<AgentScore>> {
    TRY_ASSIGN(auto scores,
               query_scores(stores, log, names, {.agent = "*", .division = query.division, .window = query.window, .at_ms = at}));
    std::erase_if(scores, [](const AgentScore& s) { return !s.score; });
    std::sort(scores.begin(), scores.end(), [](const AgentScore& a, const AgentScore& b) {
      return *a.score != *b.score ? *a.score > *b.score : a.agent_id < b.agent_id;
    });
    return scores;
  };
  TRY_ASSIGN(auto now, ranked(*end));
  TRY_ASSIGN(auto before, ranked(*end - kHourMs));
  std::map<std::string, int64_t> rank_before;
  for (size_t i = 0; i < before.size(); ++i) rank_before[before[i].agent_id] = static_cast<int64_t>(i) + 1;
  for (size_t i = 0; i < now.size() && i < query.top; ++i) {
    const AgentScore& s = now[i];
    const int64_t rank = static_cast<int64_t>(i) + 1;
    auto old = rank_before.find(s.agent_id);
    Json row = Json::object();
    row.set("rank", rank).set("agentId", s.agent_id).set("divisionId", s.division_id).set("window", window_name(s.window));
    row.set("windowEnd", format_rfc3339_ms(s.end)).set("score", *s.score).set("lower", *s.lower).set("upper", *s.upper);
    row.set("samples", s.samples).set("movement", old == rank_before.end() ? Json() : Json(old->second - rank));
    rows.push_back(std::move(row));
  }
  return Json(std::move(rows));
}

Result<Json> scores_json(const std::vector<AgentScore>& scores, const Stores& stores, const TopicNames& names) {
  // Rules come to every partition alike; a partition that has folded a later event than another is told apart by its version.
  WallTime computed_at;
  std::string version;
  for (int32_t p = 0; p < names.partitions(); ++p) {
    TRY_ASSIGN(const state::Reader* store, store_of(stores, scoring_task(p)));
    TRY_ASSIGN(TaskMeta meta, read_meta(*store));
    if (!version.empty() && meta.instant < computed_at) continue;
    computed_at = meta.instant;
    TRY_ASSIGN(Rules rules, processors::FoldedRules::read(*store, processors::Scoring::config_kinds()));
    version = rules_version(rules, ConfigKind::kScoring);
  }
  Json::Array rows;
  for (const AgentScore& score : scores) {
    TRY_ASSIGN(Json row, parse_json(score.to_json(version, computed_at)));
    rows.push_back(std::move(row));
  }
  return Json(std::move(rows));
}

Result<Json> query_digests(const Stores& stores, const TopicNames& names, bool recompute) {
  Json::Array rows;
  for (const ProcessorPlan& plan : topology(names, {})) {
    for (int32_t p = 0; p < plan.task_count(names); ++p) {
      const TaskSpec spec = plan.task(p);
      TRY_ASSIGN(const state::Reader* store, store_of(stores, spec.name));
      TRY_ASSIGN(TaskMeta meta, read_meta(*store));
      // One input: the next offset to fold. Several: how far they have come in all.
      int64_t position = 0;
      Json inputs = Json::object();
      for (const auto& [tp, offset] : meta.positions) {
        if (tp.topic != topic_spec(Topic::kConfig).name) position += offset.value;
        inputs.set(to_string(tp), std::to_string(offset.value));
      }
      Json row = Json::object();
      row.set("task", spec.name).set("sequence", std::to_string(meta.sequence)).set("position", std::to_string(position));
      if (recompute) {
        TRY_ASSIGN(const state::Digest digest, recompute_digest(*store, spec));
        row.set("digest", digest.hex());
        if (digest != meta.digest) row.set("stored", meta.digest.hex());
      } else {
        row.set("digest", meta.digest.hex());
      }
      rows.push_back(std::move(row.set("inputs", std::move(inputs))));
    }
  }
  return Json(std::move(rows));
}

Result<Json> query_tally(const Stores& stores, const TopicNames& names, std::string_view processor) {
  processors::Tally sum;
  for (const ProcessorPlan& plan : topology(names, {})) {
    if (plan.name != processor) continue;
    for (int32_t p = 0; p < plan.task_count(names); ++p) {
      TRY_ASSIGN(const state::Reader* store, store_of(stores, plan.task(p).name));
      TRY_ASSIGN(TaskMeta meta, read_meta(*store));
      sum.delivered += meta.tally.delivered;
      sum.accepted += meta.tally.accepted;
      for (size_t r = 0; r < kReasonCount; ++r) sum.refused[r] += meta.tally.refused[r];
    }
  }
  uint64_t filtered = 0, dead = 0;
  Json by_reason = Json::object();
  for (size_t r = 0; r < kReasonCount; ++r) {
    (is_filtered(static_cast<Reason>(r)) ? filtered : dead) += sum.refused[r];
    if (sum.refused[r] > 0) by_reason.set(reason_code(static_cast<Reason>(r)), sum.refused[r]);
  }
  Json out = Json::object();
  out.set("delivered", sum.delivered).set("accepted", sum.accepted).set("filtered", filtered).set("deadLetters", dead);
  return out.set("byReason", std::move(by_reason));
}

}  // namespace assay::streams
