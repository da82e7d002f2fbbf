#include "processors/audit_chain.h"

#include "schemas/json_parse.h"
#include "tests/unit/audit_support.h"

namespace assay::testing {
namespace {

Record with_value(std::string value, int64_t timestamp_ms = kNoonMs) { return {0, timestamp_ms, std::move(value), std::nullopt}; }

Reason refusal_of(const Record& record) {
  ChainState state;
  processors::ChainStep step = fold_audit_record(record.view(), std::nullopt, state);
  EXPECT_EQ(state.next_offset, Offset(record.offset + 1)) << "a refused record is passed all the same";
  EXPECT_EQ(state.sequence, 0);
  auto* refused = std::get_if<processors::Refused>(&step);
  EXPECT_NE(refused, nullptr) << record.value.value_or("(no value)");
  return refused == nullptr ? Reason::kLate : refused->reason;
}

TEST(AuditChain, FirstRowsByHand) {
  ChainState state;
  const Record record = with_value(event_value(1), kNoonMs + 7);
  processors::ChainStep step = fold_audit_record(record.view(), std::nullopt, state);
  const AuditRow first = std::get<AuditRow>(step);
  EXPECT_EQ(first.sequence, 1);
  EXPECT_EQ(first.prev_hash, std::nullopt);
  EXPECT_EQ(first.created_at_us, (kNoonMs + 7) * 1000);
  EXPECT_EQ(first.hash, sha256(first.payload)) << "the first row appends nothing";
  Json expected = parse_json(*record.value).value();
  expected.set("recordedAt", "2026-05-01T12:00:00.007Z");
  EXPECT_EQ(first.payload, canonical(expected)) << "the payload is the envelope whole, and what created_at was made from";

  // The same instant, and an earlier one: created_at rises by a microsecond all the same.
  Record second = with_value(event_value(2), kNoonMs + 7);
  second.offset = 4;
  const AuditRow next = std::get<AuditRow>(fold_audit_record(second.view(), std::nullopt, state));
  EXPECT_EQ(next.created_at_us, first.created_at_us + 1);
  EXPECT_EQ(next.hash, sha256(next.payload, as_bytes(first.hash)));
  Record third = with_value(event_value(3), kNoonMs - 5000);
  third.offset = 5;
  EXPECT_EQ(std::get<AuditRow>(fold_audit_record(third.view(), std::nullopt, state)).created_at_us, first.created_at_us + 2);
  EXPECT_EQ(state.next_offset, Offset(6));
}

TEST(AuditChain, PlacesDoNotEnterTheHash) {
  TempDir dir;
  auto signer = test_signer(dir);
  std::vector<Record> records = make_records(50);
  ChainState here, there;
  make_rows(records, *signer, here);
  for (Record& record : records) record.offset = record.offset * 2 + 100;
  make_rows(records, *signer, there);
  EXPECT_EQ(here.head_hash, there.head_hash);
  EXPECT_NE(here.next_offset, there.next_offset);
}

TEST(AuditChain, RefusesWhatIsNoEnvelope) {
  EXPECT_EQ(refusal_of({0, kNoonMs, std::nullopt, std::nullopt}), Reason::kEmpty);
  EXPECT_EQ(refusal_of(with_value("")), Reason::kEmpty);
  EXPECT_EQ(refusal_of(with_value("{")), Reason::kNotJson);
  EXPECT_EQ(refusal_of(with_value("[]")), Reason::kWrongType);
  EXPECT_EQ(refusal_of(with_value(event_value(1) + " ")), Reason::kNotJson) << "not canonical";
  EXPECT_EQ(refusal_of(with_value(event_value(1), -1)), Reason::kBadTimestamp);
  EXPECT_EQ(refusal_of(with_value(event_value(1), 253402300800000)), Reason::kBadTimestamp);
  EXPECT_EQ(refusal_of(with_value(event_value(1, std::string("a\0b", 3)))), Reason::kWrongType) << "PostgreSQL holds no U+0000";
  const Json good = parse_json(event_value(1)).value();
  for (const char* member : {"id", "eventType", "actor", "ts", "data", "source"}) {
    Json less = good;
    std::erase_if(less.as_object(), [&](const auto& one) { return one.first == member; });
    EXPECT_EQ(refusal_of(with_value(canonical(less))), Reason::kMissingField) << member;
  }
  for (const char* member : {"id", "eventType", "actor", "ts"}) {
    Json other = good;
    other.set(member, 7);
    EXPECT_EQ(refusal_of(with_value(canonical(other))), Reason::kWrongType) << member;
  }
  Json other = good;
  EXPECT_EQ(refusal_of(with_value(canonical(other.set("id", "av-xyz")))), Reason::kBadId);
  other = good;
  EXPECT_EQ(refusal_of(with_value(canonical(other.set("recordedAt", "2026-05-01T12:00:00.000Z")))), Reason::kWrongType);
}

TEST(AuditChain, DropsRepeatsAndHaltsAtGaps) {
  ChainState state;
  auto fold = [&](int64_t offset, uint64_t n) {
    Record record = with_value(event_value(n));
    record.offset = offset;
    return fold_audit_record(record.view(), processors::WriterStamp{"scoring-0", n}, state);
  };
  EXPECT_TRUE(std::holds_alternative<AuditRow>(fold(0, 0)));
  EXPECT_TRUE(std::holds_alternative<AuditRow>(fold(1, 1)));
  EXPECT_TRUE(std::holds_alternative<processors::Repeated>(fold(2, 1)));
  EXPECT_EQ(state.sequence, 2);
  const ChainState before = state;
  auto gap = fold(3, 3);
  ASSERT_TRUE(std::holds_alternative<processors::InputGap>(gap));
  EXPECT_EQ(std::get<processors::InputGap>(gap).expected, 2u);
  EXPECT_EQ(state, before);
  EXPECT_TRUE(std::holds_alternative<AuditRow>(fold(3, 2)));
}

TEST(AuditChain, StateSurvivesItsText) {
  TempDir dir;
  auto signer = test_signer(dir);
  ChainState state;
  EXPECT_EQ(processors::chain_state_from_json(processors::chain_state_to_json(state)).value(), state);
  make_rows(make_records(9), *signer, state);
  state.writers["scoring-0/1"] = 18446744073709ull;
  const Json document = processors::chain_state_to_json(state);
  EXPECT_EQ(processors::chain_state_from_json(document).value(), state);
  for (const auto& [name, value] : document.as_object()) {
    if (name == "headId" || name == "anchor") continue;
    Json damaged = document;
    damaged.set(name, "x");
    EXPECT_FALSE(processors::chain_state_from_json(damaged)) << name;
  }
}

}  // namespace
}  // namespace assay::testing
