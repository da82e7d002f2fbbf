// From the content of a window to an AgentScore: division, square root and comparison happen here, once, at the end.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "processors/panes.h"
#include "schemas/config.h"

namespace assay::processors {

struct Component {
  std::string metric;
  uint64_t count = 0;
  double mean = 0;
  std::optional<double> variance;  // n - 1; nothing for n < 2
  double min = 0;
  double max = 0;
  std::optional<double> normalized;  // in [0, 1]; nothing for a metric without a rule that does not fit [0, 1] by itself
  double weight = 0;
  double contribution = 0;
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
  std::vector<std::string> unconfigured;

  /// One plain sentence.
  std::string rationale() const;
  /// Canonical JSON of the record, as proto/agent_score.proto describes it.
  std::string to_json(std::string_view config_version, WallTime computed_at) const;
};

/// Scores a window. Pure. Rounded once, to nine decimals, half to even.
AgentScore score_window(std::string_view agent, Window window, int64_t end, const WindowContent& content, const ScoringRules& rules,
                        const Names& names);

}  // namespace assay::processors
