// A live task: recovers its store, then folds, commits and writes, one transaction at a time, on its own thread.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "streams/fold.h"
#include "streams/log.h"
#include "streams/recovery.h"
#include "streams/runtime.h"

namespace assay::streams {

struct TaskOptions {
  // Behaviour.
  Milliseconds commit_interval{100};  // a commit follows the first record folded after the last one by this much
  // Performance.
  size_t max_commit_records = 50000;   // or after this many records
  size_t max_commit_bytes = 64 << 20;  // or when it holds so much memory, about
  size_t poll_records = 5000;
};

/// A commit that the log acknowledged and the store took.
struct CommitReport {
  const Manifest& manifest;
  const processors::Tally& part;     // what became of this commit's input records
  std::span<const WallTime> inputs;  // timestamps of the input records, in folding order; rules are not among them
  Milliseconds took;
  size_t staged_bytes;  // memory that the commit held
  size_t cache_bytes;   // memory that the processor goes on holding
};

/// What a task tells the world, on its own thread. All have empty defaults.
struct TaskEvents {
  std::function<void(const TaskSpec&, Recovery, const std::string& detail)> recovered;
  std::function<void(const TaskSpec&, const Manifest&)> refolded;  // a manifest that the store had missed
  std::function<void(const TaskSpec&)> running;                    // recovered, the rules folded and committed: input comes next
  std::function<void(const TaskSpec&, std::span<const OutRecord>)> staged;  // what the commit that comes now will write
  std::function<void(const TaskSpec&, const CommitReport&)> committed;
  std::function<void(const TaskSpec&, const Error&)> retrying;      // aborted or ambiguous: the commit is folded again
  std::function<void(const TaskSpec&, const Error&)> store_failed;  // the log has a commit that the store did not take
};

class Task {
 public:
  Task(Log& log, TopicNames names, TaskSpec spec, state::Store& store, const Membership* member, TaskOptions options,
       TaskEvents events, Runtime& runtime = machine_runtime());

  /// Runs until `stop`; what is staged then is committed. Returns nothing when stopped.
  /// Errors: kFenced (another owner took over), kIncomplete (a halt by name), those of log and store.
  Result<void> run(const std::atomic<bool>& stop);

 private:
  Result<void> open(const std::atomic<bool>& stop);  // fence, recover, open the reader; a stop leaves it half done
  Result<void> catch_up(const CommitMark& mark, const std::atomic<bool>& stop);
  Result<void> fold_config(const std::atomic<bool>& stop);  // config.v1 to its end, before anything else
  Result<void> persist(const Commit& commit, Offset manifest_offset);
  Result<void> fold_fetched();
  bool full() const;
  Result<void> commit();
  Result<Evidence> gather(std::optional<CommitMark>& mark);

  Log& log_;
  TopicNames names_;
  TaskSpec spec_;
  state::Store& store_;
  const Membership* member_;
  TaskOptions options_;
  TaskEvents events_;
  Runtime& runtime_;

  std::unique_ptr<LogWriter> writer_;
  std::unique_ptr<LogReader> reader_;
  std::unique_ptr<Fold> fold_;
  Fetch fetched_;                 // what was read last
  size_t folded_ = 0;             // records of it that are folded
  std::vector<WallTime> inputs_;  // timestamps of what is staged
};

/// The manifests of a task in (after, up to] of its partition, in order. `after` < 0 reads from the start.
/// Errors: kIncomplete when a sequence is missing; kCorrupt; those of the log.
Result<std::vector<std::pair<Offset, Manifest>>> read_manifests(Log& log, const TopicNames& names, const TaskSpec& spec,
                                                                int64_t after_sequence, Offset from, Offset last);

/// Reads ranges of partitions that mostly follow each other: readers and what they fetched ahead are kept from one to the next.
class RangeReader {
 public:
  explicit RangeReader(Log& log) : log_(log) {}
  /// Calls `each` for every record of [from, to), in order. Errors: those of `each` and of the log; kIncomplete "INPUT_GAP …".
  Result<void> read(const TopicPartition& tp, Offset from, Offset to, const std::function<Result<void>(const RecordView&)>& each);

 private:
  struct Place {
    std::unique_ptr<LogReader> reader;
    Fetch fetch;
    size_t used = 0;  // records of the fetch that were given out
    Offset at;        // end of the last range
  };
  Log& log_;
  std::map<TopicPartition, Place> places_;
};

/// Folds exactly what the manifest says, outputs suppressed, and compares. On success the commit is staged and returned.
/// Errors: kParity naming what differs (digest, output hash, delivered); those of the log.
Result<Commit> refold(RangeReader& ranges, const TopicNames& names, Fold& fold, const Manifest& manifest,
                      const std::string& manifest_hash);

}  // namespace assay::streams
