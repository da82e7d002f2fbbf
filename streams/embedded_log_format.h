// Every persisted byte of the embedded log: segments, frames, batches, records, side-car indexes.
//
// Numbers are little-endian and fixed unless called varint (7 bits a byte, low first; zigzag when signed).
// text := u32 length, bytes. A partition id is a number of the whole log: the topic's first id + the partition.
//
//   NNNNNNNNNNNNNNNNNNNN.journal := segment header, frame*          (N = segment id, decimal)
//   segment header := "ASSAYJ01", u64 segment id, u64 generation, u64 XXH3-64 of the 24 bytes before
//     generation counts the rewrites by cleaning; it tells a side-car index of an older content.
//   frame := frame header, directory, body                          (atomic: all of it counts, or nothing)
//   frame header := u64 checksum, u32 magic, u32 directory bytes, u64 body bytes, u64 synced
//     checksum = XXH3-64 of all that follows it up to the end of the directory, seeded with segment id, generation and
//       the frame's position: a frame counts only where it was written.
//     synced = how many bytes of this segment were known durable when the frame was written. What lies before is not a
//       torn tail when it is bad, but damage.
//   directory := entry*
//   entry := 1 topic: text name, u32 first id, u32 partitions, u8 compacted, i64 retention_ms, i64 max_record_bytes
//          | 2 committed offset: text group, u32 partition id, i64 offset, text metadata
//          | 3 writer: text transactional id, u64 epoch
//          | 4 log start: u32 partition id, i64 offset
//          | 5 log end: u32 partition id, i64 offset
//          | 6 batch: u32 partition id, i64 base, i64 end, u32 records, i64 max timestamp, u32 bytes, u64 XXH3-64 of its bytes
//          | 7 snapshot: forget the control state; the entries after it are all of it
//   body := the bytes of the directory's batches, in their order
//   batch bytes := record*                                          (offsets in [base, end), rising, with gaps after compaction)
//   record := varint offset − base, zigzag varint timestamp − previous record's (first: − 0), blob key, blob value,
//             varint count of headers, (varint length, name, blob value)*
//   blob := varint 0 (absent) | varint length + 1, bytes
//
// The first frame of a segment is a snapshot, so control state never needs an older segment. A segment that cleaning
// rewrote holds batches alone; it is never the last.
//
//   NNNNNNNNNNNNNNNNNNNN.index := "ASSAYX01", u64 segment id, u64 generation, u64 segment bytes, u32 pieces,
//       piece*, u64 XXH3-64 of all before, (batch entry*, u64 XXH3-64 of them)* in the order of the pieces
//   piece := u32 partition id, u64 batches, i64 base, i64 end, i64 max timestamp, u64 bytes
//   batch entry := u64 position, u32 bytes, u32 records, i64 base, i64 end, i64 max timestamp, u64 checksum
//
//   LOCK := decimal process id of the writer, or empty.      *.tmp := left by a crash; removed on start.
#pragma once

#include <cstring>
#include <functional>
#include <limits>

#include "schemas/hash.h"
#include "streams/embedded_log_files.h"
#include "streams/log.h"

namespace assay::streams::embedded {

constexpr size_t kSegmentHeaderBytes = 32;
constexpr size_t kFrameHeaderBytes = 32;
constexpr int64_t kNoTimestamp = std::numeric_limits<int64_t>::min();

/// Where a batch lies and what it holds.
struct BatchEntry {
  uint64_t position = 0;  // of its bytes in the segment
  uint32_t bytes = 0;
  uint32_t records = 0;
  int64_t base = 0, end = 0;  // half-open
  int64_t max_timestamp = kNoTimestamp;
  uint64_t checksum = 0;
};

/// The batches that one partition has in one segment.
struct PieceSummary {
  uint32_t partition = 0;
  uint64_t batches = 0;
  int64_t base = 0, end = 0;
  int64_t max_timestamp = kNoTimestamp;
  uint64_t bytes = 0;

  void add(const BatchEntry& entry) {
    if (batches++ == 0) base = entry.base;
    end = entry.end;
    max_timestamp = std::max(max_timestamp, entry.max_timestamp);
    bytes += entry.bytes;
  }
};

struct TopicEntry {
  TopicConfig config;
  uint32_t first_id = 0;
};
struct CommitEntry {
  std::string group;
  uint32_t partition = 0;
  int64_t offset = 0;
  std::string metadata;
};
struct WriterEntry {
  std::string id;
  uint64_t epoch = 0;
};
struct PlaceEntry {
  uint32_t partition = 0;
  int64_t offset = 0;
};

/// What a frame says besides the bytes of its records.
struct Directory {
  bool snapshot = false;
  std::vector<TopicEntry> topics;
  std::vector<CommitEntry> commits;
  std::vector<WriterEntry> writers;
  std::vector<PlaceEntry> starts, ends;
  std::vector<std::pair<uint32_t, BatchEntry>> batches;  // partition id, batch (position is not written, it follows from the order)

  bool empty() const {
    return !snapshot && topics.empty() && commits.empty() && writers.empty() && starts.empty() && ends.empty() && batches.empty();
  }
};

/// Records of one partition being encoded; offsets are relative, so that the place can be given later.
struct Batch {
  uint32_t partition = 0;
  uint32_t records = 0;
  int64_t span = 0;  // end − base
  int64_t max_timestamp = kNoTimestamp;
  int64_t last_timestamp = 0;
  std::string bytes;

  void put_varint(uint64_t v) {
    char buffer[10];
    size_t n = 0;
    for (; v >= 0x80; v >>= 7) buffer[n++] = static_cast<char>(v | 0x80);
    buffer[n++] = static_cast<char>(v);
    bytes.append(buffer, n);
  }
  void put_blob(std::optional<std::string_view> blob) {
    put_varint(blob ? blob->size() + 1 : 0);
    if (blob) bytes.append(*blob);
  }
  /// Adds a record at base + delta. Works for records read and records to be written. Requires: delta >= span.
  template <class AnyRecord>
  void add(int64_t delta, const AnyRecord& record) {
    put_varint(static_cast<uint64_t>(delta));
    uint64_t step = static_cast<uint64_t>(record.timestamp.value) - static_cast<uint64_t>(last_timestamp);
    put_varint(step << 1 ^ (static_cast<int64_t>(step) < 0 ? ~uint64_t{0} : 0));
    put_blob(record.key);
    put_blob(record.value);
    put_varint(record.headers.size());
    for (const auto& header : record.headers) {
      put_varint(header.name.size());
      bytes.append(header.name);
      put_blob(header.value);
    }
    last_timestamp = record.timestamp.value;
    max_timestamp = std::max(max_timestamp, last_timestamp);
    span = delta + 1;
    ++records;
  }
  BatchEntry entry(int64_t base) const {
    return {0, static_cast<uint32_t>(bytes.size()), records, base, base + span, max_timestamp, xxh3_64(bytes)};
  }
};

/// Walks the records of a batch; the views point into its bytes.
class RecordWalk {
 public:
  RecordWalk() = default;
  RecordWalk(std::string_view bytes, int64_t base) : at_(bytes.data()), end_(bytes.data() + bytes.size()), base_(base) {}
  bool done() const { return at_ == end_; }
  /// Decodes the next record; false when the bytes are no record.
  bool next(RecordView& record);

 private:
  bool varint(uint64_t& v) {
    v = 0;
    for (int shift = 0; shift < 64 && at_ != end_; shift += 7) {
      unsigned char c = static_cast<unsigned char>(*at_++);
      v |= static_cast<uint64_t>(c & 0x7f) << shift;
      if (c < 0x80) return true;
    }
    return false;
  }
  bool run(uint64_t length, std::string_view& view) {
    if (length > static_cast<uint64_t>(end_ - at_)) return false;
    view = {at_, static_cast<size_t>(length)};
    at_ += length;
    return true;
  }
  bool blob(std::optional<std::string_view>& view);

  const char* at_ = nullptr;
  const char* end_ = nullptr;
  int64_t base_ = 0;
  int64_t timestamp_ = 0;
};

struct SegmentHeader {
  uint64_t id = 0;
  uint64_t generation = 0;
};
std::string encode_segment_header(const SegmentHeader& header);
/// Errors: kCorrupt.
Result<SegmentHeader> decode_segment_header(std::string_view bytes, const std::string& path);

/// Header and directory of a frame, to be followed by the bodies; sets the position of each batch.
std::string encode_frame(const SegmentHeader& segment, uint64_t position, uint64_t synced, Directory& directory);

struct Frame {
  uint64_t position = 0;
  uint64_t bytes = 0;  // header, directory and body
  uint64_t synced = 0;
  Directory directory;
};
/// Decodes the frame at that position of a segment's bytes and checks every checksum in it; nothing when there is no sound frame.
std::optional<Frame> decode_frame(const SegmentHeader& segment, std::string_view segment_bytes, uint64_t position);
/// Looks behind a bad place for sound frames: the most bytes that any of them calls durable; 0 when there is none.
uint64_t synced_behind(const SegmentHeader& segment, std::string_view segment_bytes, uint64_t position);

/// Batches of a segment by partition id, as its side-car holds them.
struct Piece {
  PieceSummary summary;
  std::vector<BatchEntry> entries;
};
std::string encode_index(const SegmentHeader& segment, uint64_t segment_bytes, std::span<const Piece> pieces);
/// The table of pieces of a side-car. Errors: kCorrupt (also when it belongs to another content).
Result<std::vector<PieceSummary>> read_index_pieces(const File& file, const SegmentHeader& segment, uint64_t segment_bytes);
/// The batches of piece number `which`. Errors: kCorrupt.
Result<std::vector<BatchEntry>> read_index_entries(const File& file, std::span<const PieceSummary> pieces, size_t which);

std::string segment_name(uint64_t id);
std::string index_name(uint64_t id);
/// The id in a segment's file name, or nothing.
std::optional<uint64_t> parse_segment_name(std::string_view name);

}  // namespace assay::streams::embedded
