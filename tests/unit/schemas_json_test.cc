// The canonical form against RFC 8785's own vectors, and the parser's strictness.
#include <gtest/gtest.h>

#include <bit>
#include <charconv>
#include <cmath>
#include <random>

#include "schemas/json.h"
#include "schemas/json_parse.h"

namespace assay::schemas {
namespace {

std::string recanonical(std::string_view text) {
  auto document = parse_json(text);
  return document ? canonical(*document) : "refused: " + document.error().message;
}

TEST(Canonical, NumbersOfAppendixB) {
  const std::pair<uint64_t, std::string_view> vectors[] = {
      {0x0000000000000000, "0"},
      {0x8000000000000000, "0"},
      {0x0000000000000001, "5e-324"},
      {0x8000000000000001, "-5e-324"},
      {0x7fefffffffffffff, "1.7976931348623157e+308"},
      {0xffefffffffffffff, "-1.7976931348623157e+308"},
      {0x4340000000000000, "9007199254740992"},
      {0xc340000000000000, "-9007199254740992"},
      {0x4430000000000000, "295147905179352830000"},
      {0x44b52d02c7e14af5, "9.999999999999997e+22"},
      {0x44b52d02c7e14af6, "1e+23"},
      {0x44b52d02c7e14af7, "1.0000000000000001e+23"},
      {0x444b1ae4d6e2ef4e, "999999999999999700000"},
      {0x444b1ae4d6e2ef4f, "999999999999999900000"},
      {0x444b1ae4d6e2ef50, "1e+21"},
      {0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
      {0x3eb0c6f7a0b5ed8d, "0.000001"},
      {0x41b3de4355555553, "333333333.3333332"},
      {0x41b3de4355555554, "333333333.33333325"},
      {0x41b3de4355555555, "333333333.3333333"},
      {0x41b3de4355555556, "333333333.3333334"},
      {0x41b3de4355555557, "333333333.33333343"},
      {0xbecbf647612f3696, "-0.0000033333333333333333"},
      {0x43143ff3c1cb0959, "1424953923781206.2"},
  };
  for (const auto& [bits, text] : vectors) {
    std::string out;
    append_number(std::bit_cast<double>(bits), out);
    EXPECT_EQ(out, text);
    auto back = parse_json(text);
    ASSERT_TRUE(back) << text;
    EXPECT_EQ(back->as_number(), std::bit_cast<double>(bits)) << text;
  }
}

TEST(Canonical, ExampleOfSection322) {
  EXPECT_EQ(recanonical(R"({
    "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
    "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
    "literals": [null, true, false]
  })"),
            R"({"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002,1e-27],)"
            "\"string\":\"\u20ac$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}");
}

TEST(Canonical, SortingExampleOfSection323) {
  EXPECT_EQ(
      recanonical(R"({"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew Letter Dalet With Dagesh","1":"One",)"
                  R"("\ud83d\ude00":"Emoji: Grinning Face","\u0080":"Control","\u00f6":"Latin Small Letter O With Diaeresis"})"),
      "{\"\\r\":\"Carriage Return\",\"1\":\"One\",\"\u0080\":\"Control\",\"\u00f6\":\"Latin Small Letter O With Diaeresis\","
      "\"\u20ac\":\"Euro Sign\",\"\U0001F600\":\"Emoji: Grinning Face\",\"\ufb33\":\"Hebrew Letter Dalet With Dagesh\"}");
}

std::u16string to_utf16(const std::u32string& points) {
  std::u16string out;
  for (char32_t c : points) {
    if (c < 0x10000) {
      out.push_back(static_cast<char16_t>(c));
    } else {
      out.push_back(static_cast<char16_t>(0xD800 + ((c - 0x10000) >> 10)));
      out.push_back(static_cast<char16_t>(0xDC00 + ((c - 0x10000) & 0x3FF)));
    }
  }
  return out;
}

std::string to_utf8(const std::u32string& points) {
  std::string out;
  for (char32_t c : points) {
    const int tail = c < 0x80 ? 0 : c < 0x800 ? 1 : c < 0x10000 ? 2 : 3;
    constexpr unsigned kLead[] = {0, 0xC0, 0xE0, 0xF0};
    out.push_back(static_cast<char>(kLead[tail] | c >> (6 * tail)));
    for (int i = tail - 1; i >= 0; --i) out.push_back(static_cast<char>(0x80 | (c >> (6 * i) & 0x3F)));
  }
  return out;
}

TEST(Canonical, Utf16OrderAgreesWithRealUtf16) {
  constexpr char32_t kPoints[] = {0,      'a',    0x7F,   0x80,   0x7FF,   0x800,   0xD7FF,  0xE000,
                                  0xEFFF, 0xF000, 0xFB33, 0xFFFF, 0x10000, 0x1F600, 0x10FFFF};
  std::mt19937_64 random(16);
  auto draw = [&] {
    std::u32string text;
    for (size_t n = random() % 4; n > 0; --n) text.push_back(kPoints[random() % std::size(kPoints)]);
    return text;
  };
  for (int i = 0; i < 50000; ++i) {
    const std::u32string a = draw(), b = draw();
    ASSERT_EQ(utf16_less(to_utf8(a), to_utf8(b)), to_utf16(a) < to_utf16(b));
  }
}

TEST(Canonical, EscapesOnlyWhatMustBe) {
  EXPECT_EQ(recanonical("\"\\u0000\\u0001\\u001f\\b\\f\\n\\r\\t\\\"\\\\\\/<>&\\u007f\\u2028\\u2029\\u00e9\""),
            "\"\\u0000\\u0001\\u001f\\b\\f\\n\\r\\t\\\"\\\\/<>&\x7f\u2028\u2029\u00e9\"");
}

TEST(Parse, Takes) {
  const std::pair<std::string_view, std::string_view> cases[] = {
      {"null", "null"},
      {" true ", "true"},
      {"\t\r\n false", "false"},
      {"-0", "0"},
      {"-0.0", "0"},
      {"0e5", "0"},
      {"1.0", "1"},
      {"1e21", "1e+21"},
      {"[]", "[]"},
      {"{}", "{}"},
      {"[ 1 , [ ] , { } ]", "[1,[],{}]"},
      {R"({"b":1,"a":2})", R"({"a":2,"b":1})"},
      {"18446744073709551616", "18446744073709552000"},  // beyond 64 bits and still a finite double
      {"123456789012345678901234567890", "1.2345678901234568e+29"},
      {"1e-400", "0"},
      {"-1e-99999999999999999999", "0"},
      {"0e99999999999999999999", "0"},
      {"5e-324", "5e-324"},
      {"2.4703282292062327e-324", "0"},
      {"2.4703282292062328e-324", "5e-324"},
      {"1.7976931348623158e308", "1.7976931348623157e+308"},
      {R"("\ud83d\ude00")", "\"\U0001F600\""},
      {R"("\uD83D\uDE00")", "\"\U0001F600\""},
      {R"({"":0,"\u0000":1})", R"({"":0,"\u0000":1})"},
  };
  for (const auto& [text, expected] : cases) EXPECT_EQ(recanonical(text), expected) << text;
}

TEST(Parse, Refuses) {
  for (std::string_view text : {
           "",
           " ",
           "nul",
           "True",
           "NaN",
           "Infinity",
           "-Infinity",
           "-",
           "+1",
           "01",
           "-01",
           "1.",
           ".5",
           "1e",
           "1e+",
           "0x1",
           "1_000",
           "1,",
           "1 2",
           "[1,]",
           "[,1]",
           "[1 2]",
           "[",
           "]",
           "[1",
           "{",
           "}",
           "{\"a\"",
           "{\"a\":",
           "{\"a\":1",
           "{\"a\":1,",
           "{\"a\":1,}",
           "{,}",
           "{a:1}",
           "{\"a\" 1}",
           "{1:2}",
           "'a'",
           "\"",
           "\"a",
           "\"\\",
           "\"\\x\"",
           "\"\\u12\"",
           "\"\\u12g4\"",
           "\"\t\"",
           "\"\x01\"",
           "{}x",
           "{} {}",
           "nullnull",
           "// c\n1",
           "[1]//",
           "\xEF\xBB\xBF{}",
           R"("\ud800")",
           R"("\udc00")",
           R"("\ud800\ud800")",
           R"("\ud800x")",
           R"({"\ud800":1})",
           "\"\x80\"",
           "\"\xC0\x80\"",
           "\"\xC1\xBF\"",
           "\"\xE0\x80\x80\"",
           "\"\xED\xA0\x80\"",
           "\"\xF0\x80\x80\x80\"",
           "\"\xF4\x90\x80\x80\"",
           "\"\xF8\x88\x80\x80\x80\"",
           "\"\xC3\"",
           "\"\xE2\x82\"",
           "{\"\xFF\":1}",
           R"({"a":1,"a":1})",
           R"({"a":1,"\u0061":2})",
           R"([{"x":{"a":1,"b":2,"a":3}}])",
           "1e309",
           "-1e309",
           "1e99999999999999999999",
           "1.7976931348623159e308",
           "[1e400]",
       })
    EXPECT_FALSE(parse_json(text)) << text;
  EXPECT_FALSE(parse_json(std::string_view("{}\0", 3)));
  EXPECT_FALSE(parse_json(std::string_view("\"a\0b\"", 5)));
}

TEST(Parse, ManyZerosAndGreatExponentsCancel) {
  const std::string zeros(700, '0');
  EXPECT_EQ(recanonical("0." + zeros + "1e300"), "0");
  EXPECT_EQ(recanonical("0." + zeros + "1e701"), "1");
  EXPECT_EQ(recanonical("1" + zeros + "e-700"), "1");
  EXPECT_EQ(recanonical("-1" + zeros + "e-1100"), "0");
  EXPECT_FALSE(parse_json("1" + zeros + "e-390"));
  EXPECT_FALSE(parse_json("0." + zeros + "1e1011"));
}

TEST(Parse, SaysWhatAndWhere) {
  EXPECT_EQ(parse_json("[1,2").error().message, "parse JSON: the text ends inside an array at byte 4 of 4");
  EXPECT_EQ(parse_json(R"({"a":1,"a":2})").error().message, "parse JSON: member \"a\" stands twice");
}

TEST(Parse, LevelsEndAt64) {
  auto nested = [](size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); };
  EXPECT_TRUE(parse_json(nested(64)));
  EXPECT_FALSE(parse_json(nested(65)));
  EXPECT_FALSE(parse_json(std::string(5000, '[')));
  EXPECT_FALSE(parse_json(std::string(1000000, '[')));
  std::string objects;
  for (int i = 0; i < 65; ++i) objects += "{\"a\":";
  EXPECT_NE(parse_json(objects).error().message.find("nested too deep"), std::string::npos);
  // Siblings do not add up.
  std::string flat = "[";
  for (int i = 0; i < 1000; ++i) flat += "[[]],";
  EXPECT_TRUE(parse_json(flat + "0]"));
}

TEST(Parse, ManyMembersAreComparedToo) {
  std::string text = "{";
  for (int i = 0; i < 1000; ++i) text += "\"member-" + std::to_string(i) + "\":" + std::to_string(i) + ",";
  EXPECT_TRUE(parse_json(text + "\"last\":0}"));
  EXPECT_FALSE(parse_json(text + "\"member-517\":0}"));
}

TEST(Parse, EveryDoubleComesBack) {
  std::mt19937_64 random(53);
  for (int i = 0; i < 300000; ++i) {
    const double value = std::bit_cast<double>(random());
    if (!std::isfinite(value)) continue;
    std::string shortest;
    append_number(value, shortest);
    ASSERT_EQ(parse_json(shortest)->as_number(), value) << shortest;
    char long_form[64];
    snprintf(long_form, sizeof long_form, "%.*e", 17 + static_cast<int>(random() % 20), value);
    ASSERT_EQ(parse_json(long_form)->as_number(), value) << long_form;
    // Short decimals take the fast path; the C library is the judge.
    char decimal[64];
    snprintf(decimal, sizeof decimal, "%llu.%03llue%d", static_cast<unsigned long long>(random() % 1000000),
             static_cast<unsigned long long>(random() % 1000), static_cast<int>(random() % 60) - 30);
    ASSERT_EQ(parse_json(decimal)->as_number(), std::strtod(decimal, nullptr)) << decimal;
  }
}

TEST(Canonical, DecimalsAndTheirNeighboursAreAsShortAsCanBe) {
  std::mt19937_64 random(12);
  for (int i = 0; i < 300000; ++i) {
    const double scale = i % 2 == 0 ? 1e6 : 1e9;
    double value = static_cast<double>(random() >> (5 + random() % 58)) / scale;
    if (i % 5 == 1) value = std::nextafter(value, 0);
    if (i % 5 == 2) value = std::nextafter(value, 1e300);
    if (value < 1e-6 || value >= 1e21) continue;
    char text[64];
    const char* const end = std::to_chars(text, text + sizeof text, value, std::chars_format::fixed).ptr;
    std::string out;
    append_number(value, out);
    ASSERT_EQ(out, std::string_view(text, static_cast<size_t>(end - text)));
  }
}

TEST(Pretty, IsTheSameDocument) {
  auto document = parse_json(R"({"b":[1,{"c":null}],"a":{},"d":[]})");
  ASSERT_TRUE(document);
  EXPECT_EQ(pretty(*document), "{\n  \"b\": [\n    1,\n    {\n      \"c\": null\n    }\n  ],\n  \"a\": {},\n  \"d\": []\n}");
  EXPECT_EQ(*parse_json(pretty(*document)), *document);
}

TEST(Document, ReadsAndSetsMembers) {
  Json document = Json::object();
  document.set("name", "x").set("count", 3).set("on", true).set("name", "y");
  EXPECT_EQ(document.string_or("name", "?"), "y");
  EXPECT_EQ(document.number_or("count", -1), 3);
  EXPECT_EQ(document.bool_or("on", false), true);
  EXPECT_EQ(document.string_or("count", "?"), "?");
  EXPECT_EQ(document.find("none"), nullptr);
  EXPECT_EQ(canonical(document), R"({"count":3,"name":"y","on":true})");
}

}  // namespace
}  // namespace assay::schemas
