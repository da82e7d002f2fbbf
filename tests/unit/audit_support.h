// What the audit tests share: a chain of made-up events, a log in memory, a directory that goes away.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <vector>

#include "processors/audit_chain.h"
#include "processors/processor.h"
#include "streams/archive_files.h"
#include "streams/audit_sink.h"
#include "streams/log.h"
#include "streams/signer.h"

namespace assay::testing {

using namespace assay::streams;
using processors::AuditRow;
using processors::ChainState;

constexpr int64_t kNoonMs = 1777636800000;  // 2026-05-01T12:00:00Z

/// A value as the processors write it.
inline std::string event_value(uint64_t n, const std::string& note = "grüße \"<&>\" \u2028") {
  const Id cause = place_id("eval.reports.v1", 0, Offset(static_cast<int64_t>(n)));
  Json source = Json::object().set("topic", "eval.scores.v1").set("id", cause.hex());
  Json data = Json::object()
                  .set("entityId", "agent-" + std::to_string(n % 7))
                  .set("score", 0.8731 + static_cast<double>(n) / 1000)
                  .set("note", note);
  return processors::audit_output(derived_id(cause, "promotion", n), cause, "promotion.applied", "assay",
                                  "2026-05-01T12:00:00.000Z", std::move(source), std::move(data))
      .value;
}

struct Record {
  int64_t offset;
  int64_t timestamp_ms;
  std::optional<std::string> value;
  std::optional<std::string> writer;  // "task:n"
  RecordView view() const {
    RecordView out{Offset(offset), WallTime(timestamp_ms), std::nullopt, std::nullopt, {}};
    if (value) out.value = *value;
    if (writer) out.headers.push_back({"writer", *writer});
    return out;
  }
};

inline std::optional<processors::WriterStamp> writer_of(const RecordView& record) {
  std::optional<std::string_view> text = record.header("writer");
  if (!text) return std::nullopt;
  const size_t colon = text->find(':');
  return processors::WriterStamp{std::string(text->substr(0, colon)), std::stoull(std::string(text->substr(colon + 1)))};
}

/// `count` records, with the holes that commit markers leave, several days apart from time to time.
inline std::vector<Record> make_records(int count, uint64_t seed = 1, int64_t day_every = 0) {
  std::mt19937_64 random(seed);
  std::vector<Record> out;
  int64_t offset = 0, timestamp_ms = kNoonMs;
  for (int i = 0; i < count; ++i) {
    out.push_back({offset, timestamp_ms, event_value(static_cast<uint64_t>(i)), std::nullopt});
    offset += 1 + static_cast<int64_t>(random() % 3 == 0);
    timestamp_ms += static_cast<int64_t>(random() % 5) - 1;  // also equal and falling
    if (day_every != 0 && (i + 1) % day_every == 0) timestamp_ms += kDayMs;
  }
  return out;
}

/// Folds and signs records that all make rows.
inline std::vector<SignedRow> make_rows(const std::vector<Record>& records, Signer& signer, ChainState& state) {
  std::vector<SignedRow> rows;
  for (const Record& record : records) {
    processors::ChainStep step = fold_audit_record(record.view(), std::nullopt, state);
    AuditRow* row = std::get_if<AuditRow>(&step);
    CHECK(row != nullptr);
    Result<std::string> signature = signer.sign(row->hash);
    CHECK(signature.has_value());
    rows.push_back({std::move(*row), to_base64(*signature), signer.key().signer_id});
  }
  return rows;
}

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "assay_audit_XXXXXX").string();
    CHECK(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  CHECK(in.good());
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

inline void write_text(const std::string& path, std::string_view text) {
  std::ofstream out(path, std::ios::binary | std::ios::trunc);
  out.write(text.data(), static_cast<std::streamsize>(text.size()));
  CHECK(out.good());
}

/// Every file below a directory.
inline std::vector<std::string> files_of(const std::string& dir) {
  Result<std::vector<std::string>> names = list_files(dir);
  CHECK(names.has_value());
  return std::move(names).value();
}

inline std::shared_ptr<Signer> test_signer(const TempDir& dir, const std::string& name = "key") {
  Result<std::unique_ptr<Signer>> signer = open_file_signer({dir / name, "", true, false});
  CHECK(signer.has_value());
  return std::move(signer).value();
}

/// The one partition of audit-events, in memory. Only what a projector uses; the rest cannot be called.
class PartitionLog : public Log {
 public:
  void append(Record record) {
    std::lock_guard lock(mutex_);
    record.offset = end_++;
    records_.push_back(std::move(record));
  }
  void append_marker() {
    std::lock_guard lock(mutex_);
    ++end_;
  }
  /// Takes records as they are; their offsets rise.
  void append_all(const std::vector<Record>& records) {
    std::lock_guard lock(mutex_);
    for (const Record& record : records) {
      CHECK(record.offset >= end_);
      records_.push_back(record);
      end_ = record.offset + 1;
    }
  }
  int64_t end() {
    std::lock_guard lock(mutex_);
    return end_;
  }
  std::optional<int64_t> committed_offset() {
    std::lock_guard lock(mutex_);
    return committed_;
  }

  std::string describe() const override { return "log in memory"; }
  Result<std::string> cluster_id() override { return std::string("test"); }
  Result<OffsetRange> range(const TopicPartition&) override {
    std::lock_guard lock(mutex_);
    return OffsetRange{Offset(start_), Offset(end_)};
  }
  Result<void> delete_before(const TopicPartition&, Offset before) override {
    std::lock_guard lock(mutex_);
    start_ = before.value;
    while (!records_.empty() && records_.front().offset < start_) records_.pop_front();
    return {};
  }
  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    return std::unique_ptr<LogReader>(std::make_unique<Reader>(*this, from.begin()->first, from.begin()->second.value));
  }
  Result<void> commit_offsets(const OffsetCommit& commit, const Membership*) override {
    std::lock_guard lock(mutex_);
    committed_ = commit.offsets.begin()->second.value;
    return {};
  }

  Result<void> create_topics(std::span<const TopicConfig>) override { return unused(); }
  Result<std::vector<TopicConfig>> topics() override { return unused(); }
  Result<int32_t> partition_count(const std::string&) override { return 1; }
  Result<std::unique_ptr<LogWriter>> open_writer(const std::string&) override { return unused(); }
  Result<std::unique_ptr<LogProducer>> open_producer() override { return unused(); }
  Result<std::unique_ptr<Membership>> join(const std::string&, const std::vector<std::string>&, const std::string&) override {
    return unused();
  }
  Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string&, std::span<const TopicPartition>) override {
    return unused();
  }

 private:
  static Error unused() { return {Errc::kUnexpected, "a projector does not call this"}; }

  class Reader : public LogReader {
   public:
    Reader(PartitionLog& log, TopicPartition from, int64_t next) : log_(log), from_(std::move(from)), next_(next) {}
    Result<std::optional<Fetch>> poll(Milliseconds wait, size_t max_records) override {
      {
        std::lock_guard lock(log_.mutex_);
        auto kept = std::make_shared<std::vector<Record>>();
        for (const Record& record : log_.records_)
          if (record.offset >= next_ && kept->size() < max_records) kept->push_back(record);
        const bool moved = next_ != log_.end_;
        next_ = kept->size() == max_records ? kept->back().offset + 1 : log_.end_;
        if (moved || !told_) {
          told_ = next_ == log_.end_;
          Fetch fetch{from_, {}, Offset(next_), told_, kept};
          for (const Record& record : *kept) fetch.records.push_back(record.view());
          return std::optional<Fetch>(std::move(fetch));
        }
      }
      ::usleep(static_cast<useconds_t>(std::min<int64_t>(wait.count(), 5) * 1000));
      return std::optional<Fetch>();
    }
    Result<void> seek(const TopicPartition&, Offset to) override {
      next_ = to.value;
      return {};
    }
    void pause(const TopicPartition&) override {}
    void resume(const TopicPartition&) override {}

   private:
    PartitionLog& log_;
    TopicPartition from_;
    int64_t next_;
    bool told_ = false;
  };

  std::mutex mutex_;
  std::deque<Record> records_;
  int64_t start_ = 0, end_ = 0;
  std::optional<int64_t> committed_;
};

}  // namespace assay::testing
