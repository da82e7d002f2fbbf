// Names of the layers below that this layer speaks in.
#pragma once

#include "schemas/hash.h"
#include "schemas/record.h"
#include "schemas/result.h"
#include "schemas/topics.h"
#include "schemas/types.h"
#include "state/base.h"

namespace assay::processors {
using namespace schemas;
}  // namespace assay::processors
