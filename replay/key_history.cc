#include "replay/key_history.h"

#include "streams/refold.h"

namespace assay::replay {

Result<streams::OffsetRange> whole_range(streams::Log& log, const TopicPartition& tp, std::string_view what) {
  TRY_ASSIGN(const streams::OffsetRange range, log.range(tp));
  if (range.start > Offset(0))
    return Error{Errc::kIncomplete, std::string(what) + ": records 0 to " + std::to_string(range.start.value - 1) + " of " +
                                        to_string(tp) + " are gone from " + log.describe()};
  return range;
}

Result<void> read_key(streams::Log& log, const TopicPartition& tp, std::string_view key, Offset from, Offset to,
                      const EachRecord& each) {
  if (auto* indexed = dynamic_cast<KeyIndexed*>(&log)) {
    TRY_ASSIGN(from, indexed->each_of_key(tp, key, from, to, each));
  }
  if (from >= to) return {};
  streams::RangeReader ranges(log);
  return ranges.read(tp, from, to, [&](std::span<const RecordView> records) -> Result<void> {
    for (const RecordView& record : records)
      if (record.key == key) TRY(each(record));
    return {};
  });
}

Result<Offset> known_by(streams::Log& log, const TopicPartition& tp, WallTime instant) {
  TRY_ASSIGN(const streams::OffsetRange range, whole_range(log, tp, "finding what was known"));
  Offset from = range.start;
  if (auto* indexed = dynamic_cast<KeyIndexed*>(&log)) {
    TRY_ASSIGN(from, indexed->first_later_than(tp, instant, from, range.end));
  }
  // Pieces, so that a log of years is not read on behind the answer.
  constexpr int64_t kPiece = 50'000;
  streams::RangeReader ranges(log);
  while (from < range.end) {
    const Offset to = std::min(range.end, from + kPiece);
    std::optional<Offset> later;
    TRY(ranges.read(tp, from, to, [&](std::span<const RecordView> records) -> Result<void> {
      for (const RecordView& record : records)
        if (!later && record.timestamp > instant) later = record.offset;
      return {};
    }));
    if (later) return *later;
    from = to;
  }
  return range.end;
}

}  // namespace assay::replay
