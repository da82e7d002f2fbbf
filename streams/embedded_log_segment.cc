#include "streams/embedded_log_segment.h"

namespace assay::streams::embedded {
namespace {

constexpr uint64_t kReadGapBytes = 4096;  // reading over a smaller gap is cheaper than another call

Result<std::vector<Piece>> scan_pieces(const File& file, const std::string& path, uint64_t id) {
  TRY_ASSIGN(SegmentBytes segment, read_segment(file, path, id));
  std::map<uint32_t, std::vector<BatchEntry>> batches;
  TRY_ASSIGN([[maybe_unused]] uint64_t end, scan_frames(segment, path, false, [&](Frame& frame) {
               for (auto& [partition, batch] : frame.directory.batches) batches[partition].push_back(batch);
             }));
  return pieces_of(batches);
}

}  // namespace

Result<SegmentBytes> read_segment(const File& file, const std::string& path, uint64_t id) {
  SegmentBytes out;
  TRY_ASSIGN(uint64_t size, file.size());
  out.bytes.resize(size);
  TRY(file.read_at(0, out.bytes));
  TRY_ASSIGN(out.header, decode_segment_header(out.bytes, path));
  if (out.header.id != id) {
    return Error{Errc::kCorrupt, "reading " + path + " at 0: the file says that it is segment " + std::to_string(out.header.id)};
  }
  return out;
}

Result<uint64_t> scan_frames(const SegmentBytes& segment, const std::string& path, bool last,
                             const std::function<void(Frame&)>& frame) {
  uint64_t position = kSegmentHeaderBytes;
  while (position < segment.bytes.size()) {
    auto found = decode_frame(segment.header, segment.bytes, position);
    if (!found) {
      const bool first = position == kSegmentHeaderBytes;  // made durable before the segment got its name
      if (!last || first || synced_behind(segment.header, segment.bytes, position) > position) {
        return Error{Errc::kCorrupt, "reading " + path + " at " + std::to_string(position) +
                                         ": a frame that was durable does not match its checksum"};
      }
      break;
    }
    frame(*found);
    position += found->bytes;
  }
  return position;
}

std::vector<Piece> pieces_of(const std::map<uint32_t, std::vector<BatchEntry>>& batches) {
  std::vector<Piece> pieces;
  for (const auto& [partition, entries] : batches) {
    if (entries.empty()) continue;
    Piece& piece = pieces.emplace_back();
    piece.summary.partition = partition;
    for (const BatchEntry& entry : entries) piece.summary.add(entry);
    piece.entries = entries;
  }
  return pieces;
}

Result<void> write_index(Files& files, const std::string& dir, const SegmentHeader& header, uint64_t segment_bytes,
                         std::span<const Piece> pieces) {
  const std::string path = dir + "/" + index_name(header.id);
  const std::string bytes = encode_index(header, segment_bytes, pieces);
  TRY_ASSIGN(auto file, files.open(path + ".tmp", OpenMode::kCreate));
  std::string_view part = bytes;
  TRY(file->write_at(0, {&part, 1}));
  return files.rename(path + ".tmp", path);
}

Result<std::unique_ptr<File>> stage_file(Files& files, const std::string& path, std::span<const std::string_view> parts) {
  TRY_ASSIGN(auto file, files.open(path + ".tmp", OpenMode::kCreate));
  auto written = file->write_at(0, parts);
  if (written) written = file->sync();
  if (!written) {
    auto ignored = files.remove(path + ".tmp");  // gives the space back; the next start would do it otherwise
    return written.error();
  }
  return file;
}

Result<void> publish_file(Files& files, const std::string& dir, const std::string& name) {
  TRY(files.rename(dir + "/" + name + ".tmp", dir + "/" + name));
  return files.sync_directory(dir);
}

Result<std::shared_ptr<Segment>> Segment::open(const std::string& dir, std::shared_ptr<Files> files, uint64_t id,
                                               bool repair_index) {
  const std::string path = dir + "/" + segment_name(id);
  TRY_ASSIGN(std::shared_ptr<File> file, files->open(path, OpenMode::kRead));
  TRY_ASSIGN(uint64_t size, file->size());
  std::string head(std::min<uint64_t>(size, kSegmentHeaderBytes), '\0');
  TRY(file->read_at(0, head));
  TRY_ASSIGN(SegmentHeader header, decode_segment_header(head, path));
  if (auto index = files->open(dir + "/" + index_name(id), OpenMode::kRead)) {
    auto pieces = read_index_pieces(**index, header, size);
    if (pieces && header.id == id) return std::make_shared<Segment>(header, dir, files, file, size, std::move(*pieces));
  }
  TRY_ASSIGN(std::vector<Piece> scanned, scan_pieces(*file, path, id));
  if (repair_index) {
    auto ignored = write_index(*files, dir, header, size, scanned);  // a full disk costs the next start another scan, nothing else
  }
  std::vector<PieceSummary> pieces;
  for (const Piece& piece : scanned) pieces.push_back(piece.summary);
  return std::make_shared<Segment>(header, dir, files, file, size, std::move(pieces));
}

Result<std::shared_ptr<const std::vector<BatchEntry>>> Segment::entries(uint32_t partition) const {
  std::lock_guard lock(mutex_);
  if (auto cached = cache_[partition].lock()) return cached;
  std::shared_ptr<const std::vector<BatchEntry>> out;
  auto keep = [&](std::vector<BatchEntry> entries) {
    out = std::make_shared<const std::vector<BatchEntry>>(std::move(entries));
    cache_[partition] = out;
    return out;
  };
  size_t which = 0;
  while (which < pieces_.size() && pieces_[which].partition != partition) ++which;
  if (which == pieces_.size()) return keep({});
  if (auto index = files_->open(dir_ + "/" + index_name(header_.id), OpenMode::kRead)) {
    // The side-car may be a newer one by now, of the segment that cleaning put in this one's place.
    auto pieces = read_index_pieces(**index, header_, bytes_);
    if (pieces && which < pieces->size()) {
      if (auto entries = read_index_entries(**index, *pieces, which)) return keep(std::move(*entries));
    }
  }
  TRY_ASSIGN(std::vector<Piece> scanned, scan_pieces(*file_, path(), header_.id));
  for (Piece& piece : scanned) {
    if (piece.summary.partition == partition) return keep(std::move(piece.entries));
  }
  return keep({});
}

Result<LoadedBatches> Segment::load(std::span<const BatchEntry> entries) const {
  struct Run {
    uint64_t from, to;
  };
  std::vector<Run> runs;
  uint64_t total = 0;
  for (const BatchEntry& entry : entries) {
    uint64_t to = entry.position + entry.bytes;
    if (!runs.empty() && entry.position >= runs.back().to && entry.position - runs.back().to <= kReadGapBytes) {
      total += to - runs.back().to;
      runs.back().to = to;
    } else {
      runs.push_back({entry.position, to});
      total += entry.bytes;
    }
  }
  std::shared_ptr<char[]> buffer(new char[total]);  // not zeroed: every byte is read into
  LoadedBatches out;
  out.batches.reserve(entries.size());
  char* to = buffer.get();
  size_t next = 0;
  for (const Run& run : runs) {
    TRY(file_->read_at(run.from, {to, run.to - run.from}));
    for (; next < entries.size() && entries[next].position >= run.from && entries[next].position + entries[next].bytes <= run.to;
         ++next) {
      const BatchEntry& entry = entries[next];
      std::string_view bytes(to + (entry.position - run.from), entry.bytes);
      if (xxh3_64(bytes) != entry.checksum) {
        return Error{Errc::kCorrupt, "reading " + path() + " at " + std::to_string(entry.position) + ": the batch of offsets " +
                                         std::to_string(entry.base) + " to " + std::to_string(entry.end) +
                                         " does not match its checksum"};
      }
      out.batches.push_back({bytes, entry.base, entry.end});
    }
    to += run.to - run.from;
  }
  out.storage = std::move(buffer);
  return out;
}

}  // namespace assay::streams::embedded
