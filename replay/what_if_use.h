// What decisions do to pools: units held over time, waits, quotas, and what it costs.
#pragma once

#include <array>
#include <map>
#include <string>
#include <vector>

#include "replay/what_if.h"
#include "replay/what_if_cause.h"

namespace assay::replay {

/// Both runs side by side: [0] present, [1] other. Decisions in the order of their ts, allocations as they were folded: their ts
/// are those of agents with clocks of their own, and only in folding order does a pool never hold more than its capacity.
class UseOfPools {
 public:
  UseOfPools(const std::array<std::vector<Decision>, 2>& decisions, const std::array<std::vector<Decision>, 2>& allocations,
             const std::array<const Rules*, 2>& rules, const WhatIfOptions& options);

  /// [{"pool","unit","present":{…},"other":{…}}] with capacity, unitHours, peakUsed, waits, waitHours and, by division, quota,
  /// unitHours, peakHeld.
  Json pools() const;
  /// {"present","other","difference","byDivision":{division:{…}}}, null without prices.
  Json money() const;
  /// What the plots show.
  Json series() const;

 private:
  struct Division {
    double unit_hours = 0;
    int64_t held = 0, peak = 0;
  };
  struct Pool {
    std::string unit;
    int64_t used = 0, peak = 0, waits = 0;
    double unit_hours = 0, wait_hours = 0;
    std::map<std::string, Division> divisions;
    std::vector<std::pair<int64_t, int64_t>> use;  // (greatest ts so far, units), one for each change
  };
  using Pools = std::map<std::string, Pool>;
  void fold(size_t side, const std::vector<Decision>& allocations);
  double hours(int64_t from, int64_t to) const;

  const std::array<std::vector<Decision>, 2>& decisions_;
  std::array<const Rules*, 2> rules_;
  const WhatIfOptions& options_;
  int64_t end_ms_ = 0;  // of the last decision: what is held then is held no longer
  std::array<Pools, 2> pools_;
};

}  // namespace assay::replay
