// assay audit pause, resume, safe-mode, emergency, rotate, compromised, migrate: who signs the chain, and what rests.
#include <algorithm>
#include <chrono>
#include <thread>

#include "schemas/time.h"
#include "streams/audit_verify.h"
#include "streams/postgres_sink.h"
#include "tools/audit_control.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/projection.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

using processors::AuditControl;
using processors::RotationStep;

struct Flags {
  std::string reason, by, to, place, key, successor, mode;
  bool end = false, now = false, revoke = false;
  int64_t wait_s = 10;
};

Json reasoned(const Flags& flags) { return Json::object().set("reason", flags.reason); }

std::string event(const Flags& flags, std::string_view type, Json data) {
  return control_event(type, acting(flags.by), wall_now(), std::move(data));
}

/// Where the chain stands; a chain that was never begun stands at its beginning.
Result<ChainStanding> standing_of(Context& context) {
  Result<ChainStanding> standing = read_chain_standing(context.settings, context.settings.data_dir);
  if (!standing && (standing.error().code == Errc::kIncomplete || standing.error().code == Errc::kNotFound)) return ChainStanding{};
  return standing;
}

Json standing_json(const Context& context, const ChainStanding& standing) {
  const AuditControl& control = standing.state.control;
  Json out = Json::object();
  out.set("active", control.active.empty() ? context.settings.audit.signer_id : control.active);
  out.set("rows", standing.state.sequence).set("signedThrough", std::to_string(standing.signed_through));
  out.set("paused", control.paused).set("safeMode", control.safe_mode).set("emergency", control.emergency);
  if (control.rotation) {
    out.set("rotation", std::string(processors::rotation_step_name(control.rotation->step)))
        .set("from", control.rotation->from)
        .set("to", control.rotation->to)
        .set("next", std::string(processors::next_rotation_event(control.rotation->step)));
  } else {
    out.set("rotation", "");
  }
  const auto due = rotation_due_ms(control, context.settings.audit.rotation);
  return out.set("due", due ? Json(format_rfc3339_ms(*due)) : Json());
}

/// Sends the events and waits until the chain's projector has folded them, as long as one runs.
Result<int> send_and_see(Context& context, const Flags& flags, const std::vector<std::string>& events,
                         const std::function<bool(const AuditControl&)>& there) {
  TRY(send_control_events(context, events));
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(flags.wait_s);
  for (;;) {
    TRY_ASSIGN(ChainStanding standing, standing_of(context));
    const bool seen = there(standing.state.control);
    if (seen || std::chrono::steady_clock::now() >= until) {
      if (!seen)
        context.err << "assay: the event is on the log; the chain has not folded it within " << flags.wait_s
                    << " s: does `assay run` run?\n";
      context.out << render_object(standing_json(context, standing), context.format);
      return seen ? 0 : exit_code(Errc::kIncomplete);
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

Error refused(const std::string& what) { return {Errc::kRefused, what}; }

/// The key that signs now, whole, without asking the service that has it: that may be what is away.
Result<SignerKey> active_key(Context& context, const ChainStanding& standing) {
  const AuditControl& control = standing.state.control;
  const std::string id = control.active.empty() ? context.settings.audit.signer_id : control.active;
  if (const streams::SignerEntry* known = standing.signers.find(id)) return known->key;
  TRY_ASSIGN(auto signer, open_signer(context.settings));
  return signer->key();
}

Json whole_key(const SignerKey& key, const KeyPlace& place) {
  return processors::key_to_json(key).set("kind", place.kind).set("place", place.place);
}

std::string from_sequence(const ChainStanding& standing) { return std::to_string(standing.signed_through + 1); }

Result<int> pause(Context& context, const Flags& flags, bool paused) {
  return send_and_see(context, flags, {event(flags, paused ? "audit.paused" : "audit.resumed", reasoned(flags))},
                      [paused](const AuditControl& control) { return control.paused == paused; });
}

Result<int> safe_mode(Context& context, const Flags& flags) {
  const bool on = flags.mode == "on";
  if (!on && flags.mode != "off") return Error{Errc::kUsage, "audit safe-mode: on or off, not \"" + flags.mode + "\""};
  return send_and_see(context, flags, {event(flags, on ? "audit.safe_mode_entered" : "audit.safe_mode_left", reasoned(flags))},
                      [on](const AuditControl& control) { return control.safe_mode.empty() != on; });
}

Result<int> emergency(Context& context, const Flags& flags) {
  TRY_ASSIGN(ChainStanding standing, standing_of(context));
  const AuditControl& control = standing.state.control;
  if (flags.end) {
    if (control.emergency.empty()) return refused("ending an emergency: no emergency key signs");
    return send_and_see(context, flags, {event(flags, "audit.emergency_signer_ended", reasoned(flags))},
                        [](const AuditControl& now) { return now.emergency.empty(); });
  }
  if (!control.emergency.empty()) return refused("the emergency key " + control.emergency + " signs already");
  const EmergencySettings& settings = context.settings.audit.emergency;
  if (settings.signer.empty())
    return Error{Errc::kUsage, "there is no emergency key: set audit.emergency.signer to the kind of one"};
  if (settings.signer == "file" && requires_kms(context.settings))
    return refused("REQUIRE_KMS: audit.emergency.signer is a key file; an HSM, a signing proxy or a KMS has to stand in");
  const KeyPlace place{settings.signer, settings.signer_id, settings.place, settings.signer == "file"};
  TRY_ASSIGN(auto signer, open_key(context.settings, place));
  TRY(probe_signer(*signer));
  TRY_ASSIGN(SignerKey from, active_key(context, standing));
  Json data = reasoned(flags);
  data.set("key", whole_key(signer->key(), place)).set("from", processors::key_to_json(from));
  data.set("fromSequence", from_sequence(standing));
  return send_and_see(context, flags, {event(flags, "audit.emergency_signer", std::move(data))},
                      [&](const AuditControl& now) { return now.emergency == settings.signer_id; });
}

Result<int> status(Context& context) {
  TRY_ASSIGN(ChainStanding standing, standing_of(context));
  context.out << render_object(standing_json(context, standing), context.format);
  return 0;
}

Result<int> plan(Context& context) {
  TRY_ASSIGN(ChainStanding standing, standing_of(context));
  const AuditControl& control = standing.state.control;
  const auto& rotation = control.rotation;
  static constexpr std::pair<const char*, const char*> kSteps[] = {
      {"audit rotate start --to ID", "create the new key where the old one is"},
      {"audit rotate start --to ID", "publish its public key in signers.json; it signs nothing yet"},
      {"audit rotate start --to ID", "accept rows of both keys from here on"},
      {"audit rotate test", "have the new key sign something, and check that"},
      {"audit rotate promote", "sign with the new key, when the overlap has passed"},
      {"audit rotate revoke", "accept no more rows of the old key"}};
  const int done = rotation ? static_cast<int>(rotation->step) + 1 : 0;
  std::vector<Json> rows;
  for (int i = 0; i < 6; ++i)
    rows.push_back(
        Json::object()
            .set("step", int64_t{i + 1})
            .set("state", i < done    ? "done"
                          : i == done ? "next"
                                      : "later")
            .set("what", kSteps[i].second)
            .set("command", std::string("assay ") + kSteps[i].first)
            .set("notBefore", i == 4 && rotation && rotation->staged_ms > 0
                                  ? Json(format_rfc3339_ms(rotation->staged_ms + context.settings.audit.rotation.overlap_ms))
                                  : Json()));
  context.out << render_rows(rows, context.format);
  return 0;
}

/// The steps of a rotation, each made from what the chain has folded, so that one that was cut short goes on where it stood.
class RotationCommand {
 public:
  RotationCommand(Context& context, const Flags& flags, ChainStanding standing)
      : context_(context), flags_(flags), standing_(std::move(standing)), rotation_(standing_.state.control.rotation) {}

  Result<int> start() { return start_to(flags_.to); }

  Result<int> start_to(std::string to) {
    std::vector<std::string> events;
    if (!rotation_) {
      if (!is_plain_id(to)) return Error{Errc::kUsage, "a rotation needs --to ID, of letters, digits, '.', '_' and '-'"};
      if (standing_.signers.find(to) != nullptr)
        return refused("rotating to " + to + ": the id is in use, and ids are never reused");
      TRY_ASSIGN(SignerKey from, active_key(context_, standing_));
      KeyPlace place = configured_key(context_.settings.audit);
      place.signer_id = to;
      place.place = flags_.place;
      place.create = place.kind == "file" || place.kind == "pkcs11";
      TRY_ASSIGN(auto signer, open_key(context_.settings, place));
      if (signer->key().public_key == from.public_key)
        return refused("rotating to " + to + ": its key is that of " + from.signer_id + "; --place names another one");
      Json data = reasoned(flags_);
      data.set("from", processors::key_to_json(from)).set("to", whole_key(signer->key(), place));
      events.push_back(event(flags_, "audit.key_created", std::move(data)));
    } else if (!to.empty() && to != rotation_->to) {
      return refused("rotating to " + to + ": the rotation to " + rotation_->to + " is not over; audit rotate cancel ends it");
    } else {
      to = rotation_->to;
    }
    const Json data = Json::object().set("to", to);
    if (!stands(RotationStep::kPublished)) events.push_back(event(flags_, "audit.key_published", data));
    if (!stands(RotationStep::kStaged)) events.push_back(event(flags_, "audit.key_staged", data));
    return send(events, RotationStep::kStaged, to);
  }

  Result<int> test() {
    TRY(wants(RotationStep::kStaged));
    TRY_ASSIGN(auto signer, new_signer());
    const std::string what = "rotation to " + rotation_->to + " after row " + std::to_string(rotation_->staged_sequence);
    const Sha256Digest digest = sha256("assay signing test\n", what);
    TRY_ASSIGN(std::string signature, signer->sign(digest));
    streams::SignerRegistry published;
    TRY(published.add({standing_.state.control.keys.at(rotation_->to).key, {}, {}, false}));
    if (auto fault = published.check(rotation_->to, 1, digest, to_base64(signature)))
      return refused("testing " + rotation_->to + ": " + *fault);
    Json data = Json::object().set("to", rotation_->to).set("test", what).set("digest", to_hex(as_bytes(digest)));
    data.set("signature", to_base64(signature));
    return send({event(flags_, "audit.key_tested", std::move(data))}, RotationStep::kTested, rotation_->to);
  }

  Result<int> promote() {
    TRY(wants(RotationStep::kTested));
    const int64_t not_before_ms = rotation_->staged_ms + context_.settings.audit.rotation.overlap_ms;
    if (!flags_.now && wall_now().value < not_before_ms)
      return refused("promoting " + rotation_->to + ": the overlap ends at " + format_rfc3339_ms(not_before_ms) +
                     "; whoever verifies must have the new key by then. --now does not wait");
    if (standing_.signed_through < rotation_->staged_sequence)
      return refused("promoting " + rotation_->to + ": rows before row " + std::to_string(rotation_->staged_sequence) +
                     " still wait for the signature of " + rotation_->from);
    TRY_ASSIGN(auto signer, new_signer());
    TRY(probe_signer(*signer));
    return send({event(flags_, "audit.key_promoted", Json::object().set("to", rotation_->to))}, RotationStep::kPromoted,
                rotation_->to);
  }

  Result<int> revoke() {
    TRY(wants(RotationStep::kPromoted));
    if (standing_.signed_through < rotation_->promoted_sequence)
      return refused("revoking " + rotation_->from + ": rows before row " + std::to_string(rotation_->promoted_sequence) +
                     " still wait for its signature");
    Json data = reasoned(flags_);
    if (flags_.reason.empty()) data.set("reason", "rotated");
    return send({event(flags_, "audit.key_revoked", data.set("from", rotation_->from))}, std::nullopt, "");
  }

  Result<int> cancel() {
    if (!rotation_) return refused("cancelling a rotation: there is none");
    if (rotation_->step == RotationStep::kPromoted)
      return refused("cancelling the rotation to " + rotation_->to + ": it signs already; rotate on, to another key");
    return send({event(flags_, "audit.rotation_cancelled", reasoned(flags_).set("to", rotation_->to))}, std::nullopt, "");
  }

  /// Whatever is due now; a schedule calls it as often as it likes.
  Result<int> next() {
    const auto due_ms = rotation_due_ms(standing_.state.control, context_.settings.audit.rotation);
    if (!due_ms || *due_ms > wall_now().value) {
      context_.out << render_object(standing_json(context_, standing_), context_.format);
      return 0;
    }
    // A schedule that makes up an id each day goes on with the one that it began with.
    if (!stands(RotationStep::kStaged)) return start_to(rotation_ ? rotation_->to : flags_.to);
    if (!stands(RotationStep::kTested)) return test();
    return stands(RotationStep::kPromoted) ? revoke() : promote();
  }

 private:
  bool stands(RotationStep step) const { return rotation_ && rotation_->step >= step; }

  Result<void> wants(RotationStep step) const {
    if (rotation_ && rotation_->step == step) return {};
    return refused("the rotation " +
                   (rotation_ ? "to " + rotation_->to + " stands at " + std::string(processors::rotation_step_name(rotation_->step))
                              : std::string("has not begun")) +
                   ", not at " + std::string(processors::rotation_step_name(step)) +
                   "; `assay audit rotate plan` says what is next");
  }

  Result<std::shared_ptr<streams::Signer>> new_signer() const {
    return open_key(context_.settings, place_of(context_.settings, standing_.state.control.keys.at(rotation_->to)));
  }

  Result<int> send(const std::vector<std::string>& events, std::optional<RotationStep> step, const std::string& to) {
    return send_and_see(context_, flags_, events, [&](const AuditControl& now) {
      return step ? now.rotation && now.rotation->to == to && now.rotation->step >= *step : !now.rotation;
    });
  }

  Context& context_;
  const Flags& flags_;
  ChainStanding standing_;
  std::optional<processors::Rotation> rotation_;
};

Result<int> rotate(Context& context, const Flags& flags, Result<int> (RotationCommand::*step)()) {
  TRY_ASSIGN(ChainStanding standing, standing_of(context));
  return (RotationCommand(context, flags, std::move(standing)).*step)();
}

/// The rows that a key signed, in runs.
Result<std::vector<Json>> rows_of_key(Context& context, const std::string& id, const ChainStanding& standing) {
  TRY_ASSIGN(streams::StoredChain chain, open_stored_chain(context.settings, context.settings.data_dir));
  const streams::SignerEntry* entry = standing.signers.find(id);
  const int64_t attested = entry != nullptr ? entry->attested_through : 0;
  std::vector<Json> runs;
  int64_t sequence = 0, first = 0;
  std::string first_at, last_at;
  auto close = [&](int64_t last) {
    if (first == 0) return;
    runs.push_back(Json::object()
                       .set("signer", id)
                       .set("firstSequence", std::to_string(first))
                       .set("lastSequence", std::to_string(last))
                       .set("count", last - first + 1)
                       .set("firstCreatedAt", first_at)
                       .set("lastCreatedAt", last_at)
                       .set("attested", last <= attested));
    first = 0;
  };
  for (;;) {
    TRY_ASSIGN(auto lines, chain.lines());
    if (lines.empty()) break;
    for (const streams::StoredLine& line : lines) {
      TRY_ASSIGN(streams::SignedRow row, streams::parse_audit_line(line.text));
      ++sequence;
      if (row.signer_kid != id) {
        close(sequence - 1);
        continue;
      }
      const std::string at = format_rfc3339_us(row.row.created_at_us);
      if (first == 0) {
        first = sequence;
        first_at = at;
      }
      last_at = at;
    }
  }
  close(sequence);
  return runs;
}

/// Before anything bears witness to the rows: they hold among themselves, and are those that the log makes.
Result<void> prove_rows(Context& context) {
  TRY_ASSIGN(streams::StoredChain chain, open_stored_chain(context.settings, context.settings.data_dir));
  TRY_ASSIGN(streams::VerifyReport report, streams::verify_chain(chain, {}));
  if (!report.verified()) return Error{Errc::kTampered, "proving the rows before they are attested:\n" + streams::to_text(report)};
  return compare_with_log(context);
}

Result<int> compromised(Context& context, const Flags& flags) {
  TRY_ASSIGN(ChainStanding standing, standing_of(context));
  const streams::SignerEntry* lost = standing.signers.find(flags.key);
  if (lost == nullptr) return Error{Errc::kUsage, "audit compromised: the chain knows no key " + flags.key};
  TRY_ASSIGN(std::vector<Json> runs, rows_of_key(context, flags.key, standing));
  if (!flags.revoke) {
    context.out << render_rows(runs, context.format);
    return 0;
  }
  if (lost->revoked) return refused("revoking " + flags.key + ": it is revoked already (" + lost->revoked_reason + ")");
  if (flags.reason.empty()) return Error{Errc::kUsage, "audit compromised --revoke: --reason says why"};
  TRY(prove_rows(context));
  Json data = reasoned(flags).set("key", processors::key_to_json(lost->key)).set("fromSequence", from_sequence(standing));
  const AuditControl& control = standing.state.control;
  const std::string active = control.active.empty() ? context.settings.audit.signer_id : control.active;
  if (active == flags.key || control.regular == flags.key) {
    if (!is_plain_id(flags.successor))
      return Error{Errc::kUsage, "revoking " + flags.key + ", which signs: --successor ID names the key that signs from now on"};
    KeyPlace place = configured_key(context.settings.audit);
    if (auto known = control.keys.find(flags.successor); known != control.keys.end())
      place = place_of(context.settings, known->second);
    else
      place = {place.kind, flags.successor, flags.place, place.kind == "file" || place.kind == "pkcs11"};
    TRY_ASSIGN(auto signer, open_key(context.settings, place));
    TRY(probe_signer(*signer));
    data.set("successor", whole_key(signer->key(), place));
  }
  data.set("rows", std::to_string(standing.state.sequence)).set("headHash", to_hex(as_bytes(standing.state.head_hash)));
  return send_and_see(context, flags, {event(flags, "audit.key_compromised", std::move(data))}, [&](const AuditControl& now) {
    auto key = now.keys.find(flags.key);
    return key != now.keys.end() && key->second.revoked;
  });
}

Result<int> migrate(Context& context) {
  if (context.settings.database.url.empty())
    return Error{Errc::kUsage, "audit migrate: there is no database; --database-url names it, with a role that owns the schema"};
  TRY(streams::migrate_database(context.settings.database.url));
  context.err << "The schema is up to date.\n";
  return 0;
}

/// What every command that sends an event takes.
void say_why(Command& command, const std::shared_ptr<Flags>& flags, bool required = true) {
  command.option("--reason", flags->reason, "Why; it stands in the audit event");
  if (required) command.required();
  command.option("--by", flags->by, "Who; without it $USER");
  command.option("--wait", flags->wait_s, "Seconds to wait until the chain has folded it");
}

}  // namespace

void register_audit_control(Command& audit) {
  auto flags = std::make_shared<Flags>();

  Command pausing = audit.command("pause", "Hold the projector behind this event; its lag is shown as intended");
  pausing.example("assay audit pause --reason 'database maintenance'");
  say_why(pausing, flags);
  pausing.run([flags](Context& context) { return pause(context, *flags, true); });
  Command resuming = audit.command("resume", "Let the projector go on");
  say_why(resuming, flags, false);
  resuming.run([flags](Context& context) { return pause(context, *flags, false); });

  Command safe = audit.command("safe-mode", "on: rows are chained and wait for their signatures; off: they are signed in order");
  safe.example("assay audit safe-mode on --reason 'integrity rebuild'").argument("MODE", flags->mode, "on or off").required();
  say_why(safe, flags, false);
  safe.run([flags](Context& context) { return safe_mode(context, *flags); });

  Command emergent = audit.command("emergency", "Sign with the emergency key of [audit.emergency], and back");
  emergent.example("assay audit emergency --reason 'KMS away since 09:12, approved by Ada'")
      .example("assay audit emergency --end --reason 'KMS is back'")
      .flag("--end", flags->end, "Sign with the usual key again");
  say_why(emergent, flags);
  emergent.run([flags](Context& context) { return emergency(context, *flags); });

  Command rotating = audit.command("rotate", "The six steps from one signing key to the next");
  rotating.command("plan", "The steps, and which is next").run([](Context& context) { return plan(context); });
  rotating.command("status", "Which key signs, and where a rotation stands").run([](Context& context) { return status(context); });
  struct StepCommand {
    const char *name, *summary;
    Result<int> (RotationCommand::*step)();
  };
  static constexpr StepCommand kSteps[] = {
      {"start", "Steps 1 to 3: create the key, publish it, accept both", &RotationCommand::start},
      {"test", "Step 4: the new key signs something, and that holds", &RotationCommand::test},
      {"promote", "Step 5: the new key signs, once the overlap has passed", &RotationCommand::promote},
      {"revoke", "Step 6: no more rows of the old key are accepted", &RotationCommand::revoke},
      {"cancel", "Before the promotion: the new key never signs", &RotationCommand::cancel},
      {"next", "Whatever is due, for a schedule; nothing when nothing is", &RotationCommand::next}};
  for (const StepCommand& one : kSteps) {
    Command step = rotating.command(one.name, one.summary);
    if (std::string_view(one.name) == "start" || std::string_view(one.name) == "next")
      step.option("--to", flags->to, "Id of the new key")
          .option("--place", flags->place, "Where it is: key file, label, or KMS key; without it the usual place of that id");
    if (std::string_view(one.name) == "promote") step.flag("--now", flags->now, "Do not wait for the end of the overlap");
    say_why(step, flags, false);
    step.run([flags, run = one.step](Context& context) { return rotate(context, *flags, run); });
  }

  Command losing = audit.command("compromised", "Rows that hang on a key; with --revoke: it counts no more, its rows are attested");
  losing.example("assay audit compromised eval-audit-signer-v1")
      .example("assay audit compromised eval-audit-signer-v1 --revoke --successor v2 --reason 'laptop stolen'")
      .argument("KID", flags->key, "Id of the key")
      .required()
      .flag("--revoke", flags->revoke, "Revoke it; its successor bears witness to the rows it has signed")
      .option("--successor", flags->successor, "Id of the key that signs from now on")
      .option("--place", flags->place, "Where the successor is");
  say_why(losing, flags, false);
  losing.run([flags](Context& context) { return compromised(context, *flags); });

  Command migrating = audit.command("migrate", "Bring the database's schema up to date, as its owner");
  migrating.example("assay --database-url postgresql://owner@… audit migrate");
  migrating.run([](Context& context) { return migrate(context); });
}

}  // namespace assay::tools
