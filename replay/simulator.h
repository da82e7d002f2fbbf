// The simulator: the real pipeline on a simulated log, disk, database and clock. One seed decides everything that happens.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "replay/sim_database.h"
#include "replay/sim_faults.h"
#include "schemas/config.h"
#include "streams/pipeline.h"

namespace assay::replay {

struct SimReport {
  std::optional<std::string> key;
  std::string value;
  WallTime timestamp;
};

/// Rules that are published after so many reports were sent.
struct SimRules {
  size_t after_reports = 0;
  ConfigKind kind = ConfigKind::kScoring;
  Rules rules;
};

struct SimWork {
  Rules rules;  // before the first report
  std::vector<SimReport> reports;
  std::vector<SimRules> changes;
};

/// What a run that settled left behind.
struct SimRemains {
  streams::Log& log;
  const streams::TopicNames& names;
  const std::map<std::string, std::shared_ptr<state::Store>>& stores;  // of the owners of the tasks
  const std::vector<std::pair<std::string, std::shared_ptr<state::Store>>>&
      others;  // by task: copies, and what owners of before left
  const SimDatabase& database;
  bool torn = false;            // a transaction was torn, so that a writer may have written records a second time
  bool told_otherwise = false;  // a task has found that its input was
  bool damaged = false;         // records were lost for good, or a task halted by name: only what always holds can be asked for
};

/// Says what is wrong with what a run left behind, or nothing.
using SimJudge = std::function<std::optional<std::string>(const SimRemains&)>;

struct SimOptions {
  uint64_t seed = 0;
  FaultMask faults = kAllFaults;
  std::optional<std::set<FaultEvent>> only = {};  // of those that the seed chose; nothing: all
  std::optional<int> standbys = {};               // copies of each store; nothing: the seed decides
  bool trace = false;
};

struct SimOutcome {
  std::optional<std::string> failure;  // the first invariant that does not hold
  std::string trace;
  std::map<std::string, int64_t> reached;  // faults, halts and rare places, and how often
  std::vector<FaultEvent> struck;
  bool halted = false;
  Milliseconds took{0};  // virtual
  uint64_t steps = 0;
};

/// Runs one schedule from its start to its settled end. Pure but for the process' log lines and metrics: the same arguments give
/// the same bytes of trace. Not thread-safe: workers are processes.
SimOutcome simulate(const SimOptions& options, const SimWork& work, streams::Metrics& metrics, const SimJudge& judge);

}  // namespace assay::replay
