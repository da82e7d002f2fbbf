// What a task does at start: a pure decision over what the store, the group's offsets and the log say.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "streams/base.h"
#include "streams/log.h"
#include "streams/manifest.h"

namespace assay::streams {

enum class Recovery : uint8_t {
  kFresh,            // nothing was ever committed: begin at the log's start
  kClean,            // the store stands where the last commit left it
  kCatchUp,          // the store is behind: fold the missing manifests with outputs suppressed
  kStateAhead,       // halt: the store holds commits that the log does not know
  kOffsetsLost,      // halt: the group's offsets are gone while the store has some
  kTornTransaction,  // halt: offsets were committed without their manifest
  kLogDiverged,      // halt: the log holds another history than the one the store was folded from
  kInputGap,         // halt: retention took records that the store still needs
  kTopologyChanged,  // halt: the task's inputs are not those of its last commit
};

/// "clean", "catch up", "STATE_AHEAD" …: halts are the words alerts and runbooks use.
std::string_view recovery_name(Recovery outcome);
constexpr bool is_halt(Recovery outcome) { return outcome > Recovery::kCatchUp; }

/// Everything the decision looks at.
struct Evidence {
  // The store.
  int64_t stored_sequence = 0;
  std::string stored_manifest_hash;
  std::map<TopicPartition, Offset> stored_positions;  // of the inputs
  // The group's committed offsets; no mark when nothing was committed.
  std::optional<CommitMark> mark;
  std::map<TopicPartition, Offset> committed;
  // The manifests of the log.
  std::optional<std::string> last_manifest_hash;      // of the record at mark->manifest_offset; nothing: there is none
  std::optional<std::string> stored_manifest_in_log;  // hash of the record at the store's manifest offset; nothing: there is none
  // The inputs of the log.
  std::map<TopicPartition, OffsetRange> inputs;
};

struct Decision {
  Recovery outcome;
  std::string detail;  // one sentence for the log and the operator
};

/// Pure. Cost: none; task.cc gathers the evidence.
Decision decide(const Evidence& evidence);

}  // namespace assay::streams
