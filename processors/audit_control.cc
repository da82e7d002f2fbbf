#include "processors/audit_control.h"

#include <algorithm>
#include <array>
#include <charconv>

namespace assay::processors {
namespace {

struct StepName {
  RotationStep step;
  std::string_view name, event;
};
constexpr std::array<StepName, 5> kSteps = {{{RotationStep::kCreated, "created", "audit.key_created"},
                                             {RotationStep::kPublished, "published", "audit.key_published"},
                                             {RotationStep::kStaged, "staged", "audit.key_staged"},
                                             {RotationStep::kTested, "tested", "audit.key_tested"},
                                             {RotationStep::kPromoted, "promoted", "audit.key_promoted"}}};
constexpr std::string_view kRevoked = "audit.key_revoked";

constexpr std::string_view kOthers[] = {"audit.paused",
                                        "audit.resumed",
                                        "audit.safe_mode_entered",
                                        "audit.safe_mode_left",
                                        "audit.rotation_cancelled",
                                        "audit.emergency_signer",
                                        "audit.emergency_signer_ended",
                                        "audit.key_compromised",
                                        kRevoked};

std::string text(const Json& data, std::string_view name) { return std::string(data.string_or(name, "")); }

std::optional<int64_t> decimal(const Json& data, std::string_view name) {
  const std::string_view digits = data.string_or(name, "");
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size() || value < 0) return std::nullopt;
  return value;
}

/// The key that the event names whole.
std::optional<KeyStanding> key_in(const Json& data, std::string_view name) {
  const Json* member = data.find(name);
  if (member == nullptr || !member->is_object()) return std::nullopt;
  KeyStanding out;
  out.key = {text(*member, "signerId"), text(*member, "publicKey"), text(*member, "algorithm")};
  out.kind = text(*member, "kind");
  out.place = text(*member, "place");
  if (out.key.signer_id.empty() || out.key.public_key.empty() || out.key.algorithm.empty()) return std::nullopt;
  return out;
}

using Ignored = std::optional<std::string>;

/// One event, folded.
class Step {
 public:
  Step(int64_t sequence, int64_t at_ms, const Json& data, AuditControl& control)
      : sequence_(sequence), at_ms_(at_ms), data_(data), control_(control) {}

  Ignored operator()(std::string_view type) {
    for (const StepName& step : kSteps)
      if (type == step.event) return step.step == RotationStep::kCreated ? created() : advanced(step.step);
    if (type == kRevoked) return revoked();
    if (type == "audit.rotation_cancelled") return cancelled();
    if (type == "audit.emergency_signer") return emergency();
    if (type == "audit.emergency_signer_ended") return emergency_ended();
    if (type == "audit.key_compromised") return compromised();
    if (type == "audit.paused") return set(control_.paused, true, "it is paused already");
    if (type == "audit.resumed") return set(control_.paused, false, "it is not paused");
    if (type == "audit.safe_mode_entered") {
      control_.safe_mode = text(data_, "reason").empty() ? "no reason given" : text(data_, "reason");
      return std::nullopt;
    }
    if (control_.safe_mode.empty()) return "safe mode is off";
    control_.safe_mode.clear();
    return std::nullopt;
  }

 private:
  Ignored set(bool& field, bool value, const char* already) {
    if (field == value) return already;
    field = value;
    control_.paused_why = value ? text(data_, "reason") : "";
    return std::nullopt;
  }

  /// The key by its id, taken up when the event names it whole. An id never stands for two keys, nor a key under two ids.
  Result<KeyStanding*> known(std::string_view name) {
    std::optional<KeyStanding> named = key_in(data_, name);
    if (!named) return Error{Errc::kUsage, "it names no key \"" + std::string(name) + "\""};
    for (auto& [id, standing] : control_.keys) {
      if (standing.key == named->key) return &standing;
      if (id == named->key.signer_id || standing.key.public_key == named->key.public_key)
        return Error{Errc::kUsage, "the id " + id + " stands for another key, or the key under another id"};
    }
    const std::string id = named->key.signer_id;
    return &control_.keys.emplace(id, std::move(*named)).first->second;
  }

  bool signs(const std::string& id) const { return control_.active.empty() || control_.active == id; }

  Ignored created() {
    if (control_.rotation) return "the rotation to " + control_.rotation->to + " is not over";
    if (!control_.emergency.empty()) return "an emergency key signs";
    const std::optional<KeyStanding> from = key_in(data_, "from"), to = key_in(data_, "to");
    if (!from || !to) return "it does not name both keys";
    if (!signs(from->key.signer_id)) return from->key.signer_id + " does not sign";
    if (to->key.signer_id == from->key.signer_id || control_.keys.contains(to->key.signer_id))
      return "the id " + to->key.signer_id + " is in use; ids are never reused";
    AuditControl before = control_;
    for (std::string_view name : {"from", "to"})
      if (Result<KeyStanding*> key = known(name); !key) {
        control_ = std::move(before);
        return key.error().message;
      }
    control_.keys.at(to->key.signer_id).first_sequence = INT64_MAX;  // until it is staged
    control_.active = from->key.signer_id;
    control_.rotation = Rotation{from->key.signer_id, to->key.signer_id, RotationStep::kCreated, at_ms_, 0, 0, 0};
    return std::nullopt;
  }

  Ignored advanced(RotationStep step) {
    if (!control_.rotation || control_.rotation->to != text(data_, "to")) return "there is no rotation to " + text(data_, "to");
    Rotation& rotation = *control_.rotation;
    if (static_cast<int>(step) != static_cast<int>(rotation.step) + 1)
      return "the rotation stands at " + std::string(rotation_step_name(rotation.step));
    rotation.step = step;
    rotation.since_ms = at_ms_;
    KeyStanding& to = control_.keys.at(rotation.to);
    if (step == RotationStep::kStaged) {
      rotation.staged_ms = at_ms_;
      rotation.staged_sequence = sequence_;
      to.first_sequence = sequence_;
    } else if (step == RotationStep::kPromoted) {
      rotation.promoted_sequence = sequence_;
      control_.active = rotation.to;
      control_.active_since_ms = at_ms_;
    }
    return std::nullopt;
  }

  Ignored revoked() {
    if (!control_.rotation || control_.rotation->step != RotationStep::kPromoted || control_.rotation->from != text(data_, "from"))
      return "no rotation away from " + text(data_, "from") + " is promoted";
    control_.keys.at(control_.rotation->from).last_sequence = sequence_ - 1;
    control_.rotation.reset();
    return std::nullopt;
  }

  Ignored cancelled() {
    if (!control_.rotation || control_.rotation->to != text(data_, "to")) return "there is no rotation to " + text(data_, "to");
    if (control_.rotation->step == RotationStep::kPromoted) return "it is promoted: rotate on, to another key";
    KeyStanding& to = control_.keys.at(control_.rotation->to);
    to.revoked = true;
    to.revoked_reason = "rotation cancelled: " + text(data_, "reason");
    control_.rotation.reset();
    return std::nullopt;
  }

  /// The rows that wait for a signature may have it of this key too.
  void open_from(KeyStanding& key) const {
    const int64_t from = std::min(decimal(data_, "fromSequence").value_or(sequence_), sequence_);
    key.first_sequence = key.first_sequence ? std::min(*key.first_sequence, from) : from;
    key.last_sequence.reset();
  }

  Ignored emergency() {
    if (!control_.emergency.empty()) return "the emergency key " + control_.emergency + " signs already";
    const std::optional<KeyStanding> from = key_in(data_, "from");
    if (!from || !signs(from->key.signer_id)) return "it does not name the key that signs";
    Result<KeyStanding*> key = known("key");
    if (!key) return key.error().message;
    if ((*key)->revoked || (*key)->key == from->key) return (*key)->key.signer_id + " cannot stand in";
    (*key)->provider = "emergency";
    open_from(**key);
    control_.regular = from->key.signer_id;
    control_.active = control_.emergency = (*key)->key.signer_id;
    control_.emergency_why = text(data_, "reason");
    return std::nullopt;
  }

  Ignored emergency_ended() {
    if (control_.emergency.empty()) return "no emergency key signs";
    if (control_.regular == control_.emergency) return "the key that signed before it is revoked, and has no successor";
    control_.keys.at(control_.emergency).last_sequence = sequence_ - 1;
    control_.active = std::move(control_.regular);
    control_.regular.clear();
    control_.emergency.clear();
    control_.emergency_why.clear();
    return std::nullopt;
  }

  Ignored compromised() {
    const AuditControl before = control_;
    auto ignored = [&](std::string why) {
      control_ = before;
      return why;
    };
    Result<KeyStanding*> lost = known("key");
    if (!lost) return ignored(lost.error().message);
    if ((*lost)->revoked) return ignored((*lost)->key.signer_id + " is revoked already");
    const std::string id = (*lost)->key.signer_id;
    if (signs(id)) {
      Result<KeyStanding*> successor = known("successor");
      if (!successor) return ignored(successor.error().message);
      if ((*successor)->revoked || (*successor)->key.signer_id == id)
        return ignored((*successor)->key.signer_id + " cannot succeed it");
      open_from(**successor);
      control_.active = (*successor)->key.signer_id;
      control_.active_since_ms = at_ms_;
      if (control_.emergency == id) {
        control_.emergency.clear();
        control_.emergency_why.clear();
        control_.regular.clear();
      }
    }
    if (control_.regular == id) {  // the emergency key signs on; what follows it must not be this one
      Result<KeyStanding*> successor = key_in(data_, "successor") ? known("successor") : Error{};
      control_.regular = successor && !(*successor)->revoked ? (*successor)->key.signer_id : control_.emergency;
    }
    KeyStanding& standing = control_.keys.at(id);
    standing.revoked = true;
    standing.revoked_reason = text(data_, "reason");
    standing.attested_through = sequence_ - 1;
    standing.attested_by = sequence_;
    if (control_.rotation && (control_.rotation->from == id || control_.rotation->to == id)) control_.rotation.reset();
    return std::nullopt;
  }

  int64_t sequence_, at_ms_;
  const Json& data_;
  AuditControl& control_;
};

Json sequence_json(int64_t value) { return Json(std::to_string(value)); }

}  // namespace

std::string_view rotation_step_name(RotationStep step) { return kSteps[static_cast<size_t>(step)].name; }

std::string_view next_rotation_event(std::optional<RotationStep> step) {
  const size_t next = step ? static_cast<size_t>(*step) + 1 : 0;
  return next < kSteps.size() ? kSteps[next].event : kRevoked;
}

bool is_control_event(std::string_view event_type) {
  return std::ranges::find(kSteps, event_type, &StepName::event) != kSteps.end() ||
         std::ranges::find(kOthers, event_type) != std::end(kOthers) || is_correction_event(event_type);
}

std::optional<std::string> fold_control(int64_t sequence, int64_t recorded_at_ms, std::string_view event_type,
                                        std::string_view event_id, const Json& data, AuditControl& control) {
  CHECK(is_control_event(event_type));
  if (is_correction_event(event_type)) return fold_correction(event_id, event_type, data, control.corrections);
  if (!data.is_object()) return "its data is no object";
  return Step(sequence, recorded_at_ms, data, control)(event_type);
}

std::string signing_key(const AuditControl& control, int64_t sequence, const std::string& intended) {
  if (control.active == intended) return intended;
  auto may = [&](const std::string& id) {
    auto key = control.keys.find(id);
    if (key == control.keys.end()) return true;  // nothing was ever said of it
    const KeyStanding& standing = key->second;
    return !standing.revoked && sequence >= standing.first_sequence.value_or(1) &&
           sequence <= standing.last_sequence.value_or(INT64_MAX);
  };
  return may(control.active) || !may(intended) ? control.active : intended;
}

Json key_to_json(const SignerKey& key) {
  return Json::object().set("signerId", key.signer_id).set("publicKey", key.public_key).set("algorithm", key.algorithm);
}

Json control_to_json(const AuditControl& control) {
  if (control == AuditControl()) return Json();
  Json keys = Json::array();
  for (const auto& [id, standing] : control.keys) {
    Json one = key_to_json(standing.key);
    if (!standing.kind.empty()) one.set("kind", standing.kind);
    if (!standing.place.empty()) one.set("place", standing.place);
    if (!standing.provider.empty()) one.set("provider", standing.provider);
    if (standing.first_sequence) one.set("firstSequence", sequence_json(*standing.first_sequence));
    if (standing.last_sequence) one.set("lastSequence", sequence_json(*standing.last_sequence));
    if (standing.revoked)
      one.set("revokedReason", standing.revoked_reason)
          .set("attestedThrough", sequence_json(standing.attested_through))
          .set("attestedBy", sequence_json(standing.attested_by));
    keys.push_back(std::move(one));
  }
  Json out = Json::object().set("keys", std::move(keys));
  if (control.paused) out.set("paused", control.paused_why);
  if (!control.safe_mode.empty()) out.set("safeMode", control.safe_mode);
  if (!control.active.empty()) out.set("active", control.active);
  if (control.active_since_ms != 0) out.set("activeSinceMs", sequence_json(control.active_since_ms));
  if (!control.emergency.empty())
    out.set("emergency", control.emergency).set("emergencyWhy", control.emergency_why).set("regular", control.regular);
  if (control.rotation) {
    const Rotation& rotation = *control.rotation;
    out.set("rotation", Json::object()
                            .set("from", rotation.from)
                            .set("to", rotation.to)
                            .set("step", rotation_step_name(rotation.step))
                            .set("sinceMs", sequence_json(rotation.since_ms))
                            .set("stagedMs", sequence_json(rotation.staged_ms))
                            .set("stagedSequence", sequence_json(rotation.staged_sequence))
                            .set("promotedSequence", sequence_json(rotation.promoted_sequence)));
  }
  if (Json corrections = corrections_to_json(control.corrections); !corrections.is_null())
    out.set("corrections", std::move(corrections));
  return out;
}

Result<AuditControl> control_from_json(const Json& document) {
  AuditControl out;
  if (document.is_null()) return out;
  Error bad{Errc::kCorrupt, "reading a chain state: \"control\" is not as it must be"};
  const Json* keys = document.find("keys");
  if (keys == nullptr || !keys->is_array()) return bad;
  for (const Json& one : keys->as_array()) {
    KeyStanding standing;
    standing.key = {text(one, "signerId"), text(one, "publicKey"), text(one, "algorithm")};
    standing.kind = text(one, "kind");
    standing.place = text(one, "place");
    standing.provider = text(one, "provider");
    standing.first_sequence = decimal(one, "firstSequence");
    standing.last_sequence = decimal(one, "lastSequence");
    standing.revoked = one.find("revokedReason") != nullptr;
    standing.revoked_reason = text(one, "revokedReason");
    standing.attested_through = decimal(one, "attestedThrough").value_or(0);
    standing.attested_by = decimal(one, "attestedBy").value_or(0);
    out.keys.emplace(standing.key.signer_id, std::move(standing));
  }
  out.paused = document.find("paused") != nullptr;
  out.paused_why = text(document, "paused");
  out.safe_mode = text(document, "safeMode");
  out.active = text(document, "active");
  out.active_since_ms = decimal(document, "activeSinceMs").value_or(0);
  out.emergency = text(document, "emergency");
  out.emergency_why = text(document, "emergencyWhy");
  out.regular = text(document, "regular");
  if (const Json* rotation = document.find("rotation")) {
    Rotation& made = out.rotation.emplace();
    made.from = text(*rotation, "from");
    made.to = text(*rotation, "to");
    auto step = std::ranges::find(kSteps, text(*rotation, "step"), &StepName::name);
    if (step == kSteps.end() || !out.keys.contains(made.from) || !out.keys.contains(made.to)) return bad;
    made.step = step->step;
    made.since_ms = decimal(*rotation, "sinceMs").value_or(0);
    made.staged_ms = decimal(*rotation, "stagedMs").value_or(0);
    made.staged_sequence = decimal(*rotation, "stagedSequence").value_or(0);
    made.promoted_sequence = decimal(*rotation, "promotedSequence").value_or(0);
  }
  if (const Json* corrections = document.find("corrections")) {
    TRY_ASSIGN(out.corrections, corrections_from_json(*corrections));
  }
  if (!out.emergency.empty() && !out.keys.contains(out.emergency)) return bad;
  if (canonical(control_to_json(out)) != canonical(document)) return bad;
  return out;
}

}  // namespace assay::processors
