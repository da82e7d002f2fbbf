// The shares of the memory: never more than the budget, never less than a part can work with, for any number of tasks.
#include <gtest/gtest.h>

#include <random>
#include <utility>

#include "tools/memory_shares.h"

namespace assay::tools {
namespace {

constexpr int64_t kMiB = 1 << 20;

TEST(MemoryShares, AreGaugesBesideWhatIsUsedOfThem) {
  const MemoryNeeds needs{.partitions = 4, .kafka = true};
  const MemoryShares shares = share_memory(1024 * kMiB, needs);
  streams::Metrics metrics;
  export_memory(metrics, shares,
                {.stores = 9, .memtables = 4, .agents = 20, .commits = 3, .reading = 5, .writing = 1, .resident = 100});
  auto budget = [&](const char* part) { return metrics.value(streams::Metric::kMemoryBudget, {part}); };
  auto used = [&](const char* part) { return metrics.value(streams::Metric::kMemoryUsed, {part}); };
  double sum = 0;
  for (const auto& [part, bytes] : shares.parts()) sum += budget(std::string(part).c_str());
  EXPECT_EQ(sum, static_cast<double>(shares.sum()));
  EXPECT_EQ(budget("stores"), static_cast<double>(shares.stores));
  EXPECT_EQ(budget("memtables"), static_cast<double>(shares.memtables()));
  EXPECT_EQ(used("stores"), 9);
  EXPECT_EQ(used("memtables"), 4) << "which are within the stores";
  EXPECT_EQ(used("process"), 100 - 9 - 20 - 3 - 5 - 1);
  export_memory(metrics, shares, {.agents = 200, .resident = 100});
  EXPECT_EQ(used("process"), 0) << "what is counted need not be resident";
}

TEST(MemoryShares, NeverSumToMoreThanTheBudgetForAnyNumberOfTasks) {
  std::mt19937_64 random(1);
  for (int64_t partitions = 1; partitions <= 1000; ++partitions)
    for (int kind = 0; kind < 4; ++kind) {
      const MemoryNeeds needs{.partitions = partitions, .kafka = kind > 0, .follows = kind > 1, .archive = kind > 2};
      const int64_t least = least_memory(needs);
      for (int64_t budget : {least, least + 1, least + static_cast<int64_t>(random() % (64 * 1024 * kMiB))}) {
        const MemoryShares shares = share_memory(budget, needs);
        EXPECT_LE(shares.sum(), budget) << partitions << " partitions";
        EXPECT_GT(shares.sum(), budget - 16) << "what is not shared out is lost to rounding alone";
        int64_t named = 0;
        for (const auto& [name, bytes] : shares.parts()) named += bytes;
        EXPECT_EQ(named, shares.sum());
      }
    }
}

TEST(MemoryShares, LeaveEveryReaderWriterAndCommitRoomForTheLargestRecord) {
  for (int64_t partitions : {1, 4, 64, 1000}) {
    const MemoryNeeds needs{.partitions = partitions, .kafka = true, .follows = true};
    const MemoryShares shares = share_memory(least_memory(needs), needs);
    EXPECT_GE(reader_bytes(shares, needs), 2 * kMiB);
    const MemoryShares more = share_memory(4 * least_memory(needs), needs);
    const MemoryShares following = share_memory(4 * least_memory({.partitions = partitions, .kafka = true, .archive = true}),
                                                {.partitions = partitions, .kafka = true, .archive = true});
    EXPECT_GE(following.archive, 24 * kMiB);
    EXPECT_LE(needs.scoring_tasks() * reader_bytes(more, needs, true) +
                  (needs.tasks() - needs.scoring_tasks()) * reader_bytes(more, needs) + 2 * needs.tasks() * small_reader_bytes() +
                  (partitions - 1) * reader_bytes(more, needs),
              more.reading)
        << "every task is owned or followed; a follower of allocation reads each of its inputs by itself";
    EXPECT_GE(writer_bytes(shares, needs), 2 * kMiB);
    EXPECT_GE(shares.commits / needs.tasks(), 2 * kMiB);
    EXPECT_GE(shares.memtables() / needs.tasks(), kMiB / 2);
    EXPECT_GE(shares.agents / needs.scoring_tasks(), kMiB);
  }
}

TEST(MemoryShares, GrowWithTheBudgetAndTheLeastWithTheTasks) {
  const MemoryNeeds few{.partitions = 2, .kafka = true}, many{.partitions = 20, .kafka = true};
  EXPECT_LT(least_memory(few), least_memory(many));
  EXPECT_LT(least_memory({.partitions = 20, .kafka = false}), least_memory(many)) << "clients of a broker queue";
  const auto small = share_memory(512 * kMiB, few).parts(), large = share_memory(4096 * kMiB, few).parts();
  for (size_t i = 0; i < small.size(); ++i) EXPECT_LT(small[i].second, large[i].second) << small[i].first;
}

TEST(MemoryShares, TheDefaultsFitTheDefaultPartitionsAsTheyFitThirty) {
  for (int64_t partitions : {4, 30})
    for (bool kafka : {false, true})
      EXPECT_LE(least_memory({.partitions = partitions, .kafka = kafka, .follows = kafka}), 1024 * kMiB);
}

TEST(MemoryShares, TheProcessKnowsWhatItHolds) {
  const auto before = resident_bytes();
  ASSERT_TRUE(before);
  const std::string much(64 * kMiB, 'x');
  EXPECT_GT(*resident_bytes(), *before + 60 * kMiB) << much.size();
}

}  // namespace
}  // namespace assay::tools
