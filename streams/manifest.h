// The manifest: what one commit of a task folded, at which instant, and what came of it.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/json.h"
#include "state/digest.h"
#include "streams/base.h"

namespace assay::streams {

/// A run of one input partition: [from, to).
struct InputRange {
  TopicPartition tp;  // topic without prefix, so that a manifest means the same under another prefix
  Offset from, to;
  bool operator==(const InputRange&) const = default;
};

/// Records written to one partition: counters [first, first + count).
struct OutputCount {
  TopicPartition tp;  // without prefix
  int64_t first = 0;
  int64_t count = 0;
  bool operator==(const OutputCount&) const = default;
};

struct Manifest {
  std::string task;  // "scoring-3"
  std::string lineage;
  int64_t sequence = 0;            // 1, 2, 3 … of this task
  std::vector<InputRange> ranges;  // in folding order
  int64_t delivered = 0;
  WallTime instant;
  std::vector<OutputCount> outputs;  // by partition, in order of (topic, partition)
  std::string output_hash;           // hex SHA-256 over the outputs in order
  state::Digest state_digest;
  std::string previous;  // hex SHA-256 of the manifest before, empty for the first
  std::string code_version;

  /// Canonical JSON: the value of its record on assay.manifests.v1.
  std::string encode() const;
  static Result<Manifest> decode(std::string_view value);
  /// Hex SHA-256 of the encoded form.
  static std::string hash(std::string_view encoded);
};

/// The metadata of a committed offset: one OffsetFetch finds the last manifest.
struct CommitMark {
  int64_t sequence = 0;
  Offset manifest_offset;
  std::string manifest_hash;
  std::string encode() const;  // "sequence:manifest-offset:hash"
  static Result<CommitMark> decode(std::string_view text);
  bool operator==(const CommitMark&) const = default;
};

/// Version that manifests name; a rule whose results change raises it.
inline constexpr std::string_view kCodeVersion = "1";

}  // namespace assay::streams
