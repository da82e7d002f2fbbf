// Random work on the embedded log against a model in memory, with power failures at any operation of the file system.
#include <gtest/gtest.h>
#include <unistd.h>

#include "streams/embedded_log.h"
#include "tests/unit/embedded_log_faults.h"

namespace assay::streams {
namespace {

using embedded::FaultyFiles;

constexpr int64_t kRetentionMs = 1000;

/// What the log should hold; one transaction leaves one batch in each partition it wrote to.
struct Model {
  struct Record {
    int64_t offset;
    std::string key, value;
    int64_t timestamp;
    bool operator==(const Record&) const = default;
  };
  struct Partition {
    int64_t start = 0, end = 0;
    std::vector<Record> records;                       // all that were ever committed
    std::vector<std::pair<int64_t, int64_t>> batches;  // end, greatest timestamp
  };
  std::map<TopicPartition, Partition> partitions;
  std::map<TopicPartition, CommittedOffset> committed;

  void expire(int64_t now_ms) {
    for (auto& [tp, partition] : partitions) {
      if (tp.topic != "timed") continue;
      for (auto [end, timestamp] : partition.batches) {
        if (end <= partition.start) continue;
        if (timestamp >= now_ms - kRetentionMs) break;
        partition.start = end;
      }
    }
  }
};

/// Where log and model differ, or nothing.
std::string difference(Log& log, const Model& model) {
  for (const auto& [tp, expected] : model.partitions) {
    auto range = log.range(tp);
    if (!range) return range.error().message;
    const std::string where = to_string(tp) + ": ";
    if (range->start.value != expected.start || range->end.value != expected.end) {
      return where + "range " + std::to_string(range->start.value) + " to " + std::to_string(range->end.value) + " instead of " +
             std::to_string(expected.start) + " to " + std::to_string(expected.end);
    }
    auto reader = log.open_reader({{tp, range->start}});
    if (!reader) return reader.error().message;
    std::vector<Model::Record> found;
    Offset next = range->start;
    while (next < range->end) {
      auto fetch = (*reader)->poll(Milliseconds(0), 5);
      if (!fetch) return fetch.error().message;
      if (!*fetch) return where + "reading stops at " + std::to_string(next.value);
      for (const RecordView& r : (*fetch)->records) {
        found.push_back({r.offset.value, std::string(*r.key), std::string(*r.value), r.timestamp.value});
      }
      next = (*fetch)->next;
    }
    std::map<std::string, int64_t> last;
    for (const auto& r : expected.records) last[r.key] = r.offset;
    size_t at = 0;
    for (const auto& r : expected.records) {
      if (r.offset < expected.start) continue;
      if (at < found.size() && found[at] == r) {
        ++at;
      } else if (tp.topic != "latest" || last[r.key] == r.offset) {
        return where + "record " + std::to_string(r.offset) + " is missing or differs";
      }
    }
    if (at != found.size()) return where + "offset " + std::to_string(found[at].offset) + " was never committed";
  }
  std::vector<TopicPartition> all;
  for (const auto& [tp, partition] : model.partitions) all.push_back(tp);
  auto committed = log.committed("group", all);
  if (!committed) return committed.error().message;
  for (const auto& tp : all) {
    auto expected = model.committed.find(tp);
    auto found = committed->find(tp);
    if ((expected == model.committed.end()) != (found == committed->end())) return to_string(tp) + ": committed offset";
    if (found != committed->end() &&
        (found->second.offset != expected->second.offset || found->second.metadata != expected->second.metadata)) {
      return to_string(tp) + ": committed offset " + std::to_string(found->second.offset.value) + " " + found->second.metadata;
    }
  }
  return "";
}

class Trial {
 public:
  Trial(uint64_t seed, std::string root) : seed_(seed), random_(seed), root_(std::move(root)) {}

  /// Works through rounds that each end in a clean close or a power failure; the first difference ends it.
  std::string go(int rounds) {
    for (round_ = 0; round_ < rounds; ++round_) {
      files_ = std::make_shared<FaultyFiles>(random_(), root_ + "/backups" + std::to_string(round_));
      const bool crash = random_() % 4 != 0;
      if (crash) files_->crash_at = static_cast<int64_t>(random_() % 120);
      std::string problem = work();
      log_.reset();
      if (!problem.empty()) return problem;
      if (files_->crashed()) files_->lose_power();
      crashes_ += files_->crashed();
      files_.reset();
      problem = settle();
      if (!problem.empty()) return "after " + std::string(crash ? "a power failure" : "closing") + ": " + problem;
    }
    return "";
  }
  int crashes() const { return crashes_; }
  int round() const { return round_; }

 private:
  EmbeddedLogOptions options() {
    EmbeddedLogOptions out;
    out.files = files_;
    out.clean_interval_ms = 0;
    out.clean_dead_share = 0.2;
    out.segment_bytes = 3000;
    out.now = [this] { return WallTime(now_ms_); };
    return out;
  }

  /// Until the end of the round or the crash. What was answered with success is in before_; what was under way, in after_ too.
  std::string work() {
    after_ = before_;
    auto opened = open_embedded_log(root_ + "/log", options());
    if (!opened) return files_->crashed() ? "" : opened.error().message;
    log_ = std::move(*opened);
    if (auto made = create_topics(); !made) return files_->crashed() ? "" : made.error().message;
    auto writer = log_->open_writer("writer");
    for (int step = 0; writer && step < 60; ++step) {
      Result<void> done = one_step(**writer);
      if (!done) return files_->crashed() ? "" : done.error().message;
      before_ = after_;
      if (step % 20 == 19) {
        if (std::string problem = difference(*log_, before_); !problem.empty()) return problem;
      }
    }
    return writer || files_->crashed() ? "" : writer.error().message;
  }

  Result<void> create_topics() {
    std::vector<TopicConfig> topics(23);  // written together, over the border of a segment, and synced once
    for (size_t i = 3; i < topics.size(); ++i) topics[i].name = std::string(200, 'x') + std::to_string(i);
    topics[0].name = "kept";
    topics[0].partitions = 2;
    topics[1].name = "timed";
    topics[1].retention_ms = kRetentionMs;
    topics[2].name = "latest";
    topics[2].compacted = true;
    TRY(log_->create_topics(topics));
    for (TopicPartition tp : {TopicPartition{"kept", 0}, {"kept", 1}, {"timed", 0}, {"latest", 0}}) before_.partitions[tp];
    after_ = before_;
    return {};
  }

  Result<void> one_step(LogWriter& writer) {
    now_ms_ += static_cast<int64_t>(random_() % 60);
    std::vector<TopicPartition> all;
    for (const auto& [tp, partition] : after_.partitions) all.push_back(tp);
    const uint64_t kind = random_() % 20;
    if (kind < 15) return commit(writer, all, kind == 14);
    if (kind < 17) {
      const TopicPartition tp = all[random_() % 2];
      Model::Partition& partition = after_.partitions[tp];
      const int64_t before =
          partition.start + static_cast<int64_t>(random_() % static_cast<uint64_t>(partition.end - partition.start + 1));
      partition.start = before;
      return log_->delete_before(tp, Offset(before));
    }
    if (kind < 18) {
      const TopicPartition tp = all[random_() % all.size()];
      after_.committed[tp] = {Offset(static_cast<int64_t>(random_() % 1000)), ""};
      return log_->commit_offsets({"group", {{tp, after_.committed[tp].offset}}}, nullptr);
    }
    after_.expire(now_ms_);
    return dynamic_cast<EmbeddedLog&>(*log_).clean();
  }

  Result<void> commit(LogWriter& writer, const std::vector<TopicPartition>& all, bool abort) {
    Transaction transaction;
    Model next = after_;
    std::map<TopicPartition, int64_t> greatest;
    std::vector<Offset> places;
    for (uint64_t n = 1 + random_() % 6; n > 0; --n) {
      const TopicPartition tp = all[random_() % all.size()];
      Model::Partition& partition = next.partitions[tp];
      Model::Record r{partition.end++, "key" + std::to_string(random_() % 9),
                      std::to_string(seed_) + "/" + std::to_string(++count_), now_ms_ - static_cast<int64_t>(random_() % 100)};
      r.value.append(random_() % 150, '.');
      places.push_back(Offset(r.offset));
      greatest[tp] = greatest.contains(tp) ? std::max(greatest[tp], r.timestamp) : r.timestamp;
      transaction.records.push_back({tp, WallTime(r.timestamp), r.key, r.value, {{"h", r.value.substr(0, 3)}}});
      partition.records.push_back(std::move(r));
    }
    for (auto [tp, timestamp] : greatest) next.partitions[tp].batches.emplace_back(next.partitions[tp].end, timestamp);
    if (random_() % 2 == 0) {
      const TopicPartition tp = all[random_() % all.size()];
      transaction.offsets = OffsetCommit{"group", {{tp, Offset(count_)}}};
      auto metadata = [](std::span<const Offset> at) { return "first at " + std::to_string(at[0].value); };
      next.committed[tp] = {Offset(count_), metadata(places)};
      transaction.metadata = metadata;
    }
    TRY(writer.prepare(std::move(transaction)));
    if (abort) return writer.abort();
    after_ = std::move(next);
    TRY_ASSIGN(std::vector<Offset> got, writer.commit());
    if (got != places) return Error{Errc::kUnexpected, "the places are not those that were free"};
    return {};
  }

  /// Opens without faults: the log is as it was before the step under way, or after it.
  std::string settle() {
    auto opened = open_embedded_log(root_ + "/log", options());
    if (!opened) return opened.error().message;
    if (before_.partitions.empty()) {
      if (!(*opened)->range({"latest", 0})) return "";  // the crash came before the last of the topics that are used
      log_ = std::move(*opened);
      if (auto made = create_topics(); !made) return made.error().message;
      opened = std::move(log_);
    }
    std::string problem = difference(**opened, before_);
    if (problem.empty()) return "";
    std::string other = difference(**opened, after_);
    if (!other.empty()) return problem + "; and with the step under way: " + other;
    before_ = after_;
    return "";
  }

  const uint64_t seed_;
  std::mt19937_64 random_;
  const std::string root_;
  std::shared_ptr<FaultyFiles> files_;
  std::unique_ptr<Log> log_;
  Model before_, after_;
  int64_t now_ms_ = 1'700'000'000'000, count_ = 0;
  int round_ = 0, crashes_ = 0;
};

TEST(EmbeddedLogCrash, AgreesWithTheModelWhateverFails) {
  int crashes = 0;
  for (uint64_t seed = 1; seed <= 25; ++seed) {
    const std::string root = embedded::fresh_directory(testing::TempDir());
    Trial run(seed, root);
    const std::string problem = run.go(10);
    crashes += run.crashes();
    std::filesystem::remove_all(root);
    ASSERT_EQ(problem, "") << "seed " << seed << ", round " << run.round();
  }
  EXPECT_GT(crashes, 80);
}

}  // namespace
}  // namespace assay::streams
