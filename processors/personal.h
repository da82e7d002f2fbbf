// Personal data by reference: an event that people send carries, in place of a field that was declared personal, a salted
// commitment. Plaintext and salt lie in a table beside the chain and can be deleted there; the hashes, which never saw them, stand.
//
// Where the salt is born. It is 32 random bytes for each field of each event, drawn by the shell before the event is on the log. So
// the log holds the commitment alone, and a replay of it makes the same rows, bit for bit, with no secret and no plaintext at hand.
// A salt that a kept key could derive again would not do: whoever has the key could try names against the commitment after the
// erasure, and the erasure would be none. A plaintext on a topic would not do either: topics and archives are kept for good.
//
// Only events of people have such fields. Those that processors make name agents, whose ids other topics need for as long as they
// are kept; they are to be pseudonyms.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "processors/base.h"
#include "schemas/json.h"

namespace assay::processors {

constexpr size_t kPersonalSaltBytes = 32;
constexpr std::string_view kPersonalPrefix = "personal:";

/// What lies beside the chain for one field of one event.
struct PersonalRow {
  std::string reference;  // "personal:" and 64 hex digits, as the event has it
  std::string event_id;
  std::string field;    // "actor", "data.reason"
  std::string subject;  // whom it is about: the actor
  std::string salt;     // 64 hex digits
  std::string plaintext;
  bool operator==(const PersonalRow&) const = default;

  /// One line of canonical JSON, and back. Errors: kCorrupt.
  std::string to_line() const;
  static Result<PersonalRow> parse(std::string_view line);
};

/// Fields that can be declared personal: "actor", and of an event's data "by", "approvedBy", "reason", "ticket", "remedy".
std::span<const std::string_view> personal_fields();

bool is_personal_reference(std::string_view text);

/// "personal:" and the hex of SHA-256(salt ‖ event id ‖ NUL ‖ field ‖ NUL ‖ plaintext): a commitment is of no use elsewhere.
/// Requires: the salt has kPersonalSaltBytes bytes.  Pure.
std::string personal_reference(std::string_view salt, std::string_view event_id, std::string_view field,
                               std::string_view plaintext);

/// Whether the row's reference is that of its plaintext.
bool fits(const PersonalRow& row);

/// Puts references in place of the fields that are `declared`, and of the subject of a hold, which always is. `salt` draws one.
/// Errors: kUsage (a plaintext that looks like a reference).
Result<std::vector<PersonalRow>> seal_personal(Json& event, std::span<const std::string> declared,
                                               const std::function<std::string()>& salt);

/// Every reference in an event, and the field that it stands in.
struct PersonalPlace {
  std::string field, reference;
};
std::vector<PersonalPlace> personal_places(const Json& event);

}  // namespace assay::processors
