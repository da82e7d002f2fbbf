// Compares a stored audit chain with the fold of audit-events, row by row.
#pragma once

#include <atomic>

#include "replay/base.h"
#include "replay/replayer.h"
#include "streams/audit_sink.h"
#include "streams/fold.h"
#include "streams/log.h"

namespace assay::replay {

/// Folds audit-events again and compares every stored row: payload, link, hash and time. Returns the rows compared. The topic
/// may be ahead of the chain (the projector goes on), never behind it, unless `log_is_behind`: then rows past its end are left.
/// Errors: kParity naming the first row that differs; kIncomplete when the topic no longer begins at its start, or `stopping`.
Result<int64_t> compare_chain(streams::Log& log, const streams::TopicNames& names, const streams::StoredChain& chain,
                              bool log_is_behind = false, const std::atomic<bool>* stopping = nullptr);

/// Where the chain ends that goes with a replay up to `options.until` and `options.until_offsets`: before the first record that a
/// commit wrote which was left out, or that came from elsewhere and is later. A chain has no holes, so what stands behind that is
/// left as well. Errors: those of the log. Cost: reads audit-events.
Result<Offset> chain_end(streams::Log& log, const ReplayOptions& options, const std::vector<ReplayedTask>& tasks);

}  // namespace assay::replay
