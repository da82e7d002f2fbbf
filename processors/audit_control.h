// What audit events say about the chain itself: which key signs from which row on, and what rests. A fold like any other, so that a
// replay comes to the same keys at the same rows.
//
//   audit.paused · audit.resumed                       the projector holds behind the first until it sees the second
//   audit.safe_mode_entered · audit.safe_mode_left     rows are chained and wait for their signatures
//   audit.key_created → _published → _staged → _tested → _promoted → _revoked    the six steps of a rotation, in this order
//   audit.rotation_cancelled                           before the promotion: the new key never signs
//   audit.emergency_signer · audit.emergency_signer_ended
//   audit.key_compromised                              its successor signs this row, and by its hash bears witness to those before
//   audit.reconciliation, .hold_…, .erasure…           audit_corrections.h
//
// An event that does not fit where the chain stands is a row like any other and changes nothing.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "processors/audit_corrections.h"
#include "processors/base.h"
#include "schemas/config.h"
#include "schemas/json.h"

namespace assay::processors {

/// A key that control events have spoken of.
struct KeyStanding {
  SignerKey key;
  std::string kind, place;  // where it is: "pkcs11" and a label, "kms" and a key id, …; empty: as the configuration says
  std::string provider;     // "emergency"
  std::optional<int64_t> first_sequence, last_sequence;  // rows that it may sign
  bool revoked = false;                                  // none of its rows counts but for those attested
  std::string revoked_reason;
  int64_t attested_through = 0, attested_by = 0;  // rows of a revoked key that a row of a standing one bears witness to
  bool operator==(const KeyStanding&) const = default;
};

enum class RotationStep : uint8_t { kCreated, kPublished, kStaged, kTested, kPromoted };
std::string_view rotation_step_name(RotationStep step);  // "created" "published" "staged" "tested" "promoted"
/// The event that makes the step after this one; after nothing: audit.key_created.
std::string_view next_rotation_event(std::optional<RotationStep> step);

struct Rotation {
  std::string from, to;
  RotationStep step = RotationStep::kCreated;
  int64_t since_ms = 0;         // of the step
  int64_t staged_ms = 0;        // both keys are accepted from here on
  int64_t staged_sequence = 0;  // the first row of that
  int64_t promoted_sequence = 0;
  bool operator==(const Rotation&) const = default;
};

struct AuditControl {
  bool paused = false;
  std::string paused_why;
  std::string safe_mode;  // why; empty: it is off
  std::string active;     // the key that signs; empty: the configured one
  std::string emergency;  // the emergency key while it signs, and why
  std::string emergency_why;
  std::string regular;  // what signed before it
  std::optional<Rotation> rotation;
  int64_t active_since_ms = 0;  // when the active key was promoted; of the first key: when the chain began
  std::map<std::string, KeyStanding, std::less<>> keys;
  AuditCorrections corrections;
  bool operator==(const AuditControl&) const = default;
};

/// Whether events of that type can change the control.
bool is_control_event(std::string_view event_type);

/// Folds the event of row `sequence`, which is of that type and id. Returns why it changed nothing, or nothing.  Pure.
std::optional<std::string> fold_control(int64_t sequence, int64_t recorded_at_ms, std::string_view event_type,
                                        std::string_view event_id, const Json& data, AuditControl& control);

/// Which key signs row `sequence` when it is signed now: the active one where it may, else the one that was active then.
/// `intended`: the key that was active when the row was made. "": the configured key.
std::string signing_key(const AuditControl& control, int64_t sequence, const std::string& intended);

/// As a document, null when it holds nothing, and back. Errors: kCorrupt.
Json control_to_json(const AuditControl& control);
Result<AuditControl> control_from_json(const Json& document);

/// Of a key in a control event: {"signerId","publicKey","algorithm"} and, of a key to be used, "kind" and "place".
Json key_to_json(const SignerKey& key);

}  // namespace assay::processors
