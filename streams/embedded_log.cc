#include "streams/embedded_log.h"

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "schemas/hash.h"
#include "streams/embedded_log_core.h"

namespace assay::streams {
namespace embedded {
namespace {

/// One process has every partition, from the first poll on.
class OnlyMember final : public Membership {
 public:
  explicit OnlyMember(std::vector<TopicPartition> partitions) : partitions_(std::move(partitions)) {}

  Result<std::optional<Change>> poll(Milliseconds wait) override {
    if (!told_) {
      told_ = true;
      return std::optional<Change>(Change{.assigned = true, .partitions = partitions_, .lost = false});
    }
    std::this_thread::sleep_for(wait);
    return std::optional<Change>();
  }
  void leave() override {}

 private:
  std::vector<TopicPartition> partitions_;
  bool told_ = false;
};

class DirectoryLog final : public EmbeddedLog {
 public:
  DirectoryLog(std::shared_ptr<Core> core, std::string cluster_id) : core_(std::move(core)), cluster_id_(std::move(cluster_id)) {}
  ~DirectoryLog() override { core_->close(); }

  std::string describe() const override { return core_->describe(); }
  Result<std::string> cluster_id() override { return cluster_id_; }

  Result<void> create_topics(std::span<const TopicConfig> topics) override {
    std::unique_lock lock(core_->mutex());
    return core_->create_topics(lock, topics);
  }

  Result<std::vector<TopicConfig>> topics() override {
    std::lock_guard lock(core_->mutex());
    std::vector<TopicConfig> out;
    for (const auto& [name, topic] : core_->topics()) out.push_back(topic->config);
    return out;
  }

  Result<int32_t> partition_count(const std::string& topic) override {
    std::lock_guard lock(core_->mutex());
    TRY_ASSIGN(const Topic* found, core_->topic(topic));
    return found->config.partitions;
  }

  Result<OffsetRange> range(const TopicPartition& tp) override {
    std::lock_guard lock(core_->mutex());
    TRY_ASSIGN(uint32_t id, core_->partition_id(tp));
    const Partition& partition = core_->partition(id);
    return OffsetRange{Offset(partition.start), Offset(partition.stable)};
  }

  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    std::lock_guard lock(core_->mutex());
    std::vector<std::pair<uint32_t, Offset>> places;
    for (const auto& [tp, offset] : from) {
      TRY_ASSIGN(uint32_t id, core_->partition_id(tp));
      places.emplace_back(id, offset);
    }
    return make_reader(core_, std::move(places));
  }

  Result<std::unique_ptr<LogWriter>> open_writer(const std::string& transactional_id) override {
    std::unique_lock lock(core_->mutex());
    TRY(core_->make_room(lock, 1024));
    const uint64_t epoch = core_->epoch_of(transactional_id) + 1;
    Directory directory;
    directory.writers.push_back({transactional_id, epoch});
    TRY_ASSIGN(uint64_t written, core_->append(std::move(directory), {}));
    // What an older writer committed lies before: once this is durable, so is that.
    TRY(core_->wait_durable(lock, written));
    return make_writer(core_, transactional_id, epoch);
  }

  Result<std::unique_ptr<LogProducer>> open_producer() override {
    std::unique_lock lock(core_->mutex());
    TRY(core_->make_room(lock, 0));
    return make_producer(core_);
  }

  Result<std::unique_ptr<Membership>> join(const std::string&, const std::vector<std::string>& topics,
                                           const std::string&) override {
    std::lock_guard lock(core_->mutex());
    std::vector<TopicPartition> partitions;
    for (const std::string& name : topics) {
      TRY_ASSIGN(const Topic* topic, core_->topic(name));
      for (int32_t p = 0; p < topic->config.partitions; ++p) partitions.push_back({name, p});
    }
    return std::unique_ptr<Membership>(new OnlyMember(std::move(partitions)));
  }

  Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string& group,
                                                              std::span<const TopicPartition> of) override {
    std::unique_lock lock(core_->mutex());
    TRY(core_->wait_durable(lock, core_->written()));
    std::map<TopicPartition, CommittedOffset> out;
    for (const TopicPartition& tp : of) {
      TRY_ASSIGN(uint32_t id, core_->partition_id(tp));
      if (auto offset = core_->committed(group, id)) out[tp] = *offset;
    }
    return out;
  }

  Result<void> commit_offsets(const OffsetCommit& commit, const Membership*) override {
    std::unique_lock lock(core_->mutex());
    Directory directory;
    for (const auto& [tp, offset] : commit.offsets) {
      TRY_ASSIGN(uint32_t id, core_->partition_id(tp));
      directory.commits.push_back({commit.group, id, offset.value, {}});
    }
    if (directory.empty()) return {};
    return core_->write(lock, std::move(directory));
  }

  Result<void> delete_before(const TopicPartition& tp, Offset before) override {
    std::unique_lock lock(core_->mutex());
    TRY_ASSIGN(uint32_t id, core_->partition_id(tp));
    const Partition& partition = core_->partition(id);
    if (before.value > partition.stable) {
      return Error{Errc::kOutOfRange, "deleting what lies before " + std::to_string(before.value) + " of " + to_string(tp) +
                                          " in the " + describe() + ": it ends at " + std::to_string(partition.stable)};
    }
    if (before.value <= partition.start) return {};
    Directory directory;
    directory.starts.push_back({id, before.value});
    return core_->write(lock, std::move(directory));
  }

  Result<void> clean() override { return core_->clean(); }
  uint64_t disk_bytes() const override { return core_->disk_bytes(); }

 private:
  std::shared_ptr<Core> core_;
  std::string cluster_id_;
};

constexpr std::string_view kClusterIdFile = "cluster-id";

/// The name that the directory was given when the log was made; a log that is only read may have none yet.
Result<std::string> cluster_id_of(const std::string& dir, bool read_only) {
  std::ifstream file(std::filesystem::path(dir) / kClusterIdFile);
  std::string id;
  if (file && std::getline(file, id) && id.size() == 32) return id;
  if (read_only) return std::string();
  std::random_device random;
  std::string bytes;
  for (int n = 0; n < 16; ++n) bytes.push_back(static_cast<char>(random()));
  id = to_hex(bytes);
  const std::shared_ptr<Files> files = posix_files();
  const std::string path = (std::filesystem::path(dir) / kClusterIdFile).string();
  const std::string line = id + "\n";
  const std::string_view parts[] = {line};
  {
    TRY_ASSIGN(const auto fresh, files->open(path + ".tmp", OpenMode::kCreate));
    TRY(fresh->write_at(0, parts));
    TRY(fresh->sync());
  }
  TRY(files->rename(path + ".tmp", path));
  TRY(files->sync_directory(dir));
  return id;
}

}  // namespace
}  // namespace embedded

Result<std::unique_ptr<Log>> open_embedded_log(const std::string& dir, const EmbeddedLogOptions& options) {
  auto core = std::make_shared<embedded::Core>(dir, options);
  TRY(core->open());
  TRY_ASSIGN(std::string id, embedded::cluster_id_of(dir, options.read_only));
  return std::unique_ptr<Log>(new embedded::DirectoryLog(std::move(core), std::move(id)));
}

}  // namespace assay::streams
