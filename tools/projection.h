// Wires the audit projector: the sink and the signer that the settings name, and the log.
#pragma once

#include <memory>
#include <string>

#include "streams/audit_projector.h"
#include "streams/audit_sink.h"
#include "streams/pipeline.h"
#include "tools/signers.h"

namespace assay::tools {

/// Where the chain stands without a database: archive files.
std::string audit_dir(const std::string& data_dir);

/// PostgreSQL when a database is set, else the archive files of DIR/audit.
Result<std::unique_ptr<streams::AuditSink>> open_audit_sink(const Settings& settings, const std::string& data_dir,
                                                            const std::shared_ptr<streams::Signer>& signer);

/// The chain that the settings name, to read; the rows behind `after`. Errors: kIncomplete when there is none yet.
Result<streams::StoredChain> open_stored_chain(const Settings& settings, const std::string& data_dir, int64_t after = 0);

/// Where the chain that the settings name stands: with the rows that wait, up to where it is signed, and its keys as its own events
/// left them. Errors: kIncomplete when there is none yet.
struct ChainStanding {
  processors::ChainState state;
  int64_t signed_through = 0;
  streams::SignerRegistry signers;
};
Result<ChainStanding> read_chain_standing(const Settings& settings, const std::string& data_dir);

/// The signer of the key that signs where the chain stands; the configured one where it says nothing. Errors: as open_key().
Result<std::shared_ptr<streams::Signer>> open_active_signer(const Settings& settings, const processors::AuditControl& control);

/// One projector over its whole life: runs while this process owns the partition.
class AuditProjection {
 public:
  /// `group`: where offsets are committed for people to see; empty for a replay, which leaves no trace on the log and heeds no
  /// pause.
  AuditProjection(const Settings& settings, streams::Log& log, std::unique_ptr<streams::AuditSink> sink,
                  std::shared_ptr<streams::Signer> signer, std::string group, streams::Metrics& metrics);
  /// `until`: records from there on are left.
  Result<void> run(const streams::Membership* member, const std::atomic<bool>& stop, std::optional<Offset> until = {});
  Offset position() const;
  /// Why it waits and tries again; empty: it does not.
  std::string trouble() const;
  /// What the chain's events say of it, as far as it is stored.
  processors::AuditControl control() const;
  /// Brings the counters of rows up to date: asked for at each sample, and when it ends.
  void export_metrics();
  streams::Projection projection();

 private:
  Result<void> dead_letter(const RecordView& record, Reason reason, std::string_view detail);

  const Settings& settings_;
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
