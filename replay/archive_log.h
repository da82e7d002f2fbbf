// An archive read as a log; with a live log behind it, the two as one: the archive for what retention took, the log for the rest.
#pragma once

#include <memory>

#include "replay/archive.h"
#include "streams/fold.h"
#include "streams/log.h"

namespace assay::replay {

/// Opens the archive for reading under the topic names of `names`; every write is refused. With `live`, partitions go on there
/// where the archive ends.
/// Errors: those of Archive::chains; kUsage (other numbers of partitions than `names` says); kIncomplete with `live`: a hole
/// between archive and log (named), or another history there than the one that was archived (LOG_DIVERGED).
Result<std::unique_ptr<streams::Log>> open_archive_log(std::unique_ptr<Archive> archive, const streams::TopicNames& names,
                                                       std::shared_ptr<streams::Log> live = nullptr,
                                                       const streams::SignerRegistry* pinned = nullptr);

/// Proves that the log still holds the record that the archive ends with. Nothing: retention took it or nothing was archived.
/// Errors: kIncomplete "LOG_DIVERGED …".
Result<void> check_same_history(streams::Log& live, const TopicPartition& full, const ArchiveEntry& last);

}  // namespace assay::replay
