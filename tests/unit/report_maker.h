// Random reports and the many ways to write one down: for tests that compare encodings or break them.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <random>
#include <string>
#include <utility>

#include "schemas/json.h"
#include "schemas/time.h"

namespace assay::schemas {

class ReportMaker {
 public:
  explicit ReportMaker(uint64_t seed) : random_(seed) {}

  uint64_t below(uint64_t n) { return random_() % n; }
  bool one_in(uint64_t n) { return below(n) == 0; }

  /// A valid report in camelCase.
  Json report() {
    Json out = Json::object();
    out.set("agentId", id());
    if (!one_in(4)) out.set("id", id());
    if (!one_in(3)) out.set("divisionId", id());
    Json metrics = Json::object();
    for (uint64_t n = 1 + below(one_in(20) ? 256 : 6); n > 0; --n) metrics.set(id(), metric());
    out.set("metricSet", std::move(metrics));
    out.set("timestamp", format_rfc3339_ms(static_cast<int64_t>(below(253402300800000))));
    if (one_in(2)) out.set("source", one_in(5) ? std::string() : text(1));
    if (one_in(2)) out.set("window", one_in(5) ? std::string() : text(1));
    if (one_in(2)) out.set("computedScore", number());
    if (one_in(2)) out.set("metadata", object(4));
    return out;
  }

  /// One of the JSON texts of the document: members in any order, any spacing, any escapes; at the top in either spelling.
  std::string write(const Json& document, bool top = true) {
    std::string out;
    write(document, top, &out);
    return out;
  }

  /// The bytes with one to eight things done to them that a broken sender or wire does.
  std::string mutate(std::string bytes) {
    static constexpr std::string_view kTokens[] = {"{",
                                                   "}",
                                                   "[",
                                                   "]",
                                                   "\"",
                                                   ",",
                                                   ":",
                                                   "null",
                                                   "1e400",
                                                   "NaN",
                                                   "\\u0000",
                                                   "\\ud800",
                                                   "\xFF",
                                                   "\xC3",
                                                   "-",
                                                   "0",
                                                   "\"agentId\":",
                                                   "\"data\":",
                                                   "\"specversion\":\"1.0\",",
                                                   "\x12\x01",
                                                   "\x7F"};
    for (uint64_t n = 1 + below(below(8) + 1); n > 0; --n) {
      if (bytes.empty()) bytes.push_back(static_cast<char>(random_()));
      const size_t at = below(bytes.size());
      const size_t some = 1 + below(std::min<size_t>(bytes.size() - at, 16));
      switch (below(8)) {
        case 0:
          bytes[at] = static_cast<char>(bytes[at] ^ (1 << below(8)));
          break;
        case 1:
          bytes[at] = static_cast<char>(random_());
          break;
        case 2:
          bytes.erase(at, some);
          break;
        case 3:
          bytes.insert(at, std::string(bytes, at, some));
          break;
        case 4:
          bytes.insert(at, kTokens[below(std::size(kTokens))]);
          break;
        case 5:
          bytes.resize(at);
          break;
        case 6:
          bytes.replace(at, some, bytes, below(bytes.size()), some);
          break;
        default:
          bytes.insert(at, some, static_cast<char>(random_()));
          break;
      }
    }
    return bytes;
  }

  double number() {
    switch (below(6)) {
      case 0:
        return static_cast<double>(below(1000));
      case 1:
        return -static_cast<double>(below(1000)) / 8;
      case 2:
        return one_in(2) ? 0.0 : -0.0;
      case 3:
        return static_cast<double>(random_() >> 11) / 9007199254740992.0;
      default: {
        const double any = std::bit_cast<double>(random_());
        return std::isfinite(any) ? any : 1.5;
      }
    }
  }

  double metric() {
    const double any = number();
    return std::abs(any) <= 1e12 ? any : std::fmod(any, 1e12);
  }

  Json object(int depth) {
    Json out = Json::object();
    for (uint64_t n = below(5); n > 0; --n) out.set(text(0), value(depth - 1));
    return out;
  }

  Json value(int depth) {
    switch (below(depth > 0 ? 7 : 5)) {
      case 0:
        return Json();
      case 1:
        return Json(one_in(2));
      case 2:
        return Json(number());
      case 3:
      case 4:
        return Json(text(0));
      case 5: {
        Json out = Json::array();
        for (uint64_t n = below(4); n > 0; --n) out.push_back(value(depth - 1));
        return out;
      }
      default:
        return object(depth);
    }
  }

 private:
  // Printable text; ids are this and never empty.
  std::string id() {
    static constexpr std::string_view kPieces[] = {"a",      "b",      "agent-", "0",  "é", "€", "\U0001F600",
                                                   "\uFB33", "\u00A0", "\"",     "\\", "/", " "};
    std::string out;
    for (uint64_t n = 1 + below(12); n > 0; --n) out += kPieces[below(std::size(kPieces))];
    return out;
  }

  std::string text(size_t least) {
    static constexpr std::string_view kControls[] = {"\n", "\t", "\x01", "\x7F", "\u0085", "\u2028"};
    std::string out = below(3) < least ? id() : one_in(3) ? std::string() : id();
    if (one_in(4)) out += kControls[below(std::size(kControls))];
    return out;
  }

  void space(std::string* out) {
    while (one_in(6)) out->push_back(" \t\r\n"[below(4)]);
  }

  void write_string(const std::string& value, std::string* out) {
    std::string plain;
    append_string(value, plain);
    if (!one_in(3)) {
      *out += plain;
      return;
    }
    // Escape what need not be.
    for (char c : plain) {
      if (c >= 'a' && c <= 'z' && one_in(3) && (out->empty() || out->back() != '\\')) {
        char escaped[8];
        snprintf(escaped, sizeof escaped, one_in(2) ? "\\u%04x" : "\\u%04X", static_cast<unsigned>(c));
        // Letters behind a backslash are escapes already.
        *out += plain.find('\\') == std::string::npos ? std::string(escaped) : std::string(1, c);
      } else if (c == '/' && one_in(2) && plain.find('\\') == std::string::npos) {
        *out += "\\/";
      } else {
        out->push_back(c);
      }
    }
  }

  void write(const Json& document, bool top, std::string* out) {
    static constexpr std::pair<std::string_view, std::string_view> kSnake[] = {
        {"agentId", "agent_id"}, {"divisionId", "division_id"}, {"metricSet", "metric_set"}, {"computedScore", "computed_score"}};
    space(out);
    if (document.is_object()) {
      Json::Object members = document.as_object();
      std::shuffle(members.begin(), members.end(), random_);
      out->push_back('{');
      bool first = true;
      for (auto& [name, value] : members) {
        if (!first) out->push_back(',');
        first = false;
        std::string spelling = name;
        if (top && one_in(2))
          for (const auto& [camel, snake] : kSnake)
            if (name == camel) spelling = snake;
        space(out);
        write_string(spelling, out);
        space(out);
        out->push_back(':');
        write(value, false, out);
      }
      space(out);
      out->push_back('}');
    } else if (document.is_array()) {
      out->push_back('[');
      for (size_t i = 0; i < document.as_array().size(); ++i) {
        if (i > 0) out->push_back(',');
        write(document.as_array()[i], false, out);
      }
      out->push_back(']');
    } else if (document.is_string()) {
      write_string(document.as_string(), out);
    } else if (document.is_number()) {
      char digits[64];
      snprintf(digits, sizeof digits, one_in(2) ? "%.17g" : "%.25e", document.as_number());
      *out += digits;
    } else {
      append_canonical(document, *out);
    }
    space(out);
  }

  std::mt19937_64 random_;
};

}  // namespace assay::schemas
