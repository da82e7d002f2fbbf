// Rules on config.v1: published when they differ from the last ones, folded to the end before anything else is.
#pragma once

#include <set>
#include <string>
#include <vector>

#include "schemas/config.h"
#include "streams/log.h"

namespace assay::streams {

struct RuleFeed {
  Rules rules;                 // the struct defaults where no event spoke
  std::set<ConfigKind> kinds;  // that events spoke of
  Offset next;                 // where the fold ended
};

/// Folds config.v1 from its start to its end. Errors: kNotFound, kCorrupt naming the record, those of the log.
Result<RuleFeed> read_rules(Log& log, const std::string& prefix);

struct PublishedRules {
  ConfigKind kind;
  std::string version;
  bool changed = false;  // published now; else it was the last one already
};

/// Publishes each kind of rules whose version differs from the last on the topic. Requires: the rules are sound, the topic exists.
Result<std::vector<PublishedRules>> publish_rules(Log& log, const std::string& prefix, const Rules& rules, WallTime now);

}  // namespace assay::streams
