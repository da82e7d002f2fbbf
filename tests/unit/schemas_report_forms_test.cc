// One report has one content hash in all its encodings; the wire reader agrees with the generated code; nothing crashes it.
#include <google/protobuf/io/coded_stream.h>
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>

#include "schemas/eval_report.h"
#include "schemas/json_parse.h"
#include "schemas/proto/eval_report.pb.h"
#include "schemas/utf8.h"
#include "tests/unit/report_maker.h"

namespace assay::schemas {
namespace {

RecordView record_of(std::string_view value) {
  RecordView record;
  record.value = value;
  return record;
}

std::string event(std::string_view data) {
  return R"({"specversion":"1.0","id":"e-1","source":"/ci","type":"eval","data":)" + std::string(data) + "}";
}

const std::string kFrame("\0\0\0\0\x07", 5);

struct Encoding {
  WireForm form;
  std::string bytes;
};

std::vector<Encoding> all_forms(ReportMaker* maker, const Json& report) {
  auto raw = eval_report_to_protobuf(canonical(report), false);
  auto framed = eval_report_to_protobuf(canonical(report), true, 7);
  EXPECT_TRUE(raw && framed) << canonical(report);
  return {{WireForm::kJson, canonical(report)},
          {WireForm::kJson, maker->write(report)},
          {WireForm::kCloudEventJson, event(maker->write(report))},
          {WireForm::kConfluentJson, kFrame + maker->write(report)},
          {WireForm::kProtobuf, *raw},
          {WireForm::kConfluentProtobuf, *framed},
          {WireForm::kConfluentProtobuf, kFrame + std::string("\x02\x00", 2) + *raw}};
}

// What a consumer sees of a report, as text.
std::string print(const EvalReport& report) {
  Json metrics = Json::object();
  for (const MetricValue& metric : report.metrics) metrics.set(metric.name, Json(std::to_string(metric.micro)));
  return canonical(Json::object()
                       .set("agentId", report.agent_id)
                       .set("id", report.id)
                       .set("divisionId", report.division_id)
                       .set("source", report.source)
                       .set("ts", std::to_string(report.timestamp.value))
                       .set("metrics", metrics)
                       .set("hash", to_hex({reinterpret_cast<const char*>(&report.content_hash), 16})));
}

TEST(ReportForms, AreOneReport) {
  ReportMaker maker(42);
  EvalReportDecoder decoder;
  Reject reject;
  for (int i = 0; i < 5000; ++i) {
    const Json report = maker.report();
    std::string first;
    for (const Encoding& encoding : all_forms(&maker, report)) {
      const EvalReport* decoded = decoder.decode(record_of(encoding.bytes), &reject);
      ASSERT_NE(decoded, nullptr) << reject.detail << " in " << printable(encoding.bytes, 2000);
      ASSERT_EQ(decoder.form(), encoding.form);
      if (first.empty()) first = print(*decoded);
      ASSERT_EQ(print(*decoded), first) << printable(encoding.bytes, 2000);
    }
  }
}

UInt128 hash_of(std::string_view json) {
  EvalReportDecoder decoder;
  Reject reject;
  const EvalReport* report = decoder.decode(record_of(json), &reject);
  EXPECT_NE(report, nullptr) << json << ": " << reject.detail;
  return report == nullptr ? 0 : report->content_hash;
}

std::string report_with(std::string_view rest) {
  return R"({"agentId":"a","metricSet":{"m":1,"n":2},"timestamp":"2026-05-01T12:00:00Z")" + std::string(rest) + "}";
}

TEST(ContentHash, IsTheSameForTheSame) {
  const UInt128 plain = hash_of(report_with(""));
  EXPECT_EQ(plain, hash_of(R"({"metric_set":{"n":2.0,"m":1e0},"timestamp":"2026-05-01T14:00:00.0009+02:00","agent_id":"\u0061"})"));
  EXPECT_EQ(plain, hash_of(report_with(R"(,"unknown":1)")));
  EXPECT_EQ(plain, hash_of(report_with(R"(,"source":null)")));
  EXPECT_EQ(hash_of(report_with(R"(,"metadata":{"a":-0.0,"b":[{"x":1,"y":2}]})")),
            hash_of(report_with(R"(,"metadata":{"b":[{"y":2,"x":1.0}],"a":0})")));
  EXPECT_EQ(hash_of(report_with(R"(,"computedScore":-0)")), hash_of(report_with(R"(,"computedScore":0)")));
}

TEST(ContentHash, DiffersForWhateverDiffers) {
  const std::vector<std::string> reports = {
      report_with(""),
      report_with(R"(,"id":"a")"),
      report_with(R"(,"divisionId":"a")"),
      report_with(R"(,"source":"")"),
      report_with(R"(,"source":"a")"),
      report_with(R"(,"window":"")"),
      report_with(R"(,"window":"a")"),
      report_with(R"(,"computedScore":0)"),
      report_with(R"(,"computedScore":5e-324)"),
      report_with(R"(,"metadata":{})"),
      report_with(R"(,"metadata":{"a":null})"),
      report_with(R"(,"metadata":{"a":false})"),
      report_with(R"(,"metadata":{"a":true})"),
      report_with(R"(,"metadata":{"a":0})"),
      report_with(R"(,"metadata":{"a":""})"),
      report_with(R"(,"metadata":{"a":"0"})"),
      report_with(R"(,"metadata":{"a":[]})"),
      report_with(R"(,"metadata":{"a":[[]]})"),
      report_with(R"(,"metadata":{"a":{}})"),
      report_with(R"(,"metadata":{"a":[null]})"),
      report_with(R"(,"metadata":{"a":[1,2]})"),
      report_with(R"(,"metadata":{"a":[2,1]})"),
      report_with(R"(,"metadata":{"a":[[1],2]})"),
      report_with(R"(,"metadata":{"a":1,"b":2})"),
      report_with(R"(,"metadata":{"a":2,"b":1})"),
      report_with(R"(,"metadata":{"x":{"a":1},"y":{}})"),
      report_with(R"(,"metadata":{"x":{},"y":{"a":1}})"),
      report_with(R"(,"metadata":{"x":{"a":1}},"computedScore":1)"),
      R"({"agentId":"a","metricSet":{"m":2,"n":1},"timestamp":"2026-05-01T12:00:00Z"})",
      R"({"agentId":"a","metricSet":{"m":1},"timestamp":"2026-05-01T12:00:00Z"})",
      R"({"agentId":"a","metricSet":{"m":1,"n":2.0000000000000004},"timestamp":"2026-05-01T12:00:00Z"})",
      R"({"agentId":"a","metricSet":{"m":1,"n":2},"timestamp":"2026-05-01T12:00:00.001Z"})",
      R"({"agentId":"b","metricSet":{"m":1,"n":2},"timestamp":"2026-05-01T12:00:00Z"})",
  };
  for (size_t i = 0; i < reports.size(); ++i)
    for (size_t k = 0; k < i; ++k) EXPECT_NE(hash_of(reports[i]), hash_of(reports[k])) << reports[i] << "\n" << reports[k];
}

TEST(ToMicro, AgreesWithExactDecimalPrinting) {
  // The C library prints the exact value of a double, rounded half to even, to any number of decimals.
  auto oracle = [](double value) {
    char text[64];
    const int size = snprintf(text, sizeof text, "%.6f", value);
    std::string digits;
    for (int i = 0; i < size; ++i)
      if (text[i] != '.') digits.push_back(text[i]);
    return static_cast<int64_t>(std::strtoll(digits.c_str(), nullptr, 10));
  };
  std::mt19937_64 random(6);
  auto check = [&](double value) {
    if (!(std::abs(value) <= kMaxMetricValue)) return;
    ASSERT_EQ(to_micro(value), oracle(value)) << std::hexfloat << value;
  };
  for (double value :
       {0.0, -0.0, 1e12, -1e12, 5e-324, 0.5e-6, 1.5e-6, 2.5e-6, -0.5e-6, 0.0000005, 1e-7, 123456.7890125, 2.2250738585072014e-308})
    check(value);
  for (int i = 0; i < 1'000'000; ++i) {
    const uint64_t bits = random();
    switch (i % 5) {
      case 0:
        check(std::bit_cast<double>(bits));
        break;
      case 1:  // any exponent in the range that matters
        check(std::ldexp(static_cast<double>(bits >> 11), static_cast<int>(random() % 60) - 73) * (bits & 1 ? 1 : -1));
        break;
      case 2:  // exact ties: odd multiples of 2^-7 / 10^6 times 5^6 .. are doubles with 7 binary places
        check(static_cast<double>(static_cast<int64_t>(bits % 200000001) - 100000000) / 128);
        break;
      case 3: {  // near decimal halves
        double value = (static_cast<double>(bits % 2000000000) + 0.5) / 1e6;
        for (int step = static_cast<int>(random() % 5); step > 0; --step) value = std::nextafter(value, bits & 1 ? 1e13 : -1e13);
        check(value);
        break;
      }
      default:
        check(static_cast<double>(bits % 2000000) / 1000 - 1000);
        break;
    }
  }
  EXPECT_EQ(to_micro(0.0078125), 7812);   // exactly 7812.5: to even
  EXPECT_EQ(to_micro(0.0234375), 23438);  // exactly 23437.5: to even
  EXPECT_EQ(to_micro(-0.0078125), -7812);
}

// What the generated code reads, as a document; nothing when it refuses, or reads what no report may hold.
struct Generated {
  bool parsed = false;
  std::string json;
};

Json from_value(const google::protobuf::Value& value);

Json from_struct(const google::protobuf::Struct& fields) {
  Json out = Json::object();
  for (const auto& [name, value] : fields.fields()) out.set(name, from_value(value));
  return out;
}

Json from_value(const google::protobuf::Value& value) {
  switch (value.kind_case()) {
    case google::protobuf::Value::kNumberValue:
      return Json(value.number_value());
    case google::protobuf::Value::kStringValue:
      return Json(value.string_value());
    case google::protobuf::Value::kBoolValue:
      return Json(value.bool_value());
    case google::protobuf::Value::kStructValue:
      return from_struct(value.struct_value());
    case google::protobuf::Value::kListValue: {
      Json out = Json::array();
      for (const auto& element : value.list_value().values()) out.push_back(from_value(element));
      return out;
    }
    default:
      return Json();
  }
}

bool parse_generated(std::string_view bytes, v1::EvalReport* message) {
  google::protobuf::io::CodedInputStream stream(reinterpret_cast<const uint8_t*>(bytes.data()), static_cast<int>(bytes.size()));
  stream.SetRecursionLimit(1000);  // 64 levels of Struct are some 200 messages
  return message->ParseFromCodedStream(&stream) && stream.ConsumedEntireMessage();
}

// Requires: a report that the decoder took, so that its numbers are finite and its time in range.
std::string json_of(const v1::EvalReport& message) {
  Json out = Json::object();
  if (message.has_agent_id()) out.set("agentId", message.agent_id());
  if (message.has_id()) out.set("id", message.id());
  if (message.has_division_id()) out.set("divisionId", message.division_id());
  Json metrics = Json::object();
  for (const auto& [name, value] : message.metric_set()) metrics.set(name, value);
  out.set("metricSet", metrics);
  out.set("timestamp", format_rfc3339_ms(message.timestamp().seconds() * 1000 + message.timestamp().nanos() / 1000000));
  if (message.has_source()) out.set("source", message.source());
  if (message.has_window()) out.set("window", message.window());
  if (message.has_computed_score()) out.set("computedScore", message.computed_score());
  if (message.has_metadata()) out.set("metadata", from_struct(message.metadata()));
  return canonical(out);
}

TEST(ReportForms, WireReaderAgreesWithTheGeneratedCode) {
  google::protobuf::LogSilencer quiet;  // it complains about each invalid string on stderr
  ReportMaker maker(7);
  EvalReportDecoder decoder, other;
  Reject reject;
  int taken = 0, refused = 0, broken = 0;
  for (int i = 0; i < 150'000; ++i) {
    auto valid = eval_report_to_protobuf(canonical(maker.report()), false);
    ASSERT_TRUE(valid);
    for (int k = 0; k < 2; ++k) {
      const std::string bytes = i % 10 == 0 && k == 0 ? *valid : maker.mutate(*valid);
      RecordView record = record_of(bytes);
      record.headers.push_back({"content-type", "application/x-protobuf"});
      const bool framed = bytes.empty() || bytes.front() == '\0';
      const EvalReport* report = decoder.decode(record, &reject);
      v1::EvalReport message;
      const bool parsed = !framed && parse_generated(bytes, &message);
      if (framed) continue;
      if (report == nullptr) {
        ++refused;
        if (reject.reason == Reason::kNotProtobuf) {
          ++broken;
          ASSERT_FALSE(parsed) << reject.detail << ": " << to_hex(bytes);
        }
        continue;
      }
      ++taken;
      ASSERT_TRUE(parsed) << to_hex(bytes);
      const std::string seen = print(*report);
      const std::string json = json_of(message);
      const EvalReport* same = other.decode(record_of(json), &reject);
      ASSERT_NE(same, nullptr) << reject.detail << ": " << json;
      ASSERT_EQ(print(*same), seen) << json << "\n" << to_hex(bytes);
    }
    if (i >= 20'000 && taken > 3000 && broken > 3000) break;
  }
  EXPECT_GT(taken, 3000);
  EXPECT_GT(refused, 3000);
  EXPECT_GT(broken, 3000);
}

TEST(ReportForms, NoBytesBreakTheDecoder) {
  ReportMaker maker(2026);
  EvalReportDecoder decoder;
  Reject reject;
  size_t outcomes[kReasonCount + 1] = {};
  for (int i = 0; i < 8'000; ++i) {
    for (const Encoding& encoding : all_forms(&maker, maker.report())) {
      for (int k = 0; k < 3; ++k) {
        const std::string mutated = maker.mutate(encoding.bytes);
        const std::vector<char> exact(mutated.begin(), mutated.end());  // no terminator behind it: a sanitizer sees over-reads
        RecordView record = record_of({exact.data(), exact.size()});
        static constexpr std::string_view kTypes[] = {"application/json", "application/cloudevents+json", "application/x-protobuf"};
        if (maker.one_in(4)) record.headers.push_back({"content-type", kTypes[maker.below(3)]});
        const EvalReport* report = decoder.decode(record, &reject);
        if (report == nullptr) {
          ASSERT_LE(reject.reason, Reason::kTooLarge);
          ASSERT_FALSE(reject.detail.empty());
          ASSERT_LT(reject.detail.size(), 500u);
          ASSERT_TRUE(valid_utf8(reject.detail) && !has_control(reject.detail));
          ++outcomes[static_cast<size_t>(reject.reason)];
          continue;
        }
        ++outcomes[kReasonCount];
        ASSERT_FALSE(report->agent_id.empty());
        for (std::string_view text : {report->agent_id, report->id, report->division_id})
          ASSERT_TRUE(text.size() <= kMaxIdBytes && valid_utf8(text) && !has_control(text));
        ASSERT_GE(report->timestamp, EventTime(0));
        ASSERT_TRUE(!report->metrics.empty() && report->metrics.size() <= kMaxMetrics);
        for (size_t m = 0; m < report->metrics.size(); ++m) {
          ASSERT_LE(std::abs(report->metrics[m].value), kMaxMetricValue);
          ASSERT_TRUE(m == 0 || report->metrics[m - 1].name < report->metrics[m].name);
        }
      }
    }
  }
  // The loop reached what it is for.
  for (Reason reason : {Reason::kNotJson, Reason::kNotProtobuf, Reason::kWrongType, Reason::kMissingField, Reason::kBadId,
                        Reason::kBadMetrics, Reason::kValueNotFinite, Reason::kValueOutOfRange, Reason::kBadTimestamp})
    EXPECT_GT(outcomes[static_cast<size_t>(reason)], 0u) << reason_code(reason);
  EXPECT_GT(outcomes[kReasonCount], 1000u);
}

}  // namespace
}  // namespace assay::schemas
