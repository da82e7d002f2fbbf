#include "tools/gzip_source.h"

#include <zlib.h>

#include <vector>

namespace assay::tools {
namespace {

constexpr size_t kPackedBytes = 64 << 10;
constexpr int kGzipWindow = 15 + 16;  // 16: the gzip wrapper and nothing else

class GzipSource : public ByteSource {
 public:
  GzipSource(std::unique_ptr<ByteSource> packed, std::string name)
      : packed_(std::move(packed)), name_(std::move(name)), buffer_(kPackedBytes) {
    CHECK(inflateInit2(&stream_, kGzipWindow) == Z_OK);
  }
  ~GzipSource() override { inflateEnd(&stream_); }

  Result<size_t> read(char* into, size_t size) override {
    stream_.next_out = reinterpret_cast<Bytef*>(into);
    stream_.avail_out = static_cast<uInt>(size);
    while (stream_.avail_out == size && size > 0) {
      if (stream_.avail_in == 0) {
        TRY_ASSIGN(size_t got, packed_->read(buffer_.data(), buffer_.size()));
        if (got == 0 && inside_member_) return Error{Errc::kCorrupt, name_ + ": gzip: the input ends inside a member"};
        if (got == 0) return size_t{0};
        stream_.next_in = reinterpret_cast<Bytef*>(buffer_.data());
        stream_.avail_in = static_cast<uInt>(got);
      }
      if (!inside_member_) CHECK(inflateReset(&stream_) == Z_OK);
      inside_member_ = true;
      const int code = inflate(&stream_, Z_NO_FLUSH);
      if (code == Z_STREAM_END)
        inside_member_ = false;
      else if (code != Z_OK && code != Z_BUF_ERROR)
        return Error{Errc::kCorrupt, name_ + ": gzip: " + (stream_.msg != nullptr ? stream_.msg : "bad data")};
    }
    return size - stream_.avail_out;
  }

  std::optional<double> share() const override { return packed_->share(); }

 private:
  std::unique_ptr<ByteSource> packed_;
  std::string name_;
  std::vector<char> buffer_;
  z_stream stream_{};
  bool inside_member_ = true;
};

}  // namespace

std::unique_ptr<ByteSource> unpack_gzip(std::unique_ptr<ByteSource> packed, std::string name) {
  return std::make_unique<GzipSource>(std::move(packed), std::move(name));
}

}  // namespace assay::tools
