#include "streams/decision_metrics.h"

#include "schemas/json_parse.h"
#include "streams/topic_admin.h"

namespace assay::streams {
namespace {

void add(Metrics& metrics, Metric metric, const std::vector<std::string>& labels) {
  switch (labels.size()) {
    case 0:
      return metrics.increment(metric);
    case 1:
      return metrics.increment(metric, {labels[0]});
    case 2:
      return metrics.increment(metric, {labels[0], labels[1]});
    default:
      return metrics.increment(metric, {labels[0], labels[1], labels[2]});
  }
}

}  // namespace

std::string_view decision_severity(std::string_view decision) {
  return decision == "deny" ? "critical" : decision == "quarantine" ? "warning" : "info";
}

void DecisionMetrics::stage(std::span<const OutRecord> records) {
  staged_.clear();
  promotions_ = allocations_ = false;
  for (const OutRecord& record : records)
    if (record.to.topic.starts_with(prefix_)) read(std::string_view(record.to.topic).substr(prefix_.size()), record);
}

void DecisionMetrics::read(std::string_view topic, const OutRecord& record) {
  if (topic == dlq_of(topic_spec(Topic::kConfig).name)) {
    if (counts_rules_) staged_.push_back({Metric::kConfigRejected, {}});
    return;
  }
  const bool promotion = topic == topic_spec(Topic::kPromotions).name;
  const bool allocation = topic == topic_spec(Topic::kAllocations).name;
  const bool audit = topic == topic_spec(Topic::kAudit).name;
  if ((!promotion && !allocation && !audit) || !record.value) return;
  auto document = parse_json(*record.value);
  if (!document) return;  // our own processors write JSON; what else stands there decides nothing
  auto text = [](const Json& in, std::string_view member) { return std::string(in.string_or(member, "unknown")); };
  if (promotion) {
    const Json* policy = document->find("policy");
    staged_.push_back(
        {Metric::kPromotions, {text(*document, "status"), policy != nullptr ? text(*policy, "policyId") : "unknown"}});
    promotions_ = true;
  } else if (allocation) {
    staged_.push_back({Metric::kAllocations, {text(*document, "pool"), text(*document, "state")}});
    allocations_ = true;
  } else {
    const Json* data = document->find("data");
    const Json* policy = data != nullptr ? data->find("policy") : nullptr;
    if (policy == nullptr || document->string_or("eventType", "") != "policy.decision") return;
    const std::string decision = text(*policy, "decision"), id = text(*policy, "policyId");
    staged_.push_back({Metric::kPolicyDecisions, {decision, id, std::string(decision_severity(decision))}});
    if (decision == "deny") staged_.push_back({Metric::kPolicyDenials, {id}});
  }
}

void DecisionMetrics::count(Metrics& metrics, std::optional<double> waited_seconds) {
  for (const Sample& sample : staged_) add(metrics, sample.metric, sample.labels);
  if (promotions_ && waited_seconds) metrics.observe(Metric::kPromotionLatency, *waited_seconds);
  if (allocations_ && waited_seconds) metrics.observe(Metric::kAllocationLatency, *waited_seconds);
  staged_.clear();
  promotions_ = allocations_ = false;
}

}  // namespace assay::streams
