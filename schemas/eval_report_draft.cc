#include "schemas/eval_report_draft.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>

#include "schemas/json.h"
#include "schemas/time.h"
#include "schemas/utf8.h"

namespace assay::schemas {
namespace {

constexpr size_t kMaxTextBytes = 1024;

// Seeds keep values of different kinds apart.
enum Seed : uint64_t { kNullSeed = 1, kFalseSeed, kTrueSeed, kNumberSeed, kTextSeed, kArraySeed, kObjectSeed, kReportSeed };

template <class T>
std::string_view raw(const T& value) {
  return {reinterpret_cast<const char*>(&value), sizeof value};
}

UInt128 combine(UInt128 a, UInt128 b, uint64_t seed) {
  const std::array<UInt128, 2> both = {a, b};
  return xxh3_128(raw(both), seed);
}

uint64_t number_bits(double value) { return std::bit_cast<uint64_t>(value == 0 ? 0.0 : value); }

// Writes one thing after the other where there is room for all of them.
class Writer {
 public:
  explicit Writer(char* to) : to_(to) {}
  template <class T>
  void value(const T& value) {
    std::memcpy(to_, &value, sizeof value);
    to_ += sizeof value;
  }
  void text(std::string_view text) {
    value(static_cast<uint32_t>(text.size()));
    if (!text.empty()) std::memcpy(to_, text.data(), text.size());
    to_ += text.size();
  }
  const char* end() const { return to_; }

 private:
  char* to_;
};

// What ids and metric names must be.
bool is_name(FieldText text) {
  if (text.bytes.empty() || text.bytes.size() > kMaxIdBytes || !text.unicode) return false;
  return printable_ascii(text.bytes) || !has_control(text.bytes);
}

std::string quoted(std::string_view text) { return "\"" + printable(text) + "\""; }

}  // namespace

std::string_view field_name(Field field) {
  static constexpr std::string_view kNames[kFieldCount] = {"report",    "agentId",       "id",     "divisionId", "timestamp",
                                                           "metricSet", "computedScore", "source", "window",     "metadata"};
  return kNames[static_cast<size_t>(field)];
}

UInt128 hash_null() { return xxh3_128({}, kNullSeed); }
UInt128 hash_bool(bool value) { return xxh3_128({}, value ? kTrueSeed : kFalseSeed); }
UInt128 hash_number(double value) { return xxh3_128(raw(number_bits(value)), kNumberSeed); }
UInt128 hash_text(std::string_view text) { return xxh3_128(text, kTextSeed); }

void ArrayHash::add(UInt128 element) { hash = combine(hash, element, kArraySeed); }
UInt128 ArrayHash::done() const { return xxh3_128(raw(hash), kArraySeed); }

void ObjectHasher::add(Open* object, std::string_view name, UInt128 value) {
  const UInt128 name_hash = hash_text(name);
  names_.push_back(name_hash);
  object->sum += combine(name_hash, value, kObjectSeed);  // a sum does not depend on the order
}

UInt128 ObjectHasher::close(const Open& object, bool* twice) {
  const auto first = names_.begin() + static_cast<std::ptrdiff_t>(object.mark);
  const uint64_t count = names_.size() - object.mark;
  if (count > 1) {
    std::sort(first, names_.end());
    if (std::adjacent_find(first, names_.end()) != names_.end()) *twice = true;
  }
  names_.resize(object.mark);
  return combine(object.sum, count, kObjectSeed);
}

void ReportDraft::reset() {
  report_.id = report_.agent_id = report_.division_id = report_.source = window_ = {};
  report_.timestamp = EventTime(0);
  report_.metrics.clear();
  report_.content_hash = 0;
  report_.unknown_fields = 0;
  metric_count_ = 0;
  seen_ = given_ = 0;
  has_problem_ = false;
  objects_.reset();
}

void ReportDraft::problem(Field field, Reason reason, std::string detail) {
  if (has_problem_ && problem_field_ <= field) return;
  has_problem_ = true;
  problem_field_ = field;
  problem_ = {reason, std::move(detail)};
}

void ReportDraft::see(Field field) {
  if (seen(field)) problem(field, Reason::kWrongType, std::string(field_name(field)) + " stands twice in the report");
  seen_ |= bit(field);
}

void ReportDraft::set_id(Field field, FieldText text, std::string_view* out) {
  given_ |= bit(field);
  *out = text.bytes;
  const bool sound = is_name(text);
  if (sound) return;
  const std::string name(field_name(field));
  problem(field, Reason::kBadId,
          text.bytes.empty()                ? name + " is empty"
          : text.bytes.size() > kMaxIdBytes ? name + " has " + std::to_string(text.bytes.size()) + " bytes, more than 256"
          : !text.unicode                   ? name + " is not valid Unicode text: " + quoted(text.bytes)
                                            : name + " holds a control character: " + quoted(text.bytes));
}

void ReportDraft::set_text(Field field, FieldText text) {
  switch (field) {
    case Field::kAgentId:
      return set_id(field, text, &report_.agent_id);
    case Field::kId:
      return set_id(field, text, &report_.id);
    case Field::kDivisionId:
      return set_id(field, text, &report_.division_id);
    default:
      break;
  }
  CHECK((field == Field::kSource || field == Field::kWindow) && text.unicode);
  given_ |= bit(field);
  (field == Field::kSource ? report_.source : window_) = text.bytes;
  if (text.bytes.size() > kMaxTextBytes) {
    problem(field, Reason::kTooLarge,
            std::string(field_name(field)) + " has " + std::to_string(text.bytes.size()) + " bytes, more than 1024");
  } else if (text.bytes.find('\0') != std::string_view::npos) {
    // PostgreSQL holds no U+0000, and audit rows may quote these fields.
    problem(field, Reason::kWrongType, std::string(field_name(field)) + " holds U+0000: " + quoted(text.bytes));
  }
}

void ReportDraft::set_timestamp_text(std::string_view text) {
  const std::optional<int64_t> ms = parse_rfc3339_ms(text);
  if (ms.has_value()) return set_timestamp_ms(*ms);
  given_ |= bit(Field::kTimestamp);
  problem(Field::kTimestamp, Reason::kBadTimestamp, "timestamp is not RFC 3339 with a zone: " + quoted(text));
}

void ReportDraft::set_timestamp_ms(int64_t ms) {
  given_ |= bit(Field::kTimestamp);
  report_.timestamp = EventTime(ms);
  if (ms < 0)
    problem(Field::kTimestamp, Reason::kBadTimestamp, "timestamp lies before 1970: " + std::to_string(ms) + " ms since the epoch");
}

void ReportDraft::set_metrics_given() { given_ |= bit(Field::kMetricSet); }

void ReportDraft::add_metric(FieldText name, double value) {
  // What is beyond the limit is counted and not kept.
  if (++metric_count_ > kMaxMetrics) return;
  if (!is_name(name)) {
    problem(Field::kMetricSet, Reason::kBadMetrics,
            "a metric name is empty, longer than 256 bytes, or no printable text: " + quoted(name.bytes));
  } else if (!std::isfinite(value)) {
    problem(Field::kMetricSet, Reason::kValueNotFinite, "metric " + quoted(name.bytes) + " is not a finite number");
  } else if (std::abs(value) > kMaxMetricValue) {
    problem(Field::kMetricSet, Reason::kValueOutOfRange,
            "metric " + quoted(name.bytes) + " is " + canonical(Json(value)) + ", beyond 10^12");
  } else {
    report_.metrics.push_back({name.bytes, value, to_micro(value)});
  }
}

void ReportDraft::set_computed_score(double value) {
  given_ |= bit(Field::kComputedScore);
  computed_score_ = value;
  if (!std::isfinite(value)) problem(Field::kComputedScore, Reason::kValueNotFinite, "computedScore is not a finite number");
}

void ReportDraft::set_metadata(UInt128 hash) {
  given_ |= bit(Field::kMetadata);
  metadata_ = hash;
}

void ReportDraft::finish_metrics() {
  std::vector<MetricValue>& metrics = report_.metrics;
  auto by_name = [](const MetricValue& a, const MetricValue& b) { return a.name < b.name; };
  if (!std::is_sorted(metrics.begin(), metrics.end(), by_name)) std::sort(metrics.begin(), metrics.end(), by_name);
  auto twice = std::adjacent_find(metrics.begin(), metrics.end(), [](const auto& a, const auto& b) { return a.name == b.name; });
  if (twice != metrics.end()) problem(Field::kMetricSet, Reason::kBadMetrics, "metric " + quoted(twice->name) + " stands twice");
  if (metric_count_ == 0 || metric_count_ > kMaxMetrics)
    problem(Field::kMetricSet, Reason::kBadMetrics, "metricSet has " + std::to_string(metric_count_) + " metrics, not 1 to 256");
}

const EvalReport* ReportDraft::finish(Reject* reject) {
  for (Field field : {Field::kAgentId, Field::kTimestamp, Field::kMetricSet})
    if ((given_ & bit(field)) == 0) problem(field, Reason::kMissingField, std::string(field_name(field)) + " is missing");
  if ((given_ & bit(Field::kMetricSet)) != 0) finish_metrics();
  if (has_problem_) {
    *reject = std::move(problem_);
    return nullptr;
  }
  report_.content_hash = content_hash();
  return &report_;
}

UInt128 ReportDraft::content_hash() {
  const std::string_view texts[] = {report_.agent_id, report_.id, report_.division_id, report_.source, window_};
  size_t room = sizeof given_ + sizeof report_.timestamp.value + sizeof computed_score_ + sizeof metadata_;
  for (std::string_view text : texts) room += sizeof(uint32_t) + text.size();
  for (const MetricValue& metric : report_.metrics) room += sizeof(uint32_t) + metric.name.size() + sizeof metric.value;
  if (hashed_.size() < room) hashed_.resize(room);

  Writer writer(hashed_.data());
  writer.value(given_);  // absent and empty differ
  for (std::string_view text : texts) writer.text(text);
  writer.value(report_.timestamp.value);
  if ((given_ & bit(Field::kComputedScore)) != 0) writer.value(number_bits(computed_score_));
  if ((given_ & bit(Field::kMetadata)) != 0) writer.value(metadata_);
  for (const MetricValue& metric : report_.metrics) {
    writer.text(metric.name);
    writer.value(number_bits(metric.value));
  }
  const size_t size = static_cast<size_t>(writer.end() - hashed_.data());
  CHECK(size <= room);
  return xxh3_128({hashed_.data(), size}, kReportSeed);
}

}  // namespace assay::schemas
