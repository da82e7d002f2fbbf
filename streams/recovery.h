// What a task does at start: a pure decision over what the store, its checkpoints, the group's offsets and the log say.
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
  kRestore,          // a checkpoint of the store goes further than the store does: take it, then look again
  kStateAhead,       // halt: the store holds commits that the log does not know
  kOffsetsLost,      // halt: the group's offsets are gone, or not ours, although the task has committed
  kTornTransaction,  // halt: offsets were committed without their manifest, or a manifest without its offsets
  kLogDiverged,      // halt: the log holds another history than the one the store was folded from
  kInputGap,         // halt: retention took records that are still needed
  kTopologyChanged,  // halt: the task's inputs are not those of its last commit
};

/// "clean", "catch up", "STATE_AHEAD" …: halts are the words alerts and runbooks use.
std::string_view recovery_name(Recovery outcome);
constexpr bool is_halt(Recovery outcome) { return outcome > Recovery::kRestore; }

/// The record that was folded last of an input, as the log has it now.
enum class AnchorFound : uint8_t {
  kUnknown,  // retention took it, or nothing was folded yet
  kSame,
  kOther,  // another record, or none where the log must have one
};

/// A copy of the store that the log knows: its manifest is there and no anchor of it has changed.
struct KnownCheckpoint {
  int64_t sequence = 0;
  std::map<TopicPartition, Offset> positions;  // of the inputs
};

/// Everything the decision looks at. Inputs are those of the task now; names are full ones.
struct Evidence {
  // The store.
  int64_t stored_sequence = 0;  // 0: it is empty
  std::string stored_manifest_hash;
  std::map<TopicPartition, Offset> stored_positions;  // of the inputs
  AnchorFound anchor = AnchorFound::kUnknown;         // kOther when it is so of any input
  std::string anchor_place;                           // of the one that is kOther
  // The group's committed offsets; no mark when nothing was committed.
  std::optional<CommitMark> mark;
  std::map<TopicPartition, Offset> committed;
  std::string foreign_mark;  // metadata of a commit that is not of this system
  // The manifests of the log.
  std::optional<std::string> last_manifest_hash;      // of the record at mark->manifest_offset; nothing: there is none
  std::optional<std::string> stored_manifest_in_log;  // hash of the record at the store's manifest offset; nothing: there is none
  bool later_manifest = false;                        // there is one after the mark's; without a mark: there is any
  // The inputs of the log.
  std::map<TopicPartition, OffsetRange> inputs;
  // What to start from when the store is behind the log, empty, or ahead of the log.
  std::optional<KnownCheckpoint> checkpoint;  // the newest up to the mark
  std::map<TopicPartition, Offset> first;     // of an empty store: where the first manifest began
};

struct Decision {
  Recovery outcome;
  std::string detail;  // one sentence for the log and the operator
};

/// The decision table. Rows are read from the top; the first whose conditions all hold decides. "Store" is the manifest that the
/// store stands at, "mark" the manifest that the committed offsets name, "base" the furthest of the store, the checkpoint and the
/// very beginning.
///
///    store             offsets      manifests                inputs of the log                 checkpoint  outcome
///  1 not empty         any          any                      others than the store's           any         TOPOLOGY_CHANGED
///  2 not empty         none/foreign any                      anchor is another record          any         LOG_DIVERGED
///  3 not empty         none/foreign any                      any                               any         OFFSETS_LOST
///  4 empty             foreign      any                      any                               any         OFFSETS_LOST
///  5 empty             none         some                     any                               any         OFFSETS_LOST
///  6 empty             none         none                     any                               any         fresh
///  7 any               there        none at the mark         any                               any         TORN_TXN
///  8 any               there        another one at the mark  any                               any         LOG_DIVERGED
///  9 any               there        one after the mark       any                               any         TORN_TXN
/// 10 any               of some      the mark's is the last   one is new                        any         TOPOLOGY_CHANGED
/// 11 not empty         of some      the mark's is the last   one has lost its offset           any         OFFSETS_LOST
/// 12 any               there        the mark's is the last   begin after the committed offset  any         INPUT_GAP
/// 13 any               there        the mark's is the last   end before the committed offset   any         LOG_DIVERGED
/// 14 ahead of the mark there        the mark's is the last   any                               none        STATE_AHEAD
/// 15 ahead of the mark there        the mark's is the last   begin after the checkpoint's next known       INPUT_GAP
/// 16 ahead of the mark there        the mark's is the last   hold what the checkpoint needs    known       restore
/// 17 not in the log    there        the mark's is the last   any                               any         LOG_DIVERGED
/// 18 at or behind      there        the mark's is the last   anchor is another record          any         LOG_DIVERGED
/// 19 at the mark       there        the mark's is the last   any                               any         clean
/// 20 behind or empty   there        the mark's is the last   begin after the base's next       any         INPUT_GAP
/// 21 behind or empty   there        the mark's is the last   hold what the base needs          is the base restore
/// 22 behind or empty   there        the mark's is the last   hold what the base needs          is not      catch up
///
/// Pure. Cost: none; task.cc gathers the evidence.
Decision decide(const Evidence& evidence);

}  // namespace assay::streams
