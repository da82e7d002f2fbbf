// The Protobuf schemas describe the JSON that stands on the topics: a document of each kind reads by them, strictly.
#include <google/protobuf/util/json_util.h>
#include <gtest/gtest.h>

#include "schemas/json_parse.h"
#include "schemas/proto/agent_score.pb.h"
#include "schemas/proto/allocation_event.pb.h"
#include "schemas/proto/audit_event.pb.h"
#include "schemas/proto/config_event.pb.h"
#include "schemas/proto/eval_report.pb.h"
#include "schemas/proto/manifest.pb.h"
#include "schemas/proto/promotion_event.pb.h"
#include "schemas/topics.h"

namespace assay::schemas {
namespace {

// Reads the text into a message, unknown members refused, writes it back, and compares the documents.
template <class Message>
void expect_describes(const std::string& json) {
  Message message;
  const auto read = google::protobuf::util::JsonStringToMessage(json, &message);
  ASSERT_TRUE(read.ok()) << Message::descriptor()->full_name() << ": " << read.ToString();
  std::string back;
  ASSERT_TRUE(google::protobuf::util::MessageToJsonString(message, &back).ok());
  auto expected = parse_json(json), actual = parse_json(back);
  ASSERT_TRUE(expected && actual) << back;
  EXPECT_EQ(canonical(*actual), canonical(*expected));
}

TEST(Schemas, DescribeTheJsonOnTheTopics) {
  expect_describes<v1::AgentScore>(
      R"({"agentId":"a","divisionId":"d","window":"24h","windowStart":"2026-05-01T00:00:00.000Z",
          "windowEnd":"2026-05-02T00:00:00.000Z",
          "score":0.8731,"lower":0.861,"upper":0.885,"confidence":0.976,"samples":1234,
          "components":[{"metric":"m","count":3,"mean":0.5,"variance":0.25,"min":0.1,"max":1,"normalized":0.5,
          "weight":1,"contribution":0.5}],
          "configVersion":"v1","computedAt":"2026-05-02T00:00:01.000Z","rationale":"one plain sentence"})");
  expect_describes<v1::PromotionEvent>(
      R"({"id":"i","entityId":"e","divisionId":"d","action":"promote","status":"applied","score":0.9,
          "confidence":0.97,"rationale":"r",
          "requestedBy":"assay","policy":{"rule":"allow","version":"1"},"evidence":{"scores":[0.9,0.91]},
          "ts":"2026-05-02T00:00:00.000Z"})");
  expect_describes<v1::AllocationEvent>(
      R"({"id":"i","allocationId":"al","entityId":"e","divisionId":"d","pool":"p","cpu":4,"gpu":1,"memoryMB":16384,
          "state":"granted",
          "reason":"r","cause":"c","ts":"2026-05-02T00:00:00.000Z"})");
  expect_describes<v1::AuditEvent>(
      R"({"id":"i","eventType":"promotion.decided","actor":"assay","ts":"2026-05-02T00:00:00.000Z","cause":"c",
          "source":{"topic":"eval.scores.v1","offset":"17"},"data":{"x":[1,null]}})");
  expect_describes<v1::ConfigEvent>(R"({"kind":"scoring","version":"3","body":{"grace":"45m"}})");
  // Offsets and sequences beyond 2^53 stay whole: int64 is a decimal string in Protobuf's JSON, as it is in ours.
  expect_describes<v1::Manifest>(
      R"({"task":"scoring-3","lineage":"l","sequence":"9007199254740993","ranges":[{"topic":"t","partition":3,
          "from":"1","to":"9007199254740993"}],
          "delivered":"512","instant":"2026-05-02T00:00:00.000Z","outputs":[{"topic":"t","partition":1,"first":"7","count":"2"}],
          "outputHash":"aa","stateDigest":"bb","previous":"cc","codeVersion":"0.1.0"})");
  expect_describes<v1::EvalReport>(
      R"({"id":"r1","agentId":"a1","divisionId":"d1","metricSet":{"accuracy":0.5},
          "timestamp":"2026-05-01T12:00:00.123Z","source":"s",
          "computedScore":0.5,"window":"1h","metadata":{"arrivedAt":"x"}})");
}

TEST(Schemas, ScoresWithoutWeightHaveNulls) {
  v1::AgentScore score;
  ASSERT_TRUE(google::protobuf::util::JsonStringToMessage(
                  R"({"agentId":"a","score":null,"components":[{"metric":"m","variance":null}]})", &score)
                  .ok());
  EXPECT_FALSE(score.has_score());
  EXPECT_FALSE(score.components(0).has_variance());
}

TEST(Schemas, EveryTopicNamesTheFirstMessageOfAFile) {
  for (const TopicSpec& spec : topic_catalogue()) {
    const auto* message = google::protobuf::DescriptorPool::generated_pool()->FindMessageTypeByName(std::string(spec.record));
    ASSERT_NE(message, nullptr) << spec.record;
    EXPECT_EQ(message->index(), 0) << spec.record;  // Confluent's short message index means the first
  }
}

}  // namespace
}  // namespace assay::schemas
