#include "tools/toml_text.h"

#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <cmath>

namespace assay::tools {
namespace {

class Converter {
 public:
  explicit Converter(TomlDocument& out) : out_(out) {}

  Json convert(const toml::node& node, const std::string& path) {
    if (!path.empty()) out_.lines[path] = static_cast<int>(node.source().begin.line);
    switch (node.type()) {
      case toml::node_type::table: {
        Json object = Json::object();
        for (auto&& [key, value] : *node.as_table()) {
          std::string name(key.str());
          std::string child = path.empty() ? name : path + "." + name;
          object.set(name, convert(value, child));
          // A key's own line says more than its value's, which may be a table opened further down.
          out_.lines[child] = static_cast<int>(key.source().begin.line);
        }
        return object;
      }
      case toml::node_type::array: {
        Json array = Json::array();
        size_t index = 0;
        for (auto&& value : *node.as_array()) array.push_back(convert(value, path + "[" + std::to_string(index++) + "]"));
        return array;
      }
      case toml::node_type::string:
        return Json(std::string_view(node.as_string()->get()));
      case toml::node_type::boolean:
        return Json(node.as_boolean()->get());
      case toml::node_type::integer: {
        const int64_t value = node.as_integer()->get();
        if (value > (int64_t{1} << 53) || value < -(int64_t{1} << 53)) return refuse(path, "must lie within ±2^53");
        return Json(value);
      }
      case toml::node_type::floating_point: {
        const double value = node.as_floating_point()->get();
        if (!std::isfinite(value)) return refuse(path, "must be a finite number");
        return Json(value);
      }
      default:
        return refuse(path, "must be a string, a number, a boolean, an array or a table; dates are written in quotes");
    }
  }

 private:
  Json refuse(const std::string& path, std::string reason) {
    out_.problems.push_back({path, std::move(reason)});
    return Json();
  }

  TomlDocument& out_;
};

}  // namespace

Result<TomlDocument> parse_toml(std::string_view text) {
  toml::parse_result parsed = toml::parse(text);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    return Error{Errc::kUsage, std::to_string(error.source().begin.line) + ": " + std::string(error.description())};
  }
  TomlDocument document;
  document.root = Converter(document).convert(parsed.table(), "");
  return document;
}

Result<Json> parse_toml_value(std::string_view text) {
  // A value that ends the line would smuggle further keys in.
  if (text.find('\n') != std::string_view::npos) return Error{Errc::kUsage, "a value has one line"};
  TRY_ASSIGN(TomlDocument document, parse_toml("value = " + std::string(text)));
  if (!document.problems.empty()) return Error{Errc::kUsage, document.problems[0].reason};
  return *document.root.find("value");
}

}  // namespace assay::tools
