// The memory of report ids: who was seen, with which content, packed.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "processors/base.h"
#include "state/digest.h"

namespace assay::processors {

/// Ids of one agent's accepted reports, by 128-bit hash, with 64 bits of their content. 27 bytes each when stored.
///
/// An id is remembered exactly while its report's timestamp >= clock - memory; forgotten entries leave the state in whole
/// buckets, which is a function of the clock and so of the log.
class Dedupe {
 public:
  static constexpr int64_t kBucketMs = 15 * kMinuteMs;
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::min();
  static constexpr size_t kChunkEntries = 256;  // a row holds at most this many, so a commit rewrites little

  struct Entry {
    UInt128 id_hash = 0;
    uint64_t content_hash = 0;
    int64_t timestamp = kNever;
  };

  /// The remembered entry of that id, or nullptr. `oldest` = clock - memory.
  const Entry* find(UInt128 id_hash, int64_t oldest);
  void remember(std::string_view agent, const Entry& entry);
  /// Drops the buckets that end at or before `oldest`.
  /// Requires: what is remembered later lies after it.
  void forget_before(int64_t oldest);

  /// Rows changed since the last call: (bucket, chunk) and its bytes, empty when the row goes.
  struct Row {
    int64_t bucket;
    uint64_t chunk;
    std::string value;
  };
  std::vector<Row> take_rows();
  state::Digest take_change() { return std::exchange(change_, {}); }

  /// Adds the entries of a stored row. Returns false when the bytes are not such a row.
  bool load(std::string_view agent, int64_t bucket, uint64_t chunk, std::string_view value);
  static state::Digest entry_digest(std::string_view agent, const Entry& entry);
  static bool decode(int64_t bucket, std::string_view value, std::vector<Entry>& out);

  /// Memory held, about.
  size_t bytes() const { return slots_.capacity() * 2 * sizeof(Entry); }

 private:
  struct Bucket {
    std::vector<Entry> entries;
    size_t stored = 0;     // entries [0, stored) are in the store
    state::Digest digest;  // of all entries
  };

  Bucket& bucket_of(int64_t timestamp);
  Entry& slot_of(UInt128 id_hash);
  void index(const Entry& entry);
  void rebuild();

  std::map<int64_t, Bucket> buckets_;
  Bucket* last_bucket_ = nullptr;  // the one used last: reports of an agent come in runs
  int64_t last_start_ = 0;
  // Entries by id hash, open addressing. Those of forgotten buckets stay until the table is full; they no longer count.
  std::vector<Entry> slots_;
  size_t used_ = 0;
  int64_t forgotten_to_ = kNever;  // all buckets that end at or before it are forgotten
  std::vector<Row> gone_;
  state::Digest change_;
  std::vector<int64_t> dirty_;
};

}  // namespace assay::processors
