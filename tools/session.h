// Queries: asked of the process that runs on the data directory; when none does, of its stores and of the group's processes.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "replay/archiver.h"
#include "streams/lag.h"
#include "streams/peers.h"
#include "streams/queries.h"
#include "tools/cli.h"

namespace assay::tools {

using streams::QueryParams;

/// What a query looks at.
struct QueryTarget {
  streams::TopicNames names;
  streams::Log* log = nullptr;
  streams::Parts parts;                  // of all tasks, wherever they are
  streams::LagMonitor* lag = nullptr;    // with a history; nothing: one look
  std::optional<Offset> audit_position;  // of the projector in this process
  std::set<std::string> running;         // tasks that run in this process
  struct Archive {
    int64_t segment_age_ms = 0;
    std::optional<std::vector<replay::ArchivedPlace>> places;  // of the archiver in this process
  };
  std::optional<Archive> archive;  // where there is one
  std::string audit_paused = {};         // why the projector is held; empty: it is not
};

/// Answers "scores", "scoreboard", "promotions", "allocations", "pools", "digest", "lag" or "tally". Pure over its target but for
/// the clock of "lag". Errors: kUsage for a parameter it cannot read; kNotFound for another query; those of the stores.
Result<Json> answer(const QueryTarget& target, std::string_view query, const QueryParams& params);

/// Asks DIR/assay.sock. When nobody answers there, the stores of the directory that hold all that was committed speak for their
/// tasks, and the other processes of the groups for the rest.
/// Errors: kIncomplete when a partition's state is neither here nor to be had from its owner.
Result<Json> ask(Context& context, std::string_view query, const QueryParams& params);

streams::TopicNames topic_names(const Settings& settings);
std::string socket_path(const Settings& settings);
std::string state_dir(const Settings& settings, std::string_view task);

/// Opens the store of one task, from outside, while it does not run here.
/// Errors: kIncomplete when it is not in this directory or behind what was committed.
Result<std::shared_ptr<const state::Reader>> open_store(const Settings& settings, const streams::TaskSpec& spec, streams::Log& log);

/// The group of the archivers.
std::string archive_group(const streams::TopicNames& names);

/// Lag rows of all groups, exact. `audit_position` overrides what the projector's group has committed. `all_archived` false: of
/// the partitions that are archived, only those of this process, which cost no reading.
Result<std::vector<streams::LagRow>> measure_lag(const QueryTarget& target, bool all_archived = true);

}  // namespace assay::tools
