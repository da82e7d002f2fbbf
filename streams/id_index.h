// Where an event is in a chain: from its id to the number of its row, in sorted segments beside the tiles.
//
//   DIR/ids/<first>-<last>   the rows of one segment, 12-digit sequences; 8 bytes each, big-endian and sorted:
//                            48 bits of XXH3-64(event id), then 16 bits: the row's place in the segment
//
// It helps to find a row and proves nothing: whoever looks one up reads it and compares.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "streams/tile_tree.h"

namespace assay::streams {

inline constexpr uint64_t kIdSegmentRows = 65536;

/// The segment of a chain of that size in which row `sequence` is. Requires: 1 <= sequence <= size.
std::string id_segment_name(uint64_t size, uint64_t sequence);
struct IdSegment {
  uint64_t first = 0, last = 0;  // sequences
  uint64_t rows() const { return last - first + 1; }
  bool operator==(const IdSegment&) const = default;
};
/// The segment that a name stands for; nothing when id_segment_name() gives no such name.
std::optional<IdSegment> parse_id_segment_name(std::string_view name);

/// Grows an index row by row and hands on each segment when it is full. Cost: half a MiB.
class IdIndexBuilder {
 public:
  explicit IdIndexBuilder(TileWriter write) : write_(std::move(write)) {}
  /// Takes up an index where it was left. Errors: those of the reader; kCorrupt.
  static Result<IdIndexBuilder> resume(uint64_t size, const TileReader& read, TileWriter write);

  Result<void> add(std::string_view event_id);
  uint64_t size() const { return full_rows_ + segment_.size(); }
  /// Writes the segment that is not full, if there is one.
  Result<void> write_partial() const;

 private:
  Result<void> write_segment() const;

  TileWriter write_;
  std::vector<uint64_t> segment_;
  uint64_t full_rows_ = 0;  // in the segments before
};

/// Rows that may be those of an event, by the segments below a directory; several, or wrong ones, come as rarely as hashes collide.
/// Segments that are not there, or are none, say nothing. Cost: a binary search in each.
std::vector<int64_t> find_in_id_index(const std::string& dir, std::string_view event_id);

}  // namespace assay::streams
