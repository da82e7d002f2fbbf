// Rows outside an archive: lines, COPY text and pg_dump prove the same as the export; and what each way of looking leaves unproven
// is said.
#include <algorithm>

#include "schemas/time.h"
#include "streams/audit_verify.h"
#include "tests/unit/audit_export.h"

namespace assay::testing {
namespace {

class AuditLoose : public ::testing::Test {
 protected:
  static constexpr int kRows = 700;  // several blocks

  void SetUp() override {
    signer_ = test_signer(dir_);
    rows_ = make_rows(make_records(kRows, 3, 300), *signer_, head_);
    SignerRegistry keys;
    CHECK(keys.add({signer_->key(), {}, {}, false}).has_value());
    options_.pinned = keys;
    options_.threads = 2;
  }

  std::string lines() const {
    std::string out;
    for (const SignedRow& row : rows_) out += audit_line(row) + "\n";
    return out;
  }

  /// A field of COPY's text form.
  static std::string field(const std::string& text) {
    std::string out;
    for (char c : text) {
      if (c == '\\')
        out += "\\\\";
      else if (c == '\n')
        out += "\\n";
      else if (c == '\t')
        out += "\\t";
      else
        out += c;
    }
    return out;
  }

  /// A row as COPY writes it, its instant in a zone of its own; the sequence first, as in the table, or last, as in the view.
  static std::string copied(const SignedRow& row, bool table) {
    std::string instant = format_rfc3339_us(row.row.created_at_us + 2 * kHourMs * 1000);
    instant[10] = ' ';
    instant.pop_back();
    while (instant.ends_with('0')) instant.pop_back();
    if (instant.ends_with('.')) instant.pop_back();
    const std::string sequence = std::to_string(row.row.sequence);
    std::string out = table ? sequence + "\t" : "";
    out += row.row.id + "\t" + row.row.event_type + "\t" + instant + "+02\t" + field(row.row.payload) + "\t";
    out += row.row.prev_hash ? to_hex(as_bytes(*row.row.prev_hash)) : "\\N";
    out += "\t" + to_hex(as_bytes(row.row.hash)) + "\t" + row.signature + "\t" + row.signer_kid;
    return out + (table ? "" : "\t" + sequence) + "\n";
  }

  std::string dump(const std::string& more_rows = {}) const {
    std::string out = "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n\n";
    out += "COPY public.audit_chain_head (singleton, epoch, next_offset, state) FROM stdin;\nt\t1\t9\t" +
           field(canonical(processors::chain_state_to_json(head_))) + "\n\\.\n\n";
    out +=
        "COPY public.audit_log (sequence, id, event_type, created_at, payload, prev_hash, hash, signature, signer_kid) FROM "
        "stdin;\n";
    for (const SignedRow& row : rows_) out += copied(row, true);
    return out + more_rows + "\\.\n\nCOPY public.audit_signers (signer_id, public_key) FROM stdin;\nx\ty\n\\.\n";
  }

  /// Hands the text over in parts of an odd size.
  VerifyReport verify(std::vector<std::string> texts) {
    std::vector<LooseFile> files;
    for (size_t i = 0; i < texts.size(); ++i) {
      auto rest = std::make_shared<std::string>(std::move(texts[i]));
      files.push_back({"file" + std::to_string(i), [rest](char* into, size_t size) -> Result<size_t> {
                         const size_t count = std::min({size, rest->size(), size_t{1237}});
                         std::copy_n(rest->data(), count, into);
                         rest->erase(0, count);
                         return count;
                       }});
    }
    Result<VerifyReport> report = verify_files(std::move(files), options_);
    CHECK(report.has_value());
    return *report;
  }

  void proves(const VerifyReport& report) {
    EXPECT_TRUE(report.verified()) << to_text(report);
    EXPECT_EQ(report.rows, kRows);
    EXPECT_EQ(report.last_id, rows_.back().row.id);
    EXPECT_EQ(report.head_hash, to_hex(as_bytes(head_.head_hash)));
  }

  TempDir dir_;
  std::shared_ptr<Signer> signer_;
  ChainState head_;
  std::vector<SignedRow> rows_;
  VerifyOptions options_;
};

TEST_F(AuditLoose, EveryFormProvesTheSameRows) {
  std::string view, table;
  for (const SignedRow& row : rows_) view += copied(row, false), table += copied(row, true);
  const std::string names = "id\tevent_type\tcreated_at\tpayload\tprev_hash\thash\tsignature\tsigner_kid\tsequence\n";
  const std::string all = lines();
  const size_t cut = all.find('\n', all.size() / 2) + 1;
  for (const auto& texts : std::vector<std::vector<std::string>>{{all},
                                                                 {all.substr(0, all.size() - 1)},
                                                                 {all.substr(0, cut), all.substr(cut)},
                                                                 {view},
                                                                 {names + view},
                                                                 {table},
                                                                 {dump()}}) {
    proves(verify(texts));
    EXPECT_EQ(verify(texts).equivalent_rows, 0) << texts.front().substr(0, 200);
  }
}

TEST_F(AuditLoose, AChangedRowIsNamedInEveryForm) {
  SignedRow& row = rows_[400];
  row.row.payload.replace(row.row.payload.find("agent-"), 6, "Agent-");
  std::string view;
  for (const SignedRow& one : rows_) view += copied(one, false);
  for (const std::string& text : {lines(), view, dump()}) {
    const VerifyReport report = verify({text});
    ASSERT_EQ(report.exit_code(), 4);
    EXPECT_EQ(report.findings.front().sequence, 401);
    EXPECT_EQ(report.findings.front().event_id, row.row.id);
    EXPECT_EQ(report.findings.front().check, "hash");
    EXPECT_EQ(report.rows, 400);
  }
}

TEST_F(AuditLoose, AnotherFormOfTheSameMeaningIsEquivalent) {
  std::string text = lines();
  const size_t at = text.find("\"actor\":\"assay\"", text.size() / 2);
  text.replace(at, 15, "\"actor\": \"\\u0061ssay\"");
  const VerifyReport report = verify({text});
  proves(report);
  EXPECT_EQ(report.equivalent_rows, 1);
  EXPECT_NE(to_text(report).find("Equivalent: 1 row "), std::string::npos) << to_text(report);
}

TEST_F(AuditLoose, ADumpTellsWhereTheChainEnds) {
  rows_.pop_back();
  EXPECT_EQ(verify({dump()}).findings.front().check, "rows") << "the tail was cut off";
  const std::string waiting = std::to_string(kRows) + "\tav-1\tx\t2026-05-01 12:00:00+00\t{}\t\\N\tx\t\\N\t\\N\n";
  const VerifyReport report = verify({dump(waiting)});
  EXPECT_TRUE(report.verified()) << "the last row waits for its signature\n" << to_text(report);
  EXPECT_EQ(report.rows, kRows - 1);
  std::string cut = dump();
  cut.resize(cut.find("\\.\n\nCOPY public.audit_signers"));
  EXPECT_EQ(verify({cut}).exit_code(), 4) << "the dump itself ends too soon";
}

TEST_F(AuditLoose, WhatIsNoChainIsSaidToBeNone) {
  for (const std::string& text : {std::string("hello\n"), std::string("PGDMP\x01\x0e"), std::string("a\tb\n"), std::string("{}\n"),
                                  std::string("--\nINSERT INTO public.audit_log VALUES (1);\n"), std::string("\xff\xfe\n")}) {
    const VerifyReport report = verify({text});
    EXPECT_EQ(report.exit_code(), 4) << text;
    EXPECT_EQ(report.findings.front().check, "form") << text;
  }
  EXPECT_EQ(verify({""}).exit_code(), 8);
  EXPECT_EQ(verify({}).exit_code(), 8);
}

TEST_F(AuditLoose, WithoutKeysEvidenceIsMissing) {
  options_.pinned.reset();
  const VerifyReport report = verify({lines()});
  EXPECT_EQ(report.exit_code(), 8);
  EXPECT_EQ(report.rows, kRows);
  options_.links_only = true;
  const VerifyReport links = verify({lines()});
  proves(links);
  EXPECT_EQ(sentence(links),
            "Rows 1 to 700 are whole and linked; that each of them is signed was not looked at, as was asked for; that nothing "
            "follows row 700 is not proven: no checkpoint after it.");
}

TEST_F(AuditLoose, LinksAloneLeaveSignaturesUnseenAndSaySo) {
  rows_[3].signature = rows_[4].signature;
  EXPECT_EQ(verify({lines()}).findings.front().sequence, 4);
  options_.links_only = true;
  proves(verify({lines()}));
  EXPECT_FALSE(verify({lines()}).signatures_checked);
  std::string text = lines();
  text.erase(text.find('\n') + 1, text.find('\n', text.find('\n') + 1) - text.find('\n'));
  EXPECT_EQ(verify({text}).findings.front().check, "link");
}

TEST_F(AuditLoose, AnEarlierHeadIsHeldAgainstTheChain) {
  const std::string hash = to_hex(as_bytes(rows_[499].row.hash));
  options_.earlier_head = parse_earlier_head("500:" + hash).value();
  VerifyReport report = verify({lines()});
  proves(report);
  EXPECT_NE(sentence(report).find("they continue the chain of the earlier head"), std::string::npos);
  rows_.resize(499);
  report = verify({lines()});
  EXPECT_EQ(report.findings.front().check, "earlier head") << "the tail is gone";
  options_.earlier_head = EarlierHead{498, hash};
  report = verify({lines()});
  EXPECT_EQ(report.findings.front().check, "earlier head");
  EXPECT_EQ(report.findings.front().sequence, 498);
  EXPECT_EQ(parse_earlier_head(R"({"rows":7,"headHash":")" + hash + R"(","headId":"x","signedThrough":"7"})")->rows, 7);
  for (const char* bad : {"", "7", "x:y", "0:00", "{}", "7:abcd", "{\"rows\":1}"})
    EXPECT_EQ(parse_earlier_head(bad).error().code, Errc::kUsage) << bad;
}

}  // namespace
}  // namespace assay::testing
