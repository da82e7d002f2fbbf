// A task on a real store and a durable log: what it does at start when store, log or an answer was lost, seen from its calls.
#include "streams/task.h"

#include <fstream>

#include "schemas/time.h"
#include "tests/unit/task_support.h"

namespace assay::streams {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

/// Gives a score for every third record.
class Rare final : public processors::Processor {
 public:
  explicit Rare(processors::Rows& rows) : rows_(rows) {}
  void process(const processors::Input& input, processors::Outputs& outputs) override {
    const int64_t count = std::stoll(rows_.get("count").value_or("0")) + 1;
    rows_.put("count", std::to_string(count));
    if (count % 3 == 0) outputs.records.push_back({Topic::kScores, "k", "v", derived_id(input.cause, "rare", 0), Id{}, {}});
    ++outputs.tally.delivered;
    ++outputs.tally.accepted;
  }
  void before_commit(WallTime, processors::Outputs&) override {}
  void after_commit() override {}

 private:
  processors::Rows& rows_;
};

TEST_F(TaskTest, ALostStoreIsFoldedAgainWithoutOutputs) {
  produce(50);
  run_well();
  lose_store();
  run_well();
  EXPECT_THAT(outcomes_, ElementsAre("catch up"));
  EXPECT_GE(refolded_, 5);
  EXPECT_EQ(outputs(), 50);
}

TEST_F(TaskTest, ALostStoreOfATaskThatBeganBehindRetentionIsFoldedAgain) {
  produce(20);
  ASSERT_TRUE(log_->delete_before(input_, Offset(7)).has_value());
  run_well();
  EXPECT_EQ(read_meta(*store_)->began.at(input_), Offset(7));
  lose_store();
  run_well();
  EXPECT_THAT(outcomes_, ElementsAre("catch up"));
  EXPECT_EQ(read_meta(*store_)->began.at(input_), Offset(7));
}

TEST_F(TaskTest, ACheckpointIsTakenInsteadOfTheWholeLog) {
  checkpoint_interval_ = Milliseconds(1);
  produce(50);
  run_well();
  checkpoint_interval_ = Milliseconds(0);
  const int64_t checkpoint = store_->checkpoints()->front().sequence;
  EXPECT_EQ(store_->checkpoints()->size(), 2u);
  produce(20);
  run_well();
  ASSERT_TRUE(log_->delete_before(input_, Offset(40)).has_value());  // what came before the checkpoint is gone
  lose_store();
  ASSERT_TRUE(run().has_value());
  EXPECT_THAT(outcomes_, ElementsAre("restore", "catch up"));
  ASSERT_EQ(restores_.size(), 1u);
  EXPECT_EQ(restores_[0].sequence, checkpoint);
  EXPECT_EQ(read_meta(*store_)->tally.delivered, 70u);
  EXPECT_EQ(recompute_digest(*store_, spec_)->hex(), read_meta(*store_)->digest.hex());
  EXPECT_EQ(outputs(), 70);
}

TEST_F(TaskTest, ACheckpointThatIsNotWhatItSaysIsNotTaken) {
  checkpoint_interval_ = Milliseconds(1);
  produce(30);
  run_well();
  state::WriteBatch batch;  // a row changes behind the task's back, and gets into a checkpoint
  batch.put("k1", "999");
  ASSERT_TRUE(store_->write(batch).has_value());
  const auto meta = read_meta(*store_);
  ASSERT_TRUE(store_->checkpoint({meta->sequence, meta->encode()}, 1).has_value());
  lose_store();
  run_well();
  EXPECT_THAT(outcomes_, ElementsAre("restore", "catch up"));
  ASSERT_EQ(restores_.size(), 2u);
  EXPECT_EQ(restores_[1].sequence, 0);
  EXPECT_THAT(restores_[1].why, HasSubstr("holds digest"));
}

TEST_F(TaskTest, ADamagedStoreIsPutAsideAndFoldedAgain) {
  produce(50);
  run_well();
  store_.reset();
  for (const auto& file : fs::directory_iterator(store_dir()))
    if (file.path().filename().string().starts_with("MANIFEST"))
      std::ofstream(file.path(), std::ios::binary | std::ios::trunc) << "not a manifest at all";
  open_store();
  EXPECT_EQ(read_meta(*store_).error().code, Errc::kCorrupt);
  run_well();
  EXPECT_THAT(outcomes_, ElementsAre("catch up"));
  ASSERT_EQ(restores_.size(), 1u);
  EXPECT_EQ(restores_[0].put_aside, store_dir().string() + ".corrupt-1");
  EXPECT_TRUE(fs::exists(store_dir().string() + ".corrupt-1/CURRENT"));
  EXPECT_EQ(outputs(), 50);
}

TEST_F(TaskTest, AStoreAheadOfALogThatLostItsEndGoesBackToACheckpoint) {
  checkpoint_interval_ = Milliseconds(1);
  produce(30);
  run_well(100);
  checkpoint_interval_ = Milliseconds(0);
  watched_.reset();
  log_.reset();
  fs::copy(dir_ / "log", dir_ / "older", fs::copy_options::recursive);
  open_log("log");
  produce(10);
  run_well();
  open_log("older");  // the later commits are gone
  EXPECT_GT(read_meta(*store_)->sequence, store_->checkpoints()->front().sequence);
  produce(5, {}, "other");
  run_well();
  EXPECT_THAT(outcomes_, ElementsAre("restore", "clean"));
  EXPECT_EQ(restores_.at(0).put_aside, store_dir().string() + ".ahead-1");
  EXPECT_EQ(outputs(), 35);
}

TEST_F(TaskTest, AStoreAheadWithoutACheckpointHalts) {
  produce(30);
  run_well(100);
  watched_.reset();
  log_.reset();
  fs::copy(dir_ / "log", dir_ / "older", fs::copy_options::recursive);
  open_log("log");
  produce(10);
  run_well();
  open_log("older");
  EXPECT_THAT(run().error().message, testing::StartsWith("STATE_AHEAD: "));
}

TEST_F(TaskTest, AnotherRecordWhereTheStoreFoldedItsLastIsAnotherHistory) {
  produce(5);
  run_well(100);
  auto meta = read_meta(*store_);
  EXPECT_EQ(meta->anchors.at(input_).at, Offset(4));
  meta->anchors[input_].hash.front() ^= 1;
  state::WriteBatch batch;
  batch.put(std::string(kMetaKey), meta->encode());
  ASSERT_TRUE(store_->write(batch).has_value());
  EXPECT_THAT(run().error().message, testing::StartsWith("LOG_DIVERGED: "));
  ASSERT_TRUE(log_->delete_before(input_, Offset(5)).has_value());  // retention took it: nobody can say any more
  produce(1);
  ASSERT_TRUE(run().has_value());
}

TEST_F(TaskTest, ALostStoreAndLostOffsetsAreNoFreshStart) {
  produce(5);
  run_well(100);
  lose_store();
  spec_.group = "assay.renamed";
  EXPECT_THAT(run().error().message, testing::StartsWith("OFFSETS_LOST: "));
}

TEST_F(TaskTest, ForeignOffsetsAreNotGuessedAbout) {
  produce(5);
  run_well(100);
  ASSERT_TRUE(log_->commit_offsets({spec_.group, {{input_, Offset(2)}}}, nullptr).has_value());
  EXPECT_THAT(run().error().message, testing::StartsWith("OFFSETS_LOST: "));
  EXPECT_TRUE(restores_.empty());
}

TEST_F(TaskTest, LostOffsetsAreCommittedAgainFromTheLastManifest) {
  produce(25);
  run_well();
  const auto sound = *log_->committed(spec_.group, std::span(&input_, 1));
  EXPECT_FALSE(recommitted()->needed) << "nothing was lost";
  ASSERT_TRUE(log_->commit_offsets({spec_.group, {{input_, Offset(2)}}}, nullptr).has_value());
  produce(5);
  EXPECT_THAT(run().error().message, testing::StartsWith("OFFSETS_LOST: "));
  auto done = recommitted();
  ASSERT_TRUE(done.has_value()) << done.error().message;
  EXPECT_TRUE(done->needed);
  EXPECT_EQ(done->were.at(input_).offset, Offset(2));
  EXPECT_EQ(*log_->committed(spec_.group, std::span(&input_, 1)), sound);
  run_well();
  EXPECT_THAT(outcomes_, ElementsAre("clean"));
  EXPECT_EQ(outputs(), 30);
  // Of a group that knows nothing at all, and without a store.
  lose_store();
  spec_.group = "assay.renamed";
  EXPECT_THAT(run().error().message, testing::StartsWith("OFFSETS_LOST: "));
  ASSERT_TRUE(recommitted()->needed);
  run_well();
  EXPECT_THAT(outcomes_, ElementsAre("catch up"));
  EXPECT_EQ(outputs(), 30);
}

TEST_F(TaskTest, OffsetsAreNotCommittedAgainWhereAStartWouldHaltAllTheSame) {
  EXPECT_EQ(recommitted().error().code, Errc::kIncomplete) << "it never committed";
  produce(25);
  run_well();
  auto refused = [&](Errc code, const char* why) {
    const auto before = *log_->committed(spec_.group, std::span(&input_, 1));
    const auto result = recommitted();
    ASSERT_FALSE(result.has_value()) << why;
    EXPECT_EQ(result.error().code, code) << result.error().message;
    EXPECT_THAT(result.error().message, HasSubstr(why));
    EXPECT_EQ(*log_->committed(spec_.group, std::span(&input_, 1)), before) << "nothing is written";
  };
  // Ours, and of another manifest than the last: a torn transaction is not mended by naming its manifest.
  const auto writer = log_->open_writer(spec_.transactional_id);
  const CommitMark mark = *CommitMark::decode(log_->committed(spec_.group, std::span(&input_, 1))->at(input_).metadata);
  auto commit = [&](const CommitMark& of, Offset at) {
    Transaction transaction;
    transaction.offsets = OffsetCommit{spec_.group, {{input_, at}}};
    transaction.metadata = [text = of.encode()](std::span<const Offset>) { return text; };
    ASSERT_TRUE((*writer)->prepare(std::move(transaction)).has_value());
    ASSERT_TRUE((*writer)->commit().has_value());
  };
  commit({mark.sequence - 1, mark.manifest_offset, mark.manifest_hash}, Offset(25));
  refused(Errc::kRefused, "TORN_TXN");
  ASSERT_TRUE(log_->commit_offsets({spec_.group, {{input_, Offset(2)}}}, nullptr).has_value());
  const auto meta = read_meta(*store_);
  auto stand_at = [&](TaskMeta changed) {
    state::WriteBatch batch;
    batch.put(std::string(kMetaKey), changed.encode());
    ASSERT_TRUE(store_->write(batch).has_value());
  };
  TaskMeta other = *meta;
  other.manifest_hash.front() = other.manifest_hash.front() == 'a' ? 'b' : 'a';
  stand_at(other);
  refused(Errc::kRefused, "LOG_DIVERGED");
  other = *meta;
  ++other.sequence;
  stand_at(other);
  refused(Errc::kRefused, "STATE_AHEAD");
  stand_at(*meta);
  ASSERT_TRUE(log_->delete_before(input_, Offset(25)).has_value());
  produce(5);
  ASSERT_TRUE(log_->delete_before(input_, Offset(27)).has_value());
  refused(Errc::kIncomplete, "INPUT_GAP");
}

TEST_F(TaskTest, OffsetsAreNotCommittedAgainBehindAnOwnersBack) {
  produce(5);
  run_well();
  ASSERT_TRUE(log_->commit_offsets({spec_.group, {{input_, Offset(2)}}}, nullptr).has_value());
  watched_->everybody = {true, {{"m-1", "assay@10.0.0.1:7", "", {input_}}}};
  EXPECT_EQ(recommitted().error().code, Errc::kRefused);
  EXPECT_THAT(recommitted().error().message, HasSubstr("assay@10.0.0.1:7 owns it"));
  watched_->everybody = {false, {}};
  EXPECT_EQ(recommitted().error().code, Errc::kRefused);
  EXPECT_EQ(std::ranges::count(watched_->calls, "open_writer"), 1) << "nobody was fenced for it";
  watched_->everybody = {true, {{"m-1", "assay@10.0.0.1:7", "", {}}}};
  EXPECT_TRUE(recommitted().has_value());
}

TEST_F(TaskTest, ACommitWithoutOutputsLeavesNoHoleInTheCounting) {
  // Only every third record has an output, so that most commits have none.
  spec_.make = [](processors::Rows& rows) { return std::make_unique<Rare>(rows); };
  produce(30);
  run_well(1);
  const int64_t commits = read_meta(*store_)->sequence;
  EXPECT_EQ(commits, 30);
  std::vector<std::string> stamps;
  RangeReader ranges(*log_);
  const TopicPartition scores{kNames.full(Topic::kScores), 0};
  ASSERT_TRUE(ranges
                  .read(scores, Offset(0), log_->range(scores)->end,
                        [&](std::span<const RecordView> records) -> Result<void> {
                          for (const RecordView& record : records) stamps.emplace_back(*record.header(kHeaderWriter));
                          return {};
                        })
                  .has_value());
  ASSERT_EQ(stamps.size(), 10u);
  for (size_t n = 0; n < stamps.size(); ++n) EXPECT_EQ(stamps[n], "counter-0/0/" + std::to_string(n));
}

TEST_F(TaskTest, AnAmbiguousCommitOpensAWriterBeforeAnybodyLooks) {
  produce(5);
  watched_->commit_errors = {Errc::kAmbiguous};
  run_well(100);
  EXPECT_THAT(watched_->calls, ElementsAre("open_writer", "committed", "prepare", "commit", "open_writer", "committed"));
  EXPECT_EQ(outputs(), 5);

  watched_->calls.clear();
  watched_->prepare_errors = {Errc::kAmbiguous};
  produce(5);
  run_well(100);
  EXPECT_THAT(watched_->calls, ElementsAre("open_writer", "committed", "prepare", "open_writer", "committed", "prepare", "commit"));
  EXPECT_EQ(outputs(), 10);
}

TEST_F(TaskTest, AnAbortedCommitKeepsItsWriter) {
  produce(5);
  watched_->commit_errors = {Errc::kAborted};
  run_well(100);
  EXPECT_THAT(watched_->calls, ElementsAre("open_writer", "committed", "prepare", "commit", "committed", "prepare", "commit"));
  EXPECT_EQ(outputs(), 5);
}

TEST_F(TaskTest, RepeatedRecordsAreDroppedAndGapsHalt) {
  for (const char* stamp : {"up/0/0", "up/0/1", "up/0/1", "up/0/0", "up/0/2", "other/0/0"}) produce(1, stamp);
  run_well(100);
  EXPECT_EQ(read_meta(*store_)->tally.delivered, 4u);
  produce(1, "up/0/4");
  EXPECT_THAT(run().error().message, testing::StartsWith("INPUT_GAP: "));
}

TEST_F(TaskTest, WhatIsToldAgainIsComparedWithWhatWasToldFirst) {
  auto tell = [&](int n, const std::string& key, const std::string& value, int64_t at_ms) {
    auto producer = log_->open_producer();
    OutRecord record{input_, WallTime(at_ms), key, value + " at " + format_rfc3339_ms(at_ms), {}};
    record.headers.push_back({std::string(kHeaderWriter), "up/0/" + std::to_string(n)});
    ASSERT_TRUE((*producer)->send(record).has_value());
    ASSERT_TRUE((*producer)->flush().has_value());
  };
  tell(0, "k", "zero", 1000);
  tell(1, "k", "one", 1000);
  tell(2, "k", "two", 1000);
  run_well();
  tell(0, "k", "zero", 2000);  // the same, at another instant
  tell(1, "k", "another one", 2000);
  tell(2, "other", "two", 2000);
  tell(3, "k", "three", 2000);
  run_well();
  EXPECT_THAT(told_otherwise_, ElementsAre("up/0/1: 1, 4", "up/0/2: 2, 5"));
  EXPECT_EQ(read_meta(*store_)->tally.delivered, 4u) << "each once";
  run_well();
  EXPECT_TRUE(told_otherwise_.empty()) << "and once is enough";
}

TEST_F(TaskTest, WhatWasToldFirstMayLieFarBack) {
  produce(1, "up/0/0");
  produce(5000);
  produce(1, "up/0/0");
  run_well(1000);
  EXPECT_THAT(told_otherwise_, ElementsAre("up/0/0: 0, 5001"));
  ASSERT_TRUE(log_->delete_before(input_, Offset(1)).has_value());
  produce(1, "up/0/0");
  ASSERT_TRUE(run(1000).has_value());
  EXPECT_THAT(told_otherwise_, ElementsAre("up/0/0: 5001, 5002")) << "of those that are there";
}

TEST_F(TaskTest, AWriterThatBeginsInTheMidstOfItsCountingIsAGap) {
  produce(1, "up/0/3");
  EXPECT_THAT(run().error().message, HasSubstr("continues with record 3 after none"));
}

TEST_F(TaskTest, AWriterWhoseBeginningRetentionTookIsTaken) {
  produce(1, "up/0/0");
  produce(1, "up/0/1");
  ASSERT_TRUE(log_->delete_before(input_, Offset(1)).has_value());
  run_well(100);
  produce(1, "up/0/3");
  EXPECT_THAT(run().error().message, testing::StartsWith("INPUT_GAP: "));
}

TEST_F(TaskTest, ALogThatSaysNothingDoesNotKeepAStoppedTask) {
  produce(25);
  run_well();
  watched_->silent = true;
  for (auto work : {&Task::run, &Task::follow}) {
    watched_->stop = false;
    watched_->silent_polls = 0;
    Task task(*watched_, kNames, spec_, *store_, nullptr, {}, {});
    EXPECT_TRUE((task.*work)(watched_->stop).has_value()) << "it was stopped, and nothing is wrong";
    EXPECT_EQ(watched_->silent_polls, 1);
  }
}

}  // namespace
}  // namespace assay::streams
