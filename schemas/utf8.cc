#include "schemas/utf8.h"

namespace assay::schemas {

size_t utf8_sequence(std::string_view text) {
  auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(0);
  if (lead < 0x80) return 1;
  const size_t length = lead >= 0xC2 && lead <= 0xDF ? 2 : lead >= 0xE0 && lead <= 0xEF ? 3 : lead >= 0xF0 && lead <= 0xF4 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  for (size_t i = 1; i < length; ++i)
    if ((byte(i) & 0xC0) != 0x80) return 0;
  // The second byte alone decides overlong forms, surrogates and what lies above U+10FFFF.
  if (lead == 0xE0 && byte(1) < 0xA0) return 0;
  if (lead == 0xED && byte(1) > 0x9F) return 0;
  if (lead == 0xF0 && byte(1) < 0x90) return 0;
  if (lead == 0xF4 && byte(1) > 0x8F) return 0;
  return length;
}

bool valid_utf8(std::string_view text) {
  if (!has_high_byte(text)) return true;
  while (!text.empty()) {
    const size_t n = utf8_sequence(text);
    if (n == 0) return false;
    text.remove_prefix(n);
  }
  return true;
}

bool has_control(std::string_view text) {
  bool found = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const unsigned char c = static_cast<unsigned char>(text[i]);
    // In valid UTF-8, C2 followed by 80..9F is exactly C1.
    found |= c < 0x20 || c == 0x7F || (c == 0xC2 && i + 1 < text.size() && static_cast<unsigned char>(text[i + 1]) < 0xA0);
  }
  return found;
}

std::string printable(std::string_view text, size_t max_bytes) {
  std::string out;
  const std::string_view whole = text;
  while (!text.empty() && whole.size() - text.size() < max_bytes) {
    const size_t n = utf8_sequence(text);
    const bool plain = n != 0 && !has_control(text.substr(0, n));
    if (plain) {
      out += text.substr(0, n);
    } else {
      out += "\uFFFD";
    }
    text.remove_prefix(n == 0 ? 1 : n);
  }
  if (!text.empty()) out += "…";
  return out;
}

}  // namespace assay::schemas
