// Where this process keeps the checkpoints of its audit chain, and whose word on them counts.
#pragma once

#include <string>
#include <vector>

#include "streams/audit_verify.h"
#include "streams/log.h"
#include "tools/cli.h"
#include "tools/settings.h"

namespace assay::tools {

/// DIR/checkpoints, or nothing when no checkpoint was ever made.
std::string checkpoint_dir(const Settings& settings);

/// What `audit gap` prints: {"gaps":[{"topic","partition","from","to","problem","eventId"}],"withoutEvent":N}. Problems: "missing"
/// (records without an event), "gone" (the log has them no more, and no event covers them), "twice", "empty", and "reconciled": a
/// hole of which the event says that it is for good.
Result<Json> find_gaps(const Settings& settings, streams::Log& log);

/// The same, by the process that runs on the data directory where it alone has the log.
Result<Json> ask_for_gaps(Context& context);

/// With a policy file: the chain is held against checkpoints, as far as that policy accepts them; those of `dir`, unless it is
/// empty. Errors: kUsage (no such file, or no policy).
Result<void> trust_policy(const std::string& file, const std::string& dir, streams::VerifyOptions& options);

/// Checkpoints from elsewhere: files, or directories of them. Errors: kUsage (a file that is not there, or no policy by which they
/// count).
Result<void> add_checkpoints(const std::vector<std::string>& places, streams::VerifyOptions& options);

}  // namespace assay::tools
