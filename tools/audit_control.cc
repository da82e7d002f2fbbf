#include "tools/audit_control.h"

#include <algorithm>
#include <cctype>
#include <cstdlib>
#include <filesystem>
#include <iterator>
#include <random>

#include "processors/processor.h"
#include "replay/audit_parity.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "schemas/topics.h"
#include "streams/http_server.h"
#include "tools/open_log.h"
#include "tools/projection.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

constexpr int64_t kAppendTimeoutMs = 60'000, kCompareTimeoutMs = 6 * 3600 * 1000;  // the latter reads the whole topic

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

bool is_plain_id(std::string_view id) {
  return !id.empty() && id.size() <= 128 &&
         std::ranges::all_of(id, [](unsigned char c) { return std::isalnum(c) != 0 || c == '.' || c == '_' || c == '-'; });
}

std::string acting(const std::string& by) {
  if (!by.empty()) return "user:" + by;
  const char* user = std::getenv("USER");
  return "user:" + std::string(user == nullptr || *user == '\0' ? "unknown" : user);
}

std::unique_ptr<streams::PersonalStore> open_personal(const Settings& settings) {
  if (!settings.database.url.empty()) return streams::open_postgres_personal(settings.database.url);
  return streams::open_personal_files((std::filesystem::path(settings.data_dir) / "personal").string());
}

Result<std::vector<std::string>> seal_events(const Settings& settings, std::span<const std::string> events) {
  auto random_salt = [] {
    std::random_device random;
    std::string salt(processors::kPersonalSaltBytes, '\0');
    for (char& byte : salt) byte = static_cast<char>(random());
    return salt;
  };
  std::vector<std::string> sealed;
  std::vector<processors::PersonalRow> rows;
  for (const std::string& text : events) {
    TRY_ASSIGN(Json event, read_control_event(text));
    TRY_ASSIGN(std::vector<processors::PersonalRow> made,
               processors::seal_personal(event, settings.audit.personal_fields, random_salt));
    rows.insert(rows.end(), std::make_move_iterator(made.begin()), std::make_move_iterator(made.end()));
    sealed.push_back(canonical(event));
  }
  if (!rows.empty()) TRY(open_personal(settings)->add(rows));
  return sealed;
}

Result<std::optional<Json>> ask_running(const Settings& settings, std::string_view target, const Json& body, int64_t timeout_ms) {
  const std::string socket = control_socket_path(settings);
  if (!std::filesystem::exists(socket)) return std::optional<Json>();
  auto response = streams::http_unix_post(socket, target, canonical(body), timeout_ms);
  // One that was killed leaves a socket on which nobody listens.
  if (!response && response.error().code == Errc::kUnreachable) return std::optional<Json>();
  if (!response) return response.error();
  if (response->status / 100 != 2) return streams::error_of(*response);
  TRY_ASSIGN(Json answer, parse_json(response->body));
  return std::optional(std::move(answer));
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
  TRY_ASSIGN(const std::vector<std::string> sealed, seal_events(settings, events));
  Json list = Json::array();
  for (const std::string& event : sealed) list.push_back(event);
  TRY_ASSIGN(const auto taken,
             ask_running(settings, "/audit/control", Json::object().set("events", std::move(list)), kAppendTimeoutMs));
  if (taken) return {};
  TRY_ASSIGN(auto log, open_log(settings, LogAccess::kReadWrite));
  TRY(ensure_topics(settings, *log));
  return append_control_events(*log, topic_names(settings).full(Topic::kAudit), sealed);
}

Result<void> compare_with_log(Context& context) {
  const Settings& settings = context.settings;
  if (settings.kafka.brokers.empty()) {
    TRY_ASSIGN(const auto done, ask_running(settings, "/audit/compare", Json::object(), kCompareTimeoutMs));
    if (done) return {};
  }
  TRY_ASSIGN(auto log, open_log(settings, LogAccess::kRead));
  TRY_ASSIGN(const streams::StoredChain chain, open_stored_chain(settings, settings.data_dir));
  TRY(replay::compare_chain(*log, topic_names(settings), chain));
  return {};
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
