// EvalReport: five wire forms in, one report out. The hot path of ingest: no allocation per report once warm.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/hash.h"
#include "schemas/record.h"

namespace assay::schemas {

enum class Reason : uint8_t {
  kNotJson,
  kNotProtobuf,
  kWrongType,
  kMissingField,
  kBadId,
  kBadMetrics,
  kValueNotFinite,
  kValueOutOfRange,
  kBadTimestamp,
  kTimestampInFuture,
  kConflictingDuplicate,
  kKeyMismatch,
  kEmpty,
  kTooDeep,
  kTooLarge,
  // filtered, not dead letters:
  kDuplicate,
  kLate,
};
constexpr size_t kReasonCount = 17;
constexpr bool is_filtered(Reason r) { return r == Reason::kDuplicate || r == Reason::kLate; }
std::string_view reason_code(Reason reason);  // "NOT_JSON"

/// Metric values are fixed point: micro-units, value x 10^6 rounded half to even; |value| <= 10^12.
constexpr double kMaxMetricValue = 1e12;
constexpr int64_t kMicro = 1000000;
/// Rounds the exact value of the double. Requires: finite, |value| <= 10^12.
int64_t to_micro(double value);

constexpr size_t kMaxMetrics = 256;
constexpr size_t kMaxIdBytes = 256;
constexpr int kMaxJsonDepth = 64;

struct MetricValue {
  std::string_view name;
  double value = 0;
  int64_t micro = 0;
};

/// A decoded and validated report. Views point into the decoder or the record and live until the next decode().
struct EvalReport {
  std::string_view id;  // empty: none was given, the caller derives one from the record's place
  std::string_view agent_id;
  std::string_view division_id;  // empty: none was given
  std::string_view source;
  EventTime timestamp;
  std::vector<MetricValue> metrics;  // sorted by name (bytes), names unique
  UInt128 content_hash = 0;     // of the canonical report: equal for equal reports in whatever encoding; unknown fields left out
  uint32_t unknown_fields = 0;  // accepted and counted
};

enum class WireForm : uint8_t { kJson, kCloudEventJson, kConfluentJson, kProtobuf, kConfluentProtobuf };

struct Reject {
  Reason reason;
  std::string detail;  // one sentence for people; never more than 200 bytes of the input
};

/// Decodes and validates. One per thread; keeps its buffers.
class EvalReportDecoder {
 public:
  EvalReportDecoder();
  ~EvalReportDecoder();
  EvalReportDecoder(EvalReportDecoder&&) noexcept;

  /// Checks in the order decode, validate (key, future, duplicate and late are the caller's).
  /// When several things are wrong: first what makes the record unreadable as a whole (EMPTY, NOT_JSON, NOT_PROTOBUF,
  /// TOO_DEEP: the first met), then what is wrong with the whole report, then agentId, id, divisionId, timestamp,
  /// metricSet, computedScore, source, window, metadata; within one field the first found. A field given twice, in
  /// either spelling, is WRONG_TYPE; an optional field that is null counts as absent.
  /// Levels of nesting are counted over the whole document, a CloudEvent's envelope included.
  /// Returns nullptr and fills `reject` when the record is bad; otherwise the report, valid until the next call.
  const EvalReport* decode(const RecordView& record, Reject* reject);
  WireForm form() const;  // of the last record decoded

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// The same report as raw Protobuf / Confluent-framed Protobuf (magic 0, schema id, message index 0), for producers and tests.
/// `json` must decode. Errors: kCorrupt with the reason.
Result<std::string> eval_report_to_protobuf(std::string_view json, bool confluent_framed, int32_t schema_id = 1);

}  // namespace assay::schemas
