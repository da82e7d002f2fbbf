// Reports in JSON, plain or inside a CloudEvent.
#include <cmath>

#include "schemas/eval_report_forms.h"
#include "schemas/utf8.h"

namespace assay::schemas {
namespace {

using Kind = JsonScanner::Kind;

std::string_view kind_name(Kind kind) {
  switch (kind) {
    case Kind::kObject:
      return "an object";
    case Kind::kArray:
      return "an array";
    case Kind::kString:
      return "a string";
    case Kind::kNumber:
      return "a number";
    case Kind::kNull:
      return "null";
    default:
      return "a boolean";
  }
}

// Field of that name in either spelling; kReport stands for none.
Field field_of(std::string_view name) {
  switch (name.size()) {
    case 2:
      return name == "id" ? Field::kId : Field::kReport;
    case 6:
      return name == "source" ? Field::kSource : name == "window" ? Field::kWindow : Field::kReport;
    case 7:
      return name == "agentId" ? Field::kAgentId : Field::kReport;
    case 8:
      return name == "agent_id" ? Field::kAgentId : name == "metadata" ? Field::kMetadata : Field::kReport;
    case 9:
      return name == "metricSet" ? Field::kMetricSet : name == "timestamp" ? Field::kTimestamp : Field::kReport;
    case 10:
      return name == "divisionId" ? Field::kDivisionId : name == "metric_set" ? Field::kMetricSet : Field::kReport;
    case 11:
      return name == "division_id" ? Field::kDivisionId : Field::kReport;
    case 13:
      return name == "computedScore" ? Field::kComputedScore : Field::kReport;
    case 14:
      return name == "computed_score" ? Field::kComputedScore : Field::kReport;
    default:
      return Field::kReport;
  }
}

class Reader {
 public:
  Reader(JsonScanner* scan, ReportDraft* draft) : scan_(*scan), draft_(*draft) {}

  // Members that make a document a CloudEvent, seen while it was read as a report.
  struct Envelope {
    bool specversion = false;
    bool version_known = false;
    bool binary = false;  // data_base64
    bool data_twice = false;
    size_t data_begin = 0, data_end = 0;
    Kind data_kind = Kind::kFault;
  };

  void read_report(Envelope* envelope) {
    for (bool more = scan_.begin_object(); more; more = scan_.next_member()) {
      if (!scan_.name().clean()) {
        scan_.refuse("a member name is not Unicode (invalid UTF-8 or half a surrogate pair)");
        return;
      }
      const Field field = field_of(scan_.name().bytes);
      if (field == Field::kReport) {
        draft_.see_unknown();
        read_unknown(envelope);
      } else {
        draft_.see(field);
        read_field(field);
      }
    }
  }

 private:
  void read_unknown(Envelope* envelope) {
    const std::string_view name = scan_.name().bytes;
    if (name == "specversion" && scan_.kind() == Kind::kString) {
      envelope->specversion = true;
      const std::string_view version = read_text().bytes;
      envelope->version_known = version == "1.0";
      return;
    }
    if (name == "data_base64") envelope->binary = true;
    const bool data = name == "data";
    const Kind kind = scan_.kind();
    const size_t begin = scan_.value_position();
    scan_.skip(/*any_text=*/data);  // it may be a report whose ids deserve a better reason: see read_json_report
    if (data) {
      envelope->data_twice = envelope->data_kind != Kind::kFault;
      envelope->data_kind = kind;
      envelope->data_begin = begin;
      envelope->data_end = scan_.position();
    }
  }

  void wrong_type(Field field, std::string_view wanted, Kind got) {
    draft_.problem(field, Reason::kWrongType,
                   std::string(field_name(field)) + " is " + std::string(kind_name(got)) + ", not " + std::string(wanted));
    scan_.skip();
  }

  // Text of a string; bytes that are no UTF-8 make the whole document no JSON.
  JsonScanner::String read_text() {
    JsonScanner::String text;
    if (scan_.read_string(&text) && !text.clean()) scan_.refuse("a string is not Unicode (invalid UTF-8 or half a surrogate pair)");
    return text;
  }

  void read_field(Field field) {
    const Kind kind = scan_.kind();
    if (kind == Kind::kFault) return;
    if (kind == Kind::kNull) {  // the same as absent
      scan_.read_literal();
      return;
    }
    switch (field) {
      case Field::kAgentId:
      case Field::kId:
      case Field::kDivisionId: {
        if (kind != Kind::kString) return wrong_type(field, "a string", kind);
        JsonScanner::String text;
        if (scan_.read_string(&text)) draft_.set_text(field, {text.bytes, text.clean()});
        return;
      }
      case Field::kSource:
      case Field::kWindow: {
        if (kind != Kind::kString) return wrong_type(field, "a string", kind);
        const JsonScanner::String text = read_text();
        if (scan_.fault() == JsonScanner::Fault::kNone) draft_.set_text(field, {text.bytes, true});
        return;
      }
      case Field::kTimestamp: {
        if (kind != Kind::kString) return wrong_type(field, "a string", kind);
        const JsonScanner::String text = read_text();
        if (scan_.fault() == JsonScanner::Fault::kNone) draft_.set_timestamp_text(text.bytes);
        return;
      }
      case Field::kComputedScore: {
        if (kind != Kind::kNumber) return wrong_type(field, "a number", kind);
        double value = 0;
        if (scan_.read_number(&value)) draft_.set_computed_score(value);
        return;
      }
      case Field::kMetricSet:
        return kind == Kind::kObject ? read_metrics() : wrong_type(field, "an object", kind);
      case Field::kMetadata:
        if (kind != Kind::kObject) return wrong_type(field, "an object", kind);
        return draft_.set_metadata(hash_object());
      case Field::kReport:
        return;
    }
  }

  void read_metrics() {
    draft_.set_metrics_given();
    for (bool more = scan_.begin_object(); more; more = scan_.next_member()) {
      const JsonScanner::String name = scan_.name();
      if (!name.valid_utf8) {
        scan_.refuse("a metric name is not UTF-8");
        return;
      }
      const Kind kind = scan_.kind();
      if (kind == Kind::kNumber) {
        double value = 0;
        if (scan_.read_number(&value)) draft_.add_metric({name.bytes, name.clean()}, value);
      } else if (kind != Kind::kFault) {
        draft_.problem(Field::kMetricSet, Reason::kWrongType,
                       "metric \"" + printable(name.bytes) + "\" is " + std::string(kind_name(kind)) + ", not a number");
        scan_.skip();
        draft_.add_metric({name.bytes, name.clean()}, 0);
      }
    }
  }

  UInt128 hash_object() {
    ObjectHasher& objects = draft_.objects();
    ObjectHasher::Open object = objects.open();
    for (bool more = scan_.begin_object(); more; more = scan_.next_member()) {
      const JsonScanner::String name = scan_.name();
      if (!name.clean()) {
        scan_.refuse("a member name is not Unicode (invalid UTF-8 or half a surrogate pair)");
        break;
      }
      objects.add(&object, name.bytes, hash_value());
    }
    bool twice = false;
    const UInt128 hash = objects.close(object, &twice);
    if (twice) draft_.problem(Field::kMetadata, Reason::kWrongType, "an object in metadata has a member twice");
    return hash;
  }

  UInt128 hash_value() {
    switch (const Kind kind = scan_.kind()) {
      case Kind::kFault:
        return 0;
      case Kind::kObject:
        return hash_object();
      case Kind::kArray: {
        ArrayHash array;
        for (bool more = scan_.begin_array(); more; more = scan_.next_element()) array.add(hash_value());
        return array.done();
      }
      case Kind::kString:
        return hash_text(read_text().bytes);
      case Kind::kNumber: {
        double value = 0;
        if (scan_.read_number(&value) && !std::isfinite(value))
          draft_.problem(Field::kMetadata, Reason::kValueNotFinite, "a number in metadata is too great for a double");
        return hash_number(value);
      }
      case Kind::kNull:
        scan_.read_literal();
        return hash_null();
      default:
        scan_.read_literal();
        return hash_bool(kind == Kind::kTrue);
    }
  }

  JsonScanner& scan_;
  ReportDraft& draft_;
};

// Reads a document that begins at `text`; false: it is no JSON as a whole.
bool read_document(std::string_view text, JsonScanner* scan, ReportDraft* draft, Reader::Envelope* envelope, Reject* reject) {
  scan->start(text, kMaxJsonDepth);
  const Kind kind = scan->kind();
  if (kind == Kind::kObject) {
    Reader(scan, draft).read_report(envelope);
  } else if (scan->skip()) {
    draft->problem(Field::kReport, Reason::kWrongType, "the report is " + std::string(kind_name(kind)) + ", not an object");
  }
  if (scan->finish()) return true;
  if (scan->fault() == JsonScanner::Fault::kTooDeep) {
    *reject = {Reason::kTooDeep, "JSON is nested deeper than 64 levels: " + scan->fault_text()};
  } else {
    *reject = {Reason::kNotJson, "not JSON: " + scan->fault_text()};
  }
  return false;
}

}  // namespace

bool read_json_report(std::string_view text, bool must_be_event, JsonScanner* scan, ReportDraft* draft, WireForm* form,
                      Reject* reject) {
  Reader::Envelope envelope;
  if (!read_document(text, scan, draft, &envelope, reject)) return false;
  // A plain report may hold a member of any name; one that has its metrics beside it is no envelope.
  const bool event = must_be_event || (envelope.specversion && !draft->seen(Field::kMetricSet));
  if (event) {
    *form = WireForm::kCloudEventJson;
    draft->reset();
    auto bad = [&](Reason reason, const char* detail) {
      draft->problem(Field::kReport, reason, detail);
      return true;
    };
    if (!envelope.specversion) return bad(Reason::kMissingField, "the CloudEvent has no specversion");
    if (!envelope.version_known) return bad(Reason::kWrongType, "the CloudEvent's specversion is not 1.0");
    if (envelope.data_twice) return bad(Reason::kWrongType, "the CloudEvent has data twice");
    if (envelope.data_kind == Kind::kFault || envelope.data_kind == Kind::kNull)
      return bad(Reason::kMissingField,
                 envelope.binary ? "the CloudEvent has data_base64, where data was expected" : "the CloudEvent has no data");
    Reader::Envelope inner;
    const std::string_view data = text.substr(envelope.data_begin, envelope.data_end - envelope.data_begin);
    if (!read_document(data, scan, draft, &inner, reject)) return false;
  }
  if (!scan->passed_bad_text()) return true;
  *reject = {Reason::kNotJson, "not JSON: the member \"data\" holds text that is not Unicode"};
  return false;
}

}  // namespace assay::schemas
