// Retention and cleaning of the embedded log: what is logically gone leaves the disk, segment by segment.
#include <algorithm>
#include <set>

#include "streams/embedded_log_core.h"

namespace assay::streams::embedded {
namespace {

constexpr uint64_t kChunkBytes = 1 << 20;

/// Calls `record` for every record of the batches, in order.
Result<void> walk_records(const Segment& segment, std::span<const BatchEntry> entries,
                          const std::function<void(size_t batch, RecordView& record)>& record) {
  for (size_t from = 0; from < entries.size();) {
    size_t to = from;
    for (uint64_t bytes = 0; to < entries.size() && (to == from || bytes + entries[to].bytes <= kChunkBytes); ++to)
      bytes += entries[to].bytes;
    TRY_ASSIGN(LoadedBatches loaded, segment.load(entries.subspan(from, to - from)));
    for (size_t i = 0; i < loaded.batches.size(); ++i) {
      RecordWalk walk(loaded.batches[i].bytes, loaded.batches[i].base);
      RecordView view;
      while (!walk.done()) {
        if (!walk.next(view)) {
          return Error{Errc::kCorrupt, "reading " + segment.path() + " at " + std::to_string(entries[from + i].position) +
                                           ": the batch matches its checksum but holds no records"};
        }
        record(from + i, view);
      }
    }
    from = to;
  }
  return {};
}

/// The content of a segment being written anew: frames of about a chunk each.
class SegmentWriter {
 public:
  explicit SegmentWriter(SegmentHeader header) : header_(header), bytes_(encode_segment_header(header)) {}

  void add(uint32_t partition, const BatchEntry& entry, std::string_view body) {
    directory_.batches.emplace_back(partition, entry);
    body_.append(body);
    if (body_.size() >= kChunkBytes) end_frame();
  }
  void end_frame() {
    if (directory_.batches.empty()) return;
    bytes_ += encode_frame(header_, bytes_.size(), 0, directory_);
    bytes_ += body_;
    for (auto& [partition, entry] : directory_.batches) batches_[partition].push_back(entry);
    directory_ = {};
    body_.clear();
  }
  const SegmentHeader& header() const { return header_; }
  const std::string& bytes() const { return bytes_; }
  const std::map<uint32_t, std::vector<BatchEntry>>& batches() const { return batches_; }

 private:
  SegmentHeader header_;
  std::string bytes_, body_;
  Directory directory_;
  std::map<uint32_t, std::vector<BatchEntry>> batches_;
};

}  // namespace

void Core::clean_sometimes() {
  std::unique_lock lock(mutex_);
  while (!closing_) {
    clean_wakeup_.wait_for(lock, Milliseconds(options_.clean_interval_ms), [&] { return closing_ || rolled_; });
    if (closing_) return;
    rolled_ = false;
    lock.unlock();
    auto ignored = clean();  // what stays dead is tried again next time; a failed sync shows at the next write
    lock.lock();
  }
}

Result<void> Core::clean() {
  if (options_.read_only) return Error{Errc::kRefused, "cleaning the " + describe() + ": it was opened read-only"};
  std::lock_guard cleaning(clean_mutex_);
  TRY(apply_retention());
  TRY(drop_dead_segments());
  TRY_ASSIGN(auto last, last_by_key());
  std::vector<std::shared_ptr<Segment>> segments;
  {
    std::lock_guard lock(mutex_);
    for (const auto& [id, segment] : sealed_) segments.push_back(segment);
  }
  for (const auto& segment : segments) TRY(rewrite(segment, last));
  return drop_dead_segments();
}

uint64_t Core::disk_bytes() {
  std::lock_guard lock(mutex_);
  uint64_t bytes = active_bytes_;
  for (const auto& [id, segment] : sealed_) bytes += segment->bytes();
  return bytes;
}

Result<void> Core::apply_retention() {
  struct Expiring {
    uint32_t id;
    int64_t cutoff, start;
    std::vector<LivePiece> sealed;
    std::vector<BatchEntry> active;

    /// Moves the start over the batches that are too old; false at the first that is not.
    bool expire(std::span<const BatchEntry> batches) {
      for (const BatchEntry& batch : batches) {
        if (batch.end <= start) continue;
        if (batch.max_timestamp >= cutoff) return false;
        start = batch.end;
      }
      return true;
    }
  };
  std::vector<Expiring> expiring;
  const int64_t now_ms = options_.now().value;
  std::unique_lock lock(mutex_);
  for (uint32_t id = 0; id < partitions_.size(); ++id) {
    const Partition& partition = *partitions_[id];
    const TopicConfig& config = partition.topic->config;
    if (config.retention_ms < 0 || config.compacted) continue;
    Expiring& e = expiring.emplace_back(Expiring{id, now_ms - config.retention_ms, partition.start, {}, {}});
    for (const LivePiece& piece : partition.sealed) {
      e.sealed.push_back(piece);
      if (piece.summary.base >= partition.start && piece.summary.max_timestamp >= e.cutoff) break;
    }
    for (const BatchEntry& batch : partition.active) {
      if (batch.max_timestamp >= e.cutoff && batch.end > partition.start) break;
      if (batch.end <= partition.stable) e.active.push_back(batch);
    }
  }
  lock.unlock();
  Directory directory;
  for (Expiring& e : expiring) {
    const int64_t before = e.start;
    bool all = true;
    for (size_t i = 0; all && i < e.sealed.size(); ++i) {
      if (e.sealed[i].summary.max_timestamp < e.cutoff) {
        e.start = std::max(e.start, e.sealed[i].summary.end);
      } else {
        TRY_ASSIGN(auto entries, e.sealed[i].segment->entries(e.id));
        all = e.expire(*entries);
      }
    }
    if (all) e.expire(e.active);
    if (e.start > before) directory.starts.push_back({e.id, e.start});
  }
  if (directory.empty() || (options_.held && options_.held())) return {};
  lock.lock();
  return write(lock, std::move(directory));  // a start that was moved further meanwhile stays where it is
}

Result<void> Core::drop_dead_segments() {
  std::vector<uint64_t> dead;
  {
    std::lock_guard lock(mutex_);
    std::set<const Segment*> live;
    for (const auto& partition : partitions_) {
      for (const LivePiece& piece : partition->sealed) live.insert(piece.segment.get());
    }
    for (const auto& [id, segment] : sealed_) {
      if (!live.contains(segment.get())) dead.push_back(id);
    }
    for (uint64_t id : dead) sealed_.erase(id);
  }
  for (uint64_t id : dead) {
    TRY(files_->remove(dir_ + "/" + segment_name(id)));
    auto ignored = files_->remove(dir_ + "/" + index_name(id));  // there may be none; a start removes what is left alone
  }
  return {};
}

Result<std::map<uint32_t, Core::LastByKey>> Core::last_by_key() {
  struct Source {
    std::shared_ptr<const Segment> segment;
    std::vector<BatchEntry> active;
    bool sealed;
  };
  std::map<uint32_t, std::vector<Source>> todo;
  {
    std::lock_guard lock(mutex_);
    for (uint32_t id = 0; id < partitions_.size(); ++id) {
      Partition& partition = *partitions_[id];
      if (!partition.topic->config.compacted) continue;
      uint64_t fresh = 0, all = 0;
      for (const LivePiece& piece : partition.sealed) {
        all += piece.summary.bytes;
        if (!piece.compacted) fresh += piece.summary.bytes;
      }
      // Looking costs reading the whole partition, so it waits until as much came as was there.
      if (fresh == 0 || fresh * 2 < all) continue;
      std::vector<Source>& sources = todo[id];
      for (LivePiece& piece : partition.sealed) {
        sources.push_back({piece.segment, {}, true});
        piece.compacted = true;
      }
      Source& active = sources.emplace_back(Source{active_, {}, false});
      for (const BatchEntry& batch : partition.active) {
        if (batch.end <= partition.stable) active.active.push_back(batch);
      }
    }
  }
  std::map<uint32_t, LastByKey> out;
  for (auto& [id, sources] : todo) {
    LastByKey& last = out[id];
    for (const Source& source : sources) {
      std::shared_ptr<const std::vector<BatchEntry>> index;
      std::span<const BatchEntry> entries = source.active;
      if (source.sealed) {
        TRY_ASSIGN(index, source.segment->entries(id));
        entries = *index;
      }
      TRY(walk_records(*source.segment, entries, [&](size_t, RecordView& record) {
        if (record.key) last[xxh3_128(*record.key)] = record.offset.value;
      }));
    }
  }
  return out;
}

Result<void> Core::rewrite(const std::shared_ptr<Segment>& segment, const std::map<uint32_t, LastByKey>& last) {
  std::map<uint32_t, int64_t> starts;  // of the partitions with live batches here
  {
    std::lock_guard lock(mutex_);
    for (const PieceSummary& piece : segment->pieces()) {
      const Partition& partition = *partitions_[piece.partition];
      if (piece.end > partition.start) starts[piece.partition] = partition.start;
    }
  }
  bool by_key = false;
  uint64_t all = 0, live = 0;
  for (const PieceSummary& piece : segment->pieces()) {
    all += piece.bytes;
    auto start = starts.find(piece.partition);
    if (start == starts.end()) continue;
    by_key |= last.contains(piece.partition);
    if (piece.base >= start->second && !last.contains(piece.partition)) {
      live += piece.bytes;
      continue;
    }
    TRY_ASSIGN(auto entries, segment->entries(piece.partition));
    for (const BatchEntry& batch : *entries) {
      if (batch.end > start->second) live += batch.bytes;
    }
  }
  auto worth_it = [&] { return live<all&& static_cast<double>(all - live)> options_.clean_dead_share * static_cast<double>(all); };
  if (!by_key && !worth_it()) return {};

  SegmentWriter writer({segment->header().id, segment->header().generation + 1});
  live = 0;
  for (const auto& [id, start] : starts) {
    TRY_ASSIGN(auto index, segment->entries(id));
    auto first = std::partition_point(index->begin(), index->end(), [s = start](const BatchEntry& b) { return b.end <= s; });
    std::span<const BatchEntry> entries(first, index->end());
    auto keys = last.find(id);
    if (keys == last.end()) {
      for (const BatchEntry& entry : entries) {
        TRY_ASSIGN(LoadedBatches loaded, segment->load({&entry, 1}));
        writer.add(id, entry, loaded.batches[0].bytes);
        live += entry.bytes;
      }
      continue;
    }
    Batch batch;
    size_t at = 0;
    auto end_batch = [&] {
      if (batch.records > 0) {
        writer.add(id, batch.entry(entries[at].base), batch.bytes);
        live += batch.bytes.size();
      }
      batch = {};
    };
    TRY(walk_records(*segment, entries, [&](size_t of, RecordView& record) {
      if (of != at) {
        end_batch();
        at = of;
      }
      if (record.key) {
        auto newest = keys->second.find(xxh3_128(*record.key));
        if (newest != keys->second.end() && record.offset.value < newest->second) return;
      }
      batch.add(record.offset.value - entries[of].base, record);
    }));
    if (!entries.empty()) end_batch();
  }
  if (!worth_it()) return {};
  writer.end_frame();

  const std::vector<Piece> pieces = pieces_of(writer.batches());
  std::vector<PieceSummary> summaries;
  for (const Piece& piece : pieces) summaries.push_back(piece.summary);
  std::shared_ptr<Segment> fresh;
  if (!pieces.empty()) {
    std::string_view part = writer.bytes();
    TRY_ASSIGN(std::shared_ptr<File> file, stage_file(*files_, segment->path(), {&part, 1}));
    TRY(publish_file(*files_, dir_, segment_name(segment->header().id)));
    auto ignored = write_index(*files_, dir_, writer.header(), writer.bytes().size(), pieces);  // or it is read through when needed
    fresh = std::make_shared<Segment>(writer.header(), dir_, files_, file, writer.bytes().size(), summaries);
  }
  std::lock_guard lock(mutex_);
  for (const PieceSummary& old : segment->pieces()) {
    std::deque<LivePiece>& sealed = partitions_[old.partition]->sealed;
    auto piece = std::find_if(sealed.begin(), sealed.end(), [&](const LivePiece& p) { return p.segment == segment; });
    if (piece == sealed.end()) continue;
    auto now =
        std::find_if(summaries.begin(), summaries.end(), [&](const PieceSummary& s) { return s.partition == old.partition; });
    if (now == summaries.end()) {
      sealed.erase(piece);
    } else {
      piece->segment = fresh;
      piece->summary = *now;
    }
  }
  if (fresh) sealed_[fresh->header().id] = fresh;
  return {};
}

}  // namespace assay::streams::embedded
