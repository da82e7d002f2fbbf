#include "processors/audit_chain.h"

#include <algorithm>
#include <charconv>

#include "schemas/json_parse.h"
#include "schemas/time.h"

namespace assay::processors {
namespace {

constexpr int64_t kMaxRecordedAtMs = 253402300799999;  // the end of year 9999: RFC 3339 has no later instant

bool is_event_id(std::string_view id) { return id.starts_with("av-") && Id::parse(id.substr(3)).has_value(); }

/// PostgreSQL's JSON functions, and many a reader, cannot hold U+0000.
bool has_nul(const Json& value) {
  auto in_text = [](std::string_view text) { return text.find('\0') != text.npos; };
  if (value.is_string()) return in_text(value.as_string());
  if (value.is_array()) return std::ranges::any_of(value.as_array(), has_nul);
  if (value.is_object())
    return std::ranges::any_of(value.as_object(),
                               [&](const auto& member) { return in_text(member.first) || has_nul(member.second); });
  return false;
}

/// What is wrong with an envelope, or nothing.
std::optional<Refused> fault_of(const Json& envelope) {
  for (std::string_view name : {"id", "eventType", "actor", "ts"}) {
    const Json* member = envelope.find(name);
    if (member == nullptr) return Refused{Reason::kMissingField, "the envelope has no member \"" + std::string(name) + "\""};
    if (!member->is_string() || member->as_string().empty())
      return Refused{Reason::kWrongType, "the envelope's \"" + std::string(name) + "\" is not a text"};
  }
  if (!is_event_id(envelope.find("id")->as_string())) return Refused{Reason::kBadId, "an event id is av- and 32 hex digits"};
  for (std::string_view name : {"data", "source"})
    if (envelope.find(name) == nullptr)
      return Refused{Reason::kMissingField, "the envelope has no member \"" + std::string(name) + "\""};
  for (std::string_view name : {"recordedAt", "provider"})
    if (envelope.find(name) != nullptr)
      return Refused{Reason::kWrongType, "\"" + std::string(name) + "\" is the chain's own member; an envelope has none"};
  if (has_nul(envelope)) return Refused{Reason::kWrongType, "the envelope holds U+0000, which the database cannot"};
  return std::nullopt;
}

std::variant<Json, Refused> read_envelope(const RecordView& record) {
  if (!record.value || record.value->empty()) return Refused{Reason::kEmpty, "an audit event has a value"};
  Result<Json> parsed = parse_json(*record.value);
  if (!parsed) return Refused{Reason::kNotJson, parsed.error().message};
  if (!parsed->is_object()) return Refused{Reason::kWrongType, "an envelope is an object"};
  if (canonical(*parsed) != *record.value) return Refused{Reason::kNotJson, "the envelope is not in canonical form (RFC 8785)"};
  if (auto fault = fault_of(*parsed)) return *fault;
  if (record.timestamp.value < 0 || record.timestamp.value > kMaxRecordedAtMs)
    return Refused{Reason::kBadTimestamp, "the record's timestamp lies outside the years 1970 to 9999"};
  return std::move(parsed).value();
}

Error bad_state(std::string_view member) {
  return {Errc::kCorrupt, "reading a chain state: \"" + std::string(member) + "\" is not as it must be"};
}

Result<int64_t> decimal(const Json& document, std::string_view name) {
  std::string_view text = document.string_or(name, "");
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || std::to_string(value) != text) return bad_state(name);
  return value;
}

}  // namespace

std::string anchor_of(const RecordView& record) {
  const UInt128 hash = xxh3_128(record.value.value_or(std::string_view{}), static_cast<uint64_t>(record.timestamp.value));
  Id digits;
  for (size_t i = 0; i < digits.bytes.size(); ++i) digits.bytes[i] = static_cast<uint8_t>(hash >> (120 - 8 * i));
  return digits.hex();
}

Sha256Digest chain_hash(std::string_view payload, const std::optional<Sha256Digest>& prev_hash) {
  return sha256(payload, prev_hash ? as_bytes(*prev_hash) : std::string_view{});
}

int64_t chain_created_at_us(int64_t recorded_at_ms, int64_t sequence, int64_t previous_us) {
  const int64_t recorded_us = recorded_at_ms * 1000;
  return sequence == 1 ? recorded_us : std::max(recorded_us, previous_us + 1);
}

ChainStep fold_audit_record(const RecordView& record, const std::optional<WriterStamp>& stamp, ChainState& state) {
  CHECK(record.offset >= state.next_offset);
  if (stamp) {
    auto last = state.writers.find(stamp->writer);
    const uint64_t expected = last == state.writers.end() ? 0 : last->second + 1;
    if (stamp->n > expected) return InputGap{stamp->writer, expected, stamp->n};
    if (stamp->n < expected) {
      state.next_offset = record.offset + 1;
      return Repeated{};
    }
    state.writers.insert_or_assign(stamp->writer, stamp->n);
  }
  state.next_offset = record.offset + 1;

  std::variant<Json, Refused> read = read_envelope(record);
  if (Refused* refused = std::get_if<Refused>(&read)) return std::move(*refused);
  Json& envelope = std::get<Json>(read);

  AuditRow row;
  row.sequence = state.sequence + 1;
  row.id = envelope.find("id")->as_string();
  row.event_type = envelope.find("eventType")->as_string();
  row.created_at_us = chain_created_at_us(record.timestamp.value, row.sequence, state.last_created_at_us);
  if (row.sequence == 1) state.control.active_since_ms = record.timestamp.value;
  if (is_control_event(row.event_type))
    (void)fold_control(row.sequence, record.timestamp.value, row.event_type, row.id, *envelope.find("data"), state.control);
  envelope.set("recordedAt", format_rfc3339_ms(record.timestamp.value));
  if (!state.control.emergency.empty()) envelope.set("provider", "emergency");
  row.payload = canonical(envelope);
  if (state.sequence > 0) row.prev_hash = state.head_hash;
  row.hash = chain_hash(row.payload, row.prev_hash);

  state.sequence = row.sequence;
  state.head_hash = row.hash;
  state.head_id = row.id;
  state.last_created_at_us = row.created_at_us;
  state.last_offset = record.offset;
  state.anchor = anchor_of(record);
  return row;
}

Result<EnvelopeView> read_payload(const Json& payload) {
  auto fail = [](std::string_view what) { return Error{Errc::kCorrupt, std::string(what)}; };
  if (!payload.is_object()) return fail("the payload is not an object");
  EnvelopeView view;
  view.id = payload.string_or("id", "");
  if (!is_event_id(view.id)) return fail("the payload's \"id\" is not an event id");
  view.event_type = payload.string_or("eventType", "");
  if (view.event_type.empty()) return fail("the payload has no \"eventType\"");
  std::string_view recorded_at = payload.string_or("recordedAt", "");
  std::optional<int64_t> ms = parse_rfc3339_ms(recorded_at);
  if (!ms || *ms < 0 || *ms > kMaxRecordedAtMs || format_rfc3339_ms(*ms) != recorded_at)
    return fail("the payload's \"recordedAt\" is not an instant in milliseconds");
  view.recorded_at_ms = *ms;
  return view;
}

Json chain_state_to_json(const ChainState& state) {
  Json writers = Json::object();
  for (const auto& [writer, n] : state.writers) writers.set(writer, std::to_string(n));
  Json out = Json::object();
  out.set("anchor", state.anchor);
  out.set("headHash", state.sequence > 0 ? Json(to_hex(as_bytes(state.head_hash))) : Json());
  out.set("headId", state.head_id).set("lastCreatedAtUs", std::to_string(state.last_created_at_us));
  out.set("lastOffset", std::to_string(state.last_offset.value)).set("nextOffset", std::to_string(state.next_offset.value));
  out.set("sequence", std::to_string(state.sequence)).set("writers", std::move(writers));
  if (Json control = control_to_json(state.control); !control.is_null()) out.set("control", std::move(control));
  return out;
}

Result<ChainState> chain_state_from_json(const Json& document) {
  if (!document.is_object()) return bad_state("state");
  ChainState state;
  TRY_ASSIGN(state.sequence, decimal(document, "sequence"));
  TRY_ASSIGN(state.last_created_at_us, decimal(document, "lastCreatedAtUs"));
  TRY_ASSIGN(int64_t last_offset, decimal(document, "lastOffset"));
  TRY_ASSIGN(int64_t next_offset, decimal(document, "nextOffset"));
  state.last_offset = Offset(last_offset);
  state.next_offset = Offset(next_offset);
  state.head_id = document.string_or("headId", "");
  state.anchor = document.string_or("anchor", "");
  const Json* hash = document.find("headHash");
  if (hash == nullptr || hash->is_string() != (state.sequence > 0)) return bad_state("headHash");
  if (hash->is_string()) {
    Result<std::string> raw = from_hex(hash->as_string());
    if (!raw || raw->size() != state.head_hash.size()) return bad_state("headHash");
    std::copy(raw->begin(), raw->end(), state.head_hash.begin());
  }
  const Json* writers = document.find("writers");
  if (writers == nullptr || !writers->is_object()) return bad_state("writers");
  for (const auto& [writer, n] : writers->as_object()) {
    TRY_ASSIGN(int64_t last, decimal(*writers, writer));
    if (last < 0) return bad_state("writers");
    state.writers.emplace(writer, static_cast<uint64_t>(last));
  }
  if (const Json* control = document.find("control")) {
    TRY_ASSIGN(state.control, control_from_json(*control));
  }
  return state;
}

}  // namespace assay::processors
