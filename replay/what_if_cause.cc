#include "replay/what_if_cause.h"

#include <algorithm>

#include "processors/intake.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"

namespace assay::replay {
namespace {

constexpr int64_t kHours = 3;
constexpr std::array<std::string_view, 2> kBy = {"by the present rules", "by the other rules"};

std::string number(double value) {
  std::string out;
  append_number(value, out);
  return out;
}

}  // namespace

void AgentsSeen::score(std::string_view agent_score) {
  auto row = parse_json(agent_score);
  if (!row) return;
  AgentSeen& agent = agents_[std::string(row->string_or("agentId", ""))];
  const int64_t end = parse_rfc3339_ms(row->string_or("windowEnd", "")).value_or(0);
  const std::string_view window = row->string_or("window", "");
  if (window == "24h") {
    agent.day_end_ms = end;
    agent.day_lower = processors::optional_number(*row, "lower");
  } else if (window == "1h") {
    agent.hours.push_back({end, processors::optional_number(*row, "score"), processors::integer_of(*row, "samples")});
    if (agent.hours.size() > kHours) agent.hours.erase(agent.hours.begin());
  }
}

void AgentsSeen::decided(const Decision& decision) {
  if (decision.kind != "promotion" && decision.kind != "demotion") return;
  AgentSeen& agent = agents_[decision.entity];
  agent.promoted = decision.kind == "promotion";
  agent.decided_ms = decision.ts_ms;
}

AgentSeen AgentsSeen::of(const std::string& agent) const {
  auto it = agents_.find(agent);
  return it == agents_.end() ? AgentSeen() : it->second;
}

Causes::Causes(const std::vector<Decision>& present, const std::vector<Decision>& other, const Rules& present_rules,
               const Rules& other_rules)
    : rules_{&present_rules, &other_rules} {
  for (const Decision& d : present) by_entity_[0][d.entity].push_back(&d);
  for (const Decision& d : other) by_entity_[1][d.entity].push_back(&d);
}

std::string Causes::why(const Decision& decision, size_t side) const {
  const size_t there = 1 - side;
  return std::string(kBy[there]) + " " + (decision.promotion ? why_not_decided(decision, there) : why_not_granted(decision, there));
}

std::string Causes::why_not_decided(const Decision& decision, size_t there) const {
  const PromotionRules& rules = rules_[there]->promotion;
  const AgentSeen& seen = decision.there;
  if (auto entity = by_entity_[there].find(decision.entity); entity != by_entity_[there].end())
    for (const Decision* d : entity->second)
      if (d->promotion && d->ts_ms == decision.ts_ms)
        return "there is a " + d->kind + " at that hour: " + std::string(d->event.string_or("rationale", ""));
  const Json* evidence = decision.event.find("evidence");
  const bool promote = decision.kind == "promotion" || (evidence != nullptr && evidence->string_or("wanted", "") == "promote");
  if (promote && seen.promoted) return "it was promoted already, at " + format_rfc3339_ms(seen.decided_ms);
  if (!promote && !seen.promoted) return "it is not promoted then";
  for (int64_t back = 0; back < kHours; ++back) {
    const int64_t end = decision.ts_ms - back * kHourMs;
    const auto hour = std::ranges::find(seen.hours, end, &AgentSeen::Hour::end_ms);
    const std::string of = "the 1h window that ends at " + format_rfc3339_ms(end);
    if (hour == seen.hours.end()) return of + " had not closed yet, or holds no report";
    if (!hour->score) return of + " has no score";
    if (promote && *hour->score < rules.enter)
      return of + " scores " + number(*hour->score) + ", below promotion.enter = " + number(rules.enter);
    if (promote && hour->samples < rules.min_samples)
      return of + " holds " + std::to_string(hour->samples) +
             " reports, fewer than promotion.min_samples = " + std::to_string(rules.min_samples);
    if (!promote && *hour->score >= rules.leave)
      return of + " scores " + number(*hour->score) + ", not below promotion.leave = " + number(rules.leave);
  }
  if (promote && (seen.day_end_ms != decision.ts_ms || !seen.day_lower)) return "the 24h window of that hour has no lower bound";
  if (promote && *seen.day_lower < rules.enter)
    return "the 24h lower bound is " + number(*seen.day_lower) + ", below promotion.enter = " + number(rules.enter);
  return "the same rule fires, and was told before that hour";
}

std::string Causes::why_not_granted(const Decision& decision, size_t there) const {
  const std::string_view allocation = decision.event.string_or("allocationId", "");
  const Decision *last = nullptr, *asked = nullptr;
  if (auto entity = by_entity_[there].find(decision.entity); entity != by_entity_[there].end())
    for (const Decision* d : entity->second) {
      if (!d->promotion && d->event.string_or("allocationId", "") == allocation) last = d;
      if (d->kind == "promotion" && d->ts_ms <= decision.ts_ms) asked = d;
    }
  if (last != nullptr)
    return "this request comes to a " + last->kind + " at " + format_rfc3339_ms(last->ts_ms) + ": " +
           std::string(last->event.string_or("reason", ""));
  if (asked != nullptr) return "it asks with another promotion, that of " + format_rfc3339_ms(asked->ts_ms);
  return "nothing is asked for: it is not promoted by then";
}

}  // namespace assay::replay
