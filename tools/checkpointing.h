// Wires the checkpoints of the audit chain: key, witnesses and places that the settings name, and the schedule inside `assay run`.
#pragma once

#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "streams/checkpointer.h"
#include "streams/log.h"
#include "streams/metrics.h"
#include "streams/pipeline.h"
#include "tools/settings.h"

namespace assay::tools {

/// DIR/checkpoints of the data directory.
std::string checkpoints_of(const Settings& settings);
/// Errors: kUsage (no such file, or no policy).
Result<streams::NotePolicy> read_note_policy(const std::string& path);
/// The chain that the settings name, its rows after a sequence. Errors: kIncomplete when there is none yet.
Result<streams::StoredChain> open_chain_after(const Settings& settings, int64_t after);

/// What a person may ask for instead of what the settings say; empty: that.
struct CheckpointWishes {
  std::string origin, policy;
  std::string publish;  // a place besides
};

/// A checkpointer as the settings have it: with the archive of [archive] as a place, and the topic where `log` is given.
/// `stopping`: from then on nobody is waited for. Errors: kUsage, kRefused, and those of key and places.
Result<std::unique_ptr<streams::Checkpointer>> open_checkpointer(
    const Settings& settings, const CheckpointWishes& wishes, streams::Log* log, const std::atomic<bool>* stopping,
    std::function<void(const streams::NotePolicy::Witness& witness, const std::string& what)> on_absent);

/// {"origin","rows","root","new","cosignatures","quorum","logKey"}, for people.
Json describe_checkpoint(const streams::Checkpointer& checkpointer, bool made);

/// Makes checkpoints on a schedule, on a thread of its own, while this process owns the partition of audit-events: what it waits
/// for stops nothing else.
class Checkpointing {
 public:
  /// Starts. Requires: settings, log and metrics outlive it. Errors: kUsage (a policy that is none).
  static Result<std::unique_ptr<Checkpointing>> open(const Settings& settings, streams::Log& log, streams::Metrics& metrics);
  ~Checkpointing();

  /// The projection, that tells when the partition is ours.
  streams::Projection watch(streams::Projection projection);
  /// Makes one now. Errors: kRefused (another process owns the chain), and those of Checkpointer::make().
  Result<Json> make_now();
  /// Makes one of the chain as a run leaves it, when the partition was this process's to the end; a place or a witness that is away
  /// is no error. Errors: kTampered, kRefused.
  Result<void> finish();

 private:
  Checkpointing(const Settings& settings, streams::Log& log, streams::Metrics& metrics);
  void run();
  Result<Json> make(bool ours_no_more);
  Result<void> hear_topic();
  void note(const Error& error);

  const Settings& settings_;
  streams::Log& log_;
  streams::Metrics& metrics_;
  std::mutex making_;
  std::unique_ptr<streams::Checkpointer> checkpointer_;  // under making_, as the next
  uint64_t heard_for_ = 0;                               // the ownership at whose beginning the topic was read
  std::atomic<bool> owned_{false}, stopping_{false};
  std::atomic<uint64_t> ownership_{0};  // counts how often it became ours
  std::atomic<bool> until_the_end_{false};
  std::mutex waiting_;
  std::condition_variable wake_;
  std::thread thread_;
};

}  // namespace assay::tools
