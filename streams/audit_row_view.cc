#include "streams/audit_row_view.h"

#include <algorithm>
#include <chrono>
#include <vector>

#include "schemas/json_canonical.h"

namespace assay::streams {
namespace {

using schemas::canonical_end;
using schemas::canonical_string_end;
using schemas::RawMember;

constexpr size_t kInstantMsBytes = 24;  // YYYY-MM-DDTHH:MM:SS.mmmZ
constexpr size_t kInstantUsBytes = 27;
constexpr size_t kIdBytes = 35;  // av- and 32 digits

/// Takes a line apart from the left.
class Cursor {
 public:
  explicit Cursor(std::string_view line) : line_(line) {}

  bool take(std::string_view text) {
    if (!line_.substr(at_).starts_with(text)) return false;
    at_ += text.size();
    return true;
  }
  /// A string without its quotes.
  bool string(std::string_view* out) {
    const size_t end = canonical_string_end(line_, at_);
    if (end == line_.npos) return false;
    *out = line_.substr(at_ + 1, end - at_ - 2);
    at_ = end;
    return true;
  }
  bool object(std::string_view* out, std::vector<RawMember>* members) {
    if (at_ >= line_.size() || line_[at_] != '{') return false;
    const size_t end = canonical_end(line_, at_, members, 1);
    if (end == line_.npos) return false;
    *out = line_.substr(at_, end - at_);
    at_ = end;
    return true;
  }
  bool ended() const { return at_ == line_.size(); }

 private:
  std::string_view line_;
  size_t at_ = 0;
};

bool read_digest(std::string_view text, Sha256Digest* out) {
  if (text.size() != 2 * out->size()) return false;
  auto nibble = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  int seen = 0;
  for (size_t i = 0; i < out->size(); ++i) {
    const int high = nibble(text[2 * i]), low = nibble(text[2 * i + 1]);
    seen |= high | low;
    (*out)[i] = static_cast<uint8_t>(high << 4 | low);
  }
  return seen >= 0;
}

/// "YYYY-MM-DDTHH:MM:SS." and `fraction` digits and "Z", of 1970 to 9999, in units of 10^-fraction s.
std::optional<int64_t> read_instant(std::string_view text, size_t fraction) {
  constexpr std::string_view kForm = "dddd-dd-ddTdd:dd:dd.";
  if (text.size() != kForm.size() + fraction + 1 || text.back() != 'Z') return std::nullopt;
  auto digit = [&](size_t i) { return text[i] >= '0' && text[i] <= '9'; };
  for (size_t i = 0; i + 1 < text.size(); ++i)
    if (i >= kForm.size() || kForm[i] == 'd' ? !digit(i) : text[i] != kForm[i]) return std::nullopt;
  auto number = [&](size_t from, size_t count) {
    int64_t value = 0;
    for (size_t i = from; i < from + count; ++i) value = value * 10 + (text[i] - '0');
    return value;
  };
  namespace chrono = std::chrono;
  const chrono::year_month_day date(chrono::year(static_cast<int>(number(0, 4))),
                                    chrono::month(static_cast<unsigned>(number(5, 2))),
                                    chrono::day(static_cast<unsigned>(number(8, 2))));
  const int64_t hour = number(11, 2), minute = number(14, 2), second = number(17, 2);
  if (!date.ok() || date.year() < chrono::year(1970) || hour > 23 || minute > 59 || second > 59) return std::nullopt;
  int64_t unit = 1;
  for (size_t i = 0; i < fraction; ++i) unit *= 10;
  const int64_t days = chrono::sys_days(date).time_since_epoch().count();
  return (days * 86400 + hour * 3600 + minute * 60 + second) * unit + number(kForm.size(), fraction);
}

bool is_event_id(std::string_view text) {
  return text.size() == kIdBytes && text.starts_with("av-") &&
         std::all_of(text.begin() + 3, text.end(), [](char c) { return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'f'); });
}

/// The text of a member that is a string, without its quotes; empty: there is none.
std::string_view text_of(const std::vector<RawMember>& members, std::string_view name) {
  for (const RawMember& member : members)
    if (member.name == name && member.value.starts_with('"')) return member.value.substr(1, member.value.size() - 2);
  return {};
}

}  // namespace

std::optional<RowView> view_audit_line(std::string_view line) {
  Cursor cursor(line);
  RowView row;
  std::string_view created_at, hash, prev_hash;
  thread_local std::vector<RawMember> members;
  members.clear();
  const bool formed = cursor.take("{\"created_at\":") && cursor.string(&created_at) && cursor.take(",\"event_type\":") &&
                      cursor.string(&row.event_type) && cursor.take(",\"hash\":") && cursor.string(&hash) &&
                      cursor.take(",\"id\":") && cursor.string(&row.id) && cursor.take(",\"payload\":") &&
                      cursor.object(&row.payload, &members) && cursor.take(",\"prev_hash\":");
  if (!formed || !read_digest(hash, &row.hash)) return std::nullopt;
  if (!cursor.take("null")) {
    row.prev_hash.emplace();
    if (!cursor.string(&prev_hash) || !read_digest(prev_hash, &*row.prev_hash)) return std::nullopt;
  }
  if (!(cursor.take(",\"signature\":") && cursor.string(&row.signature) && cursor.take(",\"signer_kid\":") &&
        cursor.string(&row.signer_kid) && cursor.take("}") && cursor.ended()))
    return std::nullopt;
  // Escapes would have to be undone before these two are used.
  if (row.signature.find('\\') != line.npos || row.signer_kid.find('\\') != line.npos) return std::nullopt;
  const std::optional<int64_t> created_at_us = read_instant(created_at, kInstantUsBytes - kInstantMsBytes + 3);
  const std::optional<int64_t> recorded_at_ms = read_instant(text_of(members, "recordedAt"), 3);
  row.payload_id = text_of(members, "id");
  row.payload_event_type = text_of(members, "eventType");
  if (!created_at_us || !recorded_at_ms || !is_event_id(row.payload_id) || row.payload_event_type.empty()) return std::nullopt;
  row.created_at_us = *created_at_us;
  row.recorded_at_ms = *recorded_at_ms;
  return row;
}

}  // namespace assay::streams
