// Archives: what was on the log is in the archive once, whatever fails on the way; and nothing in it can be changed, taken away or
// swapped unseen.
#include "replay/archive.h"

#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <future>
#include <random>

#include "replay/archive_log.h"
#include "replay/archiver.h"
#include "replay/key_history.h"
#include "streams/embedded_log.h"
#include "tests/unit/audit_support.h"

namespace assay::replay {
namespace {

using assay::testing::TempDir;
using streams::Log;
using streams::ObjectStore;
namespace fs = std::filesystem;

const std::string kReports = "p.eval.reports.v1", kScores = "p.eval.scores.v1", kReportsDlq = "p.eval.reports.v1.dlq";
const streams::TopicNames kNames("p.", 2);

template <class T>
T must(Result<T> result) {
  if (!result) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}
void must(Result<void> result) {
  if (!result) throw std::runtime_error(result.error().message);
}

/// A log that outlives whoever holds this.
std::shared_ptr<Log> borrowed(Log* log) { return {std::shared_ptr<Log>(), log}; }

/// Fails and lies as told: the coin is tossed before and after each write.
class FaultyObjects : public ObjectStore {
 public:
  FaultyObjects(std::unique_ptr<ObjectStore> real, uint64_t seed) : real_(std::move(real)), random_(seed) {}
  std::string describe() const override { return real_->describe(); }
  Result<bool> put_new(const std::string& name, std::string_view content) override {
    if (full) return Error{Errc::kUnreachable, "writing " + name + ": No space left on device"};
    if (toss()) return Error{Errc::kUnreachable, "putting " + name + ": no answer, nothing stored"};
    auto stored = real_->put_new(name, content);
    if (toss()) return Error{Errc::kUnreachable, "putting " + name + ": stored, the answer was lost"};
    return stored;
  }
  Result<std::string> get(const std::string& name) override {
    if (toss()) return Error{Errc::kUnreachable, "getting " + name};
    return real_->get(name);
  }
  Result<std::string> get_range(const std::string& name, uint64_t from, uint64_t size) override {
    return real_->get_range(name, from, size);
  }
  Result<std::vector<std::string>> list(const std::string& prefix) override {
    if (toss()) return Error{Errc::kUnreachable, "listing " + prefix};
    return real_->list(prefix);
  }
  int faults = 0;
  int one_in = 0;  // 0: none
  std::atomic<bool> full{false};

 private:
  bool toss() {
    if (one_in == 0 || random_() % static_cast<uint64_t>(one_in) != 0) return false;
    ++faults;
    return true;
  }
  std::unique_ptr<ObjectStore> real_;
  std::mt19937_64 random_;
};

class ArchiveTest : public ::testing::Test {
 protected:
  void SetUp() override { open_log(); }
  void open_log() {
    log_.reset();
    log_ = must(streams::open_embedded_log(dir_ / "log", {}));
    std::vector<streams::TopicConfig> topics(3);
    topics[0].name = kReports;
    topics[0].partitions = 2;
    topics[1].name = kScores;
    topics[1].partitions = 2;
    topics[2].name = kReportsDlq;
    topics[2].partitions = 2;
    must(log_->create_topics(topics));
  }

  /// Some records; one transaction in three is aborted, and none of it may be archived.
  void produce(int count) {
    auto writer = must(log_->open_writer("w"));
    for (int n = 0; n < count;) {
      streams::Transaction transaction;
      for (int k = static_cast<int>(random_() % 8) + 1; k > 0 && n < count; --k, ++n) {
        OutRecord r;
        r.to = {random_() % 5 == 0 ? kScores : kReports, static_cast<int32_t>(random_() % 2)};
        r.timestamp = WallTime(1700000000000 + static_cast<int64_t>(random_() % 100000));
        if (random_() % 7 != 0) r.key = "agent-" + std::to_string(random_() % 9);
        r.value = "value-" + std::to_string(random_());
        if (random_() % 4 == 0) r.headers.push_back({"assay-writer", "scoring-0/0/" + std::to_string(n)});
        transaction.records.push_back(std::move(r));
      }
      must(writer->prepare(std::move(transaction)));
      if (random_() % 3 == 0) {
        must(writer->abort());
      } else {
        must(writer->commit());
      }
    }
  }

  std::shared_ptr<ObjectStore> objects(const std::string& name = "archive") {
    return must(streams::open_directory_objects(dir_ / name, true));
  }

  /// Archives everything that is there now.
  Result<void> archive_all(const std::shared_ptr<ObjectStore>& into, size_t segment_bytes = 1200) {
    std::unique_ptr<Archive> archive;
    for (int tries = 0;; ++tries) {
      auto opened = Archive::open_for(into, must(log_->cluster_id()), WallTime(0));
      if (!opened && opened.error().code == Errc::kUnreachable && tries < 100) continue;
      if (!opened) return opened.error();
      archive = std::move(*opened);
      break;
    }
    ArchiverOptions options;
    options.names = kNames;
    options.group = "p.assay.archive";
    options.segment_bytes = segment_bytes;
    options.poll_records = 20;
    options.retry_min = streams::Milliseconds(1);
    options.retry_max = streams::Milliseconds(1);
    Archiver archiver(*log_, *archive, *signer_, options);
    const std::atomic<bool> stop{false}, finish{true};
    return archiver.run(stop, finish);
  }

  static std::string text(Log& log, const TopicPartition& tp) {
    const streams::OffsetRange range = must(log.range(tp));
    auto reader = must(log.open_reader({{tp, range.start}}));
    std::string out;
    for (Offset at = range.start; at < range.end;) {
      auto fetch = must(reader->poll(streams::Milliseconds(100), 7));
      if (!fetch) continue;
      for (const RecordView& r : fetch->records) {
        out += std::to_string(r.offset.value) + "@" + std::to_string(r.timestamp.value) + " " +
               std::string(r.key.value_or("(none)")) + "=" + std::string(r.value.value_or("(none)"));
        for (const HeaderView& h : r.headers) out += " " + std::string(h.name) + ":" + std::string(h.value.value_or("(none)"));
        out += "\n";
      }
      at = fetch->next;
    }
    return out;
  }
  std::string all_text(Log& log) {
    std::string out;
    for (const std::string& topic : {kReports, kScores, kReportsDlq})
      for (int32_t p = 0; p < 2; ++p) out += topic + "-" + std::to_string(p) + "\n" + text(log, {topic, p});
    return out;
  }
  Result<std::string> archived_text(const std::string& name = "archive", Log* live = nullptr) {
    TRY_ASSIGN(auto archive, Archive::open(objects(name)));
    TRY_ASSIGN(auto log, open_archive_log(std::move(archive), kNames, borrowed(live)));
    return all_text(*log);
  }
  std::vector<std::string> names_of(const std::string& prefix) { return must(objects()->list(prefix)); }
  std::string path(const std::string& name) { return dir_ / ("archive/" + name); }

  TempDir dir_;
  std::mt19937_64 random_{42};
  std::unique_ptr<Log> log_;
  std::shared_ptr<streams::Signer> signer_ = assay::testing::test_signer(dir_);
};

TEST_F(ArchiveTest, HoldsWhatAReadCommittedReaderGets) {
  produce(500);
  must(archive_all(objects()));
  EXPECT_GT(names_of("segments/").size(), 6u);  // several a partition
  EXPECT_TRUE(must(archived_text()) == all_text(*log_));
  // It goes on where it ended, and archives nothing twice.
  const size_t before = names_of("entries/").size();
  must(archive_all(objects()));
  EXPECT_EQ(names_of("entries/").size(), before);
  produce(200);
  must(archive_all(objects()));
  EXPECT_TRUE(must(archived_text()) == all_text(*log_));
}

TEST_F(ArchiveTest, ArchivesEachRecordOnceWhateverFails) {
  for (uint64_t seed = 1; seed <= 4; ++seed) {
    auto faulty =
        std::make_shared<FaultyObjects>(must(streams::open_directory_objects(dir_ / ("a" + std::to_string(seed)), true)), seed);
    faulty->one_in = 4;
    for (int round = 0; round < 3; ++round) {
      produce(60);
      must(archive_all(faulty, 1500));
    }
    EXPECT_GT(faulty->faults, 5);
    EXPECT_TRUE(must(archived_text("a" + std::to_string(seed))) == all_text(*log_)) << "seed " << seed;
  }
}

/// Records of a key, and the ends of what was known, as `log` gives them.
std::string answers(Log& log, const std::vector<std::string>& keys, const std::vector<WallTime>& instants) {
  std::string out;
  for (int32_t p = 0; p < 2; ++p) {
    const TopicPartition tp{kReports, p};
    const streams::OffsetRange range = must(log.range(tp));
    for (const std::string& key : keys)
      for (Offset from : {range.start, range.start + 37}) {
        must(read_key(log, tp, key, from, range.end - 3, [&](const RecordView& r) -> Result<void> {
          EXPECT_EQ(r.key, key);
          out += key + "@" + std::to_string(r.offset.value) + "=" + std::string(*r.value) + " ";
          return {};
        }));
        out += "\n";
      }
    for (WallTime instant : instants) out += std::to_string(must(known_by(log, tp, instant)).value) + "\n";
  }
  return out;
}

// The index must say what reading everything says, also where the live log goes on.
TEST_F(ArchiveTest, FindsAKeyAndWhatWasKnownByItsIndex) {
  produce(600);
  must(archive_all(objects()));
  const std::vector<std::string> keys = {"agent-0", "agent-5", "agent-8", "nobody", ""};
  std::vector<WallTime> instants = {WallTime(0), WallTime(1700000099999), WallTime(1700000100001)};
  for (int n = 0; n < 30; ++n) instants.emplace_back(1700000000000 + static_cast<int64_t>(random_() % 100000));
  for (int64_t late : {99000, 99500, 99800, 99900, 99970, 99990}) instants.emplace_back(1700000000000 + late);
  const std::string whole = answers(*log_, keys, instants);
  auto alone = must(open_archive_log(must(Archive::open(objects())), kNames));
  EXPECT_EQ(answers(*alone, keys, instants), whole);
  EXPECT_NE(whole.find("agent-5@"), std::string::npos);
  produce(200);
  const std::string longer = answers(*log_, keys, instants);
  for (int32_t p = 0; p < 2; ++p) must(log_->delete_before({kReports, p}, Offset(50)));
  auto joined = must(open_archive_log(must(Archive::open(objects())), kNames, borrowed(log_.get())));
  EXPECT_EQ(answers(*joined, keys, instants), longer);
  EXPECT_NE(longer, whole);
}

// A crash between the segment and its entry leaves a segment that nothing names.
TEST_F(ArchiveTest, ASegmentThatNoEntryNamesIsNoPart) {
  produce(100);
  must(archive_all(objects()));
  const auto entries = names_of("entries/p");
  const auto all = names_of("entries/eval.reports.v1/0/");
  fs::remove(path(all.back()));
  produce(100);
  must(archive_all(objects(), 700));  // cut elsewhere
  EXPECT_TRUE(must(archived_text()) == all_text(*log_));
}

TEST_F(ArchiveTest, JoinsWithTheLogThatGoesOn) {
  produce(300);
  must(archive_all(objects()));
  const std::string whole = all_text(*log_);
  produce(100);
  const std::string both = all_text(*log_);
  // Retention takes what is archived, and not more.
  for (const std::string& topic : {kReports, kScores})
    for (int32_t p = 0; p < 2; ++p) {
      auto chain = must(must(Archive::open(objects()))->chain({std::string(kNames.bare(topic)), p}));
      must(log_->delete_before({topic, p}, chain.back().segment.first));
    }
  EXPECT_TRUE(all_text(*log_) != both);
  EXPECT_TRUE(must(archived_text("archive", log_.get())) == both);
}

TEST_F(ArchiveTest, NamesTheHoleBetweenArchiveAndLog) {
  produce(300);
  must(archive_all(objects()));
  produce(300);
  const TopicPartition tp{kReports, 0};
  must(log_->delete_before(tp, must(log_->range(tp)).end - 5));
  auto joined = archived_text("archive", log_.get());
  ASSERT_FALSE(joined);
  EXPECT_EQ(joined.error().code, Errc::kIncomplete);
  EXPECT_NE(joined.error().message.find("INPUT_GAP"), std::string::npos) << joined.error().message;
  // The archiver halts on that partition, invents nothing, and goes on with the others.
  auto archived = archive_all(objects());
  ASSERT_FALSE(archived);
  EXPECT_NE(archived.error().message.find("retention took offsets"), std::string::npos) << archived.error().message;
  auto log = must(open_archive_log(must(Archive::open(objects())), kNames));
  EXPECT_EQ(text(*log, {kReports, 1}), text(*log_, {kReports, 1}));
}

TEST_F(ArchiveTest, RefusesATopicThatWasMadeAnew) {
  produce(300);
  must(archive_all(objects()));
  const std::string id = must(log_->cluster_id());
  log_.reset();
  fs::remove_all(dir_ / "log");
  fs::create_directories(dir_ / "log");
  assay::testing::write_text(dir_ / "log/cluster-id", id + "\n");  // the same cluster, its topics deleted and made anew
  open_log();
  produce(600);
  auto archived = archive_all(objects());
  ASSERT_FALSE(archived);
  EXPECT_EQ(archived.error().code, Errc::kIncomplete);
  EXPECT_NE(archived.error().message.find("LOG_DIVERGED"), std::string::npos) << archived.error().message;
}

TEST_F(ArchiveTest, RefusesAnotherClustersLog) {
  produce(50);
  must(archive_all(objects()));
  log_.reset();
  fs::remove_all(dir_ / "log");
  open_log();
  auto archived = archive_all(objects());
  ASSERT_FALSE(archived);
  EXPECT_EQ(archived.error().code, Errc::kRefused);
}

TEST_F(ArchiveTest, NamesEachThingThatIsMissingOrForged) {
  produce(400);
  must(archive_all(objects()));
  const std::string whole = must(archived_text());
  const auto entries = names_of("entries/eval.reports.v1/0/"), segments = names_of("segments/eval.reports.v1/0/");
  ASSERT_GE(entries.size(), 3u);
  struct Case {
    std::string name;
    std::function<void()> spoil;
    Errc expected;
  };
  const std::string other_segment = path(names_of("segments/eval.reports.v1/1/")[0]);
  auto shadow = [&](const std::string& name) { return assay::testing::read_text(path(name)); };
  const std::vector<Case> cases = {
      {"an entry is missing", [&] { fs::remove(path(entries[1])); }, Errc::kIncomplete},
      {"a segment is missing", [&] { fs::remove(path(segments[1])); }, Errc::kIncomplete},
      {"a segment is cut", [&] { fs::resize_file(path(segments[1]), fs::file_size(path(segments[1])) - 1); }, Errc::kTampered},
      {"a bit of a segment",
       [&] {
         std::string bytes = shadow(segments[1]);
         bytes[bytes.size() / 2] ^= 4;
         assay::testing::write_text(path(segments[1]), bytes);
       },
       Errc::kTampered},
      {"a segment of another partition",
       [&] { assay::testing::write_text(path(segments[1]), assay::testing::read_text(other_segment)); }, Errc::kTampered},
      {"two entries are swapped",
       [&] {
         const std::string a = shadow(entries[0]), b = shadow(entries[1]);
         assay::testing::write_text(path(entries[0]), b);
         assay::testing::write_text(path(entries[1]), a);
       },
       Errc::kTampered},
      {"an entry is doubled", [&] { assay::testing::write_text(path(entries[2]), shadow(entries[1])); }, Errc::kTampered},
      {"an entry is changed",
       [&] {
         std::string text = shadow(entries[1]);
         const size_t at = text.find("\"records\":\"") + 11;
         text[at] = text[at] == '9' ? '8' : static_cast<char>(text[at] + 1);
         assay::testing::write_text(path(entries[1]), text);
       },
       Errc::kTampered},
      {"an entry is not signed",
       [&] {
         ArchiveEntry e = must(ArchiveEntry::decode(shadow(entries[1])));
         e.signature.clear();
         assay::testing::write_text(path(entries[1]), e.encode());
       },
       Errc::kTampered},
      {"an entry of another cluster",
       [&] {
         ArchiveEntry e = must(ArchiveEntry::decode(shadow(entries[1])));
         e.cluster = "other";
         e.signature = to_base64(must(signer_->sign(sha256(e.encode(false)))));
         assay::testing::write_text(path(entries[1]), e.encode());
       },
       Errc::kTampered},
      {"a newer format", [&] { assay::testing::write_text(path("archive.json"), R"({"cluster":"x","created":"","format":2})"); },
       Errc::kRefused},
      {"no archive", [&] { fs::remove(path("archive.json")); }, Errc::kIncomplete},
  };
  fs::copy(dir_ / "archive", dir_ / "kept", fs::copy_options::recursive);
  for (const Case& c : cases) {
    c.spoil();
    auto result = [&]() -> Result<std::string> {
      try {
        return archived_text();
      } catch (const std::exception& e) {  // while reading: the message tells
        return Error{std::string_view(e.what()).find("missing") != std::string_view::npos ? Errc::kIncomplete : Errc::kTampered,
                     e.what()};
      }
    }();
    ASSERT_FALSE(result) << c.name;
    EXPECT_EQ(result.error().code, c.expected) << c.name << ": " << result.error().message;
    fs::remove_all(dir_ / "archive");
    fs::copy(dir_ / "kept", dir_ / "archive", fs::copy_options::recursive);
  }
  EXPECT_TRUE(must(archived_text()) == whole);
}

// Who holds the archive but not the key that the reader trusts.
TEST_F(ArchiveTest, WithPinnedKeysOnlyTheseCount) {
  produce(100);
  signer_ = assay::testing::test_signer(dir_, "forger");
  must(archive_all(objects()));
  auto archive = must(Archive::open(objects()));
  streams::SignerRegistry pinned;
  must(pinned.add({assay::testing::test_signer(dir_)->key(), {}, {}, false}));
  auto chains = archive->chains(&pinned);
  ASSERT_FALSE(chains);
  EXPECT_EQ(chains.error().code, Errc::kTampered);
  EXPECT_TRUE(archive->chains());
}

TEST_F(ArchiveTest, TwoArchiversWriteOneChain) {
  for (int round = 0; round < 5; ++round) {
    produce(100);
    auto a = std::async(std::launch::async, [&] { return archive_all(objects(), 900); });
    auto b = std::async(std::launch::async, [&] { return archive_all(objects(), 1100); });
    must(a.get());
    must(b.get());
    EXPECT_TRUE(must(archived_text()) == all_text(*log_));
  }
}

// A full disk, or a store that is away: reading stops at the budget, the partitions stay ours, and all of it is there afterwards.
TEST_F(ArchiveTest, AnArchiveThatTakesNothingHoldsBackReadingAndLosesNothing) {
  produce(3000);
  auto faulty = std::make_shared<FaultyObjects>(must(streams::open_directory_objects(dir_ / "archive", true)), 1);
  auto archive = must(Archive::open_for(faulty, must(log_->cluster_id()), WallTime(0)));
  std::atomic<int> retries{0}, recoveries{0}, halts{0};
  ArchiverOptions options;
  options.names = kNames;
  options.group = "p.assay.archive";
  options.segment_bytes = 4000;
  options.memory_bytes = 16000;
  options.poll_records = 20;
  options.retry_min = options.retry_max = streams::Milliseconds(1);
  options.retrying = [&](const Error&) { ++retries; };
  options.recovered = [&] { ++recoveries; };
  options.halted = [&](const TopicPartition&, const Error&) { ++halts; };
  Archiver archiver(*log_, *archive, *signer_, options);
  std::atomic<bool> stop{false}, finish{false};
  auto run = std::async(std::launch::async, [&] { return archiver.run(stop, finish); });
  auto wait_for = [&](auto&& seen) {
    for (int tries = 0; tries < 6000 && !seen(); ++tries) std::this_thread::sleep_for(std::chrono::milliseconds(5));
    return seen();
  };
  auto archived = [&] {
    int64_t sum = 0;
    for (const ArchivedPlace& place : archiver.places()) sum += place.archived.value;
    return sum;
  };
  ASSERT_TRUE(wait_for([&] { return archived() > 0; }));
  faulty->full = true;
  ASSERT_TRUE(wait_for([&] { return retries > 50; }));
  const int64_t before = archived();
  produce(3000);
  const int seen = retries;
  ASSERT_TRUE(wait_for([&] { return retries > seen + 200; }));
  EXPECT_EQ(archived(), before);
  int64_t waiting = 0, unread = 0;
  for (const ArchivedPlace& place : archiver.places()) {
    waiting += place.waiting;
    unread += must(log_->range(place.tp)).end - place.read;
    EXPECT_EQ(place.halt, "");
  }
  EXPECT_GT(waiting, 0);
  EXPECT_LT(waiting, 1500) << "some 16000 bytes of records, and no more";
  EXPECT_GT(unread, 1000) << "what it cannot hold stays on the log";
  faulty->full = false;
  finish = true;
  must(run.get());
  EXPECT_GT(recoveries, 0);
  EXPECT_EQ(halts, 0);
  EXPECT_TRUE(must(archived_text()) == all_text(*log_));
}

// A hole that somebody tore into the archive halts its partition alone.
TEST_F(ArchiveTest, ADamagedPartitionHaltsAndTheOthersGoOn) {
  produce(300);
  must(archive_all(objects()));
  fs::remove(path(names_of("entries/eval.reports.v1/0/").front()));
  produce(300);
  auto archived = archive_all(objects());
  ASSERT_FALSE(archived);
  EXPECT_EQ(archived.error().code, Errc::kIncomplete) << archived.error().message;
  auto chain = must(must(Archive::open(objects()))->chain({"eval.reports.v1", 1}));
  EXPECT_EQ(chain.back().segment.next, must(log_->range({kReports, 1})).end);
  EXPECT_FALSE(archived_text()) << "a part of an archive is not opened as the whole";
}

// A limit on the size of files stands for a disk that is full.
TEST_F(ArchiveTest, AFullDiskIsUnreachableAndLeavesNothingBehind) {
  const pid_t child = ::fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::signal(SIGXFSZ, SIG_IGN);
    const rlimit limit{10000, 10000};
    ::setrlimit(RLIMIT_FSIZE, &limit);
    auto store = objects("small");
    const auto large = store->put_new("a/large", std::string(20000, 'x')), fits = store->put_new("a/fits", std::string(5000, 'x'));
    const bool refused = !large && large.error().code == Errc::kUnreachable;
    size_t files = 0;
    for (const auto& file : fs::recursive_directory_iterator(dir_ / "small")) files += file.is_regular_file();
    ::_exit(!refused ? 1 : !fits || !*fits ? 2 : files != 1 ? 3 : 0);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  EXPECT_EQ(WEXITSTATUS(status), 0) << "1: another outcome, 2: what fits was refused, 3: a part stayed";
}

}  // namespace
}  // namespace assay::replay
