// RFC 3339 and durations: what is taken, what is refused, and the way back.
#include <gtest/gtest.h>

#include <ctime>
#include <random>

#include "schemas/time.h"

namespace assay::schemas {
namespace {

TEST(Rfc3339, Takes) {
  const std::pair<std::string_view, int64_t> cases[] = {
      {"1970-01-01T00:00:00Z", 0},
      {"1970-01-01T00:00:00.001Z", 1},
      {"1969-12-31T23:59:59.999Z", -1},
      {"1985-04-12T23:20:50.52Z", 482196050520},  // the RFC's own examples
      {"1996-12-19T16:39:57-08:00", 851042397000},
      {"1990-12-31T23:59:60Z", 662687999999},  // a leap second: the last millisecond before it ends
      {"1990-12-31T15:59:60-08:00", 662687999999},
      {"1990-12-31T23:59:60.123Z", 662687999999},
      {"1937-01-01T12:00:27.87+00:20", -1041337172130},
      {"2000-02-29T00:00:00Z", 951782400000},
      {"2024-02-29T12:00:00Z", 1709208000000},
      {"2026-05-01T12:00:00.1239999999999999999Z", 1777636800123},  // cut, not rounded
      {"2026-05-01T12:00:00.9999Z", 1777636800999},
      {"2026-05-01T12:00:00.5Z", 1777636800500},
      {"2026-05-01t12:00:00z", 1777636800000},  // the RFC takes either case
      {"2026-05-01T12:00:00-00:00", 1777636800000},
      {"2026-05-02T11:59:00+23:59", 1777636800000},
      {"0000-01-01T00:00:00Z", -62167219200000},
      {"9999-12-31T23:59:59.999Z", 253402300799999},
  };
  for (const auto& [text, ms] : cases) EXPECT_EQ(parse_rfc3339_ms(text), ms) << text;
}

TEST(Rfc3339, Refuses) {
  for (std::string_view text : {
           "",
           "2026",
           "2026-05-01",
           "2026-05-01T12:00:00",
           "2026-05-01 12:00:00Z",
           "2026-05-01T12:00Z",
           "2026-05-01T12Z",
           "2026-05-01T12:00:00.Z",
           "2026-05-01T12:00:00,5Z",
           "2026-05-01T12:00:00.5",
           "2026-05-01T12:00:00+0200",
           "2026-05-01T12:00:00+02",
           "2026-05-01T12:00:00+24:00",
           "2026-05-01T12:00:00+02:60",
           "2026-05-01T12:00:00 Z",
           " 2026-05-01T12:00:00Z",
           "2026-05-01T12:00:00Z ",
           "2026-05-01T12:00:00ZZ",
           "2026-05-01T24:00:00Z",
           "2026-05-01T12:60:00Z",
           "2026-05-01T12:00:61Z",
           "2026-13-01T12:00:00Z",
           "2026-00-01T12:00:00Z",
           "2026-05-00T12:00:00Z",
           "2026-05-32T12:00:00Z",
           "2026-04-31T12:00:00Z",
           "2026-02-29T12:00:00Z",
           "1900-02-29T12:00:00Z",
           "2100-02-29T00:00:00Z",
           "2026-W18-5T12:00:00Z",
           "2026-121T12:00:00Z",
           "20260501T120000Z",
           "+2026-05-01T12:00:00Z",
           "-026-05-01T12:00:00Z",
           "12026-05-01T12:00:00Z",
           "2026-5-1T12:00:00Z",
           "1777636800000",
           "2026-05-01T12:00:00 +02:00",
           "2026-05-01T12:00:60Z",       // a leap second at noon
           "1990-12-30T23:59:60Z",       // not at the end of a month
           "1990-12-31T23:59:60+01:00",  // 22:59:60 UTC
           "9999-12-31T23:59:59-00:01",
           "0000-01-01T00:00:00+00:01",  // outside the years that can be written back
       })
    EXPECT_EQ(parse_rfc3339_ms(text), std::nullopt) << text;
  EXPECT_EQ(parse_rfc3339_ms(std::string_view("2026-05-01T12:00:00Z\0", 21)), std::nullopt);
}

TEST(Rfc3339, RoundTripsAndAgreesWithTheCLibrary) {
  std::mt19937_64 random(3339);
  std::uniform_int_distribution<int64_t> any(-62167219200000, 253402300799999);
  for (int i = 0; i < 100000; ++i) {
    const int64_t ms = any(random);
    const std::string text = format_rfc3339_ms(ms);
    ASSERT_EQ(parse_rfc3339_ms(text), ms) << text;
    const time_t second = static_cast<time_t>(floor_to(ms, 1000) / 1000);
    tm parts{};
    gmtime_r(&second, &parts);
    char expected[64];
    snprintf(expected, sizeof expected, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", parts.tm_year + 1900, parts.tm_mon + 1,
             parts.tm_mday, parts.tm_hour, parts.tm_min, parts.tm_sec, static_cast<int>(ms - floor_to(ms, 1000)));
    ASSERT_EQ(text, expected) << ms;
  }
}

TEST(Rfc3339, ZonesShiftByWhatTheySay) {
  std::mt19937_64 random(5);
  for (int i = 0; i < 20000; ++i) {
    const int64_t ms = static_cast<int64_t>(random() % 4102444800000);
    const int minutes = static_cast<int>(random() % 2879) - 1439;
    std::string local = format_rfc3339_ms(ms + minutes * kMinuteMs);
    local.pop_back();
    char zone[16];
    snprintf(zone, sizeof zone, "%c%02d:%02d", minutes < 0 ? '-' : '+', std::abs(minutes) / 60, std::abs(minutes) % 60);
    if (ms + minutes * kMinuteMs >= -62167219200000) {
      ASSERT_EQ(parse_rfc3339_ms(local + zone), ms) << local << zone;
    }
  }
}

TEST(Rfc3339, Microseconds) {
  EXPECT_EQ(format_rfc3339_us(0), "1970-01-01T00:00:00.000000Z");
  EXPECT_EQ(format_rfc3339_us(1777636800000001), "2026-05-01T12:00:00.000001Z");
  EXPECT_EQ(format_rfc3339_us(-1), "1969-12-31T23:59:59.999999Z");
}

TEST(Duration, BothWays) {
  const std::pair<std::string_view, int64_t> cases[] = {{"45m", 2700000}, {"1d", 86400000}, {"7d", 604800000}, {"30s", 30000},
                                                        {"250ms", 250},   {"0s", 0},        {"90s", 90000},    {"25h", 90000000}};
  for (const auto& [text, ms] : cases) {
    EXPECT_EQ(parse_duration_ms(text), ms) << text;
    EXPECT_EQ(format_duration_ms(ms), text);
  }
  EXPECT_EQ(parse_duration_ms("24h"), 86400000);
  EXPECT_EQ(parse_duration_ms("106751991167d"), 106751991167 * kDayMs);
  for (std::string_view text : {"", "m", "45", "45 m", " 45m", "45m ", "-45m", "+45m", "4.5h", "45M", "45min", "1h30m", "1w",
                                "106751991168d", "9223372036854775808ms", "0x5s", "1e3s"})
    EXPECT_EQ(parse_duration_ms(text), std::nullopt) << text;
}

}  // namespace
}  // namespace assay::schemas
