// A restored log as everybody above the seam sees it: each record stands at the place where it stood first, new ones behind all of
// them, so that ids, manifests, marks and positions of the past go on to mean what they meant.
#pragma once

#include <memory>
#include <string>

#include "streams/lineage.h"
#include "streams/log.h"

namespace assay::streams {

/// The log under the places of its lineage.
std::unique_ptr<Log> open_lineage_log(std::shared_ptr<Log> log, Lineage lineage, const std::string& prefix);

/// The log itself when it was never restored; else the one above.
/// Errors: kRefused "RESTORE_INCOMPLETE …": a restore was begun and is not through; those of read_lineage.
Result<std::unique_ptr<Log>> follow_lineage(std::unique_ptr<Log> log, const std::string& prefix);

}  // namespace assay::streams
