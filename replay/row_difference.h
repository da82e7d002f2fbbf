// Rows of stores in words: which key differs, and where both values part.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "replay/base.h"

namespace assay::replay {

/// "panes of agent a, quarters from …: win.count is 4 rebuilt and 5 running". A row that one side lacks is nothing there.
/// Requires: the two differ.
std::string row_difference(std::string_view key, std::optional<std::string_view> rebuilt, std::optional<std::string_view> running);

}  // namespace assay::replay
