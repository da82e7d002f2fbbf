// A record as every log gives and takes it.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/types.h"

namespace assay::schemas {

struct HeaderView {
  std::string_view name;
  std::optional<std::string_view> value;
};

/// A record that was read. Everything points into the fetch that it came with.
struct RecordView {
  Offset offset;
  WallTime timestamp;
  std::optional<std::string_view> key;    // absent and empty are different things
  std::optional<std::string_view> value;  // absent = tombstone
  std::vector<HeaderView> headers;

  /// Value of the last header of that name, or nothing.
  std::optional<std::string_view> header(std::string_view name) const {
    for (auto it = headers.rbegin(); it != headers.rend(); ++it)
      if (it->name == name) return it->value;
    return std::nullopt;
  }
};

struct Header {
  std::string name;
  std::optional<std::string> value;
  auto operator<=>(const Header&) const = default;
};

/// A record to be written; it owns its bytes.
struct OutRecord {
  TopicPartition to;
  WallTime timestamp;
  std::optional<std::string> key;
  std::optional<std::string> value;
  std::vector<Header> headers;
};

/// Header names that the system writes on its own records.
inline constexpr std::string_view kHeaderId = "assay-id";          // 32 hex: the record's own id
inline constexpr std::string_view kHeaderCause = "assay-cause";    // 32 hex: the id of what caused it
inline constexpr std::string_view kHeaderWriter = "assay-writer";  // "<task>/<lineage>/<n>", n from 0 without holes
inline constexpr std::string_view kHeaderReason = "assay-reason";  // dead letters: reason code
inline constexpr std::string_view kHeaderDetail = "assay-detail";  // dead letters: one sentence
inline constexpr std::string_view kHeaderSource = "assay-source";  // dead letters: "<topic>/<partition>/<offset>"
inline constexpr std::string_view kHeaderPlace = "assay-place";    // restored records: where they stood first, see streams/lineage.h

}  // namespace assay::schemas
