// The planted bugs by name, for the one binary that has them.
#pragma once

#include <span>

#include "schemas/planted.h"

namespace assay::simulation {

struct PlantedBug {
  schemas::Bug bug;
  const char* name;
};
/// All of them.
std::span<const PlantedBug> planted_bugs();

}  // namespace assay::simulation
