// Small wrong versions of the system, for the test that shows that the simulator finds each of them. Only its own objects are
// compiled with ASSAY_PLANTED_BUGS; everywhere else `planted` is false before the program runs, and nothing of a bug is left.
#pragma once

#include <cstdint>

namespace assay::schemas {

enum class Bug : uint8_t {
  kNone,
  // The runtime.
  kUnacknowledgedCommit,  // a commit without an answer is taken for done
  kFailedCommit,          // a commit without an answer is taken for failed, and written once more
  kAmbiguousProducer,     // after a commit without an answer the same producer goes on
  kStoreBeforeCommit,
  kFullDiskIgnored,
  kOffsetOffByOne,      // of the place where a restart goes on
  kSequenceNotChecked,  // a store that is behind goes on from where it stands
  kPromotedEarly,       // a copy goes on from where it stands when it is taken over
  kSeekForgotten,       // after a commit that has to be folded again
  kStaleFencing,        // a new owner fences nobody
  kOutputsInCatchUp,    // they are written again
  kRepeatAccepted,      // a writer's counter that was seen before
  kGapAccepted,         // a jump of a writer's counter
  kInstantBackwards,    // a commit's instant follows the clock wherever it jumps
  // The store.
  kDigestNotUpdated,    // by the row that is replaced
  kUnreadableIsAbsent,  // a row that cannot be read
  // The domain.
  kLatePaneLost,  // of a report older than the clock
  kDedupeLost,    // the remembered ids, when an agent is read from the store
  kHorizonLost,   // where windows were closed up to, when an agent is read from the store
  kPoolOvercommitted,
  // The audit chain.
  kUnansweredRows,  // rows whose COMMIT got no answer are taken for stored
  kLast = kUnansweredRows,
};

#ifdef ASSAY_PLANTED_BUGS
extern Bug planted_bug;  // the one that a test has chosen
inline namespace with_planted_bugs {
inline bool planted(Bug bug) { return planted_bug == bug; }
}  // namespace with_planted_bugs
#else
constexpr bool planted(Bug) { return false; }
#endif

}  // namespace assay::schemas
