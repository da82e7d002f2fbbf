// What the pipeline knows: scores, the scoreboard, decisions, pools, digests. A question is asked of each task that it concerns,
// wherever that runs; the answer is made out of their parts.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "schemas/json.h"
#include "state/store.h"
#include "streams/fold.h"
#include "streams/log.h"
#include "streams/topology.h"

namespace assay::streams {

using QueryParams = std::vector<std::pair<std::string, std::string>>;

struct Question {
  std::string name;  // "scores"
  QueryParams params;
  std::string param(std::string_view name, std::string_view fallback = {}) const;  // the first of that name
};

/// Gives one part for each of the tasks, in their order. Errors: kIncomplete naming the task whose part cannot be had, and why.
using Parts = std::function<Result<std::vector<Json>>(const std::vector<std::string>& tasks, const Question& question)>;

/// Answers, out of the parts of all tasks that it concerns:
///   "scores"       agent, division (globs), window, at: AgentScore rows by agent id, then 1h, 24h, 7d
///   "scoreboard"   division, window (24h), at, top (10): the leaderboard over all partitions
///   "promotions", "allocations": the last event of each, by (ts, entity); "pools" (waiting: with that count)
///   "digest"       recompute=1: rows {"task","sequence","position","digest","inputs"} in topology order; recomputed ones that
///                  differ carry "stored" beside them
///   "tally"        processor: {"delivered","accepted","filtered","deadLetters","byReason"}
/// Errors: kUsage for a parameter that cannot be read; kNotFound for another question; kIncomplete; those of the parts.
Result<Json> answer_from(const Parts& parts, const TopicNames& names, const Question& question);

/// A task as a question sees it.
struct QueriedTask {
  const TaskSpec& spec;
  const state::Reader& store;  // a snapshot: it must not move while it is read
  Log& log;                    // for instants that the panes no longer hold
  const TopicNames& names;
};

/// What one task says to a question of answer_from(), or to one that it makes of it; only answer_from() reads this.
/// Errors: kIncomplete naming the records that are gone; those of store and log.
Result<Json> part_of(const QueriedTask& task, const Question& question);

/// Stores of tasks by name.
using Stores = std::map<std::string, std::shared_ptr<const state::Reader>>;

/// Parts out of stores at hand. `log` must outlive it.
Parts parts_of(Stores stores, Log& log, const TopicNames& names);

}  // namespace assay::streams
