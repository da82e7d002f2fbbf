// The whole pipeline on the embedded log: a commit's size, a restart or a crash never shows, and replay rebuilds it.
#include "streams/pipeline.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <random>
#include <set>
#include <tuple>

#include "replay/backfill.h"
#include "replay/replayer.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/embedded_log.h"
#include "streams/queries.h"
#include "streams/refold.h"

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

/// A log on which somebody changed one record after it was written.
class TamperedLog : public Log {
 public:
  /// `change`: the new value, or nothing to leave the record as it is.
  using Change = std::function<std::optional<std::string>(const TopicPartition&, const RecordView&)>;
  TamperedLog(Log& real, Change change) : real_(real), change_(std::move(change)) {}

  std::string describe() const override { return real_.describe(); }
  Result<std::string> cluster_id() override { return real_.cluster_id(); }
  Result<void> create_topics(std::span<const TopicConfig> topics) override { return real_.create_topics(topics); }
  Result<std::vector<TopicConfig>> topics() override { return real_.topics(); }
  Result<int32_t> partition_count(const std::string& topic) override { return real_.partition_count(topic); }
  Result<OffsetRange> range(const TopicPartition& tp) override { return real_.range(tp); }
  Result<std::unique_ptr<LogWriter>> open_writer(const std::string& id) override { return real_.open_writer(id); }
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
  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    auto real = real_.open_reader(from);
    if (!real) return real.error();
    return std::unique_ptr<LogReader>(std::make_unique<Reader>(std::move(*real), change_));
  }

 private:
  class Reader : public LogReader {
   public:
    Reader(std::unique_ptr<LogReader> real, const Change& change) : real_(std::move(real)), change_(change) {}
    Result<std::optional<Fetch>> poll(Milliseconds wait, size_t max_records) override {
      auto fetch = real_->poll(wait, max_records);
      if (!fetch || !*fetch) return fetch;
      for (RecordView& record : (*fetch)->records)
        if (auto value = change_((*fetch)->from, record)) record.value = *kept_.emplace_back(std::make_unique<std::string>(*value));
      return fetch;
    }
    Result<void> seek(const TopicPartition& tp, Offset to) override { return real_->seek(tp, to); }
    void pause(const TopicPartition& tp) override { real_->pause(tp); }
    void resume(const TopicPartition& tp) override { real_->resume(tp); }

   private:
    std::unique_ptr<LogReader> real_;
    const Change& change_;
    std::vector<std::unique_ptr<std::string>> kept_;
  };
  Log& real_;
  Change change_;
};

/// What a replay says about the log as `change` leaves it; the results where it finds nothing.
Result<std::vector<replay::ReplayedTask>> replayed(Instance& run, TamperedLog::Change change) {
  TamperedLog log(run.log(), std::move(change));
  replay::ReplayOptions options;
  options.names = kNames;
  options.threads = 1;
  options.running = [stores = run.stores()](const std::string& task) { return stores.at(task); };
  return replay::replay_tasks(
      log, [](const std::string&) -> Result<std::shared_ptr<state::Store>> { return {state::open_memory_store()}; }, options);
}

/// The first record of the topic's first partition that `wanted` takes, changed by `edit`.
TamperedLog::Change edit_one(Topic topic, int32_t partition, std::function<bool(const Json&)> wanted,
                             std::function<void(Json&)> edit) {
  auto at = std::make_shared<std::optional<Offset>>();
  return [=](const TopicPartition& tp, const RecordView& record) -> std::optional<std::string> {
    if (tp != TopicPartition{kNames.full(topic), partition} || (*at && **at != record.offset)) return std::nullopt;
    auto value = parse_json(record.value.value_or(""));
    if (!value || !wanted(*value)) return std::nullopt;
    *at = record.offset;
    edit(*value);
    return canonical(*value);
  };
}

TamperedLog::Change edit_manifest(const std::string& task, int32_t partition, int sequence, std::function<void(Json&)> edit) {
  return edit_one(
      Topic::kManifests, partition,
      [=](const Json& m) {
        auto manifest = Manifest::decode(canonical(m));
        return manifest && manifest->task == task && manifest->sequence == sequence;
      },
      std::move(edit));
}

TEST(Replay, NamesEachKindOfDifference) {
  Instance run("differs");
  run.produce(fleet(5, 2500));
  ASSERT_TRUE(run.run(300, Milliseconds(2)).has_value());
  auto clean = replayed(run, [](const TopicPartition&, const RecordView&) { return std::nullopt; });
  ASSERT_TRUE(clean.has_value()) << clean.error().message;
  auto says = [&](TamperedLog::Change change, const std::vector<std::string>& parts) {
    auto result = replayed(run, std::move(change));
    ASSERT_FALSE(result.has_value()) << parts.front();
    EXPECT_EQ(result.error().code, Errc::kParity) << result.error().message;
    for (const std::string& part : parts)
      EXPECT_NE(result.error().message.find(part), std::string::npos) << part << " in: " << result.error().message;
  };
  const std::string zeros(64, '0');
  auto set = [&](const std::string& member, Json value) { return [=](Json& m) { m.set(member, value); }; };
  says(edit_manifest("scoring-0", 0, 2, set("stateDigest", std::string(32, '0'))),
       {"scoring-0 manifest 2", "state digest", "instead of 000000"});
  says(edit_manifest("scoring-0", 0, 2, set("outputHash", zeros)), {"scoring-0 manifest 2", "output hash", "instead of " + zeros});
  says(edit_manifest("scoring-0", 0, 2, set("previous", zeros)), {"scoring-0 manifest 2", "manifest before"});
  says(edit_manifest("promotion-0", 2, 1, set("outputHash", zeros)), {"promotion-0 manifest 1"});

  // A record that a task wrote: found by its counter, named down to the field.
  says(edit_one(
           Topic::kScores, 0, [](const Json& v) { return v.string_or("window", "") == "24h"; }, set("samples", 77)),
       {"comparing outputs", "on eval.scores.v1-0", "samples is 77 on the log and ", "folded again"});
  says(edit_one(
           Topic::kAudit, 0, [](const Json& v) { return v.string_or("eventType", "") == "eval.submit"; }, set("actor", "nobody")),
       {"on audit-events-0", R"(actor is "nobody" on the log and "service:eval-engine" folded again)"});

  // A report changed after it was folded: the state is another one, and the running store says where.
  says(edit_one(
           Topic::kReports, 0, [](const Json& v) { return v.string_or("id", "") > "r24"; },
           [](Json& v) { v.set("metricSet", Json::object().set("win", 0.123456)); }),
       {"state digest", "of agent ", "-unit", " rebuilt and ", " running"});
}

TEST(Replay, SaysWhatOtherCodeMade) {
  Instance run("versions");
  run.produce(fleet(6, 1500));
  ASSERT_TRUE(run.run(300, Milliseconds(2)).has_value());
  auto other_code = [](const TopicPartition& tp, const RecordView& record) -> std::optional<std::string> {
    if (tp.topic != kNames.full(Topic::kManifests)) return std::nullopt;
    auto manifest = Manifest::decode(record.value.value_or(""));
    if (!manifest || manifest->task != "scoring-0") return std::nullopt;
    manifest->code_version = "0";
    return manifest->encode();
  };
  auto expected_of = [](const std::vector<replay::ReplayedTask>& tasks) {
    std::map<std::string, std::string> out;
    for (const replay::ReplayedTask& task : tasks)
      if (task.expected) out[task.task] = *task.expected;
    return out;
  };
  // Other code, a chain of its own, and another result in manifest 3: expected, and told once.
  std::string previous;
  int64_t last = 0;
  auto changed = replayed(run, [&](const TopicPartition& tp, const RecordView& record) -> std::optional<std::string> {
    auto text = other_code(tp, record);
    if (!text) return text;
    auto manifest = Manifest::decode(*text);
    if (manifest->sequence == 1) previous.clear();
    if (manifest->sequence == 3) manifest->state_digest.add("a rule that was another one");
    manifest->previous = previous;
    last = std::max(last, manifest->sequence);
    text = manifest->encode();
    previous = Manifest::hash(*text);
    return text;
  });
  ASSERT_TRUE(changed.has_value()) << changed.error().message;
  const auto expected = expected_of(*changed);
  ASSERT_EQ(expected.size(), 1u);
  EXPECT_GT(last, 3);
  const std::string& what = expected.at("scoring-0");
  EXPECT_NE(what.find("manifest 3 was made by code version 0, this is " + std::string(kCodeVersion) + ": state digest"),
            std::string::npos)
      << what;

  // Other code with the same results is no difference at all.
  auto same = replayed(run, [&](const TopicPartition& tp, const RecordView& record) -> std::optional<std::string> {
    auto text = other_code(tp, record);
    if (!text) return text;
    auto manifest = Manifest::decode(*text);
    if (manifest->sequence == 1) previous.clear();
    manifest->previous = previous;
    text = manifest->encode();
    previous = Manifest::hash(*text);
    return text;
  });
  ASSERT_TRUE(same.has_value()) << same.error().message;
  EXPECT_TRUE(expected_of(*same).empty());
}

/// Code of that version made scoring-0: each 24h score is half of what it is, and the first hour is told as one of another year.
TamperedLog::Change wrong_scores_by(const std::string& version) {
  auto moved = std::make_shared<std::optional<Offset>>();
  return [=](const TopicPartition& tp, const RecordView& record) -> std::optional<std::string> {
    if (tp == TopicPartition{kNames.full(Topic::kManifests), 0}) {
      auto manifest = Manifest::decode(record.value.value_or(""));
      manifest->code_version = version;
      return manifest->encode();
    }
    if (tp != TopicPartition{kNames.full(Topic::kScores), 0}) return std::nullopt;
    auto score = parse_json(record.value.value_or(""));
    if (!score || score->find("corrects") != nullptr) return std::nullopt;
    if (score->string_or("window", "") == "24h") return canonical(score->set("score", score->number_or("score", 0) / 2));
    if (score->string_or("window", "") != "1h" || (*moved && **moved != record.offset)) return std::nullopt;
    *moved = record.offset;
    return canonical(score->set("windowEnd", "2027-01-01T00:00:00.000Z"));
  };
}

std::string closed_window(const Json& score) {
  return std::string(score.string_or("agentId", "")) + " " + std::string(score.string_or("window", "")) + " " +
         std::string(score.string_or("windowEnd", ""));
}

struct ScoreRecord {
  std::string id, writer;
  Json value;
};

/// eval.scores.v1-0, the corrections apart.
std::pair<std::map<std::string, ScoreRecord>, std::vector<ScoreRecord>> scores_and_corrections(Log& log) {
  std::pair<std::map<std::string, ScoreRecord>, std::vector<ScoreRecord>> out;
  const TopicPartition tp{kNames.full(Topic::kScores), 0};
  RangeReader ranges(log);
  const OffsetRange range = *log.range(tp);
  auto read = ranges.read(tp, range.start, range.end, [&](std::span<const RecordView> records) -> Result<void> {
    for (const RecordView& record : records) {
      ScoreRecord one{std::string(*record.header(kHeaderId)), std::string(*record.header(kHeaderWriter)),
                      *parse_json(*record.value)};
      if (one.value.find("corrects") != nullptr)
        out.second.push_back(std::move(one));
      else
        out.first.emplace(closed_window(one.value), std::move(one));
    }
    return {};
  });
  EXPECT_TRUE(read.has_value());
  return out;
}

replay::BackfillOptions backfill_options(size_t batch_records = 500) {
  replay::BackfillOptions options;
  options.names = kNames;
  options.reason = "the day was halved";
  options.actor = "user:test";
  options.now = WallTime(1800000000000);
  options.batch_records = batch_records;
  return options;
}

/// Each wrong score of wrong_scores_by() is corrected once, by what the log really holds, and the audit rows name each.
void expect_corrected_once(Instance& run) {
  const auto [originals, corrections] = scores_and_corrections(run.log());
  int64_t days = 0;
  for (const auto& [window, score] : originals) days += score.value.string_or("window", "") == "24h";
  ASSERT_GT(days, 100);
  ASSERT_EQ(static_cast<int64_t>(corrections.size()), days + 2);
  std::set<std::string> ids;
  std::map<std::string, std::string> kinds;
  for (const ScoreRecord& correction : corrections) {
    const std::string window = closed_window(correction.value);
    EXPECT_TRUE(ids.insert(correction.id).second) << window;
    EXPECT_EQ(correction.value.string_or("computedAt", ""), format_rfc3339_ms(1800000000000));
    const std::string corrects(correction.value.string_or("corrects", ""));
    const auto original = originals.find(window);
    if (original == originals.end()) {
      kinds["withdrawn"] = corrects;
      EXPECT_TRUE(correction.value.find("score")->is_null());
      EXPECT_EQ(correction.value.number_or("samples", -1), 0);
      EXPECT_EQ(correction.value.string_or("windowEnd", ""), "2027-01-01T00:00:00.000Z");
      continue;
    }
    EXPECT_EQ(replay::score_content(correction.value), replay::score_content(original->second.value)) << window;
    if (corrects.empty())
      kinds["added"] = original->second.id;
    else
      EXPECT_EQ(corrects, original->second.id) << window;
  }
  EXPECT_EQ(kinds.size(), 2u);
  EXPECT_EQ(kinds["added"], kinds["withdrawn"]) << "the hour that was told as another one";
  std::set<std::string> audited;
  for (const std::string& text : run.records(Topic::kAudit)) {
    if (text.find("eval.scores.corrected") == std::string::npos) continue;
    auto row = parse_json(std::string_view(text).substr(text.find('{')));
    EXPECT_EQ(row->string_or("actor", ""), "user:test");
    EXPECT_EQ(row->find("data")->string_or("reason", ""), "the day was halved");
    for (const Json& one : row->find("data")->find("corrections")->as_array())
      EXPECT_TRUE(audited.insert(std::string(one.string_or("id", ""))).second);
  }
  EXPECT_EQ(audited, ids);
}

TEST(Backfill, CorrectsWhatOtherCodeMadeAndFindsNothingTheSecondTime) {
  Instance run("backfill");
  run.produce(fleet(8, 2500));
  ASSERT_TRUE(run.run(300, Milliseconds(2)).has_value());
  const auto promotions = run.records(Topic::kPromotions);

  // This very code made them: nobody mended anything, somebody changed the log.
  TamperedLog own(run.log(), wrong_scores_by(std::string(kCodeVersion)));
  auto refused = replay::backfill(own, &run.log(), backfill_options());
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kParity);
  EXPECT_NE(refused.error().message.find("replay verify"), std::string::npos) << refused.error().message;
  EXPECT_TRUE(scores_and_corrections(run.log()).second.empty());

  TamperedLog log(run.log(), wrong_scores_by("0"));
  auto dry = replay::backfill(log, nullptr, backfill_options());
  ASSERT_TRUE(dry.has_value()) << dry.error().message;
  EXPECT_TRUE(scores_and_corrections(run.log()).second.empty());
  std::vector<std::string> told;
  auto options = backfill_options();
  options.each = [&](const replay::Correction& c) { told.push_back(c.id); };
  auto done = replay::backfill(log, &run.log(), options);
  ASSERT_TRUE(done.has_value()) << done.error().message;
  EXPECT_EQ(std::tie(done->changed, done->added, done->withdrawn, done->scores),
            std::tie(dry->changed, dry->added, dry->withdrawn, dry->scores));
  EXPECT_EQ(std::make_pair(done->added, done->withdrawn), std::make_pair(int64_t{1}, int64_t{1}));
  EXPECT_EQ(static_cast<int64_t>(told.size()), done->changed + 2);
  EXPECT_EQ(dry->audit_rows, 0);
  EXPECT_GE(done->audit_rows, 1);
  expect_corrected_once(run);

  auto again = replay::backfill(log, &run.log(), backfill_options());
  ASSERT_TRUE(again.has_value()) << again.error().message;
  EXPECT_EQ(again->changed + again->added + again->withdrawn + again->audit_rows, 0);
  EXPECT_EQ(again->scores, done->scores);

  // The pipeline goes on past them, decides nothing anew, and all of it is folded again the same.
  ASSERT_TRUE(run.run(300, Milliseconds(2)).has_value());
  EXPECT_EQ(run.records(Topic::kPromotions), promotions);
  auto clean = replayed(run, [](const TopicPartition&, const RecordView&) { return std::nullopt; });
  ASSERT_TRUE(clean.has_value()) << clean.error().message;
}

/// A log whose writers answer as they please: yes, nothing although it is done, nothing because it is not, and the process dies.
class RestlessLog : public TamperedLog {
 public:
  using TamperedLog::TamperedLog;
  int commits = 0;
  Result<std::unique_ptr<LogWriter>> open_writer(const std::string& id) override {
    auto real = TamperedLog::open_writer(id);
    if (!real) return real.error();
    return std::unique_ptr<LogWriter>(std::make_unique<Writer>(std::move(*real), commits));
  }

 private:
  class Writer : public LogWriter {
   public:
    Writer(std::unique_ptr<LogWriter> real, int& commits) : real_(std::move(real)), commits_(commits) {}
    Result<void> prepare(Transaction transaction) override { return real_->prepare(std::move(transaction)); }
    Result<std::vector<Offset>> commit() override {
      const int turn = commits_++ % 5;
      const Error silence{Errc::kAmbiguous, "no answer"};
      if (turn == 1) return real_->commit() ? silence : Error{Errc::kUnexpected, "it did not commit"};
      if (turn == 2) return real_->abort() ? silence : Error{Errc::kUnexpected, "it did not abort"};
      if (turn == 4) {
        (void)real_->abort();
        return Error{Errc::kUnreachable, "killed"};
      }
      return real_->commit();
    }
    Result<void> abort() override { return real_->abort(); }

   private:
    std::unique_ptr<LogWriter> real_;
    int& commits_;
  };
};

TEST(Backfill, IsWrittenOnceWhateverBecomesOfItsCommits) {
  Instance run("restless");
  run.produce(fleet(9, 2500));
  ASSERT_TRUE(run.run(300, Milliseconds(2)).has_value());
  TamperedLog source(run.log(), wrong_scores_by("0"));
  RestlessLog into(run.log(), [](const TopicPartition&, const RecordView&) { return std::nullopt; });
  int deaths = 0;
  for (;; ++deaths) {
    ASSERT_LT(deaths, 200);
    auto done = replay::backfill(source, &into, backfill_options(20));
    if (done) break;
    ASSERT_EQ(done.error().code, Errc::kUnreachable) << done.error().message;
  }
  EXPECT_GT(deaths, 3);
  expect_corrected_once(run);
  ASSERT_TRUE(run.run(300, Milliseconds(2)).has_value()) << "a counter of the writers has a hole";
}

}  // namespace
}  // namespace assay::streams
