#include "processors/agent_score.h"

#include <algorithm>
#include <cmath>

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

AgentScore score_window(std::string_view agent, Window window, int64_t end, const WindowContent& content, const ScoringRules& rules,
                        const Names& names) {
  AgentScore out;
  out.agent_id = agent;
  out.division_id = content.division.empty() ? kDefaultDivision : content.division;
  out.window = window;
  out.end = end;
  out.start = end - window_size_ms(window);
  out.samples = content.samples;

  std::vector<const Cell*> cells;
  for (const Cell& cell : content.cells) cells.push_back(&cell);
  std::sort(cells.begin(), cells.end(), [&](auto* a, auto* b) { return names.name(a->metric) < names.name(b->metric); });

  static const MetricRule kUnitRule;  // up, 0 to 1, weight 1
  double weights = 0;
  double squared_error = 0;
  std::vector<Share> shares;                  // of the metrics that have a rule
  std::vector<std::pair<size_t, double>> of;  // the component of each share, and its mean normalized
  for (const Cell* cell : cells) {
    const Moments& m = cell->moments;
    Component c;
    c.metric = names.name(cell->metric);
    c.count = m.count;
    c.mean = m.mean();
    c.variance = m.variance();
    c.min = from_micro(m.min);
    c.max = from_micro(m.max);
    const MetricRule* rule = find_rule(rules, out.division_id, window_name(window), c.metric);
    if (rule == nullptr && m.min >= 0 && m.max <= kMicro) rule = &kUnitRule;
    if (rule == nullptr) {
      out.unconfigured.push_back(c.metric);
    } else {
      const double range = rule->high - rule->low;
      const Share& share = shares.emplace_back(Share{&m, rule->low, rule->high, rule->up, rule->weight});
      of.emplace_back(out.components.size(), share.normalized(c.mean));
      c.weight = rule->weight;
      weights += c.weight;
      // One value says nothing of its spread: take the largest a value inside the rule's range can have.
      const double variance = c.variance.value_or(range / 2 * (range / 2));
      const double slope = c.weight / range;
      squared_error += slope * slope * variance / static_cast<double>(c.count);
    }
    out.components.push_back(std::move(c));
  }

  // Doubles decide nearly every rounding; a value that they cannot tell from a tie is taken from the integers again.
  double sum = 0, largest_error = 0;
  for (size_t i = 0; i < shares.size(); ++i) {
    Component& c = out.components[of[i].first];
    const double normalized = of[i].second, error = shares[i].normalized_error(c.mean);
    Share alone = shares[i];
    alone.weight = 1;
    c.normalized = round9_or(normalized, error, [&] { return exact_share({&alone, 1}, {&alone, 1}); }).rounded;
    if (weights > 0) {
      const double contribution = c.weight * normalized / weights;
      const double slack = error + std::ldexp(static_cast<double>(4 + shares.size()), -53);
      c.contribution = round9_or(contribution, slack, [&] { return exact_share({&shares[i], 1}, shares); }).rounded;
      sum += contribution;
      if (c.weight > 0) largest_error = std::max(largest_error, slack);
    }
  }
  if (weights > 0) {
    largest_error += std::ldexp(static_cast<double>(shares.size()), -53);
    const Exact9 score = round9_or(sum, largest_error, [&] { return exact_share(shares, shares); });
    const double margin = kZ95 * (std::sqrt(squared_error) / weights);
    const double lower = clip01(score.value - margin);
    const double upper = clip01(score.value + margin);
    const double confidence = 1 - (upper - lower);
    const double slack = largest_error + margin * std::ldexp(static_cast<double>(32 + 4 * shares.size()), -53) + std::ldexp(2, -53);
    const bool doubtful = near_tie9(lower, slack) || near_tie9(upper, slack) || near_tie9(confidence, 2 * slack);
    const Bounds9 bounds = doubtful ? exact_bounds(shares) : Bounds9{round9(lower), round9(upper), round9(confidence)};
    out.score = score.rounded;
    out.lower = bounds.lower;
    out.upper = bounds.upper;
    out.confidence = bounds.confidence;
  }
  return out;
}

std::string AgentScore::rationale() const {
  size_t weighted = 0;
  const Component* best = nullptr;
  for (const Component& c : components) {
    if (c.weight <= 0) continue;
    ++weighted;
    if (best == nullptr || c.contribution > best->contribution) best = &c;
  }
  std::string out;
  const std::string reports =
      std::to_string(samples) + (samples == 1 ? " report" : " reports") + " in " + std::string(window_name(window));
  if (score) {
    out = "Score " + short_number(*score) + " from " + std::to_string(weighted) + " of " + std::to_string(components.size()) +
          " metrics over " + reports + "; " + best->metric + " contributes most (" + short_number(best->contribution) + ")";
  } else {
    out = "No score: none of " + std::to_string(components.size()) + " metrics over " + reports + " has a weight";
  }
  if (!unconfigured.empty()) {
    out += "; unconfigured: ";
    for (size_t i = 0; i < unconfigured.size(); ++i) out += (i == 0 ? "" : ", ") + unconfigured[i];
  }
  return out + ".";
}

std::string AgentScore::to_json(std::string_view config_version, WallTime computed_at) const {
  // Written straight in canonical order: one such record per closed window and per open window that changed.
  std::string out;
  out.reserve(400 + components.size() * 220);
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
    member(R"(,"count":)");
    out += std::to_string(c.count);
    member(R"(,"max":)");
    append_number(c.max, out);
    member(R"(,"mean":)");
    append_number(c.mean, out);
    member(R"(,"metric":)");
    append_string(c.metric, out);
    member(R"(,"min":)");
    append_number(c.min, out);
    member(R"(,"normalized":)");
    number(c.normalized);
    member(R"(,"variance":)");
    number(c.variance);
    member(R"(,"weight":)");
    append_number(c.weight, out);
    out.push_back('}');
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
  append_string(rationale(), out);
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
