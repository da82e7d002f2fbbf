// One window of one agent, scored from the list of its reports: with 64-bit mantissas and a bound of their error, and each value
// whose rounding that error might turn in rationals.
#include <algorithm>
#include <bit>
#include <boost/multiprecision/cpp_int.hpp>
#include <cmath>

#include "tests/simulation/oracle_parts.h"

namespace assay::simulation {
namespace {

__extension__ using Int128 = __int128;
__extension__ using UInt128 = unsigned __int128;
using Big = boost::multiprecision::cpp_int;
using Rational = boost::multiprecision::cpp_rational;
using Real = long double;

constexpr Real kUnit = 0x1p-63L;  // above the relative error of one operation, on machines with 64-bit mantissas or wider
static_assert(std::numeric_limits<Real>::digits >= 64);

struct Sums {
  uint64_t count = 0;
  Int128 sum = 0;
  UInt128 squares = 0;  // meaningless unless small()
  int64_t min = 0, max = 0;

  /// Whether count² · max² < 2^126 and count² · 10^12 < 2^62, so that 128 bits hold all that is made of these sums, and doubles
  /// both extremes.
  bool small() const {
    const int bits = std::bit_width(static_cast<uint64_t>(std::max(max, -min)));
    return count < (1 << 11) && bits <= 53 && std::bit_width(count) + bits <= 63;
  }
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

// ----------------------------------------------------------------------------------------------------------------- rationals

Rational rational_of(double x) {
  int exponent = 0;
  const Big mantissa(static_cast<int64_t>(std::ldexp(std::frexp(x, &exponent), 53)));
  exponent -= 53;
  return exponent >= 0 ? Rational(Big(mantissa << exponent)) : Rational(mantissa, Big(1) << -exponent);
}

/// The double nearest to top / bottom. Requires: both positive, and room for 63 bits more than either has where it must grow.
template <class Integer, class Width>
double nearest_quotient(Integer top, Integer bottom, const Width& width) {
  // A quotient of 63 or 64 bits; a bit at its end stands for all that follow, so the machine's own rounding is that of the
  // quotient.
  const int shift = 63 - (width(top) - width(bottom));
  if (shift > 0)
    top <<= shift;
  else
    bottom <<= -shift;
  const Integer quotient = top / bottom, rest = top % bottom;
  const uint64_t bits = static_cast<uint64_t>(quotient) | (rest != 0 ? 1 : 0);
  return std::ldexp(static_cast<double>(bits), -shift);
}

double nearest(const Rational& x) {
  if (x == 0) return 0;
  const double value =
      nearest_quotient(Big(abs(numerator(x))), Big(denominator(x)), [](const Big& b) { return static_cast<int>(msb(b)); });
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
  double round9() const {
    const Rational tenth = Rational(1, 1'000'000'000);
    auto whole = static_cast<int64_t>(std::floor((nearest(a) + nearest(b) * std::sqrt(nearest(v))) * 1e9));
    while (compare(tenth * whole) < 0) --whole;
    while (compare(tenth * (whole + 1)) >= 0) ++whole;
    const int beyond = compare(tenth * (2 * whole + 1) / 2);
    if (beyond > 0 || (beyond == 0 && whole % 2 != 0)) ++whole;
    return static_cast<double>(whole) / 1e9;
  }
};

/// A window in rationals; each value is made when it is asked for.
class Exactly {
 public:
  Exactly(const std::vector<Part>& parts, std::span<const Accepted> inside)
      : parts_(parts), inside_(inside), known_(parts.size()) {}

  Rational mean(size_t i) { return Rational(of(i).sum, Big(of(i).n * kMicroUnits)); }
  Rational variance(size_t i) {
    const Known& k = of(i);
    return Rational(Big(k.n * k.squares - k.sum * k.sum), Big(k.n * (k.n - 1) * kMicroUnits * kMicroUnits));
  }
  const Rational& normalized(size_t i) {
    Known& k = of(i);
    if (!k.normalized) {
      const MetricRule& rule = *parts_[i].rule;
      const Rational low = rational_of(rule.low), high = rational_of(rule.high);
      k.normalized =
          Surd{Rational((rule.up ? Rational(mean(i) - low) : Rational(high - mean(i))) / (high - low)), 0, 0}.clipped().a;
    }
    return *k.normalized;
  }
  Rational contribution(size_t i) { return weight(i) * normalized(i) / weights(); }
  Rational score() {
    Rational sum = 0;
    for (size_t i = 0; i < parts_.size(); ++i)
      if (counts(i)) sum += weight(i) * normalized(i);
    return sum / weights();
  }
  /// Rounds the bounds and the confidence into `out`.
  void bounds(Score& out) {
    Rational square_error = 0;
    for (size_t i = 0; i < parts_.size(); ++i) {
      if (!counts(i)) continue;
      const Rational span = rational_of(parts_[i].rule->high) - rational_of(parts_[i].rule->low), slope = weight(i) / span;
      square_error += slope * slope * (of(i).n < 2 ? Rational(span * span / 4) : variance(i)) / Rational(of(i).n);
    }
    const Rational middle = score(), factor = Rational(196, 100) / weights();
    const Surd lower = Surd{middle, -factor, square_error}.clipped(), upper = Surd{middle, factor, square_error}.clipped();
    out.lower = lower.round9();
    out.upper = upper.round9();
    // Both bounds hold the same root, or have been clipped and hold none.
    out.confidence = Surd{Rational(1 - upper.a + lower.a), Rational(lower.b - upper.b), square_error}.round9();
  }

 private:
  struct Known {
    Big n = 0, sum = 0, squares = 0;
    std::optional<Rational> normalized;
  };
  Known& of(size_t i) {
    Known& k = known_[i];
    if (k.n != 0) return k;
    for (const Accepted& report : inside_)
      for (const Value& value : report.values)
        if (value.metric == parts_[i].name) {
          ++k.n;
          k.sum += value.micro;
          k.squares += Big(value.micro) * value.micro;
        }
    return k;
  }
  bool counts(size_t i) const { return parts_[i].rule != nullptr && parts_[i].rule->weight > 0; }
  Rational weight(size_t i) const { return rational_of(parts_[i].rule->weight); }
  Rational weights() const {
    Rational sum = 0;
    for (size_t i = 0; i < parts_.size(); ++i)
      if (counts(i)) sum += weight(i);
    return sum;
  }

  const std::vector<Part>& parts_;
  std::span<const Accepted> inside_;
  std::vector<Known> known_;
};

double round9(const Rational& x) { return Surd{x, 0, 0}.round9(); }

// ------------------------------------------------------------------------------------------------- checked 64-bit mantissas

/// `x`, in [0, 1] and off by `error` at most, half to even at nine decimals; nothing when the error might turn it.
std::optional<double> round9(Real x, Real error) {
  const Real units = x * 1e9L;
  const Real whole = std::floor(units), from_tie = units - whole - 0.5L;
  if (std::fabs(from_tie) <= error * 1e9L + 4 * kUnit * (units + 1)) return std::nullopt;
  return static_cast<double>(whole + (from_tie > 0 ? 1 : 0)) / 1e9;
}

/// The double nearest to top / bottom. Requires: top < 2^126, 0 < bottom < 2^62.
double nearest(UInt128 top, UInt128 bottom) {
  if (top == 0) return 0;
  auto width = [](UInt128 v) {
    const auto high = static_cast<uint64_t>(v >> 64);
    return high != 0 ? 63 + std::bit_width(high) : std::bit_width(static_cast<uint64_t>(v)) - 1;
  };
  return nearest_quotient(top, bottom, width);
}

void score_parts(const std::vector<Part>& parts, std::span<const Accepted> inside, const std::vector<std::string>& names,
                 bool exact_only, Score& out) {
  Exactly exactly(parts, inside);
  Real weights = 0, weighted = 0, square_error = 0, error = 0;
  for (const Part& part : parts)
    if (part.rule != nullptr) weights += part.rule->weight;
  const auto shares =
      std::count_if(parts.begin(), parts.end(), [](const Part& p) { return p.rule != nullptr && p.rule->weight > 0; });
  std::optional<double> alone;  // the last one's, rounded
  bool exact_bounds = exact_only;
  out.components.resize(parts.size());
  for (size_t i = 0; i < parts.size(); ++i) {
    const auto& [name, sums, rule] = parts[i];
    Component& c = out.components[i];
    c.metric = names[name];
    c.count = sums.count;
    const auto n = static_cast<Int128>(sums.count);
    const bool small = sums.small() && !exact_only;
    const UInt128 squares_of = small ? static_cast<UInt128>(n) * sums.squares - static_cast<UInt128>(sums.sum * sums.sum) : 0;
    const UInt128 pairs = static_cast<UInt128>(n * (n - 1)) * kMicroUnits * kMicroUnits;
    if (small) {
      c.mean = nearest(static_cast<UInt128>(sums.sum < 0 ? -sums.sum : sums.sum), static_cast<UInt128>(n * kMicroUnits));
      if (sums.sum < 0) c.mean = -c.mean;
      if (n >= 2) c.variance = nearest(squares_of, pairs);
      c.min = static_cast<double>(sums.min) / 1e6;  // both exact, so the quotient is the nearest double
      c.max = static_cast<double>(sums.max) / 1e6;
    } else {
      c.mean = nearest(exactly.mean(i));
      if (n >= 2) c.variance = nearest(exactly.variance(i));
      c.min = nearest(Rational(sums.min, kMicroUnits));
      c.max = nearest(Rational(sums.max, kMicroUnits));
    }
    if (rule == nullptr) continue;
    const Real low = rule->low, high = rule->high, span = high - low;
    const Real mean = static_cast<Real>(sums.sum) / static_cast<Real>(n * kMicroUnits);
    const Real normalized = std::clamp((rule->up ? mean - low : high - mean) / span, Real(0), Real(1));
    const Real off = 8 * kUnit * (1 + (std::fabs(mean) + std::fabs(low) + std::fabs(high)) / span);
    const auto rounded = round9(normalized, off);
    c.normalized = rounded && !exact_only ? *rounded : round9(exactly.normalized(i));
    c.weight = rule->weight;
    if (rule->weight == 0) continue;
    const Real contribution = rule->weight * normalized / weights;
    const Real share_off = off + static_cast<Real>(8 + parts.size()) * kUnit;
    const auto rounded_share = round9(contribution, share_off);
    c.contribution = exact_only      ? round9(exactly.contribution(i))
                     : shares == 1   ? *c.normalized  // of one alone: w·x / w
                     : rounded_share ? *rounded_share
                                     : round9(exactly.contribution(i));
    alone = c.normalized;
    weighted += contribution;
    error = std::max(error, share_off);
    const Real slope = rule->weight / span;
    if (n >= 2 && !small) exact_bounds = true;
    square_error += n >= 2 ? slope * slope * (static_cast<Real>(squares_of) / static_cast<Real>(pairs)) / static_cast<Real>(n)
                           : Real(rule->weight) * rule->weight / 4;
  }
  if (weights == 0) return;
  error += static_cast<Real>(8 + parts.size()) * kUnit;  // shares of a weighted mean: their errors weigh no more than the greatest
  const auto score = round9(std::min(weighted, Real(1)), error);
  out.score = exact_only ? round9(exactly.score()) : shares == 1 ? alone : score ? *score : round9(exactly.score());
  if (!exact_bounds) {
    const Real margin = 1.96L * std::sqrt(square_error) / weights;
    const Real off = error + margin * static_cast<Real>(32 + 4 * parts.size()) * kUnit;
    const Real lower = std::clamp(weighted - margin, Real(0), Real(1)), upper = std::clamp(weighted + margin, Real(0), Real(1));
    const auto rounded_lower = round9(lower, off), rounded_upper = round9(upper, off);
    const auto confidence = round9(1 - (upper - lower), 2 * off);
    if (rounded_lower && rounded_upper && confidence) {
      out.lower = *rounded_lower;
      out.upper = *rounded_upper;
      out.confidence = *confidence;
      return;
    }
  }
  exactly.bounds(out);
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
      const auto magnitude = static_cast<UInt128>(value.micro < 0 ? -value.micro : value.micro);
      s.squares += magnitude * magnitude;
    }
  std::vector<Part> parts;
  for (uint32_t i = 0; i < sums.size(); ++i)
    if (sums[i].count > 0) {
      const MetricRule* rule = rule_for(rules, out.division, out.window, names[i]);
      if (rule == nullptr && sums[i].min >= 0 && sums[i].max <= kMicroUnits) rule = &kUnitRule;
      parts.push_back({i, sums[i], rule});
    }
  std::sort(parts.begin(), parts.end(), [&](const Part& a, const Part& b) { return names[a.name] < names[b.name]; });
  score_parts(parts, inside, names, arithmetic == Arithmetic::kExactOnly, out);
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
