// RFC 3339 text to milliseconds and back.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "schemas/types.h"

namespace assay::schemas {

/// Parses RFC 3339 with a zone (Z or ±hh:mm), fraction of any length cut to ms; a leap second (":60") counts as the
/// last millisecond before it ends. Nothing else is accepted: no missing zone, no space for T, no week dates.
std::optional<int64_t> parse_rfc3339_ms(std::string_view text);

/// "2026-05-01T12:00:00.000Z". Requires: year 0000 to 9999.
std::string format_rfc3339_ms(int64_t ms);
/// "2026-05-01T12:00:00.000000Z" from microseconds since the epoch.
std::string format_rfc3339_us(int64_t us);

/// "45m", "24h", "7d", "30s", "250ms" to milliseconds; a count and one unit, nothing else.
std::optional<int64_t> parse_duration_ms(std::string_view text);
/// Shortest exact form: 2700000 -> "45m".
std::string format_duration_ms(int64_t ms);

}  // namespace assay::schemas
