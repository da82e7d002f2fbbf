// A task's two lives: it owns its partition (recovers its store, then folds, commits and writes, one transaction at a time), or it
// keeps a store warm for the process that does. Each on a thread of its own.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "streams/fold.h"
#include "streams/log.h"
#include "streams/recovery.h"
#include "streams/refold.h"
#include "streams/runtime.h"

namespace assay::streams {

struct TaskOptions {
  // Behaviour.
  Milliseconds commit_interval{100};          // a commit follows the first record folded after the last one by this much
  Milliseconds checkpoint_interval{600'000};  // of the store, by the instants of commits; 0: none are taken
  size_t checkpoints_kept = 2;
  // Performance.
  size_t max_commit_records = 50000;   // or after this many records
  size_t max_commit_bytes = 64 << 20;  // or when it holds so much memory, about
  size_t poll_records = 5000;
  Milliseconds follow_interval{500};  // between two looks at what the owner has committed
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

/// A copy of the store that was taken after a commit.
struct CheckpointReport {
  int64_t sequence;
  WallTime instant;  // of the commit
  uint64_t size_bytes;
  Milliseconds took;
};

/// A store whose rows were put aside.
struct RestoreReport {
  std::string why;        // what was wrong with the store
  int64_t sequence;       // of the checkpoint that was taken instead; 0: none, all is folded again
  std::string put_aside;  // where the former rows are; empty: there were none
  Milliseconds took;
};

/// What a task tells the world, on its own thread. All have empty defaults.
struct TaskEvents {
  std::function<void(const TaskSpec&, Recovery, const std::string& detail)> recovered;
  std::function<void(const TaskSpec&, const RestoreReport&)> restored;
  std::function<void(const TaskSpec&, const Manifest&, int64_t last)> refolded;  // the store had missed it; `last` is the goal
  std::function<void(const TaskSpec&, int64_t sequence, int64_t committed)> followed;  // where a follower stands, at each look
  /// A record was told twice, and not the same both times; the first one was folded.
  std::function<void(const TaskSpec&, const Repeat& second, Offset first)> told_otherwise;
  std::function<void(const TaskSpec&)> running;  // recovered, the rules folded and committed: input comes next
  std::function<void(const TaskSpec&, std::span<const OutRecord>)> staged;  // what the commit that comes now will write
  std::function<void(const TaskSpec&, const CommitReport&)> committed;
  std::function<void(const TaskSpec&, const CheckpointReport&)> checkpointed;
  std::function<void(const TaskSpec&, const Error&)> checkpoint_failed;  // the task goes on without
  std::function<void(const TaskSpec&, const Error&)> retrying;           // aborted or ambiguous: the commit is folded again
  std::function<void(const TaskSpec&, const Error&)> store_failed;       // the log has a commit that the store did not take
};

class Task {
 public:
  Task(Log& log, TopicNames names, TaskSpec spec, state::Store& store, const Membership* member, TaskOptions options,
       TaskEvents events, Runtime& runtime = machine_runtime());

  /// Takes a writer of the task that was opened for it, because its store was a copy until now; nothing where it was none.
  void use(std::unique_ptr<LogWriter> writer) {
    warm_ = writer != nullptr;
    writer_ = std::move(writer);
  }
  /// Runs until `stop`; what is staged then is committed. Returns nothing when stopped.
  /// Errors: kFenced (another owner took over), kIncomplete (a halt by name), those of log and store.
  Result<void> run(const std::atomic<bool>& stop);

  /// Keeps the store where the owner's last commit left it, until `stop`: folds manifest by manifest what is committed, outputs
  /// suppressed, the digest checked at each. Opens no writer. A store that turns out to differ from a manifest is put aside once
  /// and folded anew. Requires: a store that nobody else writes to; closed before the task runs on it.
  /// Errors: kIncomplete (what would be a halt by name for an owner, who will find the same), those of log and store.
  Result<void> follow(const std::atomic<bool>& stop);

 private:
  Result<void> on_sound_store(const std::function<Result<void>()>& work);  // again after a damaged one was replaced
  Result<void> run_on_store(const std::atomic<bool>& stop);
  Result<void> follow_on_store(const std::atomic<bool>& stop);
  Result<void> open(const std::atomic<bool>& stop);         // fence, recover, open the reader; a stop leaves it half done
  Result<Evidence> recover(const std::atomic<bool>& stop);  // what the table says, until the store stands at the mark or `stop`
  Result<void> open_fold();
  Result<Evidence> gather(const std::atomic<bool>& stop);
  Result<Evidence> gather(const std::vector<TopicPartition>& inputs, const std::map<TopicPartition, CommittedOffset>& committed,
                          Offset manifests_end, const std::atomic<bool>& stop);
  std::vector<TopicPartition> inputs() const;
  Result<std::optional<CommitMark>> read_mark();
  Result<ManifestReader> next_manifests(const std::atomic<bool>& stop);
  Result<void> find_base(Evidence& evidence, const TopicPartition& manifests, OffsetRange there, const std::atomic<bool>& stop);
  std::map<TopicPartition, Offset> input_positions(const TaskMeta& meta) const;
  Result<void> restore(const Evidence& evidence);
  Result<void> replace_store(std::string_view aside, std::optional<int64_t> checkpoint, std::string why);
  Result<void> catch_up(const CommitMark& mark, ManifestReader& manifests, RangeReader& ranges, const std::atomic<bool>& stop);
  Result<void> fold_config(const std::atomic<bool>& stop);  // config.v1 to its end, before anything else
  Result<void> persist(const Commit& commit, Offset manifest_offset);
  Result<void> fold_fetched();
  Result<void> compare_repeats();
  bool full() const;
  Result<void> commit();
  void take_checkpoint();

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
  Fetch fetched_;                         // what was read last
  size_t folded_ = 0;                     // records of it that are folded
  std::vector<WallTime> inputs_;          // timestamps of what is staged
  std::optional<Error> damage_;           // the store cannot be read: it has to be replaced
  std::set<int64_t> bad_checkpoints_;     // that were tried
  bool folded_anew_ = false;              // as a follower, because the store differed from a manifest
  bool warm_ = false;                     // the store was a copy of another process's until now
  std::optional<WallTime> checkpointed_;  // instant of the newest checkpoint
};

}  // namespace assay::streams
