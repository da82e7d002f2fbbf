// A store: ordered rows that survive, written in atomic batches. One per task.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "state/base.h"

namespace assay::state {

/// Rows to put and to erase, applied as one.
struct WriteBatch {
  std::vector<std::pair<std::string, std::optional<std::string>>> rows;  // nullopt erases
  void put(std::string key, std::string value) { rows.emplace_back(std::move(key), std::move(value)); }
  void erase(std::string key) { rows.emplace_back(std::move(key), std::nullopt); }
};

class Reader {
 public:
  virtual ~Reader() = default;
  virtual Result<std::optional<std::string>> get(std::string_view key) const = 0;
  /// Calls `row` for each key with the prefix, in byte order, until it returns false. The views live for the call.
  virtual Result<void> scan(std::string_view prefix,
                            const std::function<bool(std::string_view key, std::string_view value)>& row) const = 0;
};

/// A copy of the rows of a store as they once were.
struct Checkpoint {
  int64_t sequence = 0;  // its name: a later copy has a higher one
  std::string note;      // what its maker says about it
};

class Store : public Reader {
 public:
  /// Applies the batch as one: after a crash either all of it is there or nothing.
  virtual Result<void> write(const WriteBatch& batch) = 0;
  /// A view of the rows as they are now; later writes do not show in it.
  virtual std::unique_ptr<Reader> snapshot() const = 0;

  /// Keeps a copy of the rows as they are now; after a crash all of it is there or nothing. The `keep` newest copies up to it
  /// stay. Those of a higher sequence go: the store was set back behind them. Returns the copy's size in bytes.
  /// Cost: RocksDB writes out its memtable and links its files; memory copies.
  virtual Result<uint64_t> checkpoint(const Checkpoint& as, size_t keep) = 0;
  /// The copies at hand, newest first.
  virtual Result<std::vector<Checkpoint>> checkpoints() const = 0;
  /// Puts the rows aside, under a name with this word in it, and takes those of the copy, or none. Rows are never deleted.
  /// Returns where the former ones are; empty when there were none.
  /// Errors: kRefused while a snapshot is held, or when much was put aside before; kNotFound, kCorrupt: the copy is not to be had.
  virtual Result<std::string> replace(std::string_view aside, std::optional<int64_t> checkpoint) = 0;
};

/// A store in memory, for tests, replay scratch and queries that fold a topic again.
std::unique_ptr<Store> open_memory_store();

/// Memory that stores share: one block cache, which their memtables are charged to as well. Thread-safe.
class StoreMemory {
 public:
  virtual ~StoreMemory() = default;
  struct Use {
    size_t blocks = 0;  // data, index and filter blocks
    size_t memtables = 0;
  };
  virtual Use use() const = 0;
};
/// Of so many bytes, at most `memtable_bytes` of them for rows that are not in files yet.
std::shared_ptr<StoreMemory> make_store_memory(size_t bytes, size_t memtable_bytes);

struct RocksdbOptions {
  bool read_only = false;                    // behaviour: refuse writes, do not create
  bool sync = false;                         // behaviour: fsync each batch; the log repairs a lost tail, so false
  std::shared_ptr<StoreMemory> memory = {};  // performance: none: 64 MiB of its own
};

/// Opens (or creates) a RocksDB store. One that is damaged is opened all the same, unless read-only: it answers kCorrupt until
/// its rows are replaced. Copies lie beside it, in DIR.checkpoints; what is put aside in DIR.<word>-<n>.
/// Errors: kRefused when another process holds it, kCorrupt and kNotFound (read-only).
Result<std::unique_ptr<Store>> open_rocksdb_store(const std::string& dir, const RocksdbOptions& options);

}  // namespace assay::state
