// Lag: what is measured on a log with markers and aborted records, and every transition of the state machine.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "streams/lag.h"

namespace assay::streams {
namespace {

using testing::HasSubstr;

// One partition as a list of places: 'r' a record, 'm' a commit marker, 'a' an aborted record. Record n has timestamp 1000 * n.
class FakeLog final : public Log {
 public:
  std::string places;
  int64_t start = 0;
  std::optional<Offset> committed_at;
  size_t fetch_records = 3;
  bool silent = false;

  std::string describe() const override { return "fake"; }
  Result<std::string> cluster_id() override { return std::string("test"); }
  Result<void> create_topics(std::span<const TopicConfig>) override { return unused(); }
  Result<std::vector<TopicConfig>> topics() override { return unused(); }
  Result<int32_t> partition_count(const std::string&) override { return 1; }
  Result<OffsetRange> range(const TopicPartition&) override { return OffsetRange{Offset(start), Offset(int64_t(places.size()))}; }
  Result<std::unique_ptr<LogWriter>> open_writer(const std::string&) override { return unused(); }
  Result<std::unique_ptr<LogProducer>> open_producer() override { return unused(); }
  Result<std::unique_ptr<Membership>> join(const std::string&, const std::vector<std::string>&, const std::string&) override {
    return unused();
  }
  Result<void> commit_offsets(const OffsetCommit&, const Membership*) override { return unused(); }
  Result<void> delete_before(const TopicPartition&, Offset) override { return unused(); }
  Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string&, std::span<const TopicPartition> of) override {
    std::map<TopicPartition, CommittedOffset> out;
    if (committed_at) out[of[0]] = {*committed_at, ""};
    return out;
  }
  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    return std::unique_ptr<LogReader>(new FakeReader(*this, from.begin()->first, from.begin()->second));
  }

 private:
  static Error unused() { return {Errc::kUnexpected, "not asked in these tests"}; }

  class FakeReader final : public LogReader {
   public:
    FakeReader(FakeLog& log, TopicPartition tp, Offset next) : log_(log), tp_(std::move(tp)), next_(next) {}
    Result<std::optional<Fetch>> poll(Milliseconds, size_t) override {
      if (log_.silent) return std::optional<Fetch>();
      Fetch fetch;
      fetch.from = tp_;
      for (; next_.value < int64_t(log_.places.size()) && fetch.records.size() < log_.fetch_records; ++next_) {
        if (log_.places[size_t(next_.value)] != 'r') continue;
        RecordView record;
        record.offset = next_;
        record.timestamp = WallTime(1000 * next_.value);
        fetch.records.push_back(record);
      }
      while (next_.value < int64_t(log_.places.size()) && log_.places[size_t(next_.value)] != 'r') ++next_;
      fetch.next = next_;
      fetch.at_end = next_.value == int64_t(log_.places.size());
      return std::optional<Fetch>(std::move(fetch));
    }
    Result<void> seek(const TopicPartition&, Offset) override { return unused(); }
    void pause(const TopicPartition&) override {}
    void resume(const TopicPartition&) override {}

   private:
    FakeLog& log_;
    TopicPartition tp_;
    Offset next_;
  };
};

const TopicPartition kTp{"eval.reports.v1", 2};
constexpr WallTime kNow(100000);

LagSample measure(FakeLog& log, LagOptions options = {}) {
  auto sample = sample_lag(log, {kTp, "assay.scoring", {}, {}, -1}, kNow, options);
  EXPECT_TRUE(sample) << sample.error().message;
  return sample ? *sample : LagSample{};
}

TEST(SampleLag, CountsRecordsAndNotMarkers) {
  FakeLog log;
  log.places = "rrmrmaammrm";
  log.committed_at = Offset(1);
  LagSample s = measure(log);
  EXPECT_EQ(s.records_behind, 3);
  EXPECT_EQ(s.time_behind_ms, 100000 - 1000);
  EXPECT_EQ(s.end, Offset(11));
  log.committed_at = Offset(10);  // only a marker lies behind it
  s = measure(log);
  EXPECT_EQ(s.records_behind, 0);
  EXPECT_EQ(s.time_behind_ms, 0);
  log.committed_at = Offset(4);  // markers and aborted records first: the age is that of the first real one
  s = measure(log);
  EXPECT_EQ(s.records_behind, 1);
  EXPECT_EQ(s.time_behind_ms, 100000 - 9000);
}

TEST(SampleLag, TakesTheStartWhenNothingWasCommittedOrRetentionTookThePlace) {
  FakeLog log;
  log.places = "rrrrr";
  log.start = 3;
  LagSample s = measure(log);
  EXPECT_EQ(s.committed, std::nullopt);
  EXPECT_EQ(s.records_behind, 2);
  EXPECT_EQ(s.time_behind_ms, 100000 - 3000);
  log.committed_at = Offset(1);
  EXPECT_EQ(measure(log).records_behind, 2);
  EXPECT_EQ(judge_lag(std::vector{measure(log)}).state, LagState::kAtRiskOfLoss);
}

TEST(SampleLag, PrefersAPositionThatIsGiven) {
  FakeLog log;
  log.places = "rrrr";
  log.committed_at = Offset(0);
  auto s = sample_lag(log, {kTp, "assay.audit", Offset(3), {}, -1}, kNow);
  ASSERT_TRUE(s);
  EXPECT_EQ(s->records_behind, 1);
  EXPECT_EQ(s->committed, Offset(3));
}

// An archiver holds records that it has read and not stored: the log is not read for them.
TEST(SampleLag, TakesTheWordOfWhoeverHoldsTheRecords) {
  FakeLog log;
  log.places = "rrmrrr";
  log.silent = true;
  auto s = sample_lag(log, {kTp, "assay.archive", Offset(1), true, -1, "", 0, LagTarget::Held{Offset(4), 2, WallTime(1000)}}, kNow);
  ASSERT_TRUE(s) << s.error().message;
  EXPECT_EQ(s->records_behind, 4) << "two held, two that are not read yet";
  EXPECT_EQ(s->time_behind_ms, 99000);
  log.places = "rrmm";  // only markers behind what is archived
  s = sample_lag(log, {kTp, "assay.archive", Offset(2), true, -1, "", 0, LagTarget::Held{Offset(4), 0, {}}}, kNow);
  ASSERT_TRUE(s) << s.error().message;
  EXPECT_EQ(s->records_behind, 0);
}

// Against a count of the string itself: exact up to the limit, an upper bound beyond, the age exact always.
TEST(SampleLag, AgreesWithTheListOfPlaces) {
  std::mt19937 random(3);
  for (int round = 0; round < 2000; ++round) {
    FakeLog log;
    for (size_t i = random() % 40; i > 0; --i) log.places.push_back("rrrma"[random() % 5]);
    log.fetch_records = 1 + random() % 7;
    log.committed_at = Offset(int64_t(random() % (log.places.size() + 1)));
    std::string_view rest = std::string_view(log.places).substr(size_t(log.committed_at->value));
    auto real = std::count(rest.begin(), rest.end(), 'r');
    LagOptions options;
    options.count_limit = int64_t(1 + random() % 20);
    LagSample s = measure(log, options);
    if (real < options.count_limit) {
      ASSERT_EQ(s.records_behind, real) << log.places << " from " << log.committed_at->value << " limit " << options.count_limit;
    } else {
      ASSERT_GE(s.records_behind, real);
      ASSERT_LE(s.records_behind, int64_t(rest.size()));
    }
    size_t first = rest.find('r');
    ASSERT_EQ(s.time_behind_ms, first == std::string_view::npos ? 0 : 100000 - 1000 * (log.committed_at->value + int64_t(first)));
  }
}

TEST(SampleLag, SaysWhenRecordsDoNotCome) {
  FakeLog log;
  log.places = "rr";
  log.silent = true;
  LagOptions options;
  options.read_timeout_ms = 20;
  auto s = sample_lag(log, {kTp, "assay.scoring", {}, {}, -1}, kNow, options);
  ASSERT_FALSE(s);
  EXPECT_EQ(s.error().code, Errc::kUnreachable);
  EXPECT_THAT(s.error().message, HasSubstr("eval.reports.v1-2"));
}

// Samples of one partition, seconds apart, as a test writes them.
struct History {
  std::vector<LagSample> samples;
  History& at(int64_t second, std::optional<int64_t> committed, int64_t end, int64_t behind_s, std::optional<bool> running = true) {
    LagSample s;
    s.at = WallTime(second * 1000);
    s.end = Offset(end);
    if (committed) s.committed = Offset(*committed);
    s.records_behind = end - committed.value_or(0);
    s.time_behind_ms = behind_s * 1000;
    s.running = running;
    samples.push_back(s);
    return *this;
  }
  LagVerdict judge() const { return judge_lag(samples); }
};

#define EXPECT_LAG(history, expected_state, rule_part)                        \
  do {                                                                        \
    LagVerdict verdict = (history).judge();                                   \
    EXPECT_EQ(lag_state_name(verdict.state), expected_state) << verdict.rule; \
    EXPECT_THAT(verdict.rule, HasSubstr(rule_part));                          \
  } while (false)

TEST(JudgeLag, OkWhenNothingWaitsOrWhatWaitsIsYoung) {
  EXPECT_LAG(History().at(0, 10, 10, 0), "ok", "everything");
  EXPECT_LAG(History().at(0, 10, 10, 0, false), "ok", "everything");  // stopped, and nothing to do
  EXPECT_LAG(History().at(0, 5, 10, 60), "ok", "within 1m");
  EXPECT_LAG(History().at(0, 5, 10, 61), "falling behind", "no earlier sample");
}

TEST(JudgeLag, FallingBehindThenCatchingUpThenOk) {
  History h;
  h.at(0, 100, 200, 50).at(30, 110, 300, 70);
  EXPECT_LAG(h, "falling behind", "from 50s to 1m10s in 30s");
  h.at(60, 250, 400, 65).at(90, 350, 460, 62);
  EXPECT_LAG(h, "falling behind", "50s");  // over the whole span it still grew
  h.at(150, 410, 420, 61);
  EXPECT_LAG(h, "catching up", "from 1m10s to 1m1s in 2m");
  h.at(160, 419, 420, 3);
  EXPECT_LAG(h, "ok", "3s old");
}

TEST(JudgeLag, CatchingUpByRecordsWhenTheAgesDoNotFall) {
  // A backfill whose records all carry the same old timestamp.
  EXPECT_LAG(History().at(0, 0, 1000, 900000).at(30, 400, 1000, 900030), "catching up", "records behind fell from 1000 to 600");
}

TEST(JudgeLag, SamplesTooCloseShowNoTrend) {
  EXPECT_LAG(History().at(0, 0, 1000, 900).at(5, 400, 1000, 100), "falling behind", "no earlier sample");
}

TEST(JudgeLag, StoppedWhenNoTaskRuns) {
  EXPECT_LAG(History().at(0, 5, 10, 61, false), "stopped", "no task runs and 5 records wait");
  EXPECT_LAG(History().at(0, 9, 10, 61, false), "stopped", "1 record waits");
}

TEST(JudgeLag, StalledThenStoppedWhenNobodyKnowsTheTask) {
  History h;
  h.at(0, 5, 10, 61, std::nullopt).at(59, 5, 20, 120, std::nullopt);
  EXPECT_LAG(h, "falling behind", "from 1m1s to 2m");
  h.at(60, 5, 20, 121, std::nullopt);
  EXPECT_LAG(h, "stalled", "stays at 5 for 1m");
  h.at(599, 5, 20, 660, std::nullopt);
  EXPECT_LAG(h, "stalled", "stays at 5");
  h.at(600, 5, 20, 661, std::nullopt);
  EXPECT_LAG(h, "stopped", "nothing was committed for 10m");
}

TEST(JudgeLag, StalledStaysStalledWhileTheTaskRunsAndEndsWithProgress) {
  History h;
  h.at(0, 5, 10, 61).at(700, 5, 20, 761);
  EXPECT_LAG(h, "stalled", "for 11m40s");
  h.at(730, 6, 20, 700);
  EXPECT_LAG(h, "catching up", "fell");
}

TEST(JudgeLag, AnIdleGroupDoesNotBecomeStalledByANewRecord) {
  // Nothing to commit for an hour, then a record: what counts is how long it waits, not how old the last commit is.
  EXPECT_LAG(History().at(0, 10, 10, 0).at(3600, 10, 11, 70), "falling behind", "1m10s");
}

TEST(JudgeLag, RewoundUntilThePlaceIsRegained) {
  History h;
  h.at(0, 100, 100, 0).at(10, 40, 100, 500);
  EXPECT_LAG(h, "rewound", "from 100 to 40");
  h.at(20, 99, 100, 5);
  EXPECT_LAG(h, "rewound", "from 100 to 99");
  h.at(30, 100, 100, 0);
  EXPECT_LAG(h, "ok", "everything");
  EXPECT_LAG(History().at(0, 100, 100, 0).at(10, std::nullopt, 100, 5), "rewound", "from 100 to none");
  EXPECT_LAG(History().at(0, 100, 50, 0), "rewound", "lies past the end 50");
}

TEST(JudgeLag, AtRiskOfLossComesFirst) {
  History h;
  h.at(0, 5, 10, 61, false);
  h.samples.back().retention_ms = 76 * 1000;
  EXPECT_LAG(h, "at risk of loss", "1m1s old and the topic keeps 1m16s");
  EXPECT_LAG(h, "at risk of loss", "15s are left");
  EXPECT_EQ(h.samples.back().time_left_ms(), 15000);
  h.samples.back().retention_ms = 60 * 1000;
  EXPECT_LAG(h, "at risk of loss", "it may be gone any moment");
  h.samples.back().retention_ms = 77 * 1000;
  EXPECT_LAG(h, "stopped", "no task runs");
  h.samples.back().start = Offset(6);
  EXPECT_LAG(h, "at risk of loss", "offsets 5 to 5 were not processed");
}

TEST(JudgeLag, WhatWaitsByDesignIsNoNews) {
  History h;
  h.at(0, 5, 10, 290, true);
  h.at(300, 5, 10, 359, true);
  EXPECT_LAG(h, "stalled", "stays at");
  for (LagSample& sample : h.samples) sample.waits_ms = 300 * 1000;
  EXPECT_LAG(h, "ok", "within 6m");
  h.at(301, 5, 10, 361, true);
  h.samples.back().waits_ms = 300 * 1000;
  EXPECT_LAG(h, "falling behind", "");
}

TEST(LagMonitor, KeepsHistoriesApartAndForgets) {
  FakeLog log;
  log.places = "rrrr";
  log.committed_at = Offset(2);
  LagMonitor monitor;
  std::vector<LagTarget> both = {{kTp, "a", {}, true, -1}, {kTp, "b", Offset(4), true, -1}};
  auto rows = monitor.observe(log, both, WallTime(100000));
  ASSERT_TRUE(rows);
  EXPECT_EQ((*rows)[0].verdict.state, LagState::kFallingBehind);
  EXPECT_EQ((*rows)[1].verdict.state, LagState::kOk);
  EXPECT_TRUE(unhealthy(*rows));
  rows = monitor.observe(log, both, WallTime(170000));
  EXPECT_EQ((*rows)[0].verdict.state, LagState::kStalled);
  rows = monitor.observe(log, std::span(both).subspan(1), WallTime(180000));
  EXPECT_FALSE(unhealthy(*rows));
  rows = monitor.observe(log, both, WallTime(190000));
  EXPECT_EQ((*rows)[0].verdict.state, LagState::kFallingBehind) << "a target that was away begins anew";
}

TEST(LagRows, ReadAsTheInterfaceSays) {
  LagRow row{kTp, "assay.scoring", {}, {LagState::kCatchingUp, "why"}};
  row.sample.end = Offset(int64_t{1} << 60);
  row.sample.records_behind = 7;
  row.sample.time_behind_ms = 1500;
  EXPECT_EQ(canonical(lag_json(std::vector{row})),
            "[{\"committedOffset\":null,\"endOffset\":\"1152921504606846976\",\"group\":\"assay.scoring\",\"partition\":2,"
            "\"recordsBehind\":7,\"rule\":\"why\",\"state\":\"catching up\",\"timeBehindMs\":1500,\"topic\":\"eval.reports.v1\"}]");
  Metrics metrics;
  row.verdict.state = LagState::kStalled;
  LagRow other = row;
  other.tp.partition = 3;
  export_lag(metrics, std::vector{row, other});
  EXPECT_EQ(metrics.value(Metric::kLagSeconds, {"eval.reports.v1", "2", "assay.scoring"}), 1.5);
  EXPECT_EQ(metrics.value(Metric::kLagUnhealthy, {"eval.reports.v1", "2", "assay.scoring", "stalled"}), 1);
  EXPECT_EQ(metrics.value(Metric::kQueueDepth, {"assay.scoring"}), 14) << "of all partitions";
  export_lag(metrics, {});
  EXPECT_EQ(metrics.value(Metric::kQueueDepth, {"assay.scoring"}), 0);
  EXPECT_EQ(metrics.value(Metric::kLagUnhealthy, {"eval.reports.v1", "2", "assay.scoring", "stalled"}), 0);
}

}  // namespace
}  // namespace assay::streams
