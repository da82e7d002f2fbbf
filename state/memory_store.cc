// A store in memory: the fake beside the interface, and scratch space for queries that fold a topic again.
#include <map>
#include <mutex>
#include <shared_mutex>

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

 private:
  mutable std::shared_mutex mutex_;
  Table table_;
};

}  // namespace

std::unique_ptr<Store> open_memory_store() { return std::make_unique<MemoryStore>(); }

}  // namespace assay::state
