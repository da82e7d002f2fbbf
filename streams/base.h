// Names of the layers below that this layer speaks in.
#pragma once

#include "processors/base.h"

namespace assay::streams {
using namespace schemas;
}  // namespace assay::streams
