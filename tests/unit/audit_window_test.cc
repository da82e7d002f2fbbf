// Parts of the chain: the rows between two numbers or two instants, proven and exported; and what such a part leaves unproven is
// said.
#include "streams/audit_window.h"

#include "schemas/time.h"
#include "streams/audit_verify.h"
#include "tests/unit/audit_export.h"

namespace assay::testing {
namespace {

class AuditWindow : public ::testing::Test {
 protected:
  static constexpr int kRows = 600;

  void SetUp() override {
    signer_ = test_signer(dir_);
    rows_ = make_rows(make_records(kRows, 5, 200), *signer_, head_);
    export_rows(dir_ / "out", rows_, head_, *signer_);
  }

  Result<StoredChain> part(const std::string& from, const std::string& to) {
    RowWindow window;
    if (!from.empty()) {
      TRY_ASSIGN(window.from, parse_row_bound("--from", from));
    }
    if (!to.empty()) {
      TRY_ASSIGN(window.to, parse_row_bound("--to", to));
    }
    return open_window([this](int64_t after) { return open_archive_chain(dir_ / "out", after); }, window);
  }

  /// First and last row that were proven.
  std::pair<int64_t, int64_t> proven(const std::string& from, const std::string& to, const VerifyOptions& options = {}) {
    const StoredChain chain = part(from, to).value();
    const VerifyReport report = verify_chain(chain, options).value();
    EXPECT_TRUE(report.verified()) << to_text(report);
    EXPECT_EQ(report.first_id, rows_[static_cast<size_t>(report.first_row) - 1].row.id);
    EXPECT_EQ(report.last_id, rows_[static_cast<size_t>(report.last_row()) - 1].row.id);
    return {report.first_row, report.last_row()};
  }

  std::string instant(int row) const { return format_rfc3339_ms(rows_[static_cast<size_t>(row) - 1].row.created_at_us / 1000); }

  TempDir dir_;
  std::shared_ptr<Signer> signer_;
  ChainState head_;
  std::vector<SignedRow> rows_;
};

using Rows = std::pair<int64_t, int64_t>;

TEST_F(AuditWindow, RowsByNumberAndByTime) {
  EXPECT_EQ(proven("", ""), Rows(1, kRows));
  EXPECT_EQ(proven("1", ""), Rows(1, kRows));
  EXPECT_EQ(proven("7", "7"), Rows(7, 7));
  EXPECT_EQ(proven("150", "450"), Rows(150, 450)) << "over files and days";
  EXPECT_EQ(proven("600", "600"), Rows(600, 600));
  EXPECT_EQ(proven("", "599"), Rows(1, 599));
  EXPECT_EQ(proven("2026-05-02T00:00:00Z", "2026-05-03T00:00:00Z"), Rows(201, 400)) << "one day";
  EXPECT_EQ(proven("2026-05-02T02:00:00+02:00", "400"), Rows(201, 400)) << "in any zone";
  EXPECT_EQ(proven("", "2026-05-02T00:00:00Z"), Rows(1, 200));
  EXPECT_EQ(proven("2020-01-01T00:00:00Z", "2030-01-01T00:00:00Z"), Rows(1, kRows));
  // The instant of a row belongs to what begins there, not to what ends there.
  const int64_t first = proven(instant(300), "").first;
  EXPECT_GE(rows_[static_cast<size_t>(first) - 1].row.created_at_us, *parse_rfc3339_ms(instant(300)) * 1000);
  EXPECT_LT(rows_[static_cast<size_t>(first) - 2].row.created_at_us, *parse_rfc3339_ms(instant(300)) * 1000);
  EXPECT_EQ(proven("", instant(300)).second, first - 1);
  for (const auto& [from, to] : std::vector<std::pair<std::string, std::string>>{
           {"601", ""}, {"5", "4"}, {"1", "601"}, {"2027-01-01T00:00:00Z", ""}, {"0", ""}, {"x", ""}, {"", "2026-05-01"}})
    EXPECT_EQ(part(from, to).error().code, Errc::kUsage) << from << " to " << to;
}

TEST_F(AuditWindow, SaysWhatItDoesNotProve) {
  const VerifyReport report = verify_chain(part("150", "450").value(), {}).value();
  EXPECT_NE(sentence(report).find("Rows 150 to 450 are whole and signed; what stands before row 150 was not looked at"),
            std::string::npos)
      << sentence(report);
  EXPECT_NE(sentence(report).find("nothing follows row 450 is not proven"), std::string::npos) << sentence(report);
  // An earlier head bridges it: of the row before, or of one inside.
  for (int64_t row : {149, 150, 300, 450}) {
    VerifyOptions options;
    options.earlier_head = EarlierHead{row, to_hex(as_bytes(rows_[static_cast<size_t>(row) - 1].row.hash))};
    const VerifyReport bridged = verify_chain(part("150", "450").value(), options).value();
    EXPECT_TRUE(bridged.verified() && bridged.earlier_head_reached) << row << to_text(bridged);
    options.earlier_head->hash = to_hex(as_bytes(rows_[0].row.hash));
    const VerifyReport other = verify_chain(part("150", "450").value(), options).value();
    EXPECT_EQ(other.exit_code(), 4) << row;
    EXPECT_EQ(other.findings.front().check, "earlier head") << row;
  }
  VerifyOptions options;
  options.earlier_head = EarlierHead{100, to_hex(as_bytes(rows_[99].row.hash))};
  EXPECT_EQ(verify_chain(part("150", "450").value(), options)->exit_code(), 8) << "rows 101 to 149 are not there to say";
}

TEST_F(AuditWindow, ChecksSignaturesOfSomeOfItsRows) {
  VerifyOptions options;
  options.to = 200;
  const VerifyReport report = verify_chain(part("150", "450").value(), options).value();
  EXPECT_TRUE(report.verified()) << to_text(report);
  EXPECT_NE(sentence(report).find("Rows 150 to 450 are whole and linked; signed are rows 150 to 200,"), std::string::npos)
      << sentence(report);
  for (const auto& [from, to] : std::vector<std::pair<int64_t, int64_t>>{{149, 200}, {1, 149}, {150, 451}}) {
    options.from = from;
    options.to = to;
    EXPECT_EQ(verify_chain(part("150", "450").value(), options)->exit_code(), 8) << from << " to " << to;
  }
}

TEST_F(AuditWindow, AChangedRowInsideIsNamedAndOneOutsideIsNot) {
  std::vector<SignedRow> rows = rows_;
  rows[299].row.payload.replace(rows[299].row.payload.find("agent-"), 6, "Agent-");
  auto open = [&](int64_t after) -> Result<StoredChain> {
    StoredChain chain;
    chain.head = head_;
    CHECK(chain.signers.add({signer_->key(), {}, {}, false}).has_value());
    std::vector<StoredLine> lines;
    for (size_t i = static_cast<size_t>(after); i < rows.size(); ++i)
      lines.push_back({audit_line(rows[i]), "row", rows[i].row.sequence});
    chain.lines = [lines]() mutable -> Result<std::vector<StoredLine>> { return std::exchange(lines, {}); };
    return chain;
  };
  auto verdict = [&](const std::string& from, const std::string& to) {
    return verify_chain(open_window(open, {parse_row_bound("--from", from).value(), parse_row_bound("--to", to).value()}).value(),
                        {})
        .value();
  };
  EXPECT_EQ(verdict("250", "350").findings.front().sequence, 300);
  EXPECT_TRUE(verdict("301", "350").verified());
  EXPECT_TRUE(verdict("250", "299").verified());
  rows[299] = rows_[299];
  // A row that is gone, wherever in the part it stood.
  const std::vector<SignedRow> sound = rows;
  for (size_t gone : {249u, 300u, 349u}) {
    rows = sound;
    rows.erase(rows.begin() + static_cast<ptrdiff_t>(gone));
    if (gone == 249) {  // the database gives what comes after row 249
      auto from_there = [&](int64_t after) -> Result<StoredChain> {
        TRY_ASSIGN(StoredChain chain, open(0));
        std::vector<StoredLine> lines = chain.lines().value();
        std::erase_if(lines, [&](const StoredLine& line) { return line.sequence <= after; });
        chain.lines = [lines]() mutable -> Result<std::vector<StoredLine>> { return std::exchange(lines, {}); };
        return chain;
      };
      const VerifyReport report =
          verify_chain(
              open_window(from_there, {parse_row_bound("--from", "250").value(), parse_row_bound("--to", "350").value()}).value(),
              {})
              .value();
      EXPECT_EQ(report.findings.front().check, "sequence");
      continue;
    }
    const VerifyReport report = verdict("250", "350");
    ASSERT_EQ(report.exit_code(), 4) << gone;
    EXPECT_EQ(report.findings.front().check, gone == 300 ? "sequence" : "rows") << gone << to_text(report);
  }
}

TEST_F(AuditWindow, APartIsExportedAndProvenAlone) {
  ASSERT_TRUE(export_archive(part("150", "450").value(), dir_ / "part", *signer_));
  const VerifyReport report = verify_archive(dir_ / "part", {}).value();
  EXPECT_TRUE(report.verified()) << to_text(report);
  EXPECT_EQ(Rows(report.first_row, report.last_row()), Rows(150, 450));
  const ArchiveManifest manifest = read_archive_manifest(dir_ / "part").value();
  EXPECT_EQ(manifest.rows(), 301);
  EXPECT_EQ(manifest.files.front().first_sequence, 150);
  EXPECT_EQ(manifest.files.front().first_hash, to_hex(as_bytes(rows_[149].row.hash)));
  // The first of it taken away: the manifest says where it began.
  const std::string file = dir_ / "part/" + manifest.files.front().name;
  std::string text = gunzipped(file);
  text.erase(0, text.find('\n') + 1);
  write_text(file, gzip(text));
  EXPECT_EQ(verify_archive(dir_ / "part", {})->exit_code(), 4);
}

}  // namespace
}  // namespace assay::testing
