#include "tools/audit_uploading.h"

#include <algorithm>
#include <utility>

#include "streams/logging.h"
#include "tools/replay_source.h"

namespace assay::tools {

using streams::Milliseconds;

namespace {

constexpr Milliseconds kLookPause{1000};      // between two looks at the chain
constexpr Milliseconds kRestartPause{10000};  // after what a person must see to

Result<std::unique_ptr<streams::AuditUploader>> open_uploader(const Settings& settings, const std::string& place,
                                                              streams::AuditUploadOptions options = {}) {
  TRY_ASSIGN(auto objects, open_objects(settings, place, true));
  return std::make_unique<streams::AuditUploader>(
      std::move(objects), [&settings](int64_t after) { return open_stored_chain(settings, settings.data_dir, after); },
      std::move(options));
}

}  // namespace

std::string audit_archive_place(const Settings& settings) {
  if (!settings.archive.audit_url.empty() || settings.archive.url.empty()) return settings.archive.audit_url;
  return settings.archive.url + (settings.archive.url.ends_with('/') ? "audit" : "/audit");
}

Result<std::optional<streams::AuditBatch>> upload_chain(const Settings& settings, const std::string& place) {
  TRY_ASSIGN(const ChainStanding standing, read_chain_standing(settings, settings.data_dir));
  TRY_ASSIGN(const auto signer, open_active_signer(settings, standing.state.control));
  TRY_ASSIGN(const auto uploader, open_uploader(settings, place));
  TRY(uploader->upload(*signer));
  return uploader->last();
}

AuditUploading::AuditUploading(const Settings& settings, const AuditProjection& projection, streams::Metrics& metrics)
    : settings_(settings), projection_(projection), metrics_(metrics) {
  for (const char* error : {"unreachable", "refused", "other"})
    metrics_.touch(streams::Metric::kAuditArchiveUploadFailures, {error});
  thread_ = std::thread([this] { run(); });
}

AuditUploading::~AuditUploading() {
  stop_ = true;
  thread_.join();
}

void AuditUploading::pause(Milliseconds duration) const {
  const bool finishing = finish_;
  const Milliseconds until = streams::machine_runtime().uptime() + duration;
  while (!stop_ && finish_ == finishing && streams::machine_runtime().uptime() < until)
    streams::machine_runtime().sleep(Milliseconds(20));
}

/// The signer of the key that is in use, opened again when that has changed.
Result<std::shared_ptr<streams::Signer>> AuditUploading::signer() {
  TRY_ASSIGN(const ChainStanding standing, read_chain_standing(settings_, settings_.data_dir));
  const processors::AuditControl& control = standing.state.control;
  if (signer_ == nullptr || signer_id_ != control.active) {
    TRY_ASSIGN(signer_, open_active_signer(settings_, control));
    signer_id_ = control.active;
  }
  return signer_;
}

/// Uploads when it is time to: rows enough for a batch, or one that has waited for long enough.
Result<void> AuditUploading::upload_once(bool all) {
  Result<ChainStanding> standing = read_chain_standing(settings_, settings_.data_dir);
  if (!standing && standing.error().code == Errc::kIncomplete) return {};  // no chain yet
  if (!standing) return standing.error();
  if (uploader_ == nullptr) {
    streams::AuditUploadOptions options;
    options.stored = [this](const streams::ArchiveFile& file) {
      metrics_.add(streams::Metric::kAuditArchivedRows, static_cast<double>(file.rows));
      streams::log_debug("audit_archive.batch",
                         {{"file", file.name}, {"rows", file.rows}, {"bytes", file.size_bytes}, {"last_hash", file.last_hash}});
    };
    TRY_ASSIGN(uploader_, open_uploader(settings_, audit_archive_place(settings_), std::move(options)));
  }
  const int64_t waiting = standing->signed_through - uploader_->rows();
  if (waiting == 0) waiting_since_.reset();
  if (waiting <= 0) return {};
  const Milliseconds now = streams::machine_runtime().uptime();
  if (!waiting_since_) waiting_since_ = now;
  const bool first = uploader_->rows() == 0;  // what the place holds is not known yet
  const bool due = all || first || waiting >= streams::AuditUploadOptions{}.batch_rows_max ||
                   now - *waiting_since_ >= Milliseconds(settings_.archive.segment_age_ms);
  if (!due) return {};
  TRY_ASSIGN(const auto signing, signer());
  TRY_ASSIGN(const int64_t rows, uploader_->upload(*signing));
  rows_ = rows;
  waiting_since_.reset();
  return {};
}

void AuditUploading::run() {
  Milliseconds retry{0};
  while (!stop_) {
    const bool last = finish_;
    if (!last && projection_.position() < Offset(0)) {
      pause(kLookPause);  // another process writes the chain
      continue;
    }
    result_ = upload_once(last);
    // Without a database each process keeps the rows that it wrote itself: another one has gone on.
    const bool behind = !result_ && result_.error().code == Errc::kIncomplete && settings_.database.url.empty();
    if (last && behind && !settings_.kafka.brokers.empty()) result_ = {};
    if (result_) {
      {
        std::lock_guard lock(mutex_);
        trouble_.reset();
      }
      retry = Milliseconds(0);
      if (last) break;
      pause(std::min(kLookPause, Milliseconds(settings_.archive.segment_age_ms)));
      continue;
    }
    const Error& error = result_.error();
    const char* word = error.code == Errc::kUnreachable ? "unreachable" : error.code == Errc::kRefused ? "refused" : "other";
    metrics_.increment(streams::Metric::kAuditArchiveUploadFailures, {word});
    if (error.code == Errc::kUnreachable)
      streams::log_warning("audit_archive.retrying", {{"error", word}, {"detail", error.message}});
    else
      streams::log_error("audit_archive.halted", "audit_archive_upload_failures", {{"error", word}, {"detail", error.message}});
    {
      std::lock_guard lock(mutex_);
      if (!trouble_) trouble_ = {streams::machine_runtime().uptime(), error};
      trouble_->second = error;
    }
    uploader_.reset();  // the place is asked again
    signer_.reset();
    if (last && error.code != Errc::kUnreachable) break;
    retry = error.code == Errc::kUnreachable ? std::clamp(retry * 2, Milliseconds(200), kRestartPause) : kRestartPause;
    pause(last ? std::min(retry, kLookPause) : retry);
  }
  ended_ = true;
}

Result<void> AuditUploading::finish(const std::atomic<bool>& stop) {
  finish_ = true;
  const Milliseconds patience(settings_.run.patience_ms);
  while (!ended_ && !stop) {
    {
      std::lock_guard lock(mutex_);
      if (trouble_ && streams::machine_runtime().uptime() - trouble_->first >= patience)
        return Error{Errc::kUnreachable, "archiving the audit chain to its end: nothing was taken for " +
                                             std::to_string(settings_.run.patience_ms / 1000) + " s: " + trouble_->second.message};
    }
    streams::machine_runtime().sleep(Milliseconds(20));
  }
  return ended_ ? result_ : Result<void>();
}

Json AuditUploading::describe() const {
  std::lock_guard lock(mutex_);
  return Json::object()
      .set("state", trouble_ ? "retrying" : "archiving")
      .set("rows", rows_.load())
      .set("detail", trouble_ ? trouble_->second.message : std::string());
}

}  // namespace assay::tools
