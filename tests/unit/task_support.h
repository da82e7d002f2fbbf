// What the task tests share: a processor that counts, a log whose calls are written down, a task on a real store and a durable log.
#pragma once

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "streams/embedded_log.h"
#include "streams/recommit.h"
#include "streams/refold.h"
#include "streams/task.h"

namespace assay::streams {

namespace fs = std::filesystem;

inline const TopicNames kNames("", 1);

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

/// The log, with its calls written down and some of its answers lost.
class WatchedLog final : public Log {
 public:
  explicit WatchedLog(Log& log) : log_(log) {}
  std::vector<std::string> calls;
  std::vector<Errc> commit_errors;   // of the next commits, which did happen when the answer was merely lost
  std::vector<Errc> prepare_errors;  // of the next prepares
  GroupView everybody;               // in any group
  bool silent = false;               // readers say nothing any more, and the first that is asked sets `stop`
  std::atomic<bool> stop{false};
  int silent_polls = 0;

  std::string describe() const override { return log_.describe(); }
  Result<void> create_topics(std::span<const TopicConfig> topics) override { return log_.create_topics(topics); }
  Result<std::vector<TopicConfig>> topics() override { return log_.topics(); }
  Result<int32_t> partition_count(const std::string& topic) override { return log_.partition_count(topic); }
  Result<OffsetRange> range(const TopicPartition& tp) override { return log_.range(tp); }
  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    if (silent) return std::unique_ptr<LogReader>(std::make_unique<Silent>(*this));
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
  class Silent final : public LogReader {
   public:
    explicit Silent(WatchedLog& owner) : owner_(owner) {}
    Result<std::optional<Fetch>> poll(Milliseconds, size_t) override {
      ++owner_.silent_polls;
      owner_.stop = true;
      return std::optional<Fetch>();
    }
    Result<void> seek(const TopicPartition&, Offset) override { return {}; }
    void pause(const TopicPartition&) override {}
    void resume(const TopicPartition&) override {}

   private:
    WatchedLog& owner_;
  };
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
    for (Topic topic : {Topic::kPromotions, Topic::kAllocations, Topic::kScores, Topic::kConfig, Topic::kManifests})
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
    events.told_otherwise = [&](const TaskSpec&, const Repeat& second, Offset first) {
      told_otherwise_.push_back(second.stamp + ": " + std::to_string(first.value) + ", " + std::to_string(second.at.value));
    };
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
    told_otherwise_.clear();
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
  std::vector<std::string> told_otherwise_;  // "<stamp>: <first place>, <second place>"
  int refolded_ = 0;
  int made_ = 0;
};

}  // namespace assay::streams
