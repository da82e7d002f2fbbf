// Reads partitions up to known places: to where they end now, for folds that must be complete before anything else begins, or
// just the records that somebody has to look at.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <vector>

#include "streams/log.h"

namespace assay::streams {

/// Calls `take` for each record from the start of each partition to its last stable offset as it was when the call began, in
/// order within a partition, until it returns false. Returns where each partition was left.
/// Errors: those of the log and of `take`; kUnreachable when nothing comes for a minute.
Result<std::map<TopicPartition, Offset>> read_to_end(
    Log& log, const std::vector<TopicPartition>& partitions,
    const std::function<Result<bool>(const TopicPartition&, const RecordView&)>& take);

/// The same for given ranges, which may be empty. A record that is not there (a marker, a compacted one) is passed over.
/// `stop`, where given, ends a wait for the log. Errors: kAborted when stopped.
Result<std::map<TopicPartition, Offset>> read_ranges(
    Log& log, const std::map<TopicPartition, OffsetRange>& ranges,
    const std::function<Result<bool>(const TopicPartition&, const RecordView&)>& take, const std::atomic<bool>* stop = nullptr);

/// Every partition of a topic. Errors: kNotFound.
Result<std::vector<TopicPartition>> partitions_of(Log& log, const std::string& topic);

}  // namespace assay::streams
