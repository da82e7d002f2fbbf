// What a replay can rebuild from an archive, a log or both, and what it cannot, before it is tried.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "replay/archive.h"
#include "streams/log.h"
#include "streams/topology.h"

namespace assay::replay {

struct PlannedPartition {
  TopicPartition tp;                                            // bare name
  streams::OffsetRange archived, live;                          // what can be read there; empty: nothing
  int64_t segments = 0, records = 0, bytes = 0, raw_bytes = 0;  // archived; bytes as packed
  WallTime oldest, newest;                                      // timestamps of archived records
  std::optional<Error> problem;                                 // why not all of it can be read; `archived` then ends before that

  /// Whether every record of [from, to) can be read.
  bool holds(Offset from, Offset to) const;
};

struct PlannedTask {
  std::string task;
  int64_t manifests = 0;         // that there are
  int64_t rebuildable = 0;       // from the first on
  int64_t records = 0;           // that those fold
  std::optional<Error> problem;  // why not all of them
};

struct ReplayPlan {
  std::vector<PlannedPartition> partitions;
  std::vector<PlannedTask> tasks;
  int64_t estimated_ms = 0;
  /// The first thing that cannot be: kTampered before anything else.
  std::optional<Error> problem() const;
};

struct PlanOptions {
  streams::TopicNames names;
  const streams::SignerRegistry* pinned = nullptr;
  unsigned threads = 0;                  // of the replay; 0: one per core
  int64_t records_per_second = 200'000;  // that a core replays with every digest and output compared
};

/// Looks at every entry of the archive and that its segment is there, at the log's ranges, and at every manifest.
/// Requires: an archive or a log. Errors: kUnreachable; kRefused (a newer format). What is missing or forged is part of the plan.
Result<ReplayPlan> plan_replay(Archive* archive, streams::Log* live, const PlanOptions& options);

}  // namespace assay::replay
