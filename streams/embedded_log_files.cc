#include "streams/embedded_log_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>

namespace assay::streams::embedded {
namespace {

Error os_error(const std::string& attempt, const std::string& path, int number) {
  Errc code = number == ENOENT ? Errc::kNotFound : Errc::kUnexpected;
  return {code, attempt + " " + path + ": " + std::strerror(number)};
}

class PosixFile final : public File {
 public:
  PosixFile(int fd, std::string path) : fd_(fd), path_(std::move(path)) {}
  ~PosixFile() override { ::close(fd_); }

  Result<void> read_at(uint64_t position, std::span<char> to) const override {
    size_t done = 0;
    while (done < to.size()) {
      ssize_t n = ::pread(fd_, to.data() + done, to.size() - done, static_cast<off_t>(position + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0)
        return os_error("reading " + std::to_string(to.size()) + " bytes at " + std::to_string(position) + " of", path_, errno);
      if (n == 0) {
        return Error{Errc::kCorrupt, "reading " + std::to_string(to.size()) + " bytes at " + std::to_string(position) + " of " +
                                         path_ + ": the file ends after " + std::to_string(done)};
      }
      done += static_cast<size_t>(n);
    }
    return {};
  }

  Result<void> write_at(uint64_t position, std::span<const std::string_view> parts) override {
    constexpr size_t kMaxParts = 64;  // far below IOV_MAX, and enough to make a call worth it
    iovec vectors[kMaxParts];
    size_t next = 0, skip = 0;
    while (next < parts.size()) {
      size_t count = 0;
      for (size_t i = next; i < parts.size() && count < kMaxParts; ++i, ++count) {
        std::string_view part = i == next ? parts[i].substr(skip) : parts[i];
        vectors[count] = {const_cast<char*>(part.data()), part.size()};
      }
      ssize_t n = ::pwritev(fd_, vectors, static_cast<int>(count), static_cast<off_t>(position));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return os_error("writing at " + std::to_string(position) + " of", path_, errno);
      position += static_cast<uint64_t>(n);
      size_t written = static_cast<size_t>(n);
      while (next < parts.size() && written >= parts[next].size() - skip) {
        written -= parts[next].size() - skip;
        skip = 0;
        ++next;
      }
      skip += written;
    }
    return {};
  }

  Result<void> sync() override {
    if (::fdatasync(fd_) != 0) return os_error("syncing", path_, errno);
    return {};
  }

  Result<void> truncate(uint64_t size_bytes) override {
    if (::ftruncate(fd_, static_cast<off_t>(size_bytes)) != 0) {
      return os_error("cutting to " + std::to_string(size_bytes) + " bytes", path_, errno);
    }
    return {};
  }

  Result<uint64_t> size() const override {
    struct stat st;
    if (::fstat(fd_, &st) != 0) return os_error("asking the size of", path_, errno);
    return static_cast<uint64_t>(st.st_size);
  }

 private:
  int fd_;
  std::string path_;
};

class PosixFiles final : public Files {
 public:
  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    int flags = O_CLOEXEC | (mode == OpenMode::kRead ? O_RDONLY : O_RDWR) | (mode == OpenMode::kCreate ? O_CREAT | O_TRUNC : 0);
    int fd = ::open(path.c_str(), flags, 0644);
    if (fd < 0) return os_error("opening", path, errno);
    return std::unique_ptr<File>(new PosixFile(fd, path));
  }

  Result<void> rename(const std::string& from, const std::string& to) override {
    if (::rename(from.c_str(), to.c_str()) != 0) return os_error("renaming " + from + " to", to, errno);
    return {};
  }

  Result<void> remove(const std::string& path) override {
    if (::unlink(path.c_str()) != 0) return os_error("removing", path, errno);
    return {};
  }

  Result<void> sync_directory(const std::string& dir) override {
    int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return os_error("opening directory", dir, errno);
    int failed = ::fsync(fd) != 0 ? errno : 0;
    ::close(fd);
    if (failed != 0) return os_error("syncing directory", dir, failed);
    return {};
  }

  Result<std::vector<std::string>> list(const std::string& dir) override {
    std::vector<std::string> names;
    std::error_code code;
    for (std::filesystem::directory_iterator it(dir, code), end; !code && it != end; it.increment(code)) {
      names.push_back(it->path().filename().string());
    }
    if (code) return os_error("listing", dir, code.value());
    std::sort(names.begin(), names.end());
    return names;
  }
};

}  // namespace

std::shared_ptr<Files> posix_files() { return std::make_shared<PosixFiles>(); }

Result<std::unique_ptr<DirectoryLock>> DirectoryLock::take(const std::string& dir, bool shared) {
  const std::string path = dir + "/LOCK";
  int fd = ::open(path.c_str(), (shared ? O_RDONLY : O_RDWR | O_CREAT) | O_CLOEXEC, 0644);
  if (fd < 0) return os_error("opening", path, errno);
  std::unique_ptr<DirectoryLock> lock(new DirectoryLock(fd));
  while (::flock(fd, (shared ? LOCK_SH : LOCK_EX) | LOCK_NB) != 0) {
    if (errno == EINTR) continue;
    if (errno != EWOULDBLOCK) return os_error("locking", path, errno);
    // When it could be shared, its holders are readers, and the id in it is that of a writer that died.
    const bool only_readers = !shared && ::flock(fd, LOCK_SH | LOCK_NB) == 0;
    char pid[32] = {};
    ssize_t n = only_readers ? 0 : ::pread(fd, pid, sizeof pid - 1, 0);
    std::string holder = n > 0 ? "process " + std::string(pid, static_cast<size_t>(n)) : "processes that read it";
    return Error{Errc::kRefused, "opening the log in " + dir + ": it is held by " + holder};
  }
  if (!shared) {
    lock->names_us_ = true;
    std::string pid = std::to_string(::getpid());
    if (::ftruncate(fd, 0) != 0 || ::pwrite(fd, pid.data(), pid.size(), 0) != static_cast<ssize_t>(pid.size())) {
      return os_error("writing the process id into", path, errno);
    }
  }
  return lock;
}

DirectoryLock::~DirectoryLock() {
  // A writer leaves no pid behind: readers that hold the lock later must not be taken for it.
  if (names_us_) [[maybe_unused]]
    int ignored = ::ftruncate(fd_, 0);
  ::close(fd_);
}

Result<void> create_directories(const std::string& dir) {
  std::error_code code;
  const std::filesystem::path path = std::filesystem::absolute(dir, code).lexically_normal();
  std::filesystem::path missing = path;
  std::vector<std::filesystem::path> to_sync;
  while (!missing.empty() && missing != missing.root_path() && !std::filesystem::exists(missing, code)) {
    missing = missing.parent_path();
    to_sync.push_back(missing);
  }
  std::filesystem::create_directories(path, code);
  if (code) return os_error("creating directory", dir, code.value());
  for (const auto& parent : to_sync) TRY(posix_files()->sync_directory(parent.string()));
  return {};
}

}  // namespace assay::streams::embedded
