// A task on a real store and a durable log: what it does at start when store, log or an answer was lost, seen from its calls.
#include "streams/task.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <thread>

#include "processors/audit_chain.h"
#include "schemas/hash.h"
#include "streams/embedded_log.h"
#include "streams/recommit.h"
#include "streams/refold.h"

namespace assay::streams {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;

const TopicNames kNames("", 1);

/// Counts the records of each key; each record gives a score that names the count.
class Counter final : public processors::Processor {
 public:
  explicit Counter(processors::Rows& rows) : rows_(rows) {}
  void process(const processors::Input& input, processors::Outputs& outputs) override {
    const std::string key(input.record->key.value_or(""));
    const int64_t count = std::stoll(rows_.get(key).value_or("0")) + 1;
    rows_.put(key, std::to_string(count));
    outputs.records.push_back({Topic::kScores, key, key + "=" + std::to_string(count), derived_id(Id{}, key, 0), Id{}, {}});
    ++outputs.tally.delivered;
    ++outputs.tally.accepted;
  }
  void before_commit(WallTime, processors::Outputs&) override {}
  void after_commit() override {}

 private:
  processors::Rows& rows_;
};

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

/// The log, with its calls written down and some of its answers lost.
class WatchedLog final : public Log {
 public:
  explicit WatchedLog(Log& log) : log_(log) {}
  std::vector<std::string> calls;
  std::vector<Errc> commit_errors;   // of the next commits, which did happen when the answer was merely lost
  std::vector<Errc> prepare_errors;  // of the next prepares
  GroupView everybody;               // in any group

  std::string describe() const override { return log_.describe(); }
  Result<void> create_topics(std::span<const TopicConfig> topics) override { return log_.create_topics(topics); }
  Result<std::vector<TopicConfig>> topics() override { return log_.topics(); }
  Result<int32_t> partition_count(const std::string& topic) override { return log_.partition_count(topic); }
  Result<OffsetRange> range(const TopicPartition& tp) override { return log_.range(tp); }
  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    return log_.open_reader(from);
  }
  Result<std::unique_ptr<LogWriter>> open_writer(const std::string& id) override {
    calls.push_back("open_writer");
    TRY_ASSIGN(auto writer, log_.open_writer(id));
    return std::unique_ptr<LogWriter>(std::make_unique<Writer>(*this, std::move(writer)));
  }
  Result<std::unique_ptr<LogProducer>> open_producer() override { return log_.open_producer(); }
  Result<std::unique_ptr<Membership>> join(const std::string& group, const std::vector<std::string>& topics,
                                           const std::string& instance) override {
    return log_.join(group, topics, instance);
  }
  Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string& group,
                                                              std::span<const TopicPartition> of) override {
    calls.push_back("committed");
    return log_.committed(group, of);
  }
  Result<void> commit_offsets(const OffsetCommit& commit, const Membership* member) override {
    return log_.commit_offsets(commit, member);
  }
  Result<void> delete_before(const TopicPartition& tp, Offset before) override { return log_.delete_before(tp, before); }
  Result<std::string> cluster_id() override { return log_.cluster_id(); }
  Result<GroupView> members(const std::string&) override { return everybody; }

 private:
  class Writer final : public LogWriter {
   public:
    Writer(WatchedLog& owner, std::unique_ptr<LogWriter> writer) : owner_(owner), writer_(std::move(writer)) {}
    Result<void> prepare(Transaction transaction) override {
      owner_.calls.push_back("prepare");
      if (!owner_.prepare_errors.empty()) {
        const Errc code = owner_.prepare_errors.front();
        owner_.prepare_errors.erase(owner_.prepare_errors.begin());
        return Error{code, "planned"};
      }
      return writer_->prepare(std::move(transaction));
    }
    Result<std::vector<Offset>> commit() override {
      owner_.calls.push_back("commit");
      if (owner_.commit_errors.empty()) return writer_->commit();
      const Errc code = owner_.commit_errors.front();
      owner_.commit_errors.erase(owner_.commit_errors.begin());
      if (code == Errc::kAmbiguous)
        EXPECT_TRUE(writer_->commit().has_value());
      else
        EXPECT_TRUE(writer_->abort().has_value());
      return Error{code, "planned"};
    }
    Result<void> abort() override { return writer_->abort(); }

   private:
    WatchedLog& owner_;
    std::unique_ptr<LogWriter> writer_;
  };
  Log& log_;
};

class TaskTest : public testing::Test {
 protected:
  TaskTest() : dir_(fs::temp_directory_path() / ("assay-task-" + std::to_string(getpid()))) {
    fs::remove_all(dir_);
    spec_.name = "counter-0";
    spec_.processor = "counter";
    spec_.inputs = {{Topic::kPromotions, 0}};
    spec_.group = "assay.counter";
    spec_.transactional_id = "assay.counter-0";
    spec_.make = [](processors::Rows& rows) { return std::make_unique<Counter>(rows); };
    open_log("log");
    open_store();
  }
  ~TaskTest() override {
    store_.reset();
    log_.reset();
    fs::remove_all(dir_);
  }

  void open_log(const std::string& name) {
    watched_.reset();
    log_.reset();
    auto log = open_embedded_log(dir_ / name);
    ASSERT_TRUE(log.has_value()) << log.error().message;
    log_ = std::move(*log);
    std::vector<TopicConfig> topics;
    for (Topic topic : {Topic::kPromotions, Topic::kScores, Topic::kConfig, Topic::kManifests})
      topics.push_back({kNames.full(topic), kNames.partitions(topic), false, -1, kMaxRecordBytes});
    ASSERT_TRUE(log_->create_topics(topics).has_value());
    watched_ = std::make_unique<WatchedLog>(*log_);
  }
  void open_store() {
    store_.reset();
    auto store = state::open_rocksdb_store(store_dir(), {});
    ASSERT_TRUE(store.has_value()) << store.error().message;
    store_ = std::move(*store);
  }
  fs::path store_dir() const { return dir_ / "state" / "counter-0"; }

  void produce(int count, std::optional<std::string> stamp = {}, std::string prefix = "k") {
    auto producer = log_->open_producer();
    for (int i = 0; i < count; ++i) {
      OutRecord record{input_, WallTime(1000 + i), prefix + std::to_string(i % 7), "v" + std::to_string(made_++), {}};
      if (stamp) record.headers.push_back({std::string(kHeaderWriter), *stamp});
      ASSERT_TRUE((*producer)->send(record).has_value());
    }
    ASSERT_TRUE((*producer)->flush().has_value());
  }

  /// Runs the task until it has folded the input to its end, or has failed.
  Result<void> run(size_t records_a_commit = 10) {
    TaskOptions options;
    options.commit_interval = Milliseconds(1);
    options.max_commit_records = records_a_commit;
    options.poll_records = records_a_commit;
    options.checkpoint_interval = checkpoint_interval_;
    std::atomic<bool> stop{false};
    const Offset end = log_->range(input_)->end;
    TaskEvents events;
    events.recovered = [&](const TaskSpec&, Recovery outcome, const std::string&) {
      outcomes_.emplace_back(recovery_name(outcome));
    };
    events.restored = [&](const TaskSpec&, const RestoreReport& report) { restores_.push_back(report); };
    auto ended = [&, end](const Manifest& manifest) {
      for (const InputRange& range : manifest.ranges)
        if (range.tp == input_ && range.to >= end) stop = true;
    };
    events.refolded = [&](const TaskSpec&, const Manifest& manifest, int64_t) {
      ++refolded_;
      if (outcomes_.size() > 1) ended(manifest);  // a commit of this very run
    };
    events.running = [&](const TaskSpec&) {
      if (read_meta(*store_)->positions[input_] >= end) stop = true;
    };
    events.committed = [&](const TaskSpec&, const CommitReport& report) { ended(report.manifest); };
    outcomes_.clear();
    restores_.clear();
    refolded_ = 0;
    return Task(*watched_, kNames, spec_, *store_, nullptr, options, events).run(stop);
  }
  void run_well(size_t records_a_commit = 10) {
    auto result = run(records_a_commit);
    ASSERT_TRUE(result.has_value()) << result.error().message;
    expect_sound();
  }
  /// The store is what the log gives, row by row, and its digest is that of its rows.
  void expect_sound() {
    auto fresh = state::open_memory_store();
    auto fold = Fold::open(spec_, kNames, *fresh);
    const TopicPartition manifests{kNames.full(Topic::kManifests), 0};
    ManifestReader reader(*log_, kNames, spec_, 0, *log_->range(manifests));
    RangeReader ranges(*log_);
    for (auto next = reader.next(); next && *next; next = reader.next()) {
      for (const InputRange& range : (*next)->manifest.ranges)
        if (!(*fold)->position(range.tp)) (*fold)->set_position(range.tp, range.from);
      auto commit = refold(ranges, kNames, **fold, (*next)->manifest, (*next)->hash);
      ASSERT_TRUE(commit.has_value()) << commit.error().message;
      ASSERT_TRUE((*fold)->persist(*commit, (*next)->at).has_value());
    }
    auto rows = [](const state::Reader& from) {
      std::map<std::string, std::string> out;
      EXPECT_TRUE(from.scan("",
                            [&](std::string_view key, std::string_view value) {
                              if (key != kMetaKey) out.emplace(key, value);
                              return true;
                            })
                      .has_value());
      return out;
    };
    EXPECT_EQ(rows(*store_), rows(*fresh));
    EXPECT_EQ(recompute_digest(*store_, spec_)->hex(), read_meta(*store_)->digest.hex());
    EXPECT_EQ(read_meta(*store_)->sequence, read_meta(*fresh)->sequence);
  }
  Result<Recommitted> recommitted() {
    ProcessorPlan plan;
    plan.name = spec_.processor;
    return recommit(*watched_, kNames, plan, spec_, store_.get());
  }
  int64_t outputs() {
    int64_t count = 0;
    const TopicPartition tp{kNames.full(Topic::kScores), 0};
    RangeReader ranges(*log_);
    EXPECT_TRUE(ranges
                    .read(tp, Offset(0), log_->range(tp)->end,
                          [&](std::span<const RecordView> records) -> Result<void> {
                            count += std::ssize(records);
                            return {};
                          })
                    .has_value());
    return count;
  }
  void lose_store() {
    store_.reset();
    fs::remove_all(store_dir());
    open_store();
  }

  const TopicPartition input_{"promotion.events.v1", 0};
  fs::path dir_;
  TaskSpec spec_;
  std::unique_ptr<Log> log_;
  std::unique_ptr<WatchedLog> watched_;
  std::unique_ptr<state::Store> store_;
  Milliseconds checkpoint_interval_{0};
  std::vector<std::string> outcomes_;
  std::vector<RestoreReport> restores_;
  int refolded_ = 0;
  int made_ = 0;
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

}  // namespace
}  // namespace assay::streams
