#include "tools/byte_source.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "tools/gzip_source.h"
#include "tools/zstd_source.h"

namespace assay::tools {
namespace {

constexpr size_t kReadBytes = 256 << 10;

class FileSource : public ByteSource {
 public:
  FileSource(int fd, std::string name) : fd_(fd), name_(std::move(name)) {
    struct stat info {};
    if (fstat(fd_, &info) == 0 && S_ISREG(info.st_mode)) size_bytes_ = info.st_size;
  }
  ~FileSource() override {
    if (fd_ != STDIN_FILENO) close(fd_);
  }

  /// Looks at the first bytes; they are read again later.
  Result<std::string_view> peek(size_t size) {
    while (head_.size() < size) {
      char bytes[8];
      TRY_ASSIGN(size_t got, read_fd(bytes, std::min(sizeof bytes, size - head_.size())));
      if (got == 0) break;
      head_.append(bytes, got);
    }
    return std::string_view(head_);
  }

  Result<size_t> read(char* into, size_t size) override {
    if (head_.empty()) return read_fd(into, size);
    const size_t count = std::min(size, head_.size());
    std::memcpy(into, head_.data(), count);
    head_.erase(0, count);
    return count;
  }

  std::optional<double> share() const override {
    if (size_bytes_ <= 0) return std::nullopt;
    return static_cast<double>(read_bytes_) / static_cast<double>(size_bytes_);
  }

 private:
  Result<size_t> read_fd(char* into, size_t size) {
    for (;;) {
      const ssize_t got = ::read(fd_, into, size);
      if (got < 0 && errno == EINTR) continue;
      if (got < 0) return Error{Errc::kUnexpected, "read " + name_ + ": " + std::strerror(errno)};
      read_bytes_ += got;
      return static_cast<size_t>(got);
    }
  }

  int fd_;
  std::string name_, head_;
  int64_t size_bytes_ = 0, read_bytes_ = 0;
};

}  // namespace

Result<std::unique_ptr<ByteSource>> open_input(const std::string& path) {
  const bool standard = path == "-";
  const int fd = standard ? STDIN_FILENO : open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const std::string name = standard ? "standard input" : path;
  if (fd < 0) return Error{errno == ENOENT ? Errc::kUsage : Errc::kUnexpected, "open " + name + ": " + std::strerror(errno)};
  auto file = std::make_unique<FileSource>(fd, name);
  TRY_ASSIGN(std::string_view magic, file->peek(4));
  if (magic == "\x28\xb5\x2f\xfd") return unpack_zstd(std::move(file), name);
  if (magic.starts_with("\x1f\x8b")) return unpack_gzip(std::move(file), name);
  return std::unique_ptr<ByteSource>(std::move(file));
}

LineReader::LineReader(std::unique_ptr<ByteSource> source, size_t line_bytes_max)
    : source_(std::move(source)), line_bytes_max_(line_bytes_max) {}

Result<std::optional<Line>> LineReader::next() {
  size_t searched = begin_;
  bool truncated = false;
  size_t kept = 0;  // of a truncated line
  for (;;) {
    if (size_t end = buffer_.find('\n', searched); end != std::string::npos) {
      std::string_view text(buffer_.data() + begin_, truncated ? kept : end - begin_);
      if (!truncated && text.ends_with('\r')) text.remove_suffix(1);
      begin_ = end + 1;
      return std::optional(Line{text, ++number_, truncated});
    }
    if (ended_) {
      if (begin_ == buffer_.size()) return std::optional<Line>();
      std::string_view text(buffer_.data() + begin_, truncated ? kept : buffer_.size() - begin_);
      begin_ = buffer_.size();
      return std::optional(Line{text, ++number_, truncated});
    }
    buffer_.erase(0, begin_);
    begin_ = 0;
    if (buffer_.size() >= line_bytes_max_) {  // keep the beginning, let the rest of the line go by
      truncated = true;
      kept = line_bytes_max_;
      buffer_.resize(kept);
    }
    searched = buffer_.size();
    buffer_.resize(searched + kReadBytes);
    auto got = source_->read(buffer_.data() + searched, kReadBytes);
    buffer_.resize(searched + (got ? *got : 0));
    if (!got) return std::move(got.error());
    ended_ = *got == 0;
  }
}

}  // namespace assay::tools
