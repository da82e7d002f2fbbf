// The start-up decision: each row of its table, and that no evidence is taken for another.
#include "streams/recovery.h"

#include <gtest/gtest.h>

#include <set>

namespace assay::streams {
namespace {

const TopicPartition kReports{"eval.reports.v1", 2};
const TopicPartition kOther{"eval.reports.v1", 3};

/// A store and a log that agree on manifest 5.
Evidence sound() {
  Evidence e;
  e.stored_sequence = 5;
  e.stored_manifest_hash = "h5";
  e.stored_positions[kReports] = Offset(100);
  e.mark = CommitMark{5, Offset(9), "h5"};
  e.committed[kReports] = Offset(100);
  e.last_manifest_hash = "h5";
  e.inputs[kReports] = {Offset(0), Offset(500)};
  return e;
}

/// A store that stands at manifest 3 of 5.
Evidence behind() {
  Evidence e = sound();
  e.stored_sequence = 3;
  e.stored_manifest_hash = "h3";
  e.stored_manifest_in_log = "h3";
  e.stored_positions[kReports] = Offset(60);
  return e;
}

TEST(Recovery, FreshWhenNothingWasEverCommitted) {
  Evidence e;
  e.inputs[kReports] = {Offset(0), Offset(500)};
  EXPECT_EQ(decide(e).outcome, Recovery::kFresh);
  e.inputs[kReports] = {Offset(40), Offset(500)};  // what retention took before the first start was never ours
  EXPECT_EQ(decide(e).outcome, Recovery::kFresh);
}

TEST(Recovery, CleanWhenStoreAndLogAgree) {
  EXPECT_EQ(decide(sound()).outcome, Recovery::kClean);
  Evidence e = sound();
  e.inputs[kReports] = {Offset(100), Offset(100)};  // the last record folded is gone, the next one is not
  EXPECT_EQ(decide(e).outcome, Recovery::kClean);
}

TEST(Recovery, CatchUpWhenTheStoreIsBehind) {
  EXPECT_EQ(decide(behind()).outcome, Recovery::kCatchUp);
  Evidence lost = behind();
  lost.stored_sequence = 0;
  lost.stored_manifest_hash.clear();
  lost.stored_manifest_in_log.reset();
  lost.stored_positions.clear();
  EXPECT_EQ(decide(lost).outcome, Recovery::kCatchUp);
}

TEST(Recovery, StateAheadWhenTheLogForgotCommits) {
  Evidence e = sound();
  e.stored_sequence = 6;
  e.stored_manifest_hash = "h6";
  EXPECT_EQ(decide(e).outcome, Recovery::kStateAhead);
}

TEST(Recovery, OffsetsLostWhenTheGroupHasNone) {
  Evidence e = sound();
  e.mark.reset();
  e.committed.clear();
  EXPECT_EQ(decide(e).outcome, Recovery::kOffsetsLost);
}

TEST(Recovery, TornWhenOffsetsHaveNoManifest) {
  for (Evidence e : {sound(), behind()}) {
    e.last_manifest_hash.reset();
    EXPECT_EQ(decide(e).outcome, Recovery::kTornTransaction);
  }
}

TEST(Recovery, DivergedWhenTheLogHoldsAnotherHistory) {
  Evidence another_manifest = sound();
  another_manifest.last_manifest_hash = "x5";
  EXPECT_EQ(decide(another_manifest).outcome, Recovery::kLogDiverged);

  Evidence another_store = sound();
  another_store.stored_manifest_hash = "x5";
  EXPECT_EQ(decide(another_store).outcome, Recovery::kLogDiverged);

  Evidence cut = sound();
  cut.inputs[kReports] = {Offset(0), Offset(99)};
  EXPECT_EQ(decide(cut).outcome, Recovery::kLogDiverged);

  Evidence past = behind();
  past.stored_manifest_in_log = "x3";
  EXPECT_EQ(decide(past).outcome, Recovery::kLogDiverged);
  past.stored_manifest_in_log.reset();
  EXPECT_EQ(decide(past).outcome, Recovery::kLogDiverged);
}

TEST(Recovery, InputGapWhenRetentionTookWhatIsNeeded) {
  Evidence e = sound();
  e.inputs[kReports] = {Offset(101), Offset(500)};
  EXPECT_EQ(decide(e).outcome, Recovery::kInputGap);

  Evidence b = behind();
  b.inputs[kReports] = {Offset(60), Offset(500)};
  EXPECT_EQ(decide(b).outcome, Recovery::kCatchUp);
  b.inputs[kReports] = {Offset(61), Offset(500)};
  EXPECT_EQ(decide(b).outcome, Recovery::kInputGap);
}

TEST(Recovery, CatchUpNeedsTheLogToReachTheCommittedOffset) {
  Evidence cut = behind();
  cut.inputs[kReports] = {Offset(0), Offset(99)};
  EXPECT_EQ(decide(cut).outcome, Recovery::kLogDiverged);
}

TEST(Recovery, CatchUpFindsWhatRetentionTookAfterIt) {
  Evidence gone = behind();
  gone.stored_positions[kReports] = Offset(100);  // the commits that are missing folded other inputs
  gone.inputs[kReports] = {Offset(101), Offset(500)};
  EXPECT_EQ(decide(gone).outcome, Recovery::kInputGap);
}

TEST(Recovery, TopologyChangedWhenAnInputIsGone) {
  Evidence e = sound();
  e.stored_positions[kOther] = Offset(7);
  EXPECT_EQ(decide(e).outcome, Recovery::kTopologyChanged);
}

TEST(Recovery, EveryOutcomeHasItsWord) {
  std::set<std::string_view> words;
  for (int r = 0; r <= static_cast<int>(Recovery::kTopologyChanged); ++r) words.insert(recovery_name(static_cast<Recovery>(r)));
  EXPECT_EQ(words.size(), static_cast<size_t>(Recovery::kTopologyChanged) + 1);
  EXPECT_FALSE(words.contains("unknown"));
}

}  // namespace
}  // namespace assay::streams
