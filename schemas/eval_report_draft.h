// A report while it is being read: what every wire form fills in, and the one place that judges it.
// Internal to the eval_report files.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "schemas/eval_report.h"

namespace assay::schemas {

/// The fields of a report, in the order in which they are judged: when several are bad, the first of them names the reason.
enum class Field : uint8_t {
  kReport,
  kAgentId,
  kId,
  kDivisionId,
  kTimestamp,
  kMetricSet,
  kComputedScore,
  kSource,
  kWindow,
  kMetadata,
};
constexpr size_t kFieldCount = 10;
std::string_view field_name(Field field);  // "agentId"; "report" for the whole

/// Hashes of JSON-like values, equal for equal values whatever wrote them: members in any order, -0 as 0.
UInt128 hash_null();
UInt128 hash_bool(bool value);
UInt128 hash_number(double value);
UInt128 hash_text(std::string_view text);

/// Hash of an array that grows element by element.
struct ArrayHash {
  UInt128 hash = 0;
  void add(UInt128 element);
  UInt128 done() const;
};

/// Hashes objects while they nest, and sees names that stand twice.
class ObjectHasher {
 public:
  struct Open {
    size_t mark = 0;
    UInt128 sum = 0;
  };
  void reset() { names_.clear(); }
  Open open() const { return {names_.size(), 0}; }
  void add(Open* object, std::string_view name, UInt128 value);
  /// Hash of the object. `twice` is set when a name stood twice and left alone otherwise.
  UInt128 close(const Open& object, bool* twice);

 private:
  std::vector<UInt128> names_;  // hashes of the names of all open objects, innermost last
};

/// Text of a field as a decoder found it.
struct FieldText {
  std::string_view bytes;
  bool unicode = true;  // valid UTF-8 and no half surrogate pairs
};

class ReportDraft {
 public:
  void reset();

  /// Notes that the field stands in the record; twice is a problem.
  void see(Field field);
  void see_unknown() { ++report_.unknown_fields; }
  bool seen(Field field) const { return (seen_ & bit(field)) != 0; }

  // Each judges what it is given. Requires: see(field) before.
  void set_text(Field field, FieldText text);  // ids, source, window
  void set_timestamp_text(std::string_view text);
  void set_timestamp_ms(int64_t ms);  // after cutting
  void add_metric(FieldText name, double value);
  void set_metrics_given();  // the set stands there, perhaps empty
  void set_computed_score(double value);
  void set_metadata(UInt128 hash);
  ObjectHasher& objects() { return objects_; }

  /// Keeps the problem of the field that is judged first; of one field, the first found.
  void problem(Field field, Reason reason, std::string detail);

  /// Judges the whole. Returns nullptr and fills `reject` when something is wrong.
  const EvalReport* finish(Reject* reject);

 private:
  static constexpr uint32_t bit(Field field) { return uint32_t{1} << static_cast<unsigned>(field); }
  void set_id(Field field, FieldText text, std::string_view* out);
  void finish_metrics();
  UInt128 content_hash();

  EvalReport report_;
  std::string_view window_;
  double computed_score_ = 0;
  UInt128 metadata_ = 0;
  size_t metric_count_ = 0;
  uint32_t seen_ = 0;   // stood in the record
  uint32_t given_ = 0;  // with a usable value
  Field problem_field_ = Field::kReport;
  bool has_problem_ = false;
  Reject problem_{Reason::kNotJson, {}};
  ObjectHasher objects_;
  std::vector<char> hashed_;  // room for the bytes under the content hash; only ever grows
};

}  // namespace assay::schemas
