// What the system knows, asked of its stores: scores, the scoreboard, decisions, pools, digests.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "processors/agent_score.h"
#include "schemas/json.h"
#include "streams/fold.h"
#include "streams/log.h"
#include "streams/topology.h"

namespace assay::streams {

/// Stores of tasks by name; a query that needs one which is not there fails with kIncomplete.
using Stores = std::map<std::string, std::shared_ptr<const state::Reader>>;

struct ScoreQuery {
  std::string agent = "*";  // globs
  std::string division = "*";
  std::optional<Window> window;  // nothing: all three
  std::optional<int64_t> at_ms;  // nothing: the open window of each agent
};

/// AgentScore rows by agent id, then 1h, 24h, 7d. With `at`, the windows ending at the last boundary <= at; where the panes do
/// not hold them whole, the reports are folded again from the log with the present configuration.
/// Errors: kIncomplete naming the partition or the range of records that is gone; those of stores and log.
Result<std::vector<processors::AgentScore>> query_scores(const Stores& stores, Log& log, const TopicNames& names,
                                                         const ScoreQuery& query);

struct BoardQuery {
  std::string division = "*";
  Window window = Window::k24h;
  std::optional<int64_t> at_ms;  // nothing: up to and with the greatest timestamp among its agents
  size_t top = 10;
};

/// The leaderboard as rows {"rank","agentId","divisionId","window","windowEnd","score","lower","upper","samples","movement"}.
Result<Json> query_scoreboard(const Stores& stores, Log& log, const TopicNames& names, const BoardQuery& query);

/// Rows {"task","sequence","position","digest","inputs"} in topology order; "inputs" has the position of each partition. With
/// `recompute` the digest is made from every row again, and a row whose stored digest differs carries "stored" beside it.
Result<Json> query_digests(const Stores& stores, const TopicNames& names, bool recompute);

/// {"delivered","accepted","filtered","deadLetters","byReason"} summed over the tasks of a processor.
Result<Json> query_tally(const Stores& stores, const TopicNames& names, std::string_view processor);

/// The rows as JSON documents, with the version of the rules in force.
Result<Json> scores_json(const std::vector<processors::AgentScore>& scores, const Stores& stores, const TopicNames& names);

}  // namespace assay::streams
