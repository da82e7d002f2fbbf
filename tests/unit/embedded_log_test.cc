// What the embedded log promises beyond the conformance suite: damage is found, faults leave nothing half-done, space comes back.
#include "streams/embedded_log.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "tests/unit/embedded_log_faults.h"

namespace assay::streams {
namespace {

using embedded::FaultyFiles;
using embedded::slurp;
using embedded::spill;
namespace fs = std::filesystem;

template <class T>
T must(Result<T> result) {
  if (!result.has_value()) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
#define EXPECT_OK(expression)                                    \
  do {                                                           \
    auto checked = (expression);                                 \
    EXPECT_TRUE(checked.has_value()) << checked.error().message; \
  } while (false)
#define EXPECT_FAILS(expression, errc)                                \
  do {                                                                \
    auto checked = (expression);                                      \
    ASSERT_FALSE(checked.has_value());                                \
    EXPECT_EQ(checked.error().code, errc) << checked.error().message; \
  } while (false)

constexpr WallTime kThen{1'700'000'000'000};

OutRecord record(const std::string& topic, int32_t partition, std::string key, std::string value, WallTime timestamp = kThen) {
  return {{topic, partition}, timestamp, std::move(key), std::move(value), {}};
}

Result<std::vector<Offset>> try_write(LogWriter& writer, std::vector<OutRecord> records) {
  Transaction transaction;
  transaction.records = std::move(records);
  TRY(writer.prepare(std::move(transaction)));
  return writer.commit();
}

/// Everything in the partition as "offset:key->value " text.
Result<std::string> try_text(Log& log, const TopicPartition& tp) {
  TRY_ASSIGN(OffsetRange range, log.range(tp));
  std::string out;
  if (range.start == range.end) return out;
  TRY_ASSIGN(auto reader, log.open_reader({{tp, range.start}}));
  while (true) {
    TRY_ASSIGN(auto fetch, reader->poll(Milliseconds(0), 3));
    if (!fetch) return out;
    for (const RecordView& r : fetch->records) {
      out +=
          std::to_string(r.offset.value) + ":" + std::string(r.key.value_or("~")) + "->" + std::string(r.value.value_or("~")) + " ";
    }
  }
}
std::string text(Log& log, const TopicPartition& tp) { return must(try_text(log, tp)); }

class EmbeddedLogTest : public testing::Test {
 protected:
  EmbeddedLogTest() {
    root_ = embedded::fresh_directory(testing::TempDir());
    dir_ = root_ + "/log";
    options_.clean_interval_ms = 0;
  }
  ~EmbeddedLogTest() override { fs::remove_all(root_); }

  std::unique_ptr<Log> open() { return must(open_embedded_log(dir_, options_)); }
  std::unique_ptr<Log> open(const std::string& dir) { return must(open_embedded_log(dir, options_)); }
  void topic(Log& log, const std::string& name, int32_t partitions = 1, bool compacted = false, int64_t retention_ms = -1) {
    TopicConfig config;
    config.name = name;
    config.partitions = partitions;
    config.compacted = compacted;
    config.retention_ms = retention_ms;
    EXPECT_OK(log.create_topics({&config, 1}));
  }
  static EmbeddedLog& embedded_of(std::unique_ptr<Log>& log) { return dynamic_cast<EmbeddedLog&>(*log); }
  std::vector<std::string> files_ending(const std::string& suffix) {
    std::vector<std::string> out;
    for (const auto& entry : fs::directory_iterator(dir_)) {
      if (entry.path().string().ends_with(suffix)) out.push_back(entry.path().string());
    }
    std::sort(out.begin(), out.end());
    return out;
  }
  std::string copy_of_log(const std::string& name) {
    const std::string to = root_ + "/" + name;
    fs::remove_all(to);
    fs::copy(dir_, to);
    return to;
  }

  std::string root_, dir_;
  EmbeddedLogOptions options_;
};

TEST_F(EmbeddedLogTest, CutAtEveryByteShowsExactlyTheCommittedPrefix) {
  struct State {
    uint64_t bytes;
    std::string a, b;
    int64_t committed;
  };
  std::vector<State> states;
  const TopicPartition a{"a", 0}, b{"b", 1};
  {
    auto log = open();
    topic(*log, "a");
    topic(*log, "b", 2);
    auto writer = must(log->open_writer("w"));
    auto note = [&] {
      auto committed = must(log->committed("g", std::vector{a}));
      states.push_back(
          {embedded_of(log).disk_bytes(), text(*log, a), text(*log, b), committed.empty() ? -1 : committed.at(a).offset.value});
    };
    note();
    for (int i = 0; i < 4; ++i) {
      Transaction transaction;
      transaction.records = {record("a", 0, "k", std::string(i, 'v')), record("b", 1, "k", std::to_string(i)),
                             record("a", 0, "l", "m")};
      transaction.offsets = OffsetCommit{"g", {{a, Offset(i)}}};
      transaction.metadata = [](std::span<const Offset> places) { return std::to_string(places[0].value); };
      EXPECT_OK(writer->prepare(std::move(transaction)));
      EXPECT_OK(writer->commit());
      note();
    }
    fs::copy(dir_, root_ + "/whole");
  }
  const std::string name = fs::path(files_ending(".journal").at(0)).filename();
  const std::string whole = slurp(root_ + "/whole/" + name);
  ASSERT_EQ(whole.size(), states.back().bytes);
  std::mt19937_64 random(1);
  const std::string cut = root_ + "/cut";
  fs::create_directories(cut);
  for (size_t length = states[states.size() - 3].bytes; length <= whole.size(); ++length) {
    auto expected = std::find_if(states.rbegin(), states.rend(), [&](const State& s) { return s.bytes <= length; });
    std::string torn = whole.substr(0, length);
    switch (length % 3) {
      case 1:
        torn.append(random() % 200, '\0');
        break;
      case 2:
        for (size_t i = random() % 200; i > 0; --i) torn.push_back(static_cast<char>(random()));
        break;
    }
    spill(cut + "/" + name, torn);
    SCOPED_TRACE("cut at " + std::to_string(length));
    {
      auto log = open(cut);
      ASSERT_EQ(text(*log, a), expected->a);
      ASSERT_EQ(text(*log, b), expected->b);
      auto committed = must(log->committed("g", std::vector{a}));
      ASSERT_EQ(committed.empty() ? -1 : committed.at(a).offset.value, expected->committed);
      ASSERT_EQ(fs::file_size(cut + "/" + name), expected->bytes);
      EXPECT_OK(try_write(*must(log->open_writer("w")), {record("a", 0, "next", "x")}));
    }
    auto log = open(cut);
    const int64_t end = must(log->range(a)).end.value;
    ASSERT_EQ(text(*log, a), expected->a + std::to_string(end - 1) + ":next->x ");
  }
}

TEST_F(EmbeddedLogTest, AnyBitFlippedBeforeTheProvenEndIsFoundAndNamed) {
  const TopicPartition a{"a", 0};
  uint64_t proven;
  {
    auto log = open();
    topic(*log, "a");
    auto writer = must(log->open_writer("w"));
    for (int i = 0; i < 3; ++i) EXPECT_OK(try_write(*writer, {record("a", 0, "k", std::to_string(i))}));
    proven = embedded_of(log).disk_bytes();
  }
  const std::string path = files_ending(".journal").at(0);
  const std::string whole = slurp(path);
  ASSERT_GT(whole.size(), proven);  // closing left a proof
  for (size_t at = 0; at < whole.size(); ++at) {
    std::string bad = whole;
    bad[at] = static_cast<char>(bad[at] ^ 1 << at % 8);
    spill(path, bad);
    auto log = open_embedded_log(dir_, options_);
    if (at < proven) {
      ASSERT_FALSE(log.has_value()) << at;
      ASSERT_EQ(log.error().code, Errc::kCorrupt);
      ASSERT_NE(log.error().message.find(path), std::string::npos) << log.error().message;
    } else {
      ASSERT_TRUE(log.has_value()) << at << log.error().message;
      ASSERT_EQ(text(**log, a), "0:k->0 1:k->1 2:k->2 ");
    }
  }
}

TEST_F(EmbeddedLogTest, DamageInSealedSegmentsIsNamedAndNeverSkipped) {
  const TopicPartition a{"a", 0};
  options_.segment_bytes = 2000;
  std::string expected;
  {
    auto log = open();
    topic(*log, "a");
    auto writer = must(log->open_writer("w"));
    for (int i = 0; i < 40; ++i)
      EXPECT_OK(try_write(*writer, {record("a", 0, "key", std::string(50, static_cast<char>('a' + i)))}));
    expected = text(*log, a);
  }
  auto journals = files_ending(".journal");
  ASSERT_GT(journals.size(), 3u);
  const std::string path = journals[2], index = path.substr(0, path.size() - 8) + ".index";
  const std::string whole = slurp(path), whole_index = slurp(index);
  ASSERT_FALSE(whole_index.empty());
  int found_open = 0, found_reading = 0, harmless = 0;
  for (bool with_index : {true, false}) {
    for (size_t at = 0; at < whole.size(); ++at) {
      std::string bad = whole;
      bad[at] = static_cast<char>(bad[at] ^ 1 << at % 8);
      spill(path, bad);
      fs::remove(index);
      if (with_index) spill(index, whole_index);
      auto log = open_embedded_log(dir_, options_);
      Result<std::string> read = log ? try_text(**log, a) : Result<std::string>(log.error());
      if (read) {
        ASSERT_TRUE(with_index) << "byte " << at << " of a segment that was read through";
        ASSERT_EQ(*read, expected);
        ++harmless;
      } else {
        ASSERT_EQ(read.error().code, Errc::kCorrupt);
        ASSERT_NE(read.error().message.find(path + " at "), std::string::npos) << read.error().message;
        ++(log ? found_reading : found_open);
      }
    }
  }
  EXPECT_GT(found_open, 0);
  EXPECT_GT(found_reading, 0);
  EXPECT_GT(harmless, 0);
  spill(path, whole);
  for (size_t at = 0; at < whole_index.size(); ++at) {  // a bad side-car costs time, nothing else
    std::string bad = whole_index;
    bad[at] = static_cast<char>(bad[at] ^ 1 << at % 8);
    spill(index, bad);
    ASSERT_EQ(text(*open(), a), expected) << at;
    spill(index, whole_index.substr(0, at));
    ASSERT_EQ(text(*open(), a), expected) << at;
    ASSERT_EQ(slurp(index), whole_index) << at;
  }
  fs::remove(path);
  auto log = open_embedded_log(dir_, options_);
  ASSERT_FALSE(log.has_value());
  EXPECT_EQ(log.error().code, Errc::kCorrupt);
  EXPECT_NE(log.error().message.find("of a-0 are missing"), std::string::npos) << log.error().message;
}

TEST_F(EmbeddedLogTest, ASecondWriterIsRefusedByName) {
  auto log = open();
  for (bool read_only : {false, true}) {
    EmbeddedLogOptions options = options_;
    options.read_only = read_only;
    auto second = open_embedded_log(dir_, options);
    ASSERT_FALSE(second.has_value());
    EXPECT_EQ(second.error().code, Errc::kRefused);
    EXPECT_NE(second.error().message.find(dir_), std::string::npos);
    EXPECT_NE(second.error().message.find("process " + std::to_string(::getpid())), std::string::npos) << second.error().message;
  }
  log.reset();
  EXPECT_NE(open(), nullptr);
}

TEST_F(EmbeddedLogTest, ReadOnlyLooksAndTouchesNothing) {
  EmbeddedLogOptions looking = options_;
  looking.read_only = true;
  EXPECT_FAILS(open_embedded_log(dir_, looking), Errc::kNotFound);
  EXPECT_FALSE(fs::exists(dir_));
  {
    auto log = open();
    topic(*log, "a");
    EXPECT_OK(try_write(*must(log->open_writer("w")), {record("a", 0, "k", "v")}));
  }
  const std::string path = files_ending(".journal").at(0);
  const std::string torn = slurp(path) + "torn";
  spill(path, torn);
  spill(dir_ + "/some.tmp", "left");
  auto one = must(open_embedded_log(dir_, looking)), two = must(open_embedded_log(dir_, looking));
  EXPECT_EQ(text(*one, {"a", 0}), "0:k->v ");
  EXPECT_EQ(text(*two, {"a", 0}), "0:k->v ");
  EXPECT_FAILS(one->open_writer("w"), Errc::kRefused);
  EXPECT_FAILS(one->open_producer(), Errc::kRefused);
  EXPECT_FAILS(one->delete_before({"a", 0}, Offset(1)), Errc::kRefused);
  EXPECT_FAILS(embedded_of(one).clean(), Errc::kRefused);
  spill(dir_ + "/LOCK", "123456789");                // of a writer that died
  auto refused = open_embedded_log(dir_, options_);  // while somebody looks, nobody writes
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kRefused);
  EXPECT_NE(refused.error().message.find("processes that read it"), std::string::npos) << refused.error().message;
  one.reset();
  two.reset();
  EXPECT_EQ(slurp(path), torn);
  EXPECT_TRUE(fs::exists(dir_ + "/some.tmp"));
  EXPECT_EQ(text(*open(), {"a", 0}), "0:k->v ");
  EXPECT_FALSE(fs::exists(dir_ + "/some.tmp"));
}

TEST_F(EmbeddedLogTest, AFullDiskAbortsTheCommitAndNothingElse) {
  auto files = std::make_shared<FaultyFiles>(1, root_ + "/backups");
  options_.files = files;
  const TopicPartition a{"a", 0};
  {
    auto log = open();
    topic(*log, "a");
    auto writer = must(log->open_writer("w"));
    EXPECT_OK(try_write(*writer, {record("a", 0, "k", "0")}));
    const uint64_t before = embedded_of(log).disk_bytes();
    for (int64_t written : {0, 1, 31, 60, 100}) {
      files->short_write_bytes = written;
      EXPECT_FAILS(try_write(*writer, {record("a", 0, "k", "lost")}), Errc::kAborted);
      EXPECT_EQ(text(*log, a), "0:k->0 ");
      EXPECT_EQ(fs::file_size(files_ending(".journal").at(0)), before);
    }
    EXPECT_EQ(must(try_write(*writer, {record("a", 0, "k", "1")}))[0], Offset(1));
    auto producer = must(log->open_producer());
    files->short_write_bytes = 10;
    EXPECT_OK(producer->send(record("a", 0, "k", "lost")));
    EXPECT_FAILS(producer->flush(), Errc::kAborted);
    EXPECT_OK(producer->send(record("a", 0, "k", "2")));
    EXPECT_OK(producer->flush());
  }
  EXPECT_EQ(text(*open(), a), "0:k->0 1:k->1 2:k->2 ");
}

TEST_F(EmbeddedLogTest, AFullDiskAtTheBorderOfASegmentIsNoEnd) {
  auto files = std::make_shared<FaultyFiles>(1, root_ + "/backups");
  options_.files = files;
  options_.segment_bytes = 300;
  const TopicPartition a{"a", 0};
  std::string expected;
  {
    auto log = open();
    topic(*log, "a");
    auto writer = must(log->open_writer("w"));
    int failed = 0;
    for (int i = 0; i < 40; ++i) {
      if (i % 2 == 0) files->short_write_bytes = i;
      auto places = try_write(*writer, {record("a", 0, "k", std::to_string(i))});
      if (places) {
        expected += std::to_string((*places)[0].value) + ":k->" + std::to_string(i) + " ";
      } else {
        ASSERT_EQ(places.error().code, Errc::kAborted) << places.error().message;
        ++failed;
      }
      files->short_write_bytes = -1;
    }
    EXPECT_EQ(failed, 20);
    EXPECT_EQ(text(*log, a), expected);
  }
  EXPECT_GT(files_ending(".journal").size(), 3u);
  EXPECT_EQ(text(*open(), a), expected);
}

TEST_F(EmbeddedLogTest, AfterAFailedSyncNothingIsWrittenAnyMore) {
  auto files = std::make_shared<FaultyFiles>(1, root_ + "/backups");
  options_.files = files;
  const TopicPartition a{"a", 0};
  auto log = open();
  topic(*log, "a");
  auto writer = must(log->open_writer("w"));
  EXPECT_OK(try_write(*writer, {record("a", 0, "k", "0")}));
  files->fail_sync = true;
  EXPECT_FAILS(try_write(*writer, {record("a", 0, "k", "1")}), Errc::kUnexpected);
  EXPECT_FAILS(try_write(*writer, {record("a", 0, "k", "2")}), Errc::kUnexpected);
  EXPECT_FAILS(log->open_writer("other"), Errc::kUnexpected);
  EXPECT_EQ(text(*log, a), "0:k->0 ");
  writer.reset();
  log.reset();
  files->lose_power();
  options_.files.reset();
  const std::string after = text(*open(), a);  // the unsynced one may be there or not, and is whole
  EXPECT_TRUE(after == "0:k->0 " || after == "0:k->0 1:k->1 ") << after;
}

TEST_F(EmbeddedLogTest, ConcurrentCommitsShareSyncs) {
  auto files = std::make_shared<FaultyFiles>(1, root_ + "/backups");
  options_.files = files;
  auto log = open();
  topic(*log, "a");
  std::vector<std::unique_ptr<LogWriter>> writers;
  for (int w = 0; w < 8; ++w) writers.push_back(must(log->open_writer("w" + std::to_string(w))));
  files->slow_sync = Milliseconds(5);
  const int64_t before = files->syncs();
  std::vector<std::thread> threads;
  for (auto& writer : writers) {
    threads.emplace_back([&] {
      for (int i = 0; i < 10; ++i) EXPECT_OK(try_write(*writer, {record("a", 0, "k", "v")}));
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(must(log->range({"a", 0})).end, Offset(80));
  EXPECT_LT(files->syncs() - before, 60);
}

TEST_F(EmbeddedLogTest, RetentionByTimeMovesTheStartAndFreesTheDisk) {
  WallTime now = kThen;
  bool held = true;
  options_.now = [&] { return now; };
  options_.held = [&] { return held; };
  options_.segment_bytes = 4000;
  auto log = open();
  topic(*log, "short", 1, false, 1000);
  topic(*log, "long");
  auto writer = must(log->open_writer("w"));
  for (int i = 0; i < 100; ++i) {
    EXPECT_OK(try_write(*writer, {record("short", 0, "k", std::string(200, 's'), kThen + i * 10)}));
    if (i % 10 == 0) EXPECT_OK(try_write(*writer, {record("long", 0, "k", std::to_string(i), kThen)}));
  }
  const std::string kept = text(*log, {"long", 0});
  const uint64_t full = embedded_of(log).disk_bytes();
  now = kThen + 1500;  // what is older than kThen + 500 goes: records 0 to 49, unless somebody holds it
  EXPECT_OK(embedded_of(log).clean());
  EXPECT_EQ(must(log->range({"short", 0})).start, Offset(0));
  held = false;
  EXPECT_OK(embedded_of(log).clean());
  EXPECT_EQ(must(log->range({"short", 0})), (OffsetRange{Offset(50), Offset(100)}));
  EXPECT_LT(embedded_of(log).disk_bytes(), full * 6 / 10);
  now = kThen + 10'000;
  EXPECT_OK(embedded_of(log).clean());
  EXPECT_EQ(must(log->range({"short", 0})), (OffsetRange{Offset(100), Offset(100)}));
  EXPECT_LT(embedded_of(log).disk_bytes(), 4000 + 1500u);
  EXPECT_EQ(text(*log, {"long", 0}), kept);
  writer.reset();
  log.reset();
  log = open();
  EXPECT_EQ(must(log->range({"short", 0})), (OffsetRange{Offset(100), Offset(100)}));
  EXPECT_EQ(text(*log, {"long", 0}), kept);
}

TEST_F(EmbeddedLogTest, CompactionKeepsTheLastOfEachKey) {
  options_.segment_bytes = 2000;
  options_.clean_dead_share = 0;
  auto log = open();
  topic(*log, "latest", 1, true);
  auto writer = must(log->open_writer("w"));
  EXPECT_OK(try_write(*writer, {record("latest", 0, "once", "first")}));
  OutRecord keyless = record("latest", 0, "", "keyless");
  keyless.key.reset();
  EXPECT_OK(try_write(*writer, {keyless}));
  OutRecord tombstone = record("latest", 0, "gone", "");
  tombstone.value.reset();
  tombstone.headers = {{"h", std::nullopt}};
  EXPECT_OK(try_write(*writer, {tombstone}));
  for (int i = 0; i < 200; ++i) {
    EXPECT_OK(
        try_write(*writer, {record("latest", 0, "even", std::to_string(i)), record("latest", 0, "odd", std::to_string(i + 1))}));
  }
  const uint64_t full = embedded_of(log).disk_bytes();
  auto behind = must(log->open_reader({{{"latest", 0}, Offset(0)}}));
  EXPECT_EQ(must(behind->poll(Milliseconds(0), 2))->records.size(), 2u);
  EXPECT_OK(embedded_of(log).clean());
  EXPECT_LT(embedded_of(log).disk_bytes(), full / 4);
  for (int round = 0; round < 2; ++round) {
    const std::string all = text(*log, {"latest", 0});
    EXPECT_TRUE(all.starts_with("0:once->first 1:~->keyless 2:gone->~ ")) << all;
    EXPECT_TRUE(all.ends_with("401:even->199 402:odd->200 ")) << all;
    EXPECT_EQ(must(log->range({"latest", 0})), (OffsetRange{Offset(0), Offset(403)}));
    if (round == 0) {
      std::string rest;  // a reader inside goes on over what went away
      Offset next;
      while (auto fetch = must(behind->poll(Milliseconds(0), 50))) {
        for (const RecordView& r : fetch->records) rest += std::string(*r.key) + " ";
        next = fetch->next;
      }
      EXPECT_TRUE(rest.starts_with("gone ") && rest.ends_with("even odd ")) << rest;
      EXPECT_EQ(next, Offset(403));
      behind.reset();
      writer.reset();
      log.reset();
      log = open();
    }
  }
}

TEST_F(EmbeddedLogTest, EverybodyAtOnceStaysConsistent) {
  options_.segment_bytes = 20'000;
  options_.clean_interval_ms = 5;
  options_.clean_dead_share = 0.1;
  auto log = open();
  topic(*log, "t", 2);
  std::atomic<bool> stop{false};
  std::atomic<int64_t> keep_from{0};
  std::vector<std::thread> threads;
  for (int w = 0; w < 3; ++w) {
    threads.emplace_back([&, w] {
      auto writer = must(log->open_writer("w" + std::to_string(w)));
      for (int n = 0; !stop; ++n) {  // the same number in both partitions, or in none
        const std::string key = std::to_string(w), value = std::to_string(n);
        Transaction transaction;
        transaction.records = {record("t", 0, key, value), record("t", 1, key, value)};
        EXPECT_OK(writer->prepare(std::move(transaction)));
        if (n % 5 == 4) {
          EXPECT_OK(writer->abort());
        } else {
          EXPECT_OK(writer->commit());
        }
      }
    });
  }
  threads.emplace_back([&] {
    auto producer = must(log->open_producer());
    for (int n = 0; !stop; ++n) {
      for (int32_t p : {0, 1}) EXPECT_OK(producer->send(record("t", p, "3", std::to_string(n))));
      if (n % 50 == 0) EXPECT_OK(producer->flush());
    }
    EXPECT_OK(producer->flush());
  });
  std::atomic<int> read_count{0};
  for (int32_t p : {0, 1}) {
    threads.emplace_back([&, p] {
      auto reader = must(log->open_reader({{{"t", p}, Offset(0)}}));
      std::map<std::string, int> last;
      Offset next(0);
      while (!stop) {
        auto fetch = must(reader->poll(Milliseconds(5), 100));
        if (!fetch) continue;
        for (const RecordView& r : fetch->records) {
          ASSERT_EQ(r.offset, next);  // no aborted record, no hole
          ++next;
          const std::string key(*r.key);
          int expected = last.contains(key) ? last[key] + 1 : 0;
          if (key != "3" && expected % 5 == 4) ++expected;
          const int n = std::stoi(std::string(*r.value));
          ASSERT_EQ(n, expected) << key;
          last[key] = n;
          ++read_count;
        }
        if (p == 0 && next.value > 200) {
          keep_from = next.value - 200;
          EXPECT_OK(log->delete_before({"t", 0}, Offset(keep_from)));
        }
      }
    });
  }
  std::this_thread::sleep_for(std::chrono::milliseconds(1500));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  EXPECT_GT(read_count, 100);
  const auto zero = must(log->range({"t", 0})), one = must(log->range({"t", 1}));
  EXPECT_EQ(zero.end, one.end);
  EXPECT_EQ(zero.start.value, keep_from);
  const std::string before = text(*log, {"t", 1});
  log.reset();
  log = open();
  EXPECT_EQ(text(*log, {"t", 1}), before);
  EXPECT_EQ(must(log->range({"t", 0})), zero);
}

}  // namespace
}  // namespace assay::streams
