#include "streams/read_to_end.h"

namespace assay::streams {
namespace {

constexpr Milliseconds kWait{200};
constexpr int kWaitsMax = 300;  // a log that says nothing for a minute is not there
constexpr size_t kBatch = 1000;

}  // namespace

Result<std::map<TopicPartition, Offset>> read_to_end(
    Log& log, const std::vector<TopicPartition>& partitions,
    const std::function<Result<bool>(const TopicPartition&, const RecordView&)>& take) {
  std::map<TopicPartition, OffsetRange> ranges;
  for (const TopicPartition& tp : partitions) {
    TRY_ASSIGN(ranges[tp], log.range(tp));
  }
  return read_ranges(log, ranges, take);
}

Result<std::map<TopicPartition, Offset>> read_ranges(
    Log& log, const std::map<TopicPartition, OffsetRange>& ranges,
    const std::function<Result<bool>(const TopicPartition&, const RecordView&)>& take, const std::atomic<bool>* stop) {
  std::map<TopicPartition, Offset> places, ends, from;
  for (const auto& [tp, range] : ranges) {
    places[tp] = range.start;
    if (range.start < range.end) {
      from[tp] = range.start;
      ends[tp] = range.end;
    }
  }
  if (from.empty()) return places;
  TRY_ASSIGN(auto reader, log.open_reader(from));
  int waits = 0;
  while (!ends.empty()) {
    if (stop != nullptr && *stop) return Error{Errc::kAborted, "reading " + to_string(ends.begin()->first) + ": stopped"};
    TRY_ASSIGN(std::optional<Fetch> fetch, reader->poll(kWait, kBatch));
    if (!fetch) {
      if (++waits == kWaitsMax)
        return Error{Errc::kUnreachable, "read " + to_string(ends.begin()->first) + " of " + log.describe() +
                                             ": nothing came for a minute, the end is " +
                                             std::to_string(ends.begin()->second.value)};
      continue;
    }
    waits = 0;
    auto end = ends.find(fetch->from);
    if (end == ends.end()) continue;
    for (const RecordView& record : fetch->records) {
      if (record.offset >= end->second) break;
      TRY_ASSIGN(bool more, take(fetch->from, record));
      if (!more) return places;
      places[fetch->from] = record.offset + 1;
    }
    places[fetch->from] = std::min(fetch->next, end->second);
    if (fetch->next >= end->second) {
      reader->pause(fetch->from);
      ends.erase(end);
    }
  }
  return places;
}

Result<std::vector<TopicPartition>> partitions_of(Log& log, const std::string& topic) {
  TRY_ASSIGN(int32_t count, log.partition_count(topic));
  std::vector<TopicPartition> partitions;
  for (int32_t i = 0; i < count; ++i) partitions.push_back({topic, i});
  return partitions;
}

}  // namespace assay::streams
