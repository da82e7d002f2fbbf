// The 24h window of an agent as it closes hour by hour: what did not change since the last hour is not made again.
#pragma once

#include <cstdint>
#include <string_view>
#include <vector>

#include "processors/agent_score.h"
#include "processors/panes.h"

namespace assay::processors {

/// Gives for each end what score_window would give: one hour is added and one is taken out, and only metrics that either
/// held are judged again. Derived and never stored.
class RunningDay {
 public:
  /// The score of [end - 24h, end); nullptr when no report lies there. It lives until the next call.
  /// Requires: the panes are settled to `end`; `rules_epoch` differs when the rules do.
  const AgentScore* close(std::string_view agent, int64_t end, const Panes& panes, const ScoringRules& rules, uint64_t rules_epoch,
                          const Names& names);

  /// Memory held, about.
  size_t bytes() const { return sizeof(*this) + metrics_.size() * (sizeof(Component) + 300); }

 private:
  void move(const Panes& panes, const ScoringRules& rules, const Names& names);
  size_t find(uint32_t metric, size_t guess) const;
  void find_extremes(size_t at);

  int64_t end_ = Panes::kNever;
  uint64_t rules_epoch_ = 0;
  AgentScore score_;
  std::vector<uint32_t> metrics_;   // of score_.components
  std::vector<const Pane*> hours_;  // of the day being closed
};

}  // namespace assay::processors
