// How the memory of one process is shared out, so that all that caches, queues and stages stays within the one budget.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "streams/metrics.h"
#include "tools/base.h"

namespace assay::tools {

/// What has to share: a process may come to own every task of the topology.
struct MemoryNeeds {
  int64_t partitions = 4;  // of the topics that are keyed: a scoring and a promotion task each, and one task for allocation
  bool kafka = false;      // else the embedded log
  bool follows = false;    // keeps copies of stores of tasks that it does not own; with those it owns never more than all tasks
  bool archive = false;    // every topic is followed into an archive
  int64_t scoring_tasks() const { return partitions; }
  int64_t tasks() const { return 2 * partitions + 1; }
};

/// Parts of the budget. Units: bytes.
struct MemoryShares {
  int64_t process = 0;  // program, threads and clients, and what the allocator cannot give back
  int64_t stores = 0;   // blocks and memtables of all stores together
  int64_t agents = 0;   // decoded agents of all scoring tasks
  int64_t commits = 0;  // what open commits have staged
  int64_t reading = 0;  // fetched ahead of their readers
  int64_t writing = 0;  // behind their writers
  int64_t audit = 0;    // rows on their way to the database or the archive
  int64_t archive = 0;  // open segments of the archive

  int64_t memtables() const { return stores / 2; }
  int64_t sum() const { return process + stores + agents + commits + reading + writing + audit + archive; }
  /// Every part under its name.
  std::vector<std::pair<std::string_view, int64_t>> parts() const;
};

/// The least budget in which each part can hold its largest records, in whole MiB. Pure.
int64_t least_memory(const MemoryNeeds& needs);

/// Gives every part its least and shares out the rest. The sum is never more than the budget. Pure.
/// Requires: budget_bytes >= least_memory(needs).
MemoryShares share_memory(int64_t budget_bytes, const MemoryNeeds& needs);

/// One reader's share of what is fetched ahead (a reader of reports has four times the others' above the least, for all volume
/// passes through it, and so has the archiver's), and one writer's of what is on its way. Pure.
int64_t reader_bytes(const MemoryShares& shares, const MemoryNeeds& needs, bool of_reports = false);
/// The share of a reader of rules or manifests alone, of which there are few and small ones.
int64_t small_reader_bytes();
int64_t writer_bytes(const MemoryShares& shares, const MemoryNeeds& needs);

/// Keeps the allocator from holding back an arena for each of the many threads; MALLOC_ARENA_MAX in the environment wins.
/// To be called before the first thread starts.
void bound_allocator();

/// What is in use of the parts that are counted. Units: bytes.
struct MemoryUse {
  int64_t stores = 0;     // blocks and memtables
  int64_t memtables = 0;  // of that
  int64_t agents = 0;
  int64_t commits = 0;
  int64_t reading = 0;
  int64_t writing = 0;
  int64_t resident = 0;  // of the process; 0: the system does not tell
};
/// Sets the gauges of the budget and its use. What is resident beyond the counted parts counts as the process's own.
void export_memory(streams::Metrics& metrics, const MemoryShares& shares, const MemoryUse& use);

/// Memory of this process that is in RAM. Nothing where the system does not tell.
std::optional<int64_t> resident_bytes();

}  // namespace assay::tools
