// Telling the chain's projector what to do: control events onto audit-events, by whoever may write to the log.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "processors/audit_control.h"
#include "streams/log.h"
#include "tools/cli.h"
#include "tools/signers.h"

namespace assay::tools {

/// An audit event of ours, as the canonical text of its envelope.
std::string control_event(std::string_view event_type, std::string_view actor, WallTime now, Json data);

/// Appends events that control_event() made, in their order, and waits until they are durable.
/// Errors: kUsage (not such an event), and the log's.
Result<void> append_control_events(streams::Log& log, const std::string& topic, std::span<const std::string> events);

/// The same through the process that runs on the data directory; where none does, onto the log itself.
Result<void> send_control_events(Context& context, std::span<const std::string> events);

/// Compares every stored row with what the log makes, through the process that runs on the data directory where it alone has the
/// log. Errors: as replay::compare_chain().
Result<void> compare_with_log(Context& context);

/// DIR/control.sock: there a running process takes control events and compares the chain, for whoever may open it.
std::string control_socket_path(const Settings& settings);

/// Where a key is that an event speaks of.
KeyPlace place_of(const Settings& settings, const processors::KeyStanding& standing);

/// When the next step of the key's rotation is due, in ms since the epoch; nothing: nobody watches, or none is.
std::optional<int64_t> rotation_due_ms(const processors::AuditControl& control, const RotationSettings& settings);

}  // namespace assay::tools
