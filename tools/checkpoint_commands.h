// Where this process keeps the checkpoints of its audit chain, and whose word on them counts.
#pragma once

#include <string>

#include "streams/audit_verify.h"
#include "tools/settings.h"

namespace assay::tools {

/// DIR/checkpoints, or nothing when no checkpoint was ever made.
std::string checkpoint_dir(const Settings& settings);

/// With a policy file: the chain is held against checkpoints, as far as that policy accepts them; those of `dir`, unless it is
/// empty. Errors: kUsage (no such file, or no policy).
Result<void> trust_policy(const std::string& file, const std::string& dir, streams::VerifyOptions& options);

}  // namespace assay::tools
