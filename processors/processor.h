// A processor is a pure function (state, record) -> (state', outputs). It knows no clock, no thread, no log.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "processors/base.h"
#include "schemas/eval_report.h"
#include "schemas/json.h"
#include "state/digest.h"
#include "state/store.h"

namespace assay::processors {

/// One record to fold.
struct Input {
  Topic topic;
  int32_t partition = 0;
  const RecordView* record = nullptr;
  Id cause;  // the record's own id for records made inside; records from outside have place_id(), made when asked for
};

/// One record to write; the task adds partition, writer header and timestamp.
struct Output {
  Topic topic;
  std::string key;
  std::string value;
  Id id;
  Id cause;
  std::optional<int32_t> partition = {};  // nothing: murmur2 of the key decides
};

struct DeadLetter {
  Reason reason;
  std::string detail;
  Topic topic;  // where it came from
  int32_t partition = 0;
  Offset offset;
  WallTime timestamp;
  std::optional<std::string> key, value;
  std::vector<Header> headers;
};

/// What became of the delivered input records: delivered = accepted + sum(filtered) + sum(dead).
struct Tally {
  uint64_t delivered = 0;
  uint64_t accepted = 0;
  std::array<uint64_t, kReasonCount> refused{};  // by Reason; is_filtered() tells the two kinds apart
  uint64_t unknown_fields = 0;
  bool operator==(const Tally&) const = default;
};

/// What folding produced since the last commit. The task drains it into one transaction.
struct Outputs {
  std::vector<Output> records;
  std::vector<DeadLetter> dead_letters;
  Tally tally;

  void clear() {
    records.clear();
    dead_letters.clear();
    tally = {};
  }
};

/// Thrown when the store cannot be read: a fold must not guess, and no processor can go on. The runtime catches it.
struct StateUnreadable {
  Error error;
};

/// The processor's rows: what is staged over what is stored. Keys are the processor's own; the task keeps its meta elsewhere.
/// The digest follows every put and erase.
class Rows {
 public:
  /// How a stored row enters the digest; the default takes a row as one logical entry.
  using RowDigest = state::Digest (*)(std::string_view key, std::string_view value);

  Rows(const state::Reader& stored, state::Digest digest, RowDigest row_digest = &state::Digest::of_row);

  /// The staged or stored value. Throws StateUnreadable.
  std::optional<std::string> get(std::string_view key) const;
  void put(std::string_view key, std::string value);
  void erase(std::string_view key);
  void scan(std::string_view prefix, const std::function<bool(std::string_view, std::string_view)>& row) const;

  /// For processors that know the digests of their rows: puts or erases without reading the old row.
  void put_known(std::string_view key, std::string value, state::Digest change);
  void erase_known(std::string_view key, state::Digest change);

  state::Digest digest() const { return digest_; }
  /// Memory of what is staged, about.
  size_t staged_bytes() const { return staged_bytes_; }
  /// Staged changes as one batch, to be written before the next row is read; nothing is staged afterwards.
  state::WriteBatch take_changes();
  bool dirty() const { return !staged_.empty(); }

 private:
  const state::Reader& stored_;
  state::Digest digest_;
  RowDigest row_digest_;
  void stage(std::string_view key, std::optional<std::string> value);

  std::map<std::string, std::optional<std::string>, std::less<>> staged_;
  size_t staged_bytes_ = 0;
};

class Processor {
 public:
  virtual ~Processor() = default;

  /// The commit that the next records belong to; its instant may appear in outputs only, never in state or a decision.
  virtual void begin(WallTime instant) { (void)instant; }

  /// Folds one record. Emits into `outputs`; stages rows.
  virtual void process(const Input& input, Outputs& outputs) = 0;

  /// Called once before each commit: stages what is still in memory and emits what belongs to the commit as a whole
  /// (open windows for people, the audit event of the range). `instant` is the commit's; it may appear in outputs only.
  virtual void before_commit(WallTime instant, Outputs& outputs) = 0;

  /// Called when the commit was acknowledged and the rows written.
  virtual void after_commit() = 0;

  /// Memory that it holds beside its rows, about.
  struct Held {
    size_t commit = 0;  // because of the records since the last commit, and what before_commit will make of them
    size_t cache = 0;   // longer than that
  };
  virtual Held held() const { return {}; }
};

/// Ordinals of the records that one cause makes: 0, 1, 2 … in the order of emission.
class IdSequence {
 public:
  explicit IdSequence(std::string_view processor) : processor_(processor) {}
  void start(const Id& cause) {
    cause_ = cause;
    next_ = 0;
  }
  Id next() { return derived_id(cause_, processor_, next_++); }
  const Id& cause() const { return cause_; }

 private:
  std::string processor_;
  Id cause_;
  uint64_t next_ = 0;
};

/// An `audit-events` record: the envelope that will be hashed whole, except its place in the chain.
/// `source` = what it is about: {"topic","partition","from","to"} or {"topic","id"}; no offsets of internal topics.
Output audit_output(const Id& id, const Id& cause, std::string_view event_type, std::string_view actor, std::string_view ts_rfc3339,
                    Json source, Json data);

}  // namespace assay::processors
