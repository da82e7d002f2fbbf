// What the rows of a chain say of missing, held and erased evidence, and whether plaintexts given beside it fit its commitments.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "processors/personal.h"
#include "streams/audit_verify.h"

namespace assay::streams {

class CorrectionsCheck {
 public:
  /// Requires: both outlive it.
  CorrectionsCheck(const VerifyOptions& options, VerifyReport& report);
  /// The next proven row of an event that people send. Requires: chain order.
  void add(int64_t sequence, std::string_view event_id, std::string_view event_type, std::string_view payload);
  /// Notes what was found. `broken`: the rows were not proven to their end, so that what is missing may stand further on.
  void end(bool broken);

 private:
  void judge(int64_t sequence, std::string_view event_id, const processors::PersonalPlace& place);
  void fault(Errc code, int64_t sequence, std::string_view event_id, std::string detail);

  const VerifyOptions& options_;
  VerifyReport& report_;
  processors::AuditCorrections corrections_;
  std::map<std::string, processors::PersonalRow, std::less<>> plaintexts_;  // given, and not seen in a row yet
  struct Place {
    int64_t sequence = 0;
    std::string event_id;
  };
  std::map<std::string, Place, std::less<>> without_, with_;  // references by whether a plaintext was given
  std::map<std::string, std::string, std::less<>> erased_;    // reference -> the event that erased it
};

}  // namespace assay::streams
