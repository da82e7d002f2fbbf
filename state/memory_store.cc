// A store in memory: the fake beside the interface, and scratch space for queries that fold a topic again.
#include <map>
#include <mutex>
#include <shared_mutex>
#include <utility>

#include "state/store.h"

namespace assay::state {
namespace {

using Table = std::map<std::string, std::string, std::less<>>;

Result<void> scan_table(const Table& table, std::string_view prefix,
                        const std::function<bool(std::string_view, std::string_view)>& row) {
  for (auto it = table.lower_bound(prefix); it != table.end() && it->first.starts_with(prefix); ++it)
    if (!row(it->first, it->second)) break;
  return {};
}

class Snapshot : public Reader {
 public:
  explicit Snapshot(Table table) : table_(std::move(table)) {}
  Result<std::optional<std::string>> get(std::string_view key) const override {
    auto it = table_.find(key);
    return it == table_.end() ? std::optional<std::string>() : std::optional<std::string>(it->second);
  }
  Result<void> scan(std::string_view prefix, const std::function<bool(std::string_view, std::string_view)>& row) const override {
    return scan_table(table_, prefix, row);
  }

 private:
  Table table_;
};

class MemoryStore : public Store {
 public:
  Result<std::optional<std::string>> get(std::string_view key) const override {
    std::shared_lock lock(mutex_);
    auto it = table_.find(key);
    return it == table_.end() ? std::optional<std::string>() : std::optional<std::string>(it->second);
  }
  Result<void> scan(std::string_view prefix, const std::function<bool(std::string_view, std::string_view)>& row) const override {
    std::shared_lock lock(mutex_);
    return scan_table(table_, prefix, row);
  }
  Result<void> write(const WriteBatch& batch) override {
    std::unique_lock lock(mutex_);
    for (const auto& [key, value] : batch.rows) {
      if (value)
        table_.insert_or_assign(key, *value);
      else
        table_.erase(key);
    }
    return {};
  }
  std::unique_ptr<Reader> snapshot() const override {
    std::shared_lock lock(mutex_);
    return std::make_unique<Snapshot>(table_);
  }

  Result<uint64_t> checkpoint(const Checkpoint& as, size_t keep) override {
    std::unique_lock lock(mutex_);
    copies_.erase(copies_.lower_bound(as.sequence), copies_.end());
    copies_[as.sequence] = {as.note, table_};
    while (copies_.size() > keep) copies_.erase(copies_.begin());
    uint64_t bytes = 0;
    for (const auto& [key, value] : table_) bytes += key.size() + value.size();
    return bytes;
  }
  Result<std::vector<Checkpoint>> checkpoints() const override {
    std::shared_lock lock(mutex_);
    std::vector<Checkpoint> out;
    for (auto it = copies_.rbegin(); it != copies_.rend(); ++it) out.push_back({it->first, it->second.note});
    return out;
  }
  Result<std::string> replace(std::string_view aside, std::optional<int64_t> checkpoint) override {
    std::unique_lock lock(mutex_);
    auto copy = checkpoint ? copies_.find(*checkpoint) : copies_.end();
    if (checkpoint && copy == copies_.end())
      return Error{Errc::kNotFound, "no checkpoint " + std::to_string(*checkpoint) + " of a store in memory"};
    const Table former = std::exchange(table_, checkpoint ? copy->second.rows : Table());
    return former.empty() ? std::string() : "nowhere: they were in memory, and " + std::string(aside);
  }

 private:
  struct Copy {
    std::string note;
    Table rows;
  };
  mutable std::shared_mutex mutex_;
  Table table_;
  std::map<int64_t, Copy> copies_;
};

}  // namespace

std::unique_ptr<Store> open_memory_store() { return std::make_unique<MemoryStore>(); }

}  // namespace assay::state
