#include "streams/gzip.h"

#include <zlib.h>

#include <algorithm>
#include <memory>

namespace assay::streams {
namespace {

constexpr int kGzipWindow = 15 + 16;  // the largest window, in gzip's wrapping
constexpr size_t kPartBytes = 256 << 10;

Bytef* input(std::string_view text) { return reinterpret_cast<Bytef*>(const_cast<char*>(text.data())); }

}  // namespace

std::string gzip(std::string_view content) {
  z_stream stream{};
  CHECK(deflateInit2(&stream, 6, Z_DEFLATED, kGzipWindow, 8, Z_DEFAULT_STRATEGY) == Z_OK);
  CHECK(content.size() <= UINT32_MAX);
  std::string out(deflateBound(&stream, content.size()), '\0');
  stream.next_in = input(content);
  stream.avail_in = static_cast<uInt>(content.size());
  stream.next_out = reinterpret_cast<Bytef*>(out.data());
  stream.avail_out = static_cast<uInt>(out.size());
  CHECK(deflate(&stream, Z_FINISH) == Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

Result<void> gunzip(std::string_view packed, const std::function<Result<void>(std::string_view part)>& part) {
  z_stream stream{};
  CHECK(inflateInit2(&stream, kGzipWindow) == Z_OK);
  std::unique_ptr<z_stream, decltype(&inflateEnd)> guard(&stream, inflateEnd);
  const std::unique_ptr<Bytef[]> buffer(new Bytef[kPartBytes]);
  stream.next_in = input(packed);
  size_t left = packed.size();
  while (true) {
    if (stream.avail_in == 0) {
      stream.avail_in = static_cast<uInt>(std::min<size_t>(left, 1 << 30));
      left -= stream.avail_in;
    }
    stream.next_out = buffer.get();
    stream.avail_out = kPartBytes;
    const int code = inflate(&stream, Z_NO_FLUSH);
    if (size_t made = kPartBytes - stream.avail_out; made > 0) TRY(part({reinterpret_cast<const char*>(buffer.get()), made}));
    if (code == Z_STREAM_END) break;
    if (code == Z_BUF_ERROR && stream.avail_in == 0 && left == 0) return Error{Errc::kCorrupt, "gzip: it ends too soon"};
    if (code != Z_OK && code != Z_BUF_ERROR)
      return Error{Errc::kCorrupt, std::string("gzip: ") + (stream.msg != nullptr ? stream.msg : "it cannot be unpacked")};
  }
  if (stream.avail_in + left != 0) return Error{Errc::kCorrupt, "gzip: bytes follow the end"};
  return {};
}

}  // namespace assay::streams
