// A log made again from an archive: one history, whatever part of the last commits was archived; the same places as before to
// everybody above the seam; and nothing counted twice once it goes on.
#include "replay/restore.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "replay/archive_log.h"
#include "replay/replayer.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/embedded_log.h"
#include "streams/lineage_log.h"
#include "streams/pipeline.h"
#include "streams/topic_admin.h"
#include "tests/unit/audit_support.h"

namespace assay::replay {
namespace {

using assay::testing::TempDir;
using namespace assay::streams;

const TopicNames kNames("p.", 2);

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
void must(Result<void> result) {
  if (!result) throw std::runtime_error(result.error().message);
}

std::vector<TopicConfig> all_topics() { return wanted_topics({.prefix = "p.", .partitions = 2}); }

/// Six agents over four days, three that turn bad halfway; duplicates and broken records among them.
std::vector<OutRecord> fleet(uint64_t seed, int reports) {
  std::mt19937_64 random(seed);
  std::vector<OutRecord> out;
  const int64_t start = 1767225600000, span = 4 * kDayMs;
  for (int i = 0; i < reports; ++i) {
    const int agent = static_cast<int>(random() % 6);
    const std::string name = std::string("agent-") + static_cast<char>('a' + agent);
    const int64_t at = start + span * i / reports - static_cast<int64_t>(random() % (20 * kMinuteMs));
    const int win = (agent >= 3 && at > start + span / 2 ? 300 : 890) + static_cast<int>(random() % 100);
    OutRecord record;
    record.to = {kNames.full(Topic::kReports), -1};
    record.timestamp = WallTime(start + span);
    record.key = name;
    record.value = "{\"id\":\"r" + std::to_string(i) + "\",\"agentId\":\"" + name + "\",\"metricSet\":{\"win\":0." +
                   std::to_string(win) + "},\"timestamp\":\"" + format_rfc3339_ms(at) + "\"}";
    if (random() % 40 == 0) record.value = "{broken " + std::to_string(i);
    out.push_back(record);
    if (random() % 20 == 0) out.push_back(record);
  }
  return out;
}

/// Passes everything on; a writer's commits end in an error once so many were made.
class DyingLog : public Log {
 public:
  DyingLog(Log& real, int commits) : real_(real), left_(commits) {}
  std::string describe() const override { return real_.describe(); }
  Result<std::string> cluster_id() override { return real_.cluster_id(); }
  Result<void> create_topics(std::span<const TopicConfig> topics) override { return real_.create_topics(topics); }
  Result<std::vector<TopicConfig>> topics() override { return real_.topics(); }
  Result<int32_t> partition_count(const std::string& topic) override { return real_.partition_count(topic); }
  Result<OffsetRange> range(const TopicPartition& tp) override { return real_.range(tp); }
  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    return real_.open_reader(from);
  }
  Result<std::unique_ptr<LogWriter>> open_writer(const std::string& id) override {
    TRY_ASSIGN(auto writer, real_.open_writer(id));
    return std::unique_ptr<LogWriter>(std::make_unique<Writer>(*this, std::move(writer)));
  }
  Result<std::unique_ptr<LogProducer>> open_producer() override { return real_.open_producer(); }
  Result<std::unique_ptr<Membership>> join(const std::string& group, const std::vector<std::string>& topics,
                                           const std::string& id) override {
    return real_.join(group, topics, id);
  }
  Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string& group,
                                                              std::span<const TopicPartition> of) override {
    return real_.committed(group, of);
  }
  Result<void> commit_offsets(const OffsetCommit& commit, const Membership* member) override {
    return real_.commit_offsets(commit, member);
  }
  Result<void> delete_before(const TopicPartition& tp, Offset before) override { return real_.delete_before(tp, before); }

 private:
  struct Writer : LogWriter {
    Writer(DyingLog& of, std::unique_ptr<LogWriter> inner) : log(of), real(std::move(inner)) {}
    Result<void> prepare(Transaction transaction) override { return real->prepare(std::move(transaction)); }
    Result<std::vector<Offset>> commit() override {
      const int left = log.left_--;
      if (left < 0) return Error{Errc::kUnreachable, "the process is dead"};
      if (left > 0) return real->commit();
      // The last thing it does may or may not be done.
      if (log.done_) (void)real->commit();
      return Error{Errc::kUnreachable, "the process died"};
    }
    Result<void> abort() override { return real->abort(); }
    DyingLog& log;
    std::unique_ptr<LogWriter> real;
  };
  Log& real_;
  std::atomic<int> left_;

 public:
  bool done_ = false;
};

/// A log, its stores, and an archive of any part of it.
class Instance {
 public:
  explicit Instance(const std::string& dir) : log_(must(open_embedded_log(dir))) {}
  void make_topics() { must(log_->create_topics(all_topics())); }
  void produce(std::span<const OutRecord> records) {
    auto producer = must(log_->open_producer());
    for (const OutRecord& record : records) must(producer->send(record));
    must(producer->flush());
  }
  void run(size_t max_commit_records) {
    PipelineOptions options;
    options.names = kNames;
    options.until_end = true;
    options.task.max_commit_records = max_commit_records;
    options.task.poll_records = max_commit_records;
    options.task.commit_interval = Milliseconds(2);
    Pipeline pipeline(
        *log_, options,
        [this](const std::string& task) -> Result<std::shared_ptr<state::Store>> {
          std::lock_guard lock(mutex_);
          auto& store = stores_[task];
          if (store == nullptr) store = state::open_memory_store();
          return store;
        },
        std::nullopt, metrics_);
    std::atomic<bool> stop{false};
    must(pipeline.run(stop));
  }
  std::map<std::string, TaskMeta> metas() {
    std::map<std::string, TaskMeta> out;
    for (auto& [task, store] : stores_) out[task] = must(read_meta(*store));
    return out;
  }
  std::map<std::string, std::string> digests() {
    std::map<std::string, std::string> out;
    for (auto& [task, meta] : metas()) out[task] = meta.digest.hex();
    return out;
  }
  Log& log() { return *log_; }
  std::shared_ptr<Log> shared() { return log_; }
  /// From now on the log is seen with the places of its lineage.
  void follow() { log_ = open_lineage_log(log_, *must(read_lineage(*log_, "p.")).opened, "p."); }

 private:
  std::shared_ptr<Log> log_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<state::Store>> stores_;
  Metrics metrics_;
};

using Ends = std::map<TopicPartition, Offset>;  // full names

class RestoreTest : public ::testing::Test {
 protected:
  std::string fresh(const std::string& word) { return dir_ / (word + std::to_string(++count_)); }

  /// Where each partition ends.
  static Ends ends_of(Log& log) {
    Ends out;
    for (const TopicConfig& topic : all_topics())
      for (int32_t p = 0; p < topic.partitions; ++p) out[{topic.name, p}] = must(log.range({topic.name, p})).end;
    return out;
  }

  /// An archive that holds each partition up to there.
  std::shared_ptr<ObjectStore> archive(Log& log, const Ends& ends) {
    std::shared_ptr<ObjectStore> objects = must(open_directory_objects(fresh("archive"), true));
    auto archive = must(Archive::open_for(objects, must(log.cluster_id()), WallTime(0)));
    must(archive->note_signer(signer_->key()));
    for (const TopicConfig& topic : all_topics()) must(archive->note_topic(topic.name.substr(2), topic.partitions));
    for (const auto& [tp, end] : ends) {
      const OffsetRange range = must(log.range(tp));
      SegmentWriter segment(tp.topic.substr(2), tp.partition, range.start);
      auto reader = must(log.open_reader({{tp, range.start}}));
      std::string anchor;
      for (Offset at = range.start; at < end;) {
        auto fetch = must(reader->poll(Milliseconds(100), 1000));
        if (!fetch) continue;
        for (const RecordView& record : fetch->records) {
          if (record.offset >= end) break;
          segment.add(record);
          anchor = record_anchor(record);
        }
        at = fetch->next;
      }
      segment.advance(end);
      if (end == range.start) continue;
      auto [file, info] = segment.finish(3);
      must(archive->append(file, info, anchor, nullptr, *signer_));
    }
    return objects;
  }

  std::unique_ptr<Log> open(const std::shared_ptr<ObjectStore>& objects) {
    return must(open_archive_log(must(Archive::open(objects)), kNames));
  }

  Result<Restored> restore(const std::shared_ptr<ObjectStore>& objects, const std::shared_ptr<Log>& target, int64_t lineage = 0,
                           size_t batch = 50) {
    RestoreOptions options;
    options.names = kNames;
    options.topics = all_topics();
    options.lineage = lineage;
    options.batch_records = batch;
    options.event = [](Json data) { return canonical(data); };
    const auto source = open(objects);
    return restore_log(*source, target, *signer_, options, WallTime(1770000000000));
  }

  /// Every record of a partition from a place on, as text.
  static std::vector<std::string> texts(Log& log, const TopicPartition& tp, Offset from, Offset to) {
    std::vector<std::string> out;
    if (from >= to) return out;
    auto reader = must(log.open_reader({{tp, from}}));
    for (Offset at = from; at < to;) {
      auto fetch = must(reader->poll(Milliseconds(100), 100));
      if (!fetch) continue;
      for (const RecordView& r : fetch->records) {
        if (r.offset >= to) break;
        std::string text = std::to_string(r.offset.value) + "@" + std::to_string(r.timestamp.value) + " " +
                           std::string(r.key.value_or("(none)")) + "=" + std::string(r.value.value_or("(none)"));
        for (const HeaderView& h : r.headers) text += " " + std::string(h.name) + ":" + std::string(h.value.value_or("(none)"));
        out.push_back(std::move(text));
      }
      EXPECT_GT(fetch->next, at - 1);
      at = fetch->next;
    }
    return out;
  }

  /// Decisions without what a later place of a report shows in: ids.
  static std::vector<std::string> decisions(Log& log) {
    std::vector<std::string> out;
    for (int32_t p = 0; p < 2; ++p) {
      const TopicPartition tp{kNames.full(Topic::kPromotions), p};
      const OffsetRange range = must(log.range(tp));
      if (range.end <= range.start) continue;
      auto reader = must(log.open_reader({{tp, range.start}}));
      for (Offset at = range.start; at < range.end;) {
        auto fetch = must(reader->poll(Milliseconds(100), 100));
        if (!fetch) continue;
        for (const RecordView& r : fetch->records) {
          const Json event = must(parse_json(r.value.value_or("")));
          out.push_back(std::string(event.string_or("entityId", "")) + " " + std::string(event.string_or("ts", "")) + " " +
                        std::string(event.string_or("action", "")) + " " + std::string(event.string_or("rationale", "")));
        }
        at = fetch->next;
      }
    }
    std::ranges::sort(out);
    return out;
  }

  static void expect_replay_agrees(Log& log) {
    ReplayOptions options;
    options.names = kNames;
    options.check_outputs = true;
    auto replayed = replay_tasks(
        log,
        [](const std::string&) -> Result<std::shared_ptr<state::Store>> {
          return std::shared_ptr<state::Store>(state::open_memory_store());
        },
        options);
    EXPECT_TRUE(replayed.has_value()) << replayed.error().message;
  }

  TempDir dir_;
  int count_ = 0;
  std::shared_ptr<Signer> signer_ = assay::testing::test_signer(dir_);
};

TEST_F(RestoreTest, WhateverPartOfTheLogWasArchivedMakesOneHistoryThatGoesOn) {
  const auto reports = fleet(7, 3000);
  const size_t half = reports.size() * 2 / 3;
  Instance twin(fresh("twin"));
  twin.make_topics();
  twin.produce(reports);
  twin.run(1000);
  const auto wanted = decisions(twin.log());
  ASSERT_GT(wanted.size(), 6u);

  Instance lost(fresh("lost"));
  lost.make_topics();
  lost.produce(std::span(reports).first(half));
  lost.run(83);
  const Ends ends = ends_of(lost.log());
  int torn = 0, whole = 0;
  for (uint64_t seed = 0; seed < 8; ++seed) {
    SCOPED_TRACE(seed);
    std::mt19937_64 random(seed);
    Ends archived = ends;
    for (auto& [tp, end] : archived)  // each partition's archiver was somewhere else when all was lost
      if (seed > 0 && random() % 3 != 0)
        end = Offset(end.value - static_cast<int64_t>(random() % static_cast<uint64_t>(end.value / 2 + 1)));
    const auto objects = archive(lost.log(), archived);
    Instance made(fresh("made"));
    const Restored restored = must(restore(objects, made.shared()));
    EXPECT_EQ(restored.lineage, 1);
    int64_t left_out = 0;
    for (const RestoredTask& task : restored.tasks) left_out += task.left_out;
    (left_out > 0 ? torn : whole) += 1;
    if (seed == 0) {
      EXPECT_EQ(left_out, 0);
    }
    made.follow();
    expect_replay_agrees(made.log());
    made.run(217);
    if (seed == 0) {
      EXPECT_EQ(made.digests(), lost.digests());  // nothing was lost, and nothing new came
    }
    // The client sends all again that it ever sent, and then what is new: each report counts once.
    made.produce(reports);
    made.run(501);
    auto digests = made.digests(), same = twin.digests();
    for (const char* task : {"scoring-0", "scoring-1"}) EXPECT_EQ(digests[task], same[task]) << task;
    EXPECT_EQ(decisions(made.log()), wanted);
    expect_replay_agrees(made.log());
    for (const auto& [task, meta] : made.metas()) {
      if (!task.starts_with("scoring")) continue;  // the others may have had nothing new to fold
      EXPECT_EQ(meta.lineage, "1") << task;
      for (const auto& [tp, at] : meta.positions) {
        if (tp.topic != "eval.reports.v1") continue;
        EXPECT_EQ(lineage_of(at), 1) << "new records stand behind all that was lost";
      }
    }
  }
  EXPECT_GT(torn, 3);
  EXPECT_GT(whole, 0);
}

TEST_F(RestoreTest, EachRecordStandsWhereItStoodFirstAndCanBeReadFromAnyPlace) {
  const auto reports = fleet(3, 1500);
  Instance lost(fresh("lost"));
  lost.make_topics();
  lost.produce(reports);
  lost.run(97);
  const Ends ends = ends_of(lost.log());
  const auto objects = archive(lost.log(), ends);
  Instance made(fresh("made"));
  must(restore(objects, made.shared()));
  made.follow();
  EXPECT_EQ(made.log().lineage(), "1");
  std::mt19937_64 random(5);
  for (const auto& [tp, end] : ends) {
    SCOPED_TRACE(to_string(tp));
    const OffsetRange range = must(made.log().range(tp));
    EXPECT_EQ(range.start, Offset(0));
    if (tp.topic == "p.audit-events") continue;  // it has one more: that the lineage was opened
    EXPECT_EQ(range.end, end);
    for (int n = 0; n < 12; ++n) {
      const Offset from(n == 0 ? 0 : static_cast<int64_t>(random() % static_cast<uint64_t>(end.value + 1)));
      EXPECT_EQ(texts(made.log(), tp, from, end), texts(lost.log(), tp, from, end)) << from.value;
    }
  }
  // A seek goes to the same places, and a new record stands in the new lineage.
  const TopicPartition tp{"p.eval.reports.v1", 0};
  auto reader = must(made.log().open_reader({{tp, Offset(0)}}));
  must(reader->seek(tp, Offset(17)));
  std::optional<Fetch> fetch;
  while (!fetch) fetch = must(reader->poll(Milliseconds(100), 1));
  EXPECT_EQ(fetch->records.front().offset, Offset(17));
  auto writer = must(made.log().open_writer("w"));
  Transaction one;
  one.records.push_back({tp, WallTime(1), "k", "v", {}});
  must(writer->prepare(std::move(one)));
  const Offset place = must(writer->commit()).front();
  EXPECT_EQ(lineage_of(place), 1);
  EXPECT_EQ(texts(made.log(), tp, place, place + 1), (std::vector<std::string>{std::to_string(place.value) + "@1 k=v"}));
  const Offset end = must(made.log().range(tp)).end;
  EXPECT_EQ(made.log().distance(tp, Offset(ends.at(tp).value - 3), end), 3 + (end - place)) << "between lineages lies nothing";

  // Restored once more, from an archive of the restored log, all of it stands where it stood.
  const auto again = archive(made.log(), ends_of(made.log()));
  Instance third(fresh("third"));
  EXPECT_EQ(must(restore(again, third.shared())).lineage, 2);
  third.follow();
  EXPECT_EQ(texts(third.log(), tp, Offset(0), end), texts(made.log(), tp, Offset(0), end));
  third.run(300);
  EXPECT_EQ(third.digests().at("promotion-1"), lost.digests().at("promotion-1"));
}

TEST_F(RestoreTest, GoesOnWhereItWasKilledAndIsRefusedUntilItIsThrough) {
  Instance lost(fresh("lost"));
  lost.make_topics();
  lost.produce(fleet(9, 600));
  lost.run(150);
  const auto objects = archive(lost.log(), ends_of(lost.log()));
  Instance whole(fresh("whole"));
  must(restore(objects, whole.shared()));
  whole.follow();
  for (int commits : {0, 1, 3, 9}) {
    SCOPED_TRACE(commits);
    const std::string dir = fresh("made");
    int deaths = 0;
    for (bool through = false; !through; ++deaths) {
      ASSERT_LT(deaths, 300);
      std::shared_ptr<Log> real = must(open_embedded_log(dir));
      auto dying = std::make_shared<DyingLog>(*real, commits + deaths / 4);
      dying->done_ = deaths % 2 == 1;
      auto done = restore(objects, dying);
      through = done.has_value();
      if (through) break;
      EXPECT_EQ(done.error().code, Errc::kUnreachable) << done.error().message;
      dying.reset();
      real.reset();
      if (deaths < 2) continue;  // nothing was begun, perhaps
      auto opened = follow_lineage(must(open_embedded_log(dir)), "p.");
      if (!opened) {
        EXPECT_EQ(opened.error().code, Errc::kRefused);
        EXPECT_NE(opened.error().message.find("RESTORE_INCOMPLETE"), std::string::npos) << opened.error().message;
      }
    }
    EXPECT_GT(deaths, 2);
    const auto made = must(follow_lineage(must(open_embedded_log(dir)), "p."));
    for (const auto& [tp, end] : ends_of(lost.log())) {
      if (tp.topic == "p.audit-events") continue;
      EXPECT_EQ(texts(*made, tp, Offset(0), end), texts(whole.log(), tp, Offset(0), end)) << to_string(tp);
    }
    const TopicPartition audit{"p.audit-events", 0};
    const Offset end = must(made->range(audit)).end;
    EXPECT_EQ(texts(*made, audit, place_in(1, Offset(0)), end).size(), 1u) << "it is opened once";
  }
}

TEST_F(RestoreTest, RefusesALogThatHoldsAnythingElse) {
  Instance lost(fresh("lost"));
  lost.make_topics();
  lost.produce(fleet(4, 300));
  lost.run(150);
  const Ends ends = ends_of(lost.log());
  const auto objects = archive(lost.log(), ends);
  auto refused = [&](Instance& target, const std::string& words) {
    auto done = restore(objects, target.shared());
    ASSERT_FALSE(done.has_value());
    EXPECT_EQ(done.error().code, Errc::kRefused);
    EXPECT_NE(done.error().message.find(words), std::string::npos) << done.error().message;
  };
  Instance used(fresh("used"));
  used.make_topics();
  used.produce(fleet(5, 1));
  refused(used, "holds records up to offset");
  // Somebody wrote while it was under way.
  Instance disturbed(fresh("disturbed"));
  auto dying = std::make_shared<DyingLog>(disturbed.log(), 12);
  ASSERT_FALSE(restore(objects, dying).has_value());
  std::vector<OutRecord> foreign;
  for (const TopicConfig& topic : all_topics())
    for (int32_t p = 0; p < topic.partitions; ++p) foreign.push_back({{topic.name, p}, WallTime(1), "k", "v", {}});
  disturbed.produce(foreign);
  refused(disturbed, "a record that the archive does not have there");
  // Another archive than the one that it began with.
  Instance other(fresh("other"));
  auto begun = std::make_shared<DyingLog>(other.log(), 5);
  ASSERT_FALSE(restore(objects, begun).has_value());
  Ends shorter = ends;
  shorter[{"p.eval.reports.v1", 0}] = Offset(3);
  auto done = restore(archive(lost.log(), shorter), other.shared());
  ASSERT_FALSE(done.has_value());
  EXPECT_EQ(done.error().code, Errc::kRefused);
  // A lineage that is not new, and an archive whose beginning is gone.
  Instance empty(fresh("empty"));
  must(restore(objects, empty.shared(), 3));
  empty.follow();
  const auto third = archive(empty.log(), ends_of(empty.log()));
  Instance next(fresh("next"));
  EXPECT_EQ(restore(third, next.shared(), 3).error().code, Errc::kUsage);
  must(lost.log().delete_before({"p.eval.reports.v1", 0}, Offset(5)));
  const auto late = archive(lost.log(), ends);
  Instance gap(fresh("gap"));
  done = restore(late, gap.shared());
  ASSERT_FALSE(done.has_value());
  EXPECT_EQ(done.error().code, Errc::kIncomplete);
  EXPECT_NE(done.error().message.find("INPUT_GAP"), std::string::npos) << done.error().message;
}

TEST_F(RestoreTest, AMapThatIsNotTheSignedOneIsTampered) {
  Instance lost(fresh("lost"));
  lost.make_topics();
  lost.produce(fleet(6, 200));
  lost.run(150);
  const auto objects = archive(lost.log(), ends_of(lost.log()));
  Instance made(fresh("made"));
  must(restore(objects, made.shared()));
  const Lineage lineage = *must(read_lineage(made.log(), "p.")).opened;
  auto map = lineage.maps.at({"eval.reports.v1", 0});
  EXPECT_EQ(must(PositionMap::decode(map.encode())), map);
  map.next = map.next + 1;
  OutRecord forged{{"p.assay.lineage.v1", 0}, WallTime(1), "map/eval.reports.v1/0", map.encode(), {}};
  made.produce(std::span(&forged, 1));
  auto read = read_lineage(made.log(), "p.");
  ASSERT_FALSE(read.has_value());
  EXPECT_EQ(read.error().code, Errc::kTampered);
  EXPECT_NE(read.error().message.find("eval.reports.v1/0 is not the one that was signed"), std::string::npos)
      << read.error().message;
}

TEST(Lineage, PlacesOfANewLineageFollowAllThatWasLost) {
  const TopicPartition tp{"eval.reports.v1", 3};
  for (int64_t lineage : {0, 1, 7})
    for (int64_t offset : {int64_t{0}, int64_t{5}, int64_t{1099511627775}})
      EXPECT_EQ(read_place(place_text(tp, place_in(lineage, Offset(offset))), tp), place_in(lineage, Offset(offset)));
  EXPECT_EQ(place_text(tp, place_in(2, Offset(9))), "2/eval.reports.v1/3/9");
  for (const char* text :
       {"", "2/eval.reports.v1/3", "2/eval.reports.v1/4/9", "x/eval.reports.v1/3/9", "2/eval.reports.v1/3/-9", "2//9"})
    EXPECT_FALSE(read_place(text, tp)) << text;
  EXPECT_GT(place_in(1, Offset(0)), place_in(0, Offset(1099511627775)));
}

}  // namespace
}  // namespace assay::replay
