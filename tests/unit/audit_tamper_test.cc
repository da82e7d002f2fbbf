// The tamper matrix on exports: what somebody changes, what the verifier then says of which row, and what the original's rules
// would have said. The same on a database and its dump: audit_tamper_postgres_test.
#include "tests/unit/audit_tamper.h"

namespace assay::testing {
namespace {

TEST_F(Tamper, ASoundExportIsWitnessed) {
  const VerifyReport report = verify();
  ASSERT_TRUE(report.verified()) << to_text(report);
  EXPECT_EQ(report.checkpoints, 2);
  EXPECT_EQ(report.witnessed_rows, kTamperRows);
  EXPECT_EQ(sentence(report),
            "Rows 1 to 8 are whole and signed; that row 8 was then the last was witnessed by w1 at 2026-05-01T12:01:40.000Z.");
  EXPECT_EQ(original(out_), 0);
}

TEST_F(Tamper, AnExportThatIsChanged) {
  for (const TamperCase& one : cases()) {
    std::vector<std::string> changed = lines();
    one.change(changed);
    if (one.with_key) {
      std::vector<SignedRow> rows;
      for (const std::string& line : changed) rows.push_back(parse_audit_line(line).value());
      write_export(rows);
    } else {
      overwrite(changed);
    }
    const VerifyReport report = verify();
    const auto& [check, row, original_rule] = one.exported;
    ASSERT_EQ(report.exit_code(), 4) << one.what << "\n" << to_text(report);
    EXPECT_EQ(report.findings.front().check, check) << one.what << "\n" << to_text(report);
    EXPECT_EQ(report.findings.front().sequence, row) << one.what << "\n" << to_text(report);
    EXPECT_EQ(original(out_), original_rule) << one.what;
    EXPECT_TRUE(
        one.with_key ||
        std::ranges::any_of(report.findings, [&](const Finding& f) { return f.check == "sha256" && f.place.ends_with(file_); }))
        << one.what << ": the file altered is named too";
    std::printf("  %-58s %-11s row %lld   original: %s\n", one.what, check.c_str(), static_cast<long long>(row),
                original_rule == 0 ? "sees nothing" : ("rule " + std::to_string(original_rule)).c_str());
    write_export(rows_);
  }
}

TEST_F(Tamper, AForgerWithAKey) {
  struct Case {
    const char* what;
    std::function<void()> change;
    const char* check;
    int64_t row;
    int original;
  };
  const Case cases[] = {
      {"chained and signed anew from row 7, checkpoints thrown away; one is known from elsewhere",
       [this] {
         write_export(forged(7, signer_.get()), "");
         options_.checkpoints = {{"mail from the witness", last_note_}};
       },
       "checkpoint", 8, 0},
      {"an older export in its place; a checkpoint is known from elsewhere",
       [this] {
         write_export({rows_.begin(), rows_.begin() + 6});
       },
       "checkpoint", 0, 0},
      {"an older export in its place; an earlier head is known",
       [this] {
         write_export({rows_.begin(), rows_.begin() + 6});
         options_.checkpoints.clear();
         options_.earlier_head = EarlierHead{kTamperRows, to_hex(as_bytes(head_.head_hash))};
       },
       "earlier head", 0, 0},
      {"the log's key too, but not the witness's: checkpoints of his own",
       [this] {
         write_export(forged(4, signer_.get()), "");
         options_.earlier_head.reset();
         Note note = Note::parse(last_note_).value();
         Checkpoint checkpoint = Checkpoint::parse(note.text).value();
         checkpoint.root = sha256("another tree");
         note.text = checkpoint.to_text();
         note.signatures[0] = note_signer("log", NoteKeyType::kLog)->sign(note.text).value();
         options_.checkpoints = {{"his own", note.to_text()}};
       },
       "checkpoint", 0, 0},
  };
  for (const Case& one : cases) {
    one.change();
    const VerifyReport report = verify();
    ASSERT_EQ(report.exit_code(), 4) << one.what << "\n" << to_text(report);
    EXPECT_EQ(report.findings.front().check, one.check) << one.what << "\n" << to_text(report);
    EXPECT_EQ(report.findings.front().sequence, one.row) << one.what << "\n" << to_text(report);
    EXPECT_EQ(original(out_), one.original) << one.what;
    std::printf("  %-70s %-12s row %lld   original: %s\n", one.what, one.check, static_cast<long long>(one.row),
                one.original == 0 ? "sees nothing" : ("rule " + std::to_string(one.original)).c_str());
  }
}

TEST_F(Tamper, WhoeverHoldsEveryKeyButTheWitnessesIsNotBelieved) {
  write_export(forged(4, signer_.get()), "");
  const VerifyReport report = verify();
  EXPECT_EQ(report.exit_code(), 8) << "nothing in the directory contradicts it, and nothing that the policy counts speaks for it\n"
                                   << to_text(report);
  EXPECT_EQ(report.findings.front().check, "checkpoint");
  EXPECT_EQ(report.witnessed_rows, 0);
  EXPECT_NE(sentence(report).find("not proven: no checkpoint after it"), std::string::npos)
      << "and the verdict says what that is worth";
}

TEST_F(Tamper, TenThousandRandomEditsAreAllFound) {
  const std::string path = out_ + "/audit-events/" + file_, sound = gunzipped(path), packed = read_text(path);
  std::vector<size_t> row_ends;
  for (size_t at = sound.find('\n'); at != sound.npos; at = sound.find('\n', at + 1)) row_ends.push_back(at);
  std::mt19937_64 random(11);
  const std::vector<std::string> others = [&] {
    std::vector<std::string> names = files_of(out_);
    std::erase_if(names, [&](const std::string& name) { return name.ends_with(file_); });
    return names;
  }();
  int edits = 0;
  while (edits < 10000) {
    const bool in_rows = random() % 4 != 0;
    const std::string& other = others[random() % others.size()];
    const std::string place = in_rows ? path : out_ + "/" + other;
    const std::string before = in_rows ? sound : read_text(place);
    std::string text = before;
    const size_t at = random() % text.size();
    switch (random() % 4) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text.insert(at, 1, static_cast<char>(random()));
        break;
      case 2:
        text.erase(at, 1 + random() % 3);
        break;
      default:
        text[at] = "0123456789abcdef\"{}[],: "[random() % 24];
    }
    if (text == before) continue;
    ++edits;
    write_text(place, in_rows ? gzip(text) : text);
    const VerifyReport report = verify();
    ASSERT_EQ(report.exit_code(), 4) << "byte " << at << " of " << place << "\n" << text;
    if (in_rows) {
      const int64_t row = 1 + (std::ranges::lower_bound(row_ends, at) - row_ends.begin());
      // What is put in where two rows meet may count to either.
      ASSERT_LE(std::abs(report.findings.front().sequence - row), at == 0 || sound[at - 1] == '\n' ? 1 : 0) << "byte " << at << "\n"
                                                                                                            << to_text(report);
    } else {
      ASSERT_TRUE(std::ranges::any_of(report.findings, [&](const Finding& f) { return f.place == other; })) << other << "\n"
                                                                                                            << to_text(report);
    }
    write_text(place, in_rows ? packed : before);
  }
  EXPECT_TRUE(verify().verified());
}

}  // namespace
}  // namespace assay::testing
