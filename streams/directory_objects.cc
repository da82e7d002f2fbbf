// Objects as files: written under a name of their own, then linked to theirs, which fails when it is taken.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>

#include "streams/object_store.h"

namespace assay::streams {
namespace {

namespace fs = std::filesystem;

Error failed(const std::string& attempted, const std::string& path, int code) {
  const bool passing =
      code == ENOSPC || code == EDQUOT || code == EFBIG || code == EIO || code == EMFILE || code == ENFILE || code == EINTR;
  return {passing                           ? Errc::kUnreachable
          : code == ENOENT                  ? Errc::kNotFound
          : code == EACCES || code == EROFS ? Errc::kRefused
                                            : Errc::kUnexpected,
          attempted + " " + path + ": " + std::strerror(code)};
}

/// Closes what it holds.
struct File {
  int fd = -1;
  ~File() {
    if (fd >= 0) ::close(fd);
  }
};

Result<void> sync_dir(const fs::path& dir) {
  File d{::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC)};
  if (d.fd < 0 || ::fsync(d.fd) != 0) return failed("syncing", dir.string(), errno);
  return {};
}

class DirectoryObjects : public ObjectStore {
 public:
  explicit DirectoryObjects(fs::path dir) : dir_(std::move(dir)) {}
  std::string describe() const override { return "directory " + dir_.string(); }

  Result<bool> put_new(const std::string& name, std::string_view content) override {
    const fs::path path = dir_ / name, folder = path.parent_path();
    std::error_code error;
    if (fs::exists(path, error)) return false;
    if (!fs::exists(folder, error)) TRY(make_folders(folder));
    static std::atomic<uint64_t> counter{0};
    const fs::path part = folder / (std::string(kUnnamedObject) + std::to_string(::getpid()) + "-" + std::to_string(counter++));
    if (auto written = write(part, content); !written) {
      ::unlink(part.c_str());
      return written.error();
    }
    const int linked = ::link(part.c_str(), path.c_str());
    const int code = errno;
    ::unlink(part.c_str());
    if (linked != 0 && code == EEXIST) return false;
    if (linked != 0) return failed("naming", path.string(), code);
    TRY(sync_dir(folder));
    return true;
  }

  Result<std::string> get(const std::string& name) override { return read(name, 0, UINT64_MAX); }
  Result<std::string> get_range(const std::string& name, uint64_t from, uint64_t size) override { return read(name, from, size); }

  Result<std::vector<std::string>> list(const std::string& prefix) override {
    std::vector<std::string> out;
    std::error_code error;
    // The prefix may end within a name: everything below its last folder is looked through.
    const fs::path top = dir_ / prefix.substr(0, prefix.rfind('/') == std::string::npos ? 0 : prefix.rfind('/'));
    for (fs::recursive_directory_iterator it(top, error), end; !error && it != end; it.increment(error)) {
      if (!it->is_regular_file(error) || it->path().filename().string().starts_with(kUnnamedObject)) continue;
      std::string name = it->path().lexically_relative(dir_).string();
      if (name.starts_with(prefix)) out.push_back(std::move(name));
    }
    if (error && error != std::errc::no_such_file_or_directory)
      return Error{Errc::kUnreachable, "listing " + top.string() + ": " + error.message()};
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  Result<void> make_folders(const fs::path& folder) {
    std::error_code error;
    fs::create_directories(folder, error);
    if (error) return failed("creating", folder.string(), error.value());
    for (fs::path at = folder; at != dir_; at = at.parent_path()) TRY(sync_dir(at.parent_path()));
    return {};
  }

  Result<void> write(const fs::path& path, std::string_view content) {
    File file{::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644)};
    if (file.fd < 0) return failed("creating", path.string(), errno);
    for (size_t done = 0; done < content.size();) {
      const ssize_t n = ::write(file.fd, content.data() + done, content.size() - done);
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed("writing", path.string(), errno);
      done += static_cast<size_t>(n);
    }
    if (::fsync(file.fd) != 0) return failed("syncing", path.string(), errno);
    return {};
  }

  /// `size` UINT64_MAX: to the end.
  Result<std::string> read(const std::string& name, uint64_t from, uint64_t size) {
    const std::string path = (dir_ / name).string();
    File file{::open(path.c_str(), O_RDONLY | O_CLOEXEC)};
    if (file.fd < 0) return failed("opening", path, errno);
    struct stat status {};
    if (::fstat(file.fd, &status) != 0) return failed("asking the size of", path, errno);
    const auto whole = static_cast<uint64_t>(status.st_size);
    if (size == UINT64_MAX) size = whole - std::min(from, whole);
    if (from > whole || size > whole - from)
      return Error{Errc::kCorrupt, "reading " + path + ": it has " + std::to_string(whole) + " bytes, too few"};
    std::string out(size, '\0');
    for (uint64_t done = 0; done < size;) {
      const ssize_t n = ::pread(file.fd, out.data() + done, size - done, static_cast<off_t>(from + done));
      if (n < 0 && errno == EINTR) continue;
      if (n < 0) return failed("reading", path, errno);
      if (n == 0) return Error{Errc::kCorrupt, "reading " + path + ": it became shorter"};
      done += static_cast<uint64_t>(n);
    }
    return out;
  }

  fs::path dir_;
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> open_directory_objects(const std::string& dir, bool create) {
  std::error_code error;
  fs::path path = fs::absolute(dir, error).lexically_normal();
  if (!path.has_filename()) path = path.parent_path();
  if (create) {
    fs::create_directories(path, error);
    if (error) return failed("creating", path.string(), error.value());
  } else if (!fs::is_directory(path, error)) {
    return Error{Errc::kNotFound, "no directory " + path.string()};
  }
  return std::unique_ptr<ObjectStore>(std::make_unique<DirectoryObjects>(std::move(path)));
}

}  // namespace assay::streams
