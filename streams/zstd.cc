#include "streams/zstd.h"

#include <zstd.h>

#include <memory>

namespace assay::streams {
namespace {

// A context costs more to make than most blocks cost to pack.
ZSTD_CCtx* packer() {
  thread_local const std::unique_ptr<ZSTD_CCtx, decltype(&ZSTD_freeCCtx)> context(ZSTD_createCCtx(), ZSTD_freeCCtx);
  CHECK(context != nullptr);
  return context.get();
}

ZSTD_DCtx* unpacker() {
  thread_local const std::unique_ptr<ZSTD_DCtx, decltype(&ZSTD_freeDCtx)> context(ZSTD_createDCtx(), ZSTD_freeDCtx);
  CHECK(context != nullptr);
  return context.get();
}

}  // namespace

std::string zstd(std::string_view content, int level) {
  std::string out(ZSTD_compressBound(content.size()), '\0');
  const size_t size = ZSTD_compressCCtx(packer(), out.data(), out.size(), content.data(), content.size(), level);
  CHECK(!ZSTD_isError(size));
  out.resize(size);
  return out;
}

Result<void> unzstd(std::string_view frame, char* into, size_t size) {
  const size_t got = ZSTD_decompressDCtx(unpacker(), into, size, frame.data(), frame.size());
  if (ZSTD_isError(got)) return Error{Errc::kCorrupt, std::string("zstd: ") + ZSTD_getErrorName(got)};
  if (got != size) return Error{Errc::kCorrupt, "zstd: " + std::to_string(got) + " bytes instead of " + std::to_string(size)};
  return {};
}

}  // namespace assay::streams
