#include "tests/simulation/workload.h"

#include <algorithm>
#include <utility>

#include "schemas/json.h"
#include "schemas/time.h"

namespace assay::simulation {
namespace {

using schemas::ConfigKind;
using schemas::kDayMs;
using schemas::kHourMs;
using schemas::kMinuteMs;

constexpr int64_t kStart = 1767225600000;  // 2026-01-01
constexpr int64_t kFutureMs = 5 * kMinuteMs;

std::string division_name(int64_t n) { return "division-" + std::to_string(n); }

// ------------------------------------------------------------------------------------------------------------------- rules

schemas::MetricRule random_metric_rule(Dice& dice) {
  schemas::MetricRule rule;
  if (dice.chance(25)) rule.division = dice.pick({"division-0", "division-?", "*-1"});
  if (dice.chance(25)) rule.window = dice.pick({"1h", "24h", "7d"});
  rule.metric = dice.pick({"success", "success", "quality*", "*"});
  rule.low = dice.pick({0.0, 0.0, 0.05, -0.5});
  rule.high = dice.pick({1.0, 0.99, 0.97});
  rule.weight = dice.pick({1.0, 3.0, 0.7, 0.0});
  return rule;
}

std::vector<schemas::MetricRule> random_metric_rules(Dice& dice) {
  std::vector<schemas::MetricRule> rules;
  for (int64_t n = dice.below(3); n > 0; --n) rules.push_back(random_metric_rule(dice));
  rules.push_back({"*", "*", "*_latency_ms", false, 0.0, dice.pick({5.0, 8.0, 3.1}), dice.pick({0.5, 1.0, 0.0})});
  if (dice.chance(50)) rules.push_back({"*", "*", "edge.?", true, -1000.0, 1e6, 0.0});
  return rules;
}

schemas::Pool random_pool(Dice& dice, std::string name) {
  schemas::Pool pool;
  pool.name = std::move(name);
  pool.unit = dice.pick({"gpu", "gpu", "cpu"});
  pool.capacity = dice.pick({1, 1, 2, 3});
  for (int64_t n = 0; n < 3; ++n)
    if (dice.chance(30)) pool.quotas[division_name(n)] = dice.between(1, 3);
  return pool;
}

void change_grant(Dice& dice, schemas::AllocationRules& rules) {
  rules.grant.pool = rules.pools[static_cast<size_t>(dice.below(static_cast<int64_t>(rules.pools.size())))].name;
  rules.grant.gpu = dice.pick({1, 1, 1, 2});
  rules.grant.cpu = dice.pick({1, 1, 2});
  rules.grant.priority = dice.between(-1, 2);
}

void change_promotion(Dice& dice, schemas::PromotionRules& rules) {
  rules.enter = dice.pick({0.7, 0.8, 0.85, 0.9});
  rules.leave = rules.enter - dice.pick({0.0, 0.05, 0.2});
  rules.min_samples = dice.between(1, 2);
  rules.cooldown_ms = dice.pick<int64_t>({1, 2, 5, 24}) * kHourMs;
  rules.max_per_week = dice.between(1, 5);
}

void change_policy(Dice& dice, schemas::PolicyRules& rules) {
  rules.deny_pools.clear();
  if (dice.chance(25)) rules.deny_pools = {dice.pick({"pool-b", "*-b", "pool-?"})};
  rules.max_delta = dice.pick({5.0, 5.0, 5.0, 1.0});
  rules.min_confidence = dice.pick({0.0, 0.0, 0.9, 0.97});
}

schemas::Rules random_rules(Dice& dice) {
  schemas::Rules rules;
  rules.scoring.grace_ms = dice.pick<int64_t>({5, 15, 45, 90}) * kMinuteMs;
  rules.scoring.dedupe_ms = std::max(rules.scoring.grace_ms, dice.pick<int64_t>({1, 3, 24}) * kHourMs);
  rules.scoring.metrics = random_metric_rules(dice);
  change_promotion(dice, rules.promotion);
  if (dice.chance(25)) change_policy(dice, rules.policy);
  rules.allocation.pools = {random_pool(dice, "pool-a")};
  if (dice.chance(40)) rules.allocation.pools.push_back(random_pool(dice, "pool-b"));
  change_grant(dice, rules.allocation);
  return rules;
}

/// Changes one kind of rules. The memory of ids only shrinks: what an earlier rule forgot cannot come back.
ConfigKind change_rules(Dice& dice, schemas::Rules& rules) {
  switch (dice.below(6)) {
    case 0:
      rules.scoring.metrics = random_metric_rules(dice);
      return ConfigKind::kScoring;
    case 1:
      if (dice.chance(40)) {
        rules.scoring.grace_ms = std::max(kMinuteMs, rules.scoring.grace_ms / dice.pick<int64_t>({2, 3, 10}));
      } else if (rules.scoring.dedupe_ms >= 2 * rules.scoring.grace_ms) {
        rules.scoring.grace_ms += 7 * kMinuteMs;
        rules.scoring.dedupe_ms = std::max(rules.scoring.grace_ms, rules.scoring.dedupe_ms / 2);
      } else {
        rules.scoring.metrics = random_metric_rules(dice);
      }
      return ConfigKind::kScoring;
    case 2:
      change_promotion(dice, rules.promotion);
      return ConfigKind::kPromotion;
    case 3:
      change_policy(dice, rules.policy);
      return ConfigKind::kPolicy;
    case 4:
      for (schemas::Pool& pool : rules.allocation.pools) pool = random_pool(dice, pool.name);
      return ConfigKind::kAllocation;
    default:
      change_grant(dice, rules.allocation);
      rules.allocation.pools[0].capacity = dice.pick({1, 1, 2, 4});
      return ConfigKind::kAllocation;
  }
}

// ----------------------------------------------------------------------------------------------------------------- reports

struct Sent {
  int64_t time = 0;
  std::string id;
  std::string value;
};

class Agent {
 public:
  Agent(std::string name, Dice& dice, const schemas::Rules& rules) : name_(std::move(name)), dice_(dice), rules_(rules) {
    clock = kStart + dice_.pick<int64_t>({0, 1, dice_.below(kDayMs), dice_.below(24) * kHourMs});
    manner_ = dice_.below(10);
    division_ = division_name(dice_.below(3));
    level_ = dice_.chance(75) ? 950 : 400;
    level_until_ = clock + dice_.between(4, 9) * kHourMs;
    second_metric_ = dice_.chance(50);
    latency_ = dice_.chance(40);
    odd_values_ = dice_.chance(10);
  }

  /// The next report: mostly a new one, sometimes late, again, or in conflict with an earlier one.
  std::string next() {
    if (forgotten_) return conflict(*std::exchange(forgotten_, std::nullopt), clock);
    if (!sent_.empty() && dice_.chance(7)) return again();
    if (!sent_.empty() && dice_.chance(5)) return fresh(clock - late_by());
    const int64_t time = step();
    clock = std::max(clock, time);
    return fresh(time);
  }

  /// One whose timestamp is that far ahead of the record's.
  std::string at(int64_t time) { return fresh(time); }

  const std::string& name() const { return name_; }
  int64_t clock = 0;

 private:
  int64_t step() {
    const int64_t kind = dice_.below(100), unit = dice_.pick({kMinuteMs, 15 * kMinuteMs, kHourMs, kHourMs, kDayMs});
    const int64_t grace = rules_.scoring.grace_ms;
    if (kind < 5) return schemas::floor_to(clock, unit) + unit + dice_.pick<int64_t>({-1, 0, 0, 1});  // on a boundary or beside it
    if (kind < 9)  // closes a window, or just not
      return std::max(clock, schemas::floor_to(clock - grace, unit) + unit + grace + dice_.pick<int64_t>({-1, 0, 0, 1}));
    if (kind < 14) return clock;  // at the same instant
    if (kind == 99) return clock + dice_.pick<int64_t>({3, 5, 26, 49, 8 * 24}) * kHourMs;
    if (manner_ < 7) return clock + dice_.between(1, 30 * kMinuteMs);
    if (manner_ < 9) return clock + dice_.between(1, 70 * kMinuteMs);
    return clock + dice_.pick<int64_t>({1, 1000, dice_.below(kHourMs), dice_.below(8 * kHourMs)});
  }

  int64_t late_by() {
    const int64_t grace = rules_.scoring.grace_ms;
    return dice_.pick<int64_t>({grace, grace + 1, grace - 1, dice_.below(grace), grace + dice_.below(kDayMs)});
  }

  double value(bool latency) {
    if (!latency && dice_.chance(6)) return static_cast<double>(2 * dice_.below(64) + 1) / 128;  // half of 10^-6 too many
    const int64_t micro = level_ * 1000 + dice_.between(-15000, 15000);
    const double share = static_cast<double>(micro) / 1e6;
    return latency ? 5 * (1 - share) : share;
  }

  Json metrics(int64_t time) {
    if (time >= level_until_) {
      level_ = level_ > 700 ? dice_.pick<int64_t>({300, 600, 780}) : dice_.pick<int64_t>({970, 950, 900});
      level_until_ = time + dice_.between(4, 12) * kHourMs;
    }
    Json out = Json::object().set("success", value(false));
    if (second_metric_) out.set("quality.ratio", value(false));
    if (latency_) out.set("p95_latency_ms", value(true));
    if (odd_values_ && dice_.chance(5)) {
      const char* name = dice_.pick({"edge.a", "größe"});
      out.set(name, dice_.pick({1e12, -1e12, 0.5, 123456789012.123456, -1.0, 5e-7}));
    }
    return out;
  }

  std::string fresh(int64_t time) {
    if (dice_.chance(2)) division_ = division_name(dice_.below(3));
    Json document = Json::object().set("agentId", name_);
    std::string id;
    if (!dice_.chance(4)) {
      id = name_ + "/" + std::to_string(++number_);
      document.set("id", id);
    }
    if (!dice_.chance(4)) document.set("divisionId", division_);
    document.set("metricSet", metrics(time)).set("timestamp", schemas::format_rfc3339_ms(time)).set("source", "sim");
    if (dice_.chance(10)) document.set("metadata", Json::object().set("job", number_).set("parts", Json::array()));
    std::string text = canonical(document);
    if (!id.empty()) sent_.push_back({time, id, text});
    return text;
  }

  /// An earlier report once more: as it was, in another spelling, or another one under its id.
  std::string again() {
    const size_t recent = std::min<size_t>(sent_.size(), 40);
    const Sent old = sent_[sent_.size() - 1 - static_cast<size_t>(dice_.below(static_cast<int64_t>(recent)))];
    // Sometimes the clock goes to where this id is remembered for the last time, or was forgotten just now, and then the id comes.
    const int64_t edge = old.time + rules_.scoring.dedupe_ms + dice_.between(-1, 1);
    if (dice_.chance(30) && edge > clock && edge < clock + 3 * kHourMs) {
      clock = edge;
      forgotten_ = old;
      return fresh(edge);
    }
    switch (dice_.below(3)) {
      case 0:
        return old.value;
      case 1: {  // the same instant in another zone, the other spelling
        std::string other = old.value;
        auto replace = [&](const std::string& from, const std::string& to) {
          if (const size_t at = other.find(from); at != std::string::npos) other.replace(at, from.size(), to);
        };
        replace("\"agentId\":", "\"agent_id\" : ");
        replace("\"metricSet\":", "\"metric_set\":");
        replace(schemas::format_rfc3339_ms(old.time), schemas::format_rfc3339_ms(old.time + kHourMs).substr(0, 23) + "999+01:00");
        return other;
      }
      default: {
        const int64_t time = clock + dice_.pick<int64_t>({0, 1, kMinuteMs, -kMinuteMs});
        clock = std::max(clock, time);
        return conflict(old, time);
      }
    }
  }

  std::string conflict(const Sent& old, int64_t time) {
    Json document = Json::object().set("agentId", name_).set("id", old.id).set("metricSet", metrics(time));
    return canonical(document.set("timestamp", schemas::format_rfc3339_ms(time)));
  }

  std::string name_;
  Dice& dice_;
  const schemas::Rules& rules_;
  std::string division_;
  int64_t manner_ = 0, level_ = 0, level_until_ = 0;
  int number_ = 0;
  bool second_metric_ = false, latency_ = false, odd_values_ = false;
  std::vector<Sent> sent_;
  std::optional<Sent> forgotten_;
};

std::string broken(Dice& dice, const std::string& good, const std::string& agent) {
  auto report = [&](const std::string& members) { return "{\"agentId\":\"" + agent + "\"" + members + "}"; };
  const std::string when = ",\"timestamp\":\"2026-01-01T00:00:00Z\"";
  switch (dice.below(12)) {
    case 0:
      return good.substr(0, 1 + static_cast<size_t>(dice.below(static_cast<int64_t>(good.size()) - 1)));
    case 1:
      return "{broken";
    case 2:
      return report(when);
    case 3:
      return report(",\"metricSet\":{\"m\":1}");
    case 4:
      return "{\"metricSet\":{\"m\":1}" + when + "}";
    case 5:
      return report(",\"metricSet\":{\"m\":1},\"timestamp\":\"2026-02-30T00:00:00Z\"");
    case 6:
      return report(",\"metricSet\":{\"m\":1},\"timestamp\":\"2026-01-01 00:00:00\"");
    case 7:
      return report(",\"metricSet\":{\"m\":\"1\"}" + when);
    case 8:
      return report(",\"metricSet\":{\"m\":1e13}" + when);
    case 9:
      return report(",\"metricSet\":{}" + when);
    case 10:
      return report(",\"id\":\"\",\"metricSet\":{\"m\":1}" + when);
    default:
      return "";
  }
}

}  // namespace

uint64_t Dice::next() {
  uint64_t z = state_ += 0x9e3779b97f4a7c15u;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

Workload make_workload(uint64_t seed, size_t size) {
  Dice dice(seed);
  Workload out;
  out.rules = random_rules(dice);
  schemas::Rules now = out.rules;
  std::vector<size_t> change_at;
  for (int64_t n = dice.below(4); n > 0; --n) change_at.push_back(static_cast<size_t>(dice.below(static_cast<int64_t>(size) + 1)));
  std::sort(change_at.begin(), change_at.end());

  std::vector<Agent> agents;
  const int64_t count = std::clamp<int64_t>(static_cast<int64_t>(size) / 30, 2, dice.between(2, 6));
  for (int64_t n = 0; n < count; ++n)
    agents.emplace_back(std::string(1, static_cast<char>('a' + n)) + "-agent-" + std::to_string(dice.below(100)), dice, now);

  int64_t wall = kStart;
  while (out.reports.size() < size) {
    for (; !change_at.empty() && change_at.front() <= out.reports.size(); change_at.erase(change_at.begin())) {
      const ConfigKind kind = change_rules(dice, now);
      out.changes.push_back({out.reports.size(), kind, now});
    }
    Agent& agent = agents[static_cast<size_t>(dice.below(count))];
    WorkloadReport report{agent.name(), agent.next(), 0};
    wall = std::max(wall, agent.clock) + dice.between(0, 2000);
    report.timestamp_ms = wall;
    if (dice.chance(4)) {
      report.value = broken(dice, report.value, agent.name());
    } else if (dice.chance(2)) {
      report.key = dice.chance(40) ? std::nullopt : std::optional<std::string>(agents[0].name() + "x");
    } else if (dice.chance(2)) {  // as far ahead as is allowed, or by 1 ms more
      const int64_t ahead = wall + kFutureMs + dice.below(2);
      report.value = agent.at(ahead);
      if (ahead == wall + kFutureMs) agent.clock = std::max(agent.clock, ahead);
    }
    out.reports.push_back(std::move(report));
  }
  for (; !change_at.empty(); change_at.erase(change_at.begin())) {
    const ConfigKind kind = change_rules(dice, now);
    out.changes.push_back({out.reports.size(), kind, now});
  }
  return out;
}

Rules oracle_rules(const schemas::Rules& rules) {
  Rules out;
  out.grace_ms = rules.scoring.grace_ms;
  out.dedupe_ms = rules.scoring.dedupe_ms;
  for (const schemas::MetricRule& m : rules.scoring.metrics)
    out.metrics.push_back({m.division, m.window, m.metric, m.up, m.low, m.high, m.weight});
  out.enter = rules.promotion.enter;
  out.leave = rules.promotion.leave;
  out.min_samples = rules.promotion.min_samples;
  out.cooldown_ms = rules.promotion.cooldown_ms;
  out.max_per_week = rules.promotion.max_per_week;
  out.deny_pools = rules.policy.deny_pools;
  out.max_delta = rules.policy.max_delta;
  out.min_confidence = rules.policy.min_confidence;
  const schemas::Grant& grant = rules.allocation.grant;
  out.grant = {grant.pool, grant.cpu, grant.gpu, grant.memory_mb, grant.priority};
  for (const schemas::Pool& pool : rules.allocation.pools) out.pools.push_back({pool.name, pool.unit, pool.capacity, pool.quotas});
  return out;
}

Section oracle_section(ConfigKind kind) {
  switch (kind) {
    case ConfigKind::kPromotion:
      return Section::kPromotion;
    case ConfigKind::kPolicy:
      return Section::kPolicy;
    case ConfigKind::kAllocation:
      return Section::kAllocation;
    default:
      CHECK(kind == ConfigKind::kScoring);
      return Section::kScoring;
  }
}

}  // namespace assay::simulation
