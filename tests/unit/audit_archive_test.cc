#include "streams/audit_archive.h"

#include <algorithm>
#include <set>

#include "streams/audit_verify.h"
#include "streams/gzip.h"
#include "tests/unit/audit_support.h"

namespace assay::testing {
namespace {

/// Folds, signs and appends records from `at` on, in batches of 1 to `batch_max`. Stops at the first error.
Result<void> fill(AuditSink& sink, Signer& signer, const std::vector<Record>& records, ChainState state, uint64_t seed,
                  size_t batch_max) {
  std::mt19937_64 random(seed);
  auto next = std::ranges::find_if(records, [&](const Record& record) { return record.offset >= state.next_offset.value; });
  while (next != records.end()) {
    const auto count = std::min<ptrdiff_t>(static_cast<ptrdiff_t>(1 + random() % batch_max), records.end() - next);
    const ChainState before = state;
    const std::vector<SignedRow> rows = make_rows({next, next + count}, signer, state);
    TRY(sink.append(rows, before, state));
    TRY(sink.append(rows, before, state));  // the answer was lost: again
    next += count;
  }
  return {};
}

/// Without fsync: here only processes die.
ArchiveOptions unsynced() {
  ArchiveOptions options;
  options.sync = false;
  return options;
}

std::map<std::string, std::string> content_of(const std::string& dir) {
  std::map<std::string, std::string> out;
  for (const std::string& name : files_of(dir)) out[name] = read_text(dir + "/" + name);
  return out;
}

TEST(AuditArchive, GzipIsDeterministicAndStrict) {
  const std::string text(300000, 'x'), packed = gzip(text);
  EXPECT_EQ(packed, gzip(text));
  EXPECT_EQ(packed.substr(3, 5), std::string(5, '\0')) << "no flags, no time";
  auto unpack = [](std::string_view bytes) {
    std::string out;
    Result<void> result = gunzip(bytes, [&](std::string_view part) -> Result<void> {
      out += part;
      return {};
    });
    return result ? Result<std::string>(out) : Result<std::string>(result.error());
  };
  EXPECT_EQ(unpack(packed).value(), text);
  EXPECT_EQ(unpack(gzip("")).value(), "");
  EXPECT_FALSE(unpack(packed + "x"));
  EXPECT_FALSE(unpack(packed + packed));
  EXPECT_FALSE(unpack(""));
  for (size_t size = 0; size < packed.size(); ++size) EXPECT_FALSE(unpack(packed.substr(0, size))) << size;
}

TEST(AuditArchive, FileKeepsTheChainAcrossRestartsAndMergesSmallFiles) {
  TempDir dir;
  auto signer = test_signer(dir);
  const std::vector<Record> records = make_records(600, 3, 250);
  ChainState expected;
  make_rows(records, *signer, expected);
  for (size_t part : {100u, 350u, 600u}) {
    auto sink = open_archive_sink(dir / "audit", signer, unsynced());
    ASSERT_TRUE(sink) << sink.error().message;
    EXPECT_EQ(open_archive_sink(dir / "audit", signer).error().code, Errc::kRefused) << "a second writer";
    Result<ChainState> state = (*sink)->take_over(signer->key());
    ASSERT_TRUE(state) << state.error().message;
    Result<void> filled = fill(**sink, *signer, {records.begin(), records.begin() + static_cast<ptrdiff_t>(part)}, *state, part, 5);
    ASSERT_TRUE(filled) << filled.error().message;
    VerifyReport report = verify_archive(dir / "audit", {}).value();
    EXPECT_TRUE(report.verified()) << to_text(report);
    EXPECT_EQ(report.rows, static_cast<int64_t>(part));
  }
  const ArchiveManifest manifest = read_archive_manifest(dir / "audit").value();
  EXPECT_EQ(manifest.head, expected);
  std::map<std::string, int> files_of_day;
  for (const ArchiveFile& file : manifest.files) ++files_of_day[file.name.substr(0, file.name.rfind('/'))];
  EXPECT_EQ(files_of_day.size(), 3u);
  for (const auto& [day, count] : files_of_day)
    EXPECT_LE(count, 10) << day << ": as many as 250 has binary digits, and two restarts";
  std::vector<std::string> names;
  for (const ArchiveFile& file : manifest.files) names.push_back(file.name);
  EXPECT_TRUE(std::ranges::is_sorted(names)) << "the order of names is the order of the chain";
}

TEST(AuditArchive, ExportDoesNotDependOnBatches) {
  TempDir dir;
  auto signer = test_signer(dir);
  const std::vector<Record> records = make_records(300, 5, 120);
  std::vector<std::map<std::string, std::string>> exports;
  for (size_t batch : {1u, 40u, 300u}) {
    const std::string name = "audit" + std::to_string(batch);
    auto sink = open_archive_sink(dir / name, signer, unsynced()).value();
    ASSERT_TRUE(fill(*sink, *signer, records, sink->take_over(signer->key()).value(), batch, batch));
    Result<StoredChain> chain = open_archive_chain(dir / name);
    ASSERT_TRUE(chain) << chain.error().message;
    Result<ArchiveManifest> done = export_archive(std::move(*chain), dir / ("out" + name), *signer);
    ASSERT_TRUE(done) << done.error().message;
    EXPECT_TRUE(verify_archive(dir / ("out" + name), {})->verified());
    exports.push_back(content_of(dir / ("out" + name)));
    EXPECT_EQ(export_archive(open_archive_chain(dir / name).value(), dir / ("out" + name), *signer).error().code, Errc::kRefused)
        << "not empty";
  }
  EXPECT_EQ(exports[0], exports[1]);
  EXPECT_EQ(exports[0], exports[2]);
  EXPECT_EQ(std::ranges::count_if(exports[0], [](const auto& file) { return file.first.ends_with(".jsonl.gz"); }), 3)
      << "one a day";
  // An export is an archive: the chain goes on from it.
  auto sink = open_archive_sink(dir / "outaudit1", signer).value();
  EXPECT_EQ(sink->take_over(signer->key())->sequence, 300);
}

TEST(AuditArchive, ExportRefusesAChainThatWasCut) {
  TempDir dir;
  auto signer = test_signer(dir);
  auto sink = open_archive_sink(dir / "audit", signer).value();
  ASSERT_TRUE(fill(*sink, *signer, make_records(20), sink->take_over(signer->key()).value(), 1, 3));
  StoredChain chain = open_archive_chain(dir / "audit").value();
  ++chain.head.sequence;
  EXPECT_EQ(export_archive(std::move(chain), dir / "out", *signer).error().code, Errc::kTampered);
}

/// A crash before every single step that changes the disk: what is found afterwards is the chain before or after the batch,
/// it verifies, and going on leads to the same chain as without a crash.
TEST(AuditArchive, CrashAtEveryStepLosesNothing) {
  TempDir dir;
  auto signer = test_signer(dir);
  const std::vector<Record> records = make_records(24, 9, 10);
  ChainState expected;
  make_rows(records, *signer, expected);
  std::set<std::string> steps_seen;
  int crashes = 0;
  for (int crash_at = 0;; ++crash_at) {
    const std::string name = "audit" + std::to_string(crash_at);
    int step = 0;
    ArchiveOptions options = unsynced();
    options.file_rows_max = 4;
    options.before_step = [&](std::string_view what) -> Result<void> {
      if (step++ == crash_at) {
        steps_seen.insert(std::string(what.substr(0, what.find(' '))));
        return Error{Errc::kUnexpected, "crash"};
      }
      return {};
    };
    bool crashed = false;
    {
      auto sink = open_archive_sink(dir / name, signer, options).value();
      Result<ChainState> state = sink->take_over(signer->key());
      crashed = !state || !fill(*sink, *signer, records, *state, 17, 3);
    }
    if (!crashed) break;
    ++crashes;
    options.before_step = {};
    auto sink = open_archive_sink(dir / name, signer, options).value();
    Result<ChainState> state = sink->take_over(signer->key());
    ASSERT_TRUE(state) << "crash at step " << crash_at << ": " << state.error().message;
    VerifyOptions lenient;
    lenient.allow_empty = true;
    VerifyReport found = verify_archive(dir / name, lenient).value();
    ASSERT_TRUE(found.verified()) << "crash at step " << crash_at << "\n" << to_text(found);
    Result<void> rest = fill(*sink, *signer, records, *state, 23, 3);
    ASSERT_TRUE(rest) << "crash at step " << crash_at << ": " << rest.error().message;
    sink.reset();
    found = verify_archive(dir / name, {}).value();
    ASSERT_TRUE(found.verified()) << "crash at step " << crash_at << "\n" << to_text(found);
    EXPECT_EQ(read_archive_manifest(dir / name)->head, expected);
    std::filesystem::remove_all(dir / name);
  }
  EXPECT_GT(crashes, 20);
  EXPECT_EQ(steps_seen, (std::set<std::string>{"write", "publish", "remove", "signers"}));
}

TEST(AuditArchive, GoesOnOnlyFromWhatItWrote) {
  TempDir dir;
  auto signer = test_signer(dir), other = test_signer(dir, "other");
  const std::string audit = dir / "audit";
  std::string last_error;
  auto reopen = [&](std::shared_ptr<Signer> as) {
    auto sink = open_archive_sink(audit, as).value();
    Result<ChainState> state = sink->take_over(as->key());
    last_error = state ? "" : state.error().message;
    return state ? Errc::kUnexpected : state.error().code;
  };
  {
    auto sink = open_archive_sink(audit, signer).value();
    ASSERT_TRUE(fill(*sink, *signer, make_records(10), sink->take_over(signer->key()).value(), 1, 10));
  }
  // A new key joins the old ones, which stay.
  EXPECT_EQ(reopen(other), Errc::kUnexpected);
  EXPECT_EQ(SignerRegistry::load(audit + "/signers.json")->entries().size(), 2u);
  VerifyReport report = verify_archive(audit, {}).value();
  EXPECT_TRUE(report.verified()) << to_text(report);

  const std::string manifest = read_text(audit + "/manifest.json"), signers = read_text(audit + "/signers.json");
  std::string changed = manifest;
  char& digit = changed[changed.find("\"nextOffset\":\"") + 14];
  digit = digit == '9' ? '8' : '9';
  write_text(audit + "/manifest.json", changed);
  EXPECT_EQ(reopen(signer), Errc::kTampered) << last_error;
  std::filesystem::remove(audit + "/manifest.json");
  EXPECT_EQ(reopen(signer), Errc::kTampered) << "rows without a manifest";
  write_text(audit + "/manifest.json", manifest);
  SignerRegistry foreign = SignerRegistry::parse(signers).value();
  ASSERT_TRUE(foreign.add({test_signer(dir, "third")->key(), {}, {}, false}));
  write_text(audit + "/signers.json", foreign.to_json());
  EXPECT_EQ(reopen(signer), Errc::kTampered) << "a key that nobody signed for";
  write_text(audit + "/signers.json", signers);
  const std::string file = read_archive_manifest(audit)->files.front().name;
  std::filesystem::rename(audit + "/" + file, dir / "aside");
  EXPECT_EQ(reopen(signer), Errc::kIncomplete);
  std::filesystem::rename(dir / "aside", audit + "/" + file);
  EXPECT_EQ(reopen(signer), Errc::kUnexpected);
  EXPECT_TRUE(verify_archive(audit, {})->verified());
}

}  // namespace
}  // namespace assay::testing
