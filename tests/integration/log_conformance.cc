// What every log must do, whatever it is made of. Offsets may have gaps (Kafka's commit markers take some).
#include "tests/integration/log_conformance.h"

#include <unistd.h>

#include <atomic>
#include <chrono>
#include <random>
#include <thread>

#include "schemas/topics.h"

namespace assay::streams {

GTEST_ALLOW_UNINSTANTIATED_PARAMETERIZED_TEST(LogConformance);

namespace {
using Clock = std::chrono::steady_clock;
constexpr auto kPatience = std::chrono::seconds(30);
constexpr Milliseconds kPoll{200};
constexpr Milliseconds kSilence{400};
constexpr WallTime kThen{1'700'000'000'000};
}  // namespace

std::string text(const std::vector<Read>& records) {
  std::string out;
  for (const Read& r : records) out += "(" + r.key.value_or("~") + "->" + r.value.value_or("~") + ")";
  return out;
}

std::vector<Read> copy(const Fetch& fetch) {
  std::vector<Read> out;
  for (const RecordView& view : fetch.records) {
    Read& r = out.emplace_back();
    r.from = fetch.from;
    r.offset = view.offset;
    r.timestamp = view.timestamp;
    if (view.key) r.key = std::string(*view.key);
    if (view.value) r.value = std::string(*view.value);
    for (const HeaderView& header : view.headers) {
      Header& h = r.headers.emplace_back();
      h.name = std::string(header.name);
      if (header.value) h.value = std::string(*header.value);
    }
  }
  return out;
}

OutRecord record(const std::string& topic, int32_t partition, std::string key, std::string value) {
  return {{topic, partition}, kThen, std::move(key), std::move(value), {}};
}

#define ASSERT_OK(result)                                        \
  do {                                                           \
    auto& checked = (result);                                    \
    ASSERT_TRUE(checked.has_value()) << checked.error().message; \
  } while (false)
#define EXPECT_OK(expression)                                    \
  do {                                                           \
    auto checked = (expression);                                 \
    EXPECT_TRUE(checked.has_value()) << checked.error().message; \
  } while (false)

/// The value, or the end of the test program's patience with this test.
template <class T>
T must(Result<T> result) {
  if (!result.has_value()) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}

void LogConformance::SetUp() {
  world_ = GetParam().make();
  log_ = world_->open();
  ASSERT_NE(log_, nullptr);
}

void LogConformance::TearDown() {
  log_.reset();
  world_.reset();
}

void LogConformance::reopen() {
  log_.reset();
  log_ = world_->open();
  ASSERT_NE(log_, nullptr);
}

std::string LogConformance::fresh_name(const std::string& what) {
  static std::atomic<int> count{0};
  static const std::string run =
      std::to_string(::getpid()) + "-" + std::to_string(Clock::now().time_since_epoch().count() % 1'000'000'000);
  return "t-" + what + "-" + run + "-" + std::to_string(++count);
}

std::string LogConformance::fresh_topic(int32_t partitions, int64_t max_record_bytes) {
  TopicConfig config;
  config.name = fresh_name("topic");
  config.partitions = partitions;
  config.max_record_bytes = max_record_bytes;
  EXPECT_OK(log_->create_topics({&config, 1}));
  return config.name;
}

std::unique_ptr<LogWriter> LogConformance::writer(const std::string& id) { return must(log_->open_writer(id)); }

std::unique_ptr<LogReader> LogConformance::reader(const std::map<TopicPartition, Offset>& from) {
  return must(log_->open_reader(from));
}

std::unique_ptr<Membership> LogConformance::member(const std::string& group, const std::string& topic) {
  auto joined = must(log_->join(group, {topic}, ""));
  const size_t partitions = static_cast<size_t>(must(log_->partition_count(topic)));
  size_t assigned = 0;
  for (auto until = Clock::now() + kPatience; assigned < partitions && Clock::now() < until;) {
    auto change = must(joined->poll(kPoll));
    if (change && change->assigned) assigned += change->partitions.size();
  }
  EXPECT_EQ(assigned, partitions);
  return joined;
}

std::vector<Offset> LogConformance::write(LogWriter& by, std::vector<OutRecord> records) {
  Transaction transaction;
  transaction.records = std::move(records);
  auto prepared = by.prepare(std::move(transaction));
  if (!prepared) throw std::runtime_error(prepared.error().message);
  return must(by.commit());
}

OffsetRange LogConformance::range(const std::string& topic, int32_t partition) { return must(log_->range({topic, partition})); }

std::vector<Read> LogConformance::read_all(const std::string& topic, int32_t partition) {
  const OffsetRange all = range(topic, partition);
  std::vector<Read> out;
  if (all.start == all.end) return out;
  auto from = reader({{{topic, partition}, all.start}});
  Offset at = all.start;
  for (auto until = Clock::now() + kPatience; at < all.end;) {
    if (Clock::now() > until) {
      ADD_FAILURE() << "reading " << topic << "-" << partition << " stops at " << at.value << " before " << all.end.value;
      break;
    }
    auto fetch = must(from->poll(kPoll, 100));
    if (!fetch) continue;
    for (Read& r : copy(*fetch)) out.push_back(std::move(r));
    EXPECT_GE(fetch->next, at);
    at = fetch->next;
  }
  return out;
}

std::vector<Read> LogConformance::read_some(LogReader& from, size_t count) {
  std::vector<Read> out;
  for (auto until = Clock::now() + kPatience; out.size() < count && Clock::now() < until;) {
    if (auto fetch = must(from.poll(kPoll, count - out.size()))) {
      for (Read& r : copy(*fetch)) out.push_back(std::move(r));
    }
  }
  EXPECT_EQ(out.size(), count);
  return out;
}

void LogConformance::expect_silence(LogReader& from, Milliseconds for_ms) {
  for (auto until = Clock::now() + for_ms; Clock::now() < until;) {
    if (auto fetch = must(from.poll(Milliseconds(50), 100))) {
      ASSERT_EQ(text(copy(*fetch)), "");
    }
  }
}

Errc LogConformance::read_error(LogReader& from, std::vector<Read>* before) {
  for (auto until = Clock::now() + kPatience; Clock::now() < until;) {
    auto fetch = from.poll(kPoll, 100);
    if (!fetch) return fetch.error().code;
    if (!*fetch || !before) continue;
    for (Read& r : copy(**fetch)) before->push_back(std::move(r));
  }
  ADD_FAILURE() << "no error came";
  return Errc::kUnexpected;
}

TEST_P(LogConformance, CreatesTopicsOnceAndDescribesThem) {
  const std::string name = fresh_topic(3, 5000);
  TopicConfig other;
  other.name = name;
  other.partitions = 7;
  EXPECT_OK(log_->create_topics({&other, 1}));  // exists: left as it is
  EXPECT_EQ(must(log_->partition_count(name)), 3);
  bool found = false;
  for (const TopicConfig& config : must(log_->topics())) {
    if (config.name != name) continue;
    found = true;
    EXPECT_EQ(config.partitions, 3);
    EXPECT_EQ(config.max_record_bytes, 5000);
    EXPECT_FALSE(config.compacted);
  }
  EXPECT_TRUE(found);
  EXPECT_EQ(range(name, 2), (OffsetRange{Offset(0), Offset(0)}));
  EXPECT_FALSE(log_->describe().empty());
}

TEST_P(LogConformance, UnknownTopicsAreNotFound) {
  const std::string none = fresh_name("none");
  auto count = log_->partition_count(none);
  ASSERT_FALSE(count.has_value());
  EXPECT_EQ(count.error().code, Errc::kNotFound);
  EXPECT_NE(count.error().message.find(none), std::string::npos);
  auto by = writer(fresh_name("writer"));
  Transaction transaction;
  transaction.records.push_back(record(none, 0, "k", "v"));
  auto prepared = by->prepare(std::move(transaction));
  ASSERT_FALSE(prepared.has_value());
  EXPECT_EQ(prepared.error().code, Errc::kNotFound);
}

TEST_P(LogConformance, KeepsOrderInEachPartition) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  std::string expected[2];
  int n = 0;
  for (int commit = 0; commit < 10; ++commit) {
    std::vector<OutRecord> records;
    for (int i = 0; i < 7; ++i, ++n) {
      int32_t partition = (n * 7 / 3) % 2;
      records.push_back(record(topic, partition, "k" + std::to_string(n), "v"));
      expected[partition] += "(k" + std::to_string(n) + "->v)";
    }
    write(*by, std::move(records));
  }
  for (int32_t partition : {0, 1}) {
    auto all = read_all(topic, partition);
    EXPECT_EQ(text(all), expected[partition]);
    for (size_t i = 1; i < all.size(); ++i) EXPECT_LT(all[i - 1].offset, all[i].offset);
  }
}

TEST_P(LogConformance, PlacesAreWhereTheRecordsAreRead) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  std::map<std::string, Offset> places;
  for (int commit = 0; commit < 5; ++commit) {
    std::vector<OutRecord> records;
    std::vector<std::string> keys;
    for (int i = 0; i < 5; ++i) {
      keys.push_back(std::to_string(commit) + "." + std::to_string(i));
      records.push_back(record(topic, i % 2, keys.back(), "v"));
    }
    auto offsets = write(*by, std::move(records));
    ASSERT_EQ(offsets.size(), keys.size());
    for (size_t i = 0; i < keys.size(); ++i) places[keys[i]] = offsets[i];
  }
  for (int32_t partition : {0, 1}) {
    for (const Read& r : read_all(topic, partition)) EXPECT_EQ(r.offset, places.at(*r.key));
  }
}

TEST_P(LogConformance, EveryFieldSurvives) {
  const std::string topic = fresh_topic();
  std::string binary;
  for (int i = 0; i < 256; ++i) binary.push_back(static_cast<char>(i));
  std::vector<OutRecord> records(7);
  for (OutRecord& r : records) r.to = {topic, 0};
  records[0].key = "plain", records[0].value = "value", records[0].timestamp = kThen;
  records[1].key = std::nullopt, records[1].value = "no key", records[1].timestamp = kThen + 5;
  records[2].key = "", records[2].value = "empty key", records[2].timestamp = kThen - 86'400'000;
  records[3].key = "tombstone", records[3].value = std::nullopt, records[3].timestamp = kThen;
  records[4].key = "empty value", records[4].value = "", records[4].timestamp = WallTime(2);
  records[5].key = binary, records[5].value = binary + binary, records[5].timestamp = WallTime(1);
  records[5].headers = {{"a", "1"}, {"null", std::nullopt}, {"empty", ""}, {"a", "2"}, {"binary", binary}};
  records[6].key = std::nullopt, records[6].value = std::nullopt, records[6].timestamp = kThen;
  records[6].headers = {{"only", "headers"}};
  auto by = writer(fresh_name("writer"));
  write(*by, records);
  auto all = read_all(topic);
  ASSERT_EQ(all.size(), records.size());
  for (size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].key, records[i].key) << i;
    EXPECT_EQ(all[i].value, records[i].value) << i;
    EXPECT_EQ(all[i].timestamp, records[i].timestamp) << i;
    EXPECT_EQ(all[i].headers, records[i].headers) << i;
  }
}

TEST_P(LogConformance, ReadersSeeCommittedRecordsOnly) {
  const std::string topic = fresh_topic();
  auto by = writer(fresh_name("writer"));
  write(*by, {record(topic, 0, "a", "1")});
  auto from = reader({{{topic, 0}, Offset(0)}});
  EXPECT_EQ(text(read_some(*from, 1)), "(a->1)");
  Transaction transaction;
  transaction.records.push_back(record(topic, 0, "b", "2"));
  EXPECT_OK(by->prepare(std::move(transaction)));
  expect_silence(*from, kSilence);
  const OffsetRange before = range(topic);
  EXPECT_OK(by->commit());
  EXPECT_EQ(text(read_some(*from, 1)), "(b->2)");
  EXPECT_GT(range(topic).end, before.end);
}

TEST_P(LogConformance, AbortedRecordsNeverShow) {
  const std::string topic = fresh_topic();
  auto by = writer(fresh_name("writer"));
  auto from = reader({{{topic, 0}, Offset(0)}});
  std::string expected;
  for (int i = 0; i < 6; ++i) {
    Transaction transaction;
    const std::string key = "k" + std::to_string(i);
    transaction.records.push_back(record(topic, 0, key, "v"));
    EXPECT_OK(by->prepare(std::move(transaction)));
    if (i % 2 == 0) {
      EXPECT_OK(by->abort());
    } else {
      EXPECT_OK(by->commit());
      expected += "(" + key + "->v)";
    }
  }
  EXPECT_EQ(text(read_some(*from, 3)), expected);
  auto all = read_all(topic);
  EXPECT_EQ(text(all), expected);
  EXPECT_LT(all.back().offset, range(topic).end);
}

TEST_P(LogConformance, OneTransactionSpansTopicsAndOffsets) {
  const std::string in = fresh_topic(2), out = fresh_topic(2), other = fresh_topic(1);
  const std::string group = fresh_name("group");
  auto joined = member(group, in);
  auto by = writer(fresh_name("writer"));
  const std::vector<TopicPartition> ours = {{in, 0}, {in, 1}};
  EXPECT_TRUE(must(log_->committed(group, ours)).empty());

  auto transaction = [&](const std::string& value, int64_t offset) {
    Transaction t;
    t.records = {record(out, 0, "a", value), record(out, 1, "b", value), record(other, 0, "c", value)};
    t.offsets = OffsetCommit{group, {{{in, 0}, Offset(offset)}, {{in, 1}, Offset(offset + 1)}}};
    t.member = joined.get();
    t.metadata = [value](std::span<const Offset> places) {
      std::string metadata = value;
      for (Offset place : places) metadata += ":" + std::to_string(place.value);
      return metadata;
    };
    return t;
  };
  EXPECT_OK(by->prepare(transaction("dropped", 10)));
  EXPECT_OK(by->abort());
  EXPECT_TRUE(must(log_->committed(group, ours)).empty());

  EXPECT_OK(by->prepare(transaction("kept", 20)));
  auto places = must(by->commit());
  ASSERT_EQ(places.size(), 3u);
  EXPECT_EQ(text(read_all(out, 0)) + text(read_all(out, 1)) + text(read_all(other, 0)), "(a->kept)(b->kept)(c->kept)");
  auto committed = must(log_->committed(group, ours));
  ASSERT_EQ(committed.size(), 2u);
  std::string metadata = "kept";
  for (Offset place : places) metadata += ":" + std::to_string(place.value);
  EXPECT_EQ((committed.at({in, 0}).offset), Offset(20));
  EXPECT_EQ((committed.at({in, 1}).offset), Offset(21));
  EXPECT_EQ((committed.at({in, 0}).metadata), metadata);
  EXPECT_EQ((committed.at({in, 1}).metadata), metadata);
  EXPECT_TRUE(must(log_->committed(fresh_name("group"), ours)).empty());
  joined->leave();
}

TEST_P(LogConformance, OffsetsCanBeCommittedAlone) {
  const std::string in = fresh_topic(2);
  const std::string group = fresh_name("group");
  auto joined = member(group, in);
  EXPECT_OK(log_->commit_offsets({group, {{{in, 1}, Offset(7)}}}, joined.get()));
  const std::vector<TopicPartition> both = {{in, 0}, {in, 1}};
  auto committed = must(log_->committed(group, both));
  ASSERT_EQ(committed.size(), 1u);  // partitions without a commit are left out
  EXPECT_EQ((committed.at({in, 1}).offset), Offset(7));

  auto by = writer(fresh_name("writer"));
  Transaction transaction;  // offsets without records
  transaction.offsets = OffsetCommit{group, {{{in, 1}, Offset(9)}}};
  transaction.member = joined.get();
  EXPECT_OK(by->prepare(std::move(transaction)));
  EXPECT_TRUE(must(by->commit()).empty());
  EXPECT_EQ((must(log_->committed(group, both)).at({in, 1}).offset), Offset(9));
  joined->leave();
}

TEST_P(LogConformance, SeveralWritersShareAPartition) {
  constexpr int kWriters = 3, kCommits = 15, kRecords = 4;
  const std::string topic = fresh_topic();
  std::vector<std::unique_ptr<LogWriter>> writers;
  for (int w = 0; w < kWriters; ++w) writers.push_back(writer(fresh_name("writer")));
  std::vector<std::map<std::string, Offset>> places(kWriters);
  std::vector<std::thread> threads;
  for (int w = 0; w < kWriters; ++w) {
    threads.emplace_back([&, w] {
      for (int c = 0; c < kCommits; ++c) {
        Transaction transaction;
        std::vector<std::string> keys;
        for (int i = 0; i < kRecords; ++i) {
          keys.push_back(std::to_string(w) + "." + std::to_string(c) + "." + std::to_string(i));
          transaction.records.push_back(record(topic, 0, std::to_string(w), keys.back()));
        }
        EXPECT_OK(writers[w]->prepare(std::move(transaction)));
        auto offsets = writers[w]->commit();
        ASSERT_TRUE(offsets.has_value()) << offsets.error().message;
        for (int i = 0; i < kRecords; ++i) places[w][keys[i]] = (*offsets)[i];
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  auto all = read_all(topic);
  ASSERT_EQ(all.size(), size_t{kWriters * kCommits * kRecords});
  std::vector<int> next(kWriters);
  for (const Read& r : all) {
    const int w = std::stoi(*r.key), n = next[w]++;
    EXPECT_EQ(*r.value, *r.key + "." + std::to_string(n / kRecords) + "." + std::to_string(n % kRecords));
    EXPECT_EQ(r.offset, places[w].at(*r.value));
  }
}

TEST_P(LogConformance, NewerWriterFencesOlder) {
  const std::string topic = fresh_topic();
  const std::string id = fresh_name("writer");
  auto old = writer(id);
  write(*old, {record(topic, 0, "a", "old")});
  Transaction dangling;
  dangling.records.push_back(record(topic, 0, "b", "dangling"));
  EXPECT_OK(old->prepare(std::move(dangling)));
  auto young = writer(id);
  auto refused = old->commit();
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kFenced) << refused.error().message;
  write(*young, {record(topic, 0, "c", "young")});
  Transaction late;
  late.records.push_back(record(topic, 0, "d", "late"));
  auto prepared = old->prepare(std::move(late));  // a log may notice only at the commit
  if (prepared) {
    auto committed = old->commit();
    ASSERT_FALSE(committed.has_value());
    EXPECT_EQ(committed.error().code, Errc::kFenced) << committed.error().message;
  } else {
    EXPECT_EQ(prepared.error().code, Errc::kFenced) << prepared.error().message;
  }
  EXPECT_EQ(text(read_all(topic)), "(a->old)(c->young)");
}

TEST_P(LogConformance, FencingHoldsAcrossThreads) {
  // One thread commits as fast as it can while the other takes over. Whatever the older was told to have committed is there,
  // nothing else of it is, and nothing of it follows the take-over.
  const std::string topic = fresh_topic();
  const std::string id = fresh_name("writer");
  auto old = writer(id);
  std::atomic<int> committed{0};
  Errc end = Errc::kUnexpected;
  std::thread thread([&] {
    for (int i = 0;; ++i) {
      Transaction transaction;
      transaction.records.push_back(record(topic, 0, "old", std::to_string(i)));
      auto prepared = old->prepare(std::move(transaction));
      if (!prepared) {
        end = prepared.error().code;
        return;
      }
      auto places = old->commit();
      if (!places) {
        end = places.error().code;
        return;
      }
      ++committed;
    }
  });
  for (auto until = Clock::now() + kPatience; committed < 5 && Clock::now() < until;) std::this_thread::sleep_for(Milliseconds(1));
  auto young = writer(id);
  write(*young, {record(topic, 0, "young", "0")});
  thread.join();
  EXPECT_EQ(end, Errc::kFenced);
  std::string expected;
  for (int i = 0; i < committed; ++i) expected += "(old->" + std::to_string(i) + ")";
  EXPECT_EQ(text(read_all(topic)), expected + "(young->0)");
}

TEST_P(LogConformance, TellsTheEndAndTellsItAgain) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  write(*by, {record(topic, 0, "a", "1")});
  auto from = reader({{{topic, 0}, Offset(0)}, {{topic, 1}, Offset(0)}});
  auto wait_for_ends = [&](int32_t also_empty) {
    bool ended[2] = {false, also_empty == 0};
    for (auto until = Clock::now() + kPatience; !(ended[0] && ended[1]) && Clock::now() < until;) {
      auto fetch = must(from->poll(kPoll, 100));
      if (!fetch) continue;
      if (fetch->at_end) {
        EXPECT_EQ(fetch->next, range(topic, fetch->from.partition).end);
        ended[fetch->from.partition] = true;
      }
    }
    EXPECT_TRUE(ended[0] && ended[1]);
  };
  wait_for_ends(1);
  expect_silence(*from, kSilence);
  EXPECT_FALSE(must(from->poll(kPoll, 100)).has_value());  // an end is told once
  write(*by, {record(topic, 0, "b", "2")});
  wait_for_ends(0);
}

TEST_P(LogConformance, FetchesAreBoundedAndPartitionsTakeTurns) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  std::vector<OutRecord> records;
  for (int i = 0; i < 200; ++i) records.push_back(record(topic, i % 2, std::to_string(i), "v"));
  write(*by, std::move(records));
  auto from = reader({{{topic, 0}, Offset(0)}, {{topic, 1}, Offset(0)}});
  size_t got[2] = {0, 0};
  size_t behind_most = 0;
  for (auto until = Clock::now() + kPatience; got[0] + got[1] < 200 && Clock::now() < until;) {
    auto fetch = must(from->poll(kPoll, 7));
    if (!fetch) continue;
    ASSERT_LE(fetch->records.size(), 7u);
    got[fetch->from.partition] += fetch->records.size();
    if (got[0] > 0 && got[1] > 0 && got[0] < 100 && got[1] < 100) {
      behind_most = std::max(behind_most, got[0] > got[1] ? got[0] - got[1] : got[1] - got[0]);
    }
  }
  EXPECT_EQ(got[0], 100u);
  EXPECT_EQ(got[1], 100u);
  EXPECT_LE(behind_most, 14u);
}

TEST_P(LogConformance, SeeksBackAndForth) {
  const std::string topic = fresh_topic();
  auto by = writer(fresh_name("writer"));
  std::vector<Offset> places;
  for (int i = 0; i < 5; ++i) places.push_back(write(*by, {record(topic, 0, std::to_string(i), "v")})[0]);
  auto from = reader({{{topic, 0}, places[1]}});
  EXPECT_EQ(text(read_some(*from, 2)), "(1->v)(2->v)");
  EXPECT_OK(from->seek({topic, 0}, places[0]));
  EXPECT_EQ(text(read_some(*from, 3)), "(0->v)(1->v)(2->v)");
  EXPECT_OK(from->seek({topic, 0}, places[4]));
  EXPECT_EQ(text(read_some(*from, 1)), "(4->v)");
  EXPECT_OK(from->seek({topic, 0}, range(topic).end));
  expect_silence(*from, kSilence);
  write(*by, {record(topic, 0, "5", "v")});
  EXPECT_EQ(text(read_some(*from, 1)), "(5->v)");
}

TEST_P(LogConformance, PausedPartitionsWaitWithTheirPlace) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  write(*by, {record(topic, 0, "a0", "v"), record(topic, 1, "b0", "v")});
  auto from = reader({{{topic, 0}, Offset(0)}, {{topic, 1}, Offset(0)}});
  read_some(*from, 2);
  from->pause({topic, 0});
  write(*by, {record(topic, 0, "a1", "v"), record(topic, 0, "a2", "v"), record(topic, 1, "b1", "v")});
  EXPECT_EQ(text(read_some(*from, 1)), "(b1->v)");
  expect_silence(*from, kSilence);
  from->resume({topic, 0});
  EXPECT_EQ(text(read_some(*from, 2)), "(a1->v)(a2->v)");
}

TEST_P(LogConformance, PlacesOutsideTheRangeAreErrors) {
  const std::string topic = fresh_topic();
  auto by = writer(fresh_name("writer"));
  write(*by, {record(topic, 0, "a", "1")});
  auto beyond = reader({{{topic, 0}, range(topic).end + 100}});
  EXPECT_EQ(read_error(*beyond), Errc::kOutOfRange);
}

TEST_P(LogConformance, DeletedRecordsAreOutOfRange) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  std::vector<Offset> places;
  for (int i = 0; i < 6; ++i)
    places.push_back(write(*by, {record(topic, 0, std::to_string(i), "v"), record(topic, 1, "x", "y")})[0]);
  EXPECT_OK(log_->delete_before({topic, 0}, places[3]));
  for (auto until = Clock::now() + kPatience; range(topic).start != places[3] && Clock::now() < until;) {
    std::this_thread::sleep_for(Milliseconds(20));
  }
  EXPECT_EQ(range(topic).start, places[3]);
  EXPECT_EQ(range(topic, 1).start, Offset(0));
  EXPECT_EQ(text(read_all(topic)), "(3->v)(4->v)(5->v)");
  EXPECT_EQ(read_all(topic, 1).size(), 6u);
  auto below = reader({{{topic, 0}, places[2]}});
  EXPECT_EQ(read_error(*below), Errc::kOutOfRange);
  write(*by, {record(topic, 0, "6", "v")});
  EXPECT_EQ(text(read_all(topic)), "(3->v)(4->v)(5->v)(6->v)");
}

TEST_P(LogConformance, ReopeningFindsEverything) {
  const std::string topic = fresh_topic(2), group = fresh_name("group"), id = fresh_name("writer");
  std::vector<Offset> places;
  {
    auto joined = member(group, topic);
    auto by = writer(id);
    for (int i = 0; i < 5; ++i) places.push_back(write(*by, {record(topic, 0, std::to_string(i), "v")})[0]);
    Transaction transaction;
    transaction.records.push_back(record(topic, 1, "b", "w"));
    transaction.offsets = OffsetCommit{group, {{{topic, 0}, Offset(3)}}};
    transaction.member = joined.get();
    transaction.metadata = [](std::span<const Offset>) { return std::string("17:meta"); };
    EXPECT_OK(by->prepare(std::move(transaction)));
    EXPECT_OK(by->commit());
    EXPECT_OK(log_->delete_before({topic, 0}, places[1]));
    Transaction dangling;
    dangling.records.push_back(record(topic, 0, "dangling", "v"));
    EXPECT_OK(by->prepare(std::move(dangling)));
    joined->leave();
  }
  reopen();
  auto by = writer(id);  // ends what dangled
  EXPECT_EQ(text(read_all(topic, 0)), "(1->v)(2->v)(3->v)(4->v)");
  EXPECT_EQ(text(read_all(topic, 1)), "(b->w)");
  const std::vector<TopicPartition> of = {{topic, 0}};
  auto committed = must(log_->committed(group, of));
  ASSERT_EQ(committed.size(), 1u);
  EXPECT_EQ((committed.at({topic, 0}).offset), Offset(3));
  EXPECT_EQ((committed.at({topic, 0}).metadata), "17:meta");
  EXPECT_GT(write(*by, {record(topic, 0, "5", "v")})[0], places[4]);
  EXPECT_EQ(text(read_all(topic, 0)), "(1->v)(2->v)(3->v)(4->v)(5->v)");
}

TEST_P(LogConformance, TakesTheLargestRecordAndNotOneByteMore) {
  const std::string topic = fresh_topic(1, kMaxRecordBytes);
  auto by = writer(fresh_name("writer"));
  std::mt19937_64 random(7);
  std::string value(kMaxRecordBytes - 3, '\0');
  for (char& c : value) c = static_cast<char>(random());
  write(*by, {record(topic, 0, "key", value)});
  Transaction larger;
  larger.records.push_back(record(topic, 0, "small", "v"));
  larger.records.push_back(record(topic, 0, "keyz", value));
  auto refused = by->prepare(std::move(larger));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kTooLarge) << refused.error().message;
  write(*by, {record(topic, 0, "after", "v")});  // nothing was prepared, and the writer goes on
  auto all = read_all(topic);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_TRUE(all[0].value == value);
  EXPECT_EQ(*all[1].key, "after");

  auto producer = must(log_->open_producer());
  EXPECT_OK(producer->send(record(topic, 0, "key", value)));
  auto sent = producer->send(record(topic, 0, "keyz", value));
  ASSERT_FALSE(sent.has_value());
  EXPECT_EQ(sent.error().code, Errc::kTooLarge) << sent.error().message;
  EXPECT_OK(producer->flush());
  EXPECT_EQ(read_all(topic).size(), 3u);
}

TEST_P(LogConformance, LargeTransactionsAreWhole) {
  const std::string topic = fresh_topic(3);
  auto by = writer(fresh_name("writer"));
  std::vector<OutRecord> records;
  for (int i = 0; i < 5000; ++i)
    records.push_back(record(topic, i % 3, std::to_string(i), std::string(400, static_cast<char>('a' + i % 26))));
  auto places = write(*by, std::move(records));
  ASSERT_EQ(places.size(), 5000u);
  for (int32_t partition : {0, 1, 2}) {
    auto all = read_all(topic, partition);
    ASSERT_EQ(all.size(), partition == 2 ? 1666u : 1667u);
    for (size_t n = 0; n < all.size(); ++n) {
      const int i = static_cast<int>(n) * 3 + partition;
      ASSERT_EQ(*all[n].key, std::to_string(i));
      ASSERT_EQ(all[n].offset, places[i]);
      ASSERT_EQ(*all[n].value, std::string(400, static_cast<char>('a' + i % 26)));
    }
  }
}

TEST_P(LogConformance, ProducerSpreadsByMurmur2) {
  constexpr int32_t kPartitions = 5;
  const std::string topic = fresh_topic(kPartitions);
  auto producer = must(log_->open_producer());
  std::vector<std::string> expected(kPartitions);
  for (int i = 0; i < 300; ++i) {
    const std::string key = "agent-" + std::to_string(i % 40);
    OutRecord r = record(topic, -1, key, std::to_string(i));
    EXPECT_OK(producer->send(r));
    expected[partition_of(key, kPartitions)] += "(" + key + "->" + std::to_string(i) + ")";
  }
  EXPECT_OK(producer->flush());
  for (int32_t p = 0; p < kPartitions; ++p) EXPECT_EQ(text(read_all(topic, p)), expected[p]);

  for (int i = 0; i < 50; ++i) {
    OutRecord r = record(topic, -1, "", std::to_string(i));
    r.key.reset();
    EXPECT_OK(producer->send(r));
  }
  EXPECT_OK(producer->send(record(topic, 4, "agent-0", "explicit")));
  EXPECT_OK(producer->flush());
  size_t keyless = 0;
  for (int32_t p = 0; p < kPartitions; ++p) {
    for (const Read& r : read_all(topic, p)) keyless += r.key ? 0 : 1;
  }
  EXPECT_EQ(keyless, 50u);
  EXPECT_EQ(*read_all(topic, 4).back().value, "explicit");
}

TEST_P(LogConformance, ProducerRefusesWhatHasNoPlace) {
  auto producer = must(log_->open_producer());
  const std::string none = fresh_name("none");
  auto refused = producer->send(record(none, -1, "k", "v"));
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kNotFound) << refused.error().message;
  EXPECT_NE(refused.error().message.find(none), std::string::npos);
  EXPECT_OK(producer->flush());
}

TEST_P(LogConformance, ReadersOfOnePartitionDoNotDisturbEachOther) {
  const std::string topic = fresh_topic();
  auto by = writer(fresh_name("writer"));
  std::vector<std::thread> threads;
  std::vector<std::string> seen(3);
  for (std::string& mine : seen) {
    threads.emplace_back([&] {
      auto from = reader({{{topic, 0}, Offset(0)}});
      mine = text(read_some(*from, 60));
    });
  }
  std::string expected;
  for (int i = 0; i < 20; ++i) {
    std::vector<OutRecord> records;
    for (int j = 0; j < 3; ++j) {
      records.push_back(record(topic, 0, std::to_string(i), std::to_string(j)));
      expected += "(" + std::to_string(i) + "->" + std::to_string(j) + ")";
    }
    write(*by, std::move(records));
  }
  for (std::thread& thread : threads) thread.join();
  for (const std::string& mine : seen) EXPECT_EQ(mine, expected);
}

}  // namespace assay::streams
