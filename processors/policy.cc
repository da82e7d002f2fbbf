#include "processors/policy.h"

namespace assay::processors {
namespace {

struct Answer {
  Verdict verdict;
  std::string result;
  std::string explanation;
};

Answer pass(std::string explanation) { return {Verdict::kAllow, "pass", std::move(explanation)}; }
Answer deny(std::string explanation) { return {Verdict::kDeny, "deny", std::move(explanation)}; }
Answer quarantine(std::string explanation) { return {Verdict::kQuarantine, "quarantine", std::move(explanation)}; }
/// A rule that cannot be evaluated might have denied, so it does.
Answer failed(std::string explanation) { return {Verdict::kDeny, "error", std::move(explanation)}; }

std::string number(double value) {
  std::string out;
  append_number(value, out);
  return out;
}

Answer deny_pool(const Rules& rules, const PolicyQuestion& question) {
  if (!question.grant) return pass("nothing is granted");
  for (const std::string& pattern : rules.policy.deny_pools)
    if (glob_match(pattern, question.grant->pool))
      return deny("pool " + question.grant->pool + " matches " + pattern + " of the deny list");
  return pass("pool " + question.grant->pool + " is not on the deny list");
}

Answer max_delta(const Rules& rules, const PolicyQuestion& question) {
  if (!question.grant) return pass("nothing is granted");
  const Pool* pool = find_pool(rules.allocation, question.grant->pool);
  if (!pool) return failed("pool " + question.grant->pool + " does not exist, so the grant cannot be measured");
  auto amount = grant_amount(*question.grant, pool->unit);
  if (!amount) return failed("pool " + pool->name + " counts in " + pool->unit + ", which a grant does not have");
  std::string measured = std::to_string(*amount) + " " + pool->unit;
  if (*amount < 0) return failed("the grant of " + measured + " is less than nothing");
  if (static_cast<double>(*amount) > rules.policy.max_delta)
    return deny(measured + " is more than the largest delta of " + number(rules.policy.max_delta));
  return pass(measured + " is within the largest delta of " + number(rules.policy.max_delta));
}

Answer min_confidence(const Rules& rules, const PolicyQuestion& question) {
  if (!question.grant) return pass("nothing is granted");
  if (!question.confidence) return failed("the score has no confidence");
  std::string measured = "confidence " + number(*question.confidence);
  if (*question.confidence < rules.policy.min_confidence)
    return quarantine(measured + " is below " + number(rules.policy.min_confidence));
  return pass(measured + " is not below " + number(rules.policy.min_confidence));
}

struct LocalRule {
  const char* name;
  Answer (*ask)(const Rules&, const PolicyQuestion&);
};

constexpr LocalRule kLocalRules[] = {
    {"deny-pool", deny_pool},
    {"max-delta", max_delta},
    {"min-confidence", min_confidence},
};

}  // namespace

std::string_view verdict_name(Verdict verdict) {
  return verdict == Verdict::kDeny ? "deny" : verdict == Verdict::kQuarantine ? "quarantine" : "allow";
}

std::string_view PolicyDecision::explanation() const {
  for (const RuleResult& part : rationale)
    if (part.rule == rule) return part.explanation;
  return "no rule objects";
}

Json PolicyDecision::to_json() const {
  Json parts = Json::array();
  for (const RuleResult& part : rationale)
    parts.push_back(Json::object().set("rule", part.rule).set("result", part.result).set("explanation", part.explanation));
  return Json::object()
      .set("decision", verdict_name(verdict))
      .set("rule", rule)
      .set("policyId", policy_id)
      .set("policyVersion", policy_version)
      .set("rationale", std::move(parts));
}

std::optional<int64_t> grant_amount(const Grant& grant, std::string_view unit) {
  if (unit == "gpu") return grant.gpu;
  if (unit == "cpu") return grant.cpu;
  if (unit == "memoryMB") return grant.memory_mb;
  return std::nullopt;
}

const Pool* find_pool(const AllocationRules& rules, std::string_view name) {
  for (const Pool& pool : rules.pools)
    if (pool.name == name) return &pool;
  return nullptr;
}

PolicyDecision check_policy(const Rules& rules, const PolicyQuestion& question) {
  PolicyDecision decision;
  decision.rule = "allow";
  for (const LocalRule& local : kLocalRules) {
    Answer answer = local.ask(rules, question);
    if (answer.verdict > decision.verdict) {
      decision.verdict = answer.verdict;
      decision.rule = local.name;
    }
    decision.rationale.push_back({local.name, std::move(answer.result), std::move(answer.explanation)});
  }
  decision.policy_id = "sentinel-" + decision.rule;
  decision.policy_version = rules_version(rules, ConfigKind::kPolicy);
  return decision;
}

}  // namespace assay::processors
