// What a log that was made again from an archive says of itself: which lineage its new records belong to, and where the restored
// ones stood first. It stands on a topic of its own, as one statement when the restore begins and a signed one when it is through.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "streams/log.h"
#include "streams/signer.h"

namespace assay::streams {

inline constexpr std::string_view kLineageTopic = "assay.lineage.v1";  // without prefix; there is one only on a restored log

/// A place for ever: the lineage that wrote the record, and the offset that it had there, as one number. The places of a lineage
/// follow those of the one before it, so that nothing new ever takes the place of what was lost.
inline constexpr int kLineageShift = 40;
constexpr Offset place_in(int64_t lineage, Offset offset) { return Offset((lineage << kLineageShift) + offset.value); }
constexpr int64_t lineage_of(Offset place) { return place.value >> kLineageShift; }
constexpr Offset offset_in(Offset place) { return Offset(place.value & ((int64_t{1} << kLineageShift) - 1)); }

/// "<lineage>/<topic>/<partition>/<offset>": the header of a restored record.
std::string place_text(const TopicPartition& bare, Offset place);
/// Reads it back. Nothing: it is no place of that partition.
std::optional<Offset> read_place(std::string_view text, const TopicPartition& bare);

/// Old to new positions of one partition.
struct PositionMap {
  OffsetRange first;                              // the places that the archive held
  Offset next;                                    // of this log: what stands before it is restored, what stands there is new
  int64_t records = 0;                            // restored
  std::vector<std::pair<Offset, Offset>> points;  // (first place, offset) of some of them, rising; in between their headers tell
  bool operator==(const PositionMap&) const = default;

  std::string encode() const;  // canonical JSON
  /// Errors: kCorrupt.
  static Result<PositionMap> decode(std::string_view text);
};

/// A log's lineage, as it was opened.
struct Lineage {
  int64_t number = 0;
  std::map<TopicPartition, PositionMap> maps;  // bare names; a partition that is not there was not restored
};

/// What stands on the topic.
struct LineageStatements {
  std::string plan;               // of a restore that was begun: what is to be restored; empty: none was
  std::optional<Lineage> opened;  // it is through
};

/// Reads and proves them. Errors: kTampered (a map is not the one that was signed, a signature does not hold), those of the log.
Result<LineageStatements> read_lineage(Log& log, const std::string& prefix);

/// The record that begins a restore.
OutRecord plan_record(const std::string& prefix, const std::string& plan, WallTime now);
/// The records that open the lineage: its maps, and the signed statement that names them, last. Errors: those of the signer.
Result<std::vector<OutRecord>> opening_records(const std::string& prefix, const Lineage& lineage, const std::string& plan,
                                               Signer& signer, WallTime now);

}  // namespace assay::streams
