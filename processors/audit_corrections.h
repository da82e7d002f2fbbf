// What audit events say of the evidence itself: what is missing for good, what must not be deleted, and what was erased. A fold
// like the control of the chain, of which it is a part.
//
//   audit.reconciliation      a range of a topic is missing for good: {"topic","partition","from","to","reason","approvedBy"}
//   audit.hold_placed         {"hold","scope","reason"}; scope: one of {"everything":true}, {"subject":…}, {"agent":…},
//                             {"topic":…} and {"rows":{"from","to"}}
//   audit.hold_released       {"hold","reason","approvedBy"}
//   audit.erasure             {"commitments":[…],"clearOf":[holds that do not cover them],"reason","approvedBy"}
//   audit.erasure_refused     somebody wanted what a hold forbids; changes nothing
//
// Ranges are half-open, [from, to), and decimal strings. An event that does not fit is a row like any other and changes nothing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "processors/base.h"
#include "schemas/json.h"

namespace assay::processors {

struct Reconciled {
  std::string topic;  // without prefix
  int32_t partition = 0;
  int64_t from = 0, to = 0;  // offsets
  std::string event_id, reason;
  bool operator==(const Reconciled&) const = default;
};

struct Hold {
  std::string id, event_id, reason;
  Json scope;
  bool operator==(const Hold&) const = default;
};

struct AuditCorrections {
  std::vector<Reconciled> reconciled;              // in the order of their events, apart from one another
  std::map<std::string, Hold, std::less<>> holds;  // in force
  std::set<std::string, std::less<>> released;     // ids of holds that were: none is used again
  std::string last_erasure;                        // id of the last audit.erasure that counted
  bool operator==(const AuditCorrections&) const = default;
};

bool is_correction_event(std::string_view event_type);

/// Folds the event of that id and type. Returns why it changed nothing, or nothing.  Pure.
std::optional<std::string> fold_correction(std::string_view event_id, std::string_view event_type, const Json& data,
                                           AuditCorrections& corrections);

/// The reconciliation that shares offsets with the range, if any; the first.
const Reconciled* find_reconciled(const AuditCorrections& corrections, std::string_view topic, int32_t partition, int64_t from,
                                  int64_t to);

/// What somebody wants to erase, as far as holds look at it.
struct ErasureRequest {
  std::set<std::string, std::less<>> references;  // of all personal data of the subjects concerned, holds' own included
  std::set<std::string, std::less<>> known;       // references of all personal data that is still there
  std::vector<int64_t> rows;                      // of the chain, that the data belongs to
};
/// The hold that forbids it, or nullptr. A hold on a subject whose name is not there any more forbids everything.  Pure.
const Hold* hold_against(const AuditCorrections& corrections, const ErasureRequest& request);

/// The hold by which records of the log must be kept, or nullptr.
const Hold* hold_on_records(const AuditCorrections& corrections);

/// A scope in words: "agent a-17", "offsets 5 to 9 of eval.reports.v1/0".
std::string scope_text(const Json& scope);

/// As a document, null when it holds nothing, and back. Errors: kCorrupt.
Json corrections_to_json(const AuditCorrections& corrections);
Result<AuditCorrections> corrections_from_json(const Json& document);

}  // namespace assay::processors
