#include "streams/audit_projector.h"

#include <chrono>
#include <thread>

#include "streams/audit_archive.h"
#include "streams/audit_verify.h"
#include "tests/unit/audit_support.h"

namespace assay::testing {
namespace {

/// A sink that says it is unreachable from time to time: before it stored a batch, or after.
class FlakySink : public AuditSink {
 public:
  FlakySink(AuditSink& inner, uint64_t seed) : inner_(inner), random_(seed) {}
  std::string describe() const override { return "flaky " + inner_.describe(); }
  Result<ChainState> take_over(const SignerKey& signer) override {
    if (random_() % 2 == 0) return away();
    return inner_.take_over(signer);
  }
  Result<void> append(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    const uint64_t luck = random_() % 4;
    if (luck == 0) return away();
    TRY(inner_.append(rows, before, after));
    if (luck == 1) return away();  // the answer is lost
    return {};
  }

 private:
  static Error away() { return {Errc::kUnreachable, "away"}; }
  AuditSink& inner_;
  std::mt19937_64 random_;
};

class FencedSink : public AuditSink {
 public:
  std::string describe() const override { return "fenced"; }
  Result<ChainState> take_over(const SignerKey&) override { return ChainState{}; }
  Result<void> append(std::span<const SignedRow>, const ChainState&, const ChainState&) override {
    return Error{Errc::kFenced, "fenced"};
  }
};

class AuditProjectorTest : public ::testing::Test {
 protected:
  void SetUp() override {
    signer_ = test_signer(dir_);
    options_.batch_rows_max = 7;
    options_.linger = Milliseconds(1);
    options_.retry_min = options_.retry_max = Milliseconds(1);
    options_.writer_of = &writer_of;
    options_.dead_letter = [this](const RecordView& record, Reason reason, std::string_view) -> Result<void> {
      dead_.emplace_back(record.offset.value, reason);
      return {};
    };
    archive_options_.sync = false;
    reopen();
  }

  void reopen() {
    sink_.reset();
    sink_ = open_archive_sink(dir_ / "audit", signer_, archive_options_).value();
  }

  /// Projects until everything in the log is stored, or the projector gives up.
  Result<void> project(AuditSink& sink) {
    AuditProjector projector(log_, sink, *signer_, options_);
    std::atomic<bool> stop{false};
    std::atomic<bool> ended{false};
    Result<void> result;
    std::thread thread([&] {
      result = projector.run(stop);
      ended = true;
    });
    for (int i = 0; i < 20000 && !ended && projector.position().value < log_.end(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    const bool reached = projector.position().value == log_.end();
    stop = true;
    thread.join();
    EXPECT_TRUE(reached || !result) << "at " << projector.position().value << " of " << log_.end();
    rows_ = projector.counters().rows;
    repeated_ = projector.counters().repeated;
    retries_ = projector.counters().retries;
    return result;
  }

  TempDir dir_;
  std::shared_ptr<Signer> signer_;
  PartitionLog log_;
  ArchiveOptions archive_options_;
  std::unique_ptr<AuditSink> sink_;
  AuditProjectorOptions options_;
  std::vector<std::pair<int64_t, Reason>> dead_;
  int64_t rows_ = 0, repeated_ = 0, retries_ = 0;
};

TEST_F(AuditProjectorTest, StoresTheFoldOfThePartition) {
  const std::vector<Record> records = make_records(100);
  ChainState expected;
  make_rows(records, *signer_, expected);
  log_.append_all(records);
  ASSERT_TRUE(project(*sink_));
  EXPECT_EQ(rows_, 100);
  EXPECT_EQ(read_archive_manifest(dir_ / "audit")->head, expected);
  EXPECT_EQ(log_.committed_offset(), log_.end());
  reopen();
  ASSERT_TRUE(project(*sink_));
  EXPECT_EQ(rows_, 0) << "nothing is stored twice";
}

TEST_F(AuditProjectorTest, PassesMarkersAndEmptiness) {
  ASSERT_TRUE(project(*sink_)) << "an empty partition";
  for (int i = 0; i < 5; ++i) log_.append_marker();
  reopen();
  ASSERT_TRUE(project(*sink_));
  EXPECT_EQ(log_.committed_offset(), 5) << "markers are no lag";
}

TEST_F(AuditProjectorTest, LosesNothingWhenTheSinkComesAndGoes) {
  const std::vector<Record> records = make_records(300, 8);
  ChainState expected;
  make_rows(records, *signer_, expected);
  log_.append_all(records);
  FlakySink flaky(*sink_, 5);
  ASSERT_TRUE(project(flaky));
  EXPECT_GT(retries_, 5);
  EXPECT_EQ(read_archive_manifest(dir_ / "audit")->head, expected);
  sink_.reset();
  EXPECT_TRUE(verify_archive(dir_ / "audit", {})->verified());
}

TEST_F(AuditProjectorTest, StoppedAnywhereItGoesOnWhereItWas) {
  const std::vector<Record> records = make_records(200, 9);
  ChainState expected;
  make_rows(records, *signer_, expected);
  log_.append_all(records);
  std::mt19937_64 random(3);
  for (int i = 0; i < 8; ++i) {
    AuditProjector projector(log_, *sink_, *signer_, options_);
    std::atomic<bool> stop{false};
    std::thread thread([&] { EXPECT_TRUE(projector.run(stop)); });
    std::this_thread::sleep_for(std::chrono::milliseconds(random() % 15));
    stop = true;
    thread.join();
    reopen();
  }
  ASSERT_TRUE(project(*sink_));
  EXPECT_EQ(read_archive_manifest(dir_ / "audit")->head, expected);
}

TEST_F(AuditProjectorTest, RefusedRecordsAreDeadLettersAndRepeatsAreDropped) {
  auto send = [&](const std::string& value, std::optional<std::string> writer) {
    log_.append({0, kNoonMs, value, std::move(writer)});
  };
  send(event_value(0), "a:0");
  send("not json", std::nullopt);
  send(event_value(1), "a:1");
  send(event_value(1), "a:1");
  send("", std::nullopt);
  ASSERT_TRUE(project(*sink_));
  EXPECT_EQ(rows_, 2);
  EXPECT_EQ(repeated_, 1);
  EXPECT_EQ(dead_, (std::vector<std::pair<int64_t, Reason>>{{1, Reason::kNotJson}, {4, Reason::kEmpty}}));
  send(event_value(5), "a:5");
  reopen();
  Result<void> halted = project(*sink_);
  ASSERT_FALSE(halted);
  EXPECT_EQ(halted.error().code, Errc::kIncomplete);
  EXPECT_NE(halted.error().message.find("INPUT_GAP"), std::string::npos) << halted.error().message;
}

TEST_F(AuditProjectorTest, StopsWhenFenced) {
  log_.append_all(make_records(3));
  FencedSink fenced;
  EXPECT_EQ(project(fenced).error().code, Errc::kFenced);
}

TEST_F(AuditProjectorTest, KnowsALogOfAnotherOrigin) {
  log_.append_all(make_records(10));
  ASSERT_TRUE(project(*sink_));
  reopen();
  PartitionLog shorter;
  shorter.append_all(make_records(4));
  PartitionLog other;
  std::vector<Record> records = make_records(10);
  for (Record& record : records) record.timestamp_ms += 1;
  other.append_all(records);
  std::atomic<bool> stop{false};
  for (PartitionLog* log : {&shorter, &other}) {
    Result<void> result = AuditProjector(*log, *sink_, *signer_, options_).run(stop);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Errc::kCorrupt);
    EXPECT_NE(result.error().message.find("LOG_DIVERGED"), std::string::npos) << result.error().message;
  }
  for (int i = 0; i < 3; ++i) log_.append({0, kNoonMs, event_value(77), std::nullopt});
  ASSERT_TRUE(log_.delete_before({"audit-events", 0}, Offset(log_.end() - 1)));
  Result<void> result = AuditProjector(log_, *sink_, *signer_, options_).run(stop);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kOutOfRange);
  EXPECT_NE(result.error().message.find("OFFSETS_LOST"), std::string::npos) << result.error().message;
}

}  // namespace
}  // namespace assay::testing
