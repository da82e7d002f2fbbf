// Environment variables, under the names that the original system's deployments use, as configuration.
#pragma once

#include <string>
#include <vector>

#include "tools/settings.h"

namespace assay::tools {

struct EnvironmentValue {
  std::string variable;
  std::string key;  // of the configuration
  Json value;
  std::string problem;  // not empty: the variable cannot be read
};

/// The variables that stand for keys of the file; what only the environment may say goes into `settings` (read-only mode,
/// REQUIRE_*, DEV_*). `http_addr` is the address that PORT changes the port of.
std::vector<EnvironmentValue> read_environment(const Environment& environment, const std::string& http_addr, Settings& settings);

}  // namespace assay::tools
