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

/// Bytes of the valid UTF-8 sequence at the start of `text` (shortest form, no surrogates, at most U+10FFFF); 0: none.
/// Requires: text not empty.
size_t utf8_sequence(std::string_view text);

bool valid_utf8(std::string_view text);

/// Tells whether valid UTF-8 holds a control character: C0, DEL or C1 (U+0080..U+009F).
bool has_control(std::string_view text);

/// The text, cut to `max_bytes` and made printable: for messages that quote what somebody sent.
std::string printable(std::string_view text, size_t max_bytes = 80);

}  // namespace assay::schemas
