#include "processors/agent_score.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "schemas/eval_report.h"
#include "schemas/json.h"
#include "schemas/time.h"

namespace assay::processors {
namespace {

constexpr std::string_view kDefaultDivision = "default";
constexpr double kZ95 = 1.96;

const MetricRule* find_rule(const ScoringRules& rules, std::string_view division, std::string_view window,
                            std::string_view metric) {
  for (const MetricRule& rule : rules.metrics)
    if (glob_match(rule.metric, metric) && glob_match(rule.window, window) && glob_match(rule.division, division)) return &rule;
  return nullptr;
}

double clip01(double x) { return std::clamp(x, 0.0, 1.0); }

std::string short_number(double x) {
  std::string out;
  append_number(std::round(x * 10000) / 10000, out);
  return out;
}

}  // namespace

std::string_view division_or_default(std::string_view named) { return named.empty() ? kDefaultDivision : named; }

void judge(Component& c, std::string_view division, Window window, const ScoringRules& rules) {
  static const MetricRule kUnitRule;  // up, 0 to 1, weight 1
  const Moments& moments = c.moments;
  c.mean = moments.mean();
  c.variance = moments.variance();
  c.normalized.reset();
  c.share.reset();
  c.weight = c.contribution = 0;
  const MetricRule* rule = find_rule(rules, division, window_name(window), c.metric);
  if (rule == nullptr && moments.min >= 0 && moments.max <= kMicro) rule = &kUnitRule;
  if (rule != nullptr) {
    const double range = rule->high - rule->low;
    c.weight = rule->weight;
    c.share = Share{nullptr, rule->low, rule->high, rule->up, rule->weight};
    c.mapped = c.share->normalized(c.mean);
    c.error = c.share->normalized_error(c.mean);
    // One value says nothing of its spread: take the largest a value inside the rule's range can have.
    const double variance = c.variance.value_or(range / 2 * (range / 2));
    const double slope = c.weight / range;
    c.squared_error = slope * slope * variance / static_cast<double>(moments.count);
    // Doubles decide nearly every rounding; a value that they cannot tell from a tie is taken from the integers again.
    const Share alone{&moments, rule->low, rule->high, rule->up, 1};
    c.normalized = round9_or(c.mapped, c.error, [&] { return exact_share({&alone, 1}, {&alone, 1}); }).rounded;
  }

  auto number = [&](std::optional<double> v) {
    if (v)
      append_number(*v, c.text);
    else
      c.text += "null";
  };
  c.text.clear();
  c.text.reserve(240 + c.metric.size());
  c.text += R"(,"count":)";
  c.text += std::to_string(moments.count);
  c.text += R"(,"max":)";
  number(from_micro(moments.max));
  c.text += R"(,"mean":)";
  number(c.mean);
  c.text += R"(,"metric":)";
  append_string(c.metric, c.text);
  c.text += R"(,"min":)";
  number(from_micro(moments.min));
  c.text += R"(,"normalized":)";
  number(c.normalized);
  c.text += R"(,"variance":)";
  number(c.variance);
  c.text += R"(,"weight":)";
  number(c.weight);
  c.text += '}';
}

AgentScore score_window(std::string_view agent, Window window, int64_t end, const WindowContent& content, const ScoringRules& rules,
                        const Names& names) {
  AgentScore out;
  score_window(agent, window, end, content, rules, names, out);
  return out;
}

void score_window(std::string_view agent, Window window, int64_t end, const WindowContent& content, const ScoringRules& rules,
                  const Names& names, AgentScore& out) {
  out.agent_id = agent;
  out.division_id = division_or_default(content.division);
  out.window = window;
  out.end = end;
  out.start = end - window_size_ms(window);
  out.samples = content.samples;

  std::vector<const Cell*> cells;
  for (const Cell& cell : content.cells) cells.push_back(&cell);
  std::sort(cells.begin(), cells.end(), [&](auto* a, auto* b) { return names.name(a->metric) < names.name(b->metric); });
  out.components.resize(cells.size());
  for (size_t i = 0; i < cells.size(); ++i) {
    out.components[i].metric = names.name(cells[i]->metric);
    out.components[i].moments = cells[i]->moments;
    judge(out.components[i], out.division_id, window, rules);
  }
  out.combine();
}

void AgentScore::combine() {
  score = lower = upper = confidence = std::nullopt;
  double weights = 0, squared_error = 0;
  size_t ruled = 0;
  for (const Component& c : components) {
    if (!c.share) continue;
    ++ruled;
    weights += c.weight;
    squared_error += c.squared_error;
  }
  if (weights <= 0) {
    for (Component& c : components) c.contribution = 0;
    return;
  }
  // Doubles decide nearly every rounding here, too.
  std::vector<Share> shares;
  auto all_shares = [&]() -> const std::vector<Share>& {
    for (const Component& c : components)
      if (c.share && shares.size() < ruled) shares.emplace_back(*c.share).moments = &c.moments;
    return shares;
  };
  double sum = 0, largest_error = 0;
  for (Component& c : components) {
    if (!c.share) continue;
    const double contribution = c.weight * c.mapped / weights;
    const double slack = c.error + std::ldexp(static_cast<double>(4 + ruled), -53);
    c.contribution = round9_or(contribution, slack, [&] {
                       Share alone = *c.share;
                       alone.moments = &c.moments;
                       return exact_share({&alone, 1}, all_shares());
                     }).rounded;
    sum += contribution;
    if (c.weight > 0) largest_error = std::max(largest_error, slack);
  }
  largest_error += std::ldexp(static_cast<double>(ruled), -53);
  const Exact9 exact = round9_or(sum, largest_error, [&] { return exact_share(all_shares(), all_shares()); });
  const double margin = kZ95 * (std::sqrt(squared_error) / weights);
  const double low = clip01(exact.value - margin), high = clip01(exact.value + margin), sure = 1 - (high - low);
  const double slack = largest_error + margin * std::ldexp(static_cast<double>(32 + 4 * ruled), -53) + std::ldexp(2, -53);
  const bool doubtful = near_tie9(low, slack) || near_tie9(high, slack) || near_tie9(sure, 2 * slack);
  const Bounds9 bounds = doubtful ? exact_bounds(all_shares()) : Bounds9{round9(low), round9(high), round9(sure)};
  score = exact.rounded;
  lower = bounds.lower;
  upper = bounds.upper;
  confidence = bounds.confidence;
}

std::string AgentScore::rationale() const {
  size_t weighted = 0;
  const Component* best = nullptr;
  for (const Component& c : components) {
    if (c.weight <= 0) continue;
    ++weighted;
    if (best == nullptr || c.contribution > best->contribution) best = &c;
  }
  size_t listed = 200;
  for (const Component& c : components) listed += c.share ? 0 : c.metric.size() + 2;
  std::string out;
  out.reserve(listed);
  const std::string reports =
      std::to_string(samples) + (samples == 1 ? " report" : " reports") + " in " + std::string(window_name(window));
  if (score) {
    out += "Score " + short_number(*score) + " from " + std::to_string(weighted) + " of " + std::to_string(components.size()) +
           " metrics over " + reports + "; " + best->metric + " contributes most (" + short_number(best->contribution) + ")";
  } else {
    out += "No score: none of " + std::to_string(components.size()) + " metrics over " + reports + " has a weight";
  }
  bool first = true;
  for (const Component& c : components) {
    if (c.share) continue;
    out += std::exchange(first, false) ? "; unconfigured: " : ", ";
    out += c.metric;
  }
  out += '.';
  return out;
}

std::string AgentScore::to_json(std::string_view config_version, WallTime computed_at) const {
  // Written straight in canonical order: one such record per closed window and per open window that changed.
  const std::string said = rationale();
  size_t size = 600 + agent_id.size() + division_id.size() + config_version.size() + said.size();
  for (const Component& c : components) size += 40 + c.text.size();
  std::string out;
  out.reserve(size);
  auto number = [&](std::optional<double> v) {
    if (v)
      append_number(*v, out);
    else
      out += "null";
  };
  auto member = [&](std::string_view name) { out += name; };
  member(R"({"agentId":)");
  append_string(agent_id, out);
  member(R"(,"components":[)");
  for (size_t i = 0; i < components.size(); ++i) {
    const Component& c = components[i];
    if (i != 0) out.push_back(',');
    member(R"({"contribution":)");
    append_number(c.contribution, out);
    out += c.text;
  }
  member(R"(],"computedAt":)");
  append_string(format_rfc3339_ms(computed_at.value), out);
  member(R"(,"confidence":)");
  number(confidence);
  member(R"(,"configVersion":)");
  append_string(config_version, out);
  member(R"(,"divisionId":)");
  append_string(division_id, out);
  member(R"(,"lower":)");
  number(lower);
  member(R"(,"rationale":)");
  append_string(said, out);
  member(R"(,"samples":)");
  out += std::to_string(samples);
  member(R"(,"score":)");
  number(score);
  member(R"(,"upper":)");
  number(upper);
  member(R"(,"window":)");
  append_string(window_name(window), out);
  member(R"(,"windowEnd":)");
  append_string(format_rfc3339_ms(end), out);
  member(R"(,"windowStart":)");
  append_string(format_rfc3339_ms(start), out);
  out.push_back('}');
  return out;
}

}  // namespace assay::processors
