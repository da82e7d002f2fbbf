// A file system that fails, and that loses at a crash what was not synced: tears writes, undoes names.
#pragma once

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "streams/embedded_log_files.h"

namespace assay::streams::embedded {

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void spill(const std::string& path, std::string_view bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc).write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

/// A fresh directory, in memory where there is such a place: what a crash takes is simulated, so waiting for a disk proves nothing.
inline std::string fresh_directory(const std::string& fallback) {
  std::string pattern = (std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : fallback) + "/assay-embedded-log-XXXXXX";
  CHECK(::mkdtemp(pattern.data()) != nullptr);
  return pattern;
}

/// Wraps the real files of one directory tree. Every changing operation has a number; at `crash_at` the process "dies":
/// that operation happens in part, and every later one fails. lose_power() then takes away what was never made durable.
class FaultyFiles final : public Files, public std::enable_shared_from_this<FaultyFiles> {
 public:
  FaultyFiles(uint64_t seed, std::string backups) : random_(seed), backups_(std::move(backups)) {
    std::filesystem::create_directories(backups_);
  }

  int64_t crash_at = -1;           // number of the operation
  int64_t short_write_bytes = -1;  // the next write writes so many bytes and then finds the disk full
  bool fail_sync = false;          // the next sync fails
  Milliseconds slow_sync{0};
  int64_t operations() const { return operations_; }
  int64_t syncs() const { return syncs_; }
  bool crashed() const { return crashed_; }

  Result<std::unique_ptr<File>> open(const std::string& path, OpenMode mode) override {
    std::lock_guard lock(mutex_);
    if (mode == OpenMode::kCreate) {
      TRY(step("creating " + path));
      remember(path);
      durable_[path] = 0;
    }
    TRY_ASSIGN(auto file, real_->open(path, mode));
    if (!durable_.contains(path)) {
      TRY_ASSIGN(uint64_t size, file->size());
      durable_[path] = size;
    }
    auto entry = std::make_shared<std::string>(path);
    names_.push_back(entry);
    return std::unique_ptr<File>(new FaultyFile(shared_from_this(), entry, std::move(file)));
  }
  Result<void> rename(const std::string& from, const std::string& to) override {
    std::lock_guard lock(mutex_);
    TRY(step("renaming " + from));
    remember(from);
    remember(to);
    TRY(real_->rename(from, to));
    durable_[to] = durable_[from];
    durable_.erase(from);
    for (auto& name : names_) {
      if (*name == to) *name = to + " (replaced)";
      if (*name == from) *name = to;
    }
    return {};
  }
  Result<void> remove(const std::string& path) override {
    std::lock_guard lock(mutex_);
    TRY(step("removing " + path));
    remember(path);
    return real_->remove(path);
  }
  Result<void> sync_directory(const std::string& dir) override {
    std::lock_guard lock(mutex_);
    TRY(step("syncing " + dir));
    undo_.clear();
    return real_->sync_directory(dir);
  }
  Result<std::vector<std::string>> list(const std::string& dir) override { return real_->list(dir); }

  /// What the disk holds after the power failed. Requires: the log is closed.
  void lose_power() {
    std::lock_guard lock(mutex_);
    for (size_t keep = undo_.empty() ? 0 : random_() % (undo_.size() + 1); undo_.size() > keep; undo_.pop_back()) {
      const Undo& undo = undo_.back();
      std::error_code ignored;
      std::filesystem::remove(undo.path, ignored);
      if (undo.existed) {
        std::filesystem::copy_file(undo.backup, undo.path);
        durable_[undo.path] = undo.durable;
      }
    }
    for (auto& [path, durable] : durable_) {
      if (!std::filesystem::exists(path)) continue;
      std::string bytes = slurp(path);
      if (bytes.size() <= durable) continue;
      if (random_() % 2 == 0) bytes.resize(durable + random_() % (bytes.size() - durable + 1));
      if (bytes.size() > durable && random_() % 2 == 0) {  // pages reach the disk in any order
        for (int holes = 0; holes < 3; ++holes) {
          size_t from = durable + random_() % (bytes.size() - durable),
                 length = std::min<size_t>(1 + random_() % 64, bytes.size() - from);
          const char fill = random_() % 2 == 0 ? '\0' : static_cast<char>(random_());
          std::fill_n(bytes.begin() + static_cast<ptrdiff_t>(from), length, fill);
        }
      }
      spill(path, bytes);
    }
  }

 private:
  class FaultyFile final : public File {
   public:
    FaultyFile(std::shared_ptr<FaultyFiles> owner, std::shared_ptr<std::string> name, std::unique_ptr<File> real)
        : owner_(std::move(owner)), name_(std::move(name)), real_(std::move(real)) {}
    Result<void> read_at(uint64_t position, std::span<char> to) const override { return real_->read_at(position, to); }
    Result<uint64_t> size() const override { return real_->size(); }
    Result<void> write_at(uint64_t position, std::span<const std::string_view> parts) override {
      std::lock_guard lock(owner_->mutex_);
      std::string all;
      for (std::string_view part : parts) all.append(part);
      int64_t limit = std::exchange(owner_->short_write_bytes, -1);
      auto alive = owner_->step("writing " + *name_);
      if (!alive && owner_->just_crashed_) limit = static_cast<int64_t>(owner_->random_() % (all.size() + 1));
      if (!alive && !owner_->just_crashed_) return alive;
      if (limit >= 0) all.resize(std::min(all.size(), static_cast<size_t>(limit)));
      std::string_view part = all;
      TRY(real_->write_at(position, {&part, 1}));
      TRY(alive);
      if (limit >= 0) return Error{Errc::kUnexpected, "writing " + *name_ + ": No space left on device"};
      return {};
    }
    Result<void> sync() override {
      Milliseconds slow;
      {
        std::lock_guard lock(owner_->mutex_);
        TRY(owner_->step("syncing " + *name_));
        ++owner_->syncs_;
        if (std::exchange(owner_->fail_sync, false)) return Error{Errc::kUnexpected, "syncing " + *name_ + ": Input/output error"};
        TRY_ASSIGN(uint64_t size, real_->size());
        owner_->durable_[*name_] = size;
        slow = owner_->slow_sync;
      }
      if (slow.count() > 0) std::this_thread::sleep_for(slow);
      return {};
    }
    Result<void> truncate(uint64_t size_bytes) override {
      std::lock_guard lock(owner_->mutex_);
      TRY(owner_->step("cutting " + *name_));
      owner_->durable_[*name_] = std::min(owner_->durable_[*name_], size_bytes);
      return real_->truncate(size_bytes);
    }

   private:
    std::shared_ptr<FaultyFiles> owner_;
    std::shared_ptr<std::string> name_;
    std::unique_ptr<File> real_;
  };

  struct Undo {
    std::string path, backup;
    bool existed;
    uint64_t durable;
  };

  Result<void> step(const std::string& what) {
    just_crashed_ = false;
    if (!crashed_ && operations_++ == crash_at) crashed_ = just_crashed_ = true;
    if (crashed_) return Error{Errc::kUnexpected, what + ": the process died"};
    return {};
  }

  /// Keeps what lies under that name, so that a crash can bring it back.
  void remember(const std::string& path) {
    Undo undo{path, backups_ + "/" + std::to_string(++backup_count_), std::filesystem::exists(path), 0};
    if (undo.existed) {
      std::filesystem::copy_file(path, undo.backup);
      undo.durable = durable_.contains(path) ? durable_[path] : std::filesystem::file_size(path);
    }
    undo_.push_back(std::move(undo));
  }

  std::mutex mutex_;
  std::shared_ptr<Files> real_ = posix_files();
  std::mt19937_64 random_;
  const std::string backups_;
  std::map<std::string, uint64_t> durable_;          // bytes of each file that are on the disk for good
  std::vector<std::shared_ptr<std::string>> names_;  // of open files: they follow renames
  std::vector<Undo> undo_;
  int64_t backup_count_ = 0, operations_ = 0, syncs_ = 0;
  bool crashed_ = false, just_crashed_ = false;
};

}  // namespace assay::streams::embedded
