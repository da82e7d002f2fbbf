// Wires the audit projector: the sink and the signer that the settings name, and the log.
#pragma once

#include <memory>
#include <string>

#include "streams/audit_projector.h"
#include "streams/audit_sink.h"
#include "streams/pipeline.h"
#include "tools/signers.h"

namespace assay::tools {

/// PostgreSQL when a database is set, else the archive files of DIR/audit.
Result<std::unique_ptr<streams::AuditSink>> open_audit_sink(const Settings& settings, const std::string& data_dir,
                                                            const std::shared_ptr<streams::Signer>& signer);

/// The chain that the settings name, to read. Errors: kIncomplete when there is none yet.
Result<streams::StoredChain> open_stored_chain(const Settings& settings, const std::string& data_dir);

/// One projector over its whole life: runs while this process owns the partition.
class AuditProjection {
 public:
  /// `group`: where offsets are committed for people to see; empty for a replay, which leaves no trace on the log.
  AuditProjection(streams::Log& log, const streams::TopicNames& names, std::unique_ptr<streams::AuditSink> sink,
                  std::shared_ptr<streams::Signer> signer, std::string group, streams::Metrics& metrics);
  Result<void> run(const streams::Membership* member, const std::atomic<bool>& stop);
  Offset position() const;
  /// Why it waits and tries again; empty: it does not.
  std::string trouble() const;
  /// Brings the counters of rows up to date: asked for at each sample, and when it ends.
  void export_metrics();
  streams::Projection projection();

 private:
  Result<void> dead_letter(const RecordView& record, Reason reason, std::string_view detail);

  streams::Log& log_;
  streams::TopicNames names_;
  std::unique_ptr<streams::AuditSink> sink_;
  std::shared_ptr<streams::Signer> signer_;
  std::string group_;
  streams::Metrics& metrics_;
  mutable std::mutex mutex_;
  std::unique_ptr<streams::AuditProjector> projector_;  // under mutex_
  int64_t exported_rows_ = 0;                           // of that projector; under mutex_
  mutable std::mutex trouble_mutex_;
  std::string trouble_;  // under trouble_mutex_
};

}  // namespace assay::tools
