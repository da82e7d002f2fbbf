#include "tools/zstd_source.h"

#include <zstd.h>

#include <vector>

namespace assay::tools {
namespace {

class ZstdSource : public ByteSource {
 public:
  ZstdSource(std::unique_ptr<ByteSource> packed, std::string name)
      : packed_(std::move(packed)),
        name_(std::move(name)),
        stream_(ZSTD_createDStream(), ZSTD_freeDStream),
        buffer_(ZSTD_DStreamInSize()) {
    CHECK(stream_ != nullptr);
  }

  Result<size_t> read(char* into, size_t size) override {
    ZSTD_outBuffer out{into, size, 0};
    while (out.pos == 0 && size > 0) {
      if (in_.pos == in_.size && !ended_) {
        TRY_ASSIGN(size_t got, packed_->read(buffer_.data(), buffer_.size()));
        in_ = {buffer_.data(), got, 0};
        ended_ = got == 0;
      }
      const size_t wanted = ZSTD_decompressStream(stream_.get(), &out, &in_);
      if (ZSTD_isError(wanted)) return Error{Errc::kCorrupt, name_ + ": zstd: " + ZSTD_getErrorName(wanted)};
      if (out.pos > 0 || in_.pos < in_.size) {
        inside_frame_ = wanted != 0;
        continue;
      }
      if (wanted == 0) inside_frame_ = false;
      if (ended_) {
        if (inside_frame_) return Error{Errc::kCorrupt, name_ + ": zstd: the input ends inside a frame"};
        return size_t{0};
      }
      inside_frame_ = wanted != 0;
    }
    return out.pos;
  }

  std::optional<double> share() const override { return packed_->share(); }

 private:
  std::unique_ptr<ByteSource> packed_;
  std::string name_;
  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
  std::vector<char> buffer_;
  ZSTD_inBuffer in_{nullptr, 0, 0};
  bool ended_ = false, inside_frame_ = false;
};

}  // namespace

std::unique_ptr<ByteSource> unpack_zstd(std::unique_ptr<ByteSource> packed, std::string name) {
  return std::make_unique<ZstdSource>(std::move(packed), std::move(name));
}

}  // namespace assay::tools
