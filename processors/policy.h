// The policy gate: may this promotion, or this grant, go on? Local rules; deny beats quarantine beats allow; an error is a deny.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "processors/base.h"
#include "schemas/config.h"

namespace assay::processors {

/// In rising strength: the strongest answer of any rule is the answer of the gate.
enum class Verdict : uint8_t { kAllow, kQuarantine, kDeny };
std::string_view verdict_name(Verdict verdict);  // "allow" "quarantine" "deny"

/// What is asked for. A demotion grants nothing: it has no grant, and no rule stands in its way.
struct PolicyQuestion {
  std::optional<Grant> grant;
  std::optional<double> confidence;  // of the score that the request rests on
};

/// One rule's part in a decision.
struct RuleResult {
  std::string rule;         // "deny-pool" "max-delta" "min-confidence"
  std::string result;       // "pass" "deny" "quarantine" "error"
  std::string explanation;  // one sentence
};

struct PolicyDecision {
  Verdict verdict = Verdict::kAllow;
  std::string rule;            // the first of those that gave the verdict; "allow" when none objected
  std::string policy_id;       // "sentinel-" + rule
  std::string policy_version;  // rules_version of the policy rules that were asked
  std::vector<RuleResult> rationale;

  /// The explanation of the rule that decided.
  std::string_view explanation() const;
  /// {"decision","rule","policyId","policyVersion","rationale":[{"rule","result","explanation"}]}
  Json to_json() const;
};

/// Units of the pool that the grant takes, counted in the pool's unit ("gpu" | "cpu" | "memoryMB"); nothing for any other unit.
std::optional<int64_t> grant_amount(const Grant& grant, std::string_view unit);

/// The pool of that name, or nullptr.
const Pool* find_pool(const AllocationRules& rules, std::string_view name);

/// Asks every rule, also after one has objected, so that the record shows them all. Pure.
PolicyDecision check_policy(const Rules& rules, const PolicyQuestion& question);

}  // namespace assay::processors
