#include "schemas/topics.h"

#include <array>

#include "schemas/result.h"

namespace assay::schemas {
namespace {

constexpr std::array kCatalogue = {
    TopicSpec{Topic::kReports, "eval.reports.v1", Partitions::kConfigured, false, false, "assay.v1.EvalReport"},
    TopicSpec{Topic::kScores, "eval.scores.v1", Partitions::kConfigured, false, false, "assay.v1.AgentScore"},
    TopicSpec{Topic::kScoresLive, "eval.scores.live.v1", Partitions::kConfigured, true, false, "assay.v1.AgentScore"},
    TopicSpec{Topic::kPromotions, "promotion.events.v1", Partitions::kConfigured, false, false, "assay.v1.PromotionEvent"},
    TopicSpec{Topic::kAllocations, "allocation.events.v1", Partitions::kConfigured, false, false, "assay.v1.AllocationEvent"},
    TopicSpec{Topic::kAudit, "audit-events", Partitions::kOne, false, true, "assay.v1.AuditEvent"},
    TopicSpec{Topic::kConfig, "config.v1", Partitions::kOne, false, true, "assay.v1.ConfigEvent"},
    TopicSpec{Topic::kManifests, "assay.manifests.v1", Partitions::kPerTask, false, true, "assay.v1.Manifest"},
};

}  // namespace

std::span<const TopicSpec> topic_catalogue() { return kCatalogue; }

const TopicSpec& topic_spec(Topic topic) {
  const TopicSpec& spec = kCatalogue[static_cast<size_t>(topic)];
  CHECK(spec.topic == topic);
  return spec;
}

int32_t murmur2(std::string_view key) {
  constexpr uint32_t kMix = 0x5bd1e995;
  auto byte = [&](size_t i) { return static_cast<uint32_t>(static_cast<unsigned char>(key[i])); };
  uint32_t h = 0x9747b28c ^ static_cast<uint32_t>(key.size());
  size_t i = 0;
  for (; i + 4 <= key.size(); i += 4) {
    uint32_t k = byte(i) | byte(i + 1) << 8 | byte(i + 2) << 16 | byte(i + 3) << 24;
    k *= kMix;
    k ^= k >> 24;
    k *= kMix;
    h = (h * kMix) ^ k;
  }
  switch (key.size() - i) {
    case 3:
      h ^= byte(i + 2) << 16;
      [[fallthrough]];
    case 2:
      h ^= byte(i + 1) << 8;
      [[fallthrough]];
    case 1:
      h ^= byte(i);
      h *= kMix;
  }
  h ^= h >> 13;
  h *= kMix;
  h ^= h >> 15;
  return static_cast<int32_t>(h);
}

int32_t partition_of(std::string_view key, int32_t count) {
  CHECK(count > 0);
  return (murmur2(key) & 0x7fffffff) % count;
}

}  // namespace assay::schemas
