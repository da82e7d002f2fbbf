// Sums and their one division against arithmetic that cannot round.
#include "processors/exact.h"

#include <gtest/gtest.h>

#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>
#include <random>

namespace assay::processors {
namespace {

using Big = boost::multiprecision::cpp_int;
using Ratio = boost::multiprecision::cpp_rational;

Ratio exact(double x) {
  int exponent = 0;
  const double mantissa = std::frexp(x, &exponent);
  Big value(static_cast<int64_t>(std::ldexp(mantissa, 53)));
  exponent -= 53;
  return exponent >= 0 ? Ratio(value << exponent) : Ratio(value, Big(1) << -exponent);
}

/// No other double is nearer.
void expect_nearest(double got, const Ratio& truth) {
  const Ratio off = abs(exact(got) - truth);
  EXPECT_LE(off, abs(exact(std::nextafter(got, INFINITY)) - truth)) << got;
  EXPECT_LE(off, abs(exact(std::nextafter(got, -INFINITY)) - truth)) << got;
}

TEST(Exact, MeanAndVarianceAreTheNearestDoubles) {
  std::mt19937_64 random(4);
  constexpr int64_t kLimit = 1'000'000'000'000'000'000;
  for (int round = 0; round < 2000; ++round) {
    const int64_t spread = round % 4 == 0   ? kLimit
                           : round % 4 == 1 ? 1
                           : round % 4 == 2 ? 1'000'000
                                            : int64_t{1} << (random() % 60);
    Moments moments, left, right;
    Big sum = 0, squares = 0;
    const uint64_t n = 1 + random() % 40;
    for (uint64_t i = 0; i < n; ++i) {
      const int64_t x = static_cast<int64_t>(random() % (2 * static_cast<uint64_t>(spread) + 1)) - spread;
      moments.add(x);
      (random() % 2 ? left : right).add(x);
      sum += x;
      squares += Big(x) * x;
    }
    left.merge(right);
    ASSERT_EQ(left, moments);
    expect_nearest(moments.mean(), Ratio(sum, Big(n) * 1'000'000));
    ASSERT_EQ(moments.variance().has_value(), n >= 2);
    if (n >= 2) expect_nearest(*moments.variance(), Ratio(squares * n - sum * sum, Big(n) * (n - 1) * 1'000'000 * 1'000'000));
  }
}

TEST(Exact, MeanAndVarianceOfManyValuesAreTheNearestDoubles) {
  // Around the counts and sizes at which 64 or 128 bits end, and where two doubles are equally near.
  std::mt19937_64 random(7);
  for (int round = 0; round < 4000; ++round) {
    Moments moments;
    moments.count = round % 8 == 0 ? (uint64_t{1} << 18) - 2 + random() % 4 : 2 + (random() >> (24 + random() % 40));
    const int64_t x = static_cast<int64_t>(random() >> (4 + random() % 58));
    const int64_t y =
        round % 3 == 0 ? x + static_cast<int64_t>(random() % 3) : static_cast<int64_t>(random() >> (4 + random() % 58));
    const uint64_t some = random() % moments.count;  // so many times x, and y otherwise
    const Big n = moments.count, sum = Big(x) * some + Big(y) * (n - some), squares = Big(x) * x * some + Big(y) * y * (n - some);
    moments.sum = static_cast<Int128>(x) * some + static_cast<Int128>(y) * (moments.count - some);
    for (auto [value, times] : {std::pair(x, some), std::pair(y, moments.count - some)}) {
      const UInt128 square = static_cast<UInt128>(value) * static_cast<UInt128>(value);
      for (int bit = 0; bit < 40; ++bit) {
        if ((times >> bit & 1) == 0) continue;
        moments.sum_squares.add(UInt192{square << bit, bit == 0 ? 0 : static_cast<uint64_t>(square >> (128 - bit))});
      }
    }
    expect_nearest(moments.mean(), Ratio(sum, n * 1'000'000));
    expect_nearest(*moments.variance(), Ratio(squares * n - sum * sum, n * (n - 1) * 1'000'000 * 1'000'000));
    if (HasFailure()) FAIL() << moments.count << " values of " << x << " and " << y;
  }
}

TEST(Exact, WhatIsTakenOutWasNeverThere) {
  std::mt19937_64 random(8);
  for (int round = 0; round < 200; ++round) {
    Moments kept, both;
    Moments gone;
    for (int i = 0; i < 20; ++i) {
      const int64_t x = static_cast<int64_t>(random() % 2'000'000'000'000'000'000) - 1'000'000'000'000'000'000;
      (i % 2 == 0 ? kept : gone).add(x);
      both.add(x);
    }
    both.take_out(gone);
    EXPECT_EQ(both.count, kept.count);
    EXPECT_EQ(both.sum, kept.sum);
    EXPECT_EQ(both.sum_squares, kept.sum_squares);
  }
}

TEST(Exact, SumsOfSquaresCarryIntoTheThirdWord) {
  Moments moments;
  constexpr int64_t kLimit = 1'000'000'000'000'000'000;
  for (int i = 0; i < 1000; ++i) moments.add(-kLimit);
  const Big truth = Big(kLimit) * kLimit * 1000;
  const Big low =
      (Big(static_cast<uint64_t>(moments.sum_squares.low >> 64)) << 64) + static_cast<uint64_t>(moments.sum_squares.low);
  EXPECT_EQ((Big(moments.sum_squares.high) << 128) + low, truth);
  EXPECT_EQ(moments.variance(), 0.0);
}

TEST(Exact, FromMicroIsTheNearestDouble) {
  std::mt19937_64 random(5);
  for (int round = 0; round < 5000; ++round) {
    const int64_t micro = static_cast<int64_t>(random()) >> (random() % 63);
    if (micro > 1'000'000'000'000'000'000 || micro < -1'000'000'000'000'000'000) continue;
    expect_nearest(from_micro(micro), Ratio(Big(micro), Big(1'000'000)));
  }
}

TEST(Exact, Round9TakesTheExactValueHalfToEven) {
  std::mt19937_64 random(6);
  auto check = [](double x) {
    const Ratio scaled = exact(x) * Big(1'000'000'000);
    Big whole = numerator(scaled) / denominator(scaled);  // towards zero
    const Ratio rest = abs(scaled - Ratio(whole));
    const Ratio half(1, 2);
    if (rest > half || (rest == half && (whole & 1) != 0)) whole += scaled < 0 ? -1 : 1;
    expect_nearest(round9(x), Ratio(whole, Big(1'000'000'000)));
  };
  for (int round = 0; round < 5000; ++round) {
    const double unit = static_cast<double>(random() >> 11) * 0x1p-53;
    check(round % 2 ? unit : -unit * std::ldexp(1.0, static_cast<int>(random() % 40)));
  }
  for (int k = 1; k < 2000; k += 2) check(k * 0x1p-10);  // exact ties at 2^-10 = 0.0009765625
  EXPECT_EQ(round9(0x1p-10), 0.000976562);               // …5625 is exactly half: to even
  EXPECT_EQ(round9(3 * 0x1p-10), 0.002929688);
}

TEST(Exact, BoundsThatLieOnATieGoToEven) {
  // Two values one micro-unit apart: the standard error is half of one, so that the bounds lie 0.98 of one beside the mean.
  auto bounds = [](int64_t micro, double high) {
    Moments moments;
    moments.add(micro);
    moments.add(micro + 1);
    const Share share{&moments, 0, high, true, 3};
    return exact_bounds({&share, 1});
  };
  EXPECT_EQ(bounds(480000, 960).lower, 0.0005);            // 0.0004999995
  EXPECT_EQ(bounds(480960, 960).lower, 0.000501);          // 0.0005009995
  EXPECT_EQ(bounds(296000, 2960).upper, 0.0001);           // 0.0001000005
  EXPECT_EQ(bounds(298960, 2960).upper, 0.000101);         // 0.0001010005
  EXPECT_EQ(bounds(480000, 960).confidence, 0.999999998);  // 1 - 1.96 / 960 millionths
  EXPECT_EQ(bounds(0, 1).lower, 0);
  EXPECT_EQ(bounds(1000000, 1).upper, 1);
}

}  // namespace
}  // namespace assay::processors
