// UTF-8 and control characters against a decoder that knows only the bit layout.
#include <gtest/gtest.h>

#include <random>

#include "schemas/utf8.h"

namespace assay::schemas {
namespace {

std::string encode(uint32_t point) {
  const int tail = point < 0x80 ? 0 : point < 0x800 ? 1 : point < 0x10000 ? 2 : 3;
  constexpr uint32_t kLead[] = {0, 0xC0, 0xE0, 0xF0};
  std::string out(1, static_cast<char>(kLead[tail] | point >> (6 * tail)));
  for (int i = tail - 1; i >= 0; --i) out.push_back(static_cast<char>(0x80 | (point >> (6 * i) & 0x3F)));
  return out;
}

// Takes a sequence apart by its bits alone; it is valid when its code point is a character and writes back as the same bytes.
size_t oracle_sequence(std::string_view text) {
  const unsigned lead = static_cast<unsigned char>(text[0]);
  const size_t length = lead < 0x80 ? 1 : lead >> 5 == 6 ? 2 : lead >> 4 == 14 ? 3 : lead >> 3 == 30 ? 4 : 0;
  if (length == 0 || text.size() < length) return 0;
  uint32_t point = length == 1 ? lead : lead & (0x7Fu >> length);
  for (size_t i = 1; i < length; ++i) {
    if ((static_cast<unsigned char>(text[i]) >> 6) != 2) return 0;
    point = point << 6 | (static_cast<unsigned char>(text[i]) & 0x3F);
  }
  const bool character = point <= 0x10FFFF && (point < 0xD800 || point > 0xDFFF);
  return character && encode(point) == text.substr(0, length) ? length : 0;
}

TEST(Utf8, EverySequenceOfThreeBytes) {
  for (uint32_t bits = 0; bits < 1u << 24; bits += (bits >> 16) < 0x80 ? 251 : 1) {
    const char bytes[] = {static_cast<char>(bits >> 16), static_cast<char>(bits >> 8), static_cast<char>(bits)};
    const std::string_view text(bytes, 3);
    ASSERT_EQ(utf8_sequence(text), oracle_sequence(text)) << std::hex << bits;
  }
}

TEST(Utf8, SequencesOfFourBytes) {
  for (uint32_t lead = 0xEF; lead <= 0xFF; ++lead)
    for (uint32_t second = 0x70; second <= 0xCF; ++second)
      for (uint32_t rest : {0x8080u, 0xBFBFu, 0x807Fu, 0xC080u, 0x80C0u}) {
        const char bytes[] = {static_cast<char>(lead), static_cast<char>(second), static_cast<char>(rest >> 8),
                              static_cast<char>(rest)};
        const std::string_view text(bytes, 4);
        ASSERT_EQ(utf8_sequence(text), oracle_sequence(text)) << std::hex << lead << " " << second << " " << rest;
      }
}

TEST(Utf8, ControlsAreC0DelAndC1) {
  for (uint32_t point = 0; point < 0x3000; ++point)
    EXPECT_EQ(has_control("ab" + encode(point) + "c"), point < 0x20 || (point >= 0x7F && point < 0xA0)) << std::hex << point;
}

TEST(Utf8, FastChecksAgreeWithSlowOnes) {
  std::mt19937_64 random(8);
  constexpr unsigned char kEdges[] = {0x00, 0x1F, 0x20, 0x21, 0x7E, 0x7F, 0x80, 0x81, 0xA0, 0xC2, 0xFE, 0xFF};
  for (int i = 0; i < 300000; ++i) {
    std::string text(random() % 30, 'a');
    for (uint64_t n = random() % 3; n > 0 && !text.empty(); --n)
      text[random() % text.size()] = static_cast<char>(kEdges[random() % std::size(kEdges)]);
    bool printable = true, high = false;
    for (unsigned char c : text) {
      printable &= c >= 0x20 && c <= 0x7E;
      high |= c >= 0x80;
    }
    ASSERT_EQ(printable_ascii(text), printable);
    ASSERT_EQ(has_high_byte(text), high);
  }
}

TEST(Utf8, PrintableQuotesAnything) {
  EXPECT_EQ(printable("plain é"), "plain é");
  EXPECT_EQ(printable(std::string_view("a\0b\n\x7F\xFF", 6)), "a\uFFFDb\uFFFD\uFFFD\uFFFD");
  EXPECT_EQ(printable("abcdef", 3), "abc…");
  EXPECT_EQ(printable("", 3), "");
}

}  // namespace
}  // namespace assay::schemas
