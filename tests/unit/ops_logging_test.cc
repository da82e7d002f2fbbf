// Log lines: the form, and that no value can break out of it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <fstream>
#include <limits>
#include <random>
#include <set>
#include <thread>

#include "schemas/json_parse.h"
#include "schemas/utf8.h"
#include "streams/logging.h"

namespace assay::streams {
namespace {

constexpr WallTime kAt(1777636800123);  // 2026-05-01T12:00:00.123Z

std::string text(LogFields fields) { return format_log_line(kAt, LogLevel::kInfo, "checkpoint.committed", fields, false); }
std::string json(LogFields fields) { return format_log_line(kAt, LogLevel::kInfo, "checkpoint.committed", fields, true); }

TEST(LogLine, ReadsAsNamesAndValues) {
  EXPECT_EQ(text({{"task", "scoring-3"}, {"offset", Offset(1042)}, {"took_ms", 12}}),
            "2026-05-01T12:00:00.123Z info checkpoint.committed task=scoring-3 offset=1042 took_ms=12");
  EXPECT_EQ(text({{"yes", true}, {"share", 0.25}, {"most", std::numeric_limits<uint64_t>::max()}, {"least", INT64_MIN}}),
            "2026-05-01T12:00:00.123Z info checkpoint.committed yes=true share=0.25 most=18446744073709551615 "
            "least=-9223372036854775808");
}

TEST(LogLine, QuotesWhatIsNotPlain) {
  EXPECT_THAT(text({{"v", ""}}), testing::EndsWith(" v=\"\""));
  EXPECT_THAT(text({{"v", "two words"}}), testing::EndsWith(" v=\"two words\""));
  EXPECT_THAT(text({{"v", "a=b"}}), testing::EndsWith(" v=\"a=b\""));
  EXPECT_THAT(text({{"v", "say \"hi\" \\"}}), testing::EndsWith(R"( v="say \"hi\" \\")"));
  EXPECT_THAT(text({{"v", "grün"}}), testing::EndsWith(" v=\"grün\""));
}

TEST(LogLine, EscapesWhatWouldForgeALineOrMoveACursor) {
  EXPECT_THAT(text({{"v", "x\n2026-05-01T12:00:00.123Z error forged"}}),
              testing::EndsWith(R"( v="x\n2026-05-01T12:00:00.123Z error forged")"));
  EXPECT_THAT(text({{"v", "\x1b[2J\r\t"}}), testing::EndsWith(R"( v="\u001b[2J\r\t")"));
  EXPECT_THAT(text({{"v",
                     "\xC2\x9B"
                     "31m"}}),
              testing::EndsWith(R"( v="\u009b31m")"));  // the 8-bit form of ESC [
  EXPECT_THAT(text({{"v",
                     "a\xE2\x80\xAE"
                     "b\xE2\x80\xA8"}}),
              testing::EndsWith(R"( v="a\u202eb\u2028")"));
  EXPECT_THAT(text({{"v", std::string_view("a\0b", 3)}}), testing::EndsWith(R"( v="a\u0000b")"));
  EXPECT_THAT(text({{"v", "\xFF\xC0\xAF"}}), testing::EndsWith(R"( v="\xff\xc0\xaf")"));
  EXPECT_THAT(json({{"v", "\xFF"}}), testing::HasSubstr(R"("v":"\ufffd")"));
}

TEST(LogLine, KeepsNamesToTheirLetters) {
  EXPECT_THAT(text({{"a b\n=", 1}, {"", 2}}), testing::EndsWith(" a_b__=1 _=2"));
  EXPECT_THAT(format_log_line(kAt, LogLevel::kInfo, "x\ny z", {}, false), testing::EndsWith(" info x_y_z"));
}

TEST(LogLine, CutsLongValuesBetweenCharacters) {
  std::string long_text;
  for (int i = 0; i < 3000; ++i) long_text += "ü";
  std::string line = text({{"v", long_text}});
  EXPECT_LT(line.size(), 4300u);
  EXPECT_THAT(line, testing::HasSubstr("… (6000 bytes)"));
  EXPECT_THAT(line, testing::Not(testing::HasSubstr("\\x")));
}

TEST(LogLine, JsonParsesAndKeepsItsOwnMembers) {
  auto document = parse_json(json({{"task", "scoring-3"}, {"level", "forged"}, {"nan", std::nan("")}, {"yes", false}}));
  ASSERT_TRUE(document) << document.error().message;
  EXPECT_EQ(document->string_or("level", ""), "info");
  EXPECT_EQ(document->string_or("_level", ""), "forged");
  EXPECT_EQ(document->string_or("event", ""), "checkpoint.committed");
  EXPECT_EQ(document->string_or("nan", ""), "nan");
}

// Any bytes whatever: one line, valid UTF-8, no control character; and as JSON a document that gives valid text back unchanged.
TEST(LogLine, HoldsForRandomBytes) {
  std::mt19937 random(7);
  const std::string_view pieces[] = {"\"",           "\\", "\n",   "\r",   "=",    " ",        "a",           "é",
                                     "\xE2\x80\xA8", "😀",  "\x7F", "\x1B", "\xC2", "\xF0\x9F", "\xED\xA0\x80"};
  for (int round = 0; round < 5000; ++round) {
    std::string value;
    for (size_t i = random() % 20; i > 0; --i) {
      if (random() % 3 == 0)
        value.push_back(static_cast<char>(random() % 256));
      else
        value += pieces[random() % std::size(pieces)];
    }
    std::string line = text({{"v", value}, {"after", 1}});
    ASSERT_TRUE(valid_utf8(line) && !has_control(line)) << line;
    ASSERT_THAT(line, testing::EndsWith(" after=1"));
    auto document = parse_json(json({{"v", value}, {"after", 1}}));
    ASSERT_TRUE(document) << document.error().message;
    ASSERT_EQ(document->number_or("after", 0), 1);
    if (valid_utf8(value)) {
      ASSERT_EQ(document->string_or("v", ""), value);
    }
  }
}

TEST(Logging, WritesFromALevelOnAndNamesTheRunbook) {
  std::vector<std::pair<LogLevel, std::string>> lines;
  LogOptions options;
  options.level = LogLevel::kWarning;
  options.sink = [&](LogLevel level, std::string_view line) { lines.emplace_back(level, line); };
  ASSERT_TRUE(configure_logging(options));
  uint64_t errors = errors_logged();
  log_debug("a.happened");
  log_info("b.happened");
  log_warning("c.happened", {{"n", 1}});
  log_error("d.happened", "dead_letters", {{"n", 2}});
  ASSERT_TRUE(configure_logging({}));
  ASSERT_EQ(lines.size(), 2u);
  EXPECT_EQ(lines[0].first, LogLevel::kWarning);
  EXPECT_THAT(lines[0].second, testing::EndsWith(" warning c.happened n=1"));
  EXPECT_EQ(lines[1].first, LogLevel::kError);
  EXPECT_THAT(lines[1].second, testing::EndsWith(" error d.happened n=2 runbook=runbooks/dead_letters.md"));
  EXPECT_EQ(errors_logged() - errors, 1u);
}

TEST(Logging, WritesWholeLinesFromManyThreadsToAFile) {
  std::string path = testing::TempDir() + "assay_logging_test.log";
  std::remove(path.c_str());
  LogOptions options;
  options.file = path;
  ASSERT_TRUE(configure_logging(options));
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([t] {
      for (int i = 0; i < 250; ++i) log_info("line.written", {{"thread", t}, {"number", i}});
    });
  for (auto& thread : threads) thread.join();
  ASSERT_TRUE(configure_logging({}));
  std::ifstream file(path);
  std::set<std::string> tails;
  std::string line;
  while (std::getline(file, line)) tails.insert(line.substr(line.find(" info ")));
  EXPECT_EQ(tails.size(), 1000u);
  EXPECT_TRUE(tails.contains(" info line.written thread=3 number=249"));
}

TEST(Logging, SaysWhichFileItCouldNotOpen) {
  LogOptions options;
  options.file = "/proc/no/such/place.log";
  auto result = configure_logging(options);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kUsage);
  EXPECT_THAT(result.error().message, testing::HasSubstr(options.file));
}

}  // namespace
}  // namespace assay::streams
