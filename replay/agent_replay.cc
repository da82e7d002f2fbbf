#include "replay/agent_replay.h"

#include <algorithm>
#include <map>
#include <utility>

#include "replay/json_difference.h"
#include "replay/key_history.h"
#include "replay/row_difference.h"
#include "replay/trace.h"
#include "streams/refold.h"

namespace assay::replay {
namespace {

/// Values of the records that came out, by their ids.
using Made = std::map<std::string, std::string>;

/// The agent's rows: what stands under its id, alone or with a NUL behind it.
Result<std::map<std::string, std::string>> rows_of(const state::Reader& store, const std::string& agent) {
  std::map<std::string, std::string> out;
  for (const char* kind : {"A", "P", "D", "agent/", "event/"}) {
    const std::string prefix = kind + agent;
    TRY(store.scan(prefix, [&](std::string_view key, std::string_view value) {
      if (key.size() == prefix.size() || key[prefix.size()] == '\0') out.emplace(key, value);
      return true;
    }));
  }
  return out;
}

state::Digest digest_of(const std::map<std::string, std::string>& rows, const streams::TaskSpec& spec) {
  state::Digest sum;
  for (const auto& [key, value] : rows) sum += spec.row_digest(key, value);
  return sum;
}

/// Compares what came out with what the task wrote under this key.
Result<int64_t> compare_records(streams::Log& log, const ReplayOptions& options, const streams::TaskSpec& spec, Topic topic,
                                const std::string& agent, Made made) {
  const int32_t partition = topic == Topic::kAudit ? 0 : partition_of(agent, options.names.partitions());
  const TopicPartition tp{options.names.full(topic), partition};
  const auto count = static_cast<int64_t>(made.size());
  TRY_ASSIGN(const streams::OffsetRange range, log.range(tp));
  auto each = [&](const RecordView& record) -> Result<void> {
    const auto stamp = streams::WriterStamp::parse(record.header(kHeaderWriter).value_or(""));
    if (!stamp || !stamp->writer.starts_with(spec.name + "/")) return {};
    const std::string id(record.header(kHeaderId).value_or(""));
    const std::string which =
        "replaying " + agent + ": record " + id + " of " + to_string(tp) + " at offset " + std::to_string(record.offset.value);
    const auto found = made.find(id);
    if (found == made.end()) {
      if (topic == Topic::kAudit) return {};  // another agent's, or a range's
      return Error{Errc::kParity, which + " does not come out again"};
    }
    if (found->second != record.value.value_or(""))
      return Error{Errc::kParity,
                   which + ": " + text_difference(record.value.value_or(""), "on the log", found->second, "folded again")};
    made.erase(found);
    return {};
  };
  Result<void> compared;
  if (topic == Topic::kAudit) {
    streams::RangeReader ranges(log);
    compared = ranges.read(tp, range.start, range.end, [&](std::span<const RecordView> records) -> Result<void> {
      for (const RecordView& record : records) TRY(each(record));
      return {};
    });
  } else {
    compared = read_key(log, tp, agent, range.start, range.end, each);
  }
  TRY(std::move(compared));
  if (made.empty()) return count;
  return Error{Errc::kIncomplete,
               "replaying " + agent + ": record " + made.begin()->first + ", which comes out, is not on " + to_string(tp)};
}

}  // namespace

Result<std::vector<ReplayedTask>> replay_agent(streams::Log& log, const streams::StoreFactory& stores, const ReplayOptions& options,
                                               const std::string& agent) {
  const std::string partition = std::to_string(partition_of(agent, options.names.partitions()));
  const auto plans = streams::topology(options.names, options.scoring);
  std::vector<ReplayedTask> out;
  for (const char* processor : {"scoring-", "promotion-"}) {
    TRY_ASSIGN(const streams::TaskSpec spec, streams::find_task(plans, options.names, processor + partition));
    ReplayedTask task;
    task.task = spec.name;
    std::map<Topic, Made> made;
    std::map<std::string, std::string> rows;
    Result<void> kept;
    Trace trace;
    trace.key = agent;
    trace.after = [&](const TracedRecord& r, const processors::Outputs& outputs) {
      task.delivered += r.place.topic != topic_spec(Topic::kConfig).name;
      for (const processors::Output& output : outputs.records) made[output.topic][output.id.hex()] = output.value;
      return true;
    };
    trace.end = [&](const state::Reader& state, int64_t manifests) {
      task.manifests = manifests;
      if (auto found = rows_of(state, agent))
        rows = std::move(*found);
      else
        kept = found.error();
    };
    TRY(trace_task(log, options.names, spec, trace));
    TRY(std::move(kept));
    task.digest = digest_of(rows, spec);
    if (options.check_outputs)
      for (Topic topic : {Topic::kScores, Topic::kPromotions, Topic::kAudit}) {
        const bool its = topic == Topic::kAudit || (topic == Topic::kScores) == (out.empty());
        if (!its) continue;
        TRY_ASSIGN(const int64_t compared, compare_records(log, options, spec, topic, agent, std::move(made[topic])));
        task.outputs += compared;
      }
    TRY_ASSIGN(auto store, stores(spec.name));
    bool empty = true;
    TRY(store->scan("", [&](std::string_view, std::string_view) { return empty = false; }));
    if (!empty) return Error{Errc::kRefused, "replaying " + agent + " into the store of " + spec.name + ": it is not empty"};
    state::WriteBatch batch;
    for (auto& [key, value] : rows) batch.put(key, value);
    TRY(store->write(batch));
    out.push_back(std::move(task));
  }
  return out;
}

Result<void> compare_agent(const streams::TaskSpec& spec, const std::string& agent, const state::Reader& rebuilt,
                           const state::Reader& running) {
  TRY_ASSIGN(const auto a, rows_of(rebuilt, agent));
  TRY_ASSIGN(auto b, rows_of(running, agent));
  const state::Digest one = digest_of(a, spec), other = digest_of(b, spec);
  if (one == other) return {};
  // Remembered ids may be packed otherwise: they are named only where nothing else differs.
  std::string difference;
  for (const bool ids : {false, true}) {
    auto look = [&](const std::string& key, const auto& x, const auto& y) {
      if (difference.empty() && key.starts_with('D') == ids && x != y) difference = row_difference(key, x, y);
    };
    using Value = std::optional<std::string>;
    for (const auto& [key, value] : a) look(key, Value(value), b.contains(key) ? Value(b.at(key)) : Value());
    for (const auto& [key, value] : b)
      if (!a.contains(key)) look(key, Value(), Value(value));
  }
  return Error{Errc::kParity, "comparing " + agent + " in " + spec.name + ": digest " + one.hex() + " rebuilt, " + other.hex() +
                                  " running; " + difference};
}

}  // namespace assay::replay
