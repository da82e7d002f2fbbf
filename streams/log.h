// The log seam: read, transactional write, offsets, metadata. Kafka, embedded and simulated logs stand behind it
// and pass one conformance suite.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "schemas/record.h"
#include "streams/base.h"

namespace assay::streams {

using Milliseconds = std::chrono::milliseconds;

/// Records of one partition, in order, read-committed. The views live as long as the fetch.
struct Fetch {
  TopicPartition from;
  std::vector<RecordView> records;
  Offset next;          // where the next fetch starts: past the last record and past markers and aborted records behind it
  bool at_end = false;  // `next` was the last stable offset when this was fetched
  std::shared_ptr<const void> storage;
};

/// Reads assigned partitions from given places. Not thread-safe; one per task.
class LogReader {
 public:
  virtual ~LogReader() = default;
  /// Waits up to `wait` for records or for news that an end was reached; returns nothing when neither came.
  /// A fetch holds at most max_records. When several partitions have records, they take turns.
  /// Errors: kOutOfRange (retention took the place, or it lies beyond the end), kCorrupt, kUnreachable.
  virtual Result<std::optional<Fetch>> poll(Milliseconds wait, size_t max_records) = 0;
  /// Continues that partition from there; fetches of it made before are void.
  virtual Result<void> seek(const TopicPartition& tp, Offset to) = 0;
  /// Stops and restarts delivery of a partition; its place is kept.
  virtual void pause(const TopicPartition& tp) = 0;
  virtual void resume(const TopicPartition& tp) = 0;
};

struct CommittedOffset {
  Offset offset;
  std::string metadata;
  bool operator==(const CommittedOffset&) const = default;
};

/// Offsets to commit for a group, with the output.
struct OffsetCommit {
  std::string group;
  std::map<TopicPartition, Offset> offsets;
};

/// Membership of a consumer group: it tells which partitions are ours, and proves it inside transactions. It reads nothing.
class Membership {
 public:
  virtual ~Membership() = default;
  struct Change {
    bool assigned = false;  // else revoked or lost
    std::vector<TopicPartition> partitions;
    bool lost = false;  // revoked without a chance to commit
  };
  /// Waits up to `wait`; to be called at least every 10 s. A revocation is complete only at the call after the one that
  /// returned it, so that the owner can commit in between.
  /// Errors: this membership is of no more use, nothing is ours any longer; kFenced: another took over its instance id.
  virtual Result<std::optional<Change>> poll(Milliseconds wait) = 0;
  /// The id by which Log::members() lists it; empty before it joined, and in a log of one process.
  virtual std::string id() const { return {}; }
  /// Leaves the group.
  virtual void leave() = 0;
};

/// A group as its coordinator sees it.
struct GroupMember {
  std::string id;                          // Membership::id()
  std::string client_id;                   // of its process
  std::string instance_id;                 // of a static member
  std::vector<TopicPartition> partitions;  // that it was given
};
struct GroupView {
  bool settled = true;  // everybody knows what is whose; while that changes, `partitions` are empty
  std::vector<GroupMember> members;
};

/// One atomic write: records for any topics, and offsets.
struct Transaction {
  std::vector<OutRecord> records;
  std::optional<OffsetCommit> offsets;
  const Membership* member = nullptr;  // required with offsets when the log has groups of several processes
  /// Metadata of the committed offsets, made when the places of the records are known (same order as `records`).
  std::function<std::string(std::span<const Offset> places)> metadata;
};

/// A transactional writer. Opening one fences every older writer of the same id and ends what it left dangling.
class LogWriter {
 public:
  virtual ~LogWriter() = default;
  /// Writes the records; nothing is visible to read-committed readers yet.
  /// Errors: kFenced; kTooLarge (nothing prepared); kAborted; kUnreachable.
  virtual Result<void> prepare(Transaction transaction) = 0;
  /// Makes all of it visible at once, or nothing. Returns the places of the records.
  /// Errors: kFenced (stop), kAborted (nothing happened), kAmbiguous (open a new writer, then look at the committed offsets).
  virtual Result<std::vector<Offset>> commit() = 0;
  /// Drops what was prepared.
  virtual Result<void> abort() = 0;
};

/// Idempotent writes outside transactions, for producers at the edge.
class LogProducer {
 public:
  virtual ~LogProducer() = default;
  /// Queues the record; blocks while the queue is full. `to.partition` < 0 lets murmur2 of the key choose
  /// (no key: partitions in turn). Errors: kTooLarge, kUnreachable, kNotFound.
  virtual Result<void> send(OutRecord record) = 0;
  /// Waits until everything queued is durable. Errors: the first that any record met.
  virtual Result<void> flush() = 0;
};

struct TopicConfig {
  std::string name;
  int32_t partitions = 1;
  bool compacted = false;
  int64_t retention_ms = -1;  // -1: for ever
  int64_t max_record_bytes = kMaxRecordBytes;
};

struct OffsetRange {
  Offset start;  // first offset that can be read
  Offset end;    // last stable offset: the place after the last record that a read-committed reader can get, markers included
  auto operator<=>(const OffsetRange&) const = default;
};

/// Memory of this process that the clients of a log hold. Units: bytes.
struct LogMemory {
  int64_t reading = 0;  // fetched, and not let go of by its readers
  int64_t writing = 0;  // on its way to the log
};

class Log {
 public:
  virtual ~Log() = default;

  virtual std::string describe() const = 0;  // "embedded log in /var/lib/assay/log" | "Kafka at 127.0.0.1:9092"

  /// What tells this log from every other one, also from one made anew under the same name. Errors: kUnreachable.
  virtual Result<std::string> cluster_id() = 0;

  /// The history that records of this log belong to from now on: another one after a restore, see lineage.h.
  virtual std::string lineage() const { return "0"; }
  /// How many places lie between two of a partition, at most. A restored log has none between one lineage and the next.
  virtual int64_t distance(const TopicPartition& tp, Offset from, Offset to) {
    (void)tp;
    return to - from;
  }
  /// About. The default suits a log that holds nothing beside what it gives out.
  virtual LogMemory memory() { return {}; }

  /// Creates those that do not exist; leaves the others as they are.
  virtual Result<void> create_topics(std::span<const TopicConfig> topics) = 0;
  virtual Result<std::vector<TopicConfig>> topics() = 0;
  /// Errors: kNotFound.
  virtual Result<int32_t> partition_count(const std::string& topic) = 0;
  virtual Result<OffsetRange> range(const TopicPartition& tp) = 0;
  /// The place after the last record there, whether its transaction is decided or not; range().end stays behind it while one
  /// is not. The default suits a log that shows a commit in all its partitions before it acknowledges it.
  virtual Result<Offset> written(const TopicPartition& tp) {
    TRY_ASSIGN(const OffsetRange all, range(tp));
    return all.end;
  }

  virtual Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) = 0;
  virtual Result<std::unique_ptr<LogWriter>> open_writer(const std::string& transactional_id) = 0;
  virtual Result<std::unique_ptr<LogProducer>> open_producer() = 0;

  /// Joins the group for the partitions of the topics. In a log of one process every partition is assigned at once.
  virtual Result<std::unique_ptr<Membership>> join(const std::string& group, const std::vector<std::string>& topics,
                                                   const std::string& instance_id) = 0;
  /// Who is in the group now, by (client id, id). The default suits a log of one process, which has nobody else to know about.
  /// Errors: kUnreachable.
  virtual Result<GroupView> members(const std::string& group) {
    (void)group;
    return GroupView();
  }
  /// Read-committed: waits for transactions that hold the answer back. Partitions without a commit are left out.
  virtual Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string& group,
                                                                      std::span<const TopicPartition> of) = 0;

  /// Commits offsets outside a transaction, for standard tools to see (the projector's truth is in PostgreSQL).
  virtual Result<void> commit_offsets(const OffsetCommit& commit, const Membership* member) = 0;

  /// Deletes what lies before the offset (retention by hand; operators and tests).
  virtual Result<void> delete_before(const TopicPartition& tp, Offset before) = 0;
};

}  // namespace assay::streams
