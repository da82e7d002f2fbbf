#include "streams/topic_admin.h"

#include "schemas/time.h"
#include "schemas/topics.h"

namespace assay::streams {
namespace {

// What no processor reads has no dead letters.
bool has_reader(Topic topic) { return topic != Topic::kScoresLive && topic != Topic::kManifests; }

std::string retention_text(int64_t ms) { return ms < 0 ? "for ever" : format_duration_ms(ms); }

std::string difference(const TopicConfig& have, const TopicConfig& want) {
  std::string text;
  auto note = [&](const std::string& what, const std::string& is, const std::string& wanted) {
    if (is != wanted) text += (text.empty() ? "" : "; ") + what + " " + is + ", wanted " + wanted;
  };
  note("partitions", std::to_string(have.partitions), std::to_string(want.partitions));
  note("compaction", have.compacted ? "on" : "off", want.compacted ? "on" : "off");
  note("retention", retention_text(have.retention_ms), retention_text(want.retention_ms));
  note("largest record", std::to_string(have.max_record_bytes) + " bytes", std::to_string(want.max_record_bytes) + " bytes");
  return text;
}

}  // namespace

std::vector<TopicConfig> wanted_topics(const TopicPlan& plan) {
  std::vector<TopicConfig> topics;
  for (const TopicSpec& spec : topic_catalogue()) {
    TopicConfig topic;
    topic.name = plan.prefix + std::string(spec.name);
    topic.partitions = spec.partitions == Partitions::kOne       ? 1
                       : spec.partitions == Partitions::kPerTask ? manifest_partitions(plan.partitions)
                                                                 : plan.partitions;
    topic.compacted = spec.compacted;
    topic.retention_ms = spec.retained_forever || spec.compacted ? -1 : plan.retention_ms;
    topics.push_back(topic);
    if (!has_reader(spec.topic)) continue;
    topic.name = dlq_of(topic.name);
    topic.retention_ms = plan.retention_ms;
    topic.max_record_bytes = kMaxDeadLetterBytes;
    topics.push_back(topic);
  }
  topics.push_back({plan.prefix + std::string(kCheckpointTopic), 1, false, -1, kMaxRecordBytes});
  return topics;
}

Result<std::vector<TopicDifference>> plan_topics(Log& log, const std::vector<TopicConfig>& wanted) {
  TRY_ASSIGN(std::vector<TopicConfig> have, log.topics());
  std::vector<TopicDifference> plan;
  for (const TopicConfig& want : wanted) {
    const TopicConfig* found = nullptr;
    for (const TopicConfig& topic : have)
      if (topic.name == want.name) found = &topic;
    if (found == nullptr) {
      plan.push_back({want.name, "create",
                      std::to_string(want.partitions) + (want.partitions == 1 ? " partition, kept " : " partitions, kept ") +
                          retention_text(want.retention_ms) + (want.compacted ? ", compacted" : "")});
      continue;
    }
    std::string differs = difference(*found, want);
    plan.push_back({want.name, differs.empty() ? "ok" : "differs", std::move(differs)});
  }
  return plan;
}

}  // namespace assay::streams
