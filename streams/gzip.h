// Gzip whose bytes depend on nothing but the content: no time, no name.
#pragma once

#include <functional>
#include <string>
#include <string_view>

#include "streams/base.h"

namespace assay::streams {

/// One gzip member.
std::string gzip(std::string_view content);

/// Unpacks exactly one member, handing on what comes out part by part (the views live for the call).
/// Errors: kCorrupt (also bytes behind the member, a bad checksum, an end too soon), and those of `part`.
Result<void> gunzip(std::string_view packed, const std::function<Result<void>(std::string_view part)>& part);

}  // namespace assay::streams
