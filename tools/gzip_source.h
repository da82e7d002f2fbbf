// Unpacks a gzip stream while it is read.
#pragma once

#include "tools/byte_source.h"

namespace assay::tools {

/// Bytes of `packed`, unpacked; members that follow one another are one stream. `name` is for messages.
std::unique_ptr<ByteSource> unpack_gzip(std::unique_ptr<ByteSource> packed, std::string name);

}  // namespace assay::tools
