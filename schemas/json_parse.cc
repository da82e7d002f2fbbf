#include "schemas/json_parse.h"

#include <simdjson.h>

#include <unordered_set>

namespace assay::schemas {
namespace {

constexpr int kMaxDepth = 64;

Result<Json> convert(const simdjson::dom::element& element) {
  switch (element.type()) {
    case simdjson::dom::element_type::NULL_VALUE: return Json();
    case simdjson::dom::element_type::BOOL: return Json(bool(element));
    case simdjson::dom::element_type::INT64:
    case simdjson::dom::element_type::UINT64:
    case simdjson::dom::element_type::DOUBLE: return Json(double(element));
    case simdjson::dom::element_type::STRING: return Json(std::string_view(element));
    case simdjson::dom::element_type::ARRAY: {
      Json::Array out;
      for (simdjson::dom::element child : simdjson::dom::array(element)) {
        TRY_ASSIGN(Json value, convert(child));
        out.push_back(std::move(value));
      }
      return Json(std::move(out));
    }
    case simdjson::dom::element_type::OBJECT: {
      Json::Object out;
      std::unordered_set<std::string_view> names;
      for (auto [name, child] : simdjson::dom::object(element)) {
        if (!names.insert(name).second) return Error{Errc::kCorrupt, "JSON: member \"" + std::string(name) + "\" stands twice"};
        TRY_ASSIGN(Json value, convert(child));
        out.emplace_back(std::string(name), std::move(value));
      }
      return Json(std::move(out));
    }
  }
  return Error{Errc::kUnexpected, "JSON: unknown element type"};
}

}  // namespace

Result<Json> parse_json(std::string_view text) {
  simdjson::dom::parser parser;
  CHECK(parser.allocate(text.size(), kMaxDepth) == simdjson::SUCCESS);
  simdjson::dom::element root;
  if (simdjson::error_code error = parser.parse(text.data(), text.size()).get(root); error != simdjson::SUCCESS)
    return Error{Errc::kCorrupt, std::string("JSON: ") + simdjson::error_message(error)};
  return convert(root);
}

}  // namespace assay::schemas
