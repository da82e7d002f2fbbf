#include "tools/session.h"

#include <algorithm>
#include <filesystem>
#include <map>

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

std::string archive_group(const streams::TopicNames& names) { return names.full("assay.archive"); }

Result<std::vector<streams::LagRow>> measure_lag(const QueryTarget& target, bool all_archived) {
  TRY_ASSIGN(auto topics, target.log->topics());
  auto retention_of = [&](const std::string& topic) {
    for (const auto& config : topics)
      if (config.name == topic) return config.retention_ms;
    return int64_t{-1};
  };
  std::vector<streams::LagTarget> targets;
  auto add = [&](const TopicPartition& tp, const std::string& group, std::optional<Offset> position, const std::string& task) {
    std::optional<bool> running;
    if (target.running.contains(task)) running = true;
    targets.push_back({tp, group, position, running, retention_of(tp.topic), task == "audit-0" ? target.audit_paused : ""});
  };
  for (const streams::ProcessorPlan& plan : streams::topology(target.names, {}))
    for (const TopicPartition& tp : plan.input_partitions(target.names))
      add(tp, plan.group, std::nullopt, plan.name + "-" + std::to_string(plan.single_task ? 0 : tp.partition));
  add({target.names.full(Topic::kAudit), 0}, streams::audit_group(target.names), target.audit_position, "audit-0");
  if (target.archive) {
    std::map<TopicPartition, const replay::ArchivedPlace*> ours;
    if (target.archive->places)
      for (const replay::ArchivedPlace& place : *target.archive->places) ours[place.tp] = &place;
    for (const auto& topic : topics) {
      if (!replay::is_archived(topic.name, target.names)) continue;
      for (int32_t p = 0; p < topic.partitions; ++p) {
        const TopicPartition tp{topic.name, p};
        auto own = ours.find(tp);
        if (own == ours.end() && !all_archived) continue;
        add(tp, archive_group(target.names), std::nullopt, "");
        streams::LagTarget& added = targets.back();
        added.waits_ms = target.archive->segment_age_ms;
        if (own == ours.end()) continue;
        added.position = own->second->archived;
        added.running = own->second->halt.empty();
        added.held = {own->second->read, own->second->waiting, own->second->oldest};
      }
    }
  }
  streams::LagMonitor once;
  streams::LagMonitor& monitor = target.lag != nullptr ? *target.lag : once;
  return monitor.observe(*target.log, targets, wall_now());
}

Result<Json> answer(const QueryTarget& target, std::string_view query, const QueryParams& params) {
  if (const std::string id = param(params, "history"); !id.empty()) {
    if (query == "promotions") return history(target, Topic::kPromotions, id);
    if (query == "allocations") return history(target, Topic::kAllocations, id);
  }
  if (query == "lag") {
    TRY_ASSIGN(auto rows, measure_lag(target));
    return streams::lag_json(rows);
  }
  return streams::answer_from(target.parts, target.names, {std::string(query), params});
}

Result<Json> ask(Context& context, std::string_view query, const QueryParams& params) {
  const Settings& settings = context.settings;
  const std::string socket = socket_path(settings);
  // A socket that nobody listens on was left by a process that was killed; one that does not answer, by one that is frozen.
  if (std::filesystem::exists(socket) && streams::http_unix_get(socket, "/health", 3000)) {
    auto response = streams::http_unix_get(socket, streams::http_target("/query/" + std::string(query), params));
    if (response) {
      if (response->status / 100 != 2) return streams::error_of(*response);
      return parse_json(response->body);
    }
    if (response.error().code != Errc::kUnreachable) return response.error();
  }
  TRY_ASSIGN(auto log, open_log(settings, LogAccess::kRead));
  TRY(check_partitions(settings, *log));
  const streams::TopicNames names = topic_names(settings);
  const std::vector<streams::ProcessorPlan> plans = streams::topology(names, {});
  auto local = [&](const std::string& task) -> Result<std::optional<streams::LocalTask>> {
    TRY_ASSIGN(streams::TaskSpec spec, streams::find_task(plans, names, task));
    TRY_ASSIGN(auto store, open_store(settings, spec, *log));
    return std::optional(streams::LocalTask{std::move(store), false});
  };
  streams::PeerOptions options;
  options.secret = settings.peers.secret;
  options.now = wall_now;
  const streams::Peers peers(*log, names, local, options);
  QueryTarget target{.names = names, .log = log.get(), .parts = peers.parts(), .audit_position = {}, .running = {}, .archive = {}};
  if (!settings.archive.url.empty()) target.archive = {settings.archive.segment_age_ms, std::nullopt};
  return answer(target, query, params);
}

}  // namespace assay::tools
