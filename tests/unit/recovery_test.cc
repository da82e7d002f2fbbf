// The start-up decision: every combination of what a store, its checkpoints, the group's offsets and the log can say, against a
// table that was written by hand.
#include "streams/recovery.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <string>
#include <vector>

namespace assay::streams {
namespace {

const TopicPartition kInput{"promotion.events.v1", 2};
const TopicPartition kSecond{"promotion.events.v1", 3};

// What each piece of evidence can be. In numbers: the first manifest began at 10; the older checkpoint goes on at 30 (manifest 2),
// a store that is behind at 60 (manifest 3), the newer checkpoint at 80 (manifest 4), the committed offset is 100 (manifest 5),
// and a store that is ahead goes on at 120 (manifest 6). `begins` is where retention has left the log.
const std::vector<std::vector<std::string>> kAxes = {
    {"same", "gone", "new", "lost"},                       // inputs: one of the store's is none now; one is new; one has no offset
    {"empty", "behind", "at", "ahead", "foreign"},         // store; foreign: its manifest is not in the log
    {"none", "alien", "there"},                            // offsets; alien: somebody else's
    {"none", "other", "last", "later"},                    // the manifest at the mark; later: there are more after it
    {"unknown", "same", "other"},                          // anchor
    {"all", "first", "older", "behind", "newer", "next"},  // begins: all is there, or it misses what the word needs
    {"whole", "cut"},                                      // ends: behind the committed offset, or before it
    {"none", "older", "newer"},                            // checkpoint that the log knows
};
enum Axis { kInputs, kStore, kOffsets, kManifests, kAnchor, kBegins, kEnds, kCheckpoint };

using Combination = std::vector<std::string>;

struct Row {
  const char* name;
  const char* when;  // a word, words with '/' between, or '*', for each axis
  Recovery outcome;
};

// Read from the top; the first row that fits decides.
const Row kTable[] = {
    // inputs  store                 offsets     manifests   anchor        begins                            ends   checkpoint
    {"an_input_of_the_store_is_none_now", "gone * * * * * * *", Recovery::kTopologyChanged},
    {"no_offsets_and_another_record", "* * none/alien * other * * *", Recovery::kLogDiverged},
    {"no_offsets_but_a_store", "* behind/at/ahead/foreign none * * * * *", Recovery::kOffsetsLost},
    {"alien_offsets", "* * alien * * * * *", Recovery::kOffsetsLost},
    {"no_offsets_no_store_but_manifests", "* empty none later * * * *", Recovery::kOffsetsLost},
    {"nothing_was_ever_committed", "* empty none none * * * *", Recovery::kFresh},
    {"offsets_without_their_manifest", "* * there none * * * *", Recovery::kTornTransaction},
    {"another_manifest_at_the_mark", "* * there other * * * *", Recovery::kLogDiverged},
    {"a_manifest_without_its_offsets", "* * there later * * * *", Recovery::kTornTransaction},
    {"an_input_is_new", "new * there last * * * *", Recovery::kTopologyChanged},
    {"an_input_lost_its_offset", "lost * there last * * * *", Recovery::kOffsetsLost},
    {"retention_took_the_next_record", "* * there last * next * *", Recovery::kInputGap},
    {"the_log_ends_before_the_offset", "* * there last * * cut *", Recovery::kLogDiverged},
    {"ahead_without_a_checkpoint", "same ahead there last * * whole none", Recovery::kStateAhead},
    {"ahead_older_checkpoint_and_a_gap", "same ahead there last * behind/newer/older whole older", Recovery::kInputGap},
    {"ahead_newer_checkpoint_and_a_gap", "same ahead there last * newer whole newer", Recovery::kInputGap},
    {"ahead_with_a_checkpoint", "same ahead there last * * whole older/newer", Recovery::kRestore},
    {"the_manifest_of_the_store_is_unknown", "same foreign there last * * whole *", Recovery::kLogDiverged},
    {"another_record_at_an_anchor", "same behind/at there last other * whole *", Recovery::kLogDiverged},
    {"store_and_log_agree", "same at there last unknown/same * whole *", Recovery::kClean},
    {"behind_and_a_gap", "same behind there last unknown/same behind/newer whole none/older", Recovery::kInputGap},
    {"behind_newer_checkpoint_and_a_gap", "same behind there last unknown/same newer whole newer", Recovery::kInputGap},
    {"behind_a_newer_checkpoint", "same behind there last unknown/same * whole newer", Recovery::kRestore},
    {"behind", "same behind there last unknown/same all/first/older whole none/older", Recovery::kCatchUp},
    {"empty_and_a_gap", "same empty there last * first/older/behind/newer whole none", Recovery::kInputGap},
    {"empty_older_checkpoint_and_a_gap", "same empty there last * older/behind/newer whole older", Recovery::kInputGap},
    {"empty_newer_checkpoint_and_a_gap", "same empty there last * newer whole newer", Recovery::kInputGap},
    {"empty_with_a_checkpoint", "same empty there last * * whole older/newer", Recovery::kRestore},
    {"empty", "same empty there last * all whole none", Recovery::kCatchUp},
};

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> out(1);
  for (char c : text)
    if (c == separator)
      out.emplace_back();
    else
      out.back().push_back(c);
  return out;
}

bool fits(const Row& row, const Combination& c) {
  const std::vector<std::string> when = split(row.when, ' ');
  EXPECT_EQ(when.size(), kAxes.size()) << row.name;
  for (size_t axis = 0; axis < kAxes.size(); ++axis) {
    if (when[axis] == "*") continue;
    const std::vector<std::string> words = split(when[axis], '/');
    for (const std::string& word : words) EXPECT_EQ(std::ranges::count(kAxes[axis], word), 1) << row.name << ": " << word;
    if (std::ranges::count(words, c[axis]) == 0) return false;
  }
  return true;
}

bool possible(const Combination& c) {
  const bool empty = c[kStore] == "empty", there = c[kOffsets] == "there";
  if (empty && (c[kInputs] == "gone" || c[kInputs] == "lost" || c[kAnchor] != "unknown")) return false;  // it knows nothing
  if (!there && (c[kInputs] == "new" || c[kInputs] == "lost")) return false;                             // no input has an offset
  if (!there && (c[kManifests] == "other" || c[kManifests] == "last")) return false;                     // there is no mark
  return c[kBegins] != "next" || c[kEnds] != "cut";  // a log does not end before it begins
}

std::vector<Combination> combinations() {
  std::vector<Combination> all(1);
  for (const auto& words : kAxes) {
    std::vector<Combination> longer;
    for (const Combination& c : all)
      for (const std::string& word : words) {
        longer.push_back(c);
        longer.back().push_back(word);
      }
    all = std::move(longer);
  }
  std::erase_if(all, [](const Combination& c) { return !possible(c); });
  return all;
}

Evidence evidence(const Combination& c) {
  auto pick = [&](Axis axis, const std::vector<std::pair<std::string, int64_t>>& values) {
    for (const auto& [word, value] : values)
      if (word == c[axis]) return value;
    return int64_t{-1};
  };
  Evidence e;
  e.stored_sequence = pick(kStore, {{"empty", 0}, {"behind", 3}, {"at", 5}, {"ahead", 6}, {"foreign", 4}});
  if (e.stored_sequence > 0) {
    e.stored_manifest_hash = c[kStore] == "foreign" ? "another" : "h" + std::to_string(e.stored_sequence);
    if (c[kStore] == "behind") e.stored_manifest_in_log = "h3";
    if (c[kStore] == "foreign") e.stored_manifest_in_log = "h4";
    e.stored_positions[kInput] = Offset(pick(kStore, {{"behind", 60}, {"at", 100}, {"ahead", 120}, {"foreign", 80}}));
  }
  e.anchor = static_cast<AnchorFound>(pick(kAnchor, {{"unknown", 0}, {"same", 1}, {"other", 2}}));
  const int64_t begins = pick(kBegins, {{"all", 10}, {"first", 11}, {"older", 31}, {"behind", 61}, {"newer", 81}, {"next", 101}});
  e.inputs[kInput] = {Offset(begins), Offset(c[kEnds] == "cut" ? 99 : 500)};
  if (c[kOffsets] == "alien") e.foreign_mark = "set by hand";
  if (c[kOffsets] == "there") {
    e.mark = CommitMark{5, Offset(9), "h5"};
    e.committed[kInput] = Offset(100);
    if (c[kManifests] != "none") e.last_manifest_hash = c[kManifests] == "other" ? "another" : "h5";
  }
  e.later_manifest = c[kManifests] == "later";
  if (c[kInputs] == "gone") e.stored_positions[kSecond] = Offset(7);
  if (c[kInputs] == "new" || c[kInputs] == "lost") e.inputs[kSecond] = {Offset(0), Offset(500)};
  if (c[kInputs] == "lost") e.stored_positions[kSecond] = Offset(7);
  if (c[kCheckpoint] == "older") e.checkpoint = KnownCheckpoint{2, {{kInput, Offset(30)}}};
  if (c[kCheckpoint] == "newer") e.checkpoint = KnownCheckpoint{4, {{kInput, Offset(80)}}};
  e.first[kInput] = Offset(10);
  return e;
}

std::string text_of(const Combination& c) {
  std::string out;
  for (const std::string& word : c) out += word + " ";
  return out;
}

class DecisionTable : public testing::TestWithParam<size_t> {};

/// Every combination that this row decides comes out as the row says.
TEST_P(DecisionTable, Row) {
  const Row& row = kTable[GetParam()];
  int decided = 0;
  for (const Combination& c : combinations()) {
    if (!fits(row, c)) continue;
    if (std::any_of(kTable, kTable + GetParam(), [&](const Row& earlier) { return fits(earlier, c); })) continue;
    ++decided;
    const Decision decision = decide(evidence(c));
    EXPECT_EQ(recovery_name(decision.outcome), recovery_name(row.outcome)) << text_of(c) << "\n" << decision.detail;
    EXPECT_FALSE(decision.detail.empty());
  }
  EXPECT_GT(decided, 0) << "an earlier row takes all that this one is for";
}

INSTANTIATE_TEST_SUITE_P(Recovery, DecisionTable, testing::Range(size_t{0}, std::size(kTable)),
                         [](const auto& row) { return std::string(kTable[row.param].name); });

TEST(Recovery, EveryCombinationHasARow) {
  const auto all = combinations();
  EXPECT_GT(all.size(), 2000u);
  for (const Combination& c : all)
    EXPECT_TRUE(std::ranges::any_of(kTable, [&](const Row& row) { return fits(row, c); })) << text_of(c);
}

TEST(Recovery, AGapNamesWhatIsMissing) {
  const Evidence e = evidence({"same", "behind", "there", "last", "same", "newer", "whole", "none"});
  EXPECT_EQ(decide(e).detail, "promotion.events.v1-2 from 60 to 81 is gone, which the store needs; the archive is needed");
}

TEST(Recovery, CommitsOfOtherInputsNeedNothingOfThisOne) {
  Evidence e = evidence({"same", "behind", "there", "last", "same", "all", "whole", "none"});
  e.inputs[kSecond] = {Offset(50), Offset(50)};  // all of it was folded long ago, and retention took it
  e.committed[kSecond] = e.stored_positions[kSecond] = Offset(50);
  EXPECT_EQ(decide(e).outcome, Recovery::kCatchUp);
}

TEST(Recovery, ACommitOfHalfCaughtUpStoreKnowsNotAllInputsYet) {
  Evidence e = evidence({"same", "behind", "there", "last", "same", "all", "whole", "none"});
  e.inputs[kSecond] = {Offset(0), Offset(500)};  // no manifest so far has named it
  e.committed[kSecond] = Offset(0);
  EXPECT_EQ(decide(e).outcome, Recovery::kCatchUp);
}

TEST(Recovery, AnotherManifestOfTheSameNumberIsAnotherHistory) {
  Evidence e = evidence({"same", "at", "there", "last", "same", "all", "whole", "newer"});
  e.stored_manifest_hash = "another";
  EXPECT_EQ(decide(e).outcome, Recovery::kLogDiverged);
}

TEST(Recovery, EveryOutcomeHasItsWord) {
  std::set<std::string_view> words;
  for (int r = 0; r <= static_cast<int>(Recovery::kTopologyChanged); ++r) words.insert(recovery_name(static_cast<Recovery>(r)));
  EXPECT_EQ(words.size(), static_cast<size_t>(Recovery::kTopologyChanged) + 1);
  EXPECT_FALSE(words.contains("unknown"));
}

}  // namespace
}  // namespace assay::streams
