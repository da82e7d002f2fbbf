#include "schemas/json_parse.h"

#include <algorithm>
#include <cmath>

#include "schemas/json_scan.h"

namespace assay::schemas {
namespace {

constexpr int kMaxDepth = 64;
constexpr size_t kMembers = 8;  // of an object, as most have or fewer: room for them at once

Error refused(const std::string& what) { return Error{Errc::kCorrupt, "parse JSON: " + what}; }

// Name of a member that stands twice, or nothing. Small objects, nearly all of them, are compared in place.
const std::string* repeated(const Json::Object& members) {
  if (members.size() <= 16) {
    for (size_t i = 1; i < members.size(); ++i)
      for (size_t k = 0; k < i; ++k)
        if (members[i].first == members[k].first) return &members[i].first;
    return nullptr;
  }
  std::vector<const std::string*> names;
  for (const auto& member : members) names.push_back(&member.first);
  std::sort(names.begin(), names.end(), [](auto* a, auto* b) { return *a < *b; });
  auto twice = std::adjacent_find(names.begin(), names.end(), [](auto* a, auto* b) { return *a == *b; });
  return twice == names.end() ? nullptr : *twice;
}

Result<Json> read(JsonScanner& scan);

Result<Json> read_object(JsonScanner& scan) {
  Json::Object out;
  for (bool more = scan.begin_object(); more; more = scan.next_member()) {
    if (out.empty()) out.reserve(kMembers);
    if (!scan.name().clean()) return refused("a member name is not Unicode before byte " + std::to_string(scan.position()));
    out.emplace_back(std::string(scan.name().bytes), Json());
    TRY_ASSIGN(out.back().second, read(scan));
  }
  if (const std::string* name = repeated(out)) return refused("member \"" + *name + "\" stands twice");
  return Json(std::move(out));
}

Result<Json> read(JsonScanner& scan) {
  using Kind = JsonScanner::Kind;
  switch (scan.kind()) {
    case Kind::kFault:
      return Json();
    case Kind::kObject:
      return read_object(scan);
    case Kind::kArray: {
      Json::Array out;
      for (bool more = scan.begin_array(); more; more = scan.next_element()) {
        TRY_ASSIGN(Json value, read(scan));
        out.push_back(std::move(value));
      }
      return Json(std::move(out));
    }
    case Kind::kString: {
      JsonScanner::String text;
      if (scan.read_string(&text) && !text.clean())
        return refused("a string is not Unicode before byte " + std::to_string(scan.position()));
      return Json(text.bytes);
    }
    case Kind::kNumber: {
      double value = 0;
      if (scan.read_number(&value) && !std::isfinite(value))
        return refused("a number is too great for a double before byte " + std::to_string(scan.position()));
      return Json(value);
    }
    case Kind::kTrue:
      scan.read_literal();
      return Json(true);
    case Kind::kFalse:
      scan.read_literal();
      return Json(false);
    case Kind::kNull:
      scan.read_literal();
      return Json();
  }
  return Json();
}

}  // namespace

Result<Json> parse_json(std::string_view text) {
  thread_local JsonScanner scan;
  scan.start(text, kMaxDepth);
  TRY_ASSIGN(Json document, read(scan));
  // A fault below shows here: what was read up to it is dropped.
  if (!scan.finish()) return refused(scan.fault_text());
  return document;
}

}  // namespace assay::schemas
