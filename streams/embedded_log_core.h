// The state that readers, writers and cleaning of an embedded log share: the active segment, the index of what is visible,
// offsets, epochs, and the group commit.
#pragma once

#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>
#include <unordered_map>

#include "streams/embedded_log.h"
#include "streams/embedded_log_segment.h"

namespace assay::streams::embedded {

struct Topic {
  TopicConfig config;
  uint32_t first_id = 0;
};

/// What one partition has in a sealed segment.
struct LivePiece {
  std::shared_ptr<const Segment> segment;
  PieceSummary summary;
  bool compacted = false;  // since it was last looked at, nothing in it was dead by key
};

struct Partition {
  TopicPartition tp;
  const Topic* topic = nullptr;
  int64_t start = 0;   // first offset that can be read
  int64_t stable = 0;  // end of what is durable, and so visible
  int64_t next = 0;    // end of what is written
  std::deque<LivePiece> sealed;
  std::vector<BatchEntry> active;  // in the active segment; those below `stable` are visible
};

/// A place in a partition and the batches from there on.
struct Span {
  std::shared_ptr<const Segment> segment;
  std::vector<BatchEntry> entries;  // of the active segment
  bool sealed = false;              // then the entries are the segment's to give
  int64_t end = 0;                  // of the piece
};

class Core {
 public:
  Core(std::string dir, EmbeddedLogOptions options);
  ~Core();

  Result<void> open();
  /// Proves the end durable and stops taking part; what still holds the core sees no more writes.
  void close();

  const std::string& dir() const { return dir_; }
  const EmbeddedLogOptions& options() const { return options_; }
  std::string describe() const { return "embedded log in " + dir_; }
  WallTime now() const { return options_.now(); }

  std::mutex& mutex() { return mutex_; }
  /// Wakes when records become visible or a start moves. Wait with mutex().
  std::condition_variable& news() { return news_; }

  // All of the following require mutex() to be held; `lock` is given up while waiting for the disk.

  Result<const Topic*> topic(const std::string& name) const;
  Result<uint32_t> partition_id(const TopicPartition& tp) const;
  Partition& partition(uint32_t id) { return *partitions_[id]; }
  const std::map<std::string, std::unique_ptr<Topic>>& topics() const { return topics_; }
  size_t partition_count() const { return partitions_.size(); }
  /// The batches from `position` on. Requires: position < stable.
  Span span_at(uint32_t id, int64_t position, size_t max_records, size_t max_bytes) const;

  uint64_t epoch_of(const std::string& writer) const;
  std::optional<CommittedOffset> committed(const std::string& group, uint32_t id) const;

  /// Makes sure that a frame of about that size fits, beginning a new segment if need be.
  /// Errors: kRefused (read-only), kAborted (no room on the disk), kUnexpected (an earlier failure was final).
  Result<void> make_room(std::unique_lock<std::mutex>& lock, uint64_t bytes);
  /// Writes a frame whose batches have their places, without waiting for the disk; returns what to wait for.
  /// Requires: make_room() was called under the same hold of the lock. Errors: kAborted (nothing happened), kUnexpected.
  Result<uint64_t> append(Directory directory, std::span<const std::string_view> bodies);
  /// Waits until all that was written up to that place is durable and visible; concurrent callers share one sync.
  Result<void> wait_durable(std::unique_lock<std::mutex>& lock, uint64_t written);
  /// Everything written so far.
  uint64_t written() const { return written_; }

  /// Gives batches their offsets, in their order, as if they were appended now.
  std::vector<int64_t> place(std::span<const Batch> batches) const;
  /// make_room + append + wait_durable of a frame with those batches.
  Result<void> write_batches(std::unique_lock<std::mutex>& lock, std::span<const Batch> batches);
  Result<void> write(std::unique_lock<std::mutex>& lock, Directory directory);
  Result<void> create_topics(std::unique_lock<std::mutex>& lock, std::span<const TopicConfig> topics);

  // Cleaning (embedded_log_clean.cc); not to be called with mutex() held.

  Result<void> clean();
  uint64_t disk_bytes();

 private:
  struct Pending {  // written, waiting for a sync to become visible
    uint64_t written;
    std::vector<std::pair<uint32_t, int64_t>> ends;
    std::vector<CommitEntry> commits;
    std::vector<PlaceEntry> starts;
  };
  struct KeyHash {
    size_t operator()(UInt128 hash) const { return static_cast<size_t>(hash); }
  };
  using LastByKey = std::unordered_map<UInt128, int64_t, KeyHash>;  // hash of the key, the last offset that has it

  Error failure() const;
  void fail(const Error& error);
  void apply_control(const Directory& directory);
  void apply_visible(const std::vector<CommitEntry>& commits, const std::vector<PlaceEntry>& starts);
  void add_topic(const TopicConfig& config, uint32_t first_id);
  void publish();
  Directory snapshot() const;
  Result<void> first_segment();
  Result<void> open_last(uint64_t id);
  Result<void> check_whole() const;
  Result<void> roll(std::unique_lock<std::mutex>& lock);
  void seal_active();
  void attach(const std::shared_ptr<const Segment>& segment);

  void clean_sometimes();
  Result<void> apply_retention();
  Result<void> drop_dead_segments();
  Result<std::map<uint32_t, LastByKey>> last_by_key();
  Result<void> rewrite(const std::shared_ptr<Segment>& segment, const std::map<uint32_t, LastByKey>& last);

  const std::string dir_;
  EmbeddedLogOptions options_;
  std::shared_ptr<Files> files_;
  std::unique_ptr<DirectoryLock> directory_lock_;

  mutable std::mutex mutex_;
  std::condition_variable news_, synced_;
  std::map<std::string, std::unique_ptr<Topic>> topics_;
  std::vector<std::unique_ptr<Partition>> partitions_;
  std::map<std::string, std::map<uint32_t, CommittedOffset>> groups_;
  std::map<std::string, uint64_t> writers_;

  std::map<uint64_t, std::shared_ptr<Segment>> sealed_;
  std::shared_ptr<Segment> active_;
  uint64_t active_first_ = 0;           // end of its snapshot
  uint64_t active_bytes_ = 0;           // written
  uint64_t active_synced_ = 0;          // known durable
  uint64_t written_ = 0, durable_ = 0;  // bytes since this process opened the log
  bool syncing_ = false;
  bool proven_ = true;  // the last frame says that all before it is durable
  std::deque<Pending> pending_;
  std::optional<Error> failed_;

  std::mutex clean_mutex_;  // one cleaning at a time; taken before mutex_
  std::condition_variable clean_wakeup_;
  bool closing_ = false, rolled_ = false;
  std::thread cleaner_;
};

// embedded_log_clients.cc
std::unique_ptr<LogReader> make_reader(std::shared_ptr<Core> core, std::vector<std::pair<uint32_t, Offset>> from);
std::unique_ptr<LogWriter> make_writer(std::shared_ptr<Core> core, std::string id, uint64_t epoch);
std::unique_ptr<LogProducer> make_producer(std::shared_ptr<Core> core);

}  // namespace assay::streams::embedded
