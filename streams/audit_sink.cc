#include "streams/audit_sink.h"

#include <algorithm>

#include "schemas/json_parse.h"
#include "schemas/time.h"

namespace assay::streams {
namespace {

Error bad(std::string_view member, std::string_view what) {
  return {Errc::kCorrupt, "\"" + std::string(member) + "\" " + std::string(what)};
}

Result<Sha256Digest> read_digest(std::string_view member, const Json& value) {
  Result<std::string> raw = value.is_string() ? from_hex(value.as_string()) : Error{};
  Sha256Digest digest;
  if (!raw || raw->size() != digest.size()) return bad(member, "is not 64 lower-case hex digits");
  std::copy(raw->begin(), raw->end(), digest.begin());
  return digest;
}

/// "2026-05-01T12:00:00.000000Z" and nothing else.
std::optional<int64_t> read_created_at(std::string_view text) {
  constexpr size_t kSize = 27;
  std::optional<int64_t> ms = parse_rfc3339_ms(text);
  if (!ms || text.size() != kSize) return std::nullopt;
  int64_t us = 0;
  for (char c : text.substr(kSize - 4, 3)) us = us * 10 + (c - '0');
  us += *ms * 1000;
  if (us < 0 || format_rfc3339_us(us) != text) return std::nullopt;
  return us;
}

}  // namespace

std::string audit_line(const SignedRow& signed_row) {
  const processors::AuditRow& row = signed_row.row;
  std::string out;
  out.reserve(row.payload.size() + row.event_type.size() + 420);
  out += "{\"created_at\":\"";
  out += format_rfc3339_us(row.created_at_us);
  out += "\",\"event_type\":";
  append_string(row.event_type, out);
  out += ",\"hash\":\"";
  out += to_hex(as_bytes(row.hash));
  out += "\",\"id\":";
  append_string(row.id, out);
  out += ",\"payload\":";
  out += row.payload;
  out += ",\"prev_hash\":";
  out += row.prev_hash ? "\"" + to_hex(as_bytes(*row.prev_hash)) + "\"" : "null";
  out += ",\"signature\":";
  append_string(signed_row.signature, out);
  out += ",\"signer_kid\":";
  append_string(signed_row.signer_kid, out);
  out += "}";
  return out;
}

Result<SignedRow> parse_audit_line(std::string_view line, Json* payload_document, bool* canonical_text) {
  if (line.empty()) return Error{Errc::kCorrupt, "the line is empty"};
  TRY_ASSIGN(Json document, parse_json(line));
  if (!document.is_object()) return Error{Errc::kCorrupt, "the line is not an object"};
  static constexpr std::string_view kMembers[] = {"created_at", "event_type", "hash",      "id",
                                                  "payload",    "prev_hash",  "signature", "signer_kid"};
  for (std::string_view member : kMembers)
    if (document.find(member) == nullptr) return bad(member, "is missing");
  for (const auto& [name, value] : document.as_object())
    if (std::ranges::find(kMembers, name) == std::end(kMembers)) return bad(name, "is no member of a row");
  for (std::string_view member : {"created_at", "event_type", "id", "signature", "signer_kid"})
    if (!document.find(member)->is_string()) return bad(member, "is not a text");

  SignedRow out;
  out.row.id = document.find("id")->as_string();
  out.row.event_type = document.find("event_type")->as_string();
  out.signature = document.find("signature")->as_string();
  out.signer_kid = document.find("signer_kid")->as_string();
  std::optional<int64_t> created_at_us = read_created_at(document.find("created_at")->as_string());
  if (!created_at_us) return bad("created_at", "is not an instant in microseconds, YYYY-MM-DDTHH:MM:SS.uuuuuuZ");
  out.row.created_at_us = *created_at_us;
  TRY_ASSIGN(out.row.hash, read_digest("hash", *document.find("hash")));
  if (const Json& prev = *document.find("prev_hash"); !prev.is_null()) {
    TRY_ASSIGN(out.row.prev_hash, read_digest("prev_hash", prev));
  }
  const Json& payload = *document.find("payload");
  if (!payload.is_object()) return bad("payload", "is not an object");
  out.row.payload = canonical(payload);
  const bool same = audit_line(out) == line;
  if (!same && canonical_text == nullptr) return Error{Errc::kCorrupt, "the text is not in canonical form (RFC 8785)"};
  if (canonical_text != nullptr) *canonical_text = same;
  if (payload_document != nullptr) *payload_document = payload;
  return out;
}

SignerRegistry standing_registry(SignerRegistry base, const processors::AuditControl& control) {
  for (const auto& [id, standing] : control.keys) {
    SignerEntry entry{standing.key, standing.first_sequence, standing.last_sequence, standing.revoked};
    entry.revoked_reason = standing.revoked_reason;
    entry.attested_through = standing.attested_by > 0 ? standing.attested_through : 0;
    entry.attested_by = standing.attested_by;
    entry.provider = standing.provider;
    if (const SignerEntry* known = base.find(id))
      entry.key = known->key.public_key == entry.key.public_key ? known->key : entry.key;
    (void)base.put(std::move(entry));
  }
  return base;
}

}  // namespace assay::streams
