// Where a replay reads from, as --from says it.
#pragma once

#include <memory>
#include <string>

#include "replay/archive_log.h"
#include "streams/log.h"
#include "tools/cli.h"

namespace assay::tools {

inline constexpr const char* kFromHelp = "Where the records come from: log, archive:PLACE, or log+archive:PLACE for both joined";
inline constexpr const char* kSignersHelp =
    "signers.json of the keys that may have signed the archive; without it, those that it names itself";

inline constexpr const char* kFromOrDefaultHelp =
    "Where the records come from: log, archive:PLACE, or log+archive:PLACE for both joined; without it, the log and the archive of "
    "archive.url, as far as they are there";

/// What --from says; when it says nothing, log, archive or both joined, as the settings name them and as they are there.
/// Errors: of the log when there is neither; those of opening them.
Result<std::string> source_or_default(const Settings& settings, const std::string& from);

/// Errors: kUsage for a `from` that names no source.
Result<void> check_source(const std::string& from);

/// The objects at "file:///DIR", "DIR" or "s3://BUCKET/PREFIX". Errors: kUsage (no such kind of place, no keys); kNotFound unless
/// `create`.
Result<std::shared_ptr<streams::ObjectStore>> open_objects(const Settings& settings, const std::string& place, bool create);

/// The archive that `from` names, "archive[:PLACE]" or "log+archive[:PLACE]"; without a place, that of archive.url.
/// Errors: kUsage; kIncomplete (none there); those of Archive::open.
Result<std::unique_ptr<replay::Archive>> open_archive(const Settings& settings, const std::string& from);

/// Opens for reading what `from` names: "log" or what open_archive knows, with the topics that the settings ask for. An archive's
/// manifest must be signed by keys of `signers_file`, or, when that is empty, by those that it names itself.
/// Errors: kUsage for a place that is none; those of the place.
Result<std::unique_ptr<streams::Log>> open_replay_source(const Settings& settings, const std::string& from,
                                                         const std::string& signers_file = {});

/// The same, with the log where it is named: `live`, which is open already.
Result<std::shared_ptr<streams::Log>> join_replay_source(const Settings& settings, const std::string& from,
                                                         const std::string& signers_file, std::shared_ptr<streams::Log> live);

/// Whether that holds all that the running system has committed: an archive alone is behind it.
inline bool reaches_the_end(const std::string& from) { return !from.starts_with("archive"); }

/// The rules in force now: the last on config.v1; of a kind that it never spoke of, those of the settings.
/// Errors: those of the log; kCorrupt.
Result<Rules> present_rules(streams::Log& log, const Settings& settings);

/// An instant of the command line. Errors: kUsage naming the flag.
Result<int64_t> instant_of(const std::string& flag, const std::string& text);

}  // namespace assay::tools
