// What would have been decided by other rules: both sets fold the same reports, and what only one of them decides is told.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>

#include "replay/base.h"
#include "schemas/config.h"
#include "schemas/json.h"
#include "streams/fold.h"
#include "streams/log.h"

namespace assay::replay {

struct WhatIfOptions {
  streams::TopicNames names;
  std::optional<int64_t> since_ms, until_ms;     // behaviour: only decisions with since <= ts < until are told
  size_t examples = 20;                          // behaviour: 0: every difference
  std::map<std::string, double> price_per_hour;  // behaviour: of a unit ("gpu"), for the money
  unsigned threads = 0;                          // performance; 0: one per core
  std::function<void(int64_t done, int64_t total)> progress;
};

struct WhatIf {
  /// {"differences","byKind","examples","totals","byDivision","byEntity","pools","money","scores","rules","reports"}
  Json document;
  /// For plots: {"decisions":[{"day","present","other"}],"promoted":{…},"pools":[…]}
  Json series;
};

/// Folds every report twice, from the first on, with each set of rules throughout, and compares the decisions.
///
/// A difference is an event of promotion.events.v1 or allocation.events.v1 that only one of the two runs has. Two events are the
/// same when entity, ts, and what was decided are: action, what was wanted and what stopped it; allocation, state, pool and
/// amounts. Scores, confidence and words are not compared. Promotions of several partitions reach the pools in the order of their
/// ts, then partition; within one partition in its own order. Errors: kIncomplete when reports are gone; those of the log. Reads
/// only.
Result<WhatIf> what_if(streams::Log& log, const Rules& present, const Rules& other, const WhatIfOptions& options);

/// One page with everything in it: tables, plots as inline SVG, light or dark as the reader has it.
std::string what_if_page(const WhatIf& found);

}  // namespace assay::replay
