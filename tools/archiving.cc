#include "tools/archiving.h"

#include <algorithm>

#include "streams/logging.h"
#include "tools/open_log.h"
#include "tools/open_source.h"
#include "tools/session.h"

namespace assay::tools {

using streams::Milliseconds;

namespace {

constexpr Milliseconds kRestartPause{10000};  // after the archive refused what a person must see to

}  // namespace

Archiving::Archiving(const Settings& settings, streams::Log& log, std::shared_ptr<streams::Signer> signer,
                     const std::string& instance_id, const MemoryShares& shares)
    : settings_(settings), log_(log), signer_(std::move(signer)) {
  options_.names = topic_names(settings);
  options_.group = options_.names.full("assay.archive");
  if (!instance_id.empty()) options_.instance_id = instance_id + "-archive";
  // Half of the share is what is open; the other half, what it takes to pack the largest.
  options_.memory_bytes = static_cast<size_t>(shares.archive / 2);
  options_.segment_bytes = std::min<size_t>(size_t{32} << 20, options_.memory_bytes / 3);
  options_.segment_age = Milliseconds(settings.archive.segment_age_ms);
  options_.archived = [this](const replay::ArchiveEntry& entry) {
    {
      std::lock_guard lock(mutex_);
      trouble_.reset();
    }
    streams::log_debug("archive.segment", {{"topic", entry.segment.topic},
                                           {"partition", int64_t{entry.segment.partition}},
                                           {"first", entry.segment.first.value},
                                           {"next", entry.segment.next.value},
                                           {"records", entry.segment.records},
                                           {"bytes", entry.bytes}});
  };
  options_.halted = [](const TopicPartition& tp, const Error& error) {
    streams::log_warning("archive.halted", {{"partition", to_string(tp)}, {"detail", error.message}});
  };
  options_.retrying = [this](const Error& error) { note_trouble(error); };
  thread_ = std::thread([this] { run(); });
}

Archiving::~Archiving() {
  stop_ = true;
  thread_.join();
}

void Archiving::note_trouble(const Error& error) {
  streams::log_warning("archive.retrying", {{"detail", error.message}});
  std::lock_guard lock(mutex_);
  if (!trouble_) trouble_ = {streams::machine_runtime().uptime(), error};
  trouble_->second = error;
}

Result<void> Archiving::run_once() {
  TRY_ASSIGN(const std::string cluster, log_.cluster_id());
  TRY_ASSIGN(auto objects, open_objects(settings_.archive.url, true));
  TRY_ASSIGN(auto archive, replay::Archive::open_for(std::move(objects), cluster, wall_now()));
  return replay::Archiver(log_, *archive, *signer_, options_).run(stop_, finish_);
}

void Archiving::run() {
  while (!stop_) {
    result_ = run_once();
    if (result_ || (finish_ && result_.error().code != Errc::kUnreachable)) break;
    note_trouble(result_.error());
    const Milliseconds pause = result_.error().code == Errc::kUnreachable ? options_.retry_max / 10 : kRestartPause;
    for (const auto until = streams::machine_runtime().uptime() + pause;
         !stop_ && !finish_ && streams::machine_runtime().uptime() < until;)
      streams::machine_runtime().sleep(Milliseconds(20));
    if (finish_) streams::machine_runtime().sleep(options_.retry_min);
  }
  ended_ = true;
}

Result<void> Archiving::finish(const std::atomic<bool>& stop) {
  finish_ = true;
  while (!ended_ && !stop) {
    {
      std::lock_guard lock(mutex_);
      if (trouble_ && streams::machine_runtime().uptime() - trouble_->first >= Milliseconds(settings_.run.patience_ms))
        return Error{Errc::kUnreachable, "archiving to the end: nothing was taken for " +
                                             std::to_string(settings_.run.patience_ms / 1000) + " s: " + trouble_->second.message};
    }
    streams::machine_runtime().sleep(Milliseconds(20));
  }
  return ended_ ? result_ : Result<void>();
}

}  // namespace assay::tools
