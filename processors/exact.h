// Exact sums of fixed-point values, and the one place where they become doubles.
#pragma once

#include <cstdint>
#include <optional>

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

}  // namespace assay::processors
