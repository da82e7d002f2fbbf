// What must hold of every run that settled: state is the fold of the log, by manifests and by rows, instants never run backwards,
// and the chain is whole.
#pragma once

#include <optional>
#include <string>

#include "replay/simulator.h"

namespace assay::replay {

/// What is wrong, or nothing: digests against the rows and against a replay, every output record against the replay's, the chain
/// against its links, its hashes and the records of audit-events. Of a damaged run, the rows and the chain in itself.
std::optional<std::string> check_remains(const SimRemains& remains, const processors::ScoringOptions& scoring);

}  // namespace assay::replay
