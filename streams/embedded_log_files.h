// The few operating system calls of the embedded log, as a seam: production and injected faults share it.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "streams/base.h"

namespace assay::streams::embedded {

/// An open file. Reads may run from several threads, beside one writer.
class File {
 public:
  virtual ~File() = default;
  /// Reads exactly `to.size()` bytes. Errors: kCorrupt when the file ends before.
  virtual Result<void> read_at(uint64_t position, std::span<char> to) const = 0;
  /// Writes the parts one after the other; on failure any prefix of them may be there.
  virtual Result<void> write_at(uint64_t position, std::span<const std::string_view> parts) = 0;
  /// Makes data and size durable. A failure is final: the kernel may have dropped the pages, so a second call proves nothing.
  virtual Result<void> sync() = 0;
  virtual Result<void> truncate(uint64_t size_bytes) = 0;
  virtual Result<uint64_t> size() const = 0;
};

enum class OpenMode { kRead, kReadWrite, kCreate };  // kCreate: new or emptied

class Files {
 public:
  virtual ~Files() = default;
  virtual Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) = 0;
  virtual Result<void> rename(const std::string& from, const std::string& to) = 0;
  virtual Result<void> remove(const std::string& path) = 0;
  /// Makes created, renamed and removed names of the directory durable.
  virtual Result<void> sync_directory(const std::string& dir) = 0;
  /// Names in the directory, sorted.
  virtual Result<std::vector<std::string>> list(const std::string& dir) = 0;
};

/// The real file system.
std::shared_ptr<Files> posix_files();

/// Keeps a directory for one writer, or for readers while nobody writes; gives it back when destroyed.
class DirectoryLock {
 public:
  /// Errors: kRefused naming the directory and the process that holds it.
  static Result<std::unique_ptr<DirectoryLock>> take(const std::string& dir, bool shared);
  ~DirectoryLock();
  DirectoryLock(const DirectoryLock&) = delete;

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_;
  bool names_us_ = false;  // our process id is in it
};

/// Creates the directory and its parents, durably.
Result<void> create_directories(const std::string& dir);

}  // namespace assay::streams::embedded
