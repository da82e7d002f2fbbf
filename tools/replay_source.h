// Where a replay reads from, as --from says it.
#pragma once

#include <memory>
#include <string>

#include "streams/log.h"
#include "tools/cli.h"

namespace assay::tools {

inline constexpr const char* kFromHelp = "Where the records come from: log";

/// Opens it for reading, with the topics that the settings ask for. Errors: kUsage for a place that is none; those of the place.
Result<std::unique_ptr<streams::Log>> open_replay_source(const Settings& settings, const std::string& from);

/// The rules in force now: the last on config.v1; of a kind that it never spoke of, those of the settings.
/// Errors: those of the log; kCorrupt.
Result<Rules> present_rules(streams::Log& log, const Settings& settings);

/// An instant of the command line. Errors: kUsage naming the flag.
Result<int64_t> instant_of(const std::string& flag, const std::string& text);

}  // namespace assay::tools
