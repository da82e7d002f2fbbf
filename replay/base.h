// Names of the layers below that this layer speaks in.
#pragma once

#include "streams/base.h"

namespace assay::replay {
using namespace schemas;
}  // namespace assay::replay
