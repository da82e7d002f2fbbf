// From the content of a window to an AgentScore: division, square root and comparison happen here, once, at the end.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "processors/panes.h"
#include "schemas/config.h"

namespace assay::processors {

/// What one metric says of a window. It follows from the metric's moments and its rule alone, but for the contribution.
struct Component {
  std::string metric;
  Moments moments;
  double mean = 0;
  std::optional<double> variance;    // n - 1; nothing for n < 2
  std::optional<double> normalized;  // in [0, 1]; nothing for a metric without a rule that does not fit [0, 1] by itself
  double weight = 0;
  double contribution = 0;

  // What contributions and bounds are made of, for a metric that has a rule.
  std::optional<Share> share;  // its moments are set where it is used
  double mapped = 0;           // `normalized` before it is rounded
  double error = 0;            // how far `mapped` may be off
  double squared_error = 0;    // its part of SE²
  std::string text;            // its JSON, from the member after the contribution on
};

struct AgentScore {
  std::string agent_id;
  std::string division_id;
  Window window = Window::k1h;
  int64_t start = 0;  // [start, end), ms
  int64_t end = 0;
  std::optional<double> score, lower, upper, confidence;  // all or none
  uint64_t samples = 0;
  std::vector<Component> components;  // by metric name

  /// Makes contributions, score and bounds of the components. Rounded once, to nine decimals, half to even.
  void combine();
  /// One plain sentence.
  std::string rationale() const;
  /// Canonical JSON of the record, as proto/agent_score.proto describes it.
  std::string to_json(std::string_view config_version, WallTime computed_at) const;
};

/// Judges a metric of a window by the rules: makes of its name and moments all but the contribution.
/// Pure. Cost: most of what a score costs.
void judge(Component& component, std::string_view division, Window window, const ScoringRules& rules);

/// The division that a window is of when its last report named this one.
std::string_view division_or_default(std::string_view named);

/// Scores a window. Pure. Rounded once, to nine decimals, half to even.
AgentScore score_window(std::string_view agent, Window window, int64_t end, const WindowContent& content, const ScoringRules& rules,
                        const Names& names);
void score_window(std::string_view agent, Window window, int64_t end, const WindowContent& content, const ScoringRules& rules,
                  const Names& names, AgentScore& out);  // in the room that it has

}  // namespace assay::processors
