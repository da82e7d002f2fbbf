// What scoring keeps in memory: bounded whatever comes, counted while it is there, and never seen in the outcome.
#include <gtest/gtest.h>
#include <malloc.h>

#include "processors/scoring.h"
#include "schemas/time.h"

namespace assay::processors {
namespace {

constexpr int64_t kStart = 1767225600000;  // 2026-01-01

/// A partition of reports folded into a store, as a task does it, with commits where the test says.
class Partition {
 public:
  explicit Partition(size_t cache_bytes, bool live = false)
      : store_(state::open_memory_store()),
        rows_(*store_, {}, &scoring_row_digest),
        scoring_(rows_, {.audit_each = false, .live = live, .cache_bytes = cache_bytes}) {}

  void report(int agent, int number, const std::string& metric = "win", int64_t at = kStart) {
    const std::string name = "agent-" + std::to_string(agent);
    const std::string value = "{\"id\":\"" + name + "/" + std::to_string(number) + "\",\"agentId\":\"" + name +
                              "\",\"metricSet\":{\"" + metric + "\":0.5},\"timestamp\":\"" + format_rfc3339_ms(at) + "\"}";
    RecordView record;
    record.offset = Offset(offset_++);
    record.timestamp = WallTime(kStart + kDayMs);
    record.key = name;
    record.value = value;
    scoring_.process({Topic::kReports, 0, &record, {}}, outputs_);
  }
  void commit() {
    scoring_.before_commit({}, outputs_);
    EXPECT_TRUE(store_->write(rows_.take_changes()));
    scoring_.after_commit();
    tally_.accepted += outputs_.tally.accepted;
    for (size_t r = 0; r < kReasonCount; ++r) tally_.refused[r] += outputs_.tally.refused[r];
    outputs_.clear();
  }
  Processor::Held held() const { return scoring_.held(); }
  state::Digest digest() const { return rows_.digest(); }
  const Tally& tally() const { return tally_; }

 private:
  std::unique_ptr<state::Store> store_;
  Rows rows_;
  Scoring scoring_;
  Outputs outputs_;
  Tally tally_;
  int64_t offset_ = 0;
};

TEST(ScoringMemory, AgentsThatDoNotFitGoToTheStoreAndComeBackTheSame) {
  constexpr size_t kCache = 200'000;
  Partition small(kCache), large(1 << 30);
  for (Partition* partition : {&small, &large})
    for (int round = 0; round < 4; ++round)
      for (int agent = 0; agent < 2000; ++agent) {
        partition->report(agent, round, "win", kStart + round * kHourMs);
        if (agent % 100 == 99) {
          partition->commit();
          if (partition == &small) {
            EXPECT_LE(partition->held().cache, kCache);
          }
        }
      }
  EXPECT_EQ(small.digest(), large.digest());
  EXPECT_EQ(small.tally(), large.tally());
  EXPECT_GT(large.held().cache, 5 * kCache) << "or nothing had to go";
}

TEST(ScoringMemory, AgentsThatWereOnlyLookedAtCountToo) {
  constexpr size_t kCache = 200'000;
  Partition partition(kCache);
  for (int round = 0; round < 3; ++round)  // the later rounds are duplicates: nothing changes, but every agent is loaded
    for (int agent = 0; agent < 3000; ++agent) {
      partition.report(agent, 0);
      if (agent % 100 != 99) continue;
      EXPECT_GT(partition.held().commit, 100u * 300);
      partition.commit();
      EXPECT_LE(partition.held().cache, kCache);
    }
  EXPECT_EQ(partition.tally().accepted, 3000u);
  EXPECT_EQ(partition.tally().refused[static_cast<size_t>(Reason::kDuplicate)], 6000u);
}

TEST(ScoringMemory, MetricNamesDoNotPileUp) {
  constexpr size_t kCache = 400'000;
  Partition small(kCache), large(1 << 30);
  for (Partition* partition : {&small, &large})
    for (int number = 0; number < 8000; ++number) {
      // Over some days: old panes are merged, so that the names pile up faster than anything else.
      const std::string metric = "metric-with-a-rather-long-name-" + std::to_string(number);
      partition->report(0, number, metric, kStart - 8000 * kMinuteMs + number * kMinuteMs);
      if (number % 50 == 49) partition->commit();
      if (number % 50 == 49 && partition == &small) {
        EXPECT_LE(partition->held().cache, 2 * kCache) << number;
      }
    }
  EXPECT_EQ(small.digest(), large.digest());
}

TEST(ScoringMemory, ACommitCountsWhatItHoldsAndIsNothingAfterwards) {
  Partition partition(1 << 30, true);
  EXPECT_EQ(partition.held().commit, 0u);
  size_t last = 0;
  for (int agent = 0; agent < 10; ++agent) {
    partition.report(agent, 0);
    EXPECT_GT(partition.held().commit, last + 5000) << "its rows and live scores are still to come";
    last = partition.held().commit;
  }
  for (int number = 1; number < 1000; ++number) partition.report(0, number);
  EXPECT_GT(partition.held().commit, last + 100 * 1000u) << "ids are remembered, also of one agent";
  partition.commit();
  EXPECT_EQ(partition.held().commit, 0u);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(ScoringMemory, TheEstimateIsNearWhatTheAllocatorGave) {
  const auto allocated = [] { return mallinfo2().uordblks + mallinfo2().hblkhd; };
  Partition partition(1 << 30);
  const auto before = allocated();
  // Measured before the commit, for the rows of a memory store are in memory too.
  for (int agent = 0; agent < 5000; ++agent)
    for (int number = 0; number < 3; ++number) partition.report(agent, number, "win", kStart + number * kMinuteMs);
  const auto real = static_cast<double>(allocated() - before);
  partition.commit();
  const auto told = static_cast<double>(partition.held().cache);
  EXPECT_GT(told, real * 0.8) << real / 5000 << " bytes an agent";
  EXPECT_LT(told, real * 1.6) << real / 5000 << " bytes an agent";
}
#endif

}  // namespace
}  // namespace assay::processors
