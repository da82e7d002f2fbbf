// The deterministic core of a task: records in, staged rows, outputs and a manifest out. Live tasks, catch-up after a
// crash and replay all fold through here, so they cannot differ.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "processors/processor.h"
#include "streams/base.h"
#include "streams/log.h"
#include "streams/manifest.h"

namespace assay::streams {

/// Names of topics on this log: the prefix in front of the catalogue's names, and how many partitions they have.
class TopicNames {
 public:
  TopicNames() = default;
  TopicNames(std::string prefix, int32_t partitions) : prefix_(std::move(prefix)), partitions_(partitions) {}
  std::string full(Topic topic) const { return prefix_ + std::string(topic_spec(topic).name); }
  std::string full(std::string_view name) const { return prefix_ + std::string(name); }
  std::string_view bare(std::string_view full_name) const { return full_name.substr(prefix_.size()); }
  int32_t partitions() const { return partitions_; }
  int32_t partitions(Topic topic) const;  // tasks for the manifests
  const std::string& prefix() const { return prefix_; }

 private:
  std::string prefix_;
  int32_t partitions_ = 4;
};

/// What a task is: one processor on its input partitions.
struct TaskSpec {
  std::string name;       // "scoring-3": processor and partition
  std::string processor;  // "scoring"
  int32_t manifest_partition = 0;
  std::vector<std::pair<Topic, int32_t>> inputs;  // committed as the group's offsets; config.v1 is read beside them
  std::string group;                              // full name
  std::string transactional_id;                   // full name
  processors::Rows::RowDigest row_digest = &state::Digest::of_row;
  std::function<std::unique_ptr<processors::Processor>(processors::Rows&)> make;
};

/// The record of an input that was folded last: whatever else stands at its place belongs to another history.
struct Anchor {
  Offset at;
  std::string hash;  // processors::anchor_of(record)
  bool operator==(const Anchor&) const = default;
};

/// What a store knows about the log: kept outside the digest.
struct TaskMeta {
  std::string lineage = "0";
  int64_t sequence = 0;       // of the last manifest, 0 before the first
  Offset manifest_offset;     // its place
  std::string manifest_hash;  // and hash, empty before the first
  WallTime instant;           // of the last commit: instants never run backwards
  state::Digest digest;
  std::map<TopicPartition, Offset> positions;  // bare names; next record to fold
  std::map<TopicPartition, Offset> began;      // bare names; first record that could be had, where that was not the very first
  std::map<TopicPartition, Anchor> anchors;    // bare names; of inputs that gave a record
  std::map<TopicPartition, int64_t> written;   // bare names; records written to each partition so far in this lineage
  std::map<TopicPartition, int64_t> earlier;   // bare names; and in all lineages before it
  std::map<std::string, int64_t> upstream;     // "<bare tp>|<task>/<lineage>" -> last counter folded
  processors::Tally tally;                     // since the first record

  std::string encode() const;
  static Result<TaskMeta> decode(std::string_view value);
};

inline constexpr std::string_view kMetaKey{"\0meta", 5};
/// Meta of a store; defaults when it is new.
Result<TaskMeta> read_meta(const state::Reader& store);
/// The digest of a store, made again from its rows. Errors: those of the store. Cost: reads all of it.
Result<state::Digest> recompute_digest(const state::Reader& store, const TaskSpec& spec);

/// A record of ours that was dropped because its writer's number had been folded before: the transaction that it stood in first was
/// torn, and its writer told it again.
struct Repeat {
  TopicPartition tp;  // full name
  Offset at;
  std::string stamp;  // "<task>/<lineage>/<n>"
  std::string said;   // as said_of()
};
/// Hash of what a record of ours says, but for the instant that it says it at. Pure.
std::string said_of(const RecordView& record);

/// What one commit writes.
struct Commit {
  Transaction transaction;  // outputs, dead letters, the manifest last; offsets of the inputs
  Manifest manifest;
  std::string manifest_hash;
};

class Fold {
 public:
  /// Loads the meta. Errors: those of the store; kCorrupt when it is damaged.
  static Result<std::unique_ptr<Fold>> open(const TaskSpec& spec, const TopicNames& names, state::Store& store);

  /// Goes on as a writer of this lineage. In one that is new to the task, its counters begin at 0 again.
  void enter(const std::string& lineage);

  /// Starts a commit at this instant when none is open. Returns the instant in force (never before the last one).
  WallTime begin(WallTime now);
  /// Folds records of a partition (full name) that follow its position, in order.
  /// A record of ours that was folded before is dropped. Errors: kIncomplete "INPUT_GAP …" when the writer's counter jumps, or
  /// does not begin at 0 although nothing before the first record was taken away; those of the store.
  Result<void> add(const TopicPartition& tp, std::span<const RecordView> records);
  /// The partition is folded up to `next`: past the last record, markers included.
  void advance(const TopicPartition& tp, Offset next);

  /// Those since the last call.
  std::vector<Repeat> take_repeats() { return std::exchange(repeats_, {}); }

  /// Ends the commit: makes the outputs and the manifest. Requires: begin(). Errors: those of the store.
  Result<Commit> finish();
  /// After the log acknowledged: writes rows and meta as one batch. Errors: those of the store.
  Result<void> persist(const Commit& commit, Offset manifest_offset);

  bool open_commit() const { return begun_; }
  /// What the store answered when it could not be read or written; the fold is of no use afterwards.
  const std::optional<Error>& store_error() const { return store_error_; }
  uint64_t staged_records() const { return staged_records_; }
  /// Memory that the open commit holds and will hold until it is through, about.
  size_t staged_bytes() const;
  bool moved() const { return !ranges_.empty(); }
  const TaskMeta& meta() const { return meta_; }
  const TaskSpec& spec() const { return spec_; }
  /// Position of an input or of config.v1 (full name); nothing before the first record.
  std::optional<Offset> position(const TopicPartition& tp) const;
  /// Where an input begins that was never folded.
  void set_position(const TopicPartition& tp, Offset to);
  state::Digest digest() const { return rows_->digest(); }
  processors::Processor& processor() { return *processor_; }
  const processors::Outputs& outputs() const { return outputs_; }

 private:
  Fold(const TaskSpec& spec, const TopicNames& names, state::Store& store, TaskMeta meta);
  TopicPartition bare(const TopicPartition& tp) const { return {std::string(names_.bare(tp.topic)), tp.partition}; }
  const std::pair<Topic, TopicPartition>& input_of(const TopicPartition& tp);
  Result<void> guarded(const std::function<Result<void>()>& work);
  Result<void> add_one(Topic topic, const TopicPartition& place, const RecordView& record);
  Result<bool> is_repeated(const TopicPartition& place, const RecordView& record);

  const TaskSpec& spec_;
  TopicNames names_;
  state::Store& store_;
  TaskMeta meta_;
  std::unique_ptr<processors::Rows> rows_;
  std::unique_ptr<processors::Processor> processor_;
  processors::Outputs outputs_;
  std::map<TopicPartition, std::pair<Topic, TopicPartition>> inputs_;  // by full name: the topic and the bare name

  std::optional<Error> store_error_;
  std::vector<Repeat> repeats_;
  bool begun_ = false;
  WallTime instant_;
  std::vector<InputRange> ranges_;
  int64_t delivered_ = 0;
  uint64_t staged_records_ = 0;
  size_t output_bytes_ = 0;  // of the first outputs and dead letters, as many as were measured
  size_t measured_outputs_ = 0, measured_letters_ = 0;
  TopicPartition last_tp_;
  const std::pair<Topic, TopicPartition>* last_input_ = nullptr;
};

/// Every record that the system writes is stamped with one of these: "<task>/<lineage>/<n>".
struct WriterStamp {
  std::string_view writer;  // "<task>/<lineage>"
  int64_t n = 0;
  static std::optional<WriterStamp> parse(std::string_view text);
};

}  // namespace assay::streams
