// The memory of report ids: who was seen, with which content, packed.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <unordered_map>
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
  static constexpr size_t kChunkEntries = 256;  // a row holds at most this many, so a commit rewrites little

  struct Entry {
    UInt128 id_hash = 0;
    uint64_t content_hash = 0;
    int64_t timestamp = 0;
  };

  /// The remembered entry of that id, or nullptr. `oldest` = clock - memory.
  const Entry* find(UInt128 id_hash, int64_t oldest) const;
  void remember(std::string_view agent, const Entry& entry);
  /// Drops the buckets that end at or before `oldest`.
  void forget_before(std::string_view agent, int64_t oldest);

  /// Rows changed since the last call: (bucket, chunk) and its bytes, empty when the row goes.
  struct Row {
    int64_t bucket;
    uint64_t chunk;
    std::string value;
  };
  std::vector<Row> take_rows();
  state::Digest take_change() { return std::exchange(change_, {}); }

  /// Adds the entries of a stored row. Returns false when the bytes are not such a row.
  bool load(int64_t bucket, uint64_t chunk, std::string_view value);
  static state::Digest entry_digest(std::string_view agent, const Entry& entry);
  static bool decode(int64_t bucket, std::string_view value, std::vector<Entry>& out);

  size_t size() const { return index_.size(); }

 private:
  struct Hash {
    size_t operator()(UInt128 h) const { return static_cast<size_t>(h); }
  };
  struct Bucket {
    std::vector<Entry> entries;
    size_t stored = 0;  // entries [0, stored) are in the store
  };

  std::map<int64_t, Bucket> buckets_;
  std::unordered_map<UInt128, Entry, Hash> index_;
  std::vector<Row> gone_;
  state::Digest change_;
  std::vector<int64_t> dirty_;
};

}  // namespace assay::processors
