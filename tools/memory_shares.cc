#include "tools/memory_shares.h"

#include <malloc.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <thread>

#include "schemas/topics.h"

namespace assay::tools {
namespace {

constexpr int64_t kKiB = 1024, kMiB = 1024 * kKiB;

// An eighth of the budget is what malloc may lose to holes between blocks in use.
constexpr int64_t kSlackShare = 8;

// Beside the tasks' readers: the projector's, the one that measures lag, and two of a task that catches up or recovers.
constexpr int64_t kOtherReaders = 4;
// Beside the tasks' writers: the one that publishes rules or dead letters of the audit.
constexpr int64_t kOtherWriters = 1;

// A record of the largest size fits twice: as it is held, and as it is copied, packed or waited for.
constexpr int64_t kTwoRecords = 2 * (kMaxRecordBytes + 128 * kKiB);

// A copy that is kept warm reads manifests and rules beside its inputs, and each of allocation's inputs by itself; the archiver has
// one reader.
constexpr int64_t kSmallReader = 256 * kKiB;
int64_t input_readers(const MemoryNeeds& needs) {
  return needs.tasks() + kOtherReaders + (needs.follows ? needs.partitions - 1 : 0) + (needs.archive ? 1 : 0);
}
int64_t small_readers(const MemoryNeeds& needs) { return needs.follows ? 2 * needs.tasks() : 0; }

MemoryShares least_parts(const MemoryNeeds& needs) {
  const int64_t tasks = needs.tasks();
  MemoryShares least;
  // Measured with 2 to 32 partitions: 40 MiB of program, and for each task threads and two clients of the broker.
  least.process = 48 * kMiB + (needs.kafka ? kMiB : 256 * kKiB) * tasks;
  least.stores = tasks * 3 * kMiB / 2;
  least.agents = needs.scoring_tasks() * kMiB;
  least.commits = tasks * kTwoRecords;
  least.reading = input_readers(needs) * kTwoRecords + small_readers(needs) * kSmallReader;
  // The embedded log writes one transaction at a time; cleaning holds a segment as it was and as it will be.
  least.writing = needs.kafka ? (tasks + kOtherWriters) * kTwoRecords : 16 * kMiB;
  least.audit = 4 * kMiB;
  if (needs.archive) least.archive = 24 * kMiB;
  return least;
}

}  // namespace

std::vector<std::pair<std::string_view, int64_t>> MemoryShares::parts() const {
  std::vector<std::pair<std::string_view, int64_t>> out = {{"process", process}, {"stores", stores},   {"agents", agents},
                                                           {"commits", commits}, {"reading", reading}, {"writing", writing},
                                                           {"audit", audit}};
  if (archive > 0) out.emplace_back("archive", archive);
  return out;
}

int64_t least_memory(const MemoryNeeds& needs) {
  const int64_t least = least_parts(needs).sum();
  // Rounded up to whole MiB, the slack included, so that it can be told and typed.
  return (least * kSlackShare / (kSlackShare - 1) + kMiB) / kMiB * kMiB;
}

MemoryShares share_memory(int64_t budget_bytes, const MemoryNeeds& needs) {
  CHECK(budget_bytes >= least_memory(needs));
  MemoryShares shares = least_parts(needs);
  shares.process += budget_bytes / kSlackShare;
  const int64_t rest = budget_bytes - shares.sum();
  CHECK(rest >= 0);
  const int64_t archive = needs.archive ? 4 : 0, kWhole = 24 + archive;
  shares.agents += rest * 7 / kWhole;
  shares.stores += rest * 4 / kWhole;
  shares.commits += rest * 2 / kWhole;
  shares.reading += rest * 8 / kWhole;
  shares.writing += rest * 2 / kWhole;
  shares.audit += rest / kWhole;
  shares.archive += rest * archive / kWhole;
  return shares;
}

int64_t reader_bytes(const MemoryShares& shares, const MemoryNeeds& needs, bool of_reports) {
  const int64_t readers = input_readers(needs), small = small_readers(needs) * kSmallReader;
  const int64_t large = needs.scoring_tasks() + (needs.archive ? 1 : 0);
  const int64_t unit = (shares.reading - small - readers * kTwoRecords) / (readers + 3 * large);
  return kTwoRecords + (of_reports ? 4 : 1) * unit;
}

int64_t small_reader_bytes() { return kSmallReader; }

int64_t writer_bytes(const MemoryShares& shares, const MemoryNeeds& needs) {
  return shares.writing / (needs.tasks() + kOtherWriters);
}

void export_memory(streams::Metrics& metrics, const MemoryShares& shares, const MemoryUse& use) {
  std::vector<streams::GaugeSeries> budget, used;
  for (const auto& [part, bytes] : shares.parts()) budget.push_back({{std::string(part)}, static_cast<double>(bytes)});
  budget.push_back({{"memtables"}, static_cast<double>(shares.memtables())});
  const int64_t counted = use.stores + use.agents + use.commits + use.reading + use.writing;
  const std::pair<const char*, int64_t> parts[] = {{"process", std::max<int64_t>(0, use.resident - counted)},
                                                   {"stores", use.stores},
                                                   {"memtables", use.memtables},
                                                   {"agents", use.agents},
                                                   {"commits", use.commits},
                                                   {"reading", use.reading},
                                                   {"writing", use.writing}};
  for (const auto& [part, bytes] : parts) used.push_back({{part}, static_cast<double>(bytes)});
  metrics.replace(streams::Metric::kMemoryBudget, budget);
  metrics.replace(streams::Metric::kMemoryUsed, used);
}

void bound_allocator() {
  if (std::getenv("MALLOC_ARENA_MAX") == nullptr)
    mallopt(M_ARENA_MAX, static_cast<int>(std::clamp(std::thread::hardware_concurrency(), 2u, 16u)));
}

std::optional<int64_t> resident_bytes() {
  std::ifstream file("/proc/self/statm");
  int64_t all = 0, resident = 0;
  if (!(file >> all >> resident)) return std::nullopt;
  return resident * sysconf(_SC_PAGESIZE);
}

}  // namespace assay::tools
