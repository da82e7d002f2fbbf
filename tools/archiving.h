// Wires the archive: where the settings say it is, and the archiver of this process.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "replay/archiver.h"
#include "streams/metrics.h"
#include "tools/memory_shares.h"
#include "tools/settings.h"

namespace assay::tools {

/// Follows the log into the archive of the settings, on a thread of its own: whatever happens to the archive stops nothing else.
class Archiving {
 public:
  /// Starts. `instance_id` as in PipelineOptions. Requires: archive.url is set; settings, log and metrics outlive it.
  Archiving(const Settings& settings, streams::Log& log, std::shared_ptr<streams::Signer> signer, const std::string& instance_id,
            const MemoryShares& shares, streams::Metrics& metrics);
  ~Archiving();

  /// Archives every partition up to where it ends now, then ends; sooner when `stop` is set.
  /// Errors: those of Archiver::run; kUnreachable when the archive stays away for `run.patience`.
  Result<void> finish(const std::atomic<bool>& stop);

  /// How far the partitions of this process are.
  std::vector<replay::ArchivedPlace> places() const;
  /// {"state":"archiving|retrying|halted","detail"}, for people.
  Json describe() const;
  /// Brings the gauges up to date: asked for at each sample.
  void export_metrics();

 private:
  void run();
  Result<void> run_once();
  void note_trouble(const Error& error);

  const Settings& settings_;
  streams::Log& log_;
  std::shared_ptr<streams::Signer> signer_;
  streams::Metrics& metrics_;
  replay::ArchiverOptions options_;
  std::atomic<bool> stop_{false}, finish_{false}, ended_{false};
  Result<void> result_;  // once ended_
  mutable std::mutex mutex_;
  std::optional<std::pair<streams::Milliseconds, Error>> trouble_;  // since when nothing is taken, and why; under mutex_
  std::unique_ptr<replay::Archive> archive_;                        // under mutex_, as the next
  std::unique_ptr<replay::Archiver> archiver_;
  std::thread thread_;
};

}  // namespace assay::tools
