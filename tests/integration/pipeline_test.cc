// The whole pipeline on the embedded log: a commit's size, a restart or a crash never shows, and replay rebuilds it.
#include "streams/pipeline.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>

#include "replay/replayer.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/embedded_log.h"
#include "streams/queries.h"

namespace assay::streams {
namespace {

const TopicNames kNames("", 2);

std::vector<TopicConfig> all_topics() {
  std::vector<TopicConfig> topics;
  for (const TopicSpec& spec : topic_catalogue()) {
    TopicConfig topic;
    topic.name = kNames.full(spec.topic);
    topic.partitions = kNames.partitions(spec.topic);
    topics.push_back(topic);
    topic.name = dlq_of(topic.name);
    topic.max_record_bytes = kMaxDeadLetterBytes;
    topics.push_back(topic);
  }
  return topics;
}

/// Six agents over five days, three good and three that turn bad halfway; duplicates, late and broken records among them.
std::vector<OutRecord> fleet(uint64_t seed, int reports) {
  std::mt19937_64 random(seed);
  std::vector<OutRecord> out;
  const int64_t start = 1767225600000;  // 2026-01-01
  const int64_t span = 5 * kDayMs;
  for (int i = 0; i < reports; ++i) {
    const int agent = static_cast<int>(random() % 6);
    const std::string name = std::string(1, static_cast<char>('a' + agent)) + "-unit";
    int64_t at = start + span * i / reports - static_cast<int64_t>(random() % (30 * kMinuteMs));
    if (random() % 50 == 0) at -= kHourMs * 3;  // late
    const bool bad_now = agent >= 3 && at > start + span / 2;
    const double win =
        bad_now ? 0.3 + static_cast<double>(random() % 100) / 1000 : 0.9 + static_cast<double>(random() % 100) / 1000;
    OutRecord record;
    record.to = {kNames.full(Topic::kReports), -1};
    record.timestamp = WallTime(start + span);
    record.key = name;
    record.value = "{\"id\":\"r" + std::to_string(i) + "\",\"agentId\":\"" + name + "\",\"divisionId\":\"d" +
                   std::to_string(agent % 2) + "\",\"metricSet\":{\"win\":" + std::to_string(win) + "},\"timestamp\":\"" +
                   format_rfc3339_ms(at) + "\"}";
    if (random() % 40 == 0) record.value = "{broken";
    out.push_back(record);
    if (random() % 20 == 0) out.push_back(record);  // a duplicate
  }
  return out;
}

class Instance {
 public:
  explicit Instance(const std::string& name)
      : dir_(std::filesystem::temp_directory_path() / ("assay-pipeline-" + name + "-" + std::to_string(getpid()))) {
    std::filesystem::remove_all(dir_);
    std::filesystem::create_directories(dir_);
    open();
  }
  ~Instance() {
    log_.reset();
    std::filesystem::remove_all(dir_);
  }
  void open() {
    log_.reset();
    auto log = open_embedded_log(dir_ / "log");
    ASSERT_TRUE(log.has_value()) << log.error().message;
    log_ = std::move(*log);
    ASSERT_TRUE(log_->create_topics(all_topics()).has_value());
  }
  void produce(std::span<const OutRecord> records) {
    auto producer = log_->open_producer();
    ASSERT_TRUE(producer.has_value());
    for (const OutRecord& record : records) ASSERT_TRUE((*producer)->send(record).has_value());
    ASSERT_TRUE((*producer)->flush().has_value());
  }
  Result<std::shared_ptr<state::Store>> store(const std::string& task) {
    std::lock_guard lock(mutex_);
    auto& store = stores_[task];
    if (store == nullptr) store = state::open_memory_store();
    return store;
  }
  void lose_stores() { stores_.clear(); }
  Result<void> run(size_t max_commit_records, Milliseconds interval, size_t max_commit_bytes = 64 << 20) {
    PipelineOptions options;
    options.names = kNames;
    options.until_end = true;
    options.task.max_commit_records = max_commit_records;
    options.task.max_commit_bytes = max_commit_bytes;
    options.task.commit_interval = interval;
    options.task.poll_records = max_commit_records;
    Pipeline pipeline(
        *log_, options, [this](const std::string& task) { return store(task); }, std::nullopt, metrics_);
    std::atomic<bool> stop{false};
    return pipeline.run(stop);
  }
  Stores stores() {
    Stores out;
    for (auto& [task, store] : stores_) out[task] = store;
    return out;
  }
  std::map<std::string, std::string> digests() {
    std::map<std::string, std::string> out;
    auto rows = answer_from(parts_of(stores(), *log_, kNames), kNames, {"digest", {{"recompute", "1"}}});
    EXPECT_TRUE(rows.has_value());
    for (const Json& row : rows->as_array()) {
      EXPECT_EQ(row.find("stored"), nullptr) << "the digest kept and the one recomputed differ: " << canonical(row);
      out[std::string(row.string_or("task", ""))] = row.string_or("digest", "");
    }
    return out;
  }
  /// Values (without computedAt) and ids of a topic's records, by partition and in order.
  std::vector<std::string> records(Topic topic) {
    std::vector<std::string> out;
    for (int32_t p = 0; p < kNames.partitions(topic); ++p) {
      const TopicPartition tp{kNames.full(topic), p};
      auto range = log_->range(tp);
      auto reader = log_->open_reader({{tp, range->start}});
      for (Offset at = range->start; at < range->end;) {
        auto fetch = (*reader)->poll(Milliseconds(1000), 1000);
        EXPECT_TRUE(fetch.has_value());
        if (!*fetch) continue;
        for (const RecordView& record : (*fetch)->records) {
          auto value = parse_json(record.value.value_or("null"));
          EXPECT_TRUE(value.has_value());
          if (value->find("computedAt") != nullptr) value->set("computedAt", "");
          out.push_back(std::to_string(p) + " " + std::string(record.header(kHeaderId).value_or("")) + " " + canonical(*value));
        }
        at = (*fetch)->next;
      }
    }
    return out;
  }
  Log& log() { return *log_; }

 private:
  std::filesystem::path dir_;
  std::unique_ptr<Log> log_;
  std::mutex mutex_;
  std::map<std::string, std::shared_ptr<state::Store>> stores_;
  Metrics metrics_;
};

void expect_scoring_and_promotion_equal(const std::map<std::string, std::string>& a, const std::map<std::string, std::string>& b) {
  for (const auto& [task, digest] : a) {
    if (task.starts_with("allocation")) continue;  // it merges partitions: its history is the one its manifests name
    EXPECT_EQ(digest, b.at(task)) << task;
  }
}

TEST(Pipeline, CommitSizeNeverShows) {
  const auto reports = fleet(1, 4000);
  Instance big("big"), small("small");
  big.produce(reports);
  ASSERT_TRUE(big.run(100000, Milliseconds(20)).has_value());
  small.produce(reports);
  ASSERT_TRUE(small.run(37, Milliseconds(1)).has_value());
  expect_scoring_and_promotion_equal(big.digests(), small.digests());
  EXPECT_EQ(big.records(Topic::kScores), small.records(Topic::kScores));
  EXPECT_EQ(big.records(Topic::kPromotions), small.records(Topic::kPromotions));
  EXPECT_FALSE(big.records(Topic::kScores).empty());
  int promoted = 0, demoted = 0;
  for (const std::string& record : big.records(Topic::kPromotions)) {
    promoted += record.find("\"action\":\"promote\"") != std::string::npos;
    demoted += record.find("\"action\":\"demote\"") != std::string::npos;
  }
  EXPECT_EQ(promoted, 6);
  EXPECT_EQ(demoted, 3);
}

TEST(Pipeline, ACommitEndsWhenItHoldsSoManyBytes) {
  const auto reports = fleet(1, 2000);
  Instance big("roomy"), small("narrow");
  big.produce(reports);
  ASSERT_TRUE(big.run(100000, Milliseconds(100)).has_value());
  small.produce(reports);
  ASSERT_TRUE(small.run(100000, Milliseconds(100), 20000).has_value());  // a few records, whatever was fetched together
  expect_scoring_and_promotion_equal(big.digests(), small.digests());
  EXPECT_EQ(big.records(Topic::kScores), small.records(Topic::kScores));
  EXPECT_EQ(big.records(Topic::kPromotions), small.records(Topic::kPromotions));
  auto commits = [](Instance& instance) {
    auto meta = read_meta(*instance.stores().at("scoring-0"));
    return meta ? meta->sequence : -1;
  };
  EXPECT_LT(commits(big), 20);
  EXPECT_GT(commits(small), 50);
}

TEST(Pipeline, EveryDeliveredRecordIsAccountedFor) {
  Instance run("tally");
  const auto reports = fleet(2, 3000);
  run.produce(reports);
  ASSERT_TRUE(run.run(500, Milliseconds(5)).has_value());
  auto tally = answer_from(parts_of(run.stores(), run.log(), kNames), kNames, {"tally", {}});
  ASSERT_TRUE(tally.has_value());
  EXPECT_EQ(tally->number_or("delivered", 0), static_cast<double>(reports.size()));
  EXPECT_EQ(tally->number_or("delivered", 0),
            tally->number_or("accepted", 0) + tally->number_or("filtered", 0) + tally->number_or("deadLetters", 0));
  EXPECT_GT(tally->number_or("filtered", 0), 0);
  double dead = 0;
  for (int32_t p = 0; p < kNames.partitions(); ++p) {
    auto range = run.log().range({dlq_of(kNames.full(Topic::kReports)), p});
    dead += static_cast<double>(range->end - range->start);
  }
  EXPECT_EQ(dead, tally->number_or("deadLetters", 0));
}

TEST(Pipeline, StoresThatWereLostAreFoldedAgainFromTheLog) {
  const auto reports = fleet(3, 3000);
  Instance whole("whole"), broken("broken");
  whole.produce(reports);
  ASSERT_TRUE(whole.run(1000, Milliseconds(5)).has_value());
  const std::span<const OutRecord> all(reports);
  broken.produce(all.first(1000));
  ASSERT_TRUE(broken.run(100, Milliseconds(5)).has_value());
  broken.lose_stores();
  broken.produce(all.subspan(1000, 1000));
  ASSERT_TRUE(broken.run(300, Milliseconds(5)).has_value());
  broken.open();  // the log, closed and opened again
  broken.lose_stores();
  broken.produce(all.subspan(2000));
  ASSERT_TRUE(broken.run(50, Milliseconds(5)).has_value());
  expect_scoring_and_promotion_equal(whole.digests(), broken.digests());
  EXPECT_EQ(whole.records(Topic::kScores), broken.records(Topic::kScores));
  EXPECT_EQ(whole.records(Topic::kPromotions), broken.records(Topic::kPromotions));
}

TEST(Pipeline, ReplayRebuildsEveryStore) {
  Instance run("replay");
  run.produce(fleet(4, 3000));
  ASSERT_TRUE(run.run(200, Milliseconds(2)).has_value());
  std::map<std::string, std::shared_ptr<state::Store>> rebuilt;
  std::mutex mutex;
  replay::ReplayOptions options;
  options.names = kNames;
  auto tasks = replay::replay_tasks(
      run.log(),
      [&](const std::string& task) -> Result<std::shared_ptr<state::Store>> {
        std::lock_guard lock(mutex);
        return rebuilt[task] = state::open_memory_store();
      },
      options);
  ASSERT_TRUE(tasks.has_value()) << tasks.error().message;
  const auto digests = run.digests();
  int64_t outputs = 0;
  for (const replay::ReplayedTask& task : *tasks) {
    EXPECT_EQ(task.digest.hex(), digests.at(task.task)) << task.task;
    auto same = replay::compare_stores(task.task, *rebuilt.at(task.task), *run.stores().at(task.task));
    EXPECT_TRUE(same.has_value()) << same.error().message;
    outputs += task.outputs;
  }
  EXPECT_GT(outputs, 100);

  // A store that was tampered with is told apart, by key and both values.
  state::WriteBatch batch;
  batch.put("Xforeign", "row");
  auto& one = *rebuilt.at("scoring-0");
  auto meta = read_meta(one);
  meta->digest.add("something");
  batch.put(std::string(kMetaKey), meta->encode());
  ASSERT_TRUE(one.write(batch).has_value());
  auto differs = replay::compare_stores("scoring-0", one, *run.stores().at("scoring-0"));
  ASSERT_FALSE(differs.has_value());
  EXPECT_EQ(differs.error().code, Errc::kParity);
  EXPECT_NE(differs.error().message.find(to_hex("Xforeign")), std::string::npos) << differs.error().message;
}

}  // namespace
}  // namespace assay::streams
