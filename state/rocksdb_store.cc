// RocksDB behind the store interface. The write-ahead log is on and not synced: kill -9 loses nothing, a power loss
// loses a tail that the log repairs.
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/options.h>
#include <rocksdb/table.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>

#include <algorithm>
#include <filesystem>

#include "state/store.h"

namespace assay::state {
namespace {

Error from_status(const std::string& attempted, const std::string& dir, const rocksdb::Status& status) {
  const std::string text = status.ToString();
  Errc code = Errc::kUnexpected;
  if (status.IsCorruption())
    code = Errc::kCorrupt;
  else if (status.IsIOError() && text.find("lock") != std::string::npos)
    code = Errc::kRefused;
  return {code, attempted + " store " + dir + ": " + text};
}

rocksdb::Slice slice(std::string_view s) { return {s.data(), s.size()}; }
std::string_view view(const rocksdb::Slice& s) { return {s.data(), s.size()}; }

Result<std::optional<std::string>> get_row(rocksdb::DB& db, const std::string& dir, const rocksdb::ReadOptions& options,
                                           std::string_view key) {
  std::string value;
  rocksdb::Status status = db.Get(options, slice(key), &value);
  if (status.IsNotFound()) return std::optional<std::string>();
  if (!status.ok()) return from_status("reading", dir, status);
  return std::optional<std::string>(std::move(value));
}

Result<void> scan_rows(rocksdb::DB& db, const std::string& dir, const rocksdb::ReadOptions& options, std::string_view prefix,
                       const std::function<bool(std::string_view, std::string_view)>& row) {
  std::unique_ptr<rocksdb::Iterator> it(db.NewIterator(options));
  for (it->Seek(slice(prefix)); it->Valid() && view(it->key()).starts_with(prefix); it->Next())
    if (!row(view(it->key()), view(it->value()))) break;
  if (!it->status().ok()) return from_status("scanning", dir, it->status());
  return {};
}

class SharedMemory : public StoreMemory {
 public:
  SharedMemory(size_t bytes, size_t memtable_bytes)
      : memtable_bytes_(memtable_bytes),
        cache_(rocksdb::NewLRUCache(bytes)),
        memtables_(std::make_shared<rocksdb::WriteBufferManager>(memtable_bytes, cache_)) {}

  Use use() const override {
    // What memtables are charged with stands in the cache as blocks that nobody can read.
    const size_t charged = memtables_->dummy_entries_in_cache_usage(), all = cache_->GetUsage();
    return {all - std::min(all, charged), memtables_->memory_usage()};
  }
  void apply(rocksdb::Options& rocks, rocksdb::BlockBasedTableOptions& table) const {
    rocks.write_buffer_manager = memtables_;
    // The manager flushes whoever writes when all are full together; no store alone takes more than a quarter.
    rocks.write_buffer_size = std::clamp<size_t>(memtable_bytes_ / 4, 256 << 10, 64 << 20);
    table.block_cache = cache_;
    // Indexes and filters grow with the state, so they too live within the cache.
    table.cache_index_and_filter_blocks = true;
    table.pin_l0_filter_and_index_blocks_in_cache = true;
  }

 private:
  const size_t memtable_bytes_;
  std::shared_ptr<rocksdb::Cache> cache_;
  std::shared_ptr<rocksdb::WriteBufferManager> memtables_;
};

class RocksdbSnapshot : public Reader {
 public:
  RocksdbSnapshot(std::shared_ptr<rocksdb::DB> db, std::string dir) : db_(std::move(db)), dir_(std::move(dir)) {
    options_.snapshot = db_->GetSnapshot();
  }
  ~RocksdbSnapshot() override { db_->ReleaseSnapshot(options_.snapshot); }
  Result<std::optional<std::string>> get(std::string_view key) const override { return get_row(*db_, dir_, options_, key); }
  Result<void> scan(std::string_view prefix, const std::function<bool(std::string_view, std::string_view)>& row) const override {
    return scan_rows(*db_, dir_, options_, prefix, row);
  }

 private:
  std::shared_ptr<rocksdb::DB> db_;
  std::string dir_;
  rocksdb::ReadOptions options_;
};

class RocksdbStore : public Store {
 public:
  RocksdbStore(std::shared_ptr<rocksdb::DB> db, std::string dir, bool sync)
      : db_(std::move(db)), dir_(std::move(dir)), sync_(sync) {}

  Result<std::optional<std::string>> get(std::string_view key) const override { return get_row(*db_, dir_, {}, key); }
  Result<void> scan(std::string_view prefix, const std::function<bool(std::string_view, std::string_view)>& row) const override {
    return scan_rows(*db_, dir_, {}, prefix, row);
  }
  Result<void> write(const WriteBatch& batch) override {
    rocksdb::WriteBatch rows;
    for (const auto& [key, value] : batch.rows) {
      if (value)
        rows.Put(slice(key), slice(*value));
      else
        rows.Delete(slice(key));
    }
    rocksdb::WriteOptions options;
    options.sync = sync_;
    if (rocksdb::Status status = db_->Write(options, &rows); !status.ok()) return from_status("writing", dir_, status);
    return {};
  }
  std::unique_ptr<Reader> snapshot() const override { return std::make_unique<RocksdbSnapshot>(db_, dir_); }

 private:
  std::shared_ptr<rocksdb::DB> db_;
  std::string dir_;
  bool sync_;
};

}  // namespace

std::shared_ptr<StoreMemory> make_store_memory(size_t bytes, size_t memtable_bytes) {
  CHECK(memtable_bytes > 0 && memtable_bytes <= bytes);
  return std::make_shared<SharedMemory>(bytes, memtable_bytes);
}

Result<std::unique_ptr<Store>> open_rocksdb_store(const std::string& dir, const RocksdbOptions& options) {
  rocksdb::Options rocks;
  rocks.create_if_missing = !options.read_only;
  rocks.max_background_jobs = 2;
  rocks.compression = rocksdb::kLZ4Compression;
  rocks.keep_log_file_num = 2;
  rocks.info_log_level = rocksdb::WARN_LEVEL;
  rocks.wal_recovery_mode = rocksdb::WALRecoveryMode::kTolerateCorruptedTailRecords;
  rocksdb::BlockBasedTableOptions table;
  const auto memory = options.memory ? options.memory : make_store_memory(64 << 20, 32 << 20);
  static_cast<const SharedMemory&>(*memory).apply(rocks, table);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;
  rocks.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  if (!options.read_only) {
    std::error_code error;
    std::filesystem::create_directories(dir, error);
    if (error) return Error{Errc::kUnexpected, "creating " + dir + ": " + error.message()};
  } else if (!std::filesystem::exists(dir + "/CURRENT")) {
    return Error{Errc::kNotFound, "no store in " + dir};
  }
  rocksdb::DB* raw = nullptr;
  rocksdb::Status status = options.read_only ? rocksdb::DB::OpenForReadOnly(rocks, dir, &raw) : rocksdb::DB::Open(rocks, dir, &raw);
  if (!status.ok()) return from_status("opening", dir, status);
  return std::unique_ptr<Store>(std::make_unique<RocksdbStore>(std::shared_ptr<rocksdb::DB>(raw), dir, options.sync));
}

}  // namespace assay::state
