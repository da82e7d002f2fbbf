// The audit chain in an archive that is only added to: where batches end, what crashes and lost answers leave, and that whatever is
// missing, altered or put in is found by its name.
#include "streams/audit_upload.h"

#include <algorithm>
#include <thread>

#include "streams/audit_verify.h"
#include "streams/audit_window.h"
#include "tests/unit/audit_export.h"

namespace assay::testing {
namespace {

namespace fs = std::filesystem;

/// A chain whose signed part grows, and a directory that takes it.
class AuditUpload : public ::testing::Test {
 protected:
  static constexpr int kRows = 40;

  void SetUp() override {
    signer_ = test_signer(dir_);
    rows_ = make_rows(make_records(kRows, 3, 15), *signer_, head_);  // days of 15, 15 and 10 rows
    options_.batch_rows_max = 6;
  }

  /// The first `count` rows as a chain.
  AuditUploader::OpenChain chain(int64_t count, std::vector<SignedRow> rows = {}) {
    if (rows.empty()) rows = rows_;
    return [this, count, rows](int64_t after) -> Result<StoredChain> {
      std::vector<StoredLine> lines;
      for (int64_t i = after; i < count; ++i)
        lines.push_back({audit_line(rows[static_cast<size_t>(i)]), "row " + std::to_string(i + 1), 0});
      StoredChain out;
      out.head.sequence = count;
      CHECK(out.signers.add({signer_->key(), {}, {}, false}).has_value());
      out.lines = [lines]() mutable -> Result<std::vector<StoredLine>> { return std::exchange(lines, {}); };
      return out;
    };
  }

  std::shared_ptr<ObjectStore> objects(const std::string& place) { return open_directory_objects(dir_ / place, true).value(); }

  Result<int64_t> upload(const std::string& place, int64_t count, AuditUploadOptions options) {
    return AuditUploader(objects(place), chain(count), std::move(options)).upload(*signer_);
  }
  Result<int64_t> upload(const std::string& place, int64_t count) { return upload(place, count, options_); }

  VerifyReport verify(const std::string& place) { return verify_archive(dir_ / place, {}).value(); }

  /// The rows in the place, by the names of their files.
  std::vector<std::string> lines_in(const std::string& place) {
    std::vector<std::string> out;
    for (const std::string& name : row_files(place)) {
      const std::string text = gunzipped(dir_ / place + "/" + name);
      for (size_t from = 0, end; (end = text.find('\n', from)) != text.npos; from = end + 1)
        out.push_back(text.substr(from, end - from));
    }
    return out;
  }
  std::vector<std::string> row_files(const std::string& place) {
    std::vector<std::string> out;
    for (const std::string& name : files_of(dir_ / place))
      if (name.starts_with("audit-events/") && name.find("/.tmp-") == name.npos) out.push_back(name);
    return out;
  }

  /// All rows once, in order, and proven.
  void whole(const std::string& place, int64_t rows, const std::string& what) {
    std::vector<std::string> expected;
    for (int64_t i = 0; i < rows; ++i) expected.push_back(audit_line(rows_[static_cast<size_t>(i)]));
    EXPECT_TRUE(lines_in(place) == expected) << what << ": it holds " << lines_in(place).size() << " rows";
    const VerifyReport report = verify(place);
    EXPECT_TRUE(report.verified()) << what << "\n" << to_text(report);
    EXPECT_EQ(report.rows, rows) << what;
  }

  TempDir dir_;
  std::shared_ptr<Signer> signer_;
  ChainState head_;
  std::vector<SignedRow> rows_;
  AuditUploadOptions options_;
};

std::string short_name(const std::string& name) { return name.substr(name.rfind('/') + 1, 25); }

TEST_F(AuditUpload, BatchesEndWithTheDayAndWhenTheyAreFull) {
  EXPECT_EQ(upload("a", kRows).value(), kRows);
  std::vector<std::string> names;
  for (const std::string& name : row_files("a")) names.push_back(name);
  ASSERT_EQ(names.size(), 8u);
  EXPECT_EQ(names.front(), "audit-events/2026/05/01/000000000001-000000000006.jsonl.gz");
  const std::vector<std::pair<int, int>> expected = {{1, 6}, {7, 12}, {13, 15}, {16, 21}, {22, 27}, {28, 30}, {31, 36}, {37, 40}};
  for (size_t i = 0; i < expected.size(); ++i) {
    char text[40];
    std::snprintf(text, sizeof text, "%012d-%012d", expected[i].first, expected[i].second);
    EXPECT_EQ(short_name(names[i]), text);
    const AuditBatch batch = AuditBatch::parse(read_text(dir_ / "a/" + AuditBatch::name_of(expected[i].first))).value();
    EXPECT_EQ(batch.file.name, names[i]);
    EXPECT_EQ(batch.file.first_hash, to_hex(as_bytes(rows_[static_cast<size_t>(expected[i].first) - 1].row.hash)));
    EXPECT_EQ(batch.file.last_hash, to_hex(as_bytes(rows_[static_cast<size_t>(expected[i].second) - 1].row.hash)));
  }
  whole("a", kRows, "eight batches");
  options_.batch_rows_max = 1000;
  options_.batch_raw_bytes_max = std::ssize(audit_line(rows_[0])) * 4;
  EXPECT_EQ(upload("bytes", kRows).value(), kRows);
  EXPECT_GT(row_files("bytes").size(), 9u) << "a batch is not larger than it may be either";
  whole("bytes", kRows, "by size");
}

TEST_F(AuditUpload, WhatIsThereStaysAndWhatIsMadeAgainIsTheSame) {
  for (int64_t count : {4, 4, 9, 20, 20, kRows}) EXPECT_EQ(upload("a", count).value(), count);
  whole("a", kRows, "in several runs");
  EXPECT_EQ(short_name(row_files("a").front()), "000000000001-000000000004") << "a batch that was closed stays closed";
  for (int64_t count : {4, 9, 20, kRows}) EXPECT_EQ(upload("again", count).value(), count);
  const std::vector<std::string> names = files_of(dir_ / "a");
  EXPECT_EQ(names, files_of(dir_ / "again"));
  for (const std::string& name : names) EXPECT_EQ(read_text(dir_ / "a/" + name), read_text(dir_ / "again/" + name)) << name;
}

TEST_F(AuditUpload, ACrashAtAnyStepLeavesNoGapAndNothingTwice) {
  int crashes = 0;
  for (int at = 0;; ++at) {
    const std::string place = "crash" + std::to_string(at);
    AuditUploadOptions failing = options_;
    int steps = 0;
    failing.before_step = [&](const std::string& step) -> Result<void> {
      if (steps++ == at) return Error{Errc::kUnexpected, "crash before " + step};
      return {};
    };
    const bool crashed = !upload(place, 23, failing);
    crashes += crashed;
    const VerifyReport left = verify(place);
    EXPECT_NE(left.exit_code(), 4) << "what a crash leaves is no tampering\n" << to_text(left);
    // Rows came meanwhile, and the next one would cut the batch otherwise: what was told of binds it.
    options_.batch_rows_max = 7;
    EXPECT_EQ(upload(place, kRows).value(), kRows);
    options_.batch_rows_max = 6;
    whole(place, kRows, "crash before step " + std::to_string(at));
    if (!crashed) break;
  }
  EXPECT_EQ(crashes, 11) << "two steps for each of five batches, and one for the keys";
}

/// Does what it is asked, or not, and says now and then that it does not know.
class Forgetful : public ObjectStore {
 public:
  Forgetful(std::shared_ptr<ObjectStore> under, uint64_t seed) : under_(std::move(under)), random_(seed) {}
  std::string describe() const override { return under_->describe(); }
  Result<bool> put_new(const std::string& name, std::string_view content) override {
    const uint64_t fate = random_() % 4;
    const Error lost{Errc::kUnreachable, "storing " + name + ": no answer"};
    if (fate == 0) return lost;
    Result<bool> done = under_->put_new(name, content);
    return fate == 1 ? Result<bool>(lost) : done;
  }
  Result<std::string> get(const std::string& name) override { return under_->get(name); }
  Result<std::string> get_range(const std::string& name, uint64_t from, uint64_t size) override {
    return under_->get_range(name, from, size);
  }
  Result<std::vector<std::string>> list(const std::string& prefix) override {
    if (random_() % 5 == 0) return Error{Errc::kUnreachable, "listing " + prefix + ": no answer"};
    return under_->list(prefix);
  }

 private:
  std::shared_ptr<ObjectStore> under_;
  std::mt19937_64 random_;
};

TEST_F(AuditUpload, LostAnswersLeaveNoGapAndNothingTwice) {
  for (uint64_t seed = 1; seed <= 25; ++seed) {
    const std::string place = "lost" + std::to_string(seed);
    auto forgetful = std::make_shared<Forgetful>(objects(place), seed);
    int64_t count = 5;
    auto uploader = std::make_unique<AuditUploader>(forgetful, chain(count), options_);
    for (int tries = 0; tries < 500; ++tries) {
      const Result<int64_t> rows = uploader->upload(*signer_);
      if (rows && *rows == kRows) break;
      ASSERT_TRUE(rows || rows.error().code == Errc::kUnreachable) << "seed " << seed << ": " << rows.error().message;
      count = std::min<int64_t>(kRows, count + 3);
      if (rows || tries % 3 == 0) uploader = std::make_unique<AuditUploader>(forgetful, chain(count), options_);
    }
    whole(place, kRows, "seed " + std::to_string(seed));
  }
}

TEST_F(AuditUpload, TwoAtATimeComeToTheSameBatches) {
  for (int round = 0; round < 12; ++round) {
    const std::string place = "two" + std::to_string(round);
    std::vector<std::thread> threads;
    for (int64_t rows_max : {3, 4, 5})
      threads.emplace_back([&, rows_max] {
        AuditUploadOptions own;
        own.batch_rows_max = rows_max;
        for (int64_t count = 10; count <= kRows; count += 10) {
          const Result<int64_t> rows = upload(place, count, own);
          EXPECT_TRUE(rows || rows.error().code == Errc::kIncomplete) << rows.error().message;  // the others are ahead
        }
      });
    for (std::thread& thread : threads) thread.join();
    whole(place, kRows, "round " + std::to_string(round));
  }
}

TEST_F(AuditUpload, OnlyWhatIsSignedIsArchived) {
  ArchiveOptions unsynced;
  unsynced.sync = false;
  auto sink = open_archive_sink(dir_ / "audit", signer_, unsynced).value();
  const std::vector<Record> records = make_records(30);
  ChainState first = sink->take_over(signer_->key()).value(), second = first;
  const std::vector<SignedRow> signed_rows = make_rows({records.begin(), records.begin() + 20}, *signer_, second);
  ASSERT_TRUE(sink->append(signed_rows, first, second));
  ChainState third = second;
  std::vector<SignedRow> late = make_rows({records.begin() + 20, records.end()}, *signer_, third), waiting = late;
  for (SignedRow& row : waiting) row.signature.clear();
  ASSERT_TRUE(sink->stage(waiting, second, third));
  AuditUploader uploader(objects("a"), [&](int64_t after) { return open_archive_chain(dir_ / "audit", after); });
  EXPECT_EQ(uploader.upload(*signer_).value(), 20);
  EXPECT_EQ(verify("a").rows, 20);
  ASSERT_TRUE(sink->sign(late, second, third));
  EXPECT_EQ(uploader.upload(*signer_).value(), 30);
  EXPECT_EQ(verify("a").rows, 30);
  EXPECT_TRUE(verify("a").verified());
}

TEST_F(AuditUpload, ARowThatDoesNotHoldIsNotArchived) {
  ASSERT_EQ(upload("a", 10).value(), 10);
  const std::vector<std::string> before = files_of(dir_ / "a");
  std::vector<SignedRow> rows = rows_;
  rows[12].row.payload.replace(rows[12].row.payload.find("agent-"), 6, "Agent-");
  Result<int64_t> refused = AuditUploader(objects("a"), chain(kRows, rows), options_).upload(*signer_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kTampered);
  EXPECT_NE(refused.error().message.find("row 13"), std::string::npos) << refused.error().message;
  EXPECT_EQ(files_of(dir_ / "a"), before) << "its whole batch waits";
  rows = rows_;
  rows[12].signature = rows[11].signature;
  EXPECT_EQ(AuditUploader(objects("a"), chain(kRows, rows), options_).upload(*signer_).error().code, Errc::kTampered);
  EXPECT_EQ(upload("a", kRows).value(), kRows) << "put back";
  whole("a", kRows, "put back");
}

TEST_F(AuditUpload, AnotherChainsPlaceIsRefused) {
  ASSERT_EQ(upload("a", 10).value(), 10);
  ChainState other_head;
  std::vector<Record> records = make_records(kRows, 3, 15);
  records[8].value = event_value(8, "another past");
  const std::vector<SignedRow> other = make_rows(records, *signer_, other_head);
  Result<int64_t> refused = AuditUploader(objects("a"), chain(kRows, other), options_).upload(*signer_);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kTampered);
  EXPECT_NE(refused.error().message.find("row 10"), std::string::npos) << refused.error().message;
  // A chain that ends before the place does: rebuilt and not there yet, or cut.
  refused = upload("a", 7);
  ASSERT_FALSE(refused);
  EXPECT_EQ(refused.error().code, Errc::kIncomplete);
  // What tells of the last batch, written by a stranger.
  auto stranger = test_signer(dir_, "stranger");
  AuditBatch batch = AuditBatch::parse(read_text(dir_ / "a/" + AuditBatch::name_of(7))).value();
  batch.signer = stranger->key();
  batch.signature = to_base64(stranger->sign(batch.digest()).value());
  write_text(dir_ / "a/" + batch.name(), batch.to_json());
  EXPECT_EQ(upload("a", kRows).error().code, Errc::kTampered);
}

TEST_F(AuditUpload, WhatIsMissingOrPutInIsNamed) {
  ASSERT_EQ(upload("a", kRows).value(), kRows);
  const std::string second = "audit-events/2026/05/01/000000000007-000000000012.jsonl.gz";
  const std::string told = "batches/000000000007.json";
  struct Case {
    const char* what;
    std::function<void(const std::string& dir)> change;
    int exit;
    std::string place;  // that is named
    int64_t proven;
  };
  const Case cases[] = {
      {"rows of a batch are gone", [&](const std::string& d) { fs::remove(d + "/" + second); }, 8, second, 6},
      {"what tells of a batch is gone", [&](const std::string& d) { fs::remove(d + "/" + told); }, 4, told, 6},
      {"a batch is gone without a trace",
       [&](const std::string& d) {
         fs::remove(d + "/" + second);
         fs::remove(d + "/" + told);
       },
       8, told, 6},
      {"the first batch is gone",
       [&](const std::string& d) {
         fs::remove(d + "/batches/000000000001.json");
         fs::remove(d + "/audit-events/2026/05/01/000000000001-000000000006.jsonl.gz");
       },
       8, "batches/000000000001.json", 0},
      {"rows packed otherwise",
       [&](const std::string& d) {
         std::string packed = read_text(d + "/" + second);
         packed[9] = packed[9] == 3 ? 7 : 3;  // the system that packed it
         write_text(d + "/" + second, packed);
       },
       4, second, kRows},
      {"a row taken out",
       [&](const std::string& d) {
         std::string text = gunzipped(d + "/" + second);
         text.erase(0, text.find('\n') + 1);
         write_text(d + "/" + second, gzip(text));
       },
       4, second, 6},
      {"the last row of a batch taken out",
       [&](const std::string& d) {
         std::string text = gunzipped(d + "/" + second);
         text.erase(text.rfind('\n', text.size() - 2) + 1);
         write_text(d + "/" + second, gzip(text));
       },
       4, second, 11},
      {"rows that no batch names",
       [&](const std::string& d) { fs::copy(d + "/" + second, d + "/audit-events/2026/05/01/000000000041-000000000046.jsonl.gz"); },
       4, "audit-events/2026/05/01/000000000041-000000000046.jsonl.gz", kRows},
      {"a batch told of again under another name",
       [&](const std::string& d) { fs::copy(d + "/" + told, d + "/batches/000000000009.json"); }, 4, "batches/000000000009.json",
       kRows},
      {"the keys are gone", [&](const std::string& d) { fs::remove_all(d + "/signers"); }, 8, "", kRows},
  };
  for (const Case& one : cases) {
    fs::remove_all(dir_ / "b");
    fs::copy(dir_ / "a", dir_ / "b", fs::copy_options::recursive);
    one.change(dir_ / "b");
    const VerifyReport report = verify("b");
    EXPECT_EQ(report.exit_code(), one.exit) << one.what << "\n" << to_text(report);
    EXPECT_EQ(report.rows, one.proven) << one.what << "\n" << to_text(report);
    EXPECT_TRUE(std::ranges::any_of(report.findings, [&](const Finding& f) { return one.place.empty() || f.place == one.place; }))
        << one.what << "\n"
        << to_text(report);
  }
}

TEST_F(AuditUpload, AChangedByteOfAnyObjectIsNamed) {
  ASSERT_EQ(upload("a", 12).value(), 12);
  std::mt19937_64 random(7);
  for (const std::string& name : files_of(dir_ / "a")) {
    const std::string sound = read_text(dir_ / "a/" + name);
    for (int edits = 0; edits < 40; ++edits) {
      std::string text = sound;
      text[random() % text.size()] ^= static_cast<char>(1 + random() % 255);
      write_text(dir_ / "a/" + name, text);
      const VerifyReport report = verify("a");
      ASSERT_EQ(report.exit_code(), 4) << name << "\n" << to_text(report);
      ASSERT_TRUE(std::ranges::any_of(report.findings, [&](const Finding& f) { return f.place.starts_with(name); }))
          << name << "\n"
          << to_text(report);
    }
    write_text(dir_ / "a/" + name, sound);
  }
  whole("a", 12, "put back");
}

TEST_F(AuditUpload, AnArchiveIsReadAsAChain) {
  ASSERT_EQ(upload("a", kRows).value(), kRows);
  const StoredChain all = open_archive_chain(dir_ / "a").value();
  const VerifyReport report = verify_chain(all, {}).value();
  EXPECT_TRUE(report.verified()) << to_text(report);
  EXPECT_EQ(report.rows, kRows);
  EXPECT_EQ(report.head_hash, to_hex(as_bytes(head_.head_hash)));
}

}  // namespace
}  // namespace assay::testing
