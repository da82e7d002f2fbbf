#include "processors/exact.h"

#include <algorithm>
#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>

namespace assay::processors {
namespace {

using Big = boost::multiprecision::cpp_int;
using Rational = boost::multiprecision::cpp_rational;

Big to_big(UInt128 v) { return (Big(static_cast<uint64_t>(v >> 64)) << 64) + static_cast<uint64_t>(v); }

UInt128 magnitude_of(Int128 v) { return v < 0 ? -static_cast<UInt128>(v) : static_cast<UInt128>(v); }

int width(uint64_t v) { return v == 0 ? 0 : 64 - __builtin_clzll(v); }
int width(UInt128 v) { return (v >> 64) != 0 ? 64 + width(static_cast<uint64_t>(v >> 64)) : width(static_cast<uint64_t>(v)); }

/// The double nearest to (bits + what follows them) * 2^exponent, ties to even. Requires: bits has at least 55 bits.
double rounded(uint64_t bits, bool more_follows, int exponent) {
  const int excess = width(bits) - 53;
  const uint64_t mask = (uint64_t{1} << excess) - 1;
  const uint64_t half = uint64_t{1} << (excess - 1);
  const uint64_t rest = bits & mask;
  uint64_t mantissa = bits >> excess;
  if (rest > half || (rest == half && (more_follows || (mantissa & 1) != 0))) ++mantissa;
  return std::ldexp(static_cast<double>(mantissa), excess + exponent);
}

/// The double nearest to numerator / denominator * 2^exponent, ties to even: for what fits, without a big integer.
/// Requires: denominator > 0, a normal result.
double nearest_double(UInt128 numerator, uint64_t denominator, int exponent) {
  if (numerator == 0) return 0;
  // Scaled as below, the numerator has at most 56 bits more than the denominator: it fits whatever the shift.
  const int shift = 55 - (width(numerator) - width(denominator));
  bool more_follows = false;
  if (shift > 0) {
    numerator <<= shift;
  } else {
    more_follows = (numerator & ((static_cast<UInt128>(1) << -shift) - 1)) != 0;
    numerator >>= -shift;
  }
  const auto bits = static_cast<uint64_t>(numerator / denominator);
  more_follows = more_follows || static_cast<UInt128>(bits) * denominator != numerator;
  return rounded(bits, more_follows, exponent - shift);
}

/// The double nearest to numerator / denominator, ties to even. Requires: numerator >= 0, denominator > 0, a normal result.
double nearest_double(Big numerator, Big denominator) {
  if (numerator == 0) return 0;
  // Scale so that the quotient has 55 or 56 bits: 53 for the result, at least two that decide the rounding; the
  // remainder only says whether anything follows them.
  const int shift = 55 - (static_cast<int>(msb(numerator)) - static_cast<int>(msb(denominator)));
  if (shift > 0)
    numerator <<= static_cast<unsigned>(shift);
  else
    denominator <<= static_cast<unsigned>(-shift);
  Big quotient, remainder;
  divide_qr(numerator, denominator, quotient, remainder);
  return rounded(static_cast<uint64_t>(quotient), remainder != 0, -shift);
}

// 10^6 and 10^12 without their powers of two, which only move the exponent: so denominators stay small.
constexpr uint64_t kOdd6 = 15625, kOdd12 = 244140625;

/// The double's exact value.
Rational to_rational(double x) {
  int exponent = 0;
  const Big mantissa(static_cast<int64_t>(std::ldexp(std::frexp(x, &exponent), 53)));
  const int shift = exponent - 53;
  return shift >= 0 ? Rational(Big(mantissa << shift)) : Rational(mantissa, Big(1) << -shift);
}

Rational exact_normalized(const Share& share) {
  Rational mean(to_big(magnitude_of(share.moments->sum)), Big(share.moments->count) * 1000000);
  if (share.moments->sum < 0) mean = -mean;
  const Rational low = to_rational(share.low), high = to_rational(share.high);
  const Rational mapped = (share.up ? Rational(mean - low) : Rational(high - mean)) / (high - low);
  return std::clamp(mapped, Rational(0), Rational(1));
}

/// The exact variance, or, of one value, the largest that a value inside the range can have.
Rational exact_variance(const Share& share) {
  const Moments& m = *share.moments;
  if (m.count < 2) {
    const Rational half = (to_rational(share.high) - to_rational(share.low)) / 2;
    return half * half;
  }
  const Big total = to_big(m.sum < 0 ? -static_cast<UInt128>(m.sum) : static_cast<UInt128>(m.sum));
  const Big squares = (Big(m.sum_squares.high) << 128) + to_big(m.sum_squares.low);
  return Rational(Big(Big(m.count) * squares - total * total), Big(Big(m.count) * (m.count - 1) * 1000000000000));
}

/// middle + or - the root of `square`: what a bound is before it is clipped.
struct RootSum {
  Rational middle, square;
  bool plus;

  /// Whether it is not less than t.
  bool at_least(const Rational& t) const {
    const Rational left = t - middle;
    return plus ? left <= 0 || square >= left * left : left <= 0 && square <= left * left;
  }
  bool equals(const Rational& t) const {
    const Rational left = t - middle;
    return left * left == square && (left == 0 || (left > 0) == plus);
  }
};

/// Clipped to [0, 1] and rounded half to even at nine decimals.
double round9(const RootSum& x) {
  if (!x.at_least(0)) return 0;
  if (x.at_least(1)) return 1;
  // In halves of the ninth decimal: what doubles say, put right.
  const double root = std::sqrt(nearest_double(numerator(x.square), denominator(x.square)));
  const double middle = (x.middle < 0 ? -1 : 1) * nearest_double(abs(numerator(x.middle)), denominator(x.middle));
  auto halves = static_cast<int64_t>((middle + (x.plus ? root : -root)) * 2e9);
  auto place = [](int64_t h) { return Rational(h, 2000000000); };
  while (!x.at_least(place(halves))) --halves;
  while (x.at_least(place(halves + 1))) ++halves;
  const int64_t units = halves / 2;
  const bool up = halves % 2 != 0 && (units % 2 != 0 || !x.equals(place(halves)));
  return static_cast<double>(units + (up ? 1 : 0)) / 1e9;
}

}  // namespace

double Moments::mean() const {
  CHECK(count > 0);
  const double value = nearest_double(magnitude_of(sum), count * kOdd6, -6);  // count < 2^40
  return sum < 0 ? -value : value;
}

std::optional<double> Moments::variance() const {
  if (count < 2) return std::nullopt;
  const UInt128 magnitude = magnitude_of(sum);
  // (n Σx² - (Σx)²) / (n (n - 1)); (Σx)² is never more than n Σx², so when the one fits into 128 bits, so does the other.
  constexpr uint64_t kManyValues = 1 << 18;  // n (n - 1) 5^12 fits into 64 bits
  if (count < kManyValues && sum_squares.high == 0 && width(sum_squares.low) + width(count) <= 128)
    return nearest_double(count * sum_squares.low - magnitude * magnitude, count * (count - 1) * kOdd12, -12);
  const Big squares = (Big(sum_squares.high) << 128) + to_big(sum_squares.low);
  const Big total = to_big(magnitude);
  return nearest_double(Big(count) * squares - total * total, Big(count) * (count - 1) * 1000000000000);
}

double from_micro(int64_t micro) {
  const uint64_t magnitude = micro < 0 ? -static_cast<uint64_t>(micro) : static_cast<uint64_t>(micro);
  if (magnitude < (uint64_t{1} << 53)) return static_cast<double>(micro) / 1e6;  // both exact: the quotient is correctly rounded
  const double value = nearest_double(Big(magnitude), Big(1000000));
  return micro < 0 ? -value : value;
}

double round9(double x) {
  if (x == 0 || !std::isfinite(x)) return x == 0 ? 0.0 : x;
  int exponent = 0;
  const double fraction = std::frexp(std::fabs(x), &exponent);
  const auto mantissa = static_cast<uint64_t>(std::ldexp(fraction, 53));
  const int shift = 53 - exponent;  // x = mantissa / 2^shift
  UInt128 scaled = static_cast<UInt128>(mantissa) * 1000000000u;
  UInt128 units = 0;
  if (shift <= 0) return x;  // an integer
  if (shift < 127) {
    units = scaled >> shift;
    const UInt128 rest = scaled & ((static_cast<UInt128>(1) << shift) - 1);
    const UInt128 half = static_cast<UInt128>(1) << (shift - 1);
    if (rest > half || (rest == half && (units & 1) != 0)) ++units;
  }
  // units < 2^53 for the scores in [0, 1] this serves; larger values keep their nearest double.
  const double value = units < (static_cast<UInt128>(1) << 53) ? static_cast<double>(static_cast<uint64_t>(units)) / 1e9
                                                               : nearest_double(to_big(units), Big(1000000000));
  return x < 0 ? -value : value;
}

double Share::normalized(double mean) const { return std::clamp((up ? mean - low : high - mean) / (high - low), 0.0, 1.0); }

double Share::normalized_error(double mean) const {
  // The mean, the difference, the range and the quotient are each off by half a unit in the last place, 2^-53, at most.
  return std::ldexp(4, -53) * (1 + (std::fabs(mean) + std::fabs(low) + std::fabs(high)) / (high - low));
}

Exact9 exact_share(std::span<const Share> parts, std::span<const Share> whole) {
  Rational sum = 0, weights = 0;
  for (const Share& share : parts) sum += to_rational(share.weight) * exact_normalized(share);
  for (const Share& share : whole) weights += to_rational(share.weight);
  CHECK(weights > 0);
  const Rational exact = sum / weights;
  const Big top = numerator(exact), bottom = denominator(exact);
  Big units, rest;
  divide_qr(Big(top * 1000000000), bottom, units, rest);
  rest *= 2;
  if (rest > bottom || (rest == bottom && bit_test(units, 0))) ++units;
  return {nearest_double(top, bottom), static_cast<double>(static_cast<uint64_t>(units)) / 1e9};
}

Bounds9 exact_bounds(std::span<const Share> whole) {
  Rational sum = 0, weights = 0, square = 0;
  for (const Share& share : whole) {
    const Rational weight = to_rational(share.weight);
    const Rational slope = weight / (to_rational(share.high) - to_rational(share.low));
    sum += weight * exact_normalized(share);
    weights += weight;
    square += slope * slope * exact_variance(share) / Big(share.moments->count);
  }
  CHECK(weights > 0);
  const Rational middle = sum / weights, factor = Rational(196, 100) / weights;
  square *= factor * factor;
  const RootSum lower{middle, square, false}, upper{middle, square, true};
  // What is clipped holds no root.
  const bool at_zero = !lower.at_least(0), at_one = upper.at_least(1);
  const RootSum confidence = at_one    ? RootSum{at_zero ? Rational(0) : middle, at_zero ? Rational(0) : square, false}
                             : at_zero ? RootSum{Rational(1 - middle), square, false}
                                       : RootSum{1, Rational(4 * square), false};
  return {round9(lower), round9(upper), round9(confidence)};
}

}  // namespace assay::processors
