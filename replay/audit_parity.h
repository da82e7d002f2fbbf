// Compares a stored audit chain with the fold of audit-events, row by row.
#pragma once

#include <atomic>

#include "replay/base.h"
#include "streams/audit_sink.h"
#include "streams/fold.h"
#include "streams/log.h"

namespace assay::replay {

/// Folds audit-events again and compares every stored row: payload, link, hash and time. Returns the rows compared. The topic
/// may be ahead of the chain (the projector goes on), never behind it, unless `log_is_behind`: then rows past its end are left.
/// Errors: kParity naming the first row that differs; kIncomplete when the topic no longer begins at its start, or `stopping`.
Result<int64_t> compare_chain(streams::Log& log, const streams::TopicNames& names, const streams::StoredChain& chain,
                              bool log_is_behind = false, const std::atomic<bool>* stopping = nullptr);

}  // namespace assay::replay
