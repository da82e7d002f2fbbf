// The policy gate: each rule at its edge, and which answer wins.
#include "processors/policy.h"

#include <gtest/gtest.h>

namespace assay::processors {
namespace {

Rules sound_rules() {
  Rules rules;
  rules.allocation.pools = {Pool{"gpus-us-east", "gpu", 10, {}}, Pool{"cpu-highmem", "cpu", 64, {}},
                            Pool{"ram", "memoryMB", 4096, {}}};
  return rules;
}

PolicyQuestion grant_of(std::string pool, int64_t cpu, int64_t gpu, int64_t memory_mb, std::optional<double> confidence = 0.9) {
  return {Grant{std::move(pool), cpu, gpu, memory_mb, 0}, confidence};
}

std::string results(const PolicyDecision& decision) {
  std::string text;
  for (const RuleResult& part : decision.rationale) text += part.rule + "=" + part.result + " ";
  return text;
}

TEST(policy, allows_when_no_rule_objects) {
  PolicyDecision d = check_policy(sound_rules(), grant_of("gpus-us-east", 0, 1, 0));
  EXPECT_EQ(d.verdict, Verdict::kAllow);
  EXPECT_EQ(d.rule, "allow");
  EXPECT_EQ(d.policy_id, "sentinel-allow");
  EXPECT_EQ(d.policy_version, rules_version(sound_rules(), ConfigKind::kPolicy));
  EXPECT_EQ(results(d), "deny-pool=pass max-delta=pass min-confidence=pass ");
}

TEST(policy, each_rule_at_its_edge) {
  struct Case {
    const char* name;
    std::vector<std::string> deny_pools;
    double max_delta, min_confidence;
    PolicyQuestion question;
    std::string decision, policy_id, results;
  };
  const Case kCases[] = {
      {"the pool's name",
       {"gpus-us-east"},
       5,
       0,
       grant_of("gpus-us-east", 0, 1, 0),
       "deny",
       "sentinel-deny-pool",
       "deny-pool=deny max-delta=pass min-confidence=pass "},
      {"a glob",
       {"x", "gpus-*"},
       5,
       0,
       grant_of("gpus-us-east", 0, 1, 0),
       "deny",
       "sentinel-deny-pool",
       "deny-pool=deny max-delta=pass min-confidence=pass "},
      {"another pool",
       {"gpus-us-eas", "gpus-us-east?"},
       5,
       0,
       grant_of("gpus-us-east", 0, 1, 0),
       "allow",
       "sentinel-allow",
       "deny-pool=pass max-delta=pass min-confidence=pass "},
      {"as much as the largest delta",
       {},
       5,
       0,
       grant_of("gpus-us-east", 0, 5, 0),
       "allow",
       "sentinel-allow",
       "deny-pool=pass max-delta=pass min-confidence=pass "},
      {"one more",
       {},
       5,
       0,
       grant_of("gpus-us-east", 0, 6, 0),
       "deny",
       "sentinel-max-delta",
       "deny-pool=pass max-delta=deny min-confidence=pass "},
      {"only the pool's unit counts",
       {},
       5,
       0,
       grant_of("gpus-us-east", 99, 5, 9999),
       "allow",
       "sentinel-allow",
       "deny-pool=pass max-delta=pass min-confidence=pass "},
      {"cpu",
       {},
       5,
       0,
       grant_of("cpu-highmem", 6, 0, 0),
       "deny",
       "sentinel-max-delta",
       "deny-pool=pass max-delta=deny min-confidence=pass "},
      {"memory",
       {},
       4095.5,
       0,
       grant_of("ram", 0, 0, 4096),
       "deny",
       "sentinel-max-delta",
       "deny-pool=pass max-delta=deny min-confidence=pass "},
      {"just enough confidence",
       {},
       5,
       0.9,
       grant_of("gpus-us-east", 0, 1, 0, 0.9),
       "allow",
       "sentinel-allow",
       "deny-pool=pass max-delta=pass min-confidence=pass "},
      {"too little confidence",
       {},
       5,
       0.9,
       grant_of("gpus-us-east", 0, 1, 0, 0.899999999),
       "quarantine",
       "sentinel-min-confidence",
       "deny-pool=pass max-delta=pass min-confidence=quarantine "},
      {"no confidence is an error",
       {},
       5,
       0,
       grant_of("gpus-us-east", 0, 1, 0, std::nullopt),
       "deny",
       "sentinel-min-confidence",
       "deny-pool=pass max-delta=pass min-confidence=error "},
      {"no such pool is an error",
       {},
       5,
       0,
       grant_of("nowhere", 0, 1, 0),
       "deny",
       "sentinel-max-delta",
       "deny-pool=pass max-delta=error min-confidence=pass "},
      {"less than nothing is an error",
       {},
       5,
       0,
       grant_of("gpus-us-east", 0, -1, 0),
       "deny",
       "sentinel-max-delta",
       "deny-pool=pass max-delta=error min-confidence=pass "},
      {"deny beats quarantine",
       {},
       5,
       0.9,
       grant_of("gpus-us-east", 0, 6, 0, 0.1),
       "deny",
       "sentinel-max-delta",
       "deny-pool=pass max-delta=deny min-confidence=quarantine "},
      {"the first of two denies is named",
       {"*"},
       5,
       0.9,
       grant_of("gpus-us-east", 0, 6, 0, 0.1),
       "deny",
       "sentinel-deny-pool",
       "deny-pool=deny max-delta=deny min-confidence=quarantine "},
      {"an error does not hide a deny",
       {"now*"},
       5,
       0,
       grant_of("nowhere", 0, 1, 0),
       "deny",
       "sentinel-deny-pool",
       "deny-pool=deny max-delta=error min-confidence=pass "},
      {"a demotion grants nothing",
       {"*"},
       0,
       1,
       PolicyQuestion{},
       "allow",
       "sentinel-allow",
       "deny-pool=pass max-delta=pass min-confidence=pass "},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Rules rules = sound_rules();
    rules.policy = {c.deny_pools, c.max_delta, c.min_confidence};
    PolicyDecision d = check_policy(rules, c.question);
    EXPECT_EQ(verdict_name(d.verdict), c.decision);
    EXPECT_EQ(d.policy_id, c.policy_id);
    EXPECT_EQ("sentinel-" + d.rule, c.policy_id);
    EXPECT_EQ(results(d), c.results);
    EXPECT_EQ(d.policy_version, rules_version(rules, ConfigKind::kPolicy));
  }
}

TEST(policy, a_pool_in_an_unknown_unit_is_an_error) {
  Rules rules = sound_rules();
  rules.allocation.pools[0].unit = "tpu";
  PolicyDecision d = check_policy(rules, grant_of("gpus-us-east", 0, 1, 0));
  EXPECT_EQ(d.verdict, Verdict::kDeny);
  EXPECT_EQ(d.policy_id, "sentinel-max-delta");
  EXPECT_EQ(d.rationale[1].result, "error");
}

TEST(policy, the_record_names_every_rule_with_its_reason) {
  Rules rules = sound_rules();
  rules.policy.deny_pools = {"gpus-*"};
  PolicyDecision d = check_policy(rules, grant_of("gpus-us-east", 0, 1, 0));
  EXPECT_EQ(canonical(d.to_json()),
            "{\"decision\":\"deny\",\"policyId\":\"sentinel-deny-pool\",\"policyVersion\":\"" +
                rules_version(rules, ConfigKind::kPolicy) +
                "\",\"rationale\":[{\"explanation\":\"pool gpus-us-east matches gpus-* of the deny "
                "list\",\"result\":\"deny\",\"rule\":\"deny-pool\"},"
                "{\"explanation\":\"1 gpu is within the largest delta of 5\",\"result\":\"pass\",\"rule\":\"max-delta\"},"
                "{\"explanation\":\"confidence 0.9 is not below "
                "0\",\"result\":\"pass\",\"rule\":\"min-confidence\"}],\"rule\":\"deny-pool\"}");
  EXPECT_EQ(d.explanation(), "pool gpus-us-east matches gpus-* of the deny list");
}

TEST(policy, the_version_follows_the_rules) {
  Rules rules = sound_rules();
  std::string before = check_policy(rules, grant_of("gpus-us-east", 0, 1, 0)).policy_version;
  rules.policy.max_delta = 6;
  EXPECT_NE(check_policy(rules, grant_of("gpus-us-east", 0, 1, 0)).policy_version, before);
}

}  // namespace
}  // namespace assay::processors
