// Allocation: every rule at its edge, and the defects of the system before it.
#include "processors/allocation.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/decision_driver.h"

namespace assay::processors {
namespace {

using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::StartsWith;

class Bench {
 public:
  explicit Bench(std::vector<Pool> pools = {Pool{"gpus", "gpu", 3, {}}}) {
    rules.allocation.pools = std::move(pools);
    rules.allocation.grant = {rules.allocation.pools[0].name, 2, 1, 512, 0};
    configure();
  }

  std::string configure(ConfigKind kind = ConfigKind::kAllocation) {
    last_id = test_id(next_++);
    last = driver.feed({Topic::kConfig, std::string(config_kind_name(kind)), encode_config_event(rules, kind), last_id});
    EXPECT_THAT(last.dead_letters, IsEmpty());
    return told(last);
  }
  TestRecord record(std::string_view action, const std::string& entity, const std::string& division = "d",
                    std::string_view status = "applied") {
    last_id = test_id(next_++);
    Json event = Json::object().set("id", last_id.hex()).set("entityId", entity).set("divisionId", division).set("action", action);
    event.set("status", status).set("confidence", confidence).set("ts", hour(static_cast<double>(next_)));
    return {Topic::kPromotions, entity, canonical(event), last_id};
  }
  std::string feed(const TestRecord& r) { return told(last = driver.feed(r)); }
  std::string promote(const std::string& entity, const std::string& division = "d") {
    return feed(record("promote", entity, division));
  }
  /// With a grant of that many GPUs.
  std::string promote_gpus(const std::string& entity, int64_t gpu, int64_t priority = 0, const std::string& division = "d") {
    rules.allocation.grant.gpu = gpu;
    rules.allocation.grant.priority = priority;
    EXPECT_EQ(configure(), "");
    return promote(entity, division);
  }
  std::string demote(const std::string& entity) { return feed(record("demote", entity)); }

  /// "entity:state" of each allocation event, in order.
  static std::string told(const Outputs& outputs) {
    std::string text;
    for (const Output& o : outputs.records) {
      if (o.topic != Topic::kAllocations) continue;
      Json event = parsed(o.value);
      text += (text.empty() ? "" : " ") + std::string(event.string_or("entityId", "")) + ":" +
              std::string(event.string_or("state", ""));
    }
    return text;
  }
  std::string reason() const {
    std::string text;
    for (const Output& o : last.records)
      if (o.topic == Topic::kAllocations) text = parsed(o.value).string_or("reason", "");
    return text;
  }
  /// "pool used+reserved/capacity free (division held/quota …)" of each pool.
  std::string pools() {
    driver.commit();
    auto rows = pools_json(driver.stored());
    EXPECT_TRUE(rows.has_value());
    std::string text;
    for (const Json& row : rows->as_array()) {
      auto number = [](const Json& j, const char* name) { return std::to_string(static_cast<int64_t>(j.number_or(name, -1))); };
      text += (text.empty() ? "" : " ") + std::string(row.string_or("pool", "")) + "=" + number(row, "used") + "+" +
              number(row, "reserved") + "/" + number(row, "capacity") + std::string(row.string_or("unit", "")) + " free " +
              number(row, "available");
      for (const Json& quota : row.find("quotas")->as_array())
        text += " (" + std::string(quota.string_or("divisionId", "")) + " " + number(quota, "used") + "/" + number(quota, "quota") +
                ")";
    }
    return text;
  }

  Rules rules;
  Driver<Allocation> driver;
  Outputs last;
  Id last_id;
  Json confidence = 0.97;

 private:
  uint64_t next_ = 0;
};

TEST(allocation, grants_on_promotion_and_releases_on_demotion) {
  Bench b;
  EXPECT_EQ(b.promote("a"), "a:reserved a:applied");
  EXPECT_EQ(b.pools(), "gpus=1+0/3gpu free 2");
  EXPECT_EQ(b.demote("a"), "a:released");
  EXPECT_EQ(b.pools(), "gpus=0+0/3gpu free 3");
}

TEST(allocation, only_applied_promotions_and_demotions_count) {
  Bench b;
  for (const char* status : {"pending", "pending_multisig", "approved", "rejected"})
    EXPECT_EQ(b.feed(b.record("promote", "a", "d", status)), "");
  EXPECT_EQ(b.feed(b.record("hold", "a", "d", "rejected")), "");
  EXPECT_EQ(b.feed(b.record("hold", "a", "d", "applied")), "");
  EXPECT_EQ(b.last.tally.accepted, 1u);
  EXPECT_EQ(b.demote("a"), "");
  EXPECT_EQ(b.pools(), "gpus=0+0/3gpu free 3");
}

// The defect: the capacity of a pool was never read.
TEST(allocation, defect_pool_capacity_never_read) {
  Bench b;
  EXPECT_EQ(b.promote("a"), "a:reserved a:applied");
  EXPECT_EQ(b.promote("b"), "b:reserved b:applied");
  EXPECT_EQ(b.promote("c"), "c:reserved c:applied");
  EXPECT_EQ(b.promote("d"), "d:gated");
  EXPECT_THAT(b.reason(), StartsWith("pool full: 3 of 3 gpu"));
  EXPECT_EQ(b.pools(), "gpus=3+0/3gpu free 0");
  EXPECT_EQ(b.demote("b"), "b:released d:reserved d:applied");
  EXPECT_EQ(b.pools(), "gpus=3+0/3gpu free 0");
}

TEST(allocation, a_division_stays_within_its_quota) {
  Bench b({Pool{"gpus", "gpu", 10, {{"x", 1}}}});
  EXPECT_EQ(b.promote("a", "x"), "a:reserved a:applied");
  EXPECT_EQ(b.promote("b", "x"), "b:gated");
  EXPECT_THAT(b.reason(), StartsWith("quota: division x holds 1 of 1 gpu"));
  EXPECT_EQ(b.promote("c", "y"), "c:reserved c:applied");  // no quota: bounded by the capacity alone
  EXPECT_EQ(b.pools(), "gpus=2+0/10gpu free 8 (x 1/1)");
  EXPECT_EQ(b.demote("a"), "a:released b:reserved b:applied");
}

TEST(allocation, a_quota_of_one_division_does_not_hold_up_another) {
  Bench b({Pool{"gpus", "gpu", 2, {{"x", 1}}}});
  EXPECT_EQ(b.promote("a", "x"), "a:reserved a:applied");
  EXPECT_EQ(b.promote("b", "x"), "b:gated");
  EXPECT_EQ(b.promote("c", "y"), "c:reserved c:applied");  // overtakes b, which only x can help
  EXPECT_EQ(b.promote("d", "y"), "d:gated");
  EXPECT_EQ(b.demote("c"), "c:released d:reserved d:applied");
  EXPECT_EQ(b.promote("e", "y"), "e:gated");
  EXPECT_EQ(b.demote("a"), "a:released b:reserved b:applied");  // first in line, and its quota has room now
}

TEST(allocation, a_small_request_does_not_overtake_a_big_one_that_waits_for_capacity) {
  Bench b;
  EXPECT_EQ(b.promote_gpus("a", 2), "a:reserved a:applied");
  EXPECT_EQ(b.promote_gpus("big", 3), "big:gated");
  EXPECT_EQ(b.promote_gpus("small", 1, 0, "y"), "small:gated");  // would fit, but then big would wait for ever
  EXPECT_THAT(b.reason(), HasSubstr("requests that come first wait"));
  EXPECT_EQ(b.demote("a"), "a:released big:reserved big:applied");
  EXPECT_EQ(b.demote("big"), "big:released small:reserved small:applied");
}

TEST(allocation, within_a_division_a_small_request_does_not_overtake_a_big_one_that_waits_for_quota) {
  Bench b({Pool{"gpus", "gpu", 10, {{"x", 3}}}});
  EXPECT_EQ(b.promote_gpus("a", 2, 0, "x"), "a:reserved a:applied");
  EXPECT_EQ(b.promote_gpus("big", 3, 0, "x"), "big:gated");
  EXPECT_EQ(b.promote_gpus("small", 1, 0, "x"), "small:gated");
  EXPECT_EQ(b.demote("a"), "a:released big:reserved big:applied");
}

TEST(allocation, higher_priority_is_served_first_then_folding_order) {
  Bench b({Pool{"gpus", "gpu", 1, {}}});
  EXPECT_EQ(b.promote_gpus("a", 1), "a:reserved a:applied");
  EXPECT_EQ(b.promote_gpus("z", 1, -1), "z:gated");
  EXPECT_EQ(b.promote_gpus("b", 1, 0), "b:gated");
  EXPECT_EQ(b.promote_gpus("c", 1, 7, "y"), "c:gated");
  EXPECT_EQ(b.promote_gpus("d", 1, 7), "d:gated");
  EXPECT_EQ(b.promote_gpus("e", 1, 0, "y"), "e:gated");
  EXPECT_EQ(b.demote("a"), "a:released c:reserved c:applied");
  EXPECT_EQ(b.demote("c"), "c:released d:reserved d:applied");
  EXPECT_EQ(b.demote("d"), "d:released b:reserved b:applied");
  EXPECT_EQ(b.demote("b"), "b:released e:reserved e:applied");
  EXPECT_EQ(b.demote("e"), "e:released z:reserved z:applied");
}

TEST(allocation, one_release_may_serve_several) {
  Bench b;
  EXPECT_EQ(b.promote_gpus("a", 3), "a:reserved a:applied");
  EXPECT_EQ(b.promote_gpus("b", 1), "b:gated");
  EXPECT_EQ(b.promote_gpus("c", 2), "c:gated");
  EXPECT_EQ(b.promote_gpus("d", 1), "d:gated");
  EXPECT_EQ(b.demote("a"), "a:released b:reserved b:applied c:reserved c:applied");
}

TEST(allocation, who_leaves_the_line_lets_the_next_pass) {
  Bench b;
  EXPECT_EQ(b.promote_gpus("a", 2), "a:reserved a:applied");
  EXPECT_EQ(b.promote_gpus("big", 3), "big:gated");
  EXPECT_EQ(b.promote_gpus("small", 1), "small:gated");
  EXPECT_EQ(b.demote("big"), "big:released small:reserved small:applied");
  EXPECT_EQ(b.pools(), "gpus=3+0/3gpu free 0");
}

TEST(allocation, a_demotion_releases_all_that_the_entity_holds_or_waits_for) {
  Bench b({Pool{"gpus", "gpu", 2, {}}});
  EXPECT_EQ(b.promote("a"), "a:reserved a:applied");
  EXPECT_EQ(b.promote("a"), "a:reserved a:applied");  // another promotion of the same entity is another grant
  EXPECT_EQ(b.promote("a"), "a:gated");
  EXPECT_EQ(b.promote("b"), "b:gated");
  EXPECT_EQ(b.demote("a"), "a:released a:released a:released b:reserved b:applied");
  EXPECT_EQ(b.demote("a"), "");
}

TEST(allocation, what_can_never_fit_is_rejected_with_its_reason) {
  Bench b({Pool{"gpus", "gpu", 3, {{"x", 1}, {"none", 0}}}});
  EXPECT_EQ(b.promote_gpus("a", 4), "a:rejected");
  EXPECT_THAT(b.reason(), HasSubstr("4 gpu can never fit pool gpus with a capacity of 3"));
  EXPECT_EQ(b.promote_gpus("b", 2, 0, "x"), "b:rejected");
  EXPECT_THAT(b.reason(), HasSubstr("2 gpu can never fit the quota of 1 that division x has"));
  EXPECT_EQ(b.promote_gpus("c", 1, 0, "none"), "c:rejected");
  EXPECT_EQ(b.promote_gpus("d", 3), "d:reserved d:applied");
  EXPECT_EQ(b.demote("a"), "");
}

TEST(allocation, the_gate_rejects_for_ever) {
  Bench b;
  b.rules.policy.deny_pools = {"gp*"};
  EXPECT_EQ(b.configure(ConfigKind::kPolicy), "");
  EXPECT_EQ(b.promote("a"), "a:rejected");
  EXPECT_THAT(b.reason(), StartsWith("policy sentinel-deny-pool says deny"));
  b.rules.policy = {};
  b.rules.policy.min_confidence = 0.98;
  b.configure(ConfigKind::kPolicy);
  EXPECT_EQ(b.promote("b"), "b:rejected");
  EXPECT_THAT(b.reason(), StartsWith("policy sentinel-min-confidence says quarantine"));
  b.confidence = nullptr;
  EXPECT_EQ(b.promote("c"), "c:rejected");
  EXPECT_THAT(b.reason(), StartsWith("policy sentinel-min-confidence says deny"));
  b.rules.policy = {};
  EXPECT_EQ(b.configure(ConfigKind::kPolicy), "");
}

// The defect: a request that was rejected could be approved later.
TEST(allocation, defect_a_rejected_request_approved_later) {
  Bench b({Pool{"gpus", "gpu", 1, {}}});
  EXPECT_EQ(b.promote_gpus("a", 2), "a:rejected");
  TestRecord denied = b.record("promote", "a");
  EXPECT_EQ(b.feed(denied), "a:rejected");
  b.rules.allocation.pools[0].capacity = 10;
  EXPECT_EQ(b.configure(), "");
  EXPECT_EQ(b.feed(denied), "");
  EXPECT_EQ(b.last.tally.refused[static_cast<size_t>(Reason::kDuplicate)], 1u);
  EXPECT_EQ(b.pools(), "gpus=0+0/10gpu free 10");
}

// The defect: errors of the allocator were swallowed. An error is an answer here, with its reason in the event and the audit.
TEST(allocation, defect_allocator_errors_swallowed) {
  Bench b;
  b.rules.allocation.pools = {};
  b.rules.allocation.grant.pool = "nowhere";
  EXPECT_EQ(b.configure(), "");
  EXPECT_EQ(b.promote("a"), "a:rejected");
  EXPECT_THAT(b.reason(), HasSubstr("pool nowhere does not exist"));
  std::vector<std::string> audits;
  for (const Output& o : b.last.records)
    if (o.topic == Topic::kAudit) audits.emplace_back(parsed(o.value).string_or("eventType", ""));
  EXPECT_THAT(audits, ::testing::ElementsAre("policy.decision", "allocation.rejected"));
}

TEST(allocation, the_gate_is_asked_again_before_one_that_waited_is_served) {
  Bench b({Pool{"gpus", "gpu", 1, {}}});
  EXPECT_EQ(b.promote("a"), "a:reserved a:applied");
  EXPECT_EQ(b.promote("b"), "b:gated");
  EXPECT_EQ(b.promote("c"), "c:gated");
  b.rules.policy.deny_pools = {"gpus"};
  EXPECT_EQ(b.configure(ConfigKind::kPolicy), "");
  EXPECT_EQ(b.demote("a"), "a:released b:rejected c:rejected");
  EXPECT_EQ(b.pools(), "gpus=0+0/1gpu free 1");
  b.rules.policy.deny_pools = {};
  EXPECT_EQ(b.configure(ConfigKind::kPolicy), "");
  EXPECT_EQ(b.demote("b"), "");
}

TEST(allocation, one_allocation_per_promotion_however_often_it_comes) {
  Bench b;
  TestRecord promotion = b.record("promote", "a");
  EXPECT_EQ(b.feed(promotion), "a:reserved a:applied");
  EXPECT_EQ(b.feed(promotion), "");
  EXPECT_EQ(b.last.tally.refused[static_cast<size_t>(Reason::kDuplicate)], 1u);
  TestRecord demotion = b.record("demote", "a");
  EXPECT_EQ(b.feed(demotion), "a:released");
  EXPECT_EQ(b.feed(promotion), "");
  EXPECT_EQ(b.promote("a"), "a:reserved a:applied");
  EXPECT_EQ(b.feed(demotion), "");  // the old demotion does not take the new grant
  EXPECT_EQ(b.last.tally.refused[static_cast<size_t>(Reason::kDuplicate)], 1u);
  EXPECT_EQ(b.pools(), "gpus=1+0/3gpu free 2");
}

TEST(allocation, less_capacity_takes_nothing_away_and_falls_with_each_release) {
  Bench b;
  for (const char* e : {"a", "b", "c"}) b.promote(e);
  b.rules.allocation.pools[0].capacity = 1;
  EXPECT_EQ(b.configure(), "");
  EXPECT_EQ(b.pools(), "gpus=3+0/3gpu free 0");
  EXPECT_EQ(b.promote("w"), "w:gated");
  EXPECT_EQ(b.demote("a"), "a:released");
  EXPECT_EQ(b.pools(), "gpus=2+0/2gpu free 0");
  EXPECT_EQ(b.demote("b"), "b:released");
  EXPECT_EQ(b.pools(), "gpus=1+0/1gpu free 0");
  EXPECT_EQ(b.demote("c"), "c:released w:reserved w:applied");
  EXPECT_EQ(b.pools(), "gpus=1+0/1gpu free 0");
}

TEST(allocation, a_lower_quota_takes_nothing_away_either) {
  Bench b({Pool{"gpus", "gpu", 5, {{"x", 3}}}});
  for (const char* e : {"a", "b", "c"}) b.promote(e, "x");
  b.rules.allocation.pools[0].quotas["x"] = 1;
  EXPECT_EQ(b.configure(), "");
  EXPECT_EQ(b.pools(), "gpus=3+0/5gpu free 2 (x 3/3)");
  EXPECT_EQ(b.promote("w", "x"), "w:gated");
  b.demote("a");
  EXPECT_EQ(b.pools(), "gpus=2+0/5gpu free 3 (x 2/2)");
  b.demote("b");
  EXPECT_EQ(b.demote("c"), "c:released w:reserved w:applied");
  EXPECT_EQ(b.pools(), "gpus=1+0/5gpu free 4 (x 1/1)");
}

TEST(allocation, more_capacity_serves_at_once_and_names_the_rules_as_the_cause) {
  Bench b({Pool{"gpus", "gpu", 1, {}}});
  b.promote("a");
  TestRecord waiting = b.record("promote", "b");
  b.feed(waiting);
  std::string asked_ts(parsed(*waiting.value).string_or("ts", ""));
  b.rules.allocation.pools[0].capacity = 2;
  EXPECT_EQ(b.configure(), "b:reserved b:applied");
  for (const Output& o : b.last.records) {
    EXPECT_EQ(o.cause, b.last_id);
    Json event = parsed(o.value);
    EXPECT_EQ(event.string_or("cause", ""), b.last_id.hex());
    EXPECT_EQ(event.string_or("ts", ""), asked_ts);
    if (o.topic == Topic::kAudit) {
      EXPECT_EQ(canonical(*event.find("source")), "{\"id\":\"" + b.last_id.hex() + "\",\"topic\":\"config.v1\"}");
    }
  }
}

TEST(allocation, a_higher_quota_serves_at_once) {
  Bench b({Pool{"gpus", "gpu", 5, {{"x", 1}}}});
  b.promote("a", "x");
  EXPECT_EQ(b.promote("b", "x"), "b:gated");
  b.rules.allocation.pools[0].quotas.erase("x");
  EXPECT_EQ(b.configure(), "b:reserved b:applied");
}

TEST(allocation, what_can_no_longer_fit_is_rejected_and_lets_the_next_pass) {
  Bench b;
  EXPECT_EQ(b.promote_gpus("a", 2), "a:reserved a:applied");
  EXPECT_EQ(b.promote_gpus("big", 3), "big:gated");
  EXPECT_EQ(b.promote_gpus("small", 1), "small:gated");
  b.rules.allocation.pools[0].capacity = 2;
  EXPECT_EQ(b.configure(), "big:rejected");
  EXPECT_EQ(b.demote("a"), "a:released small:reserved small:applied");
}

TEST(allocation, a_pool_that_is_removed_keeps_its_grants_and_rejects_who_waits) {
  Bench b({Pool{"gpus", "gpu", 1, {}}, Pool{"other", "gpu", 1, {}}});
  b.promote("a");
  b.promote("b");
  b.rules.allocation.pools.erase(b.rules.allocation.pools.begin());
  b.rules.allocation.grant.pool = "other";
  EXPECT_EQ(b.configure(), "b:rejected");
  EXPECT_EQ(b.pools(), "gpus=1+0/1gpu free 0 other=0+0/1gpu free 1");
  EXPECT_EQ(b.demote("a"), "a:released");
  EXPECT_EQ(b.pools(), "other=0+0/1gpu free 1");
}

TEST(allocation, a_pool_that_counts_in_another_unit_counts_its_grants_anew) {
  Bench b({Pool{"gpus", "gpu", 3, {{"d", 2}}}, Pool{"none", "gpu", 1, {}}});
  b.promote("a");
  b.promote("b");
  b.rules.allocation.pools[0].unit = "cpu";
  b.rules.allocation.pools[0].capacity = 5;
  b.rules.allocation.pools[0].quotas = {{"d", 5}};
  EXPECT_EQ(b.configure(), "");
  EXPECT_EQ(b.pools(), "gpus=4+0/5cpu free 1 (d 4/5) none=0+0/1gpu free 1");
  EXPECT_EQ(b.promote("c"), "c:gated");
  EXPECT_EQ(b.demote("a"), "a:released c:reserved c:applied");
  EXPECT_EQ(b.demote("b"), "b:released");
  EXPECT_EQ(b.demote("c"), "c:released");
  EXPECT_EQ(b.pools(), "gpus=0+0/5cpu free 5 (d 0/5) none=0+0/1gpu free 1");
}

TEST(allocation, a_grant_that_counts_nothing_in_the_unit_of_today_is_not_forgotten) {
  Bench b({Pool{"gpus", "gpu", 1, {}}, Pool{"none", "gpu", 1, {}}});
  b.rules.allocation.grant = {"gpus", 0, 1, 0, 0};
  b.configure();
  b.promote("a");
  b.rules.allocation.grant.pool = "none";
  b.rules.allocation.pools[0].unit = "cpu";
  b.configure();
  EXPECT_EQ(b.pools(), "gpus=0+0/1cpu free 1 none=0+0/1gpu free 1");
  b.rules.allocation.pools[0].unit = "gpu";
  b.configure();
  EXPECT_EQ(b.pools(), "gpus=1+0/1gpu free 0 none=0+0/1gpu free 1");
  EXPECT_EQ(b.demote("a"), "a:released");
}

TEST(allocation, pools_and_divisions_whose_names_run_into_one_another_are_kept_apart) {
  Bench b({Pool{"p", "gpu", 1, {}}, Pool{"pd", "gpu", 1, {}}, Pool{std::string("p\0d", 3), "gpu", 1, {}}});
  EXPECT_EQ(b.promote("a", "dd"), "a:reserved a:applied");
  EXPECT_EQ(b.promote("b", "dd"), "b:gated");
  b.rules.allocation.grant.pool = "pd";
  b.configure();
  EXPECT_EQ(b.promote("c", "d"), "c:reserved c:applied");
  EXPECT_EQ(b.promote("e", "d"), "e:gated");
  b.rules.allocation.grant.pool = std::string("p\0d", 3);
  b.configure();
  EXPECT_EQ(b.promote("f", "d"), "f:reserved f:applied");
  EXPECT_EQ(b.promote("g", "d"), "g:gated");
  EXPECT_EQ(b.demote("c"), "c:released e:reserved e:applied");
  EXPECT_EQ(b.demote("a"), "a:released b:reserved b:applied");
  EXPECT_EQ(b.demote("f"), "f:released g:reserved g:applied");
}

TEST(allocation, the_events_carry_what_outside_tools_read) {
  Bench b;
  TestRecord promotion = b.record("promote", "a", "x");
  b.feed(promotion);
  std::string cause = b.last_id.hex();
  std::string ts(parsed(*promotion.value).string_or("ts", ""));
  ASSERT_EQ(b.last.records.size(), 5u);  // the gate's answer, then reserved and applied, each with its audit
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(b.last.records[i].id, derived_id(b.last_id, "allocation", i));
    EXPECT_EQ(b.last.records[i].cause, b.last_id);
  }
  std::string allocation_id = derived_id(b.last_id, "allocation-of-promotion", 0).hex();
  auto expected = [&](size_t i, const std::string& state, const std::string& reason) {
    return "{\"allocationId\":\"" + allocation_id + "\",\"cause\":\"" + cause +
           "\",\"cpu\":2,\"divisionId\":\"x\",\"entityId\":\"a\",\"gpu\":1,\"id\":\"" + b.last.records[i].id.hex() +
           "\",\"memoryMB\":512,\"pool\":\"gpus\",\"reason\":\"" + reason + "\",\"state\":\"" + state + "\",\"ts\":\"" + ts + "\"}";
  };
  std::string reserved = expected(1, "reserved", "reserves 1 gpu of pool gpus");
  std::string applied = expected(3, "applied", "holds 1 gpu of pool gpus, nobody else has to confirm");
  EXPECT_EQ(b.last.records[1].value, reserved);
  EXPECT_EQ(b.last.records[3].value, applied);
  EXPECT_EQ(b.last.records[1].key, "gpus");
  const char* kTypes[] = {"policy.decision", nullptr, "allocation.reserved", nullptr, "allocation.applied"};
  for (size_t i : {0, 2, 4}) {
    Json audit = parsed(b.last.records[i].value);
    EXPECT_EQ(b.last.records[i].topic, Topic::kAudit);
    EXPECT_EQ(audit.string_or("eventType", ""), kTypes[i]);
    EXPECT_EQ(audit.string_or("ts", ""), ts);
    EXPECT_EQ(canonical(*audit.find("source")), "{\"id\":\"" + cause + "\",\"topic\":\"promotion.events.v1\"}");
  }
  EXPECT_EQ(canonical(*parsed(b.last.records[4].value).find("data")), applied);

  b.demote("a");
  b.promote("c");
  b.driver.commit();
  auto rows = allocations_json(b.driver.stored());
  ASSERT_TRUE(rows.has_value());
  ASSERT_EQ(rows->as_array().size(), 2u);
  EXPECT_EQ(rows->as_array()[0].string_or("allocationId", ""), allocation_id);
  EXPECT_EQ(rows->as_array()[0].string_or("state", ""), "released");
  EXPECT_EQ(rows->as_array()[1].string_or("entityId", ""), "c");
}

TEST(allocation, what_cannot_be_read_is_a_dead_letter_and_the_pool_stays_as_it_is) {
  Bench b;
  b.promote("a");
  TestRecord sample = b.record("promote", "b");
  Json good = parsed(*sample.value);
  auto with = [&](std::string_view name, Json value) { return canonical(Json(good).set(name, std::move(value))); };
  struct Case {
    std::optional<std::string> key, value;
    Reason reason;
  };
  const Case kCases[] = {
      {"b", std::nullopt, Reason::kEmpty},
      {"b", "nonsense", Reason::kNotJson},
      {"b", "7", Reason::kWrongType},
      {"b", "{}", Reason::kMissingField},
      {"b", with("id", "short"), Reason::kBadId},
      {"b", with("entityId", ""), Reason::kBadId},
      {"b", with("divisionId", std::string("x\0y", 3)), Reason::kBadId},
      {"b", with("action", "shout"), Reason::kWrongType},
      {"b", with("status", 1), Reason::kWrongType},
      {"b", with("confidence", 2), Reason::kValueOutOfRange},
      {"b", with("ts", "now"), Reason::kBadTimestamp},
      {"a", canonical(good), Reason::kKeyMismatch},
      {std::nullopt, canonical(good), Reason::kKeyMismatch},
  };
  state::Digest before = b.driver.digest();
  for (const Case& c : kCases) {
    SCOPED_TRACE(c.value.value_or("tombstone"));
    EXPECT_EQ(b.feed({Topic::kPromotions, c.key, c.value, test_id(900)}), "");
    ASSERT_EQ(b.last.dead_letters.size(), 1u);
    EXPECT_EQ(reason_code(b.last.dead_letters[0].reason), reason_code(c.reason));
    EXPECT_EQ(b.last.dead_letters[0].value, c.value);
    EXPECT_EQ(b.last.dead_letters[0].topic, Topic::kPromotions);
  }
  EXPECT_EQ(b.driver.digest(), before);
  EXPECT_EQ(b.promote("c"), "c:reserved c:applied");
}

TEST(allocation, without_any_configuration_the_default_pools_serve) {
  Driver<Allocation> driver;
  auto rows = pools_json(driver.stored());
  ASSERT_TRUE(rows.has_value());
  EXPECT_EQ(rows->as_array().size(), default_rules().allocation.pools.size());
}

}  // namespace
}  // namespace assay::processors
