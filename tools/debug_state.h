// What a running process is at, for the people who operate it: /debug/state.
#pragma once

#include "schemas/json.h"
#include "tools/base.h"

namespace assay::tools {

/// Lays what is pending over the document of /ready: {…,"pending":{"promotions":[…],"allocations":[…],"missing":[…]}}.
/// `promotions` and `allocations` are the last event of each; one whose decision or grant waits for somebody is pending. What could
/// not be had is named under `missing`, and its list is null: a process that cannot ask its peers still says the rest. Pure.
Json debug_state(Json ready, const Result<Json>& promotions, const Result<Json>& allocations);

}  // namespace assay::tools
