#include "processors/intake.h"

#include <algorithm>

#include "schemas/json_parse.h"
#include "schemas/time.h"

namespace assay::processors {
namespace {

constexpr double kLargestExactInteger = 9007199254740992.0;  // 2^53

std::string quoted(std::string_view name) { return "\"" + std::string(name) + "\""; }

}  // namespace

Id record_id(const RecordView& record) {
  if (auto text = record.header(kHeaderId))
    if (auto id = Id::parse(*text)) return *id;
  Id id;
  const Sha256Digest digest = sha256(record.key.value_or(""), std::string_view("\0", 1), record.value.value_or(""));
  std::copy_n(digest.begin(), id.bytes.size(), id.bytes.begin());
  return id;
}

void dead_letter(const Input& input, const Reject& reject, Outputs& outputs) {
  const RecordView& record = *input.record;
  DeadLetter letter{reject.reason, reject.detail, input.topic, input.partition, record.offset, record.timestamp, {}, {}, {}};
  if (record.key) letter.key = std::string(*record.key);
  if (record.value) letter.value = std::string(*record.value);
  for (const HeaderView& header : record.headers) {
    std::optional<std::string> value;
    if (header.value) value = std::string(*header.value);
    letter.headers.push_back({std::string(header.name), std::move(value)});
  }
  outputs.dead_letters.push_back(std::move(letter));
  ++outputs.tally.delivered;
  ++outputs.tally.refused[static_cast<size_t>(reject.reason)];
}

void filtered(Reason reason, Outputs& outputs) {
  CHECK(is_filtered(reason));
  ++outputs.tally.delivered;
  ++outputs.tally.refused[static_cast<size_t>(reason)];
}

void accepted(Outputs& outputs) {
  ++outputs.tally.delivered;
  ++outputs.tally.accepted;
}

MemberReader::MemberReader(const RecordView& record) : record_(record) {
  if (!record.value || record.value->empty()) {
    refuse(Reason::kEmpty, "the record has no value");
    return;
  }
  auto parsed = parse_json(*record.value);
  if (!parsed) {
    refuse(Reason::kNotJson, parsed.error().message);
    return;
  }
  document_ = std::move(parsed).value();
  if (!document_.is_object()) refuse(Reason::kWrongType, "the value is no JSON object");
}

void MemberReader::refuse(Reason reason, std::string detail) {
  if (!reject_) reject_ = Reject{reason, std::move(detail)};
}

const Json* MemberReader::member(std::string_view name) {
  if (!good()) return nullptr;
  const Json* found = document_.find(name);
  if (!found) refuse(Reason::kMissingField, quoted(name) + " is missing");
  return found;
}

std::string_view MemberReader::text(std::string_view name) {
  const Json* found = member(name);
  if (!found) return {};
  if (!found->is_string()) {
    refuse(Reason::kWrongType, quoted(name) + " is no string");
    return {};
  }
  return found->as_string();
}

std::optional<std::string> MemberReader::text_or_null(std::string_view name) {
  const Json* found = member(name);
  if (!found || found->is_null()) return std::nullopt;
  return std::string(text(name));
}

std::string_view MemberReader::id(std::string_view name) {
  std::string_view value = text(name);
  if (!good()) return {};
  bool control = false;  // NUL would also take row keys apart
  for (unsigned char c : value) control |= c < 0x20 || c == 0x7f;
  if (value.empty() || value.size() > kMaxIdBytes || control)
    refuse(Reason::kBadId, quoted(name) + " is no id of 1 to " + std::to_string(kMaxIdBytes) + " bytes without control characters");
  return value;
}

Id MemberReader::record_id(std::string_view name) {
  std::string_view value = text(name);
  if (!good()) return {};
  auto parsed = Id::parse(value);
  if (!parsed) {
    refuse(Reason::kBadId, quoted(name) + " is no record id: " + parsed.error().message);
    return {};
  }
  return *parsed;
}

int64_t MemberReader::time_ms(std::string_view name) {
  std::string_view value = text(name);
  if (!good()) return 0;
  auto parsed = parse_rfc3339_ms(value);
  if (!parsed) refuse(Reason::kBadTimestamp, quoted(name) + " is no RFC 3339 time with a zone");
  return parsed.value_or(0);
}

int64_t MemberReader::count(std::string_view name) {
  const Json* found = member(name);
  if (!found) return 0;
  if (!found->is_number()) {
    refuse(Reason::kWrongType, quoted(name) + " is no number");
    return 0;
  }
  double value = found->as_number();
  if (!(value >= 0 && value <= kLargestExactInteger) || value != static_cast<double>(static_cast<int64_t>(value))) {
    refuse(Reason::kValueOutOfRange, quoted(name) + " is no count");
    return 0;
  }
  return static_cast<int64_t>(value);
}

std::optional<double> MemberReader::share(std::string_view name) {
  const Json* found = member(name);
  if (!found || found->is_null()) return std::nullopt;
  if (!found->is_number()) {
    refuse(Reason::kWrongType, quoted(name) + " is neither a number nor null");
    return std::nullopt;
  }
  double value = found->as_number();
  if (!(value >= 0 && value <= 1)) {
    refuse(Reason::kValueOutOfRange, quoted(name) + " is not between 0 and 1");
    return std::nullopt;
  }
  return value;
}

void MemberReader::require_key(std::string_view expected) {
  if (!good()) return;
  if (!record_.key)
    refuse(Reason::kKeyMismatch, "the record has no key");
  else if (*record_.key != expected)
    refuse(Reason::kKeyMismatch, "the record's key is not the id inside");
}

Json parse_row(std::string_view row) {
  auto parsed = parse_json(row);
  if (!parsed) std::fprintf(stderr, "state unreadable: %s\n", parsed.error().message.c_str());
  CHECK(parsed.has_value());
  return std::move(parsed).value();
}

std::optional<double> optional_number(const Json& document, std::string_view name) {
  const Json* found = document.find(name);
  return found && found->is_number() ? std::optional(found->as_number()) : std::nullopt;
}

Result<void> scan_json(const state::Reader& reader, std::string_view prefix,
                       const std::function<void(std::string_view, Json)>& row) {
  std::optional<Error> broken;
  TRY(reader.scan(prefix, [&](std::string_view key, std::string_view value) {
    auto parsed = parse_json(value);
    if (!parsed) {
      broken = Error{Errc::kCorrupt, "row " + std::string(key) + " is no document of ours: " + parsed.error().message};
      return false;
    }
    row(key.substr(prefix.size()), std::move(parsed).value());
    return true;
  }));
  if (broken) return std::move(*broken);
  return {};
}

}  // namespace assay::processors
