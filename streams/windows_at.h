// Windows of a past instant, gathered report by report: what answers where the panes of the stores have let go of it.
#pragma once

#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "processors/scoring.h"
#include "streams/base.h"

namespace assay::streams {

/// A window to be scored: which, and where it ends.
using WindowTarget = std::pair<Window, int64_t>;

/// Where windows end that are asked for at an instant: the last boundary not after it.
constexpr int64_t last_boundary(int64_t at_ms, Window w) { return floor_to(at_ms, pane_size_ms(w)); }

/// Folds records of one partition of the reports again, from its first on, with the same rules throughout, and keeps what the
/// windows that are asked for hold.
class WindowsAt {
 public:
  /// `agents`: a glob; the windows of all others are not gathered.
  WindowsAt(const Rules& rules, std::set<WindowTarget> targets, std::string agents, int32_t partition);

  /// Folds the next record. Whoever leaves records out leaves out whole agents: an agent's clock is its own.
  void fold(const RecordView& record);

  /// The windows that hold an accepted report, by agent id, then in the order of their targets.
  std::vector<processors::AgentScore> scores() const;

 private:
  void accept(const EvalReport& report, std::string_view id);

  Rules rules_;
  std::set<WindowTarget> targets_;
  std::string agents_;
  int32_t partition_;
  std::unique_ptr<state::Store> store_;  // empty: the fold holds everything itself
  std::unique_ptr<processors::Rows> rows_;
  std::unique_ptr<processors::Scoring> scoring_;
  processors::Outputs outputs_;
  processors::Names names_;
  std::map<std::string, std::map<WindowTarget, processors::Pane>, std::less<>> found_;
};

}  // namespace assay::streams
