#include "streams/recommit.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "streams/refold.h"

namespace assay::streams {
namespace {

std::string number(int64_t n) { return std::to_string(n); }

/// The group must know nobody who has the task: whoever has it would go on from what it knows.
Result<void> refuse_owner(Log& log, const ProcessorPlan& plan, const TaskSpec& spec, const std::string& attempt) {
  TRY_ASSIGN(const GroupView view, log.members(spec.group));
  if (!view.settled) return Error{Errc::kRefused, attempt + ": the group " + spec.group + " is changing; stop its processes first"};
  const int32_t partition = plan.single_task ? 0 : spec.inputs.front().second;
  for (const GroupMember& member : view.members)
    if (std::ranges::find(member.partitions, partition, &TopicPartition::partition) != member.partitions.end())
      return Error{Errc::kRefused, attempt + ": " + member.client_id + " owns it; stop the processes of " + spec.group +
                                       " first, and wait until their session is over"};
  return {};
}

/// What the manifests say from the first to the last.
struct History {
  CommitMark last;
  std::map<TopicPartition, Offset> positions;  // full names
  std::string at_store;                        // hash of the manifest that the store stands at
};

Result<History> read_history(Log& log, const TopicNames& names, const TaskSpec& spec, int64_t stored, const std::string& attempt) {
  TRY_ASSIGN(const OffsetRange there, log.range({names.full(Topic::kManifests), spec.manifest_partition}));
  ManifestReader reader(log, names, spec, 0, there);
  History out;
  for (;;) {
    TRY_ASSIGN(const auto next, reader.next());
    if (!next) break;
    const auto& [at, manifest, hash] = *next;
    const std::string which = attempt + ": manifest " + number(manifest.sequence);
    if (manifest.previous != out.last.manifest_hash)
      return Error{Errc::kIncomplete, which + " does not follow the one before it: its hash is another"};
    for (const InputRange& range : manifest.ranges) {
      const TopicPartition tp{names.full(range.tp.topic), range.tp.partition};
      const auto [known, first] = out.positions.try_emplace(tp, range.from);
      if (!first && known->second != range.from)
        return Error{Errc::kIncomplete, which + " goes on at offset " + number(range.from.value) + " of " + to_string(tp) +
                                            ", the one before ended at " + number(known->second.value)};
      known->second = range.to;
    }
    out.last = {manifest.sequence, at, hash};
    if (manifest.sequence == stored) out.at_store = hash;
  }
  if (out.last.sequence == 0) return Error{Errc::kIncomplete, attempt + ": it has no manifest in " + log.describe()};
  return out;
}

}  // namespace

Result<Recommitted> recommit(Log& log, const TopicNames& names, const ProcessorPlan& plan, const TaskSpec& spec,
                             const state::Reader* store) {
  const std::string attempt = "committing the offsets of " + spec.name + " again";
  TRY(refuse_owner(log, plan, spec, attempt));
  TaskMeta meta;
  if (store != nullptr) {
    TRY_ASSIGN(meta, read_meta(*store));
  }
  TRY_ASSIGN(const History history, read_history(log, names, spec, meta.sequence, attempt));
  const std::string last = "manifest " + number(history.last.sequence);
  if (meta.sequence > history.last.sequence)
    return Error{Errc::kRefused, attempt + ": the store here stands at manifest " + number(meta.sequence) + ", the log's last is " +
                                     number(history.last.sequence) + "; this is STATE_AHEAD"};
  if (meta.sequence > 0 && meta.manifest_hash != history.at_store)
    return Error{Errc::kRefused,
                 attempt + ": manifest " + number(meta.sequence) + " of the store here is not the log's; this is LOG_DIVERGED"};

  Recommitted out;
  out.mark = history.last;
  std::vector<TopicPartition> inputs;
  for (auto [topic, partition] : spec.inputs) inputs.push_back({names.full(topic), partition});
  TRY_ASSIGN(out.were, log.committed(spec.group, inputs));
  for (const TopicPartition& tp : inputs) {
    TRY_ASSIGN(const OffsetRange range, log.range(tp));
    const auto known = history.positions.find(tp);
    // No manifest names an input that has never given anything: it is folded from its beginning.
    if (known == history.positions.end() && range.start > Offset(0))
      return Error{Errc::kIncomplete, attempt + ": no manifest names " + to_string(tp) + ", whose first " +
                                          number(range.start.value) + " places are gone"};
    const Offset next = known == history.positions.end() ? Offset(0) : known->second;
    if (next < range.start || next > range.end)
      return Error{Errc::kIncomplete, attempt + ": " + last + " ends at offset " + number(next.value) + " of " + to_string(tp) +
                                          ", which now holds " + number(range.start.value) + " to " + number(range.end.value) +
                                          "; this is " + (next < range.start ? "INPUT_GAP" : "LOG_DIVERGED")};
    out.offsets[tp] = next;
  }
  bool whole = true;
  for (const TopicPartition& tp : inputs) {
    const auto were = out.were.find(tp);
    const auto mark = were == out.were.end() ? std::nullopt : std::optional(CommitMark::decode(were->second.metadata));
    whole = whole && mark && mark->has_value() && were->second.offset >= out.offsets.at(tp);
    if (mark && mark->has_value() && **mark != out.mark)
      return Error{Errc::kRefused, attempt + ": the group's offset of " + to_string(tp) + " is ours and names manifest " +
                                       number((*mark)->sequence) + ", the log's last is " + number(out.mark.sequence) +
                                       "; this is TORN_TXN or LOG_DIVERGED"};
  }
  out.needed = !whole;
  if (whole) return out;

  TRY_ASSIGN(auto writer, log.open_writer(spec.transactional_id));
  Transaction transaction;
  transaction.offsets = OffsetCommit{spec.group, out.offsets};
  transaction.metadata = [text = out.mark.encode()](std::span<const Offset>) { return text; };
  TRY(writer->prepare(std::move(transaction)));
  TRY(writer->commit());
  TRY_ASSIGN(const auto now, log.committed(spec.group, inputs));
  for (const TopicPartition& tp : inputs)
    if (auto it = now.find(tp);
        it == now.end() || it->second.offset < out.offsets.at(tp) || it->second.metadata != out.mark.encode())
      return Error{Errc::kUnexpected, attempt + ": the group has something else for " + to_string(tp) + " after it"};
  return out;
}

}  // namespace assay::streams
