// The status page as it lies in tools/console/index.html, carried inside the binary.
#pragma once

#include <string_view>

namespace assay::tools {

/// HTML of the page at "/"; it asks /health, /api/scoreboard, /api/promotions, /api/pools and /api/lag, and nothing else.
std::string_view console_page();

}  // namespace assay::tools
