#include "streams/queries.h"

#include <algorithm>
#include <set>

#include "processors/allocation.h"
#include "processors/promotion.h"
#include "processors/scoring.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/windows_at.h"

namespace assay::streams {
namespace {

using processors::AgentScore;
using processors::Names;
using processors::WindowContent;

Result<std::optional<int64_t>> time_of(const Question& question) {
  const std::string text = question.param("at");
  if (text.empty()) return std::optional<int64_t>();
  auto ms = parse_rfc3339_ms(text);
  if (!ms) return Error{Errc::kUsage, "--at " + text + ": not an RFC 3339 time with a zone, like 2026-05-01T12:00:00Z"};
  return std::optional<int64_t>(*ms);
}

Result<std::optional<Window>> window_of(const Question& question) {
  const std::string text = question.param("window");
  if (text.empty()) return std::optional<Window>();
  auto window = parse_window(text);
  if (!window) return Error{Errc::kUsage, "--window " + text + ": one of 1h, 24h, 7d"};
  return window;
}

struct ScoreQuery {
  std::string agent, division;   // globs
  std::optional<Window> window;  // nothing: all three
  std::optional<int64_t> at_ms;  // nothing: the open window of each agent
};

Result<ScoreQuery> score_query(const Question& question) {
  ScoreQuery query{question.param("agent", "*"), question.param("division", "*"), {}, {}};
  TRY_ASSIGN(query.window, window_of(question));
  TRY_ASSIGN(query.at_ms, time_of(question));
  return query;
}

int64_t next_boundary(int64_t clock, Window w) { return floor_to(clock, pane_size_ms(w)) + pane_size_ms(w); }

/// Folds one partition of the reports again, from its first record to what is committed now.
Result<void> fold_again(Log& log, const TopicNames& names, int32_t partition, Offset until, WindowsAt& windows) {
  const TopicPartition tp{names.full(Topic::kReports), partition};
  TRY_ASSIGN(OffsetRange range, log.range(tp));
  if (range.start > Offset(0))
    return Error{Errc::kIncomplete, "records 0 to " + std::to_string(range.start.value - 1) + " of " + to_string(tp) +
                                        " are gone; that instant needs them"};
  Offset at = range.start;
  TRY_ASSIGN(auto reader, log.open_reader({{tp, at}}));
  while (at < until) {
    TRY_ASSIGN(auto fetch, reader->poll(Milliseconds(1000), 5000));
    if (!fetch) continue;
    for (const RecordView& record : fetch->records) {
      if (record.offset >= until) break;
      windows.fold(record);
    }
    at = fetch->next;
    if (fetch->at_end && at < until) break;
  }
  return {};
}

/// AgentScores of one partition by agent id, then 1h, 24h, 7d. With `at`, the windows ending at the last boundary <= at; where
/// the panes do not hold them whole, the reports are folded again from the log with the present configuration.
Result<std::vector<AgentScore>> scores_of(const QueriedTask& task, const ScoreQuery& query) {
  const int32_t partition = task.spec.inputs.front().second;
  TRY_ASSIGN(Rules rules, processors::FoldedRules::read(task.store, processors::Scoring::config_kinds()));
  TRY_ASSIGN(std::vector<std::string> ids, processors::agent_ids(task.store));
  std::vector<AgentScore> found;
  bool whole = true;
  for (const std::string& id : ids) {
    if (!glob_match(query.agent, id)) continue;
    Names metric_names;
    TRY_ASSIGN(auto agent, processors::read_agent(task.store, id, metric_names));
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
    std::set<WindowTarget> targets;
    for (Window window : kWindows)
      if (!query.window || *query.window == window) targets.insert({window, last_boundary(*query.at_ms, window)});
    TRY_ASSIGN(TaskMeta meta, read_meta(task.store));
    auto position = meta.positions.find({std::string(topic_spec(Topic::kReports).name), partition});
    WindowsAt windows(rules, targets, query.agent, partition);
    TRY(fold_again(task.log, task.names, partition, position == meta.positions.end() ? Offset(0) : position->second, windows));
    found = windows.scores();
  }
  std::erase_if(found, [&](const AgentScore& score) { return !glob_match(query.division, score.division_id); });
  std::sort(found.begin(), found.end(), [](const AgentScore& a, const AgentScore& b) {
    return std::tie(a.agent_id, a.window) < std::tie(b.agent_id, b.window);
  });
  return found;
}

/// {"instant","computedAt","configVersion","rows"}
Result<Json> scores_part(const QueriedTask& task, const Question& question) {
  TRY_ASSIGN(ScoreQuery query, score_query(question));
  TRY_ASSIGN(auto found, scores_of(task, query));
  TRY_ASSIGN(TaskMeta meta, read_meta(task.store));
  TRY_ASSIGN(Rules rules, processors::FoldedRules::read(task.store, processors::Scoring::config_kinds()));
  const std::string version = rules_version(rules, ConfigKind::kScoring);
  Json::Array rows;
  for (const AgentScore& score : found) {
    TRY_ASSIGN(Json row, parse_json(score.to_json(version, meta.instant)));
    rows.push_back(std::move(row));
  }
  return Json::object()
      .set("instant", meta.instant.value)
      .set("computedAt", format_rfc3339_ms(meta.instant.value))
      .set("configVersion", version)
      .set("rows", std::move(rows));
}

/// {"end"}: where the last open window of any agent ends, null without agents.
Result<Json> board_end_part(const QueriedTask& task, const Question& question) {
  TRY_ASSIGN(ScoreQuery query, score_query(question));
  TRY_ASSIGN(auto open, scores_of(task, query));
  Json end;
  for (const AgentScore& score : open)
    end = Json(static_cast<double>(std::max(end.is_null() ? score.end : static_cast<int64_t>(end.as_number()), score.end)));
  return Json::object().set("end", std::move(end));
}

/// {"rows"}: what a leaderboard ranks.
Result<Json> board_part(const QueriedTask& task, const Question& question) {
  TRY_ASSIGN(ScoreQuery query, score_query(question));
  TRY_ASSIGN(auto scores, scores_of(task, query));
  Json::Array rows;
  for (const AgentScore& s : scores) {
    if (!s.score) continue;
    rows.push_back(Json::object()
                       .set("agentId", s.agent_id)
                       .set("divisionId", s.division_id)
                       .set("window", window_name(s.window))
                       .set("windowEnd", format_rfc3339_ms(s.end))
                       .set("score", *s.score)
                       .set("lower", *s.lower)
                       .set("upper", *s.upper)
                       .set("samples", s.samples));
  }
  return Json::object().set("rows", std::move(rows));
}

/// {"rows"}: the task's row of `state digest`.
Result<Json> digest_part(const QueriedTask& task, const Question& question) {
  TRY_ASSIGN(TaskMeta meta, read_meta(task.store));
  // One input: the next offset to fold. Several: how far they have come in all.
  int64_t position = 0;
  Json inputs = Json::object();
  for (const auto& [tp, offset] : meta.positions) {
    if (tp.topic != topic_spec(Topic::kConfig).name) position += offset.value;
    inputs.set(to_string(tp), std::to_string(offset.value));
  }
  Json row = Json::object();
  row.set("task", task.spec.name).set("sequence", std::to_string(meta.sequence)).set("position", std::to_string(position));
  if (question.param("recompute") == "1") {
    TRY_ASSIGN(const state::Digest digest, recompute_digest(task.store, task.spec));
    row.set("digest", digest.hex());
    if (digest != meta.digest) row.set("stored", meta.digest.hex());
  } else {
    row.set("digest", meta.digest.hex());
  }
  Json::Array rows;
  rows.push_back(std::move(row.set("inputs", std::move(inputs))));
  return Json::object().set("rows", std::move(rows));
}

/// {"delivered","accepted","refused":{reason:count}}
Result<Json> tally_part(const QueriedTask& task) {
  TRY_ASSIGN(TaskMeta meta, read_meta(task.store));
  Json refused = Json::object();
  for (size_t r = 0; r < kReasonCount; ++r)
    if (meta.tally.refused[r] > 0) refused.set(reason_code(static_cast<Reason>(r)), meta.tally.refused[r]);
  return Json::object()
      .set("delivered", meta.tally.delivered)
      .set("accepted", meta.tally.accepted)
      .set("refused", std::move(refused));
}

/// The rows of all parts, one part after the other.
Json::Array rows_of(std::vector<Json>& parts) {
  Json::Array rows;
  for (Json& part : parts)
    for (auto& [name, member] : part.as_object())
      if (name == "rows") std::ranges::move(member.as_array(), std::back_inserter(rows));
  return rows;
}

/// An agent lives in one partition, so its windows stay together and in order.
void sort_by_agent(Json::Array& rows) {
  std::ranges::stable_sort(rows, {}, [](const Json& row) { return row.string_or("agentId", ""); });
}

/// Rules come to every partition alike; a partition that has folded a later event than another is told apart by its version.
Json merge_scores(std::vector<Json> parts) {
  const Json* newest = nullptr;
  for (const Json& part : parts)
    if (newest == nullptr || part.number_or("instant", 0) >= newest->number_or("instant", 0)) newest = &part;
  if (newest == nullptr) return Json::array();
  const std::string computed_at(newest->string_or("computedAt", "")), version(newest->string_or("configVersion", ""));
  Json::Array rows = rows_of(parts);
  for (Json& row : rows) row.set("computedAt", computed_at).set("configVersion", version);
  sort_by_agent(rows);
  return Json(std::move(rows));
}

Json merge_tallies(const std::vector<Json>& parts) {
  double delivered = 0, accepted = 0, filtered = 0, dead = 0;
  Json by_reason = Json::object();
  for (const Json& part : parts) {
    delivered += part.number_or("delivered", 0);
    accepted += part.number_or("accepted", 0);
  }
  for (size_t r = 0; r < kReasonCount; ++r) {
    const auto reason = static_cast<Reason>(r);
    double count = 0;
    for (const Json& part : parts)
      if (const Json* refused = part.find("refused")) count += refused->number_or(reason_code(reason), 0);
    (is_filtered(reason) ? filtered : dead) += count;
    if (count > 0) by_reason.set(reason_code(reason), count);
  }
  return Json::object()
      .set("delivered", delivered)
      .set("accepted", accepted)
      .set("filtered", filtered)
      .set("deadLetters", dead)
      .set("byReason", std::move(by_reason));
}

/// Best first, ties by id; `before` gives the ranks of an hour ago.
Json rank(Json::Array now, Json::Array before, size_t top) {
  auto order = [](Json::Array& rows) {
    std::ranges::sort(rows, [](const Json& a, const Json& b) {
      const double left = a.number_or("score", 0), right = b.number_or("score", 0);
      return left != right ? left > right : a.string_or("agentId", "") < b.string_or("agentId", "");
    });
  };
  order(now);
  order(before);
  std::map<std::string, int64_t, std::less<>> rank_before;
  for (size_t i = 0; i < before.size(); ++i) rank_before.emplace(before[i].string_or("agentId", ""), static_cast<int64_t>(i) + 1);
  Json::Array rows;
  for (size_t i = 0; i < now.size() && i < top; ++i) {
    const int64_t place = static_cast<int64_t>(i) + 1;
    const auto old = rank_before.find(now[i].string_or("agentId", ""));
    Json row = Json::object().set("rank", place);
    for (auto& [name, value] : now[i].as_object()) row.set(name, std::move(value));
    rows.push_back(std::move(row.set("movement", old == rank_before.end() ? Json() : Json(old->second - place))));
  }
  return Json(std::move(rows));
}

Result<Json> scoreboard(const Parts& parts, const std::vector<std::string>& tasks, const Question& question) {
  TRY_ASSIGN(auto window, window_of(question));
  TRY_ASSIGN(auto at, time_of(question));
  const Window board = window.value_or(Window::k24h);
  const std::string top = question.param("top", "10");
  if (top.empty() || top.size() > 9 || top.find_first_not_of("0123456789") != std::string::npos)
    return Error{Errc::kUsage, "--top " + top + ": a count of rows"};
  Question asked{"board", {{"division", question.param("division", "*")}, {"window", std::string(window_name(board))}}};
  // Without an instant the board ends at the first boundary after the greatest timestamp, so that it holds everything.
  std::optional<int64_t> end;
  if (at) {
    end = last_boundary(*at, board);
  } else {
    TRY_ASSIGN(auto ends, parts(tasks, {"board-end", asked.params}));
    for (const Json& part : ends)
      if (const Json* one = part.find("end"); one != nullptr && one->is_number())
        end = std::max(end.value_or(0), static_cast<int64_t>(one->as_number()));
  }
  if (!end) return Json::array();
  auto rows_at = [&](int64_t instant) -> Result<Json::Array> {
    Question then = asked;
    then.params.emplace_back("at", format_rfc3339_ms(instant));
    TRY_ASSIGN(auto found, parts(tasks, then));
    return rows_of(found);
  };
  TRY_ASSIGN(auto now, rows_at(*end));
  TRY_ASSIGN(auto before, rows_at(*end - kHourMs));
  return rank(std::move(now), std::move(before), std::stoul(top));
}

Json merge_events(std::vector<Json> parts) {
  Json::Array rows = rows_of(parts);
  // By time, whichever partition they come from; rows without one (pools) keep their order.
  std::ranges::stable_sort(rows, {},
                           [](const Json& row) { return std::make_pair(row.string_or("ts", ""), row.string_or("entityId", "")); });
  return Json(std::move(rows));
}

Result<Json> wrapped(Result<Json> rows) {
  if (!rows) return rows;
  return Json::object().set("rows", std::move(*rows));
}

}  // namespace

std::string Question::param(std::string_view wanted, std::string_view fallback) const {
  for (const auto& [key, value] : params)
    if (key == wanted) return value;
  return std::string(fallback);
}

Result<Json> part_of(const QueriedTask& task, const Question& question) {
  if (question.name == "scores") return scores_part(task, question);
  if (question.name == "board-end") return board_end_part(task, question);
  if (question.name == "board") return board_part(task, question);
  if (question.name == "digest") return digest_part(task, question);
  if (question.name == "tally") return tally_part(task);
  if (question.name == "promotions") return wrapped(processors::promotions_json(task.store));
  if (question.name == "allocations") return wrapped(processors::allocations_json(task.store));
  if (question.name == "pools") return wrapped(processors::pools_json(task.store));
  return Error{Errc::kNotFound, "no question " + question.name};
}

Result<Json> answer_from(const Parts& parts, const TopicNames& names, const Question& question) {
  const std::string& name = question.name;
  const std::string processor = name == "promotions"                       ? "promotion"
                                : name == "allocations" || name == "pools" ? "allocation"
                                : name == "tally"                          ? question.param("processor", "scoring")
                                : name == "scores" || name == "scoreboard" ? "scoring"
                                                                           : "";
  if (processor.empty() && name != "digest") return Error{Errc::kNotFound, "no question " + name};
  std::vector<std::string> tasks;
  for (const ProcessorPlan& plan : topology(names, {}))
    for (int32_t p = 0; p < plan.task_count(names); ++p)
      if (processor.empty() || plan.name == processor) tasks.push_back(plan.task(p).name);
  if (name == "scoreboard") return scoreboard(parts, tasks, question);
  if (name == "scores") TRY(score_query(question));  // what cannot be read is refused before anybody is asked
  TRY_ASSIGN(std::vector<Json> found, parts(tasks, question));
  CHECK(found.size() == tasks.size());
  if (name == "scores") return merge_scores(std::move(found));
  if (name == "tally") return merge_tallies(found);
  if (name == "digest") return Json(rows_of(found));
  if (name != "pools") return merge_events(std::move(found));
  Json::Array rows = rows_of(found);
  if (question.param("waiting").empty())  // a gauge's business, not a member of the documented row
    for (Json& row : rows) std::erase_if(row.as_object(), [](const auto& member) { return member.first == "waiting"; });
  return Json(std::move(rows));
}

Parts parts_of(Stores stores, Log& log, const TopicNames& names) {
  return [stores = std::move(stores), &log, names](const std::vector<std::string>& tasks,
                                                   const Question& question) -> Result<std::vector<Json>> {
    const std::vector<ProcessorPlan> plans = topology(names, {});
    std::vector<Json> out;
    for (const std::string& task : tasks) {
      const auto store = stores.find(task);
      if (store == stores.end() || store->second == nullptr)
        return Error{Errc::kIncomplete, "the state of " + task + " cannot be had"};
      TRY_ASSIGN(TaskSpec spec, find_task(plans, names, task));
      TRY_ASSIGN(Json part, part_of({spec, *store->second, log, names}, question));
      out.push_back(std::move(part));
    }
    return out;
  };
}

}  // namespace assay::streams
