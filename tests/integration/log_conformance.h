// What the conformance suite needs of a log under test. One file per kind of log makes it and instantiates the suite:
//   INSTANTIATE_TEST_SUITE_P(Kafka, LogConformance, testing::Values(LogKind{"kafka", [] { return std::make_unique<KafkaWorld>();
//   }}));
#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "streams/log.h"

namespace assay::streams {

/// Where a log of one kind lives for one test. Topics of a test have names of their own, so the place may be shared by tests.
class LogWorld {
 public:
  virtual ~LogWorld() = default;
  /// Opens the log; called again after the one before was destroyed, it finds everything that was durable.
  virtual std::unique_ptr<Log> open() = 0;
};

struct LogKind {
  std::string name;
  std::function<std::unique_ptr<LogWorld>()> make;
};
inline void PrintTo(const LogKind& kind, std::ostream* out) { *out << kind.name; }

/// A record that outlives its fetch.
struct Read {
  TopicPartition from;
  Offset offset;
  WallTime timestamp;
  std::optional<std::string> key, value;
  std::vector<Header> headers;
};
/// "(k1->v1)(k2->v2)"; an absent key or value prints as ~.
std::string text(const std::vector<Read>& records);
std::vector<Read> copy(const Fetch& fetch);

class LogConformance : public testing::TestWithParam<LogKind> {
 protected:
  void SetUp() override;
  void TearDown() override;

  /// Closes the log and opens it again. Requires: readers, writers, producers and members of it are gone.
  void reopen();
  /// Creates a topic under a name that no other test and no earlier run has used.
  std::string fresh_topic(int32_t partitions = 1, int64_t max_record_bytes = kMaxRecordBytes);
  std::string fresh_name(const std::string& what);

  std::unique_ptr<LogWriter> writer(const std::string& id);
  std::unique_ptr<LogReader> reader(const std::map<TopicPartition, Offset>& from);
  /// Joins and waits for the assignment of every partition of the topic.
  std::unique_ptr<Membership> member(const std::string& group, const std::string& topic);
  /// Prepares and commits the records; returns their places.
  std::vector<Offset> write(LogWriter& by, std::vector<OutRecord> records);
  OffsetRange range(const std::string& topic, int32_t partition = 0);
  /// Everything from the start of the partition to its end.
  std::vector<Read> read_all(const std::string& topic, int32_t partition = 0);
  /// Reads until `count` records came, or (as a failure) half a minute passed.
  std::vector<Read> read_some(LogReader& from, size_t count);
  /// Polls for that long; fails when a record comes.
  void expect_silence(LogReader& from, Milliseconds for_ms);
  /// Polls until an error comes, and returns its code.
  Errc read_error(LogReader& from, std::vector<Read>* before = nullptr);

  std::unique_ptr<LogWorld> world_;
  std::unique_ptr<Log> log_;
};

OutRecord record(const std::string& topic, int32_t partition, std::string key, std::string value);

}  // namespace assay::streams
