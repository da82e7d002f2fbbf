// The scores of one agent at any past instant, with all that is known now or with what had arrived by another instant.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "processors/agent_score.h"
#include "replay/base.h"
#include "streams/fold.h"
#include "streams/log.h"

namespace assay::replay {

struct ScoreQuestion {
  std::string agent;
  int64_t at_ms = 0;                 // each window ends at its last boundary not after it
  std::optional<WallTime> known_by;  // behaviour: only the records before the partition's first with a later timestamp
};

/// The windows of the agent that hold an accepted report: 1h, 24h, 7d, scored with these rules throughout.
/// Errors: kIncomplete naming the records that are gone; those of the log. Cost: that of read_key.
Result<std::vector<processors::AgentScore>> score_at(streams::Log& log, const streams::TopicNames& names, const Rules& rules,
                                                     const ScoreQuestion& question);

}  // namespace assay::replay
