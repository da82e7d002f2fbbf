// Wires the upload of the audit chain: which place, which chain, which signer; and the uploader of this process.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "streams/audit_upload.h"
#include "streams/metrics.h"
#include "tools/projection.h"

namespace assay::tools {

/// Where the settings say that the chain is archived; empty: nowhere.
std::string audit_archive_place(const Settings& settings);

/// Uploads the chain that the settings name to a place, once, as far as it is signed; gives the last batch there.
/// Errors: those of AuditUploader::upload, and of place and signer.
Result<std::optional<streams::AuditBatch>> upload_chain(const Settings& settings, const std::string& place);

/// Archives the chain of a running process on a thread of its own: whatever becomes of it stops nothing else. Only the process that
/// writes the chain does so, and two that think they do come to the same batches.
class AuditUploading {
 public:
  /// Starts. Requires: audit_archive_place() names one; all outlive it.
  AuditUploading(const Settings& settings, const AuditProjection& projection, streams::Metrics& metrics);
  ~AuditUploading();

  /// Archives what is signed now, then ends; sooner when `stop` is set.
  /// Errors: those of the upload; kUnreachable when the place stays away for `run.patience`.
  Result<void> finish(const std::atomic<bool>& stop);

  /// {"state":"archiving|retrying","rows","detail"}, for people.
  Json describe() const;

 private:
  void run();
  Result<void> upload_once(bool all);
  Result<std::shared_ptr<streams::Signer>> signer();
  void pause(streams::Milliseconds duration) const;

  const Settings& settings_;
  const AuditProjection& projection_;
  streams::Metrics& metrics_;
  std::unique_ptr<streams::AuditUploader> uploader_;  // of the thread
  std::string signer_id_;                             // of the open signer
  std::shared_ptr<streams::Signer> signer_;
  std::optional<streams::Milliseconds> waiting_since_;  // a signed row is not in the place
  std::atomic<int64_t> rows_{0};
  std::atomic<bool> stop_{false}, finish_{false}, ended_{false};
  Result<void> result_;  // once ended_
  mutable std::mutex mutex_;
  std::optional<std::pair<streams::Milliseconds, Error>> trouble_;  // since when nothing is taken, and why; under mutex_
  std::thread thread_;
};

}  // namespace assay::tools
