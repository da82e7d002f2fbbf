#include "tools/audit_control.h"

#include <filesystem>
#include <random>

#include "processors/processor.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "schemas/topics.h"
#include "streams/http_server.h"
#include "tools/open_log.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

/// The envelope in the text, when it is one of an event that people send.
Result<Json> read_control_event(const std::string& text) {
  Result<Json> event = parse_json(text);
  const std::string type = event && event->is_object() ? std::string(event->string_or("eventType", "")) : "";
  const bool known = processors::is_control_event(type) || type == "audit.kms_waiver";
  if (!known || canonical(*event) != text || event->string_or("id", "").empty())
    return Error{Errc::kUsage, "appending an audit event: \"" + type + "\" is no event that controls the chain"};
  return event;
}

}  // namespace

std::string control_event(std::string_view event_type, std::string_view actor, WallTime now, Json data) {
  std::random_device random;  // an event of a person has no cause that an id could be derived from
  Id id;
  for (uint8_t& byte : id.bytes) byte = static_cast<uint8_t>(random());
  return processors::audit_output(id, id, event_type, actor, format_rfc3339_ms(now.value),
                                  Json::object().set("command", "assay audit"), std::move(data))
      .value;
}

Result<void> append_control_events(streams::Log& log, const std::string& topic, std::span<const std::string> events) {
  for (const std::string& text : events) TRY(read_control_event(text));
  TRY_ASSIGN(auto producer, log.open_producer());
  for (const std::string& text : events) {
    TRY_ASSIGN(Json event, read_control_event(text));
    streams::OutRecord record;
    record.to = {topic, 0};
    record.timestamp = wall_now();
    record.key = std::string(event.string_or("id", ""));
    record.value = text;
    TRY(producer->send(std::move(record)));
  }
  return producer->flush();
}

Result<void> send_control_events(Context& context, std::span<const std::string> events) {
  const Settings& settings = context.settings;
  const std::string socket = control_socket_path(settings);
  if (std::filesystem::exists(socket)) {
    Json list = Json::array();
    for (const std::string& event : events) list.push_back(event);
    auto response = streams::http_unix_post(socket, "/audit/control", canonical(Json::object().set("events", std::move(list))));
    if (response && response->status / 100 != 2) return streams::error_of(*response);
    if (response) return {};
    if (response.error().code != Errc::kUnreachable || settings.kafka.brokers.empty()) {
      // Nobody listens on what a killed process left behind; then the log is free, and opening it says so.
      if (response.error().code != Errc::kUnreachable) return response.error();
    }
  }
  TRY_ASSIGN(auto log, open_log(settings, LogAccess::kReadWrite));
  TRY(ensure_topics(settings, *log));
  return append_control_events(*log, topic_names(settings).full(Topic::kAudit), events);
}

std::string control_socket_path(const Settings& settings) {
  return (std::filesystem::path(settings.data_dir) / "control.sock").string();
}

KeyPlace place_of(const Settings& settings, const processors::KeyStanding& standing) {
  KeyPlace out = configured_key(settings.audit);
  if (standing.key.signer_id == out.signer_id) return out;
  out.signer_id = standing.key.signer_id;
  out.place = standing.place;
  out.create = false;
  if (!standing.kind.empty()) out.kind = standing.kind;
  return out;
}

std::optional<int64_t> rotation_due_ms(const processors::AuditControl& control, const RotationSettings& settings) {
  if (control.rotation) {
    // Steps follow at once, but for the overlap before the new key signs.
    const processors::Rotation& rotation = *control.rotation;
    return rotation.step == processors::RotationStep::kTested ? rotation.staged_ms + settings.overlap_ms : rotation.since_ms;
  }
  if (settings.every_ms == 0 || control.active_since_ms == 0) return std::nullopt;
  return control.active_since_ms + settings.every_ms;
}

}  // namespace assay::tools
