#include "streams/recovery.h"

namespace assay::streams {

std::string_view recovery_name(Recovery outcome) {
  switch (outcome) {
    case Recovery::kFresh:
      return "fresh";
    case Recovery::kClean:
      return "clean";
    case Recovery::kCatchUp:
      return "catch up";
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
  auto text = [](Offset o) { return std::to_string(o.value); };
  for (const auto& [tp, offset] : e.stored_positions)
    if (!e.inputs.contains(tp))
      return {Recovery::kTopologyChanged, "the store was folded from " + to_string(tp) + ", which is no input now"};

  if (!e.mark) {
    if (e.stored_sequence > 0)
      return {Recovery::kOffsetsLost,
              "the store stands at manifest " + std::to_string(e.stored_sequence) + ", the group has no committed offset"};
    return {Recovery::kFresh, "nothing was committed before"};
  }

  if (!e.last_manifest_hash)
    return {Recovery::kTornTransaction, "offsets name manifest " + std::to_string(e.mark->sequence) + " at offset " +
                                            text(e.mark->manifest_offset) + ", where there is none"};
  if (*e.last_manifest_hash != e.mark->manifest_hash)
    return {Recovery::kLogDiverged,
            "the manifest at offset " + text(e.mark->manifest_offset) + " is not the one the offsets were committed with"};
  if (e.stored_sequence > e.mark->sequence)
    return {Recovery::kStateAhead, "the store stands at manifest " + std::to_string(e.stored_sequence) + ", the log at " +
                                       std::to_string(e.mark->sequence)};
  if (e.stored_sequence == e.mark->sequence && e.stored_manifest_hash != e.mark->manifest_hash)
    return {Recovery::kLogDiverged, "manifest " + std::to_string(e.mark->sequence) + " of the store and of the log differ"};
  // Whether the task is behind or not, it goes on from the committed offsets in the end.
  for (const auto& [tp, range] : e.inputs) {
    auto at = e.committed.find(tp);
    if (at != e.committed.end() && at->second < range.start)
      return {Recovery::kInputGap,
              to_string(tp) + " begins at " + text(range.start) + ", the next record to fold was " + text(at->second)};
    if (at != e.committed.end() && at->second > range.end)
      return {Recovery::kLogDiverged,
              to_string(tp) + " ends at " + text(range.end) + ", before the committed offset " + text(at->second)};
  }
  if (e.stored_sequence == e.mark->sequence) return {Recovery::kClean, "manifest " + std::to_string(e.mark->sequence)};
  if (e.stored_sequence > 0 && e.stored_manifest_in_log != e.stored_manifest_hash)
    return {Recovery::kLogDiverged, "manifest " + std::to_string(e.stored_sequence) + " of the store is not in the log"};
  for (const auto& [tp, range] : e.inputs) {
    auto at = e.stored_positions.find(tp);
    const Offset need = at == e.stored_positions.end() ? Offset(0) : at->second;
    auto until = e.committed.find(tp);
    if (until != e.committed.end() && need < range.start && need < until->second)
      return {Recovery::kInputGap, to_string(tp) + " begins at " + text(range.start) + ", the store needs it from " + text(need)};
  }
  return {Recovery::kCatchUp, "from manifest " + std::to_string(e.stored_sequence) + " to " + std::to_string(e.mark->sequence)};
}

}  // namespace assay::streams
