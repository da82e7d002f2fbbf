// The archive's topics put back into an empty log, as `assay replay run --into-log` does it.
#pragma once

#include "replay/restore.h"
#include "tools/cli.h"

namespace assay::tools {

struct RestoreFlags {
  std::string from, signers;  // as open_replay_source takes them; the archive alone
  int64_t lineage = 0, threads = 0;
};

/// Restores into the log of the settings, and goes on with a restore that was killed. Errors: kUsage, those of restore_log.
Result<replay::Restored> restore_into_log(Context& context, const RestoreFlags& flags);

/// What came back, what was left out and what the stores came to. JSON: one object.
void print_restored(Context& context, const replay::Restored& restored, Json tasks);

}  // namespace assay::tools
