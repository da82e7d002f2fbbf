#include "streams/embedded_log_core.h"

#include <algorithm>
#include <chrono>

namespace assay::streams::embedded {

Core::Core(std::string dir, EmbeddedLogOptions options)
    : dir_(std::move(dir)), options_(std::move(options)), files_(options_.files ? options_.files : posix_files()) {
  if (!options_.now) {
    options_.now = [] {
      return WallTime(std::chrono::duration_cast<Milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
    };
  }
}

Core::~Core() { close(); }

Result<void> Core::open() {
  if (!options_.read_only) TRY(create_directories(dir_));
  auto lock = DirectoryLock::take(dir_, options_.read_only);
  if (!lock) return lock.error();
  directory_lock_ = std::move(*lock);

  TRY_ASSIGN(std::vector<std::string> names, files_->list(dir_));
  std::vector<uint64_t> ids;
  for (const std::string& name : names) {
    if (auto id = parse_segment_name(name)) ids.push_back(*id);
    if (options_.read_only) continue;
    const bool lone_index =
        name.ends_with(".index") && !std::binary_search(names.begin(), names.end(), name.substr(0, 20) + ".journal");
    if (name.ends_with(".tmp") || lone_index) TRY(files_->remove(dir_ + "/" + name));
  }
  if (ids.empty()) {
    if (options_.read_only) return Error{Errc::kNotFound, "opening the log in " + dir_ + ": there is none"};
    TRY(first_segment());
  } else {
    const uint64_t last = ids.back();
    ids.pop_back();
    for (uint64_t id : ids) {
      TRY_ASSIGN(sealed_[id], Segment::open(dir_, files_, id, !options_.read_only));
    }
    TRY(open_last(last));
  }
  if (!options_.read_only && options_.clean_interval_ms > 0) cleaner_ = std::thread([this] { clean_sometimes(); });
  return {};
}

Result<void> Core::first_segment() {
  const SegmentHeader header{1, 0};
  Directory directory;
  directory.snapshot = true;
  const std::string head = encode_segment_header(header);
  const std::string frame = encode_frame(header, kSegmentHeaderBytes, kSegmentHeaderBytes, directory);
  const std::string_view parts[] = {head, frame};
  TRY_ASSIGN(std::shared_ptr<File> file, stage_file(*files_, dir_ + "/" + segment_name(header.id), parts));
  TRY(publish_file(*files_, dir_, segment_name(header.id)));
  active_ = std::make_shared<Segment>(header, dir_, files_, file, 0, std::vector<PieceSummary>{});
  active_bytes_ = active_synced_ = active_first_ = head.size() + frame.size();
  return {};
}

Result<void> Core::open_last(uint64_t id) {
  const std::string path = dir_ + "/" + segment_name(id);
  TRY_ASSIGN(std::shared_ptr<File> file, files_->open(path, options_.read_only ? OpenMode::kRead : OpenMode::kReadWrite));
  TRY_ASSIGN(SegmentBytes segment, read_segment(*file, path, id));
  std::map<uint32_t, std::vector<BatchEntry>> batches;
  bool first = true, sound = true;
  TRY_ASSIGN(uint64_t end, scan_frames(segment, path, true, [&](Frame& frame) {
               if (first) {
                 sound = frame.directory.snapshot;
                 if (!sound) return;
                 apply_control(frame.directory);
                 for (const auto& [old_id, old] : sealed_) attach(old);
                 first = false;
                 active_first_ = frame.position + frame.bytes;
                 return;
               }
               if (!sound) return;
               apply_control(frame.directory);
               for (const auto& [partition_id, batch] : frame.directory.batches) {
                 if (partition_id >= partitions_.size()) {
                   sound = false;
                   return;
                 }
                 Partition& partition = *partitions_[partition_id];
                 partition.active.push_back(batch);
                 partition.next = partition.stable = batch.end;
               }
               apply_visible(frame.directory.commits, frame.directory.starts);
               proven_ = frame.synced == frame.position && frame.directory.empty();
             }));
  if (first || !sound) {
    return Error{Errc::kCorrupt,
                 "reading " + path + " at " + std::to_string(kSegmentHeaderBytes) +
                     ": the last segment does not begin with the state of the log, or names partitions that do not exist"};
  }
  if (!options_.read_only) {
    if (end < segment.bytes.size()) TRY(file->truncate(end));
    TRY(file->sync());  // what was read may still be in the page cache alone, after a crash of the process
  }
  active_ = std::make_shared<Segment>(segment.header, dir_, files_, file, 0, std::vector<PieceSummary>{});
  active_bytes_ = active_synced_ = end;
  return check_whole();
}

void Core::attach(const std::shared_ptr<const Segment>& segment) {
  for (const PieceSummary& piece : segment->pieces()) {
    if (piece.partition >= partitions_.size()) continue;  // caught by check_whole(): some partition misses its records
    Partition& partition = *partitions_[piece.partition];
    if (piece.end > partition.start) partition.sealed.push_back({segment, piece, false});
  }
}

Result<void> Core::check_whole() const {
  for (const auto& partition : partitions_) {
    int64_t at = partition->start;
    auto follow = [&](int64_t base, int64_t end, const std::string& where) -> Result<void> {
      if (base > at && !partition->topic->config.compacted) {
        return Error{Errc::kCorrupt, "opening the log in " + dir_ + ": records " + std::to_string(at) + " to " +
                                         std::to_string(base) + " of " + to_string(partition->tp) + " are missing before " + where};
      }
      at = std::max(at, end);
      return {};
    };
    for (const LivePiece& piece : partition->sealed) TRY(follow(piece.summary.base, piece.summary.end, piece.segment->path()));
    for (const BatchEntry& batch : partition->active) TRY(follow(batch.base, batch.end, active_->path()));
    TRY(follow(partition->stable, partition->stable, "its end"));
  }
  return {};
}

void Core::close() {
  {
    std::lock_guard lock(mutex_);
    if (closing_) return;
    closing_ = true;
  }
  clean_wakeup_.notify_all();
  if (cleaner_.joinable()) cleaner_.join();
  if (options_.read_only || !active_) return;
  std::unique_lock lock(mutex_);
  if (!wait_durable(lock, written_) || failed_ || proven_) return;
  // A frame without content, whose word that all before it is durable makes later damage there show as damage.
  if (auto proof = append({}, {})) auto ignored = wait_durable(lock, *proof);
}

Error Core::failure() const {
  return {Errc::kUnexpected, describe() + " takes no more writes since this happened: " + failed_->message};
}

void Core::fail(const Error& error) {
  if (!failed_) failed_ = error;
  synced_.notify_all();
}

void Core::add_topic(const TopicConfig& config, uint32_t first_id) {
  auto topic = std::make_unique<Topic>(Topic{config, first_id});
  for (int32_t p = 0; p < config.partitions; ++p) {
    auto partition = std::make_unique<Partition>();
    partition->tp = {config.name, p};
    partition->topic = topic.get();
    partitions_.push_back(std::move(partition));
  }
  CHECK(first_id + static_cast<uint32_t>(config.partitions) == partitions_.size());
  topics_[config.name] = std::move(topic);
}

void Core::apply_control(const Directory& directory) {
  for (const TopicEntry& topic : directory.topics) add_topic(topic.config, topic.first_id);
  for (const WriterEntry& writer : directory.writers) writers_[writer.id] = writer.epoch;
  if (!directory.snapshot) return;
  for (const PlaceEntry& end : directory.ends) partitions_[end.partition]->stable = partitions_[end.partition]->next = end.offset;
  apply_visible(directory.commits, directory.starts);
}

void Core::apply_visible(const std::vector<CommitEntry>& commits, const std::vector<PlaceEntry>& starts) {
  for (const CommitEntry& commit : commits) groups_[commit.group][commit.partition] = {Offset(commit.offset), commit.metadata};
  for (const PlaceEntry& place : starts) {
    Partition& partition = *partitions_[place.partition];
    partition.start = std::max(partition.start, place.offset);
    while (!partition.sealed.empty() && partition.sealed.front().summary.end <= partition.start) partition.sealed.pop_front();
  }
}

void Core::publish() {
  while (!pending_.empty() && pending_.front().written <= durable_) {
    for (auto [id, end] : pending_.front().ends) partitions_[id]->stable = end;
    apply_visible(pending_.front().commits, pending_.front().starts);
    pending_.pop_front();
  }
  news_.notify_all();
}

Directory Core::snapshot() const {
  Directory out;
  out.snapshot = true;
  std::vector<const Topic*> by_id;
  for (const auto& [name, topic] : topics_) by_id.push_back(topic.get());
  std::sort(by_id.begin(), by_id.end(), [](const Topic* a, const Topic* b) { return a->first_id < b->first_id; });
  for (const Topic* topic : by_id) out.topics.push_back({topic->config, topic->first_id});
  for (const auto& [group, offsets] : groups_) {
    for (const auto& [id, offset] : offsets) out.commits.push_back({group, id, offset.offset.value, offset.metadata});
  }
  for (const auto& [id, epoch] : writers_) out.writers.push_back({id, epoch});
  for (uint32_t id = 0; id < partitions_.size(); ++id) {
    if (partitions_[id]->start > 0) out.starts.push_back({id, partitions_[id]->start});
    if (partitions_[id]->next > 0) out.ends.push_back({id, partitions_[id]->next});
  }
  return out;
}

Result<const Topic*> Core::topic(const std::string& name) const {
  auto found = topics_.find(name);
  if (found == topics_.end()) return Error{Errc::kNotFound, describe() + " has no topic " + name};
  return static_cast<const Topic*>(found->second.get());
}

Result<uint32_t> Core::partition_id(const TopicPartition& tp) const {
  TRY_ASSIGN(const Topic* found, topic(tp.topic));
  if (tp.partition < 0 || tp.partition >= found->config.partitions) {
    return Error{Errc::kNotFound,
                 describe() + " has no partition " + to_string(tp) + ": the topic has " + std::to_string(found->config.partitions)};
  }
  return found->first_id + static_cast<uint32_t>(tp.partition);
}

Span Core::span_at(uint32_t id, int64_t position, size_t max_records, size_t max_bytes) const {
  const Partition& partition = *partitions_[id];
  Span out;
  auto piece = std::partition_point(partition.sealed.begin(), partition.sealed.end(),
                                    [&](const LivePiece& p) { return p.summary.end <= position; });
  if (piece != partition.sealed.end()) {
    out.segment = piece->segment;
    out.sealed = true;
    out.end = piece->summary.end;
    return out;
  }
  out.segment = active_;
  out.end = partition.stable;
  auto entry = std::partition_point(partition.active.begin(), partition.active.end(),
                                    [&](const BatchEntry& b) { return b.end <= position; });
  size_t records = 0, bytes = 0;
  for (; entry != partition.active.end() && entry->end <= partition.stable; ++entry) {
    if (!out.entries.empty() && (records >= max_records || bytes + entry->bytes > max_bytes)) break;
    out.entries.push_back(*entry);
    records += entry->records;
    bytes += entry->bytes;
  }
  return out;
}

uint64_t Core::epoch_of(const std::string& writer) const {
  auto found = writers_.find(writer);
  return found == writers_.end() ? 0 : found->second;
}

std::optional<CommittedOffset> Core::committed(const std::string& group, uint32_t id) const {
  auto found = groups_.find(group);
  if (found == groups_.end()) return std::nullopt;
  auto offset = found->second.find(id);
  if (offset == found->second.end()) return std::nullopt;
  return offset->second;
}

Result<void> Core::make_room(std::unique_lock<std::mutex>& lock, uint64_t bytes) {
  if (options_.read_only) return Error{Errc::kRefused, "writing to the " + describe() + ": it was opened read-only"};
  if (failed_) return failure();
  while (active_bytes_ > active_first_ && active_bytes_ - active_first_ + bytes > options_.segment_bytes) {
    if (!syncing_) return roll(lock);
    synced_.wait(lock);
    if (failed_) return failure();
  }
  return {};
}

Result<uint64_t> Core::append(Directory directory, std::span<const std::string_view> bodies) {
  if (failed_) return failure();
  const std::string head = encode_frame(active_->header(), active_bytes_, active_synced_, directory);
  std::vector<std::string_view> parts{head};
  parts.insert(parts.end(), bodies.begin(), bodies.end());
  if (auto wrote = active_->file()->write_at(active_bytes_, parts); !wrote) {
    auto cut = active_->file()->truncate(active_bytes_);
    if (!cut) fail(cut.error());
    return Error{Errc::kAborted, "writing to the " + describe() + ": " + wrote.error().message};
  }
  for (std::string_view part : parts) {
    active_bytes_ += part.size();
    written_ += part.size();
  }
  proven_ = directory.empty();
  Pending pending{written_, {}, std::move(directory.commits), std::move(directory.starts)};
  for (auto& [id, batch] : directory.batches) {
    Partition& partition = *partitions_[id];
    CHECK(batch.base == partition.next);
    partition.active.push_back(batch);
    partition.next = batch.end;
    pending.ends.emplace_back(id, batch.end);
  }
  apply_control(directory);
  pending_.push_back(std::move(pending));
  return written_;
}

Result<void> Core::wait_durable(std::unique_lock<std::mutex>& lock, uint64_t written) {
  while (durable_ < written) {
    if (failed_) return failure();
    if (syncing_) {
      synced_.wait(lock);
      continue;
    }
    syncing_ = true;
    const uint64_t covers = written_, position = active_bytes_;
    const std::shared_ptr<File> file = active_->file();
    lock.unlock();
    auto synced = file->sync();
    lock.lock();
    syncing_ = false;
    if (synced) {
      durable_ = covers;
      active_synced_ = position;
      publish();
    } else {
      fail(synced.error());
    }
    synced_.notify_all();
  }
  return {};
}

Result<void> Core::roll(std::unique_lock<std::mutex>& lock) {
  CHECK(lock.owns_lock() && !syncing_);
  if (auto synced = active_->file()->sync(); !synced) {
    fail(synced.error());
    return failure();
  }
  durable_ = written_;
  active_synced_ = active_bytes_;
  publish();
  const SegmentHeader header{active_->header().id + 1, 0};
  Directory state = snapshot();
  const std::string head = encode_segment_header(header);
  const std::string frame = encode_frame(header, kSegmentHeaderBytes, kSegmentHeaderBytes, state);
  const std::string_view parts[] = {head, frame};
  auto file = stage_file(*files_, dir_ + "/" + segment_name(header.id), parts);
  if (!file) return Error{Errc::kAborted, "beginning a new segment of the " + describe() + ": " + file.error().message};
  // From here on a half-done step could hide the frames that would still go to the old segment.
  if (auto published = publish_file(*files_, dir_, segment_name(header.id)); !published) {
    fail(published.error());
    return failure();
  }
  seal_active();
  active_ = std::make_shared<Segment>(header, dir_, files_, std::move(*file), 0, std::vector<PieceSummary>{});
  active_bytes_ = active_synced_ = active_first_ = head.size() + frame.size();
  proven_ = true;
  rolled_ = true;
  clean_wakeup_.notify_all();
  return {};
}

void Core::seal_active() {
  std::map<uint32_t, std::vector<BatchEntry>> batches;
  for (uint32_t id = 0; id < partitions_.size(); ++id) {
    if (!partitions_[id]->active.empty()) batches[id] = std::exchange(partitions_[id]->active, {});
  }
  const std::vector<Piece> pieces = pieces_of(batches);
  // Without a side-car (a full disk) the segment is read through when its batches are needed.
  auto ignored = write_index(*files_, dir_, active_->header(), active_bytes_, pieces);
  std::vector<PieceSummary> summaries;
  for (const Piece& piece : pieces) summaries.push_back(piece.summary);
  auto segment = std::make_shared<Segment>(active_->header(), dir_, files_, active_->file(), active_bytes_, std::move(summaries));
  sealed_[segment->header().id] = segment;
  attach(segment);
}

std::vector<int64_t> Core::place(std::span<const Batch> batches) const {
  std::unordered_map<uint32_t, int64_t> next;
  std::vector<int64_t> bases;
  for (const Batch& batch : batches) {
    int64_t& at = next.try_emplace(batch.partition, partitions_[batch.partition]->next).first->second;
    bases.push_back(at);
    at += batch.span;
  }
  return bases;
}

Result<void> Core::write_batches(std::unique_lock<std::mutex>& lock, std::span<const Batch> batches) {
  Directory directory;
  std::vector<std::string_view> bodies;
  uint64_t bytes = 1024;
  for (const Batch& batch : batches) {
    directory.batches.emplace_back(batch.partition, batch.entry(0));
    bodies.push_back(batch.bytes);
    bytes += batch.bytes.size();
  }
  TRY(make_room(lock, bytes));
  const std::vector<int64_t> bases = place(batches);
  for (size_t i = 0; i < bases.size(); ++i) {
    directory.batches[i].second.base = bases[i];
    directory.batches[i].second.end = bases[i] + batches[i].span;
  }
  TRY_ASSIGN(uint64_t written, append(std::move(directory), bodies));
  return wait_durable(lock, written);
}

Result<void> Core::write(std::unique_lock<std::mutex>& lock, Directory directory) {
  TRY(make_room(lock, 1024));
  TRY_ASSIGN(uint64_t written, append(std::move(directory), {}));
  return wait_durable(lock, written);
}

Result<void> Core::create_topics(std::unique_lock<std::mutex>& lock, std::span<const TopicConfig> topics) {
  for (const TopicConfig& config : topics) {
    if (topics_.contains(config.name)) continue;
    if (config.name.empty() || config.partitions < 1) {
      return Error{Errc::kUsage, "creating topic \"" + config.name + "\" with " + std::to_string(config.partitions) +
                                     " partitions in the " + describe() + ": a topic needs a name and a partition"};
    }
    TRY(make_room(lock, 1024));
    if (topics_.contains(config.name)) continue;  // another thread, while a new segment began
    Directory directory;
    directory.topics.push_back({config, static_cast<uint32_t>(partitions_.size())});
    TRY_ASSIGN([[maybe_unused]] uint64_t written, append(std::move(directory), {}));
  }
  return wait_durable(lock, written_);
}

}  // namespace assay::streams::embedded
