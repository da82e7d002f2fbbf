// A segment: a run of one partition's records as one immutable file. archive_format.md is its grammar.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "replay/base.h"
#include "schemas/hash.h"
#include "schemas/record.h"

namespace assay::replay {

/// What a segment holds: everything a read-committed reader gets from [first, next).
struct SegmentInfo {
  std::string topic;  // without prefix
  int32_t partition = 0;
  Offset first, next;
  int64_t records = 0;
  int64_t raw_bytes = 0;  // keys, values, headers
  WallTime min_timestamp, max_timestamp;
  std::string index_sha256;  // hex; who trusts it can trust every block by itself
  bool operator==(const SegmentInfo&) const = default;
};

/// Collects records and packs them.
class SegmentWriter {
 public:
  SegmentWriter(std::string topic, int32_t partition, Offset first);
  /// Takes the next record. Requires: its offset is not below what was taken before.
  void add(const RecordView& record);
  /// Everything before `next` was delivered: markers and aborted records stand between.
  void advance(Offset next);

  Offset next() const { return info_.next; }
  int64_t records() const { return info_.records; }
  size_t bytes() const { return arena_.size(); }  // encoded, not packed

  /// The file, and what it holds. The writer is empty afterwards and goes on at next().
  /// Cost: a sort by key and zstd over every byte.
  std::pair<std::string, SegmentInfo> finish(int level);

 private:
  struct Entry {
    uint64_t key_hash;
    uint32_t key_size;  // kNullKey: no key
    uint64_t at;        // in the arena: key bytes, then the body
    uint32_t body_size;
    Offset offset;
    WallTime timestamp;
  };
  static constexpr uint32_t kNullKey = UINT32_MAX;
  std::string_view key_of(const Entry& e) const;

  SegmentInfo info_;
  std::string arena_;
  std::vector<Entry> entries_;
};

/// Gives bytes [from, from + size) of the file. Errors: kCorrupt when there are fewer, and those of where it lies.
using ReadAt = std::function<Result<std::string>(uint64_t from, uint64_t size)>;

/// Records of a segment that was read, in offset order; the views live as long as this.
struct SegmentRecords {
  std::vector<RecordView> records;
  std::vector<std::unique_ptr<char[]>> storage;
};

/// Reads a segment, whole or one key's records.
class SegmentReader {
 public:
  /// Reads header, trailer and index. Errors: kCorrupt naming the part; kRefused (a newer format); those of `read`.
  static Result<SegmentReader> open(uint64_t size, ReadAt read);

  const SegmentInfo& info() const { return info_; }
  /// Every record. Errors: kCorrupt, and those of where it lies.
  Result<SegmentRecords> all() const;
  /// The records of one key, which may be none. Cost: the blocks that hold them.
  Result<SegmentRecords> of_key(std::string_view key) const;

 private:
  struct Block {
    uint64_t at = 0, size = 0, raw_size = 0, records = 0;
    uint64_t first_hash = 0, last_hash = 0;  // of the keys in it
    std::string checksum;
  };
  SegmentReader() = default;
  Result<void> read_block(const Block& block, std::string_view frame, SegmentRecords& into, const std::string_view* only) const;

  SegmentInfo info_;
  std::vector<Block> blocks_;
  ReadAt read_;
};

}  // namespace assay::replay
