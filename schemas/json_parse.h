// Strict JSON text to documents.
#pragma once

#include <string_view>

#include "schemas/json.h"

namespace assay::schemas {

/// Parses one document. Refuses trailing bytes, invalid UTF-8, lone surrogates, members given twice, more than
/// 64 levels, and numbers that are not finite doubles.
/// Errors: kCorrupt with the place and the reason.
Result<Json> parse_json(std::string_view text);

}  // namespace assay::schemas
