// Names of the layer below that this layer speaks in.
#pragma once

#include "schemas/record.h"
#include "schemas/result.h"
#include "schemas/types.h"

namespace assay::state {
using namespace schemas;
}  // namespace assay::state
