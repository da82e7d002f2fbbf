// Exact sums of fixed-point values, and the one place where they become doubles.
#pragma once

#include <cstdint>
#include <optional>
#include <span>

#include "processors/base.h"

namespace assay::processors {

/// Unsigned 192-bit sum of squares of micro-units. Never wraps: count < 2^40, |x| <= 10^18.
struct UInt192 {
  UInt128 low = 0;
  uint64_t high = 0;

  void add(UInt128 v) {
    low += v;
    if (low < v) ++high;
  }
  void add(const UInt192& v) {
    add(v.low);
    high += v.high;
  }
  /// Requires: v is no more.
  void take_out(const UInt192& v) {
    high -= v.high + (low < v.low ? 1 : 0);
    low -= v.low;
  }
  bool operator==(const UInt192&) const = default;
};

/// Count, sums and extremes of one metric over any span of time. Sums of integers commute: arrival order never shows.
/// Units: micro (value x 10^6).
struct Moments {
  uint64_t count = 0;
  Int128 sum = 0;
  UInt192 sum_squares;
  int64_t min = 0;  // meaningless while count is 0
  int64_t max = 0;

  void add(int64_t micro) {
    if (count == 0 || micro < min) min = micro;
    if (count == 0 || micro > max) max = micro;
    ++count;
    sum += micro;
    const uint64_t magnitude = micro < 0 ? -static_cast<uint64_t>(micro) : static_cast<uint64_t>(micro);
    sum_squares.add(static_cast<UInt128>(magnitude) * magnitude);
  }
  void merge(const Moments& other) {
    if (other.count == 0) return;
    if (count == 0 || other.min < min) min = other.min;
    if (count == 0 || other.max > max) max = other.max;
    count += other.count;
    sum += other.sum;
    sum_squares.add(other.sum_squares);
  }
  /// Takes out what was merged before. Minimum and maximum stay: they cannot tell what remains without them.
  void take_out(const Moments& other) {
    count -= other.count;
    sum -= other.sum;
    sum_squares.take_out(other.sum_squares);
  }
  bool operator==(const Moments&) const = default;

  /// The double nearest to the exact mean. Requires: count > 0.
  double mean() const;
  /// The double nearest to the exact sample variance (n - 1); nothing for fewer than two values.
  std::optional<double> variance() const;
};

/// The double nearest to micro / 10^6.
double from_micro(int64_t micro);

/// Rounds the exact value of x half to even at nine decimals. Requires: |x| < 2^60.
double round9(double x);

/// What one metric brings to a score: its mean mapped from [low, high] to [0, 1] (or the reverse) and clipped, and its weight.
struct Share {
  const Moments* moments = nullptr;
  double low = 0, high = 1;
  bool up = true;
  double weight = 1;

  double normalized(double mean) const;
  /// How far normalized(moments->mean()) may lie from the exact value.
  double normalized_error(double mean) const;
};

/// A value in [0, 1] as the double next to it, and rounded half to even at nine decimals as the exact rational that it is.
struct Exact9 {
  double value;
  double rounded;
};

/// sum(weight * normalized) over `parts`, divided by the sum of the weights of `whole`, in exact rationals.
/// Requires: that sum is positive. Cost: some microseconds a part; `round9_or` spares it.
Exact9 exact_share(std::span<const Share> parts, std::span<const Share> whole);

/// A score's interval at nine decimals: score -+ 1.96 standard errors, both clipped to [0, 1], and 1 - their distance.
struct Bounds9 {
  double lower, upper, confidence;
};

/// All three as the exact values that they are, root included, rounded half to even. Requires: a positive sum of weights.
/// Cost: as exact_share.
Bounds9 exact_bounds(std::span<const Share> whole);

/// Whether the error might turn the rounding of the value at nine decimals.
inline bool near_tie9(double value, double error) {
  const double units = value * 1e9;
  const double from_tie = units - static_cast<double>(static_cast<int64_t>(units)) - 0.5;
  return !(from_tie > error * 1e9 || -from_tie > error * 1e9);
}

/// `value` rounded at nine decimals, or, when its error might turn the rounding, what `exact` says.
template <typename Exactly>
Exact9 round9_or(double value, double error, Exactly exact) {
  if (near_tie9(value, error)) return exact();
  return {value, round9(value)};
}

}  // namespace assay::processors
