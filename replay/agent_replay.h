// Rebuilds one agent: what the tasks of its partition keep of it, and each record that they wrote about it.
#pragma once

#include <string>
#include <vector>

#include "replay/base.h"
#include "replay/replayer.h"
#include "state/store.h"

namespace assay::replay {

/// Folds the agent's records again as the manifests of scoring and promotion say, into fresh stores, and compares every closed
/// score, promotion event and audit row of a decision that comes out with the one on the log, and the other way round. Pools are
/// shared: allocation cannot be rebuilt for one. Of the options, names, scoring and check_outputs count.
/// Errors: kParity naming the first record that differs; kIncomplete; kRefused when a store is not empty; those of the log.
/// Cost: that of read_key for the agent, and with check_outputs all of audit-events.
Result<std::vector<ReplayedTask>> replay_agent(streams::Log& log, const streams::StoreFactory& stores, const ReplayOptions& options,
                                               const std::string& agent);

/// Compares the agent's rows in a store that replay_agent() made with those of a running one of the same commit.
/// Errors: kParity naming the first row that differs; those of the stores.
Result<void> compare_agent(const streams::TaskSpec& spec, const std::string& agent, const state::Reader& rebuilt,
                           const state::Reader& running);

}  // namespace assay::replay
