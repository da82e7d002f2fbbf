// Reading of records that the system itself wrote: a member with the right type, or the reason why the record is a dead letter.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "processors/processor.h"

namespace assay::processors {

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

  std::string_view text(std::string_view name);                  // a string
  std::string_view id(std::string_view name);                    // a string of 1 to kMaxIdBytes bytes
  Id record_id(std::string_view name);                           // 32 hex digits
  int64_t time_ms(std::string_view name);                        // RFC 3339
  int64_t count(std::string_view name);                          // a whole number, 0 to 2^53
  std::optional<double> share(std::string_view name);            // null, or a number from 0 to 1
  void require_key(std::string_view expected);                   // the record's key must be this
  void refuse(Reason reason, std::string detail);

  bool good() const { return !reject_; }
  const Reject& reject() const { return *reject_; }

 private:
  const Json* member(std::string_view name);

  const RecordView& record_;
  Json document_;
  std::optional<Reject> reject_;
};

}  // namespace assay::processors
