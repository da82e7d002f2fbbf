// RocksDB behind the store interface. The write-ahead log is on and not synced: kill -9 loses nothing, a power loss
// loses a tail that the log repairs. Checkpoints share the immutable files of the store by hard links.
#include <fcntl.h>
#include <rocksdb/cache.h>
#include <rocksdb/db.h>
#include <rocksdb/env.h>
#include <rocksdb/filter_policy.h>
#include <rocksdb/listener.h>
#include <rocksdb/options.h>
#include <rocksdb/slice_transform.h>
#include <rocksdb/table.h>
#include <rocksdb/utilities/checkpoint.h>
#include <rocksdb/write_batch.h>
#include <rocksdb/write_buffer_manager.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <mutex>
#include <thread>

#include "state/store.h"

namespace assay::state {
namespace {

namespace fs = std::filesystem;

constexpr char kNoteFile[] = "CHECKPOINT.json";
constexpr int kAsideMax = 9;  // a disk that spoils one store after the other must not fill itself with them
constexpr std::chrono::seconds kReadersPatience{10};

Error from_status(const std::string& attempted, const std::string& dir, const rocksdb::Status& status) {
  const std::string text = status.ToString();
  Errc code = Errc::kUnexpected;
  // A file that the manifest names and that is not there is damage as well.
  if (status.IsCorruption() || (status.IsIOError() && status.subcode() == rocksdb::Status::kPathNotFound))
    code = Errc::kCorrupt;
  else if (status.IsIOError() && text.find("/LOCK") != std::string::npos)
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

/// What a snapshot of a damaged store gives.
class DamagedReader : public Reader {
 public:
  explicit DamagedReader(Error damage) : damage_(std::move(damage)) {}
  Result<std::optional<std::string>> get(std::string_view) const override { return damage_; }
  Result<void> scan(std::string_view, const std::function<bool(std::string_view, std::string_view)>&) const override {
    return damage_;
  }

 private:
  Error damage_;
};

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

/// RocksDB's diary goes nowhere: what matters comes back as a status. As a file it aborts the process on a full disk, where
/// builds with assertions do not take a second line after one that could not be written.
class NoDiary : public rocksdb::Logger {
 public:
  using rocksdb::Logger::Logv;
  void Logv(const char*, va_list) override {}
};

/// A store that could not write is opened again by its owner. RocksDB would mend itself behind our back once there is room,
/// and go on with a write-ahead log whose end is torn, which builds with assertions do not survive.
class NoMending : public rocksdb::EventListener {
 public:
  void OnErrorRecoveryBegin(rocksdb::BackgroundErrorReason, rocksdb::Status, bool* auto_recovery) override {
    *auto_recovery = false;
  }
};

Error failed(const std::string& attempted, const fs::path& on, const std::error_code& error) {
  return {Errc::kUnexpected, attempted + " " + on.string() + ": " + error.message()};
}

/// Makes the names in a directory, or the bytes of a file, survive a power loss.
Result<void> sync_path(const fs::path& path) {
  const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  const bool synced = fd >= 0 && ::fsync(fd) == 0;
  const std::error_code error(errno, std::generic_category());
  if (fd >= 0) ::close(fd);
  if (!synced) return failed("syncing", path, error);
  return {};
}

Result<void> rename_path(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::rename(from, to, error);
  if (error) return failed("renaming " + from.string() + " to", to, error);
  return sync_path(to.parent_path());
}

/// Checkpoints by sequence; whatever else lies there is none.
std::map<int64_t, fs::path> checkpoint_dirs(const fs::path& dir) {
  std::map<int64_t, fs::path> out;
  std::error_code error;
  for (fs::directory_iterator it(dir, error), end; !error && it != end; it.increment(error)) {
    const std::string name = it->path().filename().string();
    int64_t sequence = 0;
    const auto [rest, bad] = std::from_chars(name.data(), name.data() + name.size(), sequence);
    if (bad == std::errc() && rest == name.data() + name.size() && sequence > 0) out[sequence] = it->path();
  }
  return out;
}

/// A copy that shares what never changes: table files are linked, the others are small.
Result<void> copy_rows(const fs::path& from, const fs::path& to) {
  std::error_code error;
  fs::remove_all(to, error);
  fs::create_directories(to, error);
  if (error) return failed("creating", to, error);
  for (fs::directory_iterator it(from, error), end; !error && it != end; it.increment(error)) {
    const fs::path name = it->path().filename();
    if (name == kNoteFile) continue;
    if (name.extension() == ".sst") {
      fs::create_hard_link(it->path(), to / name, error);
      if (!error) continue;
    }
    fs::copy_file(it->path(), to / name, error);
    if (error) return failed("copying " + it->path().string() + " to", to, error);
    TRY(sync_path(to / name));
  }
  if (error) return failed("reading", from, error);
  return sync_path(to);
}

Result<std::shared_ptr<rocksdb::DB>> open_db(const std::string& dir, const RocksdbOptions& options) {
  rocksdb::Options rocks;
  rocks.create_if_missing = !options.read_only;
  rocks.max_background_jobs = 2;
  rocks.compression = rocksdb::kLZ4Compression;
  // A batch comes in the order of its keys, so each row is looked for beside the one before it.
  rocks.memtable_insert_with_hint_prefix_extractor.reset(rocksdb::NewFixedPrefixTransform(1));
  rocks.info_log = std::make_shared<NoDiary>();
  rocks.listeners.push_back(std::make_shared<NoMending>());
  // What a power loss left behind the last sound batch is dropped, for the log has it.
  rocks.wal_recovery_mode = rocksdb::WALRecoveryMode::kPointInTimeRecovery;
  rocksdb::BlockBasedTableOptions table;
  const auto memory = options.memory ? options.memory : make_store_memory(64 << 20, 32 << 20);
  static_cast<const SharedMemory&>(*memory).apply(rocks, table);
  table.filter_policy.reset(rocksdb::NewBloomFilterPolicy(10));
  table.format_version = 5;
  rocks.table_factory.reset(rocksdb::NewBlockBasedTableFactory(table));

  if (!options.read_only) {
    std::error_code error;
    fs::create_directories(dir, error);
    if (error) return failed("creating", dir, error);
  } else if (!fs::exists(dir + "/CURRENT")) {
    return Error{Errc::kNotFound, "no store in " + dir};
  }
  rocksdb::DB* raw = nullptr;
  rocksdb::Status status = options.read_only ? rocksdb::DB::OpenForReadOnly(rocks, dir, &raw) : rocksdb::DB::Open(rocks, dir, &raw);
  if (!status.ok()) return from_status("opening", dir, status);
  return std::shared_ptr<rocksdb::DB>(raw);
}

/// One thread writes, takes checkpoints and replaces; any thread reads.
class RocksdbStore : public Store {
 public:
  RocksdbStore(std::string dir, const RocksdbOptions& options) : dir_(std::move(dir)), options_(options) {}

  /// A store that is damaged stays closed.
  Result<void> open() {
    auto db = open_db(dir_, options_);
    db_ = db ? std::move(*db) : nullptr;
    if (db) return {};
    damage_ = db.error();
    if (damage_.code == Errc::kCorrupt && !options_.read_only) return {};
    return damage_;
  }

  Result<std::optional<std::string>> get(std::string_view key) const override {
    TRY_ASSIGN(const auto db, current());
    return get_row(*db, dir_, {}, key);
  }
  Result<void> scan(std::string_view prefix, const std::function<bool(std::string_view, std::string_view)>& row) const override {
    TRY_ASSIGN(const auto db, current());
    return scan_rows(*db, dir_, {}, prefix, row);
  }
  Result<void> write(const WriteBatch& batch) override {
    TRY_ASSIGN(const auto db, current());
    rocksdb::WriteBatch rows;
    for (const auto& [key, value] : batch.rows) {
      if (value)
        rows.Put(slice(key), slice(*value));
      else
        rows.Delete(slice(key));
    }
    rocksdb::WriteOptions options;
    options.sync = options_.sync;
    if (rocksdb::Status status = db->Write(options, &rows); !status.ok()) return from_status("writing", dir_, status);
    return {};
  }
  std::unique_ptr<Reader> snapshot() const override {
    auto db = current();
    if (!db) return std::make_unique<DamagedReader>(db.error());
    return std::make_unique<RocksdbSnapshot>(std::move(*db), dir_);
  }

  Result<uint64_t> checkpoint(const Checkpoint& as, size_t keep) override {
    TRY_ASSIGN(const auto db, current());
    const fs::path home = checkpoints_dir(), fresh = home / "new", place = home / std::to_string(as.sequence);
    std::error_code error;
    fs::create_directories(home, error);
    if (error) return failed("creating", home, error);
    fs::remove_all(fresh, error);
    rocksdb::Checkpoint* raw = nullptr;
    rocksdb::Status status = rocksdb::Checkpoint::Create(db.get(), &raw);
    const std::unique_ptr<rocksdb::Checkpoint> maker(raw);
    if (status.ok()) status = maker->CreateCheckpoint(fresh.string());
    if (!status.ok()) return from_status("taking a checkpoint of", dir_, status);
    std::ofstream(fresh / kNoteFile, std::ios::binary) << as.note << std::flush;
    TRY(sync_path(fresh / kNoteFile));
    TRY(sync_path(fresh));
    uint64_t bytes = 0;
    for (fs::directory_iterator it(fresh, error), end; !error && it != end; it.increment(error)) bytes += it->file_size(error);
    auto known = checkpoint_dirs(home);
    for (auto it = known.lower_bound(as.sequence); it != known.end(); it = known.erase(it)) fs::remove_all(it->second, error);
    TRY(rename_path(fresh, place));
    for (auto it = known.begin(); known.size() + 1 > keep && it != known.end(); it = known.erase(it))
      fs::remove_all(it->second, error);
    return bytes;
  }

  Result<std::vector<Checkpoint>> checkpoints() const override {
    std::vector<Checkpoint> out;
    for (const auto& [sequence, dir] : checkpoint_dirs(checkpoints_dir())) {
      std::ifstream file(dir / kNoteFile, std::ios::binary);
      out.push_back({sequence, {std::istreambuf_iterator<char>(file), {}}});
    }
    std::reverse(out.begin(), out.end());
    return out;
  }

  Result<std::string> replace(std::string_view aside, std::optional<int64_t> checkpoint) override {
    std::lock_guard lock(mutex_);  // nobody takes a snapshot meanwhile
    const auto asked = std::chrono::steady_clock::now();
    while (db_ != nullptr && db_.use_count() > 1) {
      if (std::chrono::steady_clock::now() - asked > kReadersPatience)
        return Error{Errc::kRefused, "replacing store " + dir_ + ": a query still reads it"};
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    fs::path source;
    if (checkpoint) {
      source = checkpoints_dir() / std::to_string(*checkpoint);
      if (!fs::exists(source)) return Error{Errc::kNotFound, "no checkpoint in " + source.string()};
    }
    bool rows = db_ == nullptr;  // what cannot be opened may hold anything
    if (db_ != nullptr) {
      const std::unique_ptr<rocksdb::Iterator> it(db_->NewIterator({}));
      it->SeekToFirst();
      rows = it->Valid() || !it->status().ok();
    }
    std::string former;
    if (rows) {
      int n = 1;
      while (fs::exists(former = dir_ + "." + std::string(aside) + "-" + std::to_string(n))) ++n;
      if (n > kAsideMax)
        return Error{Errc::kRefused, "putting store " + dir_ + " aside: " + std::to_string(kAsideMax) +
                                         " former ones lie there already; look at the disk, then move them away"};
    }
    db_.reset();
    damage_ = {Errc::kCorrupt, "store " + dir_ + " was being replaced"};
    if (rows) {
      TRY(rename_path(dir_, former));
    } else {
      std::error_code error;
      fs::remove_all(dir_, error);
    }
    if (checkpoint) {
      const fs::path fresh = dir_ + ".new";
      TRY(copy_rows(source, fresh));
      TRY(rename_path(fresh, dir_));
    }
    TRY(open());
    if (db_ == nullptr) return damage_;
    return former;
  }

 private:
  Result<std::shared_ptr<rocksdb::DB>> current() const {
    std::lock_guard lock(mutex_);
    if (db_ == nullptr) return damage_;
    return db_;
  }
  fs::path checkpoints_dir() const { return dir_ + ".checkpoints"; }

  std::string dir_;
  RocksdbOptions options_;
  mutable std::mutex mutex_;
  std::shared_ptr<rocksdb::DB> db_;  // under mutex_; none while the store is damaged
  Error damage_;                     // why there is none
};

}  // namespace

std::shared_ptr<StoreMemory> make_store_memory(size_t bytes, size_t memtable_bytes) {
  CHECK(memtable_bytes > 0 && memtable_bytes <= bytes);
  return std::make_shared<SharedMemory>(bytes, memtable_bytes);
}

Result<std::unique_ptr<Store>> open_rocksdb_store(const std::string& dir, const RocksdbOptions& options) {
  auto store = std::make_unique<RocksdbStore>(dir, options);
  TRY(store->open());
  return std::unique_ptr<Store>(std::move(store));
}

}  // namespace assay::state
