#include "tools/session.h"

#include <algorithm>
#include <filesystem>

#include "processors/allocation.h"
#include "processors/promotion.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/http_server.h"
#include "streams/read_to_end.h"
#include "tools/open_log.h"

namespace assay::tools {
namespace {

std::string param(const QueryParams& params, std::string_view name, std::string_view fallback = "") {
  for (const auto& [key, value] : params)
    if (key == name) return value;
  return std::string(fallback);
}

Result<std::optional<int64_t>> time_param(const QueryParams& params) {
  const std::string text = param(params, "at");
  if (text.empty()) return std::optional<int64_t>();
  auto ms = parse_rfc3339_ms(text);
  if (!ms) return Error{Errc::kUsage, "--at " + text + ": not an RFC 3339 time with a zone, like 2026-05-01T12:00:00Z"};
  return std::optional<int64_t>(*ms);
}

Result<std::optional<Window>> window_param(const QueryParams& params) {
  const std::string text = param(params, "window");
  if (text.empty()) return std::optional<Window>();
  auto window = parse_window(text);
  if (!window) return Error{Errc::kUsage, "--window " + text + ": one of 1h, 24h, 7d"};
  return window;
}

Result<Json> scores(const QueryTarget& target, const QueryParams& params) {
  streams::ScoreQuery query;
  query.agent = param(params, "agent", "*");
  query.division = param(params, "division", "*");
  TRY_ASSIGN(query.window, window_param(params));
  TRY_ASSIGN(query.at_ms, time_param(params));
  TRY_ASSIGN(auto found, streams::query_scores(target.stores, *target.log, target.names, query));
  return streams::scores_json(found, target.stores, target.names);
}

Result<Json> scoreboard(const QueryTarget& target, const QueryParams& params) {
  streams::BoardQuery query;
  query.division = param(params, "division", "*");
  TRY_ASSIGN(auto window, window_param(params));
  if (window) query.window = *window;
  TRY_ASSIGN(query.at_ms, time_param(params));
  const std::string top = param(params, "top", "10");
  if (top.empty() || top.size() > 9 || top.find_first_not_of("0123456789") != std::string::npos)
    return Error{Errc::kUsage, "--top " + top + ": a count of rows"};
  query.top = std::stoul(top);
  return streams::query_scoreboard(target.stores, *target.log, target.names, query);
}

/// Every event of one entity or allocation, from the topic.
Result<Json> history(const QueryTarget& target, Topic topic, const std::string& id) {
  TRY_ASSIGN(auto partitions, streams::partitions_of(*target.log, target.names.full(topic)));
  std::vector<std::pair<int64_t, Json>> events;
  TRY(streams::read_to_end(*target.log, partitions, [&](const TopicPartition&, const RecordView& record) -> Result<bool> {
    auto event = parse_json(record.value.value_or(""));
    if (!event) return true;
    for (const char* key : {"id", "entityId", "allocationId"})
      if (event->string_or(key, "") == id) {
        events.emplace_back(parse_rfc3339_ms(event->string_or("ts", "")).value_or(0), std::move(*event));
        break;
      }
    return true;
  }));
  std::stable_sort(events.begin(), events.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  Json::Array rows;
  for (auto& [ts, event] : events) rows.push_back(std::move(event));
  return Json(std::move(rows));
}

/// Rows of every task of a processor, one after the other.
Result<Json> collect(const QueryTarget& target, std::string_view processor, Result<Json> (*rows_of)(const state::Reader&)) {
  Json::Array rows;
  for (const streams::ProcessorPlan& plan : streams::topology(target.names, {})) {
    if (plan.name != processor) continue;
    for (int32_t p = 0; p < plan.task_count(target.names); ++p) {
      const std::string task = plan.task(p).name;
      auto store = target.stores.find(task);
      if (store == target.stores.end()) return Error{Errc::kIncomplete, "the state of " + task + " cannot be had"};
      TRY_ASSIGN(Json part, rows_of(*store->second));
      for (Json& row : part.as_array()) rows.push_back(std::move(row));
    }
  }
  // By time, whichever partition they come from; rows without one (pools) keep their order.
  std::stable_sort(rows.begin(), rows.end(), [](const Json& a, const Json& b) {
    return std::make_pair(a.string_or("ts", ""), a.string_or("entityId", "")) <
           std::make_pair(b.string_or("ts", ""), b.string_or("entityId", ""));
  });
  return Json(std::move(rows));
}

/// Opens the stores of the data directory and makes sure that they are all there and not behind what was committed.
Result<streams::Stores> open_stores(const Settings& settings, const streams::TopicNames& names, streams::Log& log) {
  streams::Stores stores;
  for (const streams::ProcessorPlan& plan : streams::topology(names, {}))
    for (int32_t p = 0; p < plan.task_count(names); ++p) {
      const streams::TaskSpec spec = plan.task(p);
      TRY_ASSIGN(stores[spec.name], open_store(settings, spec, log));
    }
  return stores;
}

std::string url_encode(std::string_view text) {
  static constexpr char kDigits[] = "0123456789ABCDEF";
  std::string out;
  for (const char c : text) {
    if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
        c == '~') {
      out.push_back(c);
    } else {
      out.push_back('%');
      out.push_back(kDigits[static_cast<unsigned char>(c) >> 4]);
      out.push_back(kDigits[static_cast<unsigned char>(c) & 15]);
    }
  }
  return out;
}

}  // namespace

streams::TopicNames topic_names(const Settings& settings) {
  return {settings.topics.prefix, static_cast<int32_t>(settings.topics.partitions)};
}

std::string socket_path(const Settings& settings) { return (std::filesystem::path(settings.data_dir) / "assay.sock").string(); }

std::string state_dir(const Settings& settings, std::string_view task) {
  return (std::filesystem::path(settings.data_dir) / "state" / task).string();
}

Result<std::shared_ptr<const state::Reader>> open_store(const Settings& settings, const streams::TaskSpec& spec,
                                                        streams::Log& log) {
  const streams::TopicNames names = topic_names(settings);
  std::vector<TopicPartition> inputs;
  for (auto [topic, partition] : spec.inputs) inputs.push_back({names.full(topic), partition});
  TRY_ASSIGN(auto committed, log.committed(spec.group, inputs));
  int64_t sequence = 0;
  for (const auto& [tp, commit] : committed) {
    TRY_ASSIGN(auto mark, streams::CommitMark::decode(commit.metadata));
    sequence = std::max(sequence, mark.sequence);
  }
  auto store = state::open_rocksdb_store(state_dir(settings, spec.name), {.read_only = true});
  if (!store && store.error().code == Errc::kNotFound && sequence == 0)
    return std::shared_ptr<const state::Reader>(state::open_memory_store());  // a task that never committed knows nothing
  if (!store)
    return Error{store.error().code == Errc::kNotFound ? Errc::kIncomplete : store.error().code,
                 "the state of " + spec.name + " cannot be had: " + store.error().message};
  TRY_ASSIGN(auto meta, streams::read_meta(**store));
  if (meta.sequence != sequence)
    return Error{Errc::kIncomplete, "the state of " + spec.name + " here stands at manifest " + std::to_string(meta.sequence) +
                                        ", committed is " + std::to_string(sequence) + "; `assay run --until-end` folds the rest"};
  return std::shared_ptr<const state::Reader>(std::move(*store));
}

Result<std::vector<streams::LagRow>> measure_lag(const QueryTarget& target) {
  TRY_ASSIGN(auto topics, target.log->topics());
  auto retention_of = [&](const std::string& topic) {
    for (const auto& config : topics)
      if (config.name == topic) return config.retention_ms;
    return int64_t{-1};
  };
  std::vector<streams::LagTarget> targets;
  auto add = [&](const TopicPartition& tp, const std::string& group, std::optional<Offset> position, const std::string& task) {
    std::optional<bool> running;
    if (target.running && target.stores.contains(task)) running = true;
    targets.push_back({tp, group, position, running, retention_of(tp.topic)});
  };
  for (const streams::ProcessorPlan& plan : streams::topology(target.names, {}))
    for (const TopicPartition& tp : plan.input_partitions(target.names))
      add(tp, plan.group, std::nullopt, plan.name + "-" + std::to_string(plan.single_task ? 0 : tp.partition));
  add({target.names.full(Topic::kAudit), 0}, streams::audit_group(target.names), target.audit_position, "audit-0");
  streams::LagMonitor once;
  streams::LagMonitor& monitor = target.lag != nullptr ? *target.lag : once;
  return monitor.observe(*target.log, targets, wall_now());
}

Result<Json> answer(const QueryTarget& target, std::string_view query, const QueryParams& params) {
  if (query == "scores") return scores(target, params);
  if (query == "scoreboard") return scoreboard(target, params);
  if (query == "digest") return streams::query_digests(target.stores, target.names, param(params, "recompute") == "1");
  if (query == "tally") return streams::query_tally(target.stores, target.names, param(params, "processor", "scoring"));
  if (query == "pools") {
    TRY_ASSIGN(Json rows, collect(target, "allocation", &processors::pools_json));
    if (param(params, "waiting").empty())  // a gauge's business, not a member of the documented row
      for (Json& row : rows.as_array())
        std::erase_if(row.as_object(), [](const auto& member) { return member.first == "waiting"; });
    return rows;
  }
  const std::string id = param(params, "history");
  if (query == "promotions")
    return id.empty() ? collect(target, "promotion", &processors::promotions_json) : history(target, Topic::kPromotions, id);
  if (query == "allocations")
    return id.empty() ? collect(target, "allocation", &processors::allocations_json) : history(target, Topic::kAllocations, id);
  if (query == "lag") {
    TRY_ASSIGN(auto rows, measure_lag(target));
    return streams::lag_json(rows);
  }
  return Error{Errc::kNotFound, "no query " + std::string(query)};
}

Result<Json> ask(Context& context, std::string_view query, const QueryParams& params) {
  const Settings& settings = context.settings;
  if (std::filesystem::exists(socket_path(settings))) {
    std::string path = "/query/" + std::string(query);
    char separator = '?';
    for (const auto& [key, value] : params) {
      path += separator + url_encode(key) + "=" + url_encode(value);
      separator = '&';
    }
    auto response = streams::http_unix_get(socket_path(settings), path);
    if (response) {
      if (response->status / 100 != 2) return streams::error_of(*response);
      return parse_json(response->body);
    }
    // A socket that nobody listens on was left by a process that was killed.
    if (response.error().code != Errc::kUnreachable) return response.error();
  }
  TRY_ASSIGN(auto log, open_log(settings, LogAccess::kRead));
  TRY(check_partitions(settings, *log));
  QueryTarget target;
  target.names = topic_names(settings);
  target.log = log.get();
  if (query != "lag") {
    TRY_ASSIGN(target.stores, open_stores(settings, target.names, *log));
  }
  return answer(target, query, params);
}

}  // namespace assay::tools
