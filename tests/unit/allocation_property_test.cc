// Allocation against a model that folds the whole history again after each record and counts by adding everything up, over seeded
// random streams of promotions and rules, with commits, restarts and crashes between any two of them. The bounds of pools and
// quotas are checked after every single event, from the events alone.
#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "processors/allocation.h"
#include "tests/unit/decision_driver.h"

namespace assay::processors {
namespace {

struct Step {
  TestRecord record;
  std::optional<Rules> rules;  // a config record
  struct Event {
    std::string entity, division, action, status;
    std::optional<double> confidence;
    int number = 0;  // equal numbers: the same event again
  };
  std::optional<Event> event;  // neither: a record that must be set aside
};

std::vector<Step> random_stream(uint64_t seed, int length) {
  Dice dice(seed);
  std::vector<Step> steps;
  uint64_t next_id = 0;
  Rules rules;
  rules.allocation.pools = {Pool{"p", "gpu", 4, {{"x", 2}}}, Pool{"pq", "cpu", 6, {}}};
  rules.allocation.grant = {"p", 1, 1, 0, 0};
  auto publish = [&](ConfigKind kind) { steps.push_back({config_record(rules, kind, next_id++), rules, {}}); };
  publish(ConfigKind::kAllocation);
  while (static_cast<int>(steps.size()) < length) {
    if (dice.chance(25)) {
      bool policy = false;
      switch (dice.below(8)) {
        case 0:
          rules.allocation.grant.priority = dice.below(3) - 1;
          break;
        case 1:
          rules.allocation.grant.gpu = 1 + dice.below(3);
          break;
        case 2:
          rules.allocation.grant.cpu = 1 + dice.below(3);
          break;
        case 3:
          if (rules.allocation.pools.size() == 2) rules.allocation.grant.pool = dice.pick({"p", "pq"});
          break;
        case 4:
          rules.allocation.pools[0].capacity = 1 + dice.below(8);
          break;
        case 5: {
          auto& quotas = rules.allocation.pools[0].quotas;
          std::string division = dice.pick({"x", "y"});
          if (dice.chance(40))
            quotas.erase(division);
          else
            quotas[division] = dice.below(5);
          break;
        }
        case 6:
          if (dice.chance(50)) {
            rules.allocation.pools[0].unit = dice.pick({"gpu", "cpu"});
          } else if (rules.allocation.pools.size() == 1) {
            rules.allocation.pools.push_back(Pool{"pq", dice.pick({"cpu", "gpu"}), 2 + dice.below(6), {}});
          } else {
            rules.allocation.pools.pop_back();
            rules.allocation.grant.pool = "p";
          }
          break;
        default:
          policy = true;
          rules.policy.deny_pools.clear();
          if (dice.chance(25)) rules.policy.deny_pools = {"pq"};
          rules.policy.max_delta = dice.pick({5.0, 5.0, 2.0});
          rules.policy.min_confidence = dice.pick({0.0, 0.5});
      }
      publish(policy ? ConfigKind::kPolicy : ConfigKind::kAllocation);
      continue;
    }
    if (dice.chance(5)) {  // the same again
      const Step& old = steps[static_cast<size_t>(dice.below(static_cast<int64_t>(steps.size())))];
      if (old.event) steps.push_back(Step(old));
      continue;
    }
    Step::Event e;
    e.entity = "e" + std::to_string(dice.below(12));
    e.division = dice.pick({"x", "y", "z"});
    e.action = dice.pick({"promote", "promote", "promote", "demote", "demote", "hold"});
    e.status = dice.chance(92) ? "applied" : dice.pick({"pending", "rejected", "approved"});
    e.confidence = dice.chance(95) ? std::optional(dice.pick({0.4, 0.5, 0.9, 0.9})) : std::nullopt;
    e.number = static_cast<int>(next_id);
    Id id = test_id(next_id++);
    Json body = Json::object().set("id", id.hex()).set("entityId", e.entity).set("divisionId", e.division).set("action", e.action);
    body.set("status", e.status)
        .set("confidence", e.confidence ? Json(*e.confidence) : Json())
        .set("ts", hour(static_cast<double>(next_id)));
    Step step{{Topic::kPromotions, e.entity, canonical(body), id}, {}, e};
    if (dice.chance(2)) {
      step.event.reset();
      step.record.value->pop_back();
    }
    steps.push_back(std::move(step));
  }
  return steps;
}

/// The model: all requests ever, in a list; every question is answered by walking it.
class Model {
 public:
  struct Request {
    Step::Event of;
    Grant grant;
    std::string state;
  };

  /// What the last step of the history did, "entity:state" in order. Recomputed from the first step on.
  static Model of_history(const std::vector<Step>& history) {
    Model m;
    for (const Step& step : history) {
      m.told.clear();
      m.fold(step);
    }
    return m;
  }

  int64_t amount(const Request& r, const std::string& unit) const { return unit == "gpu" ? r.grant.gpu : r.grant.cpu; }
  int64_t held(const std::string& pool, const std::string& unit, const std::string& division = "*") const {
    int64_t sum = 0;
    for (const Request& r : requests)
      if (r.state == "applied" && r.grant.pool == pool && (division == "*" || r.of.division == division)) sum += amount(r, unit);
    return sum;
  }
  const Pool* pool(const std::string& name) const {
    for (const Pool& p : rules.allocation.pools)
      if (p.name == name) return &p;
    return nullptr;
  }

  std::vector<std::string> told;
  std::vector<Request> requests;
  Rules rules = default_rules();
  bool duplicate = false;

 private:
  void tell(Request& r, const std::string& state) {
    r.state = state;
    told.push_back(r.of.entity + ":" + state);
  }
  bool gate_stops(const Request& r) const {
    const Pool* p = pool(r.grant.pool);
    return !p || (!rules.policy.deny_pools.empty() && r.grant.pool == "pq") ||
           static_cast<double>(amount(r, p->unit)) > rules.policy.max_delta || !r.of.confidence ||
           *r.of.confidence < rules.policy.min_confidence;
  }
  bool hopeless(const Request& r) const {
    const Pool* p = pool(r.grant.pool);
    if (!p) return true;
    auto quota = p->quotas.find(r.of.division);
    return amount(r, p->unit) > p->capacity || (quota != p->quotas.end() && amount(r, p->unit) > quota->second);
  }

  void fold(const Step& step) {
    duplicate = false;
    if (step.rules) {
      const bool pools = step.record.key == "allocation";
      // A record carries one kind; the generator changes one at a time.
      rules = *step.rules;
      if (!pools) return;
      std::set<std::string> names;
      for (const Request& r : requests) names.insert(r.grant.pool);
      for (const std::string& name : names) {
        for (Request* r : line(name))
          if (hopeless(*r)) tell(*r, "rejected");
        serve(name, nullptr);
      }
      return;
    }
    if (!step.event) return;
    const Step::Event& e = *step.event;
    if (e.status != "applied" || e.action == "hold") return;
    duplicate = !seen_.insert(e.number).second;
    if (duplicate) return;
    if (e.action == "promote") {
      requests.push_back({e, rules.allocation.grant, "new"});
      Request& r = requests.back();
      if (gate_stops(r) || hopeless(r)) return tell(r, "rejected");
      r.state = "gated";
      serve(r.grant.pool, &r);
      if (r.state == "gated") tell(r, "gated");
      return;
    }
    std::set<std::string> freed;
    std::vector<Request*> mine;
    for (Request& r : requests)
      if (r.of.entity == e.entity && (r.state == "gated" || r.state == "applied")) mine.push_back(&r);
    for (Request* r : mine) {
      freed.insert(r->grant.pool);
      tell(*r, "released");
    }
    for (const std::string& name : freed) serve(name, nullptr);
  }

  /// Who waits for the pool, in order of service.
  std::vector<Request*> line(const std::string& name) {
    std::vector<Request*> waiting;
    for (Request& r : requests)
      if (r.state == "gated" && r.grant.pool == name) waiting.push_back(&r);
    std::stable_sort(waiting.begin(), waiting.end(), [](Request* a, Request* b) { return a->grant.priority > b->grant.priority; });
    return waiting;
  }

  void serve(const std::string& name, const Request* just_asked) {
    const Pool* p = pool(name);
    if (!p) return;
    for (bool again = true; again;) {
      again = false;
      std::set<std::string> aside;  // divisions whose first request their quota holds up
      for (Request* r : line(name)) {
        if (aside.contains(r->of.division)) continue;
        auto quota = p->quotas.find(r->of.division);
        if (quota != p->quotas.end() && held(name, p->unit, r->of.division) + amount(*r, p->unit) > quota->second) {
          aside.insert(r->of.division);
          continue;
        }
        if (held(name, p->unit) + amount(*r, p->unit) > p->capacity) return;
        again = true;
        if (r != just_asked && gate_stops(*r)) {
          tell(*r, "rejected");
          break;
        }
        tell(*r, "reserved");
        tell(*r, "applied");
        break;
      }
    }
  }

  std::set<int> seen_;
};

/// Keeps what the events say and checks the bounds after each of them.
class Watch {
 public:
  void event(const Output& output, const Rules& rules) {
    Json e = parsed(output.value);
    std::string id(e.string_or("allocationId", "")), state(e.string_or("state", "")), pool(e.string_or("pool", ""));
    ASSERT_EQ(output.key, pool);
    std::string& before = state_[id];
    const std::set<std::string> kMoves = {">rejected",        ">gated",         ">reserved",      "reserved>applied",
                                          "applied>released", "gated>released", "gated>rejected", "gated>reserved"};
    ASSERT_TRUE(kMoves.contains(before + ">" + state)) << before << " to " << state;
    before = state;
    ++count[state];
    events_[id] = e;
    if (state != "reserved") return;  // every other move leaves the use as it is or lowers it
    const Pool* p = nullptr;
    for (const Pool& candidate : rules.allocation.pools)
      if (candidate.name == pool) p = &candidate;
    ASSERT_NE(p, nullptr);
    ASSERT_LE(held(*p), p->capacity);
    std::string division(e.string_or("divisionId", ""));
    if (p->quotas.contains(division)) {
      ASSERT_LE(held(*p, division), p->quotas.at(division));
    }
  }
  int64_t held(const Pool& pool, const std::string& division = "*") const {
    int64_t sum = 0;
    for (const auto& [id, e] : events_)
      if (const std::string& s = state_.at(id); (s == "reserved" || s == "applied") && e.string_or("pool", "") == pool.name &&
                                                (division == "*" || e.string_or("divisionId", "") == division))
        sum += static_cast<int64_t>(e.number_or(pool.unit, 0));
    return sum;
  }
  /// The answer of `pools` must be what the events add up to.
  void pools(const Json& rows, const Rules& rules) const {
    for (const Json& row : rows.as_array()) {
      auto number = [](const Json& j, const char* name) { return static_cast<int64_t>(j.number_or(name, -1)); };
      ASSERT_EQ(number(row, "reserved"), 0);
      ASSERT_LE(number(row, "used"), number(row, "capacity"));
      ASSERT_EQ(number(row, "available"), number(row, "capacity") - number(row, "used"));
      for (const Json& quota : row.find("quotas")->as_array()) ASSERT_LE(number(quota, "used"), number(quota, "quota"));
      for (const Pool& p : rules.allocation.pools) {
        if (p.name != row.string_or("pool", "")) continue;
        ASSERT_EQ(number(row, "used"), held(p));
        ASSERT_EQ(number(row, "capacity"), std::max(p.capacity, held(p)));
        ASSERT_EQ(row.string_or("unit", ""), p.unit);
        ASSERT_EQ(row.find("quotas")->as_array().size(), p.quotas.size());
        for (const Json& quota : row.find("quotas")->as_array())
          ASSERT_EQ(number(quota, "used"), held(p, std::string(quota.string_or("divisionId", ""))));
      }
    }
  }

  std::map<std::string, int> count;

 private:
  std::map<std::string, std::string> state_;
  std::map<std::string, Json> events_;
};

TEST(allocation_property, agrees_with_the_whole_history_and_never_exceeds_a_bound) {
  std::map<std::string, int> count;
  int duplicates = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    std::vector<Step> history;
    Driver<Allocation> whole, each, broken;
    Watch watch;
    Dice dice(seed + 9000);
    for (const Step& step : random_stream(seed, 200)) {
      SCOPED_TRACE("step " + std::to_string(history.size()));
      history.push_back(step);
      Model model = Model::of_history(history);
      Outputs outputs = whole.feed(step.record);
      std::vector<std::string> told;
      for (const Output& o : outputs.records) {
        if (o.topic != Topic::kAllocations) continue;
        watch.event(o, model.rules);
        if (HasFatalFailure()) return;
        Json e = parsed(o.value);
        told.push_back(std::string(e.string_or("entityId", "")) + ":" + std::string(e.string_or("state", "")));
      }
      ASSERT_EQ(told, model.told);
      ASSERT_EQ(outputs.dead_letters.size(), step.rules || step.event ? 0u : 1u);
      ASSERT_EQ(outputs.tally.refused[static_cast<size_t>(Reason::kDuplicate)], model.duplicate ? 1u : 0u);
      duplicates += model.duplicate;

      each.feed(step.record);
      each.commit();
      auto rows = pools_json(each.stored());
      ASSERT_TRUE(rows.has_value());
      watch.pools(*rows, model.rules);
      if (HasFatalFailure()) return;
      broken.feed(step.record);
      if (dice.chance(10)) broken.commit();
      if (dice.chance(5)) broken.restart();
      if (dice.chance(5)) broken.crash();
    }
    ASSERT_EQ(each.all(), whole.all());
    ASSERT_EQ(broken.all(), whole.all());
    whole.commit();
    broken.commit();
    ASSERT_EQ(each.digest(), whole.digest());
    ASSERT_EQ(broken.digest(), whole.digest());
    for (const auto& [state, n] : watch.count) count[state] += n;
  }
  // The streams reach every state often; otherwise the agreement above would say little.
  for (const char* state : {"rejected", "gated", "reserved", "applied", "released"}) EXPECT_GE(count[state], 500) << state;
  EXPECT_GE(duplicates, 50);
}

}  // namespace
}  // namespace assay::processors
