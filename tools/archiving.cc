#include "tools/archiving.h"

#include <algorithm>

#include "streams/logging.h"
#include "tools/open_log.h"
#include "tools/replay_source.h"
#include "tools/session.h"

namespace assay::tools {

using streams::Milliseconds;

namespace {

constexpr Milliseconds kRestartPause{10000};  // after the archive refused what a person must see to

}  // namespace

Archiving::Archiving(const Settings& settings, streams::Log& log, std::shared_ptr<streams::Signer> signer,
                     const std::string& instance_id, const MemoryShares& shares, streams::Metrics& metrics)
    : settings_(settings), log_(log), signer_(std::move(signer)), metrics_(metrics) {
  options_.names = topic_names(settings);
  options_.group = archive_group(options_.names);
  if (!instance_id.empty()) options_.instance_id = instance_id + "-archive";
  // Half of the share is what is open; the other half, what it takes to pack the largest.
  options_.memory_bytes = static_cast<size_t>(shares.archive / 2);
  options_.segment_bytes = std::min<size_t>(size_t{32} << 20, options_.memory_bytes / 3);
  options_.segment_age = Milliseconds(settings.archive.segment_age_ms);
  options_.archived = [this](const replay::ArchiveEntry& entry) {
    const std::string& topic = entry.segment.topic;
    metrics_.increment(streams::Metric::kArchiveSegments, {topic});
    metrics_.add(streams::Metric::kArchiveRecords, static_cast<double>(entry.segment.records), {topic});
    metrics_.add(streams::Metric::kArchiveBytes, static_cast<double>(entry.bytes), {topic});
    streams::log_debug("archive.segment", {{"topic", entry.segment.topic},
                                           {"partition", int64_t{entry.segment.partition}},
                                           {"first", entry.segment.first.value},
                                           {"next", entry.segment.next.value},
                                           {"records", entry.segment.records},
                                           {"bytes", entry.bytes}});
  };
  options_.halted = [](const TopicPartition& tp, const Error& error) {
    streams::log_error("archive.halted", "archive_halted", {{"partition", to_string(tp)}, {"detail", error.message}});
  };
  options_.retrying = [this](const Error& error) { note_trouble(error); };
  options_.recovered = [this] {
    std::lock_guard lock(mutex_);
    trouble_.reset();
  };
  for (const char* error : {"unreachable", "refused", "other"}) metrics_.touch(streams::Metric::kArchiveErrors, {error});
  thread_ = std::thread([this] { run(); });
}

Archiving::~Archiving() {
  stop_ = true;
  thread_.join();
}

void Archiving::note_trouble(const Error& error) {
  const char* word = error.code == Errc::kUnreachable ? "unreachable" : error.code == Errc::kRefused ? "refused" : "other";
  metrics_.increment(streams::Metric::kArchiveErrors, {word});
  streams::log_warning("archive.retrying", {{"error", word}, {"detail", error.message}});
  std::lock_guard lock(mutex_);
  if (!trouble_) trouble_ = {streams::machine_runtime().uptime(), error};
  trouble_->second = error;
}

Result<void> Archiving::run_once() {
  TRY_ASSIGN(const std::string cluster, log_.cluster_id());
  TRY_ASSIGN(auto objects, open_objects(settings_, settings_.archive.url, true));
  TRY_ASSIGN(auto archive, replay::Archive::open_for(std::move(objects), cluster, wall_now()));
  replay::Archiver* archiver = nullptr;
  {
    std::lock_guard lock(mutex_);
    trouble_.reset();
    archiver_.reset();
    archive_ = std::move(archive);
    archiver_ = std::make_unique<replay::Archiver>(log_, *archive_, *signer_, options_);
    archiver = archiver_.get();
  }
  return archiver->run(stop_, finish_);
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

std::vector<replay::ArchivedPlace> Archiving::places() const {
  std::lock_guard lock(mutex_);
  return archiver_ == nullptr ? std::vector<replay::ArchivedPlace>() : archiver_->places();
}

Json Archiving::describe() const {
  std::string halt;
  for (const replay::ArchivedPlace& place : places())
    if (halt.empty()) halt = place.halt;
  std::lock_guard lock(mutex_);
  return Json::object()
      .set("state", trouble_       ? "retrying"
                    : halt.empty() ? "archiving"
                                   : "halted")
      .set("detail", trouble_ ? trouble_->second.message : halt);
}

void Archiving::export_metrics() {
  std::vector<streams::GaugeSeries> halted;
  for (const replay::ArchivedPlace& place : places()) {
    if (place.halt.empty()) continue;
    const std::string word = place.halt.substr(0, place.halt.find(':'));
    const bool named = std::ranges::all_of(word, [](char c) { return (c >= 'A' && c <= 'Z') || c == '_'; });
    halted.push_back({{place.tp.topic, std::to_string(place.tp.partition), named ? word : "ARCHIVE_DAMAGED"}, 1});
  }
  metrics_.replace(streams::Metric::kArchiveHalted, halted);
}

}  // namespace assay::tools
