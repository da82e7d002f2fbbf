#include "schemas/json_scan.h"

#include <array>
#include <bit>
#include <charconv>
#include <cstring>
#include <limits>

#include "schemas/result.h"
#include "schemas/utf8.h"

namespace assay::schemas {
namespace {

// Bytes at which a run of plain string text ends: the quote, the backslash and controls.
constexpr std::array<bool, 256> kStops = [] {
  std::array<bool, 256> stops{};
  for (size_t c = 0; c < 0x20; ++c) stops[c] = true;
  stops['"'] = stops['\\'] = true;
  return stops;
}();

constexpr uint64_t kOnes = 0x0101010101010101u;
constexpr uint64_t kHighs = 0x8080808080808080u;

// High bit of each byte of `word` that is zero; bytes above the first hit may be wrong, which is enough to find the first.
constexpr uint64_t zero_bytes(uint64_t word) { return (word - kOnes) & ~word & kHighs; }

// First byte in [p, end) at which plain text stops, or end; `seen` gathers the bits of what was passed over.
const char* plain_run(const char* p, const char* end, uint64_t* seen) {
  if constexpr (std::endian::native == std::endian::little) {
    while (end - p >= 8) {
      uint64_t word;
      std::memcpy(&word, p, 8);
      const uint64_t control = (word - kOnes * 0x20) & ~word & kHighs;  // bytes below 0x20
      const uint64_t stop = control | zero_bytes(word ^ (kOnes * '"')) | zero_bytes(word ^ (kOnes * '\\'));
      if (stop != 0) {
        const int n = std::countr_zero(stop) / 8;
        if (n > 0) *seen |= word << (64 - 8 * n);
        return p + n;
      }
      *seen |= word;
      p += 8;
    }
  }
  while (p < end && !kStops[static_cast<unsigned char>(*p)]) *seen |= static_cast<unsigned char>(*p++);
  return p;
}

bool digit(char c) { return c >= '0' && c <= '9'; }

int hex4(const char* p) {
  int value = 0;
  for (int i = 0; i < 4; ++i) {
    const char c = p[i];
    const int d = digit(c) ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
    if (d < 0) return -1;
    value = value << 4 | d;
  }
  return value;
}

char* append_utf8(char* out, uint32_t c) {
  if (c < 0x80) {
    *out++ = static_cast<char>(c);
  } else if (c < 0x800) {
    *out++ = static_cast<char>(0xC0 | c >> 6);
    *out++ = static_cast<char>(0x80 | (c & 0x3F));
  } else if (c < 0x10000) {
    *out++ = static_cast<char>(0xE0 | c >> 12);
    *out++ = static_cast<char>(0x80 | (c >> 6 & 0x3F));
    *out++ = static_cast<char>(0x80 | (c & 0x3F));
  } else {
    *out++ = static_cast<char>(0xF0 | c >> 18);
    *out++ = static_cast<char>(0x80 | (c >> 12 & 0x3F));
    *out++ = static_cast<char>(0x80 | (c >> 6 & 0x3F));
    *out++ = static_cast<char>(0x80 | (c & 0x3F));
  }
  return out;
}

constexpr double kPowersOfTen[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                   1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};

}  // namespace

void JsonScanner::start(std::string_view text, int max_depth) {
  begin_ = p_ = text.data();
  end_ = begin_ + text.size();
  depth_ = 0;
  max_depth_ = max_depth;
  fault_ = Fault::kNone;
  what_ = "";
  unescaped_used_ = 0;
  passed_bad_text_ = false;
}

bool JsonScanner::fail(const char* what, Fault fault) {
  if (fault_ == Fault::kNone) {
    fault_ = fault;
    what_ = what;
    where_ = p_;
  }
  return false;
}

std::string JsonScanner::fault_text() const {
  return std::string(what_) + " at byte " + std::to_string(where_ - begin_) + " of " + std::to_string(end_ - begin_);
}

void JsonScanner::skip_space() {
  while (p_ < end_ && (*p_ == ' ' || *p_ == '\n' || *p_ == '\r' || *p_ == '\t')) ++p_;
}

JsonScanner::Kind JsonScanner::kind() {
  if (fault_ != Fault::kNone) return Kind::kFault;
  skip_space();
  if (p_ == end_) return fail("the text ends where a value was expected"), Kind::kFault;
  switch (*p_) {
    case '{':
      return Kind::kObject;
    case '[':
      return Kind::kArray;
    case '"':
      return Kind::kString;
    case 't':
      return Kind::kTrue;
    case 'f':
      return Kind::kFalse;
    case 'n':
      return Kind::kNull;
    default:
      if (*p_ == '-' || digit(*p_)) return Kind::kNumber;
      return fail("no JSON value begins like this"), Kind::kFault;
  }
}

bool JsonScanner::read_name() {
  skip_space();
  if (p_ == end_) return fail("the text ends inside an object");
  if (*p_ != '"') return fail("a member name was expected");
  if (!read_string(&name_)) return false;
  skip_space();
  if (p_ == end_ || *p_ != ':') return fail(p_ == end_ ? "the text ends inside an object" : "':' was expected");
  ++p_;
  return true;
}

bool JsonScanner::begin_object() {
  if (fault_ != Fault::kNone) return false;
  skip_space();
  if (p_ == end_ || *p_ != '{') return fail("an object was expected");
  if (++depth_ > max_depth_) return fail("nested too deep", Fault::kTooDeep);
  ++p_;
  skip_space();
  if (p_ < end_ && *p_ == '}') {
    ++p_;
    --depth_;
    return false;
  }
  return read_name();
}

bool JsonScanner::next_member() {
  if (fault_ != Fault::kNone) return false;
  skip_space();
  if (p_ == end_) return fail("the text ends inside an object");
  if (*p_ == '}') {
    ++p_;
    --depth_;
    return false;
  }
  if (*p_ != ',') return fail("',' or '}' was expected");
  ++p_;
  return read_name();
}

bool JsonScanner::begin_array() {
  if (fault_ != Fault::kNone) return false;
  skip_space();
  if (p_ == end_ || *p_ != '[') return fail("an array was expected");
  if (++depth_ > max_depth_) return fail("nested too deep", Fault::kTooDeep);
  ++p_;
  skip_space();
  if (p_ < end_ && *p_ == ']') {
    ++p_;
    --depth_;
    return false;
  }
  return true;
}

bool JsonScanner::next_element() {
  if (fault_ != Fault::kNone) return false;
  skip_space();
  if (p_ == end_) return fail("the text ends inside an array");
  if (*p_ == ']') {
    ++p_;
    --depth_;
    return false;
  }
  if (*p_ != ',') return fail("',' or ']' was expected");
  ++p_;
  return true;
}

bool JsonScanner::read_string(String* out) {
  if (fault_ != Fault::kNone) return false;
  ++p_;  // the quote
  const char* const start = p_;
  uint64_t seen = 0;
  p_ = plain_run(p_, end_, &seen);
  out->lone_surrogate = false;
  if (p_ < end_ && *p_ == '"') {
    out->bytes = {start, static_cast<size_t>(p_ - start)};
    ++p_;
    out->valid_utf8 = (seen & kHighs) == 0 || valid_utf8(out->bytes);
    return true;
  }
  // Escapes: what is unescaped is never longer than what was written, so a buffer of the text's size holds all of it.
  if (unescaped_.size() < static_cast<size_t>(end_ - begin_)) {
    CHECK(unescaped_used_ == 0);
    unescaped_.resize(static_cast<size_t>(end_ - begin_));
  }
  char* const base = unescaped_.data() + unescaped_used_;
  char* to = base;
  out->valid_utf8 = true;
  const char* run = start;
  while (true) {
    const std::string_view plain(run, static_cast<size_t>(p_ - run));
    if ((seen & kHighs) != 0 && !valid_utf8(plain)) out->valid_utf8 = false;
    to = std::copy(plain.begin(), plain.end(), to);
    if (p_ == end_) return fail("the text ends inside a string");
    if (*p_ == '"') break;
    if (*p_ != '\\') return fail("a control character stands raw in a string");
    if (end_ - p_ < 2) return fail("the text ends inside a string");
    const char escape = p_[1];
    switch (escape) {
      case '"':
      case '\\':
      case '/':
        *to++ = escape;
        p_ += 2;
        break;
      case 'b':
        *to++ = '\b';
        p_ += 2;
        break;
      case 'f':
        *to++ = '\f';
        p_ += 2;
        break;
      case 'n':
        *to++ = '\n';
        p_ += 2;
        break;
      case 'r':
        *to++ = '\r';
        p_ += 2;
        break;
      case 't':
        *to++ = '\t';
        p_ += 2;
        break;
      case 'u': {
        const int unit = end_ - p_ < 6 ? -1 : hex4(p_ + 2);
        if (unit < 0) return fail("\\u without four hex digits");
        p_ += 6;
        uint32_t point = static_cast<uint32_t>(unit);
        if (unit >= 0xD800 && unit <= 0xDFFF) {
          const int low = unit <= 0xDBFF && end_ - p_ >= 6 && p_[0] == '\\' && p_[1] == 'u' ? hex4(p_ + 2) : -1;
          if (low >= 0xDC00 && low <= 0xDFFF) {
            point = 0x10000 + ((point - 0xD800) << 10) + (static_cast<uint32_t>(low) - 0xDC00);
            p_ += 6;
          } else {
            out->lone_surrogate = true;
          }
        }
        to = append_utf8(to, point);
        break;
      }
      default:
        return fail("an escape that JSON does not have");
    }
    run = p_;
    seen = 0;
    p_ = plain_run(p_, end_, &seen);
  }
  ++p_;
  out->bytes = {base, static_cast<size_t>(to - base)};
  unescaped_used_ += out->bytes.size();
  return true;
}

bool JsonScanner::read_number(double* out) {
  if (fault_ != Fault::kNone) return false;
  const char* const start = p_;
  const bool negative = *p_ == '-';
  if (negative) ++p_;
  uint64_t mantissa = 0;  // exact while digits <= 19
  int digits = 0;         // significant ones
  int64_t exponent = 0;   // value = mantissa x 10^exponent while exact
  int64_t first = 0;      // decimal exponent of the first significant digit + 1, before the written exponent
  auto take = [&](char c) {
    if (digits > 0 || c != '0') {
      ++digits;
      if (digits <= 19) mantissa = mantissa * 10 + static_cast<uint64_t>(c - '0');
    }
  };
  if (p_ == end_ || !digit(*p_)) return fail("a number without digits");
  if (*p_ == '0') {
    ++p_;
    if (p_ < end_ && digit(*p_)) return fail("a number with a leading zero");
  } else {
    for (; p_ < end_ && digit(*p_); ++p_) take(*p_);
    first = digits;
  }
  if (p_ < end_ && *p_ == '.') {
    ++p_;
    if (p_ == end_ || !digit(*p_)) return fail("a number without digits after its point");
    for (; p_ < end_ && digit(*p_); ++p_) {
      if (digits == 0 && *p_ == '0') --first;
      take(*p_);
      --exponent;
    }
  }
  if (p_ < end_ && (*p_ == 'e' || *p_ == 'E')) {
    ++p_;
    const bool down = p_ < end_ && *p_ == '-';
    if (p_ < end_ && (*p_ == '-' || *p_ == '+')) ++p_;
    if (p_ == end_ || !digit(*p_)) return fail("a number without digits in its exponent");
    int64_t written = 0;
    for (; p_ < end_ && digit(*p_); ++p_)
      if (written < 1'000'000'000) written = written * 10 + (*p_ - '0');
    exponent += down ? -written : written;
    first += down ? -written : written;
  }
  if (digits == 0) {
    *out = negative ? -0.0 : 0.0;
    return true;
  }
  // Both factors are exact doubles, so one multiplication or division rounds correctly.
  if (digits <= 19 && mantissa <= (uint64_t{1} << 53) && exponent >= -22 && exponent <= 22) {
    const double whole = static_cast<double>(mantissa);
    const double value = exponent < 0 ? whole / kPowersOfTen[-exponent] : whole * kPowersOfTen[exponent];
    *out = negative ? -value : value;
    return true;
  }
  auto [end, error] = std::from_chars(start, p_, *out);
  if (error == std::errc::result_out_of_range) {
    // from_chars does not say on which side.
    const double magnitude = first > 0 ? std::numeric_limits<double>::infinity() : 0.0;
    *out = negative ? -magnitude : magnitude;
  } else {
    CHECK(error == std::errc() && end == p_);
  }
  return true;
}

bool JsonScanner::read_literal() {
  if (fault_ != Fault::kNone) return false;
  const std::string_view rest(p_, static_cast<size_t>(end_ - p_));
  for (std::string_view literal : {std::string_view("true"), std::string_view("false"), std::string_view("null")})
    if (rest.starts_with(literal)) {
      p_ += literal.size();
      return true;
    }
  return fail("no JSON value begins like this");
}

bool JsonScanner::passes(const String& text, bool any_text) {
  if (text.clean()) return true;
  passed_bad_text_ = true;
  return any_text || fail("text that is not Unicode (invalid UTF-8 or half a surrogate pair)");
}

bool JsonScanner::skip(bool any_text) {
  switch (kind()) {
    case Kind::kFault:
      return false;
    case Kind::kObject:
      for (bool more = begin_object(); more; more = next_member()) {
        if (!passes(name_, any_text) || !skip(any_text)) return false;
      }
      return fault_ == Fault::kNone;
    case Kind::kArray:
      for (bool more = begin_array(); more; more = next_element())
        if (!skip(any_text)) return false;
      return fault_ == Fault::kNone;
    case Kind::kString: {
      String text;
      if (!read_string(&text)) return false;
      return passes(text, any_text);
    }
    case Kind::kNumber: {
      double value;
      return read_number(&value);
    }
    default:
      return read_literal();
  }
}

bool JsonScanner::finish() {
  if (fault_ != Fault::kNone) return false;
  skip_space();
  return p_ == end_ || fail("bytes follow the document");
}

}  // namespace assay::schemas
