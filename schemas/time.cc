#include "schemas/time.h"

#include <charconv>
#include <chrono>
#include <limits>

#include "schemas/result.h"

namespace assay::schemas {
namespace {

// Takes exactly `count` digits from the front, or -1.
int take_digits(std::string_view* text, size_t count) {
  if (text->size() < count) return -1;
  int value = 0;
  for (size_t i = 0; i < count; ++i) {
    const char c = (*text)[i];
    if (c < '0' || c > '9') return -1;
    value = value * 10 + (c - '0');
  }
  text->remove_prefix(count);
  return value;
}

bool take(std::string_view* text, char lower_or_same, char upper) {
  if (text->empty() || (text->front() != lower_or_same && text->front() != upper)) return false;
  text->remove_prefix(1);
  return true;
}

bool take(std::string_view* text, char c) { return take(text, c, c); }

constexpr std::chrono::year_month_day day_at(int64_t days) { return std::chrono::sys_days(std::chrono::days(days)); }

constexpr int64_t kFirstMs = std::chrono::sys_days(std::chrono::year(0) / 1 / 1).time_since_epoch().count() * kDayMs;
constexpr int64_t kEndMs = std::chrono::sys_days(std::chrono::year(10000) / 1 / 1).time_since_epoch().count() * kDayMs;

void append_padded(std::string* out, int64_t value, int width) {
  char digits[20];
  for (int i = width - 1; i >= 0; --i, value /= 10) digits[i] = static_cast<char>('0' + value % 10);
  out->append(digits, static_cast<size_t>(width));
}

std::string format(int64_t value, int64_t per_second, int fraction_width) {
  const int64_t per_day = per_second * 86400;
  const int64_t midnight = floor_to(value, per_day);
  const std::chrono::year_month_day date = day_at(midnight / per_day);
  const int64_t in_day = value - midnight;
  const int64_t second = in_day / per_second;
  const int year = static_cast<int>(date.year());
  CHECK(year >= 0 && year <= 9999);
  std::string out;
  out.reserve(28);
  append_padded(&out, year, 4);
  out.push_back('-');
  append_padded(&out, static_cast<unsigned>(date.month()), 2);
  out.push_back('-');
  append_padded(&out, static_cast<unsigned>(date.day()), 2);
  out.push_back('T');
  append_padded(&out, second / 3600, 2);
  out.push_back(':');
  append_padded(&out, second / 60 % 60, 2);
  out.push_back(':');
  append_padded(&out, second % 60, 2);
  out.push_back('.');
  append_padded(&out, in_day % per_second, fraction_width);
  out.push_back('Z');
  return out;
}

struct DurationUnit {
  std::string_view name;
  int64_t ms;
};
constexpr DurationUnit kUnits[] = {{"d", kDayMs}, {"h", kHourMs}, {"m", kMinuteMs}, {"s", kSecondMs}, {"ms", 1}};

}  // namespace

std::optional<int64_t> parse_rfc3339_ms(std::string_view text) {
  const int year = take_digits(&text, 4);
  if (year < 0 || !take(&text, '-')) return std::nullopt;
  const int month = take_digits(&text, 2);
  if (month < 1 || month > 12 || !take(&text, '-')) return std::nullopt;
  const int day = take_digits(&text, 2);
  const std::chrono::year_month_day date(std::chrono::year(year), std::chrono::month(static_cast<unsigned>(month)),
                                         std::chrono::day(static_cast<unsigned>(day < 0 ? 0 : day)));
  // RFC 3339 takes T and Z in either case.
  if (!date.ok() || !take(&text, 't', 'T')) return std::nullopt;
  const int hour = take_digits(&text, 2);
  if (hour < 0 || hour > 23 || !take(&text, ':')) return std::nullopt;
  const int minute = take_digits(&text, 2);
  if (minute < 0 || minute > 59 || !take(&text, ':')) return std::nullopt;
  const int second = take_digits(&text, 2);
  if (second < 0 || second > 60) return std::nullopt;
  int ms = 0;
  if (take(&text, '.')) {
    int digits = 0;
    while (!text.empty() && text.front() >= '0' && text.front() <= '9') {
      if (digits < 3) ms = ms * 10 + (text.front() - '0');
      ++digits;
      text.remove_prefix(1);
    }
    if (digits == 0) return std::nullopt;
    for (; digits < 3; ++digits) ms *= 10;
  }
  int zone_minutes = 0;
  if (!take(&text, 'z', 'Z')) {
    const bool west = take(&text, '-');
    if (!west && !take(&text, '+')) return std::nullopt;
    const int zone_hour = take_digits(&text, 2);
    if (zone_hour < 0 || zone_hour > 23 || !take(&text, ':')) return std::nullopt;
    const int zone_minute = take_digits(&text, 2);
    if (zone_minute < 0 || zone_minute > 59) return std::nullopt;
    zone_minutes = (zone_hour * 60 + zone_minute) * (west ? -1 : 1);
  }
  if (!text.empty()) return std::nullopt;

  const bool leap = second == 60;
  if (leap) ms = 999;
  const int64_t days = std::chrono::sys_days(date).time_since_epoch().count();
  const int64_t result = days * kDayMs + (hour * 60 + minute - zone_minutes) * kMinuteMs + (leap ? 59 : second) * kSecondMs + ms;
  // Leap seconds are inserted before midnight UTC after the last day of a month, and nowhere else.
  if (leap && ((result + 1) % kDayMs != 0 || day_at((result + 1) / kDayMs).day() != std::chrono::day(1))) return std::nullopt;
  if (result < kFirstMs || result >= kEndMs) return std::nullopt;
  return result;
}

std::string format_rfc3339_ms(int64_t ms) { return format(ms, 1000, 3); }

std::string format_rfc3339_us(int64_t us) { return format(us, 1000000, 6); }

std::optional<int64_t> parse_duration_ms(std::string_view text) {
  int64_t count = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || text.front() == '-') return std::nullopt;
  const std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  for (const DurationUnit& u : kUnits)
    if (unit == u.name) {
      if (count > std::numeric_limits<int64_t>::max() / u.ms) return std::nullopt;
      return count * u.ms;
    }
  return std::nullopt;
}

std::string format_duration_ms(int64_t ms) {
  if (ms == 0) return "0s";
  for (const DurationUnit& u : kUnits)
    if (ms % u.ms == 0) return std::to_string(ms / u.ms) + std::string(u.name);
  return {};
}

}  // namespace assay::schemas
