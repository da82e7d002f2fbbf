// Every kind of bad report and the reason it gets, in each wire form that can say it; and what a good report becomes.
#include <gtest/gtest.h>

#include <limits>

#include "schemas/eval_report.h"
#include "schemas/json_parse.h"
#include "schemas/proto/eval_report.pb.h"
#include "schemas/time.h"
#include "schemas/utf8.h"

namespace assay::schemas {
namespace {

constexpr std::string_view kGood =
    R"({"id":"r1","agentId":"a1","divisionId":"d1","metricSet":{"accuracy":0.5},"timestamp":"2026-05-01T12:00:00Z"})";

// "OK", or the reason's code.
std::string outcome(std::string_view value, std::string_view content_type = {}) {
  // The exact bytes on the heap: a sanitizer sees one byte read beyond them.
  const std::vector<char> exact(value.begin(), value.end());
  RecordView record;
  record.value = std::string_view(exact.data(), exact.size());
  if (!content_type.empty()) record.headers.push_back({"content-type", content_type});
  EvalReportDecoder decoder;
  Reject reject;
  if (decoder.decode(record, &reject) != nullptr) return "OK";
  EXPECT_FALSE(reject.detail.empty());
  EXPECT_LT(reject.detail.size(), 400u);
  EXPECT_TRUE(valid_utf8(reject.detail)) << reject.detail;
  EXPECT_FALSE(has_control(reject.detail)) << reject.detail;
  return std::string(reason_code(reject.reason));
}

// The good report with one member written otherwise; an empty `value` leaves the member out.
std::string with(std::string_view member, std::string_view value) {
  std::string out = "{";
  const std::pair<std::string_view, std::string_view> members[] = {{"id", R"("r1")"},
                                                                   {"agentId", R"("a1")"},
                                                                   {"divisionId", R"("d1")"},
                                                                   {"metricSet", R"({"accuracy":0.5})"},
                                                                   {"timestamp", R"("2026-05-01T12:00:00Z")"},
                                                                   {"source", R"("s")"},
                                                                   {"computedScore", "0.5"},
                                                                   {"window", R"("1h")"},
                                                                   {"metadata", "{}"}};
  bool known = false;
  for (const auto& [name, usual] : members) {
    const bool this_one = name == member;
    known |= this_one;
    const std::string_view text = this_one ? value : usual;
    if (!text.empty()) out += (out.size() > 1 ? ",\"" : "\"") + std::string(name) + "\":" + std::string(text);
  }
  if (!known) out += ",\"" + std::string(member) + "\":" + std::string(value);
  return out + "}";
}

std::string metrics(size_t count) {
  std::string out = "{";
  for (size_t i = 0; i < count; ++i) out += (i == 0 ? "\"m" : ",\"m") + std::to_string(i) + "\":1";
  return out + "}";
}

std::string brackets(size_t levels) { return std::string(levels, '[') + std::string(levels, ']'); }

struct Case {
  std::string value;
  std::string_view expected;
};

TEST(EvalReportJson, EveryBadInputHasItsReason) {
  const std::string nul("\0", 1);
  const Case cases[] = {
      {std::string(kGood), "OK"},
      {"\n\t " + std::string(kGood) + " \r\n", "OK"},
      // The record as a whole.
      {"", "EMPTY"},
      {" ", "NOT_JSON"},
      {"not json", "NOT_JSON"},
      {"{not json}", "NOT_JSON"},
      {"\xEF\xBB\xBF" + std::string(kGood), "NOT_JSON"},
      {std::string(kGood).substr(0, 60), "NOT_JSON"},
      {std::string(kGood).substr(0, kGood.size() - 1), "NOT_JSON"},
      {std::string(kGood) + "x", "NOT_JSON"},
      {std::string(kGood) + std::string(kGood), "NOT_JSON"},
      {std::string(kGood) + nul, "NOT_JSON"},
      {"null", "WRONG_TYPE"},
      {"42", "WRONG_TYPE"},
      {"\"text\"", "WRONG_TYPE"},
      {"[" + std::string(kGood) + "]", "WRONG_TYPE"},
      {"{}", "MISSING_FIELD"},
      {std::string(5000, '['), "TOO_DEEP"},
      {brackets(5000), "TOO_DEEP"},
      {with("metadata", R"({"a":)" + brackets(62) + "}"), "OK"},
      {with("metadata", R"({"a":)" + brackets(63) + "}"), "TOO_DEEP"},
      {with("unknown", brackets(63)), "OK"},
      {with("unknown", brackets(64)), "TOO_DEEP"},
      // Unknown members are taken, whatever sound JSON they hold.
      {with("unknown", R"({"x":[1,null,"é",1e400]})"), "OK"},
      {with("unknown", R"("\ud800")"), "NOT_JSON"},
      {with("unknown", "\"\xFF\""), "NOT_JSON"},
      {with("unkn\xFFown", "1"), "NOT_JSON"},
      {with("unknown", "NaN"), "NOT_JSON"},
      {with("unknown", "\"a\x01\""), "NOT_JSON"},
      // Required fields.
      {with("agentId", ""), "MISSING_FIELD"},
      {with("agentId", "null"), "MISSING_FIELD"},
      {with("metricSet", ""), "MISSING_FIELD"},
      {with("metricSet", "null"), "MISSING_FIELD"},
      {with("timestamp", ""), "MISSING_FIELD"},
      {with("timestamp", "null"), "MISSING_FIELD"},
      // Optional ones: null is absent.
      {with("id", ""), "OK"},
      {with("id", "null"), "OK"},
      {with("divisionId", "null"), "OK"},
      {with("source", "null"), "OK"},
      {with("computedScore", "null"), "OK"},
      {with("window", "null"), "OK"},
      {with("metadata", "null"), "OK"},
      // Types.
      {with("agentId", "7"), "WRONG_TYPE"},
      {with("agentId", R"(["a1"])"), "WRONG_TYPE"},
      {with("id", "true"), "WRONG_TYPE"},
      {with("divisionId", "{}"), "WRONG_TYPE"},
      {with("timestamp", "1777636800000"), "WRONG_TYPE"},
      {with("timestamp", "{}"), "WRONG_TYPE"},
      {with("metricSet", "[]"), "WRONG_TYPE"},
      {with("metricSet", R"("x")"), "WRONG_TYPE"},
      {with("metricSet", R"({"a":"0.5"})"), "WRONG_TYPE"},
      {with("metricSet", R"({"a":null})"), "WRONG_TYPE"},
      {with("metricSet", R"({"a":true})"), "WRONG_TYPE"},
      {with("metricSet", R"({"a":{"b":1}})"), "WRONG_TYPE"},
      {with("metricSet", R"({"a":[1]})"), "WRONG_TYPE"},
      {with("source", "1"), "WRONG_TYPE"},
      {with("computedScore", R"("0.5")"), "WRONG_TYPE"},
      {with("computedScore", "false"), "WRONG_TYPE"},
      {with("window", "1"), "WRONG_TYPE"},
      {with("metadata", R"("x")"), "WRONG_TYPE"},
      {with("metadata", "[]"), "WRONG_TYPE"},
      // A field given twice, in either spelling.
      {with("agent_id", R"("a1")"), "WRONG_TYPE"},
      {with("division_id", "null"), "WRONG_TYPE"},
      {with("metric_set", R"({"b":1})"), "WRONG_TYPE"},
      {with("computed_score", "1"), "WRONG_TYPE"},
      {R"({"id":"r1",)" + std::string(kGood).substr(1), "WRONG_TYPE"},
      {with("metadata", R"({"a":1,"a":1})"), "WRONG_TYPE"},
      {with("metadata", R"({"x":[{"a":1,"\u0061":2}]})"), "WRONG_TYPE"},
      // Ids.
      {with("agentId", R"("")"), "BAD_ID"},
      {with("id", R"("")"), "BAD_ID"},
      {with("divisionId", R"("")"), "BAD_ID"},
      {with("agentId", "\"" + std::string(256, 'x') + "\""), "OK"},
      {with("agentId", "\"" + std::string(257, 'x') + "\""), "BAD_ID"},
      {with("id", "\"" + std::string(1 << 20, 'x') + "\""), "BAD_ID"},
      {with("agentId", "\"" + std::string(1 << 20, 'x') + "\""), "BAD_ID"},
      {with("agentId", R"("a\u0000b")"), "BAD_ID"},
      {with("id", R"("\u0000")"), "BAD_ID"},
      {with("agentId", R"("a\nb")"), "BAD_ID"},
      {with("agentId", R"("a\u007f")"), "BAD_ID"},
      {with("agentId", R"("a\u0085")"), "BAD_ID"},
      {with("agentId", "\"a\xC2\x9F\""), "BAD_ID"},
      {with("agentId", "\"a\xC2\xA0\""), "OK"},
      {with("agentId", R"("\ud800")"), "BAD_ID"},
      {with("divisionId", R"("x\udc00")"), "BAD_ID"},
      {with("agentId", R"("\ud83d\ude00")"), "OK"},
      {with("agentId", "\"a\xFF\""), "BAD_ID"},
      {with("id", "\"\xC3\x28\""), "BAD_ID"},
      {with("id", "\"\xED\xA0\x80\""), "BAD_ID"},
      {with("agentId", "\"a" + nul + "b\""), "NOT_JSON"},  // a raw NUL ends no JSON string anywhere
      {with("agentId", "\"a\x1F\""), "NOT_JSON"},
      // Metrics.
      {with("metricSet", "{}"), "BAD_METRICS"},
      {with("metricSet", metrics(256)), "OK"},
      {with("metricSet", metrics(257)), "BAD_METRICS"},
      {with("metricSet", metrics(20000)), "BAD_METRICS"},
      {with("metricSet", R"({"":1})"), "BAD_METRICS"},
      {with("metricSet", R"({"a":1,"a":1})"), "BAD_METRICS"},
      {with("metricSet", R"({"a":1,"b":2,"\u0061":1})"), "BAD_METRICS"},
      {with("metricSet", R"({"a\u0000":1})"), "BAD_METRICS"},
      {with("metricSet", R"({"\ud800":1})"), "BAD_METRICS"},
      {with("metricSet", R"({"a\t":1})"), "BAD_METRICS"},
      {with("metricSet", "{\"" + std::string(256, 'm') + "\":1}"), "OK"},
      {with("metricSet", "{\"" + std::string(257, 'm') + "\":1}"), "BAD_METRICS"},
      {with("metricSet", "{\"\xFF\":1}"), "NOT_JSON"},
      // Values.
      {with("metricSet", R"({"a":1e400})"), "VALUE_NOT_FINITE"},
      {with("metricSet", R"({"a":-1e400})"), "VALUE_NOT_FINITE"},
      {with("metricSet", R"({"a":1e-400})"), "OK"},
      {with("metricSet", R"({"a":NaN})"), "NOT_JSON"},
      {with("metricSet", R"({"a":Infinity})"), "NOT_JSON"},
      {with("metricSet", R"({"a":-Infinity})"), "NOT_JSON"},
      {with("metricSet", R"({"a":1000000000000})"), "OK"},
      {with("metricSet", R"({"a":-1e12})"), "OK"},
      {with("metricSet", R"({"a":1000000000000.0002})"), "VALUE_OUT_OF_RANGE"},
      {with("metricSet", R"({"a":-1e13})"), "VALUE_OUT_OF_RANGE"},
      {with("metricSet", R"({"a":99999999999999999999999})"), "VALUE_OUT_OF_RANGE"},
      {with("computedScore", "1e400"), "VALUE_NOT_FINITE"},
      {with("metadata", R"({"a":[1e400]})"), "VALUE_NOT_FINITE"},
      // Timestamps.
      {with("timestamp", R"("")"), "BAD_TIMESTAMP"},
      {with("timestamp", R"("yesterday")"), "BAD_TIMESTAMP"},
      {with("timestamp", R"("2026-05-01T12:00:00")"), "BAD_TIMESTAMP"},
      {with("timestamp", R"("2026-02-30T12:00:00Z")"), "BAD_TIMESTAMP"},
      {with("timestamp", R"("1969-12-31T23:59:59.999Z")"), "BAD_TIMESTAMP"},
      {with("timestamp", R"("1970-01-01T00:30:00+01:00")"), "BAD_TIMESTAMP"},
      {with("timestamp", R"("1970-01-01T00:00:00Z")"), "OK"},
      {with("timestamp", "\"" + std::string(100000, '9') + "\""), "BAD_TIMESTAMP"},
      // Other texts.
      {with("source", "\"" + std::string(1024, 's') + "\""), "OK"},
      {with("source", "\"" + std::string(1025, 's') + "\""), "TOO_LARGE"},
      {with("source", R"("")"), "OK"},
      {with("source", R"("a\u0000")"), "WRONG_TYPE"},
      {with("source", R"("\udfff")"), "NOT_JSON"},
      {with("metadata", R"({"a":"\udfff"})"), "NOT_JSON"},
      {with("metadata", "{\"a\xFF\":1}"), "NOT_JSON"},
      {with("metadata", R"({"a\u0000":"\u0000"})"), "OK"},
  };
  for (const Case& c : cases) EXPECT_EQ(outcome(c.value), c.expected) << printable(c.value, 300);
}

TEST(EvalReportJson, SeveralFaultsHaveOneOrder) {
  // What breaks the document comes first, wherever it stands.
  EXPECT_EQ(outcome(R"({"agentId":7,"metricSet":{"a":tru}})"), "NOT_JSON");
  EXPECT_EQ(outcome(R"({"agentId":7,"x":)" + brackets(100) + "}"), "TOO_DEEP");
  // Then the fields in their order, not in the document's.
  EXPECT_EQ(outcome(R"({"metricSet":{"a":1e13},"timestamp":"x","id":"","agentId":7})"), "WRONG_TYPE");
  EXPECT_EQ(outcome(R"({"metricSet":{"a":1e13},"timestamp":"x","id":"","agentId":"a"})"), "BAD_ID");
  EXPECT_EQ(outcome(R"({"metricSet":{"a":1e13},"timestamp":"x","id":"i","agentId":"a"})"), "BAD_TIMESTAMP");
  EXPECT_EQ(outcome(R"({"metricSet":{"a":1e13},"id":"i","agentId":"a"})"), "MISSING_FIELD");
  EXPECT_EQ(outcome(R"({"source":5,"metricSet":{"a":1e13,"b":"x"},"timestamp":"2026-05-01T12:00:00Z","agentId":"a"})"),
            "VALUE_OUT_OF_RANGE");
  EXPECT_EQ(outcome(R"({"source":5,"metricSet":{"b":"x","a":1e13},"timestamp":"2026-05-01T12:00:00Z","agentId":"a"})"),
            "WRONG_TYPE");
}

TEST(EvalReportJson, BecomesTheReport) {
  EvalReportDecoder decoder;
  Reject reject;
  RecordView record;
  record.value =
      R"({"agent_id":"caf\u00e9","metric_set":{"z":-0.0000005,"a":1e12,"m":2.5},"timestamp":"2026-05-01T14:00:00.1239+02:00",
    "extra":{"agentId":1},"extra":2,"source":"nightly"})";
  const EvalReport* report = decoder.decode(record, &reject);
  ASSERT_NE(report, nullptr) << reject.detail;
  EXPECT_EQ(report->agent_id, "café");
  EXPECT_EQ(report->id, "");
  EXPECT_EQ(report->division_id, "");
  EXPECT_EQ(report->source, "nightly");
  EXPECT_EQ(report->timestamp, EventTime(1777636800123));
  EXPECT_EQ(report->unknown_fields, 2u);
  EXPECT_EQ(decoder.form(), WireForm::kJson);
  ASSERT_EQ(report->metrics.size(), 3u);
  EXPECT_EQ(report->metrics[0].name, "a");
  EXPECT_EQ(report->metrics[0].micro, 1000000000000000000);
  EXPECT_EQ(report->metrics[1].micro, 2500000);
  EXPECT_EQ(report->metrics[2].name, "z");
  EXPECT_EQ(report->metrics[2].micro, 0);  // the double nearest to -5e-7 lies above the half

  // The next record starts afresh.
  record.value = kGood;
  report = decoder.decode(record, &reject);
  ASSERT_NE(report, nullptr);
  EXPECT_EQ(report->id, "r1");
  EXPECT_EQ(report->source, "");
  EXPECT_EQ(report->metrics.size(), 1u);
  EXPECT_EQ(report->unknown_fields, 0u);
}

TEST(EvalReport, TombstoneIsEmpty) {
  EvalReportDecoder decoder;
  Reject reject;
  EXPECT_EQ(decoder.decode(RecordView{}, &reject), nullptr);
  EXPECT_EQ(reject.reason, Reason::kEmpty);
}

TEST(EvalReport, ReasonCodesAreTheContracts) {
  const std::string_view codes[] = {"NOT_JSON",
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
  ASSERT_EQ(std::size(codes), kReasonCount);
  for (size_t i = 0; i < kReasonCount; ++i) {
    EXPECT_EQ(reason_code(static_cast<Reason>(i)), codes[i]);
    EXPECT_EQ(is_filtered(static_cast<Reason>(i)), codes[i] == "DUPLICATE" || codes[i] == "LATE");
  }
}

std::string event(std::string_view data) {
  return R"({"specversion":"1.0","id":"e-1","source":"/ci","type":"eval","datacontenttype":"application/json","data":)" +
         std::string(data) + "}";
}

TEST(EvalReportCloudEvent, Envelopes) {
  EXPECT_EQ(outcome(event(kGood)), "OK");
  EXPECT_EQ(outcome(event(kGood), "application/cloudevents+json; charset=UTF-8"), "OK");
  EXPECT_EQ(outcome(R"({"data":)" + std::string(kGood) + R"(,"id":"e","specversion":"1.0"})"), "OK");  // members in any order
  EXPECT_EQ(outcome(event("null")), "MISSING_FIELD");
  EXPECT_EQ(outcome(event("{}")), "MISSING_FIELD");
  EXPECT_EQ(outcome(event("[]")), "WRONG_TYPE");
  EXPECT_EQ(outcome(event("{")), "NOT_JSON");
  EXPECT_EQ(outcome(event(with("agentId", "\"\xFF\""))), "BAD_ID");
  EXPECT_EQ(outcome(event(with("agentId", R"("\ud800")"))), "BAD_ID");
  EXPECT_EQ(outcome(event(with("source", R"("\ud800")"))), "NOT_JSON");
  EXPECT_EQ(outcome(event(with("data", R"("\ud800")"))), "NOT_JSON");
  EXPECT_EQ(outcome(R"({"data":null,)" + event(kGood).substr(1)), "WRONG_TYPE");
  EXPECT_EQ(outcome(event(with("metricSet", R"({"a":1e13})"))), "VALUE_OUT_OF_RANGE");
  EXPECT_EQ(outcome(R"({"specversion":"1.0","id":"e"})"), "MISSING_FIELD");
  EXPECT_EQ(outcome(R"({"specversion":"1.0","id":"e","data_base64":"AAAA"})"), "MISSING_FIELD");
  EXPECT_EQ(outcome(R"({"specversion":"0.3","data":)" + std::string(kGood) + "}"), "WRONG_TYPE");
  EXPECT_EQ(outcome(kGood, "application/cloudevents+json"), "MISSING_FIELD");
  // A plain report may have members of these names.
  EXPECT_EQ(outcome(with("specversion", R"("1.0")")), "OK");
  EXPECT_EQ(outcome(with("data", "1")), "OK");
  EXPECT_EQ(outcome(with("data", R"(["\ud800"])")), "NOT_JSON");
}

v1::EvalReport good_message() {
  v1::EvalReport message;
  message.set_agent_id("a1");
  message.set_id("r1");
  (*message.mutable_metric_set())["accuracy"] = 0.5;
  message.mutable_timestamp()->set_seconds(1777636800);
  return message;
}

// Bytes of one field, written by hand: what no generated code would write.
std::string field(uint32_t number, uint32_t wire_type, std::string_view payload) {
  std::string out(1, static_cast<char>(number << 3 | wire_type));
  if (wire_type == 2) {
    size_t size = payload.size();
    for (; size >= 0x80; size >>= 7) out.push_back(static_cast<char>(size | 0x80));
    out.push_back(static_cast<char>(size));
  }
  return out + std::string(payload);
}

template <class Change>
std::string changed(Change change) {
  v1::EvalReport message = good_message();
  change(message);
  return message.SerializeAsString();
}

TEST(EvalReportProtobuf, EveryBadInputHasItsReason) {
  using Message = v1::EvalReport;
  const std::string good = good_message().SerializeAsString();
  const double nan = std::numeric_limits<double>::quiet_NaN(), infinity = std::numeric_limits<double>::infinity();
  const std::string one_double("\0\0\0\0\0\0\xF0\x3F", 8);
  const Case cases[] = {
      {good, "OK"},
      {good.substr(0, good.size() - 1), "NOT_PROTOBUF"},
      {good.substr(0, 3), "NOT_PROTOBUF"},
      {good.substr(1), "NOT_PROTOBUF"},
      {good + '\x07', "NOT_PROTOBUF"},
      {"\xFF\xFE\xFD", "NOT_PROTOBUF"},
      {std::string("\x01\x02\x03\x04", 4), "NOT_PROTOBUF"},
      {std::string("\x1f\x8b\x08\x00\x00\x00\x00\x00", 8), "NOT_PROTOBUF"},  // gzip
      {changed([](Message& m) { m.clear_agent_id(); }), "MISSING_FIELD"},
      {changed([](Message& m) { m.clear_timestamp(); }), "MISSING_FIELD"},
      {changed([](Message& m) { m.clear_metric_set(); }), "MISSING_FIELD"},  // an empty map cannot be told from an absent one
      {changed([](Message& m) { m.clear_id(); }), "OK"},
      {changed([](Message& m) { m.set_agent_id(""); }), "BAD_ID"},
      {changed([](Message& m) { m.set_id(std::string("a\0b", 3)); }), "BAD_ID"},
      {changed([](Message& m) { m.set_id(std::string(257, 'x')); }), "BAD_ID"},
      {changed([](Message& m) { m.set_agent_id(std::string(1 << 20, 'x')); }), "BAD_ID"},
      {good + field(7, 2, "\xFF"), "BAD_ID"},
      {good + field(7, 2, "\xED\xA0\x80"), "BAD_ID"},
      {good + field(10, 2, "\xFF"), "NOT_PROTOBUF"},
      {good + field(8, 2, field(1, 2, "\xFF") + field(2, 1, one_double)), "NOT_PROTOBUF"},
      {changed([](Message& m) { m.set_source(std::string(1025, 'x')); }), "TOO_LARGE"},
      {changed([&](Message& m) { (*m.mutable_metric_set())["a"] = nan; }), "VALUE_NOT_FINITE"},
      {changed([&](Message& m) { (*m.mutable_metric_set())["a"] = -infinity; }), "VALUE_NOT_FINITE"},
      {changed([](Message& m) { (*m.mutable_metric_set())["a"] = 1.1e12; }), "VALUE_OUT_OF_RANGE"},
      {changed([](Message& m) { (*m.mutable_metric_set())[""] = 1; }), "BAD_METRICS"},
      {changed([](Message& m) {
         for (int i = 0; i < 256; ++i) (*m.mutable_metric_set())[std::to_string(i)] = 1;
       }),
       "BAD_METRICS"},
      {good + field(8, 2, field(1, 2, "accuracy") + field(2, 1, one_double)), "BAD_METRICS"},  // the name stands twice
      {good + field(8, 2, field(1, 2, "zero")), "OK"},                                         // a zero that was left out
      {good + field(8, 2, field(1, 2, "float") + field(2, 5, std::string(4, '\0'))), "WRONG_TYPE"},
      {changed([](Message& m) { m.mutable_timestamp()->set_seconds(-1); }), "BAD_TIMESTAMP"},
      {changed([](Message& m) { m.mutable_timestamp()->set_nanos(-1); }), "BAD_TIMESTAMP"},
      {changed([](Message& m) { m.mutable_timestamp()->set_nanos(1000000000); }), "BAD_TIMESTAMP"},
      {changed([](Message& m) { m.mutable_timestamp()->set_seconds(253402300800); }), "BAD_TIMESTAMP"},
      {changed([](Message& m) { m.mutable_timestamp()->Clear(); }), "OK"},  // 1970 begins: both parts are zero
      {good + field(2, 2, "a1"), "WRONG_TYPE"},
      {good + field(13, 1, one_double), "OK"},
      {good + field(13, 1, one_double) + field(13, 1, one_double), "WRONG_TYPE"},
      {good + field(13, 0, "\x01"), "WRONG_TYPE"},
      {good + field(7, 0, "\x01"), "WRONG_TYPE"},
      {changed([&](Message& m) { m.set_computed_score(nan); }), "VALUE_NOT_FINITE"},
      {changed([&](Message& m) { (*m.mutable_metadata()->mutable_fields())["x"].set_number_value(infinity); }), "VALUE_NOT_FINITE"},
      {changed([](Message& m) { (*m.mutable_metadata()->mutable_fields())["x"]; }), "WRONG_TYPE"},  // a Value of no kind
      // Unknown fields of every wire type.
      {good + field(14, 0, "\x96\x01") + field(14, 1, "12345678") + field(14, 2, "xyz") + field(14, 3, "") + field(14, 4, "") +
           field(14, 5, "1234"),
       "OK"},
      {good + field(14, 3, ""), "NOT_PROTOBUF"},
      {good + field(14, 4, ""), "NOT_PROTOBUF"},
      {good + field(14, 3, "") + field(15, 4, ""), "NOT_PROTOBUF"},
  };
  for (const Case& c : cases) EXPECT_EQ(outcome(c.value), c.expected) << "case " << &c - cases << ": " << printable(c.value, 300);
}

TEST(EvalReportProtobuf, DeepMetadata) {
  auto nested = [](int levels) {
    return changed([&](v1::EvalReport& m) {
      google::protobuf::Struct* inner = m.mutable_metadata();
      for (int i = 0; i < levels; ++i) inner = (*inner->mutable_fields())["a"].mutable_struct_value();
    });
  };
  auto lists = [](int levels) {
    return changed([&](v1::EvalReport& m) {
      google::protobuf::Value* inner = &(*m.mutable_metadata()->mutable_fields())["a"];
      for (int i = 0; i < levels; ++i) inner = inner->mutable_list_value()->add_values();
      inner->set_bool_value(true);
    });
  };
  EXPECT_EQ(outcome(lists(62)), "OK");
  EXPECT_EQ(outcome(lists(63)), "TOO_DEEP");
  EXPECT_EQ(outcome(nested(62)), "OK");
  EXPECT_EQ(outcome(nested(63)), "TOO_DEEP");
  EXPECT_EQ(outcome(nested(2000)), "TOO_DEEP");
}

TEST(EvalReportProtobuf, CountsUnknownFields) {
  const std::string bytes = good_message().SerializeAsString() + field(14, 0, "\x01") + field(14, 2, "x");
  EvalReportDecoder decoder;
  Reject reject;
  RecordView record;
  record.value = bytes;
  const EvalReport* report = decoder.decode(record, &reject);
  ASSERT_NE(report, nullptr) << reject.detail;
  EXPECT_EQ(report->unknown_fields, 2u);
}

TEST(EvalReportForms, AreToldApart) {
  const std::string frame("\0\0\0\0\x2A", 5);
  const std::string proto = good_message().SerializeAsString();
  const std::string json(kGood);
  const std::string zero(1, '\0');
  struct {
    std::string value;
    std::string_view content_type;
    std::string_view expected;
    WireForm form;
  } const cases[] = {
      {json, "", "OK", WireForm::kJson},
      {event(json), "", "OK", WireForm::kCloudEventJson},
      {frame + json, "", "OK", WireForm::kConfluentJson},
      {proto, "", "OK", WireForm::kProtobuf},
      {frame + zero + proto, "", "OK", WireForm::kConfluentProtobuf},
      {frame + "\x02" + zero + proto, "", "OK", WireForm::kConfluentProtobuf},         // the index list [0] in full
      {frame + "\x02\x02" + proto, "", "NOT_PROTOBUF", WireForm::kConfluentProtobuf},  // [1]: another message
      {frame + "\x04" + zero + zero + proto, "", "NOT_PROTOBUF", WireForm::kConfluentProtobuf},
      {frame + proto, "", "NOT_PROTOBUF", WireForm::kConfluentProtobuf},  // no index
      {frame, "", "NOT_PROTOBUF", WireForm::kConfluentProtobuf},
      {frame.substr(0, 3), "", "NOT_PROTOBUF", WireForm::kConfluentProtobuf},
      {frame + zero, "", "MISSING_FIELD", WireForm::kConfluentProtobuf},
      {frame + json.substr(0, 20), "", "NOT_JSON", WireForm::kConfluentJson},
      {frame + "plain text", "", "NOT_JSON", WireForm::kConfluentJson},
      {frame, "application/json", "NOT_JSON", WireForm::kConfluentJson},
      // The header decides where it says something.
      {json, "application/json", "OK", WireForm::kJson},
      {json, "Application/JSON; charset=utf-8", "OK", WireForm::kJson},
      {json, "application/vnd.acme.eval+json", "OK", WireForm::kJson},
      {json, "text/plain", "OK", WireForm::kJson},
      {event(json), "application/json", "OK", WireForm::kCloudEventJson},
      {frame + json, "application/json", "OK", WireForm::kConfluentJson},
      {proto, "application/x-protobuf", "OK", WireForm::kProtobuf},
      {proto, "application/protobuf", "OK", WireForm::kProtobuf},
      {proto, "application/octet-stream", "OK", WireForm::kProtobuf},
      {frame + zero + proto, "application/x-protobuf", "OK", WireForm::kConfluentProtobuf},
      {json, "application/x-protobuf", "NOT_PROTOBUF", WireForm::kProtobuf},
      {proto, "application/json", "NOT_JSON", WireForm::kJson},
      {"\xFF\xFF", "application/json", "NOT_JSON", WireForm::kJson},
  };
  for (const auto& c : cases) {
    EvalReportDecoder decoder;
    Reject reject;
    RecordView record;
    record.value = c.value;
    if (!c.content_type.empty()) record.headers.push_back({"content-type", c.content_type});
    const EvalReport* report = decoder.decode(record, &reject);
    EXPECT_EQ(report != nullptr ? "OK" : reason_code(reject.reason), c.expected)
        << printable(c.value, 300) << " as " << c.content_type;
    EXPECT_EQ(decoder.form(), c.form) << printable(c.value, 300) << " as " << c.content_type;
  }
}

TEST(EvalReportProtobuf, NoTagIsAByteThatJsonBeginsWith) {
  const auto* descriptor = v1::EvalReport::descriptor();
  for (int i = 0; i < descriptor->field_count(); ++i) {
    const auto* member = descriptor->field(i);
    const int wire_type = member->type() == google::protobuf::FieldDescriptor::TYPE_DOUBLE ? 1 : 2;
    const char tag = static_cast<char>(member->number() << 3 | wire_type);
    EXPECT_EQ(std::string_view("\t\n\r {[\"-0123456789tfn").find(tag), std::string_view::npos) << member->name();
  }
  // The tag that stands in every report is a control character, which no JSON text holds.
  EXPECT_LT(descriptor->FindFieldByName("agent_id")->number() << 3 | 2, 0x20);
}

TEST(EvalReportToProtobuf, SaysWhyNot) {
  auto refused = eval_report_to_protobuf(with("id", R"("")"), false);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().message, "encode report as Protobuf: BAD_ID: id is empty");
  EXPECT_FALSE(eval_report_to_protobuf(event(kGood), false));
  auto framed = eval_report_to_protobuf(kGood, true, 0x01020304);
  ASSERT_TRUE(framed);
  EXPECT_EQ(framed->substr(0, 6), std::string_view("\0\1\2\3\4\0", 6));
}

}  // namespace
}  // namespace assay::schemas
