// Zstandard frames of known size: blocks of archives.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>

#include "streams/base.h"

namespace assay::streams {

/// One frame. The same content and level give the same bytes with the same libzstd, which is all that anybody may rely on.
std::string zstd(std::string_view content, int level);

/// Unpacks exactly one frame into exactly `size` bytes. Errors: kCorrupt.
Result<void> unzstd(std::string_view frame, char* into, size_t size);

}  // namespace assay::streams
