#include "streams/archive_files.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <set>
#include <sstream>
#include <utility>

namespace assay::streams {
namespace {

namespace fs = std::filesystem;

Error failed(std::string_view attempt, const std::string& path, Errc code = Errc::kUnreachable) {
  return {code, std::string(attempt) + " " + path + ": " + std::strerror(errno)};
}

class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  ~Descriptor() {
    if (fd_ >= 0) ::close(fd_);
  }
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  operator int() const { return fd_; }

 private:
  int fd_;
};

Result<void> sync_directory(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  if (fd < 0 || ::fsync(fd) != 0) return failed("syncing the directory", path);
  return {};
}

/// Who holds the lock, as the kernel tells: the directory's content is somebody's evidence, so no file in it says so.
std::string holder_of(int fd) {
  struct stat status {};
  std::ifstream locks("/proc/locks");
  if (::fstat(fd, &status) == 0)
    for (std::string line; std::getline(locks, line);) {
      std::istringstream words(line);
      std::string number, kind, mode, access, pid, place;
      words >> number >> kind >> mode >> access >> pid >> place;
      if (kind == "FLOCK" && place.ends_with(":" + std::to_string(status.st_ino))) return "process " + pid;
    }
  return "another process";
}

}  // namespace

Result<MappedFile> MappedFile::open(const std::string& path) {
  Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
  if (fd < 0) return failed("opening", path, errno == ENOENT ? Errc::kNotFound : Errc::kUnexpected);
  struct stat status {};
  if (::fstat(fd, &status) != 0) return failed("looking at", path, Errc::kUnexpected);
  if (!S_ISREG(status.st_mode)) return Error{Errc::kUnexpected, "opening " + path + ": it is no regular file"};
  const size_t size = static_cast<size_t>(status.st_size);
  if (size == 0) return MappedFile("", 0);
  void* data = ::mmap(nullptr, size, PROT_READ, MAP_PRIVATE, fd, 0);
  if (data == MAP_FAILED) return failed("mapping", path, Errc::kUnexpected);
  return MappedFile(static_cast<const char*>(data), size);
}

MappedFile::MappedFile(MappedFile&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile::~MappedFile() {
  if (size_ != 0) ::munmap(const_cast<char*>(data_), size_);
}

Result<DirectoryLock> DirectoryLock::take(const std::string& dir) {
  std::error_code error;
  fs::create_directories(dir, error);
  if (error) return Error{Errc::kUnexpected, "making the directory " + dir + ": " + error.message()};
  const int fd = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return failed("opening the directory", dir, Errc::kUnexpected);
  DirectoryLock lock(fd);
  if (::flock(fd, LOCK_EX | LOCK_NB) != 0) {
    if (errno == EWOULDBLOCK) return Error{Errc::kRefused, "locking " + dir + ": " + holder_of(fd) + " writes there"};
    return failed("locking", dir, Errc::kUnexpected);
  }
  return lock;
}

bool DirectoryLock::held(const std::string& dir) {
  Descriptor fd(::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC));
  return fd >= 0 && ::flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
}

DirectoryLock::DirectoryLock(DirectoryLock&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}

DirectoryLock& DirectoryLock::operator=(DirectoryLock&& other) noexcept {
  std::swap(fd_, other.fd_);
  return *this;
}

DirectoryLock::~DirectoryLock() {
  if (fd_ >= 0) ::close(fd_);
}

Result<void> write_file(const std::string& dir, const std::string& name, std::string_view content, bool sync, unsigned mode) {
  const fs::path path = fs::path(dir) / name;
  std::error_code error;
  // The folders that are new must be on the disk too, each in the one above it.
  std::vector<fs::path> made;
  for (fs::path folder = path.parent_path(); folder != fs::path(dir) && !fs::exists(folder, error); folder = folder.parent_path())
    made.push_back(folder);
  fs::create_directories(path.parent_path(), error);
  if (error) return Error{Errc::kUnreachable, "making the directory " + path.parent_path().string() + ": " + error.message()};

  Descriptor fd(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode));
  if (fd < 0) return failed("creating", path);
  for (std::string_view rest = content; !rest.empty();) {
    const ssize_t n = ::write(fd, rest.data(), rest.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return failed("writing", path);
    rest.remove_prefix(static_cast<size_t>(n));
  }
  if (!sync) return {};
  if (::fsync(fd) != 0) return failed("syncing", path);
  TRY(sync_directory(path.parent_path()));
  for (const fs::path& folder : made) TRY(sync_directory(folder.parent_path()));
  return {};
}

Result<void> sync_files(const std::string& dir, const std::vector<std::string>& names) {
  std::set<fs::path> folders;
  for (const std::string& name : names) {
    const fs::path path = fs::path(dir) / name;
    Descriptor fd(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (fd < 0 || ::fsync(fd) != 0) return failed("syncing", path);
    for (fs::path folder = fs::path(name).parent_path(); !folder.empty(); folder = folder.parent_path()) folders.insert(folder);
  }
  for (const fs::path& folder : folders) TRY(sync_directory(fs::path(dir) / folder));
  return names.empty() ? Result<void>() : sync_directory(dir);
}

Result<void> replace_file(const std::string& dir, const std::string& name, std::string_view content, bool sync) {
  const std::string temporary = name + ".tmp";
  TRY(write_file(dir, temporary, content, sync));
  const std::string from = dir + "/" + temporary, to = dir + "/" + name;
  if (::rename(from.c_str(), to.c_str()) != 0) return failed("renaming to", to);
  if (sync) TRY(sync_directory(dir));
  return {};
}

Result<std::vector<std::string>> list_files(const std::string& dir) {
  std::error_code error;
  std::vector<std::string> names;
  fs::recursive_directory_iterator it(dir, error), end;
  if (error) return Error{fs::exists(dir) ? Errc::kUnexpected : Errc::kNotFound, "listing " + dir + ": " + error.message()};
  for (; it != end; it.increment(error)) {
    if (error) return Error{Errc::kUnexpected, "listing " + dir + ": " + error.message()};
    if (it->is_symlink() || !it->is_directory()) names.push_back(it->path().lexically_relative(dir).string());
  }
  std::ranges::sort(names);
  return names;
}

Result<void> remove_file(const std::string& dir, const std::string& name) {
  std::error_code error;
  fs::remove(fs::path(dir) / name, error);
  if (error) return Error{Errc::kUnexpected, "removing " + dir + "/" + name + ": " + error.message()};
  return {};
}

}  // namespace assay::streams
