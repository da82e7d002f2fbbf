// JSON documents and their canonical form (RFC 8785). Parsing is json_parse.h's; this file knows no library.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "schemas/result.h"

namespace assay::schemas {

/// A JSON value. Numbers are IEEE doubles, as RFC 8785 has them; what a double cannot hold travels as a string.
class Json {
 public:
  using Array = std::vector<Json>;
  using Object = std::vector<std::pair<std::string, Json>>;  // insertion order; canonical() sorts

  Json() = default;
  Json(std::nullptr_t) {}
  Json(bool b) : v_(b) {}
  Json(double d) : v_(d) {}
  Json(int i) : v_(static_cast<double>(i)) {}
  Json(int64_t i) : v_(static_cast<double>(i)) { CHECK(i <= (int64_t{1} << 53) && i >= -(int64_t{1} << 53)); }
  Json(uint64_t i) : v_(static_cast<double>(i)) { CHECK(i <= (uint64_t{1} << 53)); }
  Json(const char* s) : v_(std::string(s)) {}
  Json(std::string_view s) : v_(std::string(s)) {}
  Json(std::string s) : v_(std::move(s)) {}
  Json(Array a) : v_(std::move(a)) {}
  Json(Object o) : v_(std::move(o)) {}
  static Json object() { return Json(Object{}); }
  static Json array() { return Json(Array{}); }

  bool is_null() const { return v_.index() == 0; }
  bool is_bool() const { return v_.index() == 1; }
  bool is_number() const { return v_.index() == 2; }
  bool is_string() const { return v_.index() == 3; }
  bool is_array() const { return v_.index() == 4; }
  bool is_object() const { return v_.index() == 5; }

  bool as_bool() const { return std::get<bool>(v_); }
  double as_number() const { return std::get<double>(v_); }
  const std::string& as_string() const { return std::get<std::string>(v_); }
  const Array& as_array() const { return std::get<Array>(v_); }
  Array& as_array() { return std::get<Array>(v_); }
  const Object& as_object() const { return std::get<Object>(v_); }
  Object& as_object() { return std::get<Object>(v_); }

  /// Member of an object, or nullptr (also when this is no object).
  const Json* find(std::string_view key) const;
  /// Member of that type, or the fallback: for reading our own records.
  std::string_view string_or(std::string_view key, std::string_view fallback) const;
  double number_or(std::string_view key, double fallback) const;
  bool bool_or(std::string_view key, bool fallback) const;

  /// Sets a member (replacing one of that name) and returns *this, so that documents can be built in one expression.
  Json& set(std::string_view key, Json value);
  void push_back(Json value) { as_array().push_back(std::move(value)); }

  bool operator==(const Json&) const = default;

 private:
  std::variant<std::monostate, bool, double, std::string, Array, Object> v_;
};

/// RFC 8785 text of the document, byte for byte.
/// Requires: finite numbers, valid UTF-8 without lone surrogates, no member twice.
std::string canonical(const Json& document);
void append_canonical(const Json& document, std::string& out);

/// The same document for people: two spaces of indent, members in the order they were set.
std::string pretty(const Json& document);

/// ECMAScript's Number::toString. Requires: finite.
void append_number(double value, std::string& out);
/// A JSON string literal with RFC 8785's escapes. Requires: valid UTF-8.
void append_string(std::string_view text, std::string& out);

/// Orders member names by UTF-16 code units, as RFC 8785 asks (differs from byte order above U+FFFF).
bool utf16_less(std::string_view a, std::string_view b);

}  // namespace assay::schemas
