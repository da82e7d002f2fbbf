#include "tools/open_log.h"

#include <chrono>
#include <filesystem>

#include "streams/embedded_log.h"
#include "streams/kafka_log.h"

namespace assay::tools {

Result<std::unique_ptr<streams::Log>> open_log(const Settings& settings, LogAccess access, const std::atomic<bool>* stopping) {
  if (!settings.kafka.brokers.empty()) {
    streams::KafkaLogOptions options;
    options.brokers = settings.kafka.brokers;
    options.properties = settings.kafka.properties;
    options.stopping = stopping;
    return streams::open_kafka_log(options);
  }
  const std::filesystem::path dir = std::filesystem::path(settings.data_dir) / "log";
  streams::EmbeddedLogOptions options;
  options.read_only = access == LogAccess::kRead;
  if (!options.read_only) {
    std::error_code failed;
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

Result<void> ensure_topics(const Settings& settings, streams::Log& log) {
  if (!settings.topics.manage) return {};
  return log.create_topics(configured_topics(settings));
}

WallTime wall_now() {
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  return WallTime(std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
}

}  // namespace assay::tools
