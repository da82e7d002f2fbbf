// Where a replay's records come from: the log, an archive, or both joined.
#pragma once

#include <memory>
#include <string>

#include "replay/archive_log.h"
#include "tools/settings.h"

namespace assay::tools {

/// The objects at "file:///DIR" or "DIR". Errors: kUsage (no such kind of place); kNotFound unless `create`.
Result<std::shared_ptr<streams::ObjectStore>> open_objects(const std::string& place, bool create);

struct Source {
  std::unique_ptr<streams::Log> live;  // behind `log`, when both are joined
  std::unique_ptr<streams::Log> log;
  bool to_the_end = true;  // it holds all that the running system has committed
};

/// Opens what `from` names: "log", "archive:PLACE", "log+archive:PLACE"; without a place, that of archive.url. An archive's
/// manifest must be signed by keys of `signers_file`, or, when that is empty, by those that it names itself.
/// Errors: kUsage; those of open_log and open_archive_log; kIncomplete (no archive there).
Result<Source> open_source(const Settings& settings, const std::string& from, const std::string& signers_file);

}  // namespace assay::tools
