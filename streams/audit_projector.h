// Folds the partition of audit-events into the chain and stores it: read, chain, sign, append, in batches that overlap. A signer
// that is away stops nothing: rows are staged, and signed in order when it is back, from the log and not from what the sink says
// they are.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "streams/audit_sink.h"
#include "streams/log.h"
#include "streams/runtime.h"

namespace assay::streams {

struct AuditProjectorOptions {
  std::string topic = "audit-events";  // full name, prefix included
  std::string group = "assay.audit";   // where offsets are committed for people to see; the sink holds the truth. Empty: nowhere
  const Membership* member = nullptr;  // for that commit
  size_t batch_rows_max = 4096;
  size_t batch_bytes_max = 4 << 20;
  Milliseconds linger{20};  // how long a batch that is not full waits for more
  Milliseconds retry_min{100}, retry_max{5000};
  /// Takes a record that the chain refuses, before its batch is stored; called again when the projector starts over. Required.
  std::function<Result<void>(const RecordView&, Reason, std::string_view detail)> dead_letter;
  /// Reads the writer's stamp from a record's headers; without it nothing is deduplicated.
  std::function<std::optional<processors::WriterStamp>(const RecordView&)> writer_of;
  /// The signer of a key that an event of the chain put in use, kept as long as the projector lives. Absent: there is one signer.
  std::function<Result<std::shared_ptr<Signer>>(const processors::KeyStanding&)> signer_of;
  /// Behaviour: a chain made anew, past pauses and safe mode, and signed by the one signer from its first row: keys of the past may
  /// be gone.
  bool rebuild = false;
  /// Behaviour: records from there on are left, for a chain of the past; nothing: there is no such place.
  std::optional<Offset> until;
  /// Told of each error that is retried, once per attempt; for logs. From several threads.
  std::function<void(const Error&)> on_retry;
  /// Told when what was retried has been answered.
  std::function<void()> on_recovered;
};

struct AuditProjectorCounters {
  std::atomic<int64_t> rows{0}, folded{0}, batches{0}, refused{0}, repeated{0}, retries{0}, commit_errors{0};
  std::atomic<int64_t> unsigned_rows{0};  // stored rows that wait for their signatures, now
  std::atomic<int64_t> late{0};           // rows that were signed later than they were stored
};

/// One run of the projector. Requires: log and sink outlive it.
class AuditProjector {
 public:
  AuditProjector(Log& log, AuditSink& sink, std::shared_ptr<Signer> signer, AuditProjectorOptions options,
                 Runtime& runtime = machine_runtime());

  /// Takes the sink over and projects until `stop`. An unreachable sink is tried again for as long as it takes.
  /// Errors: kFenced (a newer projector took over), kRefused, kCorrupt (LOG_DIVERGED), kIncomplete (INPUT_GAP), kOutOfRange
  /// (OFFSETS_LOST), and the log's own.
  Result<void> run(const std::atomic<bool>& stop);

  /// Everything before it is stored; -1 before the sink was taken over. Thread-safe.
  Offset position() const { return Offset(position_.load(std::memory_order_acquire)); }
  /// Where the chain stood when the last batch was made, as far as it says what rests and who signs. Thread-safe.
  processors::AuditControl control() const;
  const AuditProjectorCounters& counters() const { return counters_; }

 private:
  class Run;
  Log& log_;
  AuditSink& sink_;
  std::shared_ptr<Signer> signer_;  // the configured one
  AuditProjectorOptions options_;
  Runtime& runtime_;
  AuditProjectorCounters counters_;
  std::atomic<int64_t> position_{-1};
  mutable std::mutex control_mutex_;
  processors::AuditControl control_;  // under control_mutex_
};

}  // namespace assay::streams
