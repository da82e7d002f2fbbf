// Answers made of parts: the same whichever process gave which, signed when there is a secret, never older than what is committed.
#include "streams/peers.h"

#include <gtest/gtest.h>

namespace assay::streams {
namespace {

const TopicNames kNames("", 3);

/// Parts as three processes would give them, by task.
Parts given(std::map<std::string, Json> parts) {
  return [parts = std::move(parts)](const std::vector<std::string>& tasks, const Question&) -> Result<std::vector<Json>> {
    std::vector<Json> out;
    for (const std::string& task : tasks) {
      auto part = parts.find(task);
      if (part == parts.end()) return Error{Errc::kIncomplete, "the state of " + task + " cannot be had"};
      out.push_back(part->second);
    }
    return out;
  };
}

Json rows(Json::Array rows) { return Json::object().set("rows", std::move(rows)); }
Json event(const char* ts, const char* entity) { return Json::object().set("ts", ts).set("entityId", entity); }
Json board(const char* agent, double score) { return Json::object().set("agentId", agent).set("score", score); }

TEST(Merge, EventsComeByTimeThenEntityWhateverPartitionTheyAreFrom) {
  auto answer = answer_from(given({{"promotion-0", rows({event("3", "b"), event("5", "a")})},
                                   {"promotion-1", rows({event("3", "a")})},
                                   {"promotion-2", rows({})}}),
                            kNames, {"promotions", {}});
  ASSERT_TRUE(answer) << answer.error().message;
  EXPECT_EQ(*answer, Json(Json::Array{event("3", "a"), event("3", "b"), event("5", "a")}));
}

TEST(Merge, OneMissingPartIsAnErrorAndNoAnswer) {
  auto answer =
      answer_from(given({{"promotion-0", rows({event("3", "b")})}, {"promotion-2", rows({})}}), kNames, {"promotions", {}});
  ASSERT_FALSE(answer);
  EXPECT_EQ(answer.error().code, Errc::kIncomplete);
  EXPECT_NE(answer.error().message.find("promotion-1"), std::string::npos);
}

TEST(Merge, ScoresAreOfTheRulesThatWereFoldedLast) {
  auto part = [](int64_t instant, const char* version, const char* agent) {
    return Json::object()
        .set("instant", instant)
        .set("computedAt", version)
        .set("configVersion", version)
        .set("rows", Json::Array{Json::object().set("agentId", agent).set("computedAt", "x").set("configVersion", "x")});
  };
  auto answer =
      answer_from(given({{"scoring-0", part(5, "v5", "c")}, {"scoring-1", part(9, "v9", "a")}, {"scoring-2", part(7, "v7", "b")}}),
                  kNames, {"scores", {}});
  ASSERT_TRUE(answer);
  std::string order;
  for (const Json& row : answer->as_array()) {
    order += row.string_or("agentId", "");
    EXPECT_EQ(row.string_or("configVersion", ""), "v9");
    EXPECT_EQ(row.string_or("computedAt", ""), "v9");
  }
  EXPECT_EQ(order, "abc");
}

TEST(Merge, TheBoardRanksOverAllPartitionsAndTiesById) {
  auto answer = answer_from(
      [](const std::vector<std::string>& tasks, const Question& question) -> Result<std::vector<Json>> {
        EXPECT_EQ(tasks.size(), 3u);
        if (question.name == "board-end")
          return std::vector<Json>{Json::object().set("end", Json()), Json::object().set("end", kHourMs),
                                   Json::object().set("end", 2 * kHourMs)};
        const bool now = question.param("at") == "1970-01-01T02:00:00.000Z";
        if (now)
          return std::vector<Json>{rows({board("d", 0.5), board("b", 0.7)}), rows({board("a", 0.7)}), rows({board("c", 0.9)})};
        EXPECT_EQ(question.param("at"), "1970-01-01T01:00:00.000Z");
        return std::vector<Json>{rows({board("b", 0.8)}), rows({board("a", 0.1)}), rows({})};
      },
      kNames, {"scoreboard", {{"top", "3"}}});
  ASSERT_TRUE(answer) << answer.error().message;
  std::string said;
  for (const Json& row : answer->as_array())
    said += canonical(*row.find("rank")) + std::string(row.string_or("agentId", "")) + canonical(*row.find("movement")) + " ";
  EXPECT_EQ(said, "1cnull 2a0 3b-2 ");
}

TEST(Merge, TalliesAreSummed) {
  auto part = [](int in, int accepted, int late) {
    return Json::object()
        .set("delivered", in)
        .set("accepted", accepted)
        .set("refused", Json::object().set("LATE", late).set("NOT_JSON", 1));
  };
  auto answer = answer_from(given({{"scoring-0", part(9, 7, 1)}, {"scoring-1", part(5, 2, 2)}, {"scoring-2", part(1, 0, 0)}}),
                            kNames, {"tally", {}});
  ASSERT_TRUE(answer);
  EXPECT_EQ(canonical(*answer), R"({"accepted":9,"byReason":{"LATE":3,"NOT_JSON":3},"deadLetters":3,"delivered":15,"filtered":3})");
}

TEST(Peers, AStoreSpeaksOnlyWhenNothingCommittedIsMissingInIt) {
  EXPECT_TRUE(may_speak(true, 7, 7));
  EXPECT_TRUE(may_speak(true, 8, 7)) << "committed after the mark was read";
  EXPECT_FALSE(may_speak(true, 6, 7)) << "an owner that was paused";
  EXPECT_TRUE(may_speak(false, 7, 7));
  EXPECT_FALSE(may_speak(false, 8, 7)) << "nobody vouches for what the log does not know";
}

TEST(Peers, AClientIdNamesTheAddressOrNone) {
  EXPECT_EQ(peer_address(peer_client_id("10.0.0.7:8051")), "10.0.0.7:8051");
  EXPECT_EQ(peer_address(peer_client_id("")), std::nullopt);
  EXPECT_EQ(peer_address("kafka-console-consumer"), std::nullopt);
}

TEST(Peers, TheMacIsRfc2104) {  // vectors of RFC 4231, cases 2 and 6
  EXPECT_EQ(hmac_sha256("Jefe", "what do ya want for nothing?"),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
  EXPECT_EQ(hmac_sha256(std::string(131, '\xaa'), "Test Using Larger Than Block-Size Key - Hash Key First"),
            "60e431591ee0b67f0d8a26aacbf5b77f8e0bc6213728c5140546040f0ee37f54");
}

TEST(Peers, ASignedTargetHoldsForAMinuteAndForNothingElse) {
  const WallTime now(1772323200000);
  const std::string target = sign_target("a secret of the group", "/peer/parts/scores?task=scoring-1", now);
  EXPECT_TRUE(is_signed("a secret of the group", target, now));
  EXPECT_FALSE(is_signed("another secret of it", target, now));
  EXPECT_FALSE(is_signed("a secret of the group", target, WallTime(now.value + 61000)));
  EXPECT_FALSE(is_signed("a secret of the group", target, WallTime(now.value - 61000)));
  EXPECT_FALSE(is_signed("a secret of the group", "/peer/parts/scores?task=scoring-1", now));
  for (size_t at = 0; at < target.size(); ++at) {
    std::string changed = target;
    changed[at] = changed[at] == '1' ? '2' : '1';
    EXPECT_FALSE(is_signed("a secret of the group", changed, now)) << changed;
  }
  EXPECT_EQ(sign_target("", "/peer/tasks", now), "/peer/tasks");
}

}  // namespace
}  // namespace assay::streams
