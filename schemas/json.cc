#include "schemas/json.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <cstring>

#include "schemas/utf8.h"

namespace assay::schemas {

constexpr size_t kMembers = 8;  // of an object, as most have or fewer: room for them at once

const Json* Json::find(std::string_view key) const {
  if (!is_object()) return nullptr;
  for (const auto& [name, value] : as_object())
    if (name == key) return &value;
  return nullptr;
}

std::string_view Json::string_or(std::string_view key, std::string_view fallback) const {
  const Json* member = find(key);
  return member != nullptr && member->is_string() ? std::string_view(member->as_string()) : fallback;
}

double Json::number_or(std::string_view key, double fallback) const {
  const Json* member = find(key);
  return member != nullptr && member->is_number() ? member->as_number() : fallback;
}

bool Json::bool_or(std::string_view key, bool fallback) const {
  const Json* member = find(key);
  return member != nullptr && member->is_bool() ? member->as_bool() : fallback;
}

Json& Json::set(std::string_view key, Json value) {
  if (is_null()) v_ = Object{};
  for (auto& [name, old] : as_object())
    if (name == key) {
      old = std::move(value);
      return *this;
    }
  Object& members = as_object();
  if (members.empty()) members.reserve(kMembers);
  members.emplace_back(std::string(key), std::move(value));
  return *this;
}

void append_number(double value, std::string& out) {
  CHECK(std::isfinite(value));
  if (value == 0) {  // also -0
    out.push_back('0');
    return;
  }
  if (value < 0) {
    out.push_back('-');
    value = -value;
  }
  // Integers that a double holds exactly are their own shortest digits, and much faster to write.
  if (value < 9007199254740992.0 && value == std::floor(value)) {
    char text[20];
    out.append(text, std::to_chars(text, text + sizeof text, static_cast<uint64_t>(value)).ptr);
    return;
  }
  // A decimal of at most 15 digits is told from all others of that length by its double, so it is the shortest. Scores have
  // nine decimals and metric values six: most numbers end here, in a third of the time.
  if (value >= 1e-6 && value < 1e9) {
    const bool large = value >= 1e6;
    const double scale = large ? 1e6 : 1e9;
    const auto units = static_cast<uint64_t>(value * scale + 0.5);
    if (units < 1000000000000000 && static_cast<double>(units) / scale == value) {  // both exact: the quotient is the nearest
      const uint64_t one = large ? 1000000 : 1000000000;
      char text[32];
      char* end = std::to_chars(text, text + sizeof text, units / one).ptr;
      *end++ = '.';
      char* const last = end + (large ? 6 : 9);
      uint64_t rest = units % one;
      for (char* digit = last; digit != end; rest /= 10) *--digit = static_cast<char>('0' + rest % 10);
      for (end = last; end[-1] == '0';) --end;
      out.append(text, end);
      return;
    }
  }
  // Shortest digits that read back as the same double, in the form d.ddde±xx; the layout is ECMAScript's.
  char text[32];
  auto [end, error] = std::to_chars(text, text + sizeof text, value, std::chars_format::scientific);
  CHECK(error == std::errc());
  char* e = static_cast<char*>(std::memchr(text, 'e', static_cast<size_t>(end - text)));
  const char* const digits = text;
  int count = 1;
  if (const int after_point = static_cast<int>(e - text) - 2; after_point > 0) {  // the point goes
    std::memmove(text + 1, text + 2, static_cast<size_t>(after_point));
    count += after_point;
  }
  int exponent = 0;
  std::from_chars(e[1] == '+' ? e + 2 : e + 1, end, exponent);
  const int point = exponent + 1;  // ECMAScript's n: the value is 0.digits x 10^n
  if (count <= point && point <= 21) {
    out.append(digits, static_cast<size_t>(count));
    out.append(static_cast<size_t>(point - count), '0');
  } else if (0 < point && point <= 21) {
    char whole[32];  // 17 digits and a point
    char* const after = std::copy_n(digits, point, whole);
    *after = '.';
    out.append(whole, std::copy_n(digits + point, count - point, after + 1));
  } else if (-6 < point && point <= 0) {
    char whole[32] = {'0', '.', '0', '0', '0', '0', '0'};
    out.append(whole, std::copy_n(digits, count, whole + 2 - point));
  } else {
    out.push_back(digits[0]);
    if (count > 1) {
      out.push_back('.');
      out.append(digits + 1, static_cast<size_t>(count - 1));
    }
    out.push_back('e');
    out.push_back(point - 1 < 0 ? '-' : '+');
    out += std::to_string(std::abs(point - 1));
  }
}

void append_string(std::string_view text, std::string& out) {
  static constexpr char kDigits[] = "0123456789abcdef";
  out.push_back('"');
  if (printable_ascii(text) && text.find('"') == text.npos && text.find('\\') == text.npos) {
    out += text;
    out.push_back('"');
    return;
  }
  size_t done = 0;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    if (c >= 0x20 && c != '"' && c != '\\') continue;
    out.append(text, done, i - done);
    done = i + 1;
    switch (c) {
      case '"':
        out += "\\\"";
        break;
      case '\\':
        out += "\\\\";
        break;
      case '\b':
        out += "\\b";
        break;
      case '\f':
        out += "\\f";
        break;
      case '\n':
        out += "\\n";
        break;
      case '\r':
        out += "\\r";
        break;
      case '\t':
        out += "\\t";
        break;
      default:
        out += "\\u00";
        out.push_back(kDigits[c >> 4]);
        out.push_back(kDigits[c & 15]);
    }
  }
  out.append(text, done, text.size() - done);
  out.push_back('"');
}

bool utf16_less(std::string_view a, std::string_view b) {
  // UTF-8 sorts by code point. UTF-16 differs only in that surrogates (code points above U+FFFF, lead byte F0..F4)
  // come before U+E000..U+FFFF (lead bytes EE and EF).
  auto [pa, pb] = std::mismatch(a.begin(), a.end(), b.begin(), b.end());
  if (pa == a.end() || pb == b.end()) return pa == a.end() && pb != b.end();
  auto rank = [](char c) {
    unsigned u = static_cast<unsigned char>(c);
    return u >= 0xF0 ? u - 0xF0 + 0xEE : u >= 0xEE ? u + 0x10 : u;
  };
  return rank(*pa) < rank(*pb);
}

void append_canonical(const Json& document, std::string& out) {
  if (document.is_null()) {
    out += "null";
  } else if (document.is_bool()) {
    out += document.as_bool() ? "true" : "false";
  } else if (document.is_number()) {
    append_number(document.as_number(), out);
  } else if (document.is_string()) {
    append_string(document.as_string(), out);
  } else if (document.is_array()) {
    out.push_back('[');
    const char* comma = "";
    for (const Json& element : document.as_array()) {
      out += comma;
      comma = ",";
      append_canonical(element, out);
    }
    out.push_back(']');
  } else {
    std::vector<const std::pair<std::string, Json>*> members;
    members.reserve(document.as_object().size());
    for (const auto& member : document.as_object()) members.push_back(&member);
    std::sort(members.begin(), members.end(), [](auto* a, auto* b) { return utf16_less(a->first, b->first); });
    out.push_back('{');
    for (size_t i = 0; i < members.size(); ++i) {
      CHECK(i == 0 || members[i - 1]->first != members[i]->first);
      if (i != 0) out.push_back(',');
      append_string(members[i]->first, out);
      out.push_back(':');
      append_canonical(members[i]->second, out);
    }
    out.push_back('}');
  }
}

std::string canonical(const Json& document) {
  std::string out;
  append_canonical(document, out);
  return out;
}

namespace {
void append_pretty(const Json& document, size_t depth, std::string& out) {
  const bool object = document.is_object();
  const size_t count = object ? document.as_object().size() : document.is_array() ? document.as_array().size() : 0;
  if (count == 0) {
    append_canonical(document, out);
    return;
  }
  out.push_back(object ? '{' : '[');
  for (size_t i = 0; i < count; ++i) {
    out += i == 0 ? "\n" : ",\n";
    out.append(2 * (depth + 1), ' ');
    if (object) {
      append_string(document.as_object()[i].first, out);
      out += ": ";
    }
    append_pretty(object ? document.as_object()[i].second : document.as_array()[i], depth + 1, out);
  }
  out.push_back('\n');
  out.append(2 * depth, ' ');
  out.push_back(object ? '}' : ']');
}
}  // namespace

std::string pretty(const Json& document) {
  std::string out;
  append_pretty(document, 0, out);
  return out;
}

}  // namespace assay::schemas
