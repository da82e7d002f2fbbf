// Which topics there have to be, with which limits, and how far a log is from that.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "streams/log.h"

namespace assay::streams {

struct TopicPlan {
  std::string prefix;
  int32_t partitions = 4;
  int64_t retention_ms = -1;  // of topics that a replay does not need whole
};

/// Scoring and promotion have a task for each partition, allocation has one: each writes its manifests to a partition of its own.
constexpr int32_t manifest_partitions(int32_t partitions) { return 2 * partitions + 1; }

/// Checkpoints of the audit chain as C2SP signed notes, key = origin. Not of the catalogue: no task reads or writes it, and what an
/// archive keeps of it lies there as notes.
inline constexpr std::string_view kCheckpointTopic = "assay.checkpoints.v1";

/// The catalogue under the prefix, for each topic that somebody reads the topic of its dead letters, and that of the checkpoints.
std::vector<TopicConfig> wanted_topics(const TopicPlan& plan);

struct TopicDifference {
  std::string topic;
  std::string action;  // "ok" | "create" | "differs"
  std::string detail;  // what differs; nothing of it is changed by itself
};

/// Compares what a log has with what is wanted, in the order wanted.
Result<std::vector<TopicDifference>> plan_topics(Log& log, const std::vector<TopicConfig>& wanted);

}  // namespace assay::streams
