// The records of one key, and what was known at an instant: from an index where the log has one, else by reading all of it.
#pragma once

#include <functional>
#include <string_view>

#include "replay/base.h"
#include "streams/log.h"

namespace assay::replay {

using EachRecord = std::function<Result<void>(const RecordView&)>;

/// What a log can do besides that knows where the records of a key lie. Both speak of places from `from` on as far as they
/// know them, and return where that ends: the rest is to be read.
class KeyIndexed {
 public:
  virtual ~KeyIndexed() = default;
  /// Calls `each` for the records of the key in [from, to), in order. Returns where to go on, at most `to`.
  virtual Result<Offset> each_of_key(const TopicPartition& tp, std::string_view key, Offset from, Offset to,
                                     const EachRecord& each) = 0;
  /// The place of the first record in [from, to) whose timestamp is later than `instant`, or where to go on.
  virtual Result<Offset> first_later_than(const TopicPartition& tp, WallTime instant, Offset from, Offset to) = 0;
};

/// Calls `each` for the records of the key in [from, to), in order. Cost: the blocks that hold them, of a KeyIndexed log; else all.
/// Errors: those of `each`, RangeReader::read.
Result<void> read_key(streams::Log& log, const TopicPartition& tp, std::string_view key, Offset from, Offset to,
                      const EachRecord& each);

/// The end of what was known by an instant: the place of the first record whose timestamp is later, else the end.
/// Errors: kIncomplete when records before it are gone.
Result<Offset> known_by(streams::Log& log, const TopicPartition& tp, WallTime instant);

/// Errors: kIncomplete naming the records that are gone, when the partition no longer begins with its first.
Result<streams::OffsetRange> whole_range(streams::Log& log, const TopicPartition& tp, std::string_view what);

}  // namespace assay::replay
