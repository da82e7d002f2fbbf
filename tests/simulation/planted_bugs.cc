#include "tests/simulation/planted_bugs.h"

#include <iterator>

namespace assay::schemas {

Bug planted_bug = Bug::kNone;

}  // namespace assay::schemas

namespace assay::simulation {
namespace {

using schemas::Bug;

constexpr PlantedBug kBugs[] = {
    {Bug::kUnacknowledgedCommit, "unacknowledged_commit"},
    {Bug::kFailedCommit, "failed_commit"},
    {Bug::kAmbiguousProducer, "ambiguous_producer"},
    {Bug::kStoreBeforeCommit, "store_before_commit"},
    {Bug::kFullDiskIgnored, "full_disk_ignored"},
    {Bug::kOffsetOffByOne, "offset_off_by_one"},
    {Bug::kSequenceNotChecked, "sequence_not_checked"},
    {Bug::kPromotedEarly, "promoted_early"},
    {Bug::kSeekForgotten, "seek_forgotten"},
    {Bug::kStaleFencing, "stale_fencing"},
    {Bug::kOutputsInCatchUp, "outputs_in_catch_up"},
    {Bug::kRepeatAccepted, "repeat_accepted"},
    {Bug::kGapAccepted, "gap_accepted"},
    {Bug::kInstantBackwards, "instant_backwards"},
    {Bug::kDigestNotUpdated, "digest_not_updated"},
    {Bug::kUnreadableIsAbsent, "unreadable_is_absent"},
    {Bug::kLatePaneLost, "late_pane_lost"},
    {Bug::kDedupeLost, "dedupe_lost"},
    {Bug::kHorizonLost, "horizon_lost"},
    {Bug::kPoolOvercommitted, "pool_overcommitted"},
    {Bug::kUnansweredRows, "unanswered_rows"},
};
static_assert(std::size(kBugs) == static_cast<size_t>(Bug::kLast));

}  // namespace

std::span<const PlantedBug> planted_bugs() { return kBugs; }

}  // namespace assay::simulation
