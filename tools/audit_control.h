// Telling the chain's projector what to do: control events onto audit-events, by whoever may write to the log.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "processors/audit_control.h"
#include "streams/log.h"
#include "streams/personal_store.h"
#include "tools/cli.h"
#include "tools/signers.h"

namespace assay::tools {

/// An audit event of ours, as the canonical text of its envelope.
std::string control_event(std::string_view event_type, std::string_view actor, WallTime now, Json data);

/// Whether the id has nothing but letters, digits, '.', '_' and '-'.
bool is_plain_id(std::string_view id);

/// Who acts, as an event names them: "user:ada", by $USER when nobody is named.
std::string acting(const std::string& by);

/// Where plaintexts of personal data lie: the database of the chain, else DIR/personal.
std::unique_ptr<streams::PersonalStore> open_personal(const Settings& settings);

/// Stores what the settings declare personal in these events, and gives the events with references in its place. The plaintext is
/// there before an event that refers to it is on the log. Errors: kUsage (not such an event), and the store's.
Result<std::vector<std::string>> seal_events(const Settings& settings, std::span<const std::string> events);

/// Appends events that control_event() made, in their order, and waits until they are durable.
/// Errors: kUsage (not such an event), and the log's.
Result<void> append_control_events(streams::Log& log, const std::string& topic, std::span<const std::string> events);

/// The same, sealed, through the process that runs on the data directory; where none does, onto the log itself.
Result<void> send_control_events(Context& context, std::span<const std::string> events);

/// Compares every stored row with what the log makes, through the process that runs on the data directory where it alone has the
/// log. Errors: as replay::compare_chain().
Result<void> compare_with_log(Context& context);

/// Asks the process that runs on the data directory to do what only it can; nothing: none runs there.
/// Errors: what it answers.
Result<std::optional<Json>> ask_running(const Settings& settings, std::string_view target, const Json& body, int64_t timeout_ms);

/// DIR/control.sock: there a running process takes control events and compares the chain, for whoever may open it.
std::string control_socket_path(const Settings& settings);

/// Where a key is that an event speaks of.
KeyPlace place_of(const Settings& settings, const processors::KeyStanding& standing);

/// When the next step of the key's rotation is due, in ms since the epoch; nothing: nobody watches, or none is.
std::optional<int64_t> rotation_due_ms(const processors::AuditControl& control, const RotationSettings& settings);

}  // namespace assay::tools
