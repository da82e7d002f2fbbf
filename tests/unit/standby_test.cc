// Warm copies: who keeps which, that a copy is what its owner's store is, that it writes and says nothing, and that it is handed
// over only when its follower has let go of it.
#include "streams/standby.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <condition_variable>
#include <filesystem>
#include <random>
#include <thread>

#include "schemas/time.h"
#include "streams/embedded_log.h"
#include "streams/pipeline.h"

namespace assay::streams {
namespace {

namespace fs = std::filesystem;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

const TopicNames kNames("", 2);
const TopicPartition kReports0{kNames.full(Topic::kReports), 0};

GroupMember member(const std::string& id, std::vector<int32_t> partitions, const std::string& instance = "") {
  GroupMember out{id, "assay", instance, {}};
  for (int32_t p : partitions) out.partitions.push_back({"t", p});
  return out;
}

/// The assignor as it is told: members in order, one run of partitions after the other.
GroupView assigned(std::vector<std::string> ids, int32_t partitions) {
  std::ranges::sort(ids);
  GroupView view;
  int32_t next = 0;
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto n = static_cast<int32_t>(ids.size());
    const int32_t count = partitions / n + (static_cast<int32_t>(i) < partitions % n ? 1 : 0);
    GroupMember one = member(ids[i], {});
    for (int32_t k = 0; k < count; ++k) one.partitions.push_back({"t", next++});
    view.members.push_back(std::move(one));
  }
  return view;
}

std::string owner_of(const GroupView& view, int32_t partition) {
  for (const GroupMember& one : view.members)
    for (const TopicPartition& tp : one.partitions)
      if (tp.partition == partition) return one.id;
  return "";
}

TEST(StandbysOf, AreThoseWhoWouldBeGivenThePartitionIfItsOwnerLeft) {
  for (int members = 2; members <= 9; ++members)
    for (int32_t partitions = 1; partitions <= 20; ++partitions) {
      std::vector<std::string> ids;
      for (int i = 0; i < members; ++i) ids.push_back("m" + std::to_string(i));
      const GroupView view = assigned(ids, partitions);
      for (int32_t p = 0; p < partitions; ++p) {
        const auto chosen = standbys_of(view, p, partitions, members);
        ASSERT_EQ(std::ssize(chosen), members - 1);
        std::vector<std::string> left = ids;
        std::erase(left, owner_of(view, p));
        for (const std::string& next : chosen) {
          EXPECT_EQ(next, owner_of(assigned(left, partitions), p)) << members << " members, " << partitions << " partitions";
          std::erase(left, next);
        }
      }
    }
}

TEST(StandbysOf, FollowStaticMembersByTheirInstance) {
  GroupView view;
  view.members = {member("b-9", {0}, "b"), member("c-1", {1}, "c"), member("a-5", {}, "a")};
  EXPECT_THAT(standbys_of(view, 0, 2, 5), ElementsAre("a-5", "c-1"));
  EXPECT_THAT(standbys_of(view, 1, 2, 1), ElementsAre("b-9"));
}

TEST(StandbysOf, AreNobodyWhileTheGroupChangesOrNobodyOwnsThePartition) {
  GroupView view = assigned({"a", "b"}, 1);
  EXPECT_THAT(standbys_of(view, 0, 1, 1), ElementsAre("b"));
  EXPECT_THAT(standbys_of(view, 1, 2, 1), IsEmpty());
  EXPECT_THAT(standbys_of(view, 0, 1, 0), IsEmpty());
  view.settled = false;
  EXPECT_THAT(standbys_of(view, 0, 1, 1), IsEmpty());
  EXPECT_THAT(standbys_of(assigned({"alone"}, 1), 0, 1, 1), IsEmpty());
}

/// What two processes of a group see of one durable log: each its own membership, both the same members.
class Group {
 public:
  explicit Group(Log& log) : log_(log) {}

  /// Gives partition 0 of a group to one process; the other is told first that it lost it.
  void give(const std::string& to) {
    std::unique_lock lock(mutex_);
    const std::string from = std::exchange(owner_, to);
    if (!from.empty()) changes_[from].push_back({false, {kReports0}, false});
    if (!from.empty()) changed_.wait_for(lock, std::chrono::seconds(30), [&] { return confirmed_.contains(from); });
    confirmed_.clear();
    if (!to.empty()) changes_[to].push_back({true, {kReports0}, false});
  }
  void join(const std::string& process) {
    std::lock_guard lock(mutex_);
    changes_[process].push_back({true, {}, false});
  }

  class Member final : public Membership {
   public:
    Member(Group& group, std::string process) : group_(group), process_(std::move(process)) {}
    Result<std::optional<Change>> poll(Milliseconds wait) override {
      std::unique_lock lock(group_.mutex_);
      if (std::exchange(revoked_, false)) {
        group_.confirmed_.insert(process_);
        group_.changed_.notify_all();
      }
      auto& queue = group_.changes_[process_];
      if (queue.empty()) {
        lock.unlock();
        std::this_thread::sleep_for(std::min(wait, Milliseconds(5)));
        return std::optional<Change>();
      }
      Change change = std::move(queue.front());
      queue.erase(queue.begin());
      revoked_ = !change.assigned;
      return std::optional(std::move(change));
    }
    std::string id() const override { return process_; }
    void leave() override {}

   private:
    Group& group_;
    std::string process_;
    bool revoked_ = false;
  };

  /// The log as one process has it.
  class View final : public Log {
   public:
    View(Group& group, std::string process) : group_(group), log_(group.log_), process_(std::move(process)) {}
    std::atomic<int> writers{0};
    std::atomic<bool> offsets_stand_still{false};  // what is committed from now on is not shown

    std::string describe() const override { return log_.describe(); }
    Result<std::string> cluster_id() override { return log_.cluster_id(); }
    Result<void> create_topics(std::span<const TopicConfig> topics) override { return log_.create_topics(topics); }
    Result<std::vector<TopicConfig>> topics() override { return log_.topics(); }
    Result<int32_t> partition_count(const std::string& topic) override { return log_.partition_count(topic); }
    Result<OffsetRange> range(const TopicPartition& tp) override { return log_.range(tp); }
    Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
      return log_.open_reader(from);
    }
    Result<std::unique_ptr<LogWriter>> open_writer(const std::string& id) override {
      ++writers;
      return log_.open_writer(id);
    }
    Result<std::unique_ptr<LogProducer>> open_producer() override { return log_.open_producer(); }
    Result<std::unique_ptr<Membership>> join(const std::string&, const std::vector<std::string>&, const std::string&) override {
      return std::unique_ptr<Membership>(std::make_unique<Member>(group_, process_));
    }
    Result<GroupView> members(const std::string&) override {
      std::lock_guard lock(group_.mutex_);
      GroupView view;
      for (const char* process : {"a", "b"})
        view.members.push_back(
            {process, process, "", group_.owner_ == process ? std::vector{kReports0} : std::vector<TopicPartition>()});
      return view;
    }
    Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string& group,
                                                                std::span<const TopicPartition> of) override {
      std::lock_guard lock(mutex_);
      if (!offsets_stand_still) {
        TRY_ASSIGN(shown_, log_.committed(group, of));
      }
      return shown_;
    }
    Result<void> commit_offsets(const OffsetCommit& commit, const Membership* member) override {
      return log_.commit_offsets(commit, member);
    }
    Result<void> delete_before(const TopicPartition& tp, Offset before) override { return log_.delete_before(tp, before); }

   private:
    Group& group_;
    Log& log_;
    std::string process_;
    std::mutex mutex_;
    std::map<TopicPartition, CommittedOffset> shown_;
  };

 private:
  Log& log_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::string owner_;
  std::map<std::string, std::vector<Membership::Change>> changes_;
  std::set<std::string> confirmed_;
};

/// A process with a directory of its own; no store of it is ever open twice.
class Host {
 public:
  Host(Group& group, const fs::path& dir, std::string name) : log(group, name), dir_(dir / name) {
    group.join(name);
    PipelineOptions options;
    options.names = kNames;
    options.only = {"scoring"};
    options.standbys = 1;
    options.task.commit_interval = Milliseconds(2);
    options.task.max_commit_records = 20;
    options.task.follow_interval = Milliseconds(10);
    pipeline_ = std::make_unique<Pipeline>(
        log, options, [this](const std::string& task) { return open(task); }, std::nullopt, metrics);
    thread_ = std::thread([this] { EXPECT_TRUE(pipeline_->run(stop_).has_value()); });
  }
  ~Host() { stop(); }
  void stop() {
    stop_ = true;
    if (thread_.joinable()) thread_.join();
  }
  Pipeline& pipeline() { return *pipeline_; }
  fs::path store_dir() const { return dir_ / "scoring-0"; }

  bool owns() const {
    for (const TaskView& task : pipeline_->tasks())
      if (task.name == "scoring-0" && task.state == TaskState::kRunning) return true;
    return false;
  }
  std::optional<StandbyView> standby() const {
    const auto all = pipeline_->standbys();
    return all.empty() ? std::nullopt : std::optional(all.front());
  }

  Group::View log;
  Metrics metrics;
  std::atomic<int> opened{0};

 private:
  Result<std::shared_ptr<state::Store>> open(const std::string& task) {
    TRY_ASSIGN(auto store, state::open_rocksdb_store((dir_ / task).string(), {}));  // which refuses a second handle
    ++opened;
    return std::shared_ptr<state::Store>(std::move(store));
  }
  fs::path dir_;
  std::unique_ptr<Pipeline> pipeline_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

class StandbyTest : public testing::Test {
 protected:
  StandbyTest() : dir_(fs::temp_directory_path() / ("assay-standby-" + std::to_string(getpid()))) {
    fs::remove_all(dir_);
    log_ = std::move(open_embedded_log(dir_ / "log").value());
    std::vector<TopicConfig> topics;
    for (const TopicSpec& spec : topic_catalogue())
      for (const std::string& name : {kNames.full(spec.topic), dlq_of(kNames.full(spec.topic))})
        topics.push_back({name, kNames.partitions(spec.topic), false, -1, kMaxDeadLetterBytes});
    EXPECT_TRUE(log_->create_topics(topics).has_value());
    group_ = std::make_unique<Group>(*log_);
    for (const ProcessorPlan& plan : topology(kNames, {}))
      if (plan.name == "scoring") spec_ = plan.task(0);
  }
  ~StandbyTest() override {
    log_.reset();
    fs::remove_all(dir_);
  }

  void produce(int count) {
    auto producer = log_->open_producer();
    for (int i = 0; i < count; ++i, ++made_) {
      const int64_t at = 1767225600000 + made_ * kMinuteMs;
      ASSERT_TRUE((*producer)
                      ->send({kReports0,
                              WallTime(at),
                              "agent",
                              "{\"id\":\"r" + std::to_string(made_) +
                                  "\",\"agentId\":\"agent\",\"metricSet\":{\"win\":0.9},"
                                  "\"timestamp\":\"" +
                                  format_rfc3339_ms(at) + "\"}",
                              {}})
                      .has_value());
    }
    ASSERT_TRUE((*producer)->flush().has_value());
  }
  static void wait(const char* what, const std::function<bool()>& seen) {
    const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(30);
    while (!seen()) {
      ASSERT_LT(std::chrono::steady_clock::now(), until) << "waited for " << what;
      std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
  }
  CommitMark mark() {
    auto committed = log_->committed(spec_.group, std::span(&kReports0, 1));
    return committed->empty() ? CommitMark() : *CommitMark::decode(committed->at(kReports0).metadata);
  }
  bool all_committed() {
    auto committed = log_->committed(spec_.group, std::span(&kReports0, 1));
    return !committed->empty() && committed->at(kReports0).offset == log_->range(kReports0)->end;
  }
  /// Rows but for the meta row, which the hosts must have let go of.
  std::map<std::string, std::string> rows(const Host& host) {
    auto store = state::open_rocksdb_store(host.store_dir().string(), {.read_only = true});
    std::map<std::string, std::string> out;
    EXPECT_TRUE((*store)
                    ->scan("",
                           [&](std::string_view key, std::string_view value) {
                             if (key != kMetaKey) out.emplace(key, value);
                             return true;
                           })
                    .has_value());
    EXPECT_EQ(recompute_digest(**store, spec_)->hex(), read_meta(**store)->digest.hex());
    return out;
  }
  bool warm(const Host& host) {
    const auto copy = host.standby();
    return copy && copy->sequence > 0 && copy->sequence == mark().sequence;
  }

  fs::path dir_;
  std::unique_ptr<Log> log_;
  std::unique_ptr<Group> group_;
  TaskSpec spec_;
  int made_ = 0;
};

TEST_F(StandbyTest, TheCopyIsTakenOverWithoutARebuild) {
  Host a(*group_, dir_, "a"), b(*group_, dir_, "b");
  group_->give("a");
  produce(300);
  wait("everything committed", [&] { return all_committed(); });
  wait("a warm copy", [&] { return warm(b); });
  EXPECT_EQ(b.log.writers, 0) << "a copy writes nothing";
  EXPECT_THAT(b.pipeline().tasks(), IsEmpty()) << "nor does it answer for its task";
  EXPECT_FALSE(a.standby()) << "an owner follows nobody";
  wait("its lag",
       [&] { return b.metrics.exposition().find("assay_standby_lag_manifests{task=\"scoring-0\"} 0") != std::string::npos; });

  group_->give("b");
  wait("the takeover", [&] { return b.owns(); });
  EXPECT_EQ(b.opened, 1) << "the store of the copy is the task's now";
  EXPECT_EQ(b.metrics.value(Metric::kCatchUpRecords, {"scoring-0"}), 0);
  EXPECT_EQ(b.metrics.value(Metric::kRestores, {"scoring-0", "nothing"}), 0);
  EXPECT_FALSE(b.standby());
  produce(300);
  wait("the rest committed", [&] { return all_committed(); });
  wait("the former owner's copy", [&] { return warm(a); });
  a.stop();
  b.stop();
  EXPECT_EQ(rows(a), rows(b));
  EXPECT_FALSE(rows(a).empty());
}

TEST_F(StandbyTest, ItChangesHandsInTheMidstOfCommits) {
  Host a(*group_, dir_, "a"), b(*group_, dir_, "b");
  std::atomic<bool> stop{false};
  std::thread load([&] {
    while (!stop) {
      produce(20);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
  });
  for (int turn = 0; turn < 6; ++turn) {
    Host& next = turn % 2 == 0 ? a : b;
    const int64_t before = mark().sequence;
    group_->give(turn % 2 == 0 ? "a" : "b");
    wait("the takeover", [&] { return next.owns() && mark().sequence > before + 3; });
    wait("a copy at the other", [&] {
      const auto copy = (turn % 2 == 0 ? b : a).standby();
      return copy && copy->sequence > before;
    });
  }
  stop = true;
  load.join();
  wait("everything committed", [&] { return all_committed(); });
  wait("a warm copy", [&] { return warm(a); });
  a.stop();
  b.stop();
  EXPECT_EQ(rows(a), rows(b));
  auto store = state::open_rocksdb_store(b.store_dir().string(), {.read_only = true});
  EXPECT_EQ(read_meta(**store)->tally.delivered, static_cast<uint64_t>(made_)) << "each report once, through all hands";
}

TEST_F(StandbyTest, TheCopyNeverGoesBeyondWhatIsCommitted) {
  Host a(*group_, dir_, "a"), b(*group_, dir_, "b");
  group_->give("a");
  produce(100);
  wait("everything committed", [&] { return all_committed(); });
  wait("a warm copy", [&] { return warm(b); });
  b.log.offsets_stand_still = true;  // the log shows manifests whose offsets are not there: as after a torn transaction
  const int64_t stood = b.standby()->sequence;
  produce(100);
  wait("everything committed", [&] { return all_committed(); });
  ASSERT_GT(mark().sequence, stood);
  std::this_thread::sleep_for(std::chrono::milliseconds(100));
  EXPECT_EQ(b.standby()->sequence, stood);
  b.log.offsets_stand_still = false;
  wait("a warm copy", [&] { return warm(b); });
}

/// Counts every report as accepted and makes something else of it.
class AnotherProgram final : public processors::Processor {
 public:
  explicit AnotherProgram(processors::Rows& rows) : rows_(rows) {}
  void process(const processors::Input&, processors::Outputs& outputs) override {
    rows_.put("x", "y");
    ++outputs.tally.delivered;
    ++outputs.tally.accepted;
  }
  void before_commit(WallTime, processors::Outputs&) override {}
  void after_commit() override {}

 private:
  processors::Rows& rows_;
};

/// One follower of a task on a store of its own, without a group.
class FollowerTest : public StandbyTest {
 protected:
  FollowerTest() {
    group_->give("a");
    owner_ = std::make_unique<Host>(*group_, dir_, "a");
    produce(100);
    wait("everything committed", [&] { return all_committed(); });
    store_ = std::move(state::open_rocksdb_store((dir_ / "copy").string(), {}).value());
  }
  ~FollowerTest() override {
    store_.reset();
    owner_.reset();
  }
  /// Follows until the copy stands at the mark, or fails.
  Result<void> follow() {
    std::atomic<bool> stop{false};
    TaskEvents events;
    events.followed = [&](const TaskSpec&, int64_t sequence, int64_t committed) {
      if (sequence == committed && committed == mark().sequence) stop = true;
    };
    events.restored = [&](const TaskSpec&, const RestoreReport& report) { restores_.push_back(report); };
    TaskOptions options;
    options.follow_interval = Milliseconds(5);
    return Task(*log_, kNames, spec_, *store_, nullptr, options, events).follow(stop);
  }
  void spoil() {
    state::WriteBatch batch;
    std::string key;
    ASSERT_TRUE(store_
                    ->scan("",
                           [&](std::string_view k, std::string_view) {
                             key = k;
                             return k == kMetaKey;
                           })
                    .has_value());
    ASSERT_NE(key, kMetaKey);
    TaskMeta meta = *read_meta(*store_);
    meta.digest += state::Digest::of_row("a row", "that is not there");  // as if one had been lost
    batch.put(std::string(kMetaKey), meta.encode());
    ASSERT_TRUE(store_->write(batch).has_value());
  }

  std::unique_ptr<Host> owner_;
  std::unique_ptr<state::Store> store_;
  std::vector<RestoreReport> restores_;
};

TEST_F(FollowerTest, AReaderThatIsExtendedMissesNoManifest) {
  const TopicPartition manifests{kNames.full(Topic::kManifests), spec_.manifest_partition};
  const OffsetRange there = *log_->range(manifests);
  ManifestReader reader(*log_, kNames, spec_, 0, {there.start, there.start});
  int64_t sequence = 0;
  for (Offset end = there.start + 1; end <= there.end; end = end + 1) {
    reader.extend(end);
    for (auto next = reader.next(); next && *next; next = reader.next()) {
      EXPECT_EQ((*next)->manifest.sequence, ++sequence);
      EXPECT_LT((*next)->at, end);
    }
  }
  EXPECT_EQ(sequence, mark().sequence);
}

TEST_F(FollowerTest, ACopyThatDiffersFromAManifestIsFoldedAnew) {
  ASSERT_TRUE(follow().has_value());
  spoil();
  produce(50);
  wait("everything committed", [&] { return all_committed(); });
  auto result = follow();
  ASSERT_TRUE(result.has_value()) << result.error().message;
  ASSERT_EQ(restores_.size(), 1u);
  EXPECT_THAT(restores_[0].why, HasSubstr("state digest"));
  EXPECT_EQ(restores_[0].put_aside, (dir_ / "copy").string() + ".diverged-1");
  EXPECT_EQ(read_meta(*store_)->manifest_hash, mark().manifest_hash);
  EXPECT_EQ(recompute_digest(*store_, spec_)->hex(), read_meta(*store_)->digest.hex());
}

TEST_F(FollowerTest, AManifestThatNoFoldComesToIsNotTheCopysFault) {
  spec_.row_digest = &state::Digest::of_row;
  spec_.make = [](processors::Rows& rows) { return std::make_unique<AnotherProgram>(rows); };
  auto result = follow();
  ASSERT_FALSE(result.has_value());
  EXPECT_EQ(result.error().code, Errc::kIncomplete);
  EXPECT_THAT(result.error().message, testing::StartsWith("LOG_DIVERGED: "));
  EXPECT_EQ(restores_.size(), 1u) << "once, not for ever";
  EXPECT_EQ(read_meta(*store_)->sequence, 0) << "nothing that differs is kept";
}

TEST_F(FollowerTest, WhatAnOwnerWouldHaltAtIsToldAndTheStoreLeftAlone) {
  ASSERT_TRUE(follow().has_value());
  const int64_t stood = read_meta(*store_)->sequence;
  ASSERT_TRUE(log_->commit_offsets({spec_.group, {{kReports0, Offset(2)}}}, nullptr).has_value());
  auto result = follow();
  ASSERT_FALSE(result.has_value());
  EXPECT_THAT(result.error().message, testing::StartsWith("OFFSETS_LOST: "));
  EXPECT_TRUE(restores_.empty());
  EXPECT_EQ(read_meta(*store_)->sequence, stood);
}

}  // namespace
}  // namespace assay::streams
