// What text may hold: UTF-8 validity and control characters, as ids and JSON strings ask.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <string_view>

namespace assay::schemas {

/// Tells whether any byte is above 0x7F.
inline bool has_high_byte(std::string_view text) {
  const char* p = text.data();
  size_t n = text.size();
  uint64_t seen = 0;
  for (; n >= 8; p += 8, n -= 8) {
    uint64_t word;
    std::memcpy(&word, p, 8);
    seen |= word;
  }
  for (; n > 0; ++p, --n) seen |= static_cast<unsigned char>(*p);
  return (seen & 0x8080808080808080u) != 0;
}

/// Tells whether every byte is of 0x20..0x7E: nearly every id is, and then nothing else need be asked.
inline bool printable_ascii(std::string_view text) {
  // High bits of the bytes outside the range. A borrow or carry into a neighbour begins only at such a byte, so it changes no
  // verdict.
  auto outside = [](uint64_t word) { return (word - 0x2020202020202020u) | word | (word + 0x0101010101010101u); };
  const char* p = text.data();
  size_t n = text.size();
  uint64_t word, seen = 0;
  for (; n >= 8; p += 8, n -= 8) {
    std::memcpy(&word, p, 8);
    seen |= outside(word);
  }
  word = 0x2020202020202020u;
  for (size_t i = 0; i < n; ++i) word = word << 8 | static_cast<unsigned char>(p[i]);
  return ((seen | outside(word)) & 0x8080808080808080u) == 0;
}

/// Bytes of the valid UTF-8 sequence at the start of `text` (shortest form, no surrogates, at most U+10FFFF); 0: none.
/// Requires: text not empty.
size_t utf8_sequence(std::string_view text);

bool valid_utf8(std::string_view text);

/// Tells whether valid UTF-8 holds a control character: C0, DEL or C1 (U+0080..U+009F).
bool has_control(std::string_view text);

/// The text, cut to `max_bytes` and made printable: for messages that quote what somebody sent.
std::string printable(std::string_view text, size_t max_bytes = 80);

}  // namespace assay::schemas
