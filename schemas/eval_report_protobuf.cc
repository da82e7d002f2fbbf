// Reports as producers write them in Protobuf, by the generated code: so that writer and reader share no line.
#include <google/protobuf/io/coded_stream.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include "schemas/eval_report.h"
#include "schemas/json_parse.h"
#include "schemas/proto/eval_report.pb.h"
#include "schemas/time.h"

namespace assay::schemas {
namespace {

void set_value(const Json& json, google::protobuf::Value* out);

void set_struct(const Json& json, google::protobuf::Struct* out) {
  for (const auto& [name, value] : json.as_object()) set_value(value, &(*out->mutable_fields())[name]);
}

void set_value(const Json& json, google::protobuf::Value* out) {
  if (json.is_null()) {
    out->set_null_value(google::protobuf::NULL_VALUE);
  } else if (json.is_bool()) {
    out->set_bool_value(json.as_bool());
  } else if (json.is_number()) {
    out->set_number_value(json.as_number());
  } else if (json.is_string()) {
    out->set_string_value(json.as_string());
  } else if (json.is_object()) {
    set_struct(json, out->mutable_struct_value());
  } else {
    for (const Json& element : json.as_array()) set_value(element, out->mutable_list_value()->add_values());
    if (json.as_array().empty()) out->mutable_list_value();
  }
}

// The member in either spelling; null is absent.
const Json* member(const Json& report, std::string_view camel, std::string_view snake) {
  const Json* found = report.find(camel);
  if (found == nullptr) found = report.find(snake);
  return found == nullptr || found->is_null() ? nullptr : found;
}

void append_big_endian(uint32_t value, std::string* out) {
  for (int shift = 24; shift >= 0; shift -= 8) out->push_back(static_cast<char>(value >> shift));
}

}  // namespace

Result<std::string> eval_report_to_protobuf(std::string_view json, bool confluent_framed, int32_t schema_id) {
  EvalReportDecoder decoder;
  Reject reject;
  RecordView record;
  record.value = json;
  const EvalReport* report = decoder.decode(record, &reject);
  if (report == nullptr)
    return Error{Errc::kCorrupt, "encode report as Protobuf: " + std::string(reason_code(reject.reason)) + ": " + reject.detail};
  if (decoder.form() != WireForm::kJson) return Error{Errc::kCorrupt, "encode report as Protobuf: it is not a plain JSON report"};
  TRY_ASSIGN(const Json document, parse_json(json));

  v1::EvalReport message;
  message.set_agent_id(std::string(report->agent_id));
  if (!report->id.empty()) message.set_id(std::string(report->id));
  if (!report->division_id.empty()) message.set_division_id(std::string(report->division_id));
  for (const MetricValue& metric : report->metrics) (*message.mutable_metric_set())[std::string(metric.name)] = metric.value;
  message.mutable_timestamp()->set_seconds(report->timestamp.value / 1000);
  message.mutable_timestamp()->set_nanos(static_cast<int32_t>(report->timestamp.value % 1000 * 1000000));
  if (const Json* source = member(document, "source", "source")) message.set_source(source->as_string());
  if (const Json* window = member(document, "window", "window")) message.set_window(window->as_string());
  if (const Json* score = member(document, "computedScore", "computed_score")) message.set_computed_score(score->as_number());
  if (const Json* metadata = member(document, "metadata", "metadata")) set_struct(*metadata, message.mutable_metadata());

  std::string out;
  if (confluent_framed) {
    out.push_back('\0');
    append_big_endian(static_cast<uint32_t>(schema_id), &out);
    out.push_back('\0');
  }
  {
    google::protobuf::io::StringOutputStream stream(&out);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);  // maps in the order of their keys: the same bytes for the same report
    CHECK(message.SerializeToCodedStream(&coded));
  }
  return out;
}

}  // namespace assay::schemas
