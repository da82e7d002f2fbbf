// The catalogue of topics: what is on the log, under which name, with which limits.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "schemas/types.h"

namespace assay::schemas {

enum class Topic : uint8_t { kReports, kScores, kScoresLive, kPromotions, kAllocations, kAudit, kConfig, kManifests };

enum class Partitions : uint8_t { kConfigured, kOne, kPerTask };

struct TopicSpec {
  Topic topic;
  std::string_view name;  // without prefix
  Partitions partitions;
  bool compacted;           // the last record of a key is enough
  bool retained_forever;    // replay needs it whole: config, manifests, audit
  std::string_view record;  // Protobuf message of its values, in schemas/proto
};

std::span<const TopicSpec> topic_catalogue();
const TopicSpec& topic_spec(Topic topic);

/// Dead letters of a topic go here.
inline std::string dlq_of(std::string_view topic) { return std::string(topic) + ".dlq"; }
inline constexpr std::string_view kDlqSuffix = ".dlq";

/// Largest record (key + value) that a source topic takes, and what its dead-letter topic takes.
constexpr int64_t kMaxRecordBytes = 1048576;
constexpr int64_t kMaxDeadLetterBytes = kMaxRecordBytes + 64 * 1024;

/// Kafka's hash of a key. Source: org.apache.kafka.common.utils.Utils.murmur2.
int32_t murmur2(std::string_view bytes);

/// Kafka's default partitioner: murmur2 of the key, sign bit cleared, modulo the count.
/// Requires: count > 0.
int32_t partition_of(std::string_view key, int32_t count);

}  // namespace assay::schemas
