// TOML text to documents that remember the line of each key.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/config.h"
#include "schemas/json.h"
#include "tools/base.h"

namespace assay::tools {

struct TomlDocument {
  Json root;
  std::map<std::string, int> lines;     // key path ("scoring.metric[0].low") -> line, from 1
  std::vector<ConfigProblem> problems;  // values that no rule can hold: dates, numbers that are not finite or beyond 2^53
};

/// Parses a whole file. Errors: kUsage with the line and the reason.
Result<TomlDocument> parse_toml(std::string_view text);

/// Parses one value as it stands right of "=". Errors: kUsage.
Result<Json> parse_toml_value(std::string_view text);

}  // namespace assay::tools
