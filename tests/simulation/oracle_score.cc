// One window of one agent, scored from the list of its reports: first with 64-bit mantissas and a bound of their error; where that
// error might turn a rounding, everything again in rationals.
#include <algorithm>
#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>

#include "tests/simulation/oracle_parts.h"

namespace assay::simulation {
namespace {

__extension__ using Int128 = __int128;
using Big = boost::multiprecision::cpp_int;
using Rational = boost::multiprecision::cpp_rational;
using Real = long double;

constexpr Real kUnit = 0x1p-63L;  // above the relative error of one operation, on machines with 64-bit mantissas or wider
static_assert(std::numeric_limits<Real>::digits >= 64);
constexpr double kNearTie = 1e-13;  // far above what a computation in doubles is off by

struct Sums {
  uint64_t count = 0;
  Int128 sum = 0, squares = 0;
  int64_t min = 0, max = 0;
};

struct Part {
  uint32_t name = 0;
  Sums sums;
  const MetricRule* rule = nullptr;
};

const MetricRule kUnitRule{};

const MetricRule* rule_for(const Rules& rules, std::string_view division, std::string_view window, std::string_view metric) {
  for (const MetricRule& rule : rules.metrics)
    if (glob(rule.division, division) && glob(rule.window, window) && glob(rule.metric, metric)) return &rule;
  return nullptr;
}

// ------------------------------------------------------------------------------------------------- checked 64-bit mantissas

/// The double nearest to a value that `x` is near to: nothing when numbers as near would round to another one.
std::optional<double> nearest(Real x) {
  const double below = static_cast<double>(x * (1 - 8 * kUnit)), above = static_cast<double>(x * (1 + 8 * kUnit));
  if (below != above) return std::nullopt;
  return below;
}

struct Rounded {
  double value;
  Real from_tie;  // in units of the ninth decimal
};

/// `x`, in [0, 1] and off by `error` at most, half to even at nine decimals; nothing when the error might turn it.
std::optional<Rounded> round9(Real x, Real error) {
  const Real units = x * 1e9L;
  const Real whole = std::floor(units), from_tie = units - whole - 0.5L;
  if (std::fabs(from_tie) <= error * 1e9L + 4 * kUnit * (units + 1)) return std::nullopt;
  return Rounded{static_cast<double>(whole + (from_tie > 0 ? 1 : 0)) / 1e9, std::fabs(from_tie)};
}

bool fast(const std::vector<Part>& parts, const std::vector<std::string>& names, Score& out) {
  constexpr int64_t kSmall = int64_t{1} << 40;  // then n Σx² < 2^120 while n < 2^20
  Real weights = 0, weighted = 0, square_error = 0, error = 0;
  struct Shown {
    Real normalized, error;
  };
  std::vector<Shown> shown(parts.size());
  for (const Part& part : parts)
    if (part.rule != nullptr) weights += part.rule->weight;
  out.components.resize(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [name, sums, rule] = parts[i];
    if (sums.count >= (1 << 20) || sums.min <= -kSmall || sums.max >= kSmall) return false;
    const auto n = static_cast<Int128>(sums.count);
    const Real mean = static_cast<Real>(sums.sum) / static_cast<Real>(n * kMicroUnits);
    Component& c = out.components[i];
    c.metric = names[name];
    c.count = sums.count;
    const auto rounded_mean = nearest(mean);
    if (!rounded_mean) return false;
    c.mean = *rounded_mean;
    Real variance = 0;
    if (n >= 2) {
      variance = static_cast<Real>(n * sums.squares - sums.sum * sums.sum) /
                 static_cast<Real>(n * (n - 1) * (static_cast<Int128>(kMicroUnits) * kMicroUnits));
      c.variance = nearest(variance);
      if (!c.variance) return false;
    }
    c.min = static_cast<double>(sums.min) / 1e6;  // both exact, so the quotient is the nearest double
    c.max = static_cast<double>(sums.max) / 1e6;
    if (rule == nullptr) continue;
    const Real low = rule->low, high = rule->high, span = high - low;
    const Real normalized = std::clamp((rule->up ? mean - low : high - mean) / span, Real(0), Real(1));
    const Real off = 8 * kUnit * (1 + (std::fabs(mean) + std::fabs(low) + std::fabs(high)) / span);
    const auto rounded = round9(normalized, off);
    if (!rounded) return false;
    c.normalized = rounded->value;
    c.weight = rule->weight;
    if (rule->weight == 0) continue;
    const Real contribution = rule->weight * normalized / weights;
    const Real share_off = off + static_cast<Real>(8 + parts.size()) * kUnit;
    const auto rounded_share = round9(contribution, share_off);
    if (!rounded_share) return false;
    c.contribution = rounded_share->value;
    weighted += contribution;
    error = std::max(error, share_off);
    const Real slope = rule->weight / span;
    square_error += n >= 2 ? slope * slope * variance / static_cast<Real>(n) : Real(rule->weight) * rule->weight / 4;
  }
  if (weights == 0) return true;
  error += static_cast<Real>(8 + parts.size()) * kUnit;  // shares of a weighted mean: their errors weigh no more than the greatest
  const Real margin = 1.96L * std::sqrt(square_error) / weights;
  const Real margin_error = error + margin * static_cast<Real>(32 + 4 * parts.size()) * kUnit;
  const Real lower = std::clamp(weighted - margin, Real(0), Real(1)), upper = std::clamp(weighted + margin, Real(0), Real(1));
  const auto score = round9(std::min(weighted, Real(1)), error);
  const auto rounded_lower = round9(lower, margin_error), rounded_upper = round9(upper, margin_error);
  const auto confidence = round9(1 - (upper - lower), 2 * margin_error);
  if (!score || !rounded_lower || !rounded_upper || !confidence) return false;
  out.score = score->value;
  out.lower = rounded_lower->value;
  out.upper = rounded_upper->value;
  out.confidence = confidence->value;
  out.bounds_near_tie = std::min({rounded_lower->from_tie, rounded_upper->from_tie, confidence->from_tie}) < kNearTie * 1e9L;
  return true;
}

// ----------------------------------------------------------------------------------------------------------------- rationals

Rational rational_of(double x) {
  int exponent = 0;
  const Big mantissa(static_cast<int64_t>(std::ldexp(std::frexp(x, &exponent), 53)));
  exponent -= 53;
  return exponent >= 0 ? Rational(Big(mantissa << exponent)) : Rational(mantissa, Big(1) << -exponent);
}

double nearest(const Rational& x) {
  if (x == 0) return 0;
  Big top = abs(numerator(x)), bottom = denominator(x);
  // A quotient of 63 or 64 bits; a bit at its end stands for all that follow, so the machine's own rounding is that of the
  // rational.
  const int shift = 63 - (static_cast<int>(msb(top)) - static_cast<int>(msb(bottom)));
  if (shift > 0)
    top <<= shift;
  else
    bottom <<= -shift;
  Big quotient, rest;
  divide_qr(top, bottom, quotient, rest);
  const uint64_t bits = static_cast<uint64_t>(quotient) | (rest != 0 ? 1 : 0);
  const double value = std::ldexp(static_cast<double>(bits), -shift);
  return x < 0 ? -value : value;
}

/// a + b √v, which is what a bound is.
struct Surd {
  Rational a = 0, b = 0, v = 0;

  /// Sign of its difference from t.
  int compare(const Rational& t) const {
    const Rational d = a - t;
    const int sign_d = d.sign(), sign_root = v == 0 ? 0 : b.sign();
    if (sign_root == 0 || sign_d == sign_root) return sign_d == 0 ? sign_root : sign_d;
    if (sign_d == 0) return sign_root;
    const Rational left = d * d, right = b * b * v;
    return left > right ? sign_d : left < right ? sign_root : 0;
  }
  Surd clipped() const { return compare(0) < 0 ? Surd{0, 0, 0} : compare(1) > 0 ? Surd{1, 0, 0} : *this; }
  /// Half to even at nine decimals. Requires: within [0, 1].
  double round9(bool* near_tie = nullptr) const {
    const Rational tenth = Rational(1, 1'000'000'000);
    auto whole = static_cast<int64_t>(std::floor((nearest(a) + nearest(b) * std::sqrt(nearest(v))) * 1e9));
    while (compare(tenth * whole) < 0) --whole;
    while (compare(tenth * (whole + 1)) >= 0) ++whole;
    const Rational tie = tenth * (2 * whole + 1) / 2, slack = rational_of(kNearTie);
    if (near_tie != nullptr && compare(tie - slack) > 0 && compare(tie + slack) < 0) *near_tie = true;
    const int beyond = compare(tie);
    if (beyond > 0 || (beyond == 0 && whole % 2 != 0)) ++whole;
    return static_cast<double>(whole) / 1e9;
  }
};

void exact(const std::vector<Part>& parts, std::span<const Accepted> inside, const std::vector<std::string>& names, Score& out) {
  out.components.assign(parts.size(), {});
  std::vector<Rational> normalized(parts.size());
  Rational weights = 0, square_error = 0, weighted = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    const Part& part = parts[i];
    Big n = 0, sum = 0, squares = 0;
    for (const Accepted& report : inside)
      for (const Value& value : report.values)
        if (value.metric == part.name) {
          ++n;
          sum += value.micro;
          squares += Big(value.micro) * value.micro;
        }
    Component& c = out.components[i];
    c.metric = names[part.name];
    c.count = static_cast<uint64_t>(n);
    const Rational mean(sum, Big(n * kMicroUnits));
    c.mean = nearest(mean);
    Rational variance = 0;
    if (n >= 2) {
      variance = Rational(Big(n * squares - sum * sum), Big(n * (n - 1) * kMicroUnits * kMicroUnits));
      c.variance = nearest(variance);
    }
    c.min = nearest(Rational(part.sums.min, kMicroUnits));
    c.max = nearest(Rational(part.sums.max, kMicroUnits));
    if (part.rule == nullptr) continue;
    const Rational low = rational_of(part.rule->low), high = rational_of(part.rule->high), span = high - low;
    const Rational weight = rational_of(part.rule->weight);
    normalized[i] = Surd{Rational((part.rule->up ? Rational(mean - low) : Rational(high - mean)) / span), 0, 0}.clipped().a;
    c.normalized = Surd{normalized[i], 0, 0}.round9();
    c.weight = part.rule->weight;
    weights += weight;
    weighted += weight * normalized[i];
    if (n < 2) variance = span * span / 4;
    square_error += weight * weight / (span * span) * variance / Rational(n);
  }
  if (weights == 0) return;
  for (size_t i = 0; i < parts.size(); ++i)
    if (parts[i].rule != nullptr)
      out.components[i].contribution = Surd{Rational(rational_of(parts[i].rule->weight) * normalized[i] / weights), 0, 0}.round9();
  const Rational score = weighted / weights, factor = Rational(196, 100) / weights;
  const Surd lower = Surd{score, -factor, square_error}.clipped(), upper = Surd{score, factor, square_error}.clipped();
  out.score = Surd{score, 0, 0}.round9();
  out.lower = lower.round9(&out.bounds_near_tie);
  out.upper = upper.round9(&out.bounds_near_tie);
  // Both bounds hold the same root, or have been clipped and hold none.
  out.confidence = Surd{Rational(1 - upper.a + lower.a), Rational(lower.b - upper.b), square_error}.round9(&out.bounds_near_tie);
}

}  // namespace

std::optional<Score> score_window(const AgentReports& reports, const std::vector<std::string>& names, const WindowKind& window,
                                  int64_t end, const Rules& rules, Arithmetic arithmetic) {
  auto before = [](const Accepted& report, int64_t time) { return report.timestamp < time; };
  const auto first = std::lower_bound(reports.list.begin(), reports.list.end(), end - window.size, before);
  const auto last = std::lower_bound(first, reports.list.end(), end, before);
  if (first == last) return std::nullopt;
  const std::span<const Accepted> inside(first, last);

  Score out;
  out.agent = reports.agent;
  out.division = inside.back().division;  // the list is sorted by (timestamp, id)
  out.window = window.name;
  out.start_ms = end - window.size;
  out.end_ms = end;
  out.samples = inside.size();

  std::vector<Sums> sums(names.size());
  for (const Accepted& report : inside)
    for (const Value& value : report.values) {
      Sums& s = sums[value.metric];
      s.min = s.count == 0 ? value.micro : std::min(s.min, value.micro);
      s.max = s.count == 0 ? value.micro : std::max(s.max, value.micro);
      ++s.count;
      s.sum += value.micro;
      // Wraps for values beyond 2^40 alone, which `fast` leaves to the rationals.
      if (value.micro > -(int64_t{1} << 40) && value.micro < (int64_t{1} << 40))
        s.squares += static_cast<Int128>(value.micro) * value.micro;
    }
  std::vector<Part> parts;
  for (uint32_t i = 0; i < sums.size(); ++i)
    if (sums[i].count > 0) {
      const MetricRule* rule = rule_for(rules, out.division, out.window, names[i]);
      if (rule == nullptr && sums[i].min >= 0 && sums[i].max <= kMicroUnits) rule = &kUnitRule;
      parts.push_back({i, sums[i], rule});
    }
  std::sort(parts.begin(), parts.end(), [&](const Part& a, const Part& b) { return names[a.name] < names[b.name]; });
  if (arithmetic == Arithmetic::kExactOnly || !fast(parts, names, out)) {
    out.score = out.lower = out.upper = out.confidence = std::nullopt;
    out.bounds_near_tie = false;
    exact(parts, inside, names, out);
  }
  return out;
}

int64_t micro_of(double value) {
  int exponent = 0;
  auto mantissa = static_cast<int64_t>(std::ldexp(std::frexp(std::fabs(value), &exponent), 53));
  Int128 product = static_cast<Int128>(mantissa) * kMicroUnits;  // value · 10^6 = product · 2^(exponent - 53)
  const int shift = 53 - exponent;
  if (shift > 100) return 0;
  int64_t whole = 0;
  if (shift <= 0) {
    whole = static_cast<int64_t>(product << -shift);
  } else {
    const Int128 rest = product & ((Int128(1) << shift) - 1), half = Int128(1) << (shift - 1);
    whole = static_cast<int64_t>(product >> shift);
    if (rest > half || (rest == half && whole % 2 != 0)) ++whole;
  }
  return value < 0 ? -whole : whole;
}

bool glob(std::string_view pattern, std::string_view text) {
  if (pattern.empty()) return text.empty();
  if (pattern[0] == '*') {
    for (size_t taken = 0; taken <= text.size(); ++taken)
      if (glob(pattern.substr(1), text.substr(taken))) return true;
    return false;
  }
  return !text.empty() && (pattern[0] == '?' || pattern[0] == text[0]) && glob(pattern.substr(1), text.substr(1));
}

}  // namespace assay::simulation
