#include "replay/sim_disk.h"

#include <utility>

namespace assay::replay {

class SimStore final : public state::Store {
 public:
  SimStore(SimDisk& disk, std::string task, std::shared_ptr<SimDisk::File> file, std::function<void()> wait)
      : disk_(disk), task_(std::move(task)), file_(std::move(file)), wait_(std::move(wait)) {
    file_->open = true;
  }
  ~SimStore() override { file_->open = false; }

  Result<std::optional<std::string>> get(std::string_view key) const override {
    if (file_->spoilt.contains(key)) return spoilt();
    auto it = file_->rows.find(key);
    return it == file_->rows.end() ? std::optional<std::string>() : std::optional<std::string>(it->second);
  }
  Result<void> scan(std::string_view prefix, const std::function<bool(std::string_view, std::string_view)>& row) const override {
    const SimDisk::Table& rows = file_->rows;
    for (auto it = rows.lower_bound(prefix); it != rows.end() && it->first.starts_with(prefix); ++it) {
      if (file_->spoilt.contains(it->first)) return spoilt();
      if (!row(it->first, it->second)) break;
    }
    return {};
  }
  Result<void> write(const state::WriteBatch& batch) override {
    wait_();
    if (disk_.full) return Error{Errc::kUnexpected, "writing store " + task_ + ": IO error: No space left on device"};
    apply(batch, file_->rows);
    for (const auto& [key, value] : batch.rows)
      if (auto spoilt = file_->spoilt.find(key); spoilt != file_->spoilt.end()) file_->spoilt.erase(spoilt);
    file_->unsynced.push_back(batch);
    if (disk_.dice_.chance(200)) sync();
    wait_();
    return {};
  }
  std::unique_ptr<state::Reader> snapshot() const override {
    auto copy = state::open_memory_store();
    state::WriteBatch all;
    for (const auto& [key, value] : file_->rows) all.put(key, value);
    CHECK(copy->write(all).has_value());
    return copy;
  }

  Result<uint64_t> checkpoint(const state::Checkpoint& as, size_t keep) override {
    wait_();
    if (disk_.full) return Error{Errc::kUnexpected, "copying store " + task_ + ": IO error: No space left on device"};
    sync();  // what a copy holds is in files
    auto& copies = file_->copies;
    copies.erase(copies.lower_bound(as.sequence), copies.end());
    copies[as.sequence] = {as.note, file_->rows, file_->spoilt};
    while (copies.size() > keep) copies.erase(copies.begin());
    wait_();
    return uint64_t{file_->rows.size()};
  }
  Result<std::vector<state::Checkpoint>> checkpoints() const override {
    std::vector<state::Checkpoint> out;
    for (auto it = file_->copies.rbegin(); it != file_->copies.rend(); ++it) out.push_back({it->first, it->second.note});
    return out;
  }
  Result<std::string> replace(std::string_view aside, std::optional<int64_t> checkpoint) override {
    wait_();
    auto copy = checkpoint ? file_->copies.find(*checkpoint) : file_->copies.end();
    if (checkpoint && copy == file_->copies.end()) return Error{Errc::kNotFound, "no checkpoint of store " + task_};
    const bool empty = file_->rows.empty();
    file_->rows = checkpoint ? copy->second.rows : SimDisk::Table();
    file_->spoilt = checkpoint ? copy->second.spoilt : SimDisk::Keys();
    file_->synced = file_->rows;
    file_->unsynced.clear();
    wait_();
    return empty ? std::string() : task_ + "." + std::string(aside);
  }

  static void apply(const state::WriteBatch& batch, SimDisk::Table& to) {
    for (const auto& [key, value] : batch.rows) {
      if (value)
        to.insert_or_assign(key, *value);
      else
        to.erase(key);
    }
  }

 private:
  void sync() {
    for (const state::WriteBatch& one : std::exchange(file_->unsynced, {})) apply(one, file_->synced);
  }
  Error spoilt() const { return {Errc::kCorrupt, "reading store " + task_ + ": Corruption: block checksum mismatch"}; }

  SimDisk& disk_;
  const std::string task_;
  std::shared_ptr<SimDisk::File> file_;
  std::function<void()> wait_;
};

Result<std::shared_ptr<state::Store>> SimDisk::open(const std::string& task, std::function<void()> wait) {
  std::shared_ptr<File>& file = files_[task];
  if (file == nullptr) file = std::make_shared<File>();
  if (file->open) return Error{Errc::kRefused, "opening store " + task + ": IO error: lock held"};
  return std::shared_ptr<state::Store>(std::make_shared<SimStore>(*this, task, file, std::move(wait)));
}

size_t SimDisk::lose_power() {
  size_t lost = 0;
  for (auto& [task, file] : files_) {
    CHECK(!file->open);
    const auto kept = static_cast<size_t>(dice_.below(std::ssize(file->unsynced) + 1));
    lost += file->unsynced.size() - kept;
    for (size_t i = 0; i < kept; ++i) SimStore::apply(file->unsynced[i], file->synced);
    file->unsynced.clear();
    file->rows = file->synced;
  }
  return lost;
}

std::vector<std::string> SimDisk::tasks() const {
  std::vector<std::string> out;
  for (const auto& [task, file] : files_) out.push_back(task);
  return out;
}

bool SimDisk::flip_bit() {
  if (files_.empty()) return false;
  File& file = *std::next(files_.begin(), dice_.below(std::ssize(files_)))->second;
  if (!file.copies.empty() && dice_.chance(300)) {
    Copy& copy = std::next(file.copies.begin(), dice_.below(std::ssize(file.copies)))->second;
    if (copy.rows.empty()) return false;
    copy.spoilt.insert(std::next(copy.rows.begin(), dice_.below(std::ssize(copy.rows)))->first);
    return true;
  }
  if (file.rows.empty()) return false;
  file.spoilt.insert(std::next(file.rows.begin(), dice_.below(std::ssize(file.rows)))->first);
  return true;
}

}  // namespace assay::replay
