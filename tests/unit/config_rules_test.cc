// Rules as config.v1 events: round trips, what is refused and how it is named, versions, globs.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "schemas/config.h"
#include "schemas/hash.h"
#include "schemas/json_parse.h"
#include "schemas/nearest.h"
#include "schemas/time.h"

namespace assay::schemas {

namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

Json parsed(std::string_view text) {
  auto json = parse_json(text);
  EXPECT_TRUE(json) << text;
  return json ? *json : Json();
}

std::vector<std::string> refusals(std::string_view body, ConfigKind kind) {
  Rules rules;
  std::vector<std::string> texts;
  for (const ConfigProblem& problem : apply_members(parsed(body), kind, rules)) texts.push_back(problem.text());
  if (!texts.empty()) {
    EXPECT_EQ(rules, Rules()) << "a refused body must change nothing";
  }
  return texts;
}

/// Some rules that differ from the defaults in every field; all of them sound.
Rules random_rules(uint64_t seed) {
  std::mt19937_64 random(seed);
  auto below = [&](int64_t n) { return static_cast<int64_t>(random() % static_cast<uint64_t>(n)); };
  auto word = [&] {
    std::string text = "é";
    for (int64_t i = below(8); i >= 0; --i) text.push_back(static_cast<char>('!' + below(90)));
    return text;
  };
  Rules rules;
  rules.scoring.grace_ms = below(100000000);
  rules.scoring.dedupe_ms = rules.scoring.grace_ms + below(100000000);
  for (int64_t i = below(5); i > 0; --i) {
    const double low = static_cast<double>(below(2000000) - 1000000) / 7;
    rules.scoring.metrics.push_back({word(), std::string(window_name(kWindows[below(3)])), word(), below(2) == 0, low,
                                     low + static_cast<double>(1 + below(1000)) / 3, static_cast<double>(below(50)) / 10});
  }
  rules.promotion = {0.5 + static_cast<double>(below(50)) / 100, static_cast<double>(below(50)) / 100, 1 + below(50),
                     below(1000000000), below(10)};
  for (int64_t i = below(3); i > 0; --i) rules.policy.deny_pools.push_back(word());
  rules.policy.max_delta = static_cast<double>(below(100)) / 8;
  rules.policy.min_confidence = static_cast<double>(below(100)) / 100;
  rules.allocation.grant = {"pool-0", 1 + below(9), 1 + below(9), 1 + below(9), below(9) - 4};
  const char* units[] = {"gpu", "cpu", "memoryMB"};
  for (int64_t i = 0, n = below(4); i < n; ++i) {
    Pool pool{"pool-" + std::to_string(i), units[below(3)], below(int64_t{1} << 53), {}};
    for (int64_t d = below(4); d > 0; --d) pool.quotas[word()] = below(1000);
    rules.allocation.pools.push_back(pool);
  }
  for (int64_t i = below(3); i > 0; --i)
    rules.keys.signers.push_back(
        {"signer-" + std::to_string(i), to_base64(std::string(32, static_cast<char>('a' + i))), "ed25519"});
  return rules;
}

TEST(ConfigRules, DefaultsAreSoundAndGrantSomething) {
  EXPECT_THAT(validate(Rules()), IsEmpty());
  EXPECT_THAT(validate(default_rules()), IsEmpty());
  const AllocationRules allocation = default_rules().allocation;
  ASSERT_FALSE(allocation.pools.empty());
  EXPECT_EQ(allocation.pools[0].name, allocation.grant.pool);
  EXPECT_GE(allocation.pools[0].capacity, allocation.grant.gpu);
  EXPECT_LE(static_cast<double>(allocation.grant.gpu), default_rules().policy.max_delta);
}

TEST(ConfigRules, EventsCarryEveryFieldAndFoldInAnyOrder) {
  for (uint64_t seed = 1; seed <= 300; ++seed) {
    const Rules rules = random_rules(seed);
    ASSERT_THAT(validate(rules), IsEmpty()) << "seed " << seed;
    std::vector<ConfigKind> kinds(std::begin(kConfigKinds), std::end(kConfigKinds));
    std::shuffle(kinds.begin(), kinds.end(), std::mt19937_64(seed));
    Rules folded = random_rules(seed + 1000);  // what was valid before must leave no trace
    for (ConfigKind kind : kinds) {
      auto got = fold_config_event(encode_config_event(rules, kind), folded);
      ASSERT_TRUE(got) << "seed " << seed << ": " << got.error().message;
      EXPECT_EQ(*got, kind);
    }
    ASSERT_EQ(folded, rules) << "seed " << seed;
    for (ConfigKind kind : kConfigKinds) EXPECT_EQ(rules_version(folded, kind), rules_version(rules, kind));
  }
}

TEST(ConfigRules, AnEventIsCanonicalAndNamesItsVersion) {
  const std::string body = "{\"cooldown\":\"" + format_duration_ms(24 * kHourMs) +
                           "\",\"enter\":0.85,\"leave\":0.8,\"max_per_week\":2,\"min_samples\":5}";
  const std::string version = to_hex(as_bytes(sha256(body))).substr(0, 12);
  EXPECT_EQ(rules_version(Rules(), ConfigKind::kPromotion), version);
  EXPECT_EQ(encode_config_event(Rules(), ConfigKind::kPromotion),
            "{\"body\":" + body + ",\"kind\":\"promotion\",\"version\":\"" + version + "\"}");
}

TEST(ConfigRules, VersionsChangeWithEachFieldOfTheirKindOnly) {
  const Rules base = default_rules();
  std::vector<std::pair<ConfigKind, Rules>> changed;
  auto add = [&](ConfigKind kind, auto change) {
    Rules rules = base;
    change(rules);
    changed.emplace_back(kind, rules);
  };
  add(ConfigKind::kScoring, [](Rules& r) { r.scoring.grace_ms += 1; });
  add(ConfigKind::kScoring, [](Rules& r) { r.scoring.dedupe_ms += 1; });
  add(ConfigKind::kScoring, [](Rules& r) { r.scoring.metrics.push_back({}); });
  add(ConfigKind::kPromotion, [](Rules& r) { r.promotion.enter = 0.86; });
  add(ConfigKind::kPromotion, [](Rules& r) { r.promotion.leave = 0.81; });
  add(ConfigKind::kPromotion, [](Rules& r) { r.promotion.min_samples = 6; });
  add(ConfigKind::kPromotion, [](Rules& r) { r.promotion.cooldown_ms += 1; });
  add(ConfigKind::kPromotion, [](Rules& r) { r.promotion.max_per_week = 3; });
  add(ConfigKind::kPolicy, [](Rules& r) { r.policy.deny_pools = {"x*"}; });
  add(ConfigKind::kPolicy, [](Rules& r) { r.policy.max_delta = 6; });
  add(ConfigKind::kPolicy, [](Rules& r) { r.policy.min_confidence = 0.1; });
  add(ConfigKind::kAllocation, [](Rules& r) { r.allocation.grant.priority = 1; });
  add(ConfigKind::kAllocation, [](Rules& r) { r.allocation.grant.cpu = 1; });
  add(ConfigKind::kAllocation, [](Rules& r) { r.allocation.grant.memory_mb = 1; });
  add(ConfigKind::kAllocation, [](Rules& r) { r.allocation.pools[0].quotas["ops"] = 1; });
  add(ConfigKind::kKeys, [](Rules& r) { r.keys.signers.push_back({"a", "b", "ed25519"}); });
  for (const auto& [kind, rules] : changed)
    for (ConfigKind other : kConfigKinds)
      EXPECT_EQ(rules_version(rules, other) != rules_version(base, other), other == kind) << config_kind_name(kind);
}

TEST(ConfigRules, AnEditedOrForeignEventIsCorruptAndChangesNothing) {
  const std::string event = encode_config_event(default_rules(), ConfigKind::kPromotion);
  std::string edited = event;
  edited.replace(edited.find("0.85"), 4, "0.15");
  for (const std::string& value :
       {edited, std::string("{}"), std::string("not json"), std::string(R"({"kind":"scoring"})"),
        std::string(R"({"kind":"nothing","version":"","body":{}})"), event.substr(0, event.size() - 1)}) {
    Rules rules = random_rules(7);
    auto folded = fold_config_event(value, rules);
    ASSERT_FALSE(folded) << value;
    EXPECT_EQ(folded.error().code, Errc::kCorrupt);
    EXPECT_EQ(rules, random_rules(7));
  }
  Rules rules;
  EXPECT_THAT(fold_config_event(edited, rules).error().message, HasSubstr("version"));
}

TEST(ConfigRules, AnUnsoundEventIsCorruptEvenWithItsVersion) {
  Rules unsound;
  unsound.promotion.leave = 0.9;
  Rules rules;
  auto folded = fold_config_event(encode_config_event(unsound, ConfigKind::kPromotion), rules);
  ASSERT_FALSE(folded);
  EXPECT_THAT(folded.error().message, HasSubstr("promotion.leave"));
}

TEST(ConfigRules, EveryUnknownMemberIsNamedWithItsNearest) {
  EXPECT_THAT(
      refusals(R"({"grcae":"1h","metric":[{"wieght":1,"low":0},{"quantile":3}]})", ConfigKind::kScoring),
      ElementsAre("scoring.metric[0].wieght: there is no such key; did you mean \"weight\"?",
                  "scoring.metric[1].quantile: there is no such key; known: division, window, metric, direction, low, high, weight",
                  "scoring.grcae: there is no such key; did you mean \"grace\"?"));
  EXPECT_THAT(refusals(R"({"max_per_weeks":1})", ConfigKind::kPromotion),
              ElementsAre("promotion.max_per_weeks: there is no such key; did you mean \"max_per_week\"?"));
  EXPECT_THAT(refusals(R"({"grant":{"memory_mb":1},"pools":[]})", ConfigKind::kAllocation),
              ElementsAre("allocation.grant.memory_mb: there is no such key; did you mean \"memoryMB\"?",
                          "allocation.pools: there is no such key; did you mean \"pool\"?"));
}

TEST(ConfigRules, EveryMistypedMemberIsNamed) {
  EXPECT_THAT(refusals(R"({"grace":2700,"dedupe":"1 day","metric":{"low":1}})", ConfigKind::kScoring),
              ElementsAre("scoring.grace: must be a duration in quotes, such as \"45m\", is a number",
                          "scoring.dedupe: must be a count and one unit of ms, s, m, h or d, such as \"45m\"; is \"1 day\"",
                          "scoring.metric: must be an array of tables ([[scoring.metric]]), is a table"));
  EXPECT_THAT(
      refusals(R"({"metric":[{"direction":"sideways","low":"0","division":7},5]})", ConfigKind::kScoring),
      ElementsAre("scoring.metric[0].division: must be a string, is a number",
                  "scoring.metric[0].direction: must be \"up\" or \"down\", is \"sideways\"",
                  "scoring.metric[0].low: must be a number, is a string", "scoring.metric[1]: must be a table, is a number"));
  EXPECT_THAT(refusals(R"({"min_samples":2.5,"max_per_week":1e300,"enter":true})", ConfigKind::kPromotion),
              ElementsAre("promotion.enter: must be a number, is a boolean",
                          "promotion.min_samples: must be a whole number within 2^53, is 2.5",
                          "promotion.max_per_week: must be a whole number within 2^53, is 1e+300"));
  EXPECT_THAT(refusals(R"({"deny_pools":["a",1]})", ConfigKind::kPolicy),
              ElementsAre("policy.deny_pools: must be an array of strings; one of them, is a number"));
  EXPECT_THAT(refusals(R"({"grant":[],"pool":[{"quotas":{"ops":"many"}}]})", ConfigKind::kAllocation),
              ElementsAre("allocation.grant: must be a table, is an array",
                          "allocation.pool[0].quotas.ops: must be a whole number, is a string"));
  EXPECT_THAT(refusals("[]", ConfigKind::kKeys), ElementsAre("keys: must be a table, is an array"));
}

TEST(ConfigRules, MembersThatAreAbsentStay) {
  Rules rules = random_rules(3);
  Rules expected = rules;
  expected.promotion.enter = 0.99;
  ASSERT_TRUE(apply_json(parsed(R"({"enter":0.99})"), ConfigKind::kPromotion, rules));
  EXPECT_EQ(rules, expected);
  ASSERT_TRUE(apply_json(parsed(R"({"metric":[{"metric":"a"}]})"), ConfigKind::kScoring, rules));
  EXPECT_EQ(rules.scoring.metrics, std::vector<MetricRule>{{.metric = "a"}});
}

TEST(ConfigRules, EveryUnsoundValueIsFoundAtOnce) {
  Rules rules = default_rules();
  rules.scoring = {
      .grace_ms = 2 * kDayMs, .dedupe_ms = kDayMs, .metrics = {{.window = "2h"}, {.low = 1, .high = 1}, {.weight = -1}}};
  rules.promotion = {.enter = 0.5, .leave = 0.7, .min_samples = 0, .cooldown_ms = -1, .max_per_week = -1};
  rules.policy = {.deny_pools = {""}, .max_delta = -1, .min_confidence = 1.5};
  rules.allocation.grant.pool = "gpu-us-east";
  rules.allocation.grant.cpu = -1;
  rules.allocation.pools[1].name = "gpus-us-east";
  rules.allocation.pools[1].unit = "disk";
  rules.allocation.pools[1].quotas["ops"] = -2;
  rules.keys.signers = {{"", "AAAA", "rsa"}};
  std::vector<std::string> keys;
  for (const ConfigProblem& problem : find_problems(rules)) keys.push_back(problem.key);
  EXPECT_THAT(keys, ElementsAre("scoring.dedupe", "scoring.metric[0].window", "scoring.metric[1].high", "scoring.metric[2].weight",
                                "promotion.leave", "promotion.min_samples", "promotion.cooldown", "promotion.max_per_week",
                                "policy.deny_pools", "policy.max_delta", "policy.min_confidence", "allocation.grant.cpu",
                                "allocation.pool[1].name", "allocation.pool[1].unit", "allocation.pool[1].quotas.ops",
                                "allocation.grant.pool", "keys.signer[0].signer_id", "keys.signer[0].algorithm",
                                "keys.signer[0].public_key"));
  EXPECT_THAT(validate(rules)[0],
              HasSubstr("scoring.dedupe: must not be less than scoring.grace (" + format_duration_ms(2 * kDayMs)));
}

TEST(ConfigRules, NotFiniteNumbersAreUnsound) {
  const double nan = std::numeric_limits<double>::quiet_NaN(), inf = std::numeric_limits<double>::infinity();
  for (double bad : {nan, inf, -inf}) {
    Rules rules;
    rules.scoring.metrics = {{.low = bad}, {.high = bad}, {.weight = bad}};
    rules.promotion.enter = bad;
    rules.policy.max_delta = bad;
    EXPECT_GE(validate(rules).size(), 5u) << bad;
  }
}

TEST(ConfigRules, AGrantOfNothingIsUnsound) {
  Rules rules = default_rules();
  rules.allocation.grant = {.pool = "cpu-highmem", .cpu = 0, .gpu = 3};
  EXPECT_THAT(validate(rules), ElementsAre(HasSubstr("allocation.grant.cpu: must be 1 or more")));
}

TEST(Glob, MatchesAsAShellDoes) {
  EXPECT_TRUE(glob_match("*", ""));
  EXPECT_TRUE(glob_match("*_latency_ms", "p99_latency_ms"));
  EXPECT_FALSE(glob_match("*_latency_ms", "p99_latency_ms2"));
  EXPECT_TRUE(glob_match("a*b*c", "axxbyybzzc"));
  EXPECT_FALSE(glob_match("a*b*c", "axxcyyb"));
  EXPECT_TRUE(glob_match("?b", "ab"));
  EXPECT_FALSE(glob_match("?b", "b"));
  EXPECT_TRUE(glob_match("[a]", "[a]"));
  EXPECT_FALSE(glob_match("", "a"));
}

// The definition, by recursion.
bool glob_by_definition(std::string_view p, std::string_view t) {
  if (p.empty()) return t.empty();
  if (p[0] == '*') return glob_by_definition(p.substr(1), t) || (!t.empty() && glob_by_definition(p, t.substr(1)));
  return !t.empty() && (p[0] == '?' || p[0] == t[0]) && glob_by_definition(p.substr(1), t.substr(1));
}

TEST(Glob, AgreesWithItsDefinition) {
  std::mt19937_64 random(11);
  for (int i = 0; i < 50000; ++i) {
    std::string pattern, text;
    for (uint64_t n = random() % 7; n > 0; --n) pattern.push_back("ab*?"[random() % 4]);
    for (uint64_t n = random() % 9; n > 0; --n) text.push_back("ab"[random() % 2]);
    ASSERT_EQ(glob_match(pattern, text), glob_by_definition(pattern, text)) << pattern << " on " << text;
  }
}

TEST(Glob, ManyStarsStayCheap) {
  std::string pattern, text(20000, 'a');
  for (int i = 0; i < 1000; ++i) pattern += "*a";
  EXPECT_TRUE(glob_match(pattern, text));
  EXPECT_FALSE(glob_match(pattern + "b", text));
}

TEST(Nearest, CountsEditsAndForgivesSwaps) {
  EXPECT_EQ(edit_distance("grace", "grace"), 0u);
  EXPECT_EQ(edit_distance("grcae", "grace"), 1u);
  EXPECT_EQ(edit_distance("", "abc"), 3u);
  EXPECT_EQ(edit_distance("kitten", "sitting"), 3u);
  EXPECT_EQ(edit_distance("Memory_MB", "memory_mb"), 0u);
  const std::string_view known[] = {"brokers", "properties"};
  EXPECT_EQ(nearest_word("broker", known), "brokers");
  EXPECT_EQ(nearest_word("zzzzzz", known), "");
}

}  // namespace
}  // namespace assay::schemas
