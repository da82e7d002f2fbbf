#include "processors/personal.h"

#include <algorithm>
#include <array>

#include "schemas/hash.h"
#include "schemas/json_parse.h"

namespace assay::processors {
namespace {

constexpr std::array<std::string_view, 6> kFields = {"actor", "by", "approvedBy", "reason", "ticket", "remedy"};
constexpr std::string_view kHoldSubject = "data.scope.subject";

Json* member(Json& object, std::string_view name) {
  if (!object.is_object()) return nullptr;
  auto found = std::ranges::find(object.as_object(), name, &Json::Object::value_type::first);
  return found == object.as_object().end() ? nullptr : &found->second;
}

/// Every text below, with the path to it: names joined by dots.
void walk(const Json& value, const std::string& path, const std::function<void(const std::string&, const std::string&)>& text) {
  if (value.is_string()) text(path, value.as_string());
  if (value.is_array())
    for (const Json& element : value.as_array()) walk(element, path, text);
  if (value.is_object())
    for (const auto& [name, inner] : value.as_object()) walk(inner, path.empty() ? name : path + "." + name, text);
}

}  // namespace

std::string PersonalRow::to_line() const {
  return canonical(Json::object()
                       .set("reference", reference)
                       .set("eventId", event_id)
                       .set("field", field)
                       .set("subject", subject)
                       .set("salt", salt)
                       .set("plaintext", plaintext));
}

Result<PersonalRow> PersonalRow::parse(std::string_view line) {
  TRY_ASSIGN(const Json document, parse_json(line));
  PersonalRow row;
  for (auto [name, into] : {std::pair{"reference", &row.reference},
                            {"eventId", &row.event_id},
                            {"field", &row.field},
                            {"subject", &row.subject},
                            {"salt", &row.salt},
                            {"plaintext", &row.plaintext}})
    *into = document.string_or(name, "");
  if (row.to_line() != line || !is_personal_reference(row.reference))
    return Error{Errc::kCorrupt, "reading personal data: the line is no row of it"};
  return row;
}

std::span<const std::string_view> personal_fields() { return kFields; }

bool is_personal_reference(std::string_view text) {
  constexpr size_t kDigits = 64;
  return text.starts_with(kPersonalPrefix) && text.size() == kPersonalPrefix.size() + kDigits &&
         from_hex(text.substr(kPersonalPrefix.size())).has_value();
}

std::string personal_reference(std::string_view salt, std::string_view event_id, std::string_view field,
                               std::string_view plaintext) {
  CHECK(salt.size() == kPersonalSaltBytes);
  Sha256 hash;
  constexpr std::string_view kNul{"\0", 1};
  for (std::string_view part : {salt, event_id, kNul, field, kNul, plaintext}) hash.add(part);
  return std::string(kPersonalPrefix) + to_hex(as_bytes(hash.done()));
}

bool fits(const PersonalRow& row) {
  const Result<std::string> salt = from_hex(row.salt);
  return salt && salt->size() == kPersonalSaltBytes &&
         personal_reference(*salt, row.event_id, row.field, row.plaintext) == row.reference;
}

Result<std::vector<PersonalRow>> seal_personal(Json& event, std::span<const std::string> declared,
                                               const std::function<std::string()>& salt) {
  const std::string id(event.string_or("id", "")), subject(event.string_or("actor", ""));
  std::vector<PersonalRow> rows;
  auto seal = [&](Json* value, std::string field, const std::string& about) -> Result<void> {
    if (value == nullptr || !value->is_string() || value->as_string().empty()) return {};
    if (value->as_string().starts_with(kPersonalPrefix))
      return Error{Errc::kUsage, "sealing \"" + field + "\" of an audit event: it begins with \"" + std::string(kPersonalPrefix) +
                                     "\", as references to personal data do"};
    const std::string drawn = salt();
    PersonalRow row{{}, id, std::move(field), about, to_hex(drawn), value->as_string()};
    row.reference = personal_reference(drawn, id, row.field, row.plaintext);
    *value = row.reference;
    rows.push_back(std::move(row));
    return {};
  };
  Json* data = member(event, "data");
  Json* scope = data == nullptr ? nullptr : member(*data, "scope");
  if (Json* held = scope == nullptr ? nullptr : member(*scope, "subject"); held != nullptr && held->is_string())
    TRY(seal(held, std::string(kHoldSubject), held->as_string()));
  for (std::string_view field : kFields) {
    if (std::ranges::find(declared, field) == declared.end()) continue;
    if (field == "actor") {
      TRY(seal(member(event, field), "actor", subject));
    } else if (data != nullptr) {
      TRY(seal(member(*data, field), "data." + std::string(field), subject));
    }
  }
  return rows;
}

std::vector<PersonalPlace> personal_places(const Json& event) {
  std::vector<PersonalPlace> out;
  walk(event, "", [&](const std::string& path, const std::string& text) {
    // An erasure speaks of references; they stand in other events.
    if (is_personal_reference(text) && path != "data.commitments") out.push_back({path, text});
  });
  return out;
}

}  // namespace assay::processors
