// What events say of the chain itself: the six steps in their order and no other, and which key may sign which row.
#include "processors/audit_control.h"

#include <gtest/gtest.h>

#include "schemas/json_parse.h"

namespace assay::testing {
namespace {

using namespace assay::processors;

Json key(const std::string& id) {
  return Json::object().set("signerId", id).set("publicKey", "key of " + id).set("algorithm", "ed25519");
}

class ControlTest : public ::testing::Test {
 protected:
  /// Folds an event as the next row; "" when it counted, else why not.
  std::string fold(std::string_view type, Json data = Json::object()) {
    const AuditControl before = control_;
    ++sequence_;
    at_ms_ += 1000;
    auto ignored = fold_control(sequence_, at_ms_, type, "av-" + std::to_string(sequence_), data, control_);
    EXPECT_TRUE(!ignored || control_ == before) << type << ": " << *ignored;
    // Whatever it is, it is what a restart reads.
    Result<AuditControl> again = control_from_json(parse_json(canonical(control_to_json(control_))).value());
    EXPECT_TRUE(again && *again == control_) << type;
    return ignored.value_or("");
  }
  void rows(int64_t count) { sequence_ += count; }
  Json created(const std::string& from = "a", const std::string& to = "b") {
    return Json::object().set("from", key(from)).set("to", key(to));
  }
  static Json to(const std::string& id = "b") { return Json::object().set("to", id); }
  void stage() {
    ASSERT_EQ(fold("audit.key_created", created()), "");
    ASSERT_EQ(fold("audit.key_published", to()), "");
    ASSERT_EQ(fold("audit.key_staged", to()), "");
  }

  AuditControl control_;
  int64_t sequence_ = 10, at_ms_ = 1'000'000;
};

TEST_F(ControlTest, ARotationHasSixStepsInOneOrder) {
  const std::vector<std::pair<std::string, Json>> steps = {
      {"audit.key_created", created()}, {"audit.key_published", to()}, {"audit.key_staged", to()},
      {"audit.key_tested", to()},       {"audit.key_promoted", to()},  {"audit.key_revoked", Json::object().set("from", "a")}};
  for (size_t done = 0; done < steps.size(); ++done) {
    std::optional<RotationStep> at;
    if (control_.rotation) at = control_.rotation->step;
    EXPECT_EQ(next_rotation_event(at), steps[done].first);
    for (size_t other = 0; other < steps.size(); ++other)
      EXPECT_TRUE(other == done || !fold(steps[other].first, steps[other].second).empty()) << done << " then " << other;
    EXPECT_TRUE(done == 0 || !fold(steps[done].first, to("c")).empty()) << "of another key";
    ASSERT_EQ(fold(steps[done].first, steps[done].second), "") << done;
    EXPECT_EQ(control_.active, done >= 4 ? "b" : "a");
    rows(5);
  }
  EXPECT_FALSE(control_.rotation);
}

TEST_F(ControlTest, BothKeysAreAcceptedInTheOverlapAndTheOldOneNoMoreAfterIt) {
  stage();
  const int64_t staged = sequence_;
  EXPECT_EQ(control_.keys.at("b").first_sequence, staged);
  EXPECT_EQ(control_.keys.at("a").last_sequence, std::nullopt);
  rows(3);
  EXPECT_EQ(signing_key(control_, sequence_, "a"), "a") << "the old one signs until the promotion";
  ASSERT_EQ(fold("audit.key_tested", to()), "");
  ASSERT_EQ(fold("audit.key_promoted", to()), "");
  EXPECT_EQ(signing_key(control_, sequence_, "b"), "b") << "its own row too";
  EXPECT_EQ(signing_key(control_, staged, "a"), "b") << "a row of the overlap that waited";
  EXPECT_EQ(signing_key(control_, staged - 1, "a"), "a") << "a row before it has its signature from the old key";
  rows(4);
  ASSERT_EQ(fold("audit.key_revoked", Json::object().set("from", "a").set("reason", "rotated")), "");
  EXPECT_EQ(control_.keys.at("a").last_sequence, sequence_ - 1);
  EXPECT_FALSE(control_.keys.at("a").revoked) << "retired: its rows stand";
  EXPECT_NE(fold("audit.key_created", created("a", "c")), "") << "it does not sign";
  EXPECT_NE(fold("audit.key_created", created("b", "a")), "") << "ids are never reused";
  EXPECT_EQ(fold("audit.key_created", created("b", "c")), "");
}

TEST_F(ControlTest, APublishedKeySignsNothingUntilItIsStaged) {
  ASSERT_EQ(fold("audit.key_created", created()), "");
  EXPECT_GT(*control_.keys.at("b").first_sequence, int64_t{1} << 60);
  ASSERT_EQ(fold("audit.rotation_cancelled", to().set("reason", "lost")), "");
  EXPECT_TRUE(control_.keys.at("b").revoked);
  EXPECT_FALSE(control_.rotation);
  EXPECT_NE(fold("audit.key_created", created("a", "b")), "") << "ids are never reused";
}

TEST_F(ControlTest, AnIdNeverStandsForTwoKeysNorAKeyUnderTwoIds) {
  stage();
  Json other = key("b");
  other.set("publicKey", "another");
  Json renamed = key("b2");
  renamed.set("publicKey", "key of b");
  for (const Json& one : {other, renamed}) {
    EXPECT_NE(fold("audit.emergency_signer", Json::object().set("key", one).set("from", key("a"))), "");
    EXPECT_NE(fold("audit.key_compromised", Json::object().set("key", key("a")).set("successor", one)), "");
  }
}

TEST_F(ControlTest, AnEmergencyKeySignsWhatWaitedAndStepsBack) {
  rows(10);
  Json data = Json::object().set("key", key("e")).set("from", key("a")).set("fromSequence", "15").set("reason", "KMS away");
  ASSERT_EQ(fold("audit.emergency_signer", data), "");
  EXPECT_EQ(control_.emergency, "e");
  EXPECT_EQ(control_.keys.at("e").provider, "emergency");
  EXPECT_EQ(signing_key(control_, 15, ""), "e");
  EXPECT_EQ(signing_key(control_, 14, ""), "") << "what was signed before is no business of it";
  EXPECT_NE(fold("audit.emergency_signer", data), "") << "once";
  EXPECT_NE(fold("audit.key_created", created("e", "b")), "") << "no rotation meanwhile";
  const int64_t last = sequence_ + 6;
  rows(6);
  ASSERT_EQ(fold("audit.emergency_signer_ended"), "");
  EXPECT_GE(control_.keys.at("e").last_sequence, last);
  EXPECT_EQ(control_.active, "a");
  EXPECT_EQ(signing_key(control_, sequence_, "a"), "a");
  EXPECT_EQ(signing_key(control_, last, "e"), "a") << "the usual key may sign every row";
}

TEST_F(ControlTest, ACompromisedKeyIsRevokedAndItsRowsAttested) {
  rows(20);
  Json data = Json::object().set("key", key("a")).set("reason", "stolen").set("fromSequence", "28");
  EXPECT_NE(fold("audit.key_compromised", data), "") << "who signs now?";
  data.set("successor", key("s"));
  ASSERT_EQ(fold("audit.key_compromised", data), "");
  const KeyStanding& lost = control_.keys.at("a");
  EXPECT_TRUE(lost.revoked);
  EXPECT_EQ(lost.attested_by, sequence_);
  EXPECT_EQ(lost.attested_through, sequence_ - 1);
  EXPECT_EQ(control_.active, "s");
  EXPECT_EQ(control_.keys.at("s").first_sequence, 28);
  EXPECT_EQ(signing_key(control_, 28, "a"), "s") << "what waited for the lost key has its signature from the new one";
  EXPECT_NE(fold("audit.key_compromised", data), "") << "once";
}

TEST_F(ControlTest, ACompromiseEndsTheRotationItTouches) {
  stage();
  ASSERT_EQ(fold("audit.key_compromised", Json::object().set("key", key("b")).set("reason", "printed")), "");
  EXPECT_FALSE(control_.rotation);
  EXPECT_EQ(control_.active, "a") << "the old key signs on";
}

TEST_F(ControlTest, PauseAndSafeModeComeAndGo) {
  EXPECT_NE(fold("audit.resumed"), "");
  EXPECT_EQ(fold("audit.paused", Json::object().set("reason", "x")), "");
  EXPECT_NE(fold("audit.paused"), "");
  EXPECT_EQ(fold("audit.resumed"), "");
  EXPECT_NE(fold("audit.safe_mode_left"), "");
  EXPECT_EQ(fold("audit.safe_mode_entered"), "");
  EXPECT_FALSE(control_.safe_mode.empty());
  EXPECT_EQ(fold("audit.safe_mode_left"), "");
  EXPECT_EQ(control_, AuditControl());
}

TEST_F(ControlTest, WhatIsNoSuchDocumentIsNotRead) {
  stage();
  const Json whole = control_to_json(control_);
  Json cut = whole;
  cut.set("keys", Json::array());
  EXPECT_FALSE(control_from_json(cut)) << "a rotation between keys that are not there";
  Json added = whole;
  added.set("more", true);
  EXPECT_FALSE(control_from_json(added));
}

}  // namespace
}  // namespace assay::testing
