#include "schemas/json_canonical.h"

#include <charconv>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <string>

#include "schemas/json.h"
#include "schemas/utf8.h"

namespace assay::schemas {
namespace {

constexpr size_t kNone = std::string_view::npos;
constexpr int kMaxDepth = 64;        // as parse_json has it
constexpr size_t kPlainDigits = 15;  // integers of so many digits are doubles, and print as they stand
constexpr size_t kNumberBytes = 32;  // no canonical number is longer

/// Bytes of the word that end a run of plain text: below 0x20, a quote, a backslash, or above 0x7F. High bits mark them; a
/// borrow into a neighbour begins only at such a byte, and the first one is what counts.
uint64_t stops(uint64_t word) {
  constexpr uint64_t kOnes = 0x0101010101010101u, kHigh = 0x8080808080808080u;
  auto zero = [](uint64_t w) { return (w - kOnes) & ~w; };
  return ((word - 0x20 * kOnes) | word | zero(word ^ '"' * kOnes) | zero(word ^ '\\' * kOnes)) & kHigh;
}

size_t plain_end(std::string_view text, size_t at) {
  for (; at + 8 <= text.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, text.data() + at, 8);
    if (uint64_t found = stops(word); found != 0) return at + static_cast<size_t>(__builtin_ctzll(found)) / 8;
  }
  for (; at < text.size(); ++at) {
    const unsigned char c = static_cast<unsigned char>(text[at]);
    if (c < 0x20 || c == '"' || c == '\\' || c >= 0x80) break;
  }
  return at;
}

/// Bytes of the one escape that canonical form has for its character; 0: it has another.
size_t escape_size(std::string_view rest) {
  if (rest.size() < 2) return 0;
  switch (rest[1]) {
    case '"':
    case '\\':
    case 'b':
    case 'f':
    case 'n':
    case 'r':
    case 't':
      return 2;
    case 'u':
      break;
    default:
      return 0;
  }
  constexpr std::string_view kZeros = "\\u00";
  if (rest.size() < 6 || !rest.starts_with(kZeros) || (rest[4] != '0' && rest[4] != '1')) return 0;
  const char low = rest[5];
  if (!((low >= '0' && low <= '9') || (low >= 'a' && low <= 'f'))) return 0;
  const bool has_short_form = rest[4] == '0' && (low == '8' || low == '9' || low == 'a' || low == 'c' || low == 'd');
  return has_short_form ? 0 : 6;
}

class Walk {
 public:
  explicit Walk(std::string_view text) : text_(text) {}

  size_t value(size_t at, int depth, std::vector<RawMember>* members) {
    if (at >= text_.size()) return kNone;
    switch (text_[at]) {
      case '{':
        return object(at + 1, depth + 1, members);
      case '[':
        return array(at + 1, depth + 1);
      case '"':
        return string(at);
      case 't':
        return word(at, "true");
      case 'f':
        return word(at, "false");
      case 'n':
        return word(at, "null");
      default:
        return number(at);
    }
  }

  size_t string(size_t at) const {
    if (at >= text_.size() || text_[at] != '"') return kNone;
    ++at;
    while (true) {
      at = plain_end(text_, at);
      if (at >= text_.size()) return kNone;
      const unsigned char c = static_cast<unsigned char>(text_[at]);
      if (c == '"') return at + 1;
      size_t size = c == '\\' ? escape_size(text_.substr(at, 6)) : c >= 0x80 ? utf8_sequence(text_.substr(at, 4)) : 0;
      if (size == 0) return kNone;
      at += size;
    }
  }

 private:
  bool is(size_t at, char c) const { return at < text_.size() && text_[at] == c; }

  size_t word(size_t at, std::string_view name) const { return text_.substr(at).starts_with(name) ? at + name.size() : kNone; }

  size_t object(size_t at, int depth, std::vector<RawMember>* members) {
    if (depth > kMaxDepth) return kNone;
    if (is(at, '}')) return at + 1;
    for (std::string_view before;;) {
      const size_t colon = string(at);
      if (colon == kNone || !is(colon, ':')) return kNone;
      const std::string_view name = text_.substr(at + 1, colon - at - 2);
      // Escaped names sort by what they stand for: rare enough to be left to the closer look.
      if (name.find('\\') != name.npos || (before.data() != nullptr && !utf16_less(before, name))) return kNone;
      const size_t end = value(colon + 1, depth, nullptr);
      if (end == kNone) return kNone;
      if (members != nullptr) members->push_back({name, text_.substr(colon + 1, end - colon - 1)});
      if (is(end, '}')) return end + 1;
      if (!is(end, ',')) return kNone;
      before = name;
      at = end + 1;
    }
  }

  size_t array(size_t at, int depth) {
    if (depth > kMaxDepth) return kNone;
    if (is(at, ']')) return at + 1;
    while (true) {
      at = value(at, depth, nullptr);
      if (at == kNone || is(at, ']')) return at == kNone ? kNone : at + 1;
      if (!is(at, ',')) return kNone;
      ++at;
    }
  }

  size_t number(size_t at) {
    size_t end = at;
    bool plain = true;
    for (; end < text_.size() && end - at <= kNumberBytes; ++end) {
      const char c = text_[end];
      if (c >= '0' && c <= '9') continue;
      if (c != '-' && c != '+' && c != '.' && c != 'e') break;
      plain = false;
    }
    const std::string_view token = text_.substr(at, end - at);
    if (token.empty() || token.size() > kNumberBytes) return kNone;
    if (plain && token.size() <= kPlainDigits) return token.front() == '0' && token.size() > 1 ? kNone : end;
    double number = 0;
    auto [stop, error] = std::from_chars(token.data(), token.data() + token.size(), number);
    if (error != std::errc() || stop != token.data() + token.size() || !std::isfinite(number)) return kNone;
    printed_.clear();
    append_number(number, printed_);
    return printed_ == token ? end : kNone;
  }

  std::string_view text_;
  std::string printed_;
};

}  // namespace

size_t canonical_end(std::string_view text, size_t from, std::vector<RawMember>* members, int depth) {
  return Walk(text).value(from, depth, members);
}

size_t canonical_string_end(std::string_view text, size_t from) { return Walk(text).string(from); }

}  // namespace assay::schemas
