// Names of the layers below that this layer speaks in.
#pragma once

#include "schemas/config.h"
#include "schemas/json.h"
#include "schemas/result.h"
#include "schemas/types.h"
#include "streams/base.h"

namespace assay::tools {
using namespace schemas;
}  // namespace assay::tools
