// Every byte of an export is proven: change any one, and the verifier names the row or the file.
#include "streams/audit_verify.h"

#include <algorithm>
#include <cstdio>

#include "tests/unit/audit_export.h"

namespace assay::testing {
namespace {

namespace fs = std::filesystem;

class AuditVerify : public ::testing::Test {
 protected:
  static constexpr int kRows = 5;

  /// Two days: three rows and two.
  void SetUp() override {
    signer_ = test_signer(dir_);
    rows_ = make_rows(make_records(kRows, 2, 3), *signer_, head_);
    export_rows(out_, rows_, head_, *signer_);
    options_.threads = 1;
  }

  VerifyReport verify() {
    Result<VerifyReport> report = verify_archive(out_, options_);
    CHECK(report.has_value());
    return *report;
  }

  std::string unpacked(const std::string& name) { return gunzipped(out_ + "/" + name); }

  std::vector<std::string> row_files() {
    std::vector<std::string> names = files_of(out_);
    std::erase_if(names, [](const std::string& name) { return !name.ends_with(".gz"); });
    return names;
  }

  static bool names_file(const VerifyReport& report, const std::string& name) {
    return std::ranges::any_of(report.findings, [&](const Finding& finding) { return finding.place == name; });
  }

  TempDir dir_;
  const std::string out_ = dir_ / "out";
  std::shared_ptr<Signer> signer_;
  ChainState head_;
  std::vector<SignedRow> rows_;
  VerifyOptions options_;
};

TEST_F(AuditVerify, SoundExport) {
  const VerifyReport report = verify();
  EXPECT_TRUE(report.verified()) << to_text(report);
  EXPECT_EQ(report.exit_code(), 0);
  EXPECT_EQ(report.rows, kRows);
  EXPECT_EQ(report.first_id, rows_.front().row.id);
  EXPECT_EQ(report.last_id, rows_.back().row.id);
  EXPECT_EQ(report.head_hash, to_hex(as_bytes(head_.head_hash)));
  EXPECT_FALSE(report.keys_pinned);
  EXPECT_TRUE(to_text(report).starts_with("Audit chain verified\n"));
  EXPECT_EQ(row_files().size(), 2u);
}

TEST_F(AuditVerify, EveryByteOfEveryRowNamesTheRow) {
  int64_t sequence = 0;
  int changes = 0;
  for (const std::string& name : row_files()) {
    const std::string text = unpacked(name), packed = read_text(out_ + "/" + name);
    int64_t row = sequence + 1;
    for (size_t i = 0; i < text.size(); ++i) {
      // A bit of each byte of the one row, a blank (which JSON overlooks between tokens) for each byte of the next.
      const char other = row % 2 == 0 && text[i] != ' ' ? ' ' : static_cast<char>(text[i] ^ (1 << (i % 8)));
      std::string changed = text;
      changed[i] = other;
      write_text(out_ + "/" + name, gzip(changed));
      const VerifyReport report = verify();
      ++changes;
      ASSERT_EQ(report.exit_code(), 4) << "byte " << i << " of " << name << " as " << other;
      ASSERT_EQ(report.findings.front().sequence, row) << "byte " << i << "\n" << to_text(report);
      // The id stands twice in a row: in one of the two places it can always be read.
      ASSERT_EQ(report.findings.front().event_id, rows_[static_cast<size_t>(row) - 1].row.id) << "byte " << i << "\n"
                                                                                              << to_text(report);
      ASSERT_EQ(report.rows, row - 1) << "the rows before it stay proven";
      ASSERT_TRUE(names_file(report, name));
      if (text[i] == '\n') ++row;
    }
    sequence = row - 1;
    write_text(out_ + "/" + name, packed);
  }
  EXPECT_EQ(sequence, kRows);
  EXPECT_GT(changes, kRows * 700);
  EXPECT_TRUE(verify().verified());
}

TEST_F(AuditVerify, EveryByteOfEveryFileNamesTheFile) {
  for (const bool pinned : {false, true}) {
    if (pinned) options_.pinned = SignerRegistry::load(out_ + "/signers.json").value();
    for (const std::string& name : files_of(out_)) {
      if (pinned && name.ends_with(".gz")) continue;  // pinning changes how the other two are judged
      const std::string content = read_text(out_ + "/" + name);
      for (size_t i = 0; i < content.size(); ++i) {
        std::string changed = content;
        changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 8)));
        write_text(out_ + "/" + name, changed);
        const VerifyReport report = verify();
        ASSERT_EQ(report.exit_code(), 4) << "byte " << i << " of " << name;
        ASSERT_TRUE(names_file(report, name)) << "byte " << i << " of " << name << "\n" << to_text(report);
        if (name.ends_with(".gz")) continue;
        ASSERT_EQ(report.findings.size(), 1u) << "byte " << i << " of " << name << "\n" << to_text(report);
        ASSERT_EQ(report.rows, kRows) << "the rows themselves still hold";
      }
      write_text(out_ + "/" + name, content);
    }
  }
}

TEST_F(AuditVerify, MissingAddedRenamedAndSwappedFiles) {
  for (const std::string& name : files_of(out_)) {
    const std::string content = read_text(out_ + "/" + name);
    fs::remove(out_ + "/" + name);
    VerifyReport report = verify();
    EXPECT_EQ(report.exit_code(), 8) << "without " << name << "\n" << to_text(report);
    EXPECT_TRUE(names_file(report, name)) << to_text(report);
    write_text(out_ + "/" + name, content + "x");
    EXPECT_EQ(verify().exit_code(), 4) << name;
    write_text(out_ + "/" + name, content.substr(0, content.size() - 1));
    EXPECT_EQ(verify().exit_code(), 4) << name;
    write_text(out_ + "/" + name, "");
    EXPECT_EQ(verify().exit_code(), 4) << name;
    write_text(out_ + "/" + name, content);
  }
  for (const char* extra : {"/audit-events/2026/05/01/000000000009-000000000009.jsonl.gz", "/audit-events/x", "/notes.txt"}) {
    write_text(out_ + extra, "x");
    const VerifyReport report = verify();
    EXPECT_EQ(report.exit_code(), 4) << extra;
    EXPECT_TRUE(names_file(report, extra + 1)) << to_text(report);
    fs::remove(out_ + extra);
  }
  const std::vector<std::string> files = row_files();
  fs::rename(out_ + "/" + files[0], out_ + "/" + files[0] + "x");
  EXPECT_EQ(verify().exit_code(), 4);
  EXPECT_TRUE(names_file(verify(), files[0] + "x"));
  fs::rename(out_ + "/" + files[1], out_ + "/" + files[0]);
  fs::rename(out_ + "/" + files[0] + "x", out_ + "/" + files[1]);
  EXPECT_EQ(verify().exit_code(), 4) << "swapped";
  EXPECT_TRUE(names_file(verify(), files[0]));
  EXPECT_EQ(verify_archive(dir_ / "nowhere", options_).error().code, Errc::kIncomplete);
}

TEST_F(AuditVerify, WholeRowsTakenOutAddedOrMoved) {
  const std::string name = row_files()[0], packed = read_text(out_ + "/" + name), text = unpacked(name);
  const size_t one = text.find('\n') + 1, two = text.find('\n', one) + 1;
  const std::string a = text.substr(0, one), b = text.substr(one, two - one), c = text.substr(two);
  const std::vector<std::tuple<std::string, std::string, int64_t>> cases = {
      {"head cut off", b + c, 1},    {"row cut out", a + c, 2},           {"swapped", b + a + c, 1},
      {"doubled", a + b + b + c, 3}, {"empty line", a + "\n" + b + c, 2}, {"another event's row put in", a + a + c, 2}};
  for (const auto& [what, changed, row] : cases) {
    write_text(out_ + "/" + name, gzip(changed));
    const VerifyReport report = verify();
    EXPECT_EQ(report.exit_code(), 4) << what;
    EXPECT_EQ(report.findings.front().sequence, row) << what << "\n" << to_text(report);
  }
  write_text(out_ + "/" + name, gzip(a + b));
  VerifyReport report = verify();
  EXPECT_EQ(report.exit_code(), 4) << "end of a file cut off";
  EXPECT_EQ(report.findings.front().sequence, 3) << to_text(report);
  write_text(out_ + "/" + name, gzip(text + "trailing"));
  EXPECT_EQ(verify().exit_code(), 4);
  EXPECT_TRUE(names_file(verify(), name));
}

TEST_F(AuditVerify, AForgerWithAKeyOfHisOwnFailsAgainstPinnedKeys) {
  auto forger = test_signer(dir_, "forger");
  ChainState head;
  std::vector<Record> records = make_records(kRows, 2, 3);
  records[2].value = event_value(99);
  const std::vector<SignedRow> forged = make_rows(records, *forger, head);
  const std::string out = dir_ / "forged";
  export_rows(out, forged, head, *forger);
  const VerifyReport alone = verify_archive(out, options_).value();
  EXPECT_TRUE(alone.verified()) << "the parts fit together";
  EXPECT_NE(to_text(alone).find("not pinned"), std::string::npos) << "and the verdict says what that is worth";
  VerifyOptions pinned = options_;
  pinned.pinned = SignerRegistry::load(out_ + "/signers.json").value();
  const VerifyReport report = verify_archive(out, pinned).value();
  EXPECT_EQ(report.exit_code(), 4);
  EXPECT_EQ(report.findings.front().sequence, 1);
  EXPECT_EQ(report.findings.front().check, "signature");
}

TEST_F(AuditVerify, RetiredAndRevokedKeysDoNotStand) {
  SignerRegistry registry;
  ASSERT_TRUE(registry.add({signer_->key(), {}, 3, false}));
  options_.pinned = registry;
  EXPECT_EQ(verify().findings.front().sequence, 4);
  SignerRegistry revoked;
  ASSERT_TRUE(revoked.add({signer_->key(), {}, {}, true}));
  options_.pinned = revoked;
  EXPECT_EQ(verify().findings.front().sequence, 1);
}

TEST_F(AuditVerify, ARowThatLiesInAgreementWithItsHash) {
  // The signer's key is in wrong hands: rows that are signed well but break the rules of the chain are still found.
  const auto refused = [&](const std::function<void(std::vector<SignedRow>&)>& change, const std::string& check, int64_t row) {
    std::vector<SignedRow> rows = rows_;
    change(rows);
    ChainState head = head_;
    head.head_hash = rows.back().row.hash;
    fs::remove_all(out_);
    export_rows(out_, rows, head, *signer_);
    const VerifyReport report = verify();
    EXPECT_EQ(report.exit_code(), 4) << check;
    EXPECT_EQ(report.findings.front().check, check) << to_text(report);
    EXPECT_EQ(report.findings.front().sequence, row) << to_text(report);
  };
  refused([](auto& rows) { rows[1].row.event_type = "promotion.rejected"; }, "metadata", 2);
  refused([](auto& rows) { rows[1].row.id = rows[2].row.id; }, "metadata", 2);
  refused([](auto& rows) { rows[4].row.created_at_us += 1; }, "created_at", 5);
  refused([](auto& rows) { rows[2].row.created_at_us = rows[1].row.created_at_us; }, "created_at", 3);
  refused(
      [&](auto& rows) {
        rows[0].row.prev_hash = sha256("before");
        rows[0].row.hash = processors::chain_hash(rows[0].row.payload, rows[0].row.prev_hash);
        rows[0].signature = to_base64(signer_->sign(rows[0].row.hash).value());
      },
      "link", 1);
  refused(
      [&](auto& rows) {
        rows[3].row.prev_hash = rows[1].row.hash;
        rows[3].row.hash = processors::chain_hash(rows[3].row.payload, rows[3].row.prev_hash);
        rows[3].signature = to_base64(signer_->sign(rows[3].row.hash).value());
      },
      "link", 4);
}

TEST_F(AuditVerify, SignaturesOfSomeRowsAloneAndEveryLinkAllTheSame) {
  std::vector<SignedRow> rows = rows_;
  rows[4].signature = rows[3].signature;
  fs::remove_all(out_);
  export_rows(out_, rows, head_, *signer_);
  options_.to = 4;
  VerifyReport report = verify();
  EXPECT_EQ(report.exit_code(), 0) << to_text(report);
  EXPECT_EQ(report.rows, kRows);
  EXPECT_NE(sentence(report).find("whole and linked; signed are rows 1 to 4, the others were not looked at"), std::string::npos)
      << sentence(report);
  options_ = {};
  options_.from = 5;
  report = verify();
  EXPECT_EQ(report.exit_code(), 4);
  EXPECT_EQ(report.findings.front().sequence, 5) << to_text(report);
  options_.from = options_.to = kRows + 1;
  EXPECT_EQ(verify().exit_code(), 8) << "there is no such row";
  rows[1].row.created_at_us += 1;
  fs::remove_all(out_);
  export_rows(out_, rows, head_, *signer_);
  options_.from = options_.to = kRows;
  EXPECT_EQ(verify().findings.front().check, "created_at");
}

TEST_F(AuditVerify, AnEmptyChainIsAFailureUnlessAllowed) {
  fs::remove_all(out_);
  export_rows(out_, {}, {}, *signer_);
  EXPECT_EQ(verify().exit_code(), 8);
  options_.allow_empty = true;
  EXPECT_EQ(verify().exit_code(), 0);
}

TEST_F(AuditVerify, LongChainsOverSeveralThreads) {
  fs::remove_all(out_);
  ChainState head;
  const std::vector<SignedRow> rows = make_rows(make_records(2500, 4), *signer_, head);
  export_rows(out_, rows, head, *signer_);
  options_.threads = 4;
  EXPECT_TRUE(verify().verified());
  const std::string name = row_files()[0];
  std::string text = unpacked(name);
  const size_t at = text.find(rows[1700].row.id, text.find(to_hex(as_bytes(rows[1700].row.hash))));
  text[at + 10] = text[at + 10] == 'a' ? 'b' : 'a';
  write_text(out_ + "/" + name, gzip(text));
  const VerifyReport report = verify();
  ASSERT_FALSE(report.verified());
  EXPECT_EQ(report.findings.front().sequence, 1701);
  EXPECT_EQ(report.findings.front().event_id, rows[1700].row.id);
  EXPECT_EQ(report.rows, 1700);
}

/// Runs the real binary: exit code and what it printed.
std::pair<int, std::string> run_binary(const std::string& arguments) {
  const std::string command = std::string(ASSAY_BINARY_DIR) + "/bin/assay-verify " + arguments + " 2>&1";
  FILE* pipe = ::popen(command.c_str(), "r");
  CHECK(pipe != nullptr);
  std::string output;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, n);
  const int status = ::pclose(pipe);
  return {WIFEXITED(status) ? WEXITSTATUS(status) : -1, output};
}

TEST_F(AuditVerify, TheBinarySaysTheSame) {
  fs::copy(out_ + "/signers.json", dir_ / "pinned.json");
  auto [code, output] = run_binary(out_ + " --signers " + dir_ / "pinned.json");
  EXPECT_EQ(code, 0) << output;
  EXPECT_TRUE(output.starts_with("Audit chain verified\n")) << output;
  EXPECT_EQ(output.find("pinned"), std::string::npos);
  EXPECT_EQ(run_binary(out_ + " --json").first, 0);
  EXPECT_EQ(run_binary(out_ + " --unknown").first, 2);
  EXPECT_EQ(run_binary(out_ + " --from 2 --to 3").first, 0);
  EXPECT_EQ(run_binary(out_ + " --from 3 --to 2").first, 2);
  EXPECT_EQ(run_binary(out_ + " --checkpoint " + out_).first, 2) << "without a policy";
  EXPECT_EQ(run_binary("").first, 2);
  EXPECT_EQ(run_binary("--help").first, 0);
  EXPECT_EQ(run_binary(dir_ / "nowhere").first, 8);
  const std::string name = row_files()[1];
  std::string text = unpacked(name);
  text[text.find("agent-")] = 'A';
  write_text(out_ + "/" + name, gzip(text));
  std::tie(code, output) = run_binary(out_);
  EXPECT_EQ(code, 4);
  EXPECT_NE(output.find(rows_[3].row.id), std::string::npos) << output;
  EXPECT_NE(output.find(name + ":1"), std::string::npos) << output;
  fs::remove(out_ + "/" + name);
  std::tie(code, output) = run_binary(out_);
  EXPECT_EQ(code, 8) << output;
  EXPECT_NE(output.find(name), std::string::npos) << output;
}

}  // namespace
}  // namespace assay::testing
