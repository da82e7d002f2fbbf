// The few file operations that archives need, with errors that say what was attempted on which file.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "streams/base.h"

namespace assay::streams {

/// A file mapped for reading; it stays readable when the name is removed.
class MappedFile {
 public:
  /// Errors: kNotFound, kUnexpected.
  static Result<MappedFile> open(const std::string& path);
  MappedFile(MappedFile&& other) noexcept;
  MappedFile& operator=(MappedFile&&) = delete;
  ~MappedFile();
  std::string_view bytes() const { return {data_, size_}; }

 private:
  MappedFile(const char* data, size_t size) : data_(data), size_(size) {}
  const char* data_ = nullptr;
  size_t size_ = 0;
};

/// The exclusive right to write in a directory, as long as it lives.
class DirectoryLock {
 public:
  /// Makes the directory when it is not there. Errors: kRefused (held by another), kUnexpected.
  static Result<DirectoryLock> take(const std::string& dir);
  /// Whether somebody holds it now.
  static bool held(const std::string& dir);
  DirectoryLock(DirectoryLock&& other) noexcept;
  DirectoryLock& operator=(DirectoryLock&& other) noexcept;
  ~DirectoryLock();

 private:
  explicit DirectoryLock(int fd) : fd_(fd) {}
  int fd_ = -1;
};

/// Writes dir/name whole (making the folders in between); with `sync`, it and its folders are on the disk afterwards.
/// Errors: kUnreachable (no space, an I/O error: trying again may help).
/// `mode`: who may read it, when it is new.
Result<void> write_file(const std::string& dir, const std::string& name, std::string_view content, bool sync, unsigned mode = 0644);
/// Puts files that were written without `sync`, and the folders from each up to dir, on the disk. Errors: as above.
Result<void> sync_files(const std::string& dir, const std::vector<std::string>& names);
/// The same as write_file(), by way of dir/name.tmp and one rename: a reader sees the old file or the new.
Result<void> replace_file(const std::string& dir, const std::string& name, std::string_view content, bool sync);
/// Every file below dir, relative to it, sorted. Errors: kNotFound, kUnexpected.
Result<std::vector<std::string>> list_files(const std::string& dir);
/// Removes dir/name; that it is not there is no error.
Result<void> remove_file(const std::string& dir, const std::string& name);

}  // namespace assay::streams
