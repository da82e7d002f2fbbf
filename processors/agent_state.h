// Everything scoring keeps of one agent, and how it lies in the store.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "processors/dedupe.h"
#include "processors/panes.h"
#include "processors/processor.h"
#include "processors/running_day.h"

namespace assay::processors {

/// Rows of the scoring store:
///   'A' agent                              -> clock, horizon                      (varints)
///   'P' agent NUL grain(1) start(8)        -> the panes of one group              (encode_group)
///   'D' agent NUL bucket(8) chunk(8)       -> remembered ids                      (Dedupe)
/// Agent ids hold no control characters, so NUL ends them.
struct AgentState {
  explicit AgentState(std::string agent_id) : id(std::move(agent_id)) {}

  std::string id;
  int64_t clock = Panes::kNever;    // greatest accepted timestamp, ms
  int64_t horizon = Panes::kNever;  // windows that end at or before it are closed; reports before it are late. Never falls.
  Panes panes;
  Dedupe dedupe;

  // Not stored.
  std::unique_ptr<RunningDay> day;  // from the first 24h window that closes on
  state::Digest header_digest;
  bool dirty = false;
  uint64_t used_in_commit = 0;
  size_t bytes = 0;
  Offset last_offset;                  // of the report accepted last
  std::vector<uint32_t> last_metrics;  // of that report: the next mostly carries the same

  size_t approximate_bytes() const;
};

/// Reads an agent; nullptr when the store knows none of that id. A row that cannot be decoded is a CHECK: the digest would
/// have told of it before.
std::unique_ptr<AgentState> load_agent(const Rows& rows, std::string_view id, Names& names);
/// The same for queries, without the remembered ids. Errors: those of the reader; kCorrupt.
Result<std::unique_ptr<AgentState>> read_agent(const state::Reader& reader, std::string_view id, Names& names);
/// Ids of all agents, in byte order.
Result<std::vector<std::string>> agent_ids(const state::Reader& reader);

/// Stages what changed, and clears the agent's marks.
void flush_agent(AgentState& agent, Rows& rows, const Names& names);

/// How rows of the scoring store enter the digest: by logical entry, whatever the packing.
state::Digest scoring_row_digest(std::string_view key, std::string_view value);

}  // namespace assay::processors
