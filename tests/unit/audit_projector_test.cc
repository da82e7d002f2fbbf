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
  std::optional<ChainState> signed_state() const override { return inner_.signed_state(); }
  Result<void> append(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    return perhaps([&] { return inner_.append(rows, before, after); });
  }
  Result<void> stage(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    return perhaps([&] { return inner_.stage(rows, before, after); });
  }
  Result<void> sign(std::span<const SignedRow> rows, const ChainState& before, const ChainState& after) override {
    return perhaps([&] { return inner_.sign(rows, before, after); });
  }

 private:
  Result<void> perhaps(const std::function<Result<void>()>& call) {
    const uint64_t luck = random_() % 4;
    if (luck == 0) return away();
    TRY(call());
    if (luck == 1) return away();  // the answer is lost
    return {};
  }
  static Error away() { return {Errc::kUnreachable, "away"}; }
  AuditSink& inner_;
  std::mt19937_64 random_;
};

class FencedSink : public AuditSink {
 public:
  std::string describe() const override { return "fenced"; }
  Result<ChainState> take_over(const SignerKey&) override { return ChainState{}; }
  std::optional<ChainState> signed_state() const override { return std::nullopt; }
  Result<void> append(std::span<const SignedRow>, const ChainState&, const ChainState&) override { return fenced(); }
  Result<void> stage(std::span<const SignedRow>, const ChainState&, const ChainState&) override { return fenced(); }
  Result<void> sign(std::span<const SignedRow>, const ChainState&, const ChainState&) override { return fenced(); }

 private:
  static Error fenced() { return {Errc::kFenced, "fenced"}; }
};

/// A signer that is away while the test says so, and counts what it signed.
class MoodySigner : public Signer {
 public:
  explicit MoodySigner(std::shared_ptr<Signer> inner) : inner_(std::move(inner)) {}
  Result<std::string> sign(const Sha256Digest& digest) override {
    if (away) return Error{error, "away"};
    ++signatures;
    return inner_->sign(digest);
  }
  const SignerKey& key() const override { return inner_->key(); }
  std::atomic<bool> away{false};
  std::atomic<Errc> error{Errc::kUnreachable};
  std::atomic<int64_t> signatures{0};

 private:
  std::shared_ptr<Signer> inner_;
};

/// An event that a person sent.
std::string control_value(std::string_view type, Json data = Json::object()) {
  static uint64_t n = 1000000;
  const Id id = place_id("audit-events", 0, Offset(static_cast<int64_t>(++n)));
  return processors::audit_output(id, id, type, "user:test", "2026-05-01T12:00:00.000Z", Json::object(), std::move(data)).value;
}

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
    AuditProjector projector(log_, sink, signer_, options_);
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

  /// Runs a projector until `until` holds, while the test looks on.
  template <class Until, class While>
  Result<void> project_while(std::shared_ptr<Signer> signer, While&& meanwhile, Until&& until) {
    AuditProjector projector(log_, *sink_, std::move(signer), options_);
    std::atomic<bool> stop{false};
    Result<void> result;
    std::thread thread([&] { result = projector.run(stop); });
    meanwhile(projector);
    for (int i = 0; i < 20000 && !until(projector); ++i) std::this_thread::sleep_for(std::chrono::milliseconds(1));
    EXPECT_TRUE(until(projector));
    stop = true;
    thread.join();
    late_ = projector.counters().late;
    return result;
  }
  /// What an export would show, proven. The writer of it may be at work.
  VerifyReport visible() {
    VerifyOptions options;
    options.allow_empty = true;
    return verify_archive(dir_ / "audit", options).value();
  }
  void send(std::string_view type, Json data = Json::object()) {
    log_.append({0, kNoonMs, control_value(type, std::move(data)), std::nullopt});
  }
  void send_events(int count) {
    for (int i = 0; i < count; ++i) log_.append({0, kNoonMs, event_value(static_cast<uint64_t>(1000 + ++sent_)), std::nullopt});
  }
  static Json named(const SignerKey& key) { return processors::key_to_json(key); }

  TempDir dir_;
  std::shared_ptr<Signer> signer_;
  PartitionLog log_;
  int64_t late_ = 0;
  int sent_ = 0;
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
    AuditProjector projector(log_, *sink_, signer_, options_);
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
    Result<void> result = AuditProjector(*log, *sink_, signer_, options_).run(stop);
    ASSERT_FALSE(result);
    EXPECT_EQ(result.error().code, Errc::kCorrupt);
    EXPECT_NE(result.error().message.find("LOG_DIVERGED"), std::string::npos) << result.error().message;
  }
  for (int i = 0; i < 3; ++i) log_.append({0, kNoonMs, event_value(77), std::nullopt});
  ASSERT_TRUE(log_.delete_before({"audit-events", 0}, Offset(log_.end() - 1)));
  Result<void> result = AuditProjector(log_, *sink_, signer_, options_).run(stop);
  ASSERT_FALSE(result);
  EXPECT_EQ(result.error().code, Errc::kOutOfRange);
  EXPECT_NE(result.error().message.find("OFFSETS_LOST"), std::string::npos) << result.error().message;
}

TEST_F(AuditProjectorTest, WithoutItsSignerTheChainGrowsUnseenAndIsSignedInOrderAfterwards) {
  auto moody = std::make_shared<MoodySigner>(signer_);
  send_events(20);
  ASSERT_TRUE(project_while(
      moody, [](auto&) {}, [&](auto& p) { return p.position().value == log_.end(); }));
  EXPECT_EQ(visible().rows, 20);
  for (Errc error : {Errc::kUnreachable, Errc::kRefused}) {
    const int64_t before = visible().rows;
    moody->away = true;
    moody->error = error;
    reopen();
    send_events(50);
    ASSERT_TRUE(project_while(
        moody, [](auto&) {}, [&](auto& p) { return p.position().value == log_.end() && p.counters().unsigned_rows == 50; }))
        << "a signer that is away stops nothing";
    EXPECT_EQ(visible().rows, before);
    EXPECT_TRUE(visible().verified()) << to_text(visible()) << "what is seen stands at every instant";
    EXPECT_EQ(read_archive_head(dir_ / "audit")->sequence, before + 50);
    EXPECT_EQ(read_archive_manifest(dir_ / "audit")->head.sequence, before);
    // A restart in the middle of it, more rows, and the signer is back.
    reopen();
    ASSERT_TRUE(project_while(
        moody,
        [&](auto&) {
          send_events(30);
          std::this_thread::sleep_for(std::chrono::milliseconds(30));
          moody->away = false;
        },
        [&](auto& p) { return p.position().value == log_.end() && p.counters().unsigned_rows == 0; }));
    EXPECT_GE(late_, 50);
    EXPECT_EQ(visible().rows, before + 80);
    EXPECT_TRUE(visible().verified()) << to_text(visible());
    EXPECT_EQ(read_archive_head(dir_ / "audit")->sequence, before + 80);
    EXPECT_TRUE(files_of(dir_ / "audit-staging").empty());
  }
}

TEST_F(AuditProjectorTest, StagedRowsSurviveAFlakySinkAndStopsAnywhere) {
  auto moody = std::make_shared<MoodySigner>(signer_);
  std::mt19937_64 random(17);
  for (int turn = 0; turn < 12; ++turn) {
    send_events(30);
    FlakySink flaky(*sink_, random());
    AuditProjector projector(log_, flaky, moody, options_);
    std::atomic<bool> stop{false};
    std::thread thread([&] { EXPECT_TRUE(projector.run(stop)); });
    for (int i = 0; i < 4; ++i) {
      moody->away = random() % 2 == 0;
      std::this_thread::sleep_for(std::chrono::milliseconds(random() % 6));
    }
    stop = true;
    thread.join();
    EXPECT_TRUE(visible().verified()) << to_text(visible());
    reopen();
  }
  moody->away = false;
  ASSERT_TRUE(project_while(
      moody, [](auto&) {}, [&](auto& p) { return p.position().value == log_.end() && p.counters().unsigned_rows == 0; }));
  EXPECT_EQ(visible().rows, 360);
  EXPECT_TRUE(visible().verified()) << to_text(visible());
}

TEST_F(AuditProjectorTest, WhatIsSignedLateIsWhatTheLogSaysNotWhatLiesStaged) {
  auto moody = std::make_shared<MoodySigner>(signer_);
  moody->away = true;
  send_events(5);
  ASSERT_TRUE(project_while(
      moody, [](auto&) {}, [&](auto& p) { return p.counters().unsigned_rows == 5; }));
  sink_.reset();
  for (const std::string& name : files_of(dir_ / "audit-staging"))
    if (name != "head.json") {
      std::string text = read_text(dir_ / "audit-staging/" + name);
      text.replace(text.find("agent-"), 6, "ghost-");
      write_text(dir_ / "audit-staging/" + name, text);
    }
  moody->away = false;
  reopen();
  ASSERT_TRUE(project_while(
      moody, [](auto&) {}, [&](auto& p) { return p.position().value == log_.end() && p.counters().unsigned_rows == 0; }));
  EXPECT_TRUE(visible().verified());
  ChainState expected;
  auto reader = log_.open_reader({{{"audit-events", 0}, Offset(0)}}).value();
  const std::optional<Fetch> fetch = reader->poll(Milliseconds(1), 100).value();
  ASSERT_TRUE(fetch);
  for (const RecordView& record : fetch->records) (void)fold_audit_record(record, {}, expected);
  EXPECT_EQ(visible().head_hash, to_hex(as_bytes(expected.head_hash)));
}

TEST_F(AuditProjectorTest, AStagedHeadThatTheLogDoesNotMakeIsNotSigned) {
  auto moody = std::make_shared<MoodySigner>(signer_);
  moody->away = true;
  send_events(5);
  ASSERT_TRUE(project_while(
      moody, [](auto&) {}, [&](auto& p) { return p.counters().unsigned_rows == 5; }));
  sink_.reset();
  std::string head = read_text(dir_ / "audit-staging/head.json");
  const size_t at = head.find("\"headHash\":\"") + 12;
  head[at] = head[at] == '0' ? '1' : '0';
  write_text(dir_ / "audit-staging/head.json", head);
  moody->away = false;
  reopen();
  std::atomic<bool> stop{false};
  Result<void> result = AuditProjector(log_, *sink_, moody, options_).run(stop);
  ASSERT_FALSE(result);
  EXPECT_NE(result.error().message.find("LOG_DIVERGED"), std::string::npos) << result.error().message;
  EXPECT_EQ(moody->signatures, 0) << "but for the manifest, nothing";
}

TEST_F(AuditProjectorTest, SafeModeChainsAndDoesNotSign) {
  auto moody = std::make_shared<MoodySigner>(signer_);
  send_events(5);
  send("audit.safe_mode_entered", Json::object().set("reason", "rebuild"));
  send_events(9);
  ASSERT_TRUE(project_while(
      moody, [](auto&) {}, [&](auto& p) { return p.position().value == log_.end() && p.counters().unsigned_rows >= 9; }));
  const int64_t seen = visible().rows;
  EXPECT_LE(seen, 6);
  EXPECT_TRUE(seen == 0 || visible().verified());
  reopen();
  ASSERT_TRUE(project_while(
      moody, [&](auto&) { send("audit.safe_mode_left"); },
      [&](auto& p) { return p.position().value == log_.end() && p.counters().unsigned_rows == 0; }));
  EXPECT_EQ(visible().rows, 16);
  EXPECT_TRUE(visible().verified()) << to_text(visible());
}

TEST_F(AuditProjectorTest, PausedItHoldsWhereItIsUntilItSeesTheEnd) {
  send_events(5);
  send("audit.paused", Json::object().set("reason", "maintenance"));
  send_events(7);
  for (int round = 0; round < 2; ++round) {  // also after a restart
    ASSERT_TRUE(project_while(
        signer_, [](auto&) { std::this_thread::sleep_for(std::chrono::milliseconds(60)); },
        [&](auto& p) { return p.control().paused && p.position().value == 6; }));
    EXPECT_EQ(visible().rows, 6);
    reopen();
  }
  ASSERT_TRUE(project_while(
      signer_, [&](auto&) { send("audit.resumed"); }, [&](auto& p) { return p.position().value == log_.end(); }));
  EXPECT_EQ(visible().rows, 14);
  reopen();
  options_.rebuild = true;
  sink_.reset();
  sink_ = open_archive_sink(dir_ / "replay", signer_, archive_options_).value();
  ASSERT_TRUE(project(*sink_));
  EXPECT_EQ(read_archive_manifest(dir_ / "replay")->head, read_archive_manifest(dir_ / "audit")->head)
      << "a replay's path is the same";
}

TEST_F(AuditProjectorTest, KeysComeAndGoByEventsAndEveryRowVerifies) {
  auto next = test_signer(dir_, "next"), third = test_signer(dir_, "third"), stand_in = test_signer(dir_, "emergency");
  auto moody = std::make_shared<MoodySigner>(signer_);
  options_.signer_of = [&](const processors::KeyStanding& key) -> Result<std::shared_ptr<Signer>> {
    for (auto& signer : {next, third, stand_in})
      if (signer->key() == key.key) return signer;
    return Error{Errc::kNotFound, "no such key"};
  };
  const std::string a = signer_->key().signer_id, b = next->key().signer_id, e = stand_in->key().signer_id;
  const Json to = Json::object().set("to", b);
  auto settle = [&] {
    ASSERT_TRUE(project_while(
        moody, [](auto&) {}, [&](auto& p) { return p.position().value == log_.end() && p.counters().unsigned_rows == 0; }));
    EXPECT_TRUE(visible().verified()) << to_text(visible());
    reopen();
  };
  send_events(3);
  send("audit.key_created", Json::object().set("from", named(signer_->key())).set("to", named(next->key())));
  send("audit.key_published", to);
  send_events(2);
  settle();
  send("audit.key_staged", to);  // row 8
  send("audit.key_tested", to);
  send("audit.key_promoted", to);
  send_events(4);
  settle();
  send("audit.key_revoked", Json::object().set("from", a));  // row 15
  send_events(2);
  settle();
  auto registry = SignerRegistry::load(dir_ / "audit/signers.json").value();
  EXPECT_EQ(registry.find(b)->first_sequence, 8);
  EXPECT_EQ(registry.find(a)->last_sequence, 14);

  // The key in use is away; the emergency key signs what waits, and rows say so.
  auto moody_next = std::make_shared<MoodySigner>(next);
  moody_next->away = true;
  next = moody_next;
  send_events(3);  // rows 18 to 20
  ASSERT_TRUE(project_while(
      moody, [](auto&) {}, [&](auto& p) { return p.counters().unsigned_rows == 3; }));
  reopen();
  send("audit.emergency_signer", Json::object()
                                     .set("key", named(stand_in->key()))
                                     .set("from", named(next->key()))
                                     .set("fromSequence", "18")
                                     .set("reason", "away"));
  send_events(2);
  settle();
  registry = SignerRegistry::load(dir_ / "audit/signers.json").value();
  EXPECT_EQ(registry.find(e)->provider, "emergency");
  moody_next->away = false;
  send("audit.emergency_signer_ended");  // row 24
  send_events(1);
  settle();

  // The key is stolen: its successor attests what it signed, and no row changes.
  const std::string head = visible().head_hash;
  send("audit.key_compromised", Json::object()
                                    .set("key", named(next->key()))
                                    .set("successor", named(third->key()))
                                    .set("reason", "stolen")
                                    .set("fromSequence", "26"));
  send_events(2);
  settle();
  registry = SignerRegistry::load(dir_ / "audit/signers.json").value();
  EXPECT_TRUE(registry.find(b)->revoked);
  EXPECT_EQ(registry.find(b)->attested_through, 25);
  EXPECT_EQ(registry.find(third->key().signer_id)->first_sequence, 26);
  sink_.reset();
  StoredChain chain = open_archive_chain(dir_ / "audit").value();
  std::vector<std::string> kids, hashes;
  bool marked = false;
  for (auto lines = chain.lines().value(); !lines.empty(); lines = chain.lines().value())
    for (const StoredLine& line : lines) {
      const SignedRow row = parse_audit_line(line.text).value();
      kids.push_back(row.signer_kid);
      hashes.push_back(to_hex(as_bytes(row.row.hash)));
      EXPECT_EQ(row.row.payload.find("\"provider\":\"emergency\"") != std::string::npos, kids.size() >= 21 && kids.size() <= 23)
          << kids.size();
      marked = marked || row.row.payload.find("\"provider\":\"emergency\"") != std::string::npos;
    }
  EXPECT_TRUE(marked);
  ASSERT_EQ(kids.size(), 28u);
  EXPECT_EQ(hashes[24], head);
  const std::string c = third->key().signer_id;
  for (size_t row = 1; row <= kids.size(); ++row)
    EXPECT_EQ(kids[row - 1], row <= 9 ? a : row <= 17 ? b : row <= 23 ? e : row <= 25 ? b : c) << row;

  // A chain that is made anew needs none of the keys of the past.
  options_.rebuild = true;
  options_.signer_of = nullptr;
  sink_ = open_archive_sink(dir_ / "replay", third, archive_options_).value();
  signer_ = third;
  ASSERT_TRUE(project(*sink_));
  const VerifyReport again = verify_archive(dir_ / "replay", {}).value();
  EXPECT_TRUE(again.verified()) << to_text(again);
  EXPECT_EQ(again.head_hash, hashes.back());

  // Somebody with the stolen key adds a row of his own: nobody believes it.
  EXPECT_NE(registry.check(b, 29, Sha256Digest{}, to_base64(next->sign(Sha256Digest{}).value())), std::nullopt);
}

}  // namespace
}  // namespace assay::testing
