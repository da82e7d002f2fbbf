// Where two documents part: the first member that differs, and both values.
#pragma once

#include <string>
#include <string_view>

#include "replay/base.h"
#include "schemas/json.h"

namespace assay::replay {

/// "score is 0.91 on the log and 0.92 folded again"; empty when they are equal. Members in the order of their names.
std::string json_difference(const Json& a, std::string_view a_is, const Json& b, std::string_view b_is);
/// The same of two texts, which may be no JSON: then their sizes and where they part.
std::string text_difference(std::string_view a, std::string_view a_is, std::string_view b, std::string_view b_is);

}  // namespace assay::replay
