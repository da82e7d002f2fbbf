// Readers, writers and producers of the embedded log.
#include <chrono>

#include "schemas/topics.h"
#include "streams/embedded_log_core.h"

namespace assay::streams::embedded {
namespace {

using Clock = std::chrono::steady_clock;

constexpr size_t kLoadBytes = 1 << 20;
constexpr size_t kLoadBatches = 4096;

/// Checks that the record can be taken, and finds its partition. A partition < 0 is for `choose` to settle.
/// Requires: the core's mutex. Errors: kNotFound, kTooLarge.
Result<uint32_t> admit(const Core& core, const OutRecord& record, int32_t partition) {
  TRY_ASSIGN(uint32_t id, core.partition_id({record.to.topic, partition}));
  TRY_ASSIGN(const Topic* topic, core.topic(record.to.topic));
  const size_t size = (record.key ? record.key->size() : 0) + (record.value ? record.value->size() : 0);
  if (size > static_cast<size_t>(topic->config.max_record_bytes)) {
    return Error{Errc::kTooLarge, "writing a record of " + std::to_string(size) + " bytes to " + record.to.topic + " in the " +
                                      core.describe() + ": the topic takes " + std::to_string(topic->config.max_record_bytes)};
  }
  return id;
}

/// Batches being filled, one open per partition.
class BatchSet {
 public:
  explicit BatchSet(size_t batch_bytes) : batch_bytes_(batch_bytes) {}

  /// Returns the number of the batch and the record's place in it.
  std::pair<size_t, int64_t> add(uint32_t partition, const OutRecord& record) {
    auto [open, fresh] = open_.try_emplace(partition, batches_.size());
    if (!fresh && batches_[open->second].bytes.size() >= batch_bytes_) {
      open->second = batches_.size();
      fresh = true;
    }
    if (fresh) batches_.emplace_back().partition = partition;
    Batch& batch = batches_[open->second];
    const int64_t delta = batch.span;
    bytes_ -= batch.bytes.size();
    batch.add(delta, record);
    bytes_ += batch.bytes.size();
    return {open->second, delta};
  }
  std::span<const Batch> batches() const { return batches_; }
  size_t bytes() const { return bytes_; }

 private:
  size_t batch_bytes_;
  size_t bytes_ = 0;
  std::vector<Batch> batches_;
  std::unordered_map<uint32_t, size_t> open_;
};

class Reader final : public LogReader {
 public:
  Reader(std::shared_ptr<Core> core, std::vector<std::pair<uint32_t, Offset>> from) : core_(std::move(core)) {
    for (auto [id, offset] : from) {
      Place& place = places_.emplace_back();
      place.id = id;
      place.position = offset.value;
    }
  }

  Result<std::optional<Fetch>> poll(Milliseconds wait, size_t max_records) override {
    CHECK(max_records > 0);
    const auto deadline = Clock::now() + wait;
    std::unique_lock lock(core_->mutex());
    while (true) {
      bool again = false;
      for (size_t i = 0; i < places_.size(); ++i) {
        Place& place = places_[(turn_ + i) % places_.size()];
        if (place.paused) continue;
        TRY_ASSIGN(bool news, look(place, max_records, lock));
        if (!lock.owns_lock()) lock.lock();
        if (!news) continue;
        turn_ = (turn_ + i + 1) % places_.size();
        const Partition& partition = core_->partition(place.id);
        const int64_t stable = partition.stable;
        Fetch fetch;
        fetch.from = partition.tp;
        lock.unlock();
        TRY(take(place, max_records, fetch));
        fetch.next = Offset(place.position);
        fetch.at_end = place.position == stable;
        place.told_end = fetch.at_end && fetch.records.empty();
        if (place.told_end || !fetch.records.empty()) return std::optional<Fetch>(std::move(fetch));
        again = true;  // only records from before the place were left in the batch
        break;
      }
      if (again) {
        lock.lock();
        continue;
      }
      if (Clock::now() >= deadline) return std::optional<Fetch>();
      core_->news().wait_until(lock, deadline);
    }
  }

  Result<void> seek(const TopicPartition& tp, Offset to) override {
    TRY_ASSIGN(Place * place, find(tp));
    place->position = to.value;
    place->told_end = false;
    place->loaded = {};
    place->at = 0;
    return {};
  }

  void pause(const TopicPartition& tp) override { set_paused(tp, true); }
  void resume(const TopicPartition& tp) override { set_paused(tp, false); }

 private:
  struct Place {
    uint32_t id = 0;
    int64_t position = 0;
    bool paused = false;
    bool told_end = false;
    LoadedBatches loaded;  // read, not yet delivered from `at` on
    size_t at = 0;
    RecordWalk walk;
    std::shared_ptr<const Segment> segment;  // whose index is held
    std::shared_ptr<const std::vector<BatchEntry>> index;
  };

  Result<Place*> find(const TopicPartition& tp) {
    std::lock_guard lock(core_->mutex());
    TRY_ASSIGN(uint32_t id, core_->partition_id(tp));
    for (Place& place : places_) {
      if (place.id == id) return &place;
    }
    return Error{Errc::kNotFound, "seeking " + to_string(tp) + " in the " + core_->describe() + ": this reader does not read it"};
  }

  void set_paused(const TopicPartition& tp, bool paused) {
    auto place = find(tp);
    if (place) (*place)->paused = paused;
  }

  /// Whether there is something to deliver: loaded batches, or an end not told yet. May give up the lock.
  Result<bool> look(Place& place, size_t max_records, std::unique_lock<std::mutex>& lock) {
    while (true) {
      if (!lock.owns_lock()) lock.lock();
      const Partition& partition = core_->partition(place.id);
      if (place.position < partition.start || place.position > partition.stable) {
        return Error{Errc::kOutOfRange, "reading " + to_string(partition.tp) + " at " + std::to_string(place.position) +
                                            " in the " + core_->describe() + ": it holds offsets " +
                                            std::to_string(partition.start) + " to " + std::to_string(partition.stable)};
      }
      if (place.at < place.loaded.batches.size()) return true;
      if (place.position == partition.stable) return !place.told_end;
      Span span = core_->span_at(place.id, place.position, max_records, kLoadBytes);
      if (span.entries.empty() && !span.sealed) {
        place.position = span.end;
        continue;
      }
      lock.unlock();
      std::span<const BatchEntry> entries = span.entries;
      if (span.sealed) {
        if (place.segment != span.segment) {
          TRY_ASSIGN(place.index, span.segment->entries(place.id));
          place.segment = span.segment;
        }
        entries = from_index(*place.index, place.position, max_records);
        if (entries.empty()) {  // cleaning took the rest of this piece
          place.position = span.end;
          continue;
        }
      } else {
        place.segment.reset();
        place.index.reset();
      }
      TRY_ASSIGN(place.loaded, span.segment->load(entries));
      place.at = 0;
      place.walk = RecordWalk(place.loaded.batches[0].bytes, place.loaded.batches[0].base);
      return true;
    }
  }

  static std::span<const BatchEntry> from_index(const std::vector<BatchEntry>& index, int64_t position, size_t max_records) {
    auto first = std::partition_point(index.begin(), index.end(), [&](const BatchEntry& b) { return b.end <= position; });
    size_t records = 0, bytes = 0, count = 0;
    for (auto it = first; it != index.end() && count < kLoadBatches; ++it, ++count) {
      if (count > 0 && (records >= max_records || bytes + it->bytes > kLoadBytes)) break;
      records += it->records;
      bytes += it->bytes;
    }
    return {first, first + static_cast<ptrdiff_t>(count)};
  }

  /// Decodes what was loaded, up to max_records.
  Result<void> take(Place& place, size_t max_records, Fetch& fetch) {
    if (place.at == place.loaded.batches.size()) return {};
    fetch.storage = place.loaded.storage;
    fetch.records.reserve(std::min<size_t>(max_records, 4096));
    RecordView record;
    while (place.at < place.loaded.batches.size() && fetch.records.size() < max_records) {
      const LoadedBatches::One& batch = place.loaded.batches[place.at];
      while (!place.walk.done() && fetch.records.size() < max_records) {
        if (!place.walk.next(record)) {
          return Error{Errc::kCorrupt, "decoding the batch of offsets " + std::to_string(batch.base) + " to " +
                                           std::to_string(batch.end) + " of " + to_string(fetch.from) + " in the " +
                                           core_->describe() + ": its bytes are no records"};
        }
        if (record.offset.value < place.position) continue;
        place.position = record.offset.value + 1;
        fetch.records.push_back(std::move(record));
      }
      if (!place.walk.done()) break;
      place.position = batch.end;
      if (++place.at < place.loaded.batches.size()) {
        place.walk = RecordWalk(place.loaded.batches[place.at].bytes, place.loaded.batches[place.at].base);
      }
    }
    if (place.at == place.loaded.batches.size()) {
      place.loaded = {};
      place.at = 0;
    }
    return {};
  }

  std::shared_ptr<Core> core_;
  std::vector<Place> places_;
  size_t turn_ = 0;
};

class Writer final : public LogWriter {
 public:
  Writer(std::shared_ptr<Core> core, std::string id, uint64_t epoch) : core_(std::move(core)), id_(std::move(id)), epoch_(epoch) {}

  Result<void> prepare(Transaction transaction) override {
    CHECK(!prepared_);
    std::vector<uint32_t> ids;
    std::vector<CommitEntry> commits;
    {
      std::lock_guard lock(core_->mutex());
      TRY(check_epoch("preparing a transaction"));
      for (const OutRecord& record : transaction.records) {
        TRY_ASSIGN(uint32_t id, admit(*core_, record, record.to.partition));
        ids.push_back(id);
      }
      if (transaction.offsets) {
        for (const auto& [tp, offset] : transaction.offsets->offsets) {
          TRY_ASSIGN(uint32_t id, core_->partition_id(tp));
          commits.push_back({transaction.offsets->group, id, offset.value, {}});
        }
      }
    }
    Prepared prepared{BatchSet(core_->options().batch_bytes), {}, {}, std::move(transaction.metadata)};
    for (size_t i = 0; i < ids.size(); ++i) prepared.places.push_back(prepared.set.add(ids[i], transaction.records[i]));
    prepared.directory.commits = std::move(commits);
    for (const Batch& batch : prepared.set.batches()) prepared.directory.batches.emplace_back(batch.partition, batch.entry(0));
    prepared_ = std::move(prepared);
    return {};
  }

  Result<std::vector<Offset>> commit() override {
    std::optional<Prepared> prepared = std::exchange(prepared_, std::nullopt);
    std::unique_lock lock(core_->mutex());
    TRY(check_epoch("committing a transaction"));
    std::vector<Offset> places;
    if (!prepared) return places;
    TRY(core_->make_room(lock, prepared->set.bytes() + 1024));
    TRY(check_epoch("committing a transaction"));  // the lock was given up while a segment began
    std::span<const Batch> batches = prepared->set.batches();
    const std::vector<int64_t> bases = core_->place(batches);
    std::vector<std::string_view> bodies;
    for (size_t i = 0; i < batches.size(); ++i) {
      BatchEntry& entry = prepared->directory.batches[i].second;
      entry.base = bases[i];
      entry.end = bases[i] + batches[i].span;
      bodies.push_back(batches[i].bytes);
    }
    for (auto [batch, delta] : prepared->places) places.push_back(Offset(bases[batch] + delta));
    if (!prepared->directory.commits.empty() && prepared->metadata) {
      const std::string metadata = prepared->metadata(places);
      for (CommitEntry& commit : prepared->directory.commits) commit.metadata = metadata;
    }
    if (prepared->directory.empty()) return places;
    TRY_ASSIGN(uint64_t written, core_->append(std::move(prepared->directory), bodies));
    TRY(core_->wait_durable(lock, written));
    return places;
  }

  Result<void> abort() override {
    prepared_.reset();
    std::lock_guard lock(core_->mutex());
    return check_epoch("aborting a transaction");
  }

 private:
  struct Prepared {
    BatchSet set;
    std::vector<std::pair<size_t, int64_t>> places;
    Directory directory;
    std::function<std::string(std::span<const Offset>)> metadata;
  };

  Result<void> check_epoch(const char* attempt) const {
    const uint64_t now = core_->epoch_of(id_);
    if (now == epoch_) return {};
    return Error{Errc::kFenced, std::string(attempt) + " of writer " + id_ + " with epoch " + std::to_string(epoch_) + " in the " +
                                    core_->describe() + ": a newer writer has epoch " + std::to_string(now)};
  }

  std::shared_ptr<Core> core_;
  const std::string id_;
  const uint64_t epoch_;
  std::optional<Prepared> prepared_;
};

/// Fills batches under its own mutex; a thread of its own writes them, so that records sent during a sync share the next one.
class Producer final : public LogProducer {
 public:
  explicit Producer(std::shared_ptr<Core> core)
      : core_(std::move(core)), queue_(core_->options().batch_bytes), sender_([this] { send_queued(); }) {}

  ~Producer() override {
    {
      std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    wakeup_.notify_all();
    sender_.join();
  }

  Result<void> send(OutRecord record) override {
    std::unique_lock lock(mutex_);
    TRY_ASSIGN(Target * target, target_of(record.to.topic));
    const int32_t partition = choose(*target, record);
    if (partition >= static_cast<int32_t>(target->partitions) || too_large(*target, record)) {
      std::lock_guard core_lock(core_->mutex());
      auto refused = admit(*core_, record, partition);
      CHECK(!refused);
      return refused.error();
    }
    room_.wait(lock, [&] { return queue_.bytes() < core_->options().producer_queue_bytes; });
    auto [batch, place] = queue_.add(target->first_id + static_cast<uint32_t>(partition), record);
    if (place == 0 && !record.key) target->turn = (partition + 1) % static_cast<int32_t>(target->partitions);
    ++sent_;
    if (sent_ - taken_ == 1 || queue_.bytes() >= core_->options().batch_bytes) wakeup_.notify_one();
    return {};
  }

  Result<void> flush() override {
    std::unique_lock lock(mutex_);
    const uint64_t until = sent_;
    flush_until_ = std::max(flush_until_, until);
    wakeup_.notify_one();
    done_changed_.wait(lock, [&] { return done_ >= until; });
    if (auto error = std::exchange(error_, std::nullopt)) return *error;
    return {};
  }

 private:
  struct Target {
    uint32_t first_id, partitions;
    int64_t max_record_bytes;
    int32_t turn = 0;  // partition of records without key, until its batch is full or sent
  };

  /// What is known of the topic, so that the core's mutex is not taken for each record.
  Result<Target*> target_of(const std::string& topic) {
    auto known = targets_.find(topic);
    if (known == targets_.end()) {
      std::lock_guard lock(core_->mutex());
      TRY_ASSIGN(const Topic* found, core_->topic(topic));
      Target target{found->first_id, static_cast<uint32_t>(found->config.partitions), found->config.max_record_bytes};
      known = targets_.emplace(topic, target).first;
    }
    return &known->second;
  }

  static bool too_large(const Target& target, const OutRecord& record) {
    return (record.key ? record.key->size() : 0) + (record.value ? record.value->size() : 0) >
           static_cast<size_t>(target.max_record_bytes);
  }

  static int32_t choose(const Target& target, const OutRecord& record) {
    if (record.to.partition >= 0) return record.to.partition;
    if (record.key) return partition_of(*record.key, static_cast<int32_t>(target.partitions));
    return target.turn;
  }

  void send_queued() {
    std::unique_lock lock(mutex_);
    while (true) {
      wakeup_.wait(lock, [&] { return stopping_ || sent_ > taken_; });
      if (sent_ == taken_) return;
      wakeup_.wait_for(lock, Milliseconds(core_->options().linger_ms),
                       [&] { return stopping_ || flush_until_ > taken_ || queue_.bytes() >= core_->options().batch_bytes; });
      BatchSet batches = std::exchange(queue_, BatchSet(core_->options().batch_bytes));
      const uint64_t taken = taken_ = sent_;
      room_.notify_all();
      lock.unlock();
      Result<void> written;
      {
        std::unique_lock core_lock(core_->mutex());
        written = core_->write_batches(core_lock, batches.batches());
      }
      lock.lock();
      if (!written && !error_) error_ = written.error();
      done_ = taken;
      done_changed_.notify_all();
    }
  }

  std::shared_ptr<Core> core_;
  std::mutex mutex_;
  std::condition_variable wakeup_, room_, done_changed_;
  BatchSet queue_;
  std::map<std::string, Target> targets_;
  uint64_t sent_ = 0, taken_ = 0, done_ = 0, flush_until_ = 0;
  bool stopping_ = false;
  std::optional<Error> error_;
  std::thread sender_;
};

}  // namespace

std::unique_ptr<LogReader> make_reader(std::shared_ptr<Core> core, std::vector<std::pair<uint32_t, Offset>> from) {
  return std::make_unique<Reader>(std::move(core), std::move(from));
}
std::unique_ptr<LogWriter> make_writer(std::shared_ptr<Core> core, std::string id, uint64_t epoch) {
  return std::make_unique<Writer>(std::move(core), std::move(id), epoch);
}
std::unique_ptr<LogProducer> make_producer(std::shared_ptr<Core> core) { return std::make_unique<Producer>(std::move(core)); }

}  // namespace assay::streams::embedded
