#include "streams/recovery.h"

#include "schemas/planted.h"

namespace assay::streams {
namespace {

std::string text(Offset o) { return std::to_string(o.value); }
std::string manifest(int64_t sequence) { return "manifest " + std::to_string(sequence); }

/// Rows 10 to 13: whatever the store knows, the task goes on from the committed offsets in the end.
std::optional<Decision> judge_committed(const Evidence& e) {
  for (const auto& [tp, range] : e.inputs)
    if (!e.committed.contains(tp) && !e.stored_positions.contains(tp))
      return Decision{Recovery::kTopologyChanged, to_string(tp) + " is an input now, which no commit has named"};
  for (const auto& [tp, range] : e.inputs)
    if (!e.committed.contains(tp))
      return Decision{Recovery::kOffsetsLost,
                      "the group has no committed offset of " + to_string(tp) + ", which every commit names"};
  for (const auto& [tp, range] : e.inputs)
    if (const Offset at = e.committed.at(tp); at < range.start)
      return Decision{Recovery::kInputGap, to_string(tp) + " begins at " + text(range.start) + ", the next record to fold was " +
                                               text(at) + "; the archive is needed"};
  for (const auto& [tp, range] : e.inputs)
    if (const Offset at = e.committed.at(tp); at > range.end)
      return Decision{Recovery::kLogDiverged,
                      to_string(tp) + " ends at " + text(range.end) + ", before the committed offset " + text(at)};
  return std::nullopt;
}

/// The first range that a base needs and the log has not, in words.
std::optional<std::string> missing(const Evidence& e, const std::map<TopicPartition, Offset>& needs) {
  for (const auto& [tp, range] : e.inputs) {
    auto need = needs.find(tp);
    if (need != needs.end() && need->second < range.start && need->second < e.committed.at(tp))
      return to_string(tp) + " from " + text(need->second) + " to " + text(std::min(range.start, e.committed.at(tp))) + " is gone";
  }
  return std::nullopt;
}

Decision restore_or_gap(const Evidence& e) {
  const std::string from = "the checkpoint at " + manifest(e.checkpoint->sequence);
  if (auto gone = missing(e, e.checkpoint->positions))
    return {Recovery::kInputGap, *gone + ", which " + from + " needs; the archive is needed"};
  return {Recovery::kRestore, from + " (the store stands at " + std::to_string(e.stored_sequence) + ", the log at " +
                                  std::to_string(e.mark->sequence) + ")"};
}

}  // namespace

std::string_view recovery_name(Recovery outcome) {
  switch (outcome) {
    case Recovery::kFresh:
      return "fresh";
    case Recovery::kClean:
      return "clean";
    case Recovery::kCatchUp:
      return "catch up";
    case Recovery::kRestore:
      return "restore";
    case Recovery::kStateAhead:
      return "STATE_AHEAD";
    case Recovery::kOffsetsLost:
      return "OFFSETS_LOST";
    case Recovery::kTornTransaction:
      return "TORN_TXN";
    case Recovery::kLogDiverged:
      return "LOG_DIVERGED";
    case Recovery::kInputGap:
      return "INPUT_GAP";
    case Recovery::kTopologyChanged:
      return "TOPOLOGY_CHANGED";
  }
  return "unknown";
}

Decision decide(const Evidence& e) {
  const bool empty = e.stored_sequence == 0;
  const std::string stands = "the store stands at " + manifest(e.stored_sequence);
  for (const auto& [tp, offset] : e.stored_positions)
    if (!empty && !e.inputs.contains(tp))
      return {Recovery::kTopologyChanged, "the store was folded from " + to_string(tp) + ", which is no input now"};
  const Decision another_record{Recovery::kLogDiverged,
                                e.anchor_place + " does not hold the record that the store folded from there"};
  const bool diverged = !empty && e.anchor == AnchorFound::kOther;

  if (!e.mark || !e.foreign_mark.empty()) {
    if (diverged) return another_record;
    if (!e.foreign_mark.empty())
      return {Recovery::kOffsetsLost,
              "the group's offsets were set by something else: their metadata is \"" + e.foreign_mark + "\""};
    if (!empty) return {Recovery::kOffsetsLost, stands + ", the group has no committed offset"};
    if (e.later_manifest) return {Recovery::kOffsetsLost, "the log has manifests of the task, the group has no committed offset"};
    return {Recovery::kFresh, "nothing was committed before"};
  }

  const CommitMark& mark = *e.mark;
  const std::string place = "offset " + text(mark.manifest_offset);
  if (!e.last_manifest_hash)
    return {Recovery::kTornTransaction, "offsets name " + manifest(mark.sequence) + " at " + place + ", where there is none"};
  if (*e.last_manifest_hash != mark.manifest_hash)
    return {Recovery::kLogDiverged, "the manifest at " + place + " is not the one the offsets were committed with"};
  if (e.later_manifest)
    return {Recovery::kTornTransaction, "a manifest follows that at " + place + ", which is the last that the offsets name"};
  if (auto halt = judge_committed(e)) return *halt;

  if (e.stored_sequence > mark.sequence) {
    if (e.checkpoint) return restore_or_gap(e);
    return {Recovery::kStateAhead,
            stands + ", the log at " + std::to_string(mark.sequence) + ", and it knows no checkpoint of this directory"};
  }
  if (planted(Bug::kSequenceNotChecked) && !empty) return {Recovery::kClean, manifest(e.stored_sequence)};
  const bool at = e.stored_sequence == mark.sequence;
  if (!empty && (at ? e.stored_manifest_hash != mark.manifest_hash : e.stored_manifest_in_log != e.stored_manifest_hash))
    return {Recovery::kLogDiverged, manifest(e.stored_sequence) + " of the store is not in the log"};
  if (diverged) return another_record;
  if (at) return {Recovery::kClean, manifest(mark.sequence)};
  if (e.checkpoint && e.checkpoint->sequence > e.stored_sequence) return restore_or_gap(e);
  if (auto gone = missing(e, empty ? e.first : e.stored_positions))
    return {Recovery::kInputGap, *gone + ", which the store needs; the archive is needed"};
  return {Recovery::kCatchUp, "from " + manifest(e.stored_sequence) + " to " + std::to_string(mark.sequence)};
}

}  // namespace assay::streams
