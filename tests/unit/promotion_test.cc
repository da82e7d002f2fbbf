// Promotion: every rule at its edge, and the defects of the system before it.
#include "processors/promotion.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/decision_driver.h"

namespace assay::processors {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

struct S {
  std::string window = "1h";
  double end = 0;  // hours since the epoch
  Json score = 0.9;
  Json lower = 0.88;
  int64_t samples = 10;
  Json confidence = 0.97;
  std::string agent = "agent-1";
};

class Bench {
 public:
  Bench() {
    rules.allocation.pools = {Pool{"gpus-us-east", "gpu", 10, {}}};
    configure(ConfigKind::kAllocation);
  }

  void configure(ConfigKind kind) { EXPECT_THAT(driver.feed(config_record(rules, kind, next_++)).dead_letters, IsEmpty()); }

  static std::string value(const S& s) {
    return canonical(Json::object()
                         .set("agentId", s.agent)
                         .set("divisionId", "div-a")
                         .set("window", s.window)
                         .set("windowEnd", hour(s.end))
                         .set("score", s.score)
                         .set("lower", s.lower)
                         .set("upper", s.score)
                         .set("confidence", s.confidence)
                         .set("samples", s.samples)
                         .set("components", Json::array())
                         .set("configVersion", "0123456789ab"));
  }
  Outputs feed(const S& s) {
    last_id = test_id(next_++);
    return driver.feed({Topic::kScores, s.agent, value(s), last_id});
  }
  Outputs raw(std::optional<std::string> key, std::optional<std::string> text) {
    last_id = test_id(next_++);
    return driver.feed({Topic::kScores, std::move(key), std::move(text), last_id});
  }

  /// The closed windows of one hour: 24h, then 1h. Returns what was decided, in a few words.
  std::string at(double end, Json score, Json lower = 0.88, int64_t samples = 10) {
    EXPECT_THAT(feed({"24h", end, score, lower, samples}).records, IsEmpty());
    return told(feed({"1h", end, score, lower, samples}));
  }
  /// A record that takes the place of another in that window.
  Outputs correct(const S& s, const Json& corrects) { return raw(s.agent, canonical(parsed(value(s)).set("corrects", corrects))); }
  static std::string told(const Outputs& outputs) {
    std::string text;
    for (const Output& o : outputs.records) {
      if (o.topic != Topic::kPromotions) continue;
      Json event = parsed(o.value);
      text += std::string(event.string_or("action", "")) + ":" + std::string(event.string_or("status", ""));
      if (const Json* by = event.find("evidence")->find("stoppedBy"))
        text += ":" + std::string(event.find("evidence")->string_or("wanted", "")) + ":" + by->as_string();
    }
    return text;
  }
  /// Three good hours ending at `end`.
  std::string promote(double end) {
    at(end - 2, 0.9);
    at(end - 1, 0.9);
    return at(end, 0.9);
  }
  std::string demote(double end) {
    at(end - 2, 0.5);
    at(end - 1, 0.5);
    return at(end, 0.5);
  }

  Rules rules;
  Driver<Promotion> driver;
  Id last_id;

 private:
  uint64_t next_ = 0;
};

constexpr char kPromoted[] = "promote:applied";
constexpr char kDemoted[] = "demote:applied";

TEST(promotion, needs_three_closed_hours_in_a_row) {
  Bench b;
  EXPECT_EQ(b.at(10, 0.9), "");
  EXPECT_EQ(b.at(11, 0.9), "");
  EXPECT_EQ(b.at(12, 0.9), kPromoted);
}

TEST(promotion, a_missing_hour_breaks_the_row) {
  Bench b;
  b.at(10, 0.9);
  b.at(11, 0.9);
  EXPECT_EQ(b.at(13, 0.9), "");
  EXPECT_EQ(b.at(14, 0.9), "");
  EXPECT_EQ(b.at(15, 0.9), kPromoted);
}

TEST(promotion, each_condition_at_its_edge) {
  struct Hour {
    Json score;
    int64_t samples;
  };
  struct Case {
    const char* name;
    Hour hours[3];
    Json lower;
    bool promotes;
  };
  const Json null;
  const Case kCases[] = {
      {"exactly enter, exactly min_samples", {{0.85, 5}, {0.85, 5}, {0.85, 5}}, 0.85, true},
      {"first below", {{0.849999999, 5}, {0.9, 5}, {0.9, 5}}, 0.9, false},
      {"second below", {{0.9, 5}, {0.849999999, 5}, {0.9, 5}}, 0.9, false},
      {"third below", {{0.9, 5}, {0.9, 5}, {0.849999999, 5}}, 0.9, false},
      {"first too few", {{0.9, 4}, {0.9, 5}, {0.9, 5}}, 0.9, false},
      {"second too few", {{0.9, 5}, {0.9, 4}, {0.9, 5}}, 0.9, false},
      {"third too few", {{0.9, 5}, {0.9, 5}, {0.9, 4}}, 0.9, false},
      {"first null", {{null, 5}, {0.9, 5}, {0.9, 5}}, 0.9, false},
      {"second null", {{0.9, 5}, {null, 5}, {0.9, 5}}, 0.9, false},
      {"third null", {{0.9, 5}, {0.9, 5}, {null, 5}}, 0.9, false},
      {"24h lower below", {{0.9, 5}, {0.9, 5}, {0.9, 5}}, 0.849999999, false},
      {"24h lower null", {{0.9, 5}, {0.9, 5}, {0.9, 5}}, null, false},
      {"no 24h at E, a good one before", {{0.9, 5}, {0.9, 5}, {0.9, 5}}, "none", false},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Bench b;
    std::string told;
    for (int i = 0; i < 3; ++i) {
      bool last = i == 2;
      if (!(last && c.lower.is_string())) b.feed({"24h", 10.0 + i, 0.9, last ? c.lower : Json(0.9), 50});
      told = b.told(b.feed({"1h", 10.0 + i, c.hours[i].score, 0.1, c.hours[i].samples}));
      if (!last) {
        EXPECT_EQ(told, "");
      }
    }
    EXPECT_EQ(told, c.promotes ? kPromoted : "");
  }
}

TEST(promotion, only_the_lower_bound_of_24h_counts_and_seven_days_count_nothing) {
  Bench b;
  for (int e = 10; e <= 12; ++e) {
    EXPECT_EQ(b.told(b.feed({"7d", static_cast<double>(e), 0.1, 0.0})), "");
    b.feed({"24h", static_cast<double>(e), 0.1, 0.9});  // its score, and its samples, do not matter
    EXPECT_EQ(b.told(b.feed({"1h", static_cast<double>(e), 0.9, 0.0})), e == 12 ? kPromoted : "");
  }
}

TEST(promotion, demotes_when_three_hours_are_below_leave) {
  struct Case {
    const char* name;
    Json scores[3];
    bool demotes;
  };
  const Json null;
  const Case kCases[] = {
      {"just below", {0.799999999, 0.799999999, 0.799999999}, true},
      {"first at leave", {0.8, 0.5, 0.5}, false},
      {"second at leave", {0.5, 0.8, 0.5}, false},
      {"third at leave", {0.5, 0.5, 0.8}, false},
      {"a null is not low", {0.5, null, 0.5}, false},
      {"all null", {null, null, null}, false},
      {"between the lines nothing happens", {0.82, 0.82, 0.82}, false},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.name);
    Bench b;
    ASSERT_EQ(b.promote(12), kPromoted);
    std::string told;
    for (int i = 0; i < 3; ++i) told = b.told(b.feed({"1h", 100.0 + i, c.scores[i], 0.1, 10}));
    EXPECT_EQ(told, c.demotes ? kDemoted : "");
  }
}

TEST(promotion, min_samples_and_the_24h_bound_do_not_protect_from_demotion) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  b.feed({"1h", 100, 0.5, 0.1, 1});
  b.feed({"1h", 101, 0.5, 0.1, 1});
  EXPECT_EQ(b.told(b.feed({"1h", 102, 0.5, 0.1, 1})), kDemoted);  // no 24h record at all
}

TEST(promotion, a_missing_hour_delays_a_demotion) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  b.at(100, 0.5);
  b.at(101, 0.5);
  EXPECT_EQ(b.at(103, 0.5), "");
  EXPECT_EQ(b.at(104, 0.5), "");
  EXPECT_EQ(b.at(105, 0.5), kDemoted);
}

TEST(promotion, who_is_not_promoted_cannot_be_demoted) {
  Bench b;
  EXPECT_EQ(b.demote(12), "");
  EXPECT_EQ(b.at(13, 0.1), "");
}

// The defect: every report over the line promoted again.
TEST(promotion, defect_every_report_over_the_line_promoting_again) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  for (int e = 13; e < 500; ++e) EXPECT_EQ(b.at(e, 0.95, 0.94), "") << e;
}

// The defect: a score that no longer reached the line was promoted on an older one.
TEST(promotion, the_24h_bound_of_an_older_hour_does_not_count) {
  Bench b;
  b.at(10, 0.9);
  b.at(11, 0.9);
  EXPECT_EQ(b.told(b.feed({"1h", 12, 0.9, 0.88})), "");
  EXPECT_EQ(b.at(13, 0.9), kPromoted);
}

TEST(promotion, cooldown_ends_exactly_after_its_length) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  EXPECT_EQ(b.demote(35), "hold:rejected:demote:cooldown");  // 23 h after
  EXPECT_EQ(b.at(36, 0.5), kDemoted);                        // 24 h after
}

TEST(promotion, cooldown_counts_from_the_last_applied_decision_not_from_a_hold) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  EXPECT_EQ(b.demote(20), "hold:rejected:demote:cooldown");
  for (int e = 21; e < 36; ++e) EXPECT_EQ(b.at(e, 0.5), "") << e;
  EXPECT_EQ(b.at(36, 0.5), kDemoted);
}

TEST(promotion, a_cooldown_of_nothing_never_stops) {
  Bench b;
  b.rules.promotion.cooldown_ms = 0;
  b.configure(ConfigKind::kPromotion);
  ASSERT_EQ(b.promote(12), kPromoted);
  EXPECT_EQ(b.demote(15), kDemoted);
}

TEST(promotion, a_cooldown_longer_than_the_week_is_kept) {
  Bench b;
  b.rules.promotion.cooldown_ms = 240 * kHourMs;
  b.configure(ConfigKind::kPromotion);
  ASSERT_EQ(b.promote(12), kPromoted);
  EXPECT_EQ(b.demote(251), "hold:rejected:demote:cooldown");
  EXPECT_EQ(b.at(252, 0.5), kDemoted);
}

TEST(promotion, rate_limit_counts_applied_decisions_in_seven_days_half_open) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  ASSERT_EQ(b.demote(40), kDemoted);
  EXPECT_EQ(b.promote(12 + 167), "hold:rejected:promote:rate-limit");  // both within (E-7d, E]
  EXPECT_EQ(b.at(12 + 168, 0.9), kPromoted);                           // the first is exactly 7 d old and out
}

TEST(promotion, holds_do_not_use_up_the_rate) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  for (double e : {16.0, 20.0, 24.0, 28.0}) {
    EXPECT_EQ(b.demote(e), "hold:rejected:demote:cooldown");
    EXPECT_EQ(b.at(e + 1, 0.9), "");
  }
  EXPECT_EQ(b.demote(40), kDemoted);
}

TEST(promotion, a_rate_of_zero_stops_everything) {
  Bench b;
  b.rules.promotion.max_per_week = 0;
  b.configure(ConfigKind::kPromotion);
  EXPECT_EQ(b.promote(12), "hold:rejected:promote:rate-limit");
  for (int e = 13; e < 300; ++e) EXPECT_EQ(b.at(e, 0.9), "");
}

TEST(promotion, the_gate_stands_before_the_cooldown_and_the_cooldown_before_the_rate) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  ASSERT_EQ(b.demote(40), kDemoted);
  b.rules.policy.deny_pools = {"gpus-*"};
  b.configure(ConfigKind::kPolicy);
  EXPECT_EQ(b.promote(50), "hold:rejected:promote:sentinel-deny-pool");
  b.rules.policy.deny_pools = {};
  b.configure(ConfigKind::kPolicy);
  EXPECT_EQ(b.at(51, 0.9), "hold:rejected:promote:cooldown");
  for (int e = 52; e < 64; ++e) EXPECT_EQ(b.at(e, 0.9), "") << e;
  EXPECT_EQ(b.at(64, 0.9), "hold:rejected:promote:rate-limit");
}

TEST(promotion, a_hold_is_told_once_and_again_after_the_rule_fell_silent) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  EXPECT_EQ(b.demote(16), "hold:rejected:demote:cooldown");
  EXPECT_EQ(b.at(17, 0.5), "");
  EXPECT_EQ(b.at(18, 0.82), "");  // the rule does not fire
  EXPECT_EQ(b.at(19, 0.5), "");
  EXPECT_EQ(b.at(20, 0.5), "");
  EXPECT_EQ(b.at(21, 0.5), "hold:rejected:demote:cooldown");
}

TEST(promotion, a_demotion_is_not_stopped_by_rules_about_grants) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  b.rules.policy = {{"*"}, 0, 1};
  b.configure(ConfigKind::kPolicy);
  EXPECT_EQ(b.demote(100), kDemoted);
}

TEST(promotion, the_gate_quarantines_and_fails_closed) {
  Bench b;
  b.rules.policy.min_confidence = 0.98;
  b.configure(ConfigKind::kPolicy);
  EXPECT_EQ(b.promote(12), "hold:rejected:promote:sentinel-min-confidence");
  b.rules.policy.min_confidence = 0.97;
  b.configure(ConfigKind::kPolicy);
  b.rules.allocation.grant.pool = "nowhere";
  b.rules.allocation.pools = {};
  b.configure(ConfigKind::kAllocation);
  EXPECT_EQ(b.at(13, 0.9), "hold:rejected:promote:sentinel-max-delta");
  b.rules.allocation = {Grant{}, {Pool{"gpus-us-east", "gpu", 10, {}}}};
  b.configure(ConfigKind::kAllocation);
  EXPECT_EQ(b.at(14, 0.9), kPromoted);
}

TEST(promotion, new_rules_speak_at_the_next_closed_hour) {
  Bench b;
  b.at(10, 0.8);
  b.at(11, 0.8);
  EXPECT_EQ(b.at(12, 0.8), "");
  b.rules.promotion.enter = 0.8;
  b.configure(ConfigKind::kPromotion);
  EXPECT_EQ(b.at(13, 0.8), kPromoted);
}

TEST(promotion, agents_do_not_see_one_another) {
  Bench b;
  for (double e : {10.0, 11.0, 12.0}) {
    for (const char* agent : {"a", "b"}) {
      b.feed({"24h", e, 0.9, 0.88, 10, 0.97, agent});
      EXPECT_EQ(b.told(b.feed({"1h", e, *agent == 'a' ? 0.9 : 0.1, 0.88, 10, 0.97, agent})),
                *agent == 'a' && e == 12 ? kPromoted : "");
    }
  }
}

TEST(promotion, the_event_carries_its_whole_reason) {
  Bench b;
  b.feed({"24h", 10, 0.9, 0.87});
  b.feed({"1h", 10, 0.91, 0.1, 7});
  std::string first = b.last_id.hex();
  b.feed({"24h", 11, 0.9, 0.87});
  b.feed({"1h", 11, 0.92, 0.1, 8});
  std::string second = b.last_id.hex();
  b.feed({"24h", 12, 0.9, 0.87});
  std::string day = b.last_id.hex();
  Outputs out = b.feed({"1h", 12, 0.93, 0.1, 9, 0.5});
  std::string cause = b.last_id.hex();
  ASSERT_EQ(out.records.size(), 3u);
  const Output& event = out.records[0];
  EXPECT_EQ(event.topic, Topic::kPromotions);
  EXPECT_EQ(event.key, "agent-1");
  EXPECT_EQ(event.id, derived_id(b.last_id, "promotion", 0));
  EXPECT_EQ(event.cause, b.last_id);
  std::string version = rules_version(b.rules, ConfigKind::kPolicy);
  std::string policy = "{\"decision\":\"allow\",\"policyId\":\"sentinel-allow\",\"policyVersion\":\"" + version +
                       "\",\"rationale\":[{\"explanation\":\"pool gpus-us-east is not on the deny "
                       "list\",\"result\":\"pass\",\"rule\":\"deny-pool\"},{\"explanation\":"
                       "\"1 gpu is within the largest delta of "
                       "5\",\"result\":\"pass\",\"rule\":\"max-delta\"},{\"explanation\":\"confidence 0.5 is not below 0\","
                       "\"result\":\"pass\",\"rule\":\"min-confidence\"}],\"rule\":\"allow\"}";
  auto score = [](const std::string& id, const std::string& value, int samples, const std::string& end) {
    return "{\"id\":\"" + id + "\",\"samples\":" + std::to_string(samples) + ",\"score\":" + value +
           ",\"windowEnd\":\"1970-01-01T" + end + ":00:00.000Z\"}";
  };
  std::string expected =
      "{\"action\":\"promote\",\"confidence\":0.5,\"divisionId\":\"div-a\",\"entityId\":\"agent-1\",\"evidence\":{\"lower24h\":0."
      "87,"
      "\"lower24hId\":\"" +
      day + "\",\"scores\":[" + score(first, "0.91", 7, "10") + "," + score(second, "0.92", 8, "11") + "," +
      score(cause, "0.93", 9, "12") + "]},\"id\":\"" + event.id.hex() + "\",\"policy\":" + policy +
      ",\"rationale\":\"Promoted: the scores of three closed hours and the 24h lower bound are at least 0.85.\","
      "\"requestedBy\":\"service:eval-engine\",\"score\":0.93,\"status\":\"applied\",\"ts\":\"1970-01-01T12:00:00.000Z\"}";
  EXPECT_EQ(event.value, expected);

  // The audit of the same record: what the gate answered, then what was done; in the same outputs, so in the same transaction.
  Json gate = parsed(out.records[1].value), applied = parsed(out.records[2].value);
  EXPECT_EQ(out.records[1].topic, Topic::kAudit);
  EXPECT_EQ(out.records[1].id, derived_id(b.last_id, "promotion", 1));
  EXPECT_EQ(out.records[2].id, derived_id(b.last_id, "promotion", 2));
  EXPECT_EQ(gate.string_or("eventType", ""), "policy.decision");
  EXPECT_EQ(applied.string_or("eventType", ""), "promotion.applied");
  for (const Json* audit : {&gate, &applied}) {
    EXPECT_EQ(audit->string_or("ts", ""), "1970-01-01T12:00:00.000Z");
    EXPECT_EQ(audit->string_or("cause", ""), cause);
    EXPECT_EQ(canonical(*audit->find("source")), "{\"id\":\"" + cause + "\",\"topic\":\"eval.scores.v1\"}");
  }
  EXPECT_EQ(canonical(*gate.find("data")->find("policy")), policy);
  EXPECT_EQ(gate.find("data")->string_or("requestId", ""), event.id.hex());
  EXPECT_EQ(canonical(*applied.find("data")), expected);
}

// The defect: the audit was written after the state, so a crash between the two lost it.
TEST(promotion, defect_audit_written_after_the_state) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  b.feed({"1h", 13, 0.5});
  b.feed({"1h", 14, 0.5});
  Outputs out = b.feed({"1h", 15, 0.5});
  std::vector<std::string> kinds;
  for (const Output& o : out.records)
    kinds.emplace_back(o.topic == Topic::kAudit ? parsed(o.value).string_or("eventType", "") : topic_spec(o.topic).name);
  EXPECT_THAT(kinds, ElementsAre("promotion.events.v1", "policy.decision", "promotion.hold"));
}

// The defect: a rejected request was approved later. A hold is final; what comes later is a request of its own.
TEST(promotion, defect_a_rejected_request_approved_later) {
  Bench b;
  b.rules.policy.deny_pools = {"*"};
  b.configure(ConfigKind::kPolicy);
  b.at(10, 0.9);
  b.at(11, 0.9);
  b.feed({"24h", 12, 0.9});
  Json held = parsed(b.feed({"1h", 12, 0.9}).records[0].value);
  EXPECT_EQ(held.string_or("status", ""), "rejected");
  b.rules.policy.deny_pools = {};
  EXPECT_THAT(b.driver.feed(config_record(b.rules, ConfigKind::kPolicy, 77)).records,
              IsEmpty());  // nothing is approved by a rule that changes
  b.feed({"24h", 13, 0.9});
  Json applied = parsed(b.feed({"1h", 13, 0.9}).records[0].value);
  EXPECT_EQ(applied.string_or("status", ""), "applied");
  EXPECT_NE(applied.string_or("id", ""), held.string_or("id", ""));
}

// The defect: two promotions without a key collided. Ids derive from causes, so two of them are never one.
TEST(promotion, defect_two_promotions_without_a_key_colliding) {
  Bench b;
  std::set<Id> ids;
  size_t events = 0;
  for (int agent = 0; agent < 20; ++agent)
    for (double e : {10.0, 11.0, 12.0}) {
      b.feed({"24h", e, 0.9, 0.88, 10, 0.97, "agent-" + std::to_string(agent)});
      for (const Output& o : b.feed({"1h", e, 0.9, 0.88, 10, 0.97, "agent-" + std::to_string(agent)}).records) {
        ids.insert(o.id);
        ++events;
      }
    }
  EXPECT_EQ(events, 60u);
  EXPECT_EQ(ids.size(), events);
}

// The defect: the list of policies was always empty, so everything was allowed. Here the version in every decision names the
// rules that were asked, and a rule that was folded is one that stops.
TEST(promotion, defect_a_policy_list_that_is_always_empty) {
  Bench b;
  b.rules.policy.deny_pools = {"gpus-us-east"};
  b.configure(ConfigKind::kPolicy);
  b.driver.restart();
  b.at(10, 0.9);
  b.at(11, 0.9);
  b.feed({"24h", 12, 0.9});
  Json event = parsed(b.feed({"1h", 12, 0.9}).records.at(0).value);
  EXPECT_EQ(event.find("policy")->string_or("policyVersion", ""), rules_version(b.rules, ConfigKind::kPolicy));
  EXPECT_EQ(event.find("policy")->string_or("decision", ""), "deny");
}

TEST(promotion, a_window_that_comes_again_is_not_decided_again) {
  Bench b;
  b.at(10, 0.9);
  b.at(11, 0.9);
  b.feed({"24h", 12, 0.9, 0.5});
  S hour12{"1h", 12, 0.9};
  b.feed(hour12);
  Outputs again = b.feed({"24h", 12, 0.9, 0.9});
  EXPECT_EQ(again.tally.refused[static_cast<size_t>(Reason::kDuplicate)], 1u);
  again = b.feed(hour12);
  EXPECT_EQ(again.tally.refused[static_cast<size_t>(Reason::kDuplicate)], 1u);
  EXPECT_EQ(b.told(again), "");
  Outputs late = b.feed({"1h", 11, 0.9});
  EXPECT_EQ(late.tally.refused[static_cast<size_t>(Reason::kLate)], 1u);
  late = b.feed({"24h", 11, 0.9});
  EXPECT_EQ(late.tally.refused[static_cast<size_t>(Reason::kLate)], 1u);
}

TEST(promotion, what_cannot_be_read_is_a_dead_letter_with_its_reason) {
  Json good = parsed(Bench::value({"1h", 12, 0.9}));
  auto with = [&](std::string_view name, Json value) { return canonical(Json(good).set(name, std::move(value))); };
  auto without = [&](std::string_view name) {
    Json copy = good;
    std::erase_if(copy.as_object(), [&](const auto& member) { return member.first == name; });
    return canonical(copy);
  };
  struct Case {
    std::optional<std::string> key, value;
    Reason reason;
  };
  const std::string key = "agent-1";
  const Case kCases[] = {
      {key, std::nullopt, Reason::kEmpty},
      {key, "", Reason::kEmpty},
      {key, "{", Reason::kNotJson},
      {key, std::string(5000, '['), Reason::kNotJson},
      {key, "[1]", Reason::kWrongType},
      {key, without("agentId"), Reason::kMissingField},
      {key, without("divisionId"), Reason::kMissingField},
      {key, without("window"), Reason::kMissingField},
      {key, without("windowEnd"), Reason::kMissingField},
      {key, without("score"), Reason::kMissingField},
      {key, without("lower"), Reason::kMissingField},
      {key, without("confidence"), Reason::kMissingField},
      {key, without("samples"), Reason::kMissingField},
      {key, with("agentId", 7), Reason::kWrongType},
      {"", with("agentId", ""), Reason::kBadId},
      {key, with("agentId", std::string(257, 'a')), Reason::kBadId},
      {std::string("a\0b", 3), with("agentId", std::string("a\0b", 3)), Reason::kBadId},
      {key, with("window", "2h"), Reason::kWrongType},
      {key, with("windowEnd", "yesterday"), Reason::kBadTimestamp},
      {key, with("windowEnd", "1970-01-01T12:30:00.000Z"), Reason::kBadTimestamp},
      {key, with("score", "0.9"), Reason::kWrongType},
      {key, with("score", 1.5), Reason::kValueOutOfRange},
      {key, with("lower", -0.1), Reason::kValueOutOfRange},
      {key, with("samples", 1.5), Reason::kValueOutOfRange},
      {key, with("samples", -1), Reason::kValueOutOfRange},
      {key, with("samples", 1e300), Reason::kValueOutOfRange},
      {key, with("samples", nullptr), Reason::kWrongType},
      {std::nullopt, canonical(good), Reason::kKeyMismatch},
      {"agent-2", canonical(good), Reason::kKeyMismatch},
  };
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.value ? c.value->substr(0, 200) : "tombstone");
    Bench b;
    Outputs out = b.raw(c.key, c.value);
    ASSERT_EQ(out.dead_letters.size(), 1u);
    const DeadLetter& letter = out.dead_letters[0];
    EXPECT_EQ(reason_code(letter.reason), reason_code(c.reason)) << letter.detail;
    EXPECT_FALSE(letter.detail.empty());
    EXPECT_EQ(letter.key, c.key);
    EXPECT_EQ(letter.value, c.value);
    EXPECT_EQ(letter.topic, Topic::kScores);
    EXPECT_EQ(letter.partition, 2);
    ASSERT_EQ(letter.headers.size(), 1u);
    EXPECT_EQ(letter.headers[0], (Header{"h", "v"}));
    EXPECT_EQ(out.tally.refused[static_cast<size_t>(c.reason)], 1u);
    EXPECT_THAT(out.records, IsEmpty());
    EXPECT_EQ(b.promote(20), kPromoted);  // and the partition goes on
  }
}

TEST(promotion, bad_rules_are_dead_letters_and_change_nothing) {
  Bench b;
  Rules other = b.rules;
  other.promotion.enter = 0.1;
  std::string good = encode_config_event(other, ConfigKind::kPromotion);
  std::string forged = good;
  forged.replace(forged.find("\"enter\":0.1"), 11, "\"enter\":0.2");
  struct Case {
    std::optional<std::string> value;
    Reason reason;
  };
  const Case kCases[] = {{std::nullopt, Reason::kEmpty},
                         {"", Reason::kEmpty},
                         {"{", Reason::kNotJson},
                         {"{}", Reason::kWrongType},
                         {forged, Reason::kWrongType}};
  state::Digest before = b.driver.digest();
  for (const Case& c : kCases) {
    Outputs out = b.driver.feed({Topic::kConfig, "promotion", c.value, test_id(5)});
    ASSERT_EQ(out.dead_letters.size(), 1u);
    EXPECT_EQ(reason_code(out.dead_letters[0].reason), reason_code(c.reason));
    EXPECT_EQ(out.dead_letters[0].topic, Topic::kConfig);
  }
  EXPECT_EQ(b.driver.digest(), before);
}

TEST(promotion, rules_of_other_processors_leave_the_state_alone) {
  Bench b;
  state::Digest before = b.driver.digest();
  Rules other = b.rules;
  other.scoring.grace_ms = 1;
  other.scoring.dedupe_ms = 1;
  EXPECT_EQ(b.driver.feed(config_record(other, ConfigKind::kScoring, 9)).tally.accepted, 1u);
  EXPECT_EQ(b.driver.digest(), before);
}

TEST(promotion, the_query_gives_the_last_event_of_each_entity) {
  Bench b;
  ASSERT_EQ(b.promote(12), kPromoted);
  ASSERT_EQ(b.demote(16), "hold:rejected:demote:cooldown");
  for (double e : {10.0, 11.0, 12.0}) {
    b.feed({"24h", e, 0.9, 0.88, 10, 0.97, "a"});
    b.feed({"1h", e, 0.9, 0.88, 10, 0.97, "a"});
  }
  b.driver.commit();
  auto rows = promotions_json(b.driver.stored());
  ASSERT_TRUE(rows.has_value());
  ASSERT_EQ(rows->as_array().size(), 2u);
  EXPECT_EQ(rows->as_array()[0].string_or("entityId", ""), "a");
  EXPECT_EQ(rows->as_array()[0].string_or("action", ""), "promote");
  EXPECT_EQ(rows->as_array()[1].string_or("entityId", ""), "agent-1");
  EXPECT_EQ(rows->as_array()[1].string_or("action", ""), "hold");
  EXPECT_THAT(
      std::string(rows->as_array()[1].string_or("rationale", "")),
      HasSubstr("Held: the scores of three closed hours are below 0.8, but the decision of 1970-01-01T12:00:00.000Z is less than"));
}

TEST(Promotion, ACorrectionDecidesNothingAndIsWhatTheNextDecisionRestsOn) {
  Bench b;
  b.at(10, 0.9);
  b.at(11, 0.5);
  const Id low = b.last_id;
  b.at(12, 0.9);
  const state::Digest before = b.driver.digest();
  // What is not remembered any more, or was never told, changes nothing; nor does one that corrects something else.
  for (const auto& [end, corrects] : {std::pair(11.0, Json(test_id(999).hex())), std::pair(11.0, Json()), std::pair(13.0, Json()),
                                      std::pair(9.0, Json(low.hex())), std::pair(12.0, Json(low.hex()))}) {
    const Outputs outputs = b.correct({"1h", end}, corrects);
    EXPECT_THAT(outputs.records, IsEmpty());
    EXPECT_EQ(outputs.tally.refused[static_cast<size_t>(Reason::kLate)], 1u) << end;
  }
  EXPECT_EQ(b.driver.digest(), before);
  EXPECT_EQ(b.correct({"7d", 11}, low.hex()).tally.accepted, 1u);
  EXPECT_EQ(b.correct({"1h", 11}, 7).dead_letters.size(), 1u);

  const Outputs corrected = b.correct({"1h", 11, 0.9}, low.hex());
  const Id correction = b.last_id;
  EXPECT_THAT(corrected.records, IsEmpty());
  EXPECT_EQ(corrected.tally.accepted, 1u);
  b.driver.crash();
  b.driver.restart();
  EXPECT_EQ(b.correct({"1h", 11, 0.2}, low.hex()).tally.accepted, 0u) << "that one was corrected already";
  b.feed({"24h", 13});
  const Outputs decided = b.feed({"1h", 13});
  EXPECT_EQ(Bench::told(decided), "promote:applied");
  EXPECT_THAT(decided.records.front().value, HasSubstr(correction.hex()));

  // The bound of the day counts the same way.
  Bench day;
  day.at(10, 0.9);
  day.at(11, 0.9);
  day.feed({"24h", 12, 0.9, 0.1});
  EXPECT_THAT(day.correct({"24h", 12, 0.9, 0.88}, day.last_id.hex()).records, IsEmpty());
  EXPECT_EQ(Bench::told(day.feed({"1h", 12})), "promote:applied");
  // A window that was withdrawn satisfies nothing.
  Bench gone;
  gone.at(10, 0.9);
  gone.at(11, 0.9);
  gone.correct({"1h", 11, Json(), Json(), 0, Json()}, gone.last_id.hex());
  EXPECT_EQ(gone.at(12, 0.9), "");
}

}  // namespace
}  // namespace assay::processors
