// From a decision, an audit row or a score back to the reports that caused it, each step made again and compared.
#pragma once

#include <string>

#include "processors/scoring.h"
#include "replay/base.h"
#include "schemas/json.h"
#include "streams/fold.h"
#include "streams/log.h"

namespace assay::replay {

/// Explains what carries this id: a promotion event, an allocation or one of its events, an audit row, a closed score; or the
/// closed score "AGENT/WINDOW/END".
/// Shape: a tree of {"kind","id","topic","partition","offset","says","agrees","difference"?, members of the kind…,"causes":[…]}.
/// "agrees": whether folding again what caused it makes the same record; null where nothing can be made again.
/// A correction of a score has what it corrects among its causes; "agrees" is null when other rules than those in force made it.
/// A score has "reports": [{"topic","partition","offset","id","timestamp"}], those that its window held when it closed.
/// Errors: kUsage when nothing carries the id; kIncomplete when what it rests on is gone; those of the log.
Result<Json> explain(streams::Log& log, const streams::TopicNames& names, const processors::ScoringOptions& scoring,
                     const std::string& id);

/// Whether every step of the tree that could be made again came out the same.
bool agrees(const Json& tree);

}  // namespace assay::replay
