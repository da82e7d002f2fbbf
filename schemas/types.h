// Strong types for the numbers that must not stand for one another: offsets, event time, wall time.
#pragma once

#include <compare>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

namespace assay::schemas {

/// An int64 with a meaning; arithmetic with plain integers stays in the type, differences are plain.
template <class Tag>
struct StrongInt {
  int64_t value = 0;

  constexpr StrongInt() = default;
  constexpr explicit StrongInt(int64_t v) : value(v) {}
  constexpr auto operator<=>(const StrongInt&) const = default;
  constexpr StrongInt operator+(int64_t n) const { return StrongInt(value + n); }
  constexpr StrongInt operator-(int64_t n) const { return StrongInt(value - n); }
  constexpr int64_t operator-(StrongInt other) const { return value - other.value; }
  constexpr StrongInt& operator++() {
    ++value;
    return *this;
  }
  constexpr StrongInt& operator+=(int64_t n) {
    value += n;
    return *this;
  }
};

using Offset = StrongInt<struct OffsetTag>;        // place of a record in a partition
using EventTime = StrongInt<struct EventTimeTag>;  // ms since the Unix epoch, as a producer said
using WallTime = StrongInt<struct WallTimeTag>;  // ms since the Unix epoch, as a machine said (record timestamps, commit instants)

constexpr int64_t kSecondMs = 1000;
constexpr int64_t kMinuteMs = 60 * kSecondMs;
constexpr int64_t kHourMs = 60 * kMinuteMs;
constexpr int64_t kDayMs = 24 * kHourMs;

/// Largest multiple of `step` that is <= `value`, also below zero.
constexpr int64_t floor_to(int64_t value, int64_t step) {
  int64_t r = value % step;
  return value - (r < 0 ? r + step : r);
}

/// One partition of one topic; `topic` is the full name, prefix included.
struct TopicPartition {
  std::string topic;
  int32_t partition = 0;
  auto operator<=>(const TopicPartition&) const = default;
};

inline std::string to_string(const TopicPartition& tp) { return tp.topic + "-" + std::to_string(tp.partition); }

}  // namespace assay::schemas

template <>
struct std::hash<assay::schemas::TopicPartition> {
  size_t operator()(const assay::schemas::TopicPartition& tp) const noexcept {
    return std::hash<std::string>()(tp.topic) * 31 + static_cast<size_t>(tp.partition);
  }
};
