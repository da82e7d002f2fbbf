#include "schemas/eval_report.h"

#include <bit>
#include <cmath>

#include "schemas/eval_report_forms.h"
#include "schemas/json_scan.h"
#include "schemas/utf8.h"

namespace assay::schemas {
namespace {

// What a content-type header says about the body.
enum class Said : uint8_t { kNothing, kJson, kCloudEvent, kProtobuf };

Said said_by(std::optional<std::string_view> content_type) {
  if (!content_type.has_value()) return Said::kNothing;
  std::string_view text = content_type->substr(0, content_type->find(';'));
  while (!text.empty() && (text.back() == ' ' || text.back() == '\t')) text.remove_suffix(1);
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  // Media types are the same in either case.
  auto same = [](std::string_view a, std::string_view lower) {
    return std::equal(a.begin(), a.end(), lower.begin(), lower.end(),
                      [](char x, char y) { return (x >= 'A' && x <= 'Z' ? x + 32 : x) == y; });
  };
  auto ends = [&](std::string_view lower) {
    return text.size() >= lower.size() && same(text.substr(text.size() - lower.size()), lower);
  };
  if (same(text, "application/cloudevents+json")) return Said::kCloudEvent;
  if (same(text, "application/json") || same(text, "text/json") || ends("+json")) return Said::kJson;
  if (same(text, "application/protobuf") || same(text, "application/x-protobuf") || ends("+protobuf") ||
      same(text, "application/vnd.google.protobuf"))
    return Said::kProtobuf;
  return Said::kNothing;
}

bool is_space(char c) { return c == ' ' || c == '\n' || c == '\r' || c == '\t'; }

// Tells JSON from Protobuf by the bytes alone; proto/eval_report.proto says why no valid report can be taken for the other.
bool is_text(std::string_view bytes) {
  size_t first = 0;
  while (first < bytes.size() && is_space(bytes[first])) ++first;
  // An object with broken bytes inside is still meant as JSON, and its sender is helped most by hearing what is wrong in it.
  if (first < bytes.size() && bytes[first] == '{') return true;
  for (char c : bytes)
    if ((static_cast<unsigned char>(c) < 0x20 && !is_space(c)) || c == 0x7F) return false;
  return valid_utf8(bytes);
}

constexpr size_t kFrameBytes = 5;  // magic 0 and the schema's id

// Passes over the message indexes of a Confluent frame; false unless they name the first message of the schema.
// They are a zigzag count and as many zigzag indexes; the usual [0] is written as the one byte 0.
bool skip_message_index(std::string_view* bytes) {
  if (bytes->starts_with('\0')) return bytes->remove_prefix(1), true;
  if (bytes->starts_with(std::string_view("\x02\x00", 2))) return bytes->remove_prefix(2), true;
  return false;
}

}  // namespace

std::string_view reason_code(Reason reason) {
  static constexpr std::string_view kCodes[kReasonCount] = {"NOT_JSON",
                                                            "NOT_PROTOBUF",
                                                            "WRONG_TYPE",
                                                            "MISSING_FIELD",
                                                            "BAD_ID",
                                                            "BAD_METRICS",
                                                            "VALUE_NOT_FINITE",
                                                            "VALUE_OUT_OF_RANGE",
                                                            "BAD_TIMESTAMP",
                                                            "TIMESTAMP_IN_FUTURE",
                                                            "CONFLICTING_DUPLICATE",
                                                            "KEY_MISMATCH",
                                                            "EMPTY",
                                                            "TOO_DEEP",
                                                            "TOO_LARGE",
                                                            "DUPLICATE",
                                                            "LATE"};
  return kCodes[static_cast<size_t>(reason)];
}

int64_t to_micro(double value) {
  CHECK(std::abs(value) <= kMaxMetricValue);
  const uint64_t bits = std::bit_cast<uint64_t>(value);
  const int exponent_bits = static_cast<int>(bits >> 52 & 0x7FF);
  const uint64_t fraction = bits & ((uint64_t{1} << 52) - 1);
  const uint64_t mantissa = exponent_bits == 0 ? fraction : fraction | uint64_t{1} << 52;
  // |value| = mantissa / 2^shift, and shift >= 13 because |value| < 2^40. The product has at most 73 bits.
  const int shift = 1075 - (exponent_bits == 0 ? 1 : exponent_bits);
  const UInt128 product = static_cast<UInt128>(mantissa) * kMicro;
  if (shift > 74) return 0;
  const UInt128 one = 1;
  const UInt128 rest = product & ((one << shift) - 1);
  const UInt128 half = one << (shift - 1);
  int64_t micro = static_cast<int64_t>(product >> shift);
  if (rest > half || (rest == half && (micro & 1) != 0)) ++micro;
  return value < 0 ? -micro : micro;
}

struct EvalReportDecoder::Impl {
  JsonScanner scan;
  ReportDraft draft;
  WireForm form = WireForm::kJson;

  // Reads the body into the draft; false when it cannot be read as a whole.
  bool read(std::string_view body, Said said, Reject* reject);
};

bool EvalReportDecoder::Impl::read(std::string_view body, Said said, Reject* reject) {
  // Neither JSON nor Protobuf begins with a zero byte, so it is a frame whatever the header says.
  const bool framed = body.front() == '\0';
  if (framed) {
    form = said == Said::kJson || said == Said::kCloudEvent ? WireForm::kConfluentJson : WireForm::kConfluentProtobuf;
    if (body.size() <= kFrameBytes) {
      *reject = {form == WireForm::kConfluentJson ? Reason::kNotJson : Reason::kNotProtobuf,
                 "a Confluent frame of " + std::to_string(body.size()) + " bytes ends before its body"};
      return false;
    }
    body.remove_prefix(kFrameBytes);
  }
  const bool json = said == Said::kNothing ? is_text(body) : said != Said::kProtobuf;
  if (json) {
    form = framed ? WireForm::kConfluentJson : WireForm::kJson;
    WireForm inner = form;
    const bool read = read_json_report(body, said == Said::kCloudEvent, &scan, &draft, &inner, reject);
    form = framed ? WireForm::kConfluentJson : inner;
    return read;
  }
  form = framed ? WireForm::kConfluentProtobuf : WireForm::kProtobuf;
  if (framed && !skip_message_index(&body)) {
    *reject = {Reason::kNotProtobuf, "the Confluent frame's message index does not name EvalReport, the schema's first message"};
    return false;
  }
  return read_protobuf_report(body, &draft, reject);
}

EvalReportDecoder::EvalReportDecoder() : impl_(std::make_unique<Impl>()) {}
EvalReportDecoder::~EvalReportDecoder() = default;
EvalReportDecoder::EvalReportDecoder(EvalReportDecoder&&) noexcept = default;

WireForm EvalReportDecoder::form() const { return impl_->form; }

const EvalReport* EvalReportDecoder::decode(const RecordView& record, Reject* reject) {
  impl_->draft.reset();
  if (!record.value.has_value() || record.value->empty()) {
    *reject = {Reason::kEmpty, record.value.has_value() ? "the record has no bytes" : "the record is a tombstone: it has no value"};
    return nullptr;
  }
  const Said said = record.headers.empty() ? Said::kNothing : said_by(record.header("content-type"));
  if (!impl_->read(*record.value, said, reject)) return nullptr;
  return impl_->draft.finish(reject);
}

}  // namespace assay::schemas
