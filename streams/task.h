// A live task: recovers its store, then folds, commits and writes, one transaction at a time, on its own thread.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "streams/fold.h"
#include "streams/log.h"
#include "streams/recovery.h"

namespace assay::streams {

struct TaskOptions {
  // Behaviour.
  Milliseconds commit_interval{100};    // a commit follows the first record folded after the last one by this much
  // Performance.
  size_t max_commit_records = 50000;    // or after this many records
  size_t poll_records = 5000;
};

/// What a task tells the world, on its own thread. All have empty defaults.
struct TaskEvents {
  std::function<void(const TaskSpec&, Recovery, const std::string& detail)> recovered;
  std::function<void(const TaskSpec&, const Manifest&, const processors::Outputs&, const processors::Tally&, Milliseconds took)> committed;
  std::function<void(const TaskSpec&, const Error&)> retrying;  // aborted or ambiguous: the commit is folded again
};

/// Wall clock of the shell, in ms; tests bring their own.
using Clock = std::function<WallTime()>;
WallTime system_now();

class Task {
 public:
  Task(Log& log, TopicNames names, TaskSpec spec, state::Store& store, const Membership* member, TaskOptions options, TaskEvents events,
       Clock clock = system_now);

  /// Runs until `stop`; what is staged then is committed. Returns nothing when stopped.
  /// Errors: kFenced (another owner took over), kIncomplete (a halt by name), those of log and store.
  Result<void> run(const std::atomic<bool>& stop);

 private:
  Result<void> open();          // fence, recover, open the reader
  Result<void> catch_up(const CommitMark& mark);
  Result<void> fold_config();   // config.v1 to its end, before anything else
  Result<void> fold(const Fetch& fetch);
  Result<void> commit();
  Result<Evidence> gather(std::optional<CommitMark>& mark);

  Log& log_;
  TopicNames names_;
  TaskSpec spec_;
  state::Store& store_;
  const Membership* member_;
  TaskOptions options_;
  TaskEvents events_;
  Clock clock_;

  std::unique_ptr<LogWriter> writer_;
  std::unique_ptr<LogReader> reader_;
  std::unique_ptr<Fold> fold_;
};

/// The manifests of a task in (after, up to] of its partition, in order. `after` < 0 reads from the start.
/// Errors: kIncomplete when a sequence is missing; kCorrupt; those of the log.
Result<std::vector<std::pair<Offset, Manifest>>> read_manifests(Log& log, const TopicNames& names, const TaskSpec& spec, int64_t after_sequence,
                                                                Offset from, Offset last);

/// Folds manifests of one task again, outputs suppressed. It goes on reading where the manifest before ended: opening a reader
/// costs a broker far more than the records of a commit.
class Refolder {
 public:
  Refolder(Log& log, const TopicNames& names) : log_(log), names_(names) {}

  /// Folds exactly what the manifest says and compares. On success the commit is staged and returned.
  /// Errors: kParity naming what differs (digest, output hash, delivered); those of the log.
  Result<Commit> fold(Fold& fold, const Manifest& manifest, const std::string& manifest_hash);

 private:
  struct Source {
    std::unique_ptr<LogReader> reader;
    Offset at;  // everything before it was folded or passed over
    Fetch fetch;
    size_t used = 0;
  };
  Result<void> fold_range(Fold& fold, const InputRange& range);

  Log& log_;
  const TopicNames& names_;
  std::map<TopicPartition, Source> sources_;
};

}  // namespace assay::streams
