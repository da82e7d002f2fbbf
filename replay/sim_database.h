// The simulated database behind the audit projector, and a signer that costs nothing.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "replay/base.h"
#include "streams/audit_sink.h"

namespace assay::replay {

/// What the database holds. It outlives the processes that write to it.
struct SimDatabase {
  std::vector<streams::SignedRow> rows;
  processors::ChainState head;
  std::optional<processors::ChainState> signed_state;  // where the signed rows end, while others wait behind them
  int64_t epoch = 0;                                   // of the writer that took over last
};

/// A process' connection.
struct SimConnection {
  std::function<bool()> there;  // waits as long as a statement takes; false: it never arrives
  std::function<bool()> back;   // false: its answer is lost
};

/// Fenced by epoch; a COMMIT whose answer was lost is found when it is tried again.
std::unique_ptr<streams::AuditSink> open_sim_sink(SimDatabase& database, SimConnection connection);

/// Signs with a hash of the digest. `reachable` is asked before each signature.
std::unique_ptr<streams::Signer> make_sim_signer(std::function<bool()> reachable);
/// Whether a row carries that signer's signature.
bool signed_by_sim_signer(const streams::SignedRow& row);

}  // namespace assay::replay
