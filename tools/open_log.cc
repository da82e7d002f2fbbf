#include "tools/open_log.h"

#include <algorithm>
#include <chrono>
#include <filesystem>

#include "streams/embedded_log.h"
#include "streams/kafka_log.h"
#include "streams/lineage_log.h"
#include "tools/projection.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

/// Whether a legal hold keeps records of the log. Where the chain cannot be asked, one may.
bool records_are_held(const Settings& settings) {
  const Result<ChainStanding> standing = read_chain_standing(settings, settings.data_dir);
  if (standing) return processors::hold_on_records(standing->state.control.corrections) != nullptr;
  return standing.error().code != Errc::kIncomplete && standing.error().code != Errc::kNotFound;
}

}  // namespace

Result<std::unique_ptr<streams::Log>> open_log(const Settings& settings, LogAccess access, const std::atomic<bool>* stopping,
                                               const MemoryShares* shares, const std::string& client_id) {
  TRY_ASSIGN(auto log, open_plain_log(settings, access, stopping, shares, client_id));
  return streams::follow_lineage(std::move(log), settings.topics.prefix);
}

Result<std::unique_ptr<streams::Log>> open_plain_log(const Settings& settings, LogAccess access, const std::atomic<bool>* stopping,
                                                     const MemoryShares* shares, const std::string& client_id) {
  if (!settings.kafka.brokers.empty()) {
    streams::KafkaLogOptions options;
    options.brokers = settings.kafka.brokers;
    options.properties = settings.kafka.properties;
    options.stopping = stopping;
    options.client_id = client_id;
    if (shares != nullptr) {
      options.fetch_buffer_bytes = reader_bytes(*shares, memory_needs(settings));
      const streams::TopicNames names = topic_names(settings);
      options.fetch_buffers[names.full(Topic::kReports)] = reader_bytes(*shares, memory_needs(settings), true);
      for (Topic topic : {Topic::kManifests, Topic::kConfig}) options.fetch_buffers[names.full(topic)] = small_reader_bytes();
      options.send_buffer_bytes = writer_bytes(*shares, memory_needs(settings));
    }
    return streams::open_kafka_log(options);
  }
  const std::filesystem::path dir = std::filesystem::path(settings.data_dir) / "log";
  streams::EmbeddedLogOptions options;
  options.read_only = access == LogAccess::kRead;
  options.held = [settings] { return records_are_held(settings); };
  if (shares != nullptr)  // a segment is held twice while it is cleaned
    options.segment_bytes = static_cast<uint64_t>(std::clamp<int64_t>(shares->writing / 3, 4 << 20, 64 << 20));
  std::error_code failed;
  if (options.read_only) {
    if (!std::filesystem::exists(dir, failed))
      return Error{Errc::kIncomplete,
                   "opening the log in " + dir.string() + ": there is none yet; `assay produce` and `assay run` make it"};
  } else {
    std::filesystem::create_directories(dir, failed);
    if (failed) return Error{Errc::kUnexpected, "create " + dir.string() + ": " + failed.message()};
  }
  return streams::open_embedded_log(dir.string(), options);
}

std::vector<streams::TopicConfig> configured_topics(const Settings& settings) {
  return streams::wanted_topics({.prefix = settings.topics.prefix,
                                 .partitions = static_cast<int32_t>(settings.topics.partitions),
                                 .retention_ms = settings.topics.retention_ms});
}

Result<void> check_partitions(const Settings& settings, streams::Log& log) {
  for (const streams::TopicConfig& topic : configured_topics(settings)) {
    auto partitions = log.partition_count(topic.name);
    if (!partitions && partitions.error().code == Errc::kNotFound) continue;
    if (!partitions) return partitions.error();
    if (*partitions != topic.partitions)
      return Error{Errc::kUsage, "topic " + topic.name + " of " + log.describe() + " has " + std::to_string(*partitions) +
                                     " partitions, topics.partitions = " + std::to_string(settings.topics.partitions) +
                                     " asks for " + std::to_string(topic.partitions) +
                                     "; set topics.partitions to what the topics were created with"};
  }
  return {};
}

Result<void> ensure_topics(const Settings& settings, streams::Log& log) {
  if (settings.topics.manage) TRY(log.create_topics(configured_topics(settings)));
  return check_partitions(settings, log);
}

WallTime wall_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return WallTime(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

}  // namespace assay::tools
