// Rebuilds the stores of all tasks from a log by their manifests, and proves each step.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "replay/base.h"
#include "streams/log.h"
#include "streams/pipeline.h"
#include "streams/topology.h"

namespace assay::replay {

struct ReplayOptions {
  streams::TopicNames names;
  processors::ScoringOptions scoring;
  std::optional<WallTime> until;                   // behaviour: manifests of a later instant are left out
  std::map<TopicPartition, Offset> until_offsets;  // behaviour: and those that folded an input past its offset here
  bool check_outputs = true;                       // behaviour: compare every output record with the one on the log
  std::vector<std::string> only;                   // behaviour: these tasks ("scoring-3") and processors ("scoring"); empty: all
  /// The running store of a task, to name the key and both values where a digest differs; nullptr: none is at hand.
  std::function<std::shared_ptr<const state::Reader>(const std::string& task)> running;
  unsigned threads = 0;  // performance; 0: one per core
  int64_t rate = 0;      // performance: at most so many records a second over all tasks; 0: as fast as it goes
  /// Told after each manifest, from any thread: records delivered so far over all tasks, and how many there will be.
  std::function<void(int64_t done, int64_t total)> progress;
};

struct ReplayedTask {
  std::string task;
  int64_t manifests = 0;
  int64_t delivered = 0;
  int64_t outputs = 0;  // records compared with the log
  state::Digest digest;
  std::string lineage;
  int64_t audit_records = 0;  // that this lineage of it has written to audit-events up to there
  /// What differs because other code made it: the first such manifest, and what. Later ones of the task follow from it.
  std::optional<std::string> expected;
};

/// Folds every manifest of every task again, into fresh stores or such that an earlier replay of the same history left. Each
/// commit's input ranges, digest, output hash and manifest hash must come out as the log has them, and, with check_outputs, each
/// output record byte for byte. Where a manifest names another code version than this code's, a difference is expected, and told
/// in the result.
/// Errors: kParity naming the first difference: task, manifest, record and field, or key and both values; kIncomplete when records
/// or manifests are gone; kRefused when a store holds something else.
Result<std::vector<ReplayedTask>> replay_tasks(streams::Log& log, const streams::StoreFactory& stores,
                                               const ReplayOptions& options);

/// Compares rebuilt stores with those of the running system, row by row where the digests differ.
/// Only commits that both have are compared: a running system goes on. Errors: kParity naming task, key and both values.
Result<void> compare_stores(const std::string& task, const state::Reader& rebuilt, const state::Reader& running);

}  // namespace assay::replay
