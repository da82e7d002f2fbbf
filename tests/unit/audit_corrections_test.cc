// What is missing, held and erased, as the chain says it: which events count, what a hold covers, and what a verifier tells of it.
#include "processors/audit_corrections.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "processors/personal.h"
#include "schemas/json_parse.h"
#include "streams/audit_verify.h"
#include "streams/personal_store.h"
#include "tests/unit/audit_export.h"

namespace assay::testing {
namespace {

using namespace assay::processors;

Json why() { return Json::object().set("reason", "disk lost").set("approvedBy", "user:bob"); }
Json gap(int64_t from, int64_t to, int partition = 0) {
  return why()
      .set("topic", "eval.reports.v1")
      .set("partition", partition)
      .set("from", std::to_string(from))
      .set("to", std::to_string(to));
}
Json held(const std::string& id, Json scope) { return why().set("hold", id).set("scope", std::move(scope)); }
Json scope(const char* name, Json value) { return Json::object().set(name, std::move(value)); }
std::string reference(char c) { return "personal:" + std::string(64, c); }

class Corrections : public ::testing::Test {
 protected:
  /// Folds an event; "" when it counted, else why not.
  std::string fold(std::string_view type, const Json& made) {
    const Json data = parse_json(canonical(made)).value();  // as a record has it
    const AuditCorrections before = now_;
    auto ignored = fold_correction("av-" + std::to_string(++n_), type, data, now_);
    EXPECT_TRUE(!ignored || now_ == before) << type << ": " << *ignored;
    const Json document = corrections_to_json(now_);
    Result<AuditCorrections> again = corrections_from_json(document.is_null() ? document : parse_json(canonical(document)).value());
    EXPECT_TRUE(again && *again == now_) << canonical(document);
    return ignored.value_or("");
  }
  AuditCorrections now_;
  int n_ = 0;
};

TEST_F(Corrections, ARangeIsReconciledOnceAndNamesItsEvent) {
  EXPECT_EQ(fold("audit.reconciliation", gap(5, 9)), "");
  ASSERT_EQ(now_.reconciled.size(), 1u);
  EXPECT_EQ(now_.reconciled[0], (Reconciled{"eval.reports.v1", 0, 5, 9, "av-1", "disk lost"}));
  for (auto [from, to] : {std::pair{5, 9}, {0, 6}, {8, 20}, {6, 7}, {0, 99}})
    EXPECT_EQ(fold("audit.reconciliation", gap(from, to)), "offsets 5 to 8 of eval.reports.v1/0 were reconciled by event av-1");
  EXPECT_EQ(fold("audit.reconciliation", gap(9, 10)), "") << "half-open: its neighbour is another";
  EXPECT_EQ(fold("audit.reconciliation", gap(0, 5)), "");
  EXPECT_EQ(fold("audit.reconciliation", gap(5, 9, 1)), "") << "of another partition";
  for (const char* missing : {"topic", "partition", "from", "to", "reason", "approvedBy"}) {
    Json data = gap(50, 60);
    std::erase_if(data.as_object(), [&](const auto& member) { return member.first == missing; });
    EXPECT_NE(fold("audit.reconciliation", data), "") << missing;
  }
  EXPECT_NE(fold("audit.reconciliation", gap(60, 60)), "");
  EXPECT_NE(fold("audit.reconciliation", gap(60, 50)), "");
  EXPECT_NE(fold("audit.reconciliation", gap(50, 60).set("from", 50)), "") << "offsets are decimal strings";
  EXPECT_NE(fold("audit.reconciliation", gap(50, 60).set("partition", 0.5)), "");
  EXPECT_NE(fold("audit.reconciliation", Json("x")), "");
}

TEST_F(Corrections, AHoldStandsUntilItIsReleasedAndItsIdIsNeverUsedAgain) {
  EXPECT_EQ(fold("audit.hold_placed", held("CASE-7", scope("agent", "a-1"))), "");
  EXPECT_EQ(fold("audit.hold_placed", held("CASE-7", scope("everything", true))), "the hold CASE-7 is in force already");
  EXPECT_NE(hold_on_records(now_), nullptr);
  EXPECT_EQ(fold("audit.hold_released", why().set("hold", "CASE-8")), "there is no hold CASE-8");
  EXPECT_NE(fold("audit.hold_released", Json::object().set("hold", "CASE-7").set("reason", "settled")), "") << "nobody else agreed";
  EXPECT_EQ(fold("audit.hold_released", why().set("hold", "CASE-7")), "");
  EXPECT_EQ(hold_on_records(now_), nullptr);
  EXPECT_NE(fold("audit.hold_placed", held("CASE-7", scope("agent", "a-1"))), "");
  for (const Json& bad : {Json(), Json::object(), scope("subject", "user:ada"), scope("agent", ""), scope("everything", false),
                          scope("agent", "a").set("topic", "t"), scope("rows", Json::object().set("from", "9").set("to", "9")),
                          scope("topic", "t").set("from", "1").set("to", "2"), scope("topic", "t").set("partition", -1)})
    EXPECT_EQ(fold("audit.hold_placed", held("X", bad)), "it does not say what it holds") << canonical(bad);
  EXPECT_EQ(fold("audit.hold_placed", held("R", scope("topic", "t").set("partition", 1).set("from", "1").set("to", "3"))), "");
  EXPECT_EQ(scope_text(now_.holds.at("R").scope), "offsets 1 to 2 of t/1");
}

TEST_F(Corrections, AHoldForbidsWhatItCoversAndWhatCannotBeTold) {
  const ErasureRequest request{{reference('a'), reference('b')}, {reference('a'), reference('b'), reference('c')}, {17}};
  struct Case {
    Json scope;
    bool covers;
  };
  const Case cases[] = {{scope("everything", true), true},
                        {scope("subject", reference('b')), true},
                        {scope("subject", reference('c')), false},
                        {scope("subject", reference('d')), true},  // whose plaintext is gone: it could be anybody
                        {scope("rows", Json::object().set("from", "17").set("to", "18")), true},
                        {scope("rows", Json::object().set("from", "18").set("to", "19")), false},
                        {scope("rows", Json::object().set("from", "1").set("to", "17")), false},
                        {scope("agent", "a"), false},
                        {scope("topic", "eval.reports.v1"), false}};
  for (const Case& one : cases) {
    now_ = {};
    ASSERT_EQ(fold("audit.hold_placed", held("H", one.scope)), "");
    EXPECT_EQ(hold_against(now_, request) != nullptr, one.covers) << canonical(one.scope);
    const bool records = one.scope.find("subject") == nullptr && one.scope.find("rows") == nullptr;
    EXPECT_EQ(hold_on_records(now_) != nullptr, records) << canonical(one.scope);
  }
}

TEST_F(Corrections, AnErasureIsVoidWhenAHoldCameInBetween) {
  Json erasure = why().set("commitments", Json::array()).set("clearOf", Json::array());
  EXPECT_EQ(fold("audit.erasure", erasure), "");
  EXPECT_EQ(now_.last_erasure, "av-1");
  ASSERT_EQ(fold("audit.hold_placed", held("H", scope("agent", "a"))), "");
  EXPECT_EQ(fold("audit.erasure", erasure), "the hold H was not looked at");
  Json looked = Json::array();
  looked.push_back("H");
  EXPECT_EQ(fold("audit.erasure", erasure.set("clearOf", looked)), "");
  EXPECT_EQ(fold("audit.erasure_refused", why()), "");
}

/// A salt of its own for each field, the same in each run.
std::function<std::string()> salts() {
  return [n = 0]() mutable { return std::string(kPersonalSaltBytes, static_cast<char>(++n)); };
}

Json spoken(std::string_view type, Json data, uint64_t n) {
  const Id id = place_id("people", 0, Offset(static_cast<int64_t>(n)));
  return parse_json(audit_output(id, id, type, "user:ada", "2026-05-01T12:00:00.000Z", Json::object(), std::move(data)).value)
      .value();
}

TEST(Personal, DeclaredFieldsBecomeCommitmentsThatFitNothingElse) {
  Json event = spoken("audit.paused", why().set("ticket", ""), 1);
  const Json before = event;
  const std::vector<std::string> declared = {"actor", "reason", "ticket"};
  const std::vector<PersonalRow> rows = seal_personal(event, declared, salts()).value();
  ASSERT_EQ(rows.size(), 2u) << "what is empty says nothing";
  EXPECT_EQ(rows[0].plaintext, "user:ada");
  EXPECT_EQ(rows[1].field, "data.reason");
  EXPECT_EQ(rows[1].subject, "user:ada");
  EXPECT_EQ(event.string_or("actor", ""), rows[0].reference);
  EXPECT_EQ(event.find("data")->string_or("approvedBy", ""), "user:bob") << "not declared";
  EXPECT_EQ(canonical(event).find("disk lost"), std::string::npos);
  ASSERT_EQ(personal_places(event).size(), 2u);
  for (const PersonalRow& row : rows) {
    EXPECT_TRUE(fits(row));
    EXPECT_EQ(PersonalRow::parse(row.to_line()).value(), row);
    for (std::string PersonalRow::*part :
         {&PersonalRow::event_id, &PersonalRow::field, &PersonalRow::plaintext, &PersonalRow::salt}) {
      PersonalRow other = row;
      (other.*part).back() = other.*part == "" || (other.*part).back() != '0' ? '0' : '1';
      EXPECT_FALSE(fits(other));
    }
  }
  Json again = before;
  ASSERT_TRUE(seal_personal(again, {}, salts()));
  EXPECT_EQ(again, before);
  EXPECT_EQ(seal_personal(event, declared, salts()).error().code, Errc::kUsage) << "a reference is no plaintext";
  Json hold = spoken("audit.hold_placed", held("H", scope("subject", "user:eve")), 2);
  const std::vector<PersonalRow> always = seal_personal(hold, {}, salts()).value();
  ASSERT_EQ(always.size(), 1u);
  EXPECT_EQ(always[0].subject, "user:eve") << "whom it is about, not who placed it";
}

/// An export of made-up rows and those of people among them, their personal fields sealed.
class Verdict : public ::testing::Test {
 protected:
  void SetUp() override {
    signer_ = test_signer(dir_);
    records_ = make_records(4);
    say("audit.paused", why());
    say("audit.reconciliation", gap(5, 9));
    say("audit.hold_placed", held("CASE-7", scope("agent", "a-1")));
  }
  void say(std::string_view type, Json data) {
    Json event = spoken(type, std::move(data), records_.size());
    const std::vector<std::string> declared = {"actor"};
    const std::vector<PersonalRow> rows = seal_personal(event, declared, salt_).value();
    personal_.insert(personal_.end(), rows.begin(), rows.end());
    records_.push_back({records_.back().offset + 1, records_.back().timestamp_ms + 1, canonical(event), std::nullopt});
  }
  VerifyReport verify(bool with_personal = true) {
    const std::string out = dir_ / ("out" + std::to_string(++exports_));
    ChainState head;
    const std::vector<SignedRow> rows = make_rows(records_, *signer_, head);
    export_rows(out, rows, head, *signer_);
    VerifyOptions options;
    options.threads = 1;
    if (with_personal) options.personal = personal_;
    return verify_archive(out, options).value();
  }
  void erase(size_t index) {
    Json list = Json::array(), clear_of = Json::array();
    list.push_back(personal_[index].reference);
    clear_of.push_back("CASE-7");
    say("audit.erasure", why().set("commitments", list).set("clearOf", clear_of));
  }
  TempDir dir_;
  std::shared_ptr<Signer> signer_;
  std::vector<Record> records_;
  std::vector<PersonalRow> personal_;
  std::function<std::string()> salt_ = salts();
  int exports_ = 0;
};

TEST_F(Verdict, WhatIsMissingForGoodIsNamedAndNeverWhole) {
  const VerifyReport report = verify(false);
  EXPECT_TRUE(report.verified()) << to_text(report);
  ASSERT_EQ(report.reconciled.size(), 1u);
  const std::string id = "av-" + place_id("people", 0, Offset(5)).hex();
  EXPECT_EQ(report.reconciled[0].event_id, id);
  const std::string text = to_text(report);
  EXPECT_NE(
      text.find("Reconciled, not whole: offsets 5 to 8 of eval.reports.v1/0 missing for good, says event " + id + ": disk lost."),
      text.npos)
      << text;
  EXPECT_NE(sentence(report).find("of which nothing is proven"), text.npos) << sentence(report);
  EXPECT_NE(text.find("Legal hold CASE-7 is in force."), text.npos);
  EXPECT_NE(text.find("3 commitments, which were not held against their plaintexts"), text.npos) << text;
  EXPECT_EQ(to_json(report).find("reconciled")->as_array().at(0).string_or("eventId", ""), id);
}

TEST_F(Verdict, PlaintextsFitTheirCommitmentsOrAreNamed) {
  EXPECT_TRUE(verify().verified()) << to_text(verify());
  EXPECT_EQ(verify().personal_plaintexts, 3);
  const std::vector<PersonalRow> sound = personal_;
  personal_[1].plaintext = "user:eve";
  VerifyReport report = verify();
  EXPECT_EQ(report.exit_code(), 4);
  ASSERT_EQ(report.findings.size(), 1u);
  EXPECT_EQ(report.findings[0].sequence, 6);
  EXPECT_EQ(report.findings[0].check, "personal");
  personal_ = sound;
  personal_.pop_back();
  report = verify();
  EXPECT_EQ(report.exit_code(), 8) << to_text(report);
  EXPECT_EQ(report.findings.at(0).sequence, 7) << "gone, and nobody said that it was erased";
  personal_ = sound;
  personal_.push_back(sound[0]);
  personal_.back().reference = reference('0');
  EXPECT_EQ(verify().exit_code(), 4) << "a plaintext of no row";
}

TEST_F(Verdict, AfterAnErasureTheChainStandsAndSaysHowManyAreGone) {
  erase(1);
  VerifyReport report = verify();
  EXPECT_EQ(report.exit_code(), 8) << "said to be erased, and still there";
  personal_.erase(personal_.begin() + 1);
  report = verify();
  EXPECT_TRUE(report.verified()) << to_text(report);
  EXPECT_EQ(report.personal_references, 4);
  EXPECT_EQ(report.personal_plaintexts, 3);
  EXPECT_EQ(report.personal_erased, 1);
  EXPECT_NE(to_text(report).find("4 commitments, 3 fit their plaintexts, 1 have no plaintext (1 were erased)"), std::string::npos)
      << to_text(report);
  const VerifyReport without = verify(false);
  EXPECT_TRUE(without.verified());
  EXPECT_EQ(without.head_hash, report.head_hash) << "the hashes never saw a plaintext";
}

TEST(PersonalFiles, AreAddedReadAndErasedByTheirOwnerAlone) {
  TempDir dir;
  const std::string place = dir / "personal";
  const auto store = open_personal_files(place);
  EXPECT_TRUE(store->rows()->empty());
  Json event = spoken("audit.paused", why(), 1);
  const std::vector<std::string> declared = {"actor", "reason"};
  std::vector<PersonalRow> rows = seal_personal(event, declared, salts()).value();
  ASSERT_TRUE(store->add({rows[0]}));
  ASSERT_TRUE(store->add({rows[1]}));
  std::ranges::sort(rows, {}, &PersonalRow::reference);
  EXPECT_EQ(store->rows().value(), rows);
  EXPECT_EQ(store->keys()->size(), 2u);
  EXPECT_EQ(std::filesystem::status(place).permissions(), std::filesystem::perms::owner_all);
  EXPECT_EQ(store->erase({rows[0].reference, reference('0')}).value(), 1);
  EXPECT_EQ(store->rows().value(), std::vector{rows[1]});
  EXPECT_EQ(read_text(place + "/rows.jsonl").find(rows[0].salt), std::string::npos) << "not a byte of it stays";
  write_text(place + "/rows.jsonl", "{}\n");
  EXPECT_EQ(store->rows().error().code, Errc::kCorrupt);
}

}  // namespace
}  // namespace assay::testing
