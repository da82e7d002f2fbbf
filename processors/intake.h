// Reading of JSON that the system itself wrote: members of a record, or the reason why it is a dead letter; and rows of a store.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>

#include "processors/processor.h"

namespace assay::processors {

/// The id that a record made inside carries; a foreign record on an internal topic gets one from its content, never its offset.
Id record_id(const RecordView& record);

/// Sets the record aside whole, with its reason, and counts it.
void dead_letter(const Input& input, const Reject& reject, Outputs& outputs);
/// Counts the record as seen and left out. Requires: is_filtered(reason).
void filtered(Reason reason, Outputs& outputs);
void accepted(Outputs& outputs);

/// Parses an internal record and reads its members one after the other; the first that is wrong is kept in reject(),
/// and every later answer is then an empty one that nobody may use. So a caller reads all, then asks once.
class MemberReader {
 public:
  explicit MemberReader(const RecordView& record);

  std::string_view text(std::string_view name);        // a string
  std::string_view id(std::string_view name);          // a string of 1 to kMaxIdBytes bytes
  Id record_id(std::string_view name);                 // 32 hex digits
  int64_t time_ms(std::string_view name);              // RFC 3339
  int64_t count(std::string_view name);                // a whole number, 0 to 2^53
  std::optional<double> share(std::string_view name);  // null, or a number from 0 to 1
  /// Whether there is such a member at all; and the text in it, nothing when it is null.
  bool has(std::string_view name) const { return document_.find(name) != nullptr; }
  std::optional<std::string> text_or_null(std::string_view name);
  void require_key(std::string_view expected);  // the record's key must be this
  void refuse(Reason reason, std::string detail);

  bool good() const { return !reject_; }
  const Reject& reject() const { return *reject_; }

 private:
  const Json* member(std::string_view name);

  const RecordView& record_;
  Json document_;
  std::optional<Reject> reject_;
};

/// A row of ours as a document. Requires: it was written by us (a broken store aborts the process: a fold must not guess).
Json parse_row(std::string_view row);
/// The member as an integer; 0 when there is none.
inline int64_t integer_of(const Json& document, std::string_view name) { return static_cast<int64_t>(document.number_or(name, 0)); }
/// The member as a number, or nothing when it is null or absent; and back.
std::optional<double> optional_number(const Json& document, std::string_view name);
inline Json optional_number(const std::optional<double>& value) { return value ? Json(*value) : Json(nullptr); }

/// Calls `row` with the rest of the key and the document of each row with the prefix. Errors: those of the reader; kCorrupt.
Result<void> scan_json(const state::Reader& reader, std::string_view prefix,
                       const std::function<void(std::string_view, Json)>& row);

}  // namespace assay::processors
