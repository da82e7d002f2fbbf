#include "tools/projection.h"

#include <filesystem>

#include "streams/audit_archive.h"
#include "streams/logging.h"
#include "streams/postgres_sink.h"
#include "tools/audit_control.h"
#include "tools/open_log.h"
#include "tools/session.h"

namespace assay::tools {

std::string audit_dir(const std::string& data_dir) { return (std::filesystem::path(data_dir) / "audit").string(); }

Result<std::unique_ptr<streams::AuditSink>> open_audit_sink(const Settings& settings, const std::string& data_dir,
                                                            const std::shared_ptr<streams::Signer>& signer) {
  if (!settings.database.url.empty()) return streams::open_postgres_sink(settings.database.url);
  return streams::open_archive_sink(audit_dir(data_dir), signer);
}

Result<streams::StoredChain> open_stored_chain(const Settings& settings, const std::string& data_dir, int64_t after) {
  if (!settings.database.url.empty()) return streams::open_database_chain(settings.database.url, after);
  return streams::open_archive_chain(audit_dir(data_dir), after);
}

Result<ChainStanding> read_chain_standing(const Settings& settings, const std::string& data_dir) {
  if (!settings.database.url.empty()) {
    TRY_ASSIGN(streams::DatabaseHead head, streams::read_database_head(settings.database.url));
    return ChainStanding{std::move(head.state), head.signed_through, std::move(head.signers)};
  }
  ChainStanding out;
  const std::string dir = audit_dir(data_dir);
  TRY_ASSIGN(out.state, streams::read_archive_head(dir));
  if (auto manifest = streams::read_archive_manifest(dir)) out.signed_through = manifest->head.sequence;
  if (auto signers = streams::SignerRegistry::load(dir + "/signers.json")) out.signers = std::move(*signers);
  out.signers = streams::standing_registry(std::move(out.signers), out.state.control);
  return out;
}

Result<std::shared_ptr<streams::Signer>> open_active_signer(const Settings& settings, const processors::AuditControl& control) {
  auto standing = control.keys.find(control.active);
  if (control.active.empty() || control.active == settings.audit.signer_id || standing == control.keys.end())
    return open_signer(settings);
  return open_key(settings, place_of(settings, standing->second));
}

AuditProjection::AuditProjection(const Settings& settings, streams::Log& log, std::unique_ptr<streams::AuditSink> sink,
                                 std::shared_ptr<streams::Signer> signer, std::string group, streams::Metrics& metrics)
    : settings_(settings),
      log_(log),
      names_(topic_names(settings)),
      sink_(std::move(sink)),
      signer_(std::move(signer)),
      group_(std::move(group)),
      metrics_(metrics) {
  metrics_.touch(streams::Metric::kProjectorErrors, {"unreachable"});
  metrics_.touch(streams::Metric::kSignerFailures, {signer_->key().signer_id});
}

Result<void> AuditProjection::dead_letter(const RecordView& record, Reason reason, std::string_view detail) {
  if (group_.empty()) return {};  // a replay: the live projector has written it
  TRY_ASSIGN(auto producer, log_.open_producer());
  const std::string_view topic = topic_spec(Topic::kAudit).name;
  OutRecord out;
  out.to = {names_.full(dlq_of(topic)), 0};
  out.timestamp = wall_now();
  if (record.key) out.key = std::string(*record.key);
  if (record.value) out.value = std::string(*record.value);
  for (const HeaderView& h : record.headers)
    out.headers.push_back({std::string(h.name), h.value ? std::optional<std::string>(*h.value) : std::nullopt});
  out.headers.push_back({std::string(kHeaderReason), std::string(reason_code(reason))});
  out.headers.push_back({std::string(kHeaderDetail), std::string(detail)});
  out.headers.push_back({std::string(kHeaderSource), std::string(topic) + "/0/" + std::to_string(record.offset.value)});
  out.headers.push_back({"assay-processor", "audit"});
  TRY(producer->send(std::move(out)));
  TRY(producer->flush());
  metrics_.increment(streams::Metric::kDeadLetters, {topic, reason_code(reason)});
  return {};
}

Result<void> AuditProjection::run(const streams::Membership* member, const std::atomic<bool>& stop, std::optional<Offset> until) {
  streams::AuditProjectorOptions options;
  options.until = until;
  options.topic = names_.full(Topic::kAudit);
  options.group = group_;
  options.member = member;
  options.dead_letter = [this](const RecordView& record, Reason reason, std::string_view detail) {
    return dead_letter(record, reason, detail);
  };
  options.writer_of = [](const RecordView& record) -> std::optional<processors::WriterStamp> {
    auto text = record.header(kHeaderWriter);
    auto stamp = text ? streams::WriterStamp::parse(*text) : std::nullopt;
    if (!stamp) return std::nullopt;
    return processors::WriterStamp{std::string(stamp->writer), static_cast<uint64_t>(stamp->n)};
  };
  options.signer_of = [this](const processors::KeyStanding& key) {
    return open_key(settings_, place_of(settings_, key),
                    [this, id = key.key.signer_id](const Error&) { metrics_.increment(streams::Metric::kSignerFailures, {id}); });
  };
  options.rebuild = group_.empty();
  options.on_retry = [this](const Error& error) {
    metrics_.increment(streams::Metric::kProjectorErrors, {"unreachable"});
    streams::log_warning("projector.retrying", {{"detail", error.message}});
    std::lock_guard lock(trouble_mutex_);
    trouble_ = error.message;
  };
  options.on_recovered = [this] {
    std::lock_guard lock(trouble_mutex_);
    trouble_.clear();
  };
  streams::AuditProjector* projector = nullptr;
  {
    std::lock_guard lock(mutex_);
    exported_rows_ = 0;
    projector_ = std::make_unique<streams::AuditProjector>(log_, *sink_, signer_, std::move(options));
    projector = projector_.get();
  }
  Result<void> result = projector->run(stop);
  {
    std::lock_guard lock(trouble_mutex_);
    trouble_.clear();  // whoever runs it knows how it ended
  }
  export_metrics();
  std::lock_guard lock(mutex_);
  projector_.reset();  // from now on somebody else may go on, and what this one knew is the past
  return result;
}

void AuditProjection::export_metrics() {
  const bool waits = !trouble().empty();
  std::lock_guard lock(mutex_);
  if (projector_ == nullptr) return;
  const streams::AuditProjectorCounters& counters = projector_->counters();
  const int64_t rows = counters.rows;
  metrics_.add(streams::Metric::kAuditRows, static_cast<double>(rows - std::exchange(exported_rows_, rows)));
  // Rows on their way are no news; those that nobody takes are.
  const int64_t unsigned_rows = counters.unsigned_rows;
  metrics_.set(streams::Metric::kAuditPending, static_cast<double>(unsigned_rows + (waits ? counters.folded - rows : 0)));
  const processors::AuditControl control = projector_->control();
  for (const auto& [by, held] : {std::pair{"paused", control.paused}, std::pair{"safe_mode", !control.safe_mode.empty()},
                                 std::pair{"emergency", !control.emergency.empty()}})
    metrics_.set(streams::Metric::kAuditHeld, held ? 1 : 0, {by});
  const auto due_ms = rotation_due_ms(control, settings_.audit.rotation);
  const int64_t overdue_ms = due_ms ? wall_now().value - *due_ms : 0;
  metrics_.set(streams::Metric::kAuditKeyOverdue, static_cast<double>(std::max<int64_t>(overdue_ms, 0)) / 1000);
}

processors::AuditControl AuditProjection::control() const {
  std::lock_guard lock(mutex_);
  return projector_ == nullptr ? processors::AuditControl() : projector_->control();
}

std::string AuditProjection::trouble() const {
  std::lock_guard lock(trouble_mutex_);
  return trouble_;
}

Offset AuditProjection::position() const {
  std::lock_guard lock(mutex_);
  return projector_ == nullptr ? Offset(-1) : projector_->position();
}

streams::Projection AuditProjection::projection() {
  return {[this](const streams::Membership* member, const std::atomic<bool>& stop) { return run(member, stop); },
          [this] { return position(); }, [this] { return trouble(); }, [this] { return control().paused; }};
}

}  // namespace assay::tools
