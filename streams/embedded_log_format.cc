#include "streams/embedded_log_format.h"

#include <bit>

namespace assay::streams::embedded {
namespace {

static_assert(std::endian::native == std::endian::little, "stored numbers are little-endian and copied as they are");

constexpr std::string_view kSegmentMagic = "ASSAYJ01";
constexpr std::string_view kIndexMagic = "ASSAYX01";
constexpr uint32_t kFrameMagic = 0xF7A3E15D;
constexpr size_t kIndexHeaderBytes = 36;
constexpr size_t kPieceBytes = 44;
constexpr size_t kBatchEntryBytes = 48;

enum Tag : uint8_t { kTopic = 1, kCommit, kWriter, kStart, kEnd, kBatch, kSnapshot };

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof value);
}

void put_text(std::string& out, std::string_view text) {
  put(out, static_cast<uint32_t>(text.size()));
  out.append(text);
}

template <class T>
void put_back(std::string& out, size_t at, T value) {
  std::memcpy(out.data() + at, &value, sizeof value);
}

/// Takes numbers and texts off the front; `sound` turns false for good when bytes are missing.
struct Take {
  std::string_view rest;
  bool sound = true;

  template <class T>
  T number() {
    T value{};
    if (rest.size() < sizeof value) {
      sound = false;
      rest = {};
      return value;
    }
    std::memcpy(&value, rest.data(), sizeof value);
    rest.remove_prefix(sizeof value);
    return value;
  }
  std::string text() {
    auto length = number<uint32_t>();
    if (length > rest.size()) {
      sound = false;
      rest = {};
      return {};
    }
    std::string out(rest.substr(0, length));
    rest.remove_prefix(length);
    return out;
  }
};

uint64_t seed_of(const SegmentHeader& segment, uint64_t position) {
  uint64_t place[3] = {segment.id, segment.generation, position};
  return xxh3_64({reinterpret_cast<const char*>(place), sizeof place});
}

std::optional<Directory> decode_directory(std::string_view bytes) {
  Take take{bytes};
  Directory out;
  while (!take.rest.empty() && take.sound) {
    switch (take.number<uint8_t>()) {
      case kTopic: {
        TopicEntry& topic = out.topics.emplace_back();
        topic.config.name = take.text();
        topic.first_id = take.number<uint32_t>();
        topic.config.partitions = static_cast<int32_t>(take.number<uint32_t>());
        topic.config.compacted = take.number<uint8_t>() != 0;
        topic.config.retention_ms = take.number<int64_t>();
        topic.config.max_record_bytes = take.number<int64_t>();
        break;
      }
      case kCommit: {
        CommitEntry& commit = out.commits.emplace_back();
        commit.group = take.text();
        commit.partition = take.number<uint32_t>();
        commit.offset = take.number<int64_t>();
        commit.metadata = take.text();
        break;
      }
      case kWriter: {
        WriterEntry& writer = out.writers.emplace_back();
        writer.id = take.text();
        writer.epoch = take.number<uint64_t>();
        break;
      }
      case kStart:
      case kEnd: {
        auto& places = bytes[bytes.size() - take.rest.size() - 1] == kStart ? out.starts : out.ends;
        PlaceEntry& place = places.emplace_back();
        place.partition = take.number<uint32_t>();
        place.offset = take.number<int64_t>();
        break;
      }
      case kBatch: {
        auto& [partition, batch] = out.batches.emplace_back();
        partition = take.number<uint32_t>();
        batch.base = take.number<int64_t>();
        batch.end = take.number<int64_t>();
        batch.records = take.number<uint32_t>();
        batch.max_timestamp = take.number<int64_t>();
        batch.bytes = take.number<uint32_t>();
        batch.checksum = take.number<uint64_t>();
        break;
      }
      case kSnapshot:
        out.snapshot = true;
        break;
      default:
        return std::nullopt;
    }
  }
  if (!take.sound) return std::nullopt;
  return out;
}

Error index_error(const SegmentHeader& segment, const std::string& what) {
  return {Errc::kCorrupt, "reading " + index_name(segment.id) + ": " + what};
}

}  // namespace

bool RecordWalk::blob(std::optional<std::string_view>& view) {
  uint64_t length;
  if (!varint(length)) return false;
  if (length == 0) {
    view.reset();
    return true;
  }
  return run(length - 1, view.emplace());
}

bool RecordWalk::next(RecordView& record) {
  uint64_t delta, step, headers;
  if (!varint(delta) || !varint(step)) return false;
  timestamp_ = static_cast<int64_t>(static_cast<uint64_t>(timestamp_) + (step >> 1 ^ (~(step & 1) + 1)));
  record.offset = Offset(base_ + static_cast<int64_t>(delta));
  record.timestamp = WallTime(timestamp_);
  if (!blob(record.key) || !blob(record.value) || !varint(headers)) return false;
  if (headers > static_cast<uint64_t>(end_ - at_)) return false;
  record.headers.clear();
  for (uint64_t i = 0; i < headers; ++i) {
    HeaderView& header = record.headers.emplace_back();
    uint64_t length;
    if (!varint(length) || !run(length, header.name) || !blob(header.value)) return false;
  }
  return true;
}

std::string encode_segment_header(const SegmentHeader& header) {
  std::string out(kSegmentMagic);
  put(out, header.id);
  put(out, header.generation);
  put(out, xxh3_64(out));
  return out;
}

Result<SegmentHeader> decode_segment_header(std::string_view bytes, const std::string& path) {
  if (bytes.size() < kSegmentHeaderBytes || bytes.substr(0, 8) != kSegmentMagic) {
    return Error{Errc::kCorrupt, "reading " + path + " at 0: this is no segment of an embedded log"};
  }
  Take take{bytes.substr(8)};
  SegmentHeader header;
  header.id = take.number<uint64_t>();
  header.generation = take.number<uint64_t>();
  if (take.number<uint64_t>() != xxh3_64(bytes.substr(0, 24))) {
    return Error{Errc::kCorrupt, "reading " + path + " at 0: the checksum of the segment header does not match"};
  }
  return header;
}

std::string encode_frame(const SegmentHeader& segment, uint64_t position, uint64_t synced, Directory& directory) {
  std::string out(kFrameHeaderBytes, '\0');
  if (directory.snapshot) put(out, kSnapshot);
  for (const TopicEntry& topic : directory.topics) {
    put(out, kTopic);
    put_text(out, topic.config.name);
    put(out, topic.first_id);
    put(out, static_cast<uint32_t>(topic.config.partitions));
    put(out, static_cast<uint8_t>(topic.config.compacted));
    put(out, topic.config.retention_ms);
    put(out, topic.config.max_record_bytes);
  }
  for (const CommitEntry& commit : directory.commits) {
    put(out, kCommit);
    put_text(out, commit.group);
    put(out, commit.partition);
    put(out, commit.offset);
    put_text(out, commit.metadata);
  }
  for (const WriterEntry& writer : directory.writers) {
    put(out, kWriter);
    put_text(out, writer.id);
    put(out, writer.epoch);
  }
  for (auto [tag, places] : {std::pair{kStart, &directory.starts}, std::pair{kEnd, &directory.ends}}) {
    for (const PlaceEntry& place : *places) {
      put(out, tag);
      put(out, place.partition);
      put(out, place.offset);
    }
  }
  uint64_t body_bytes = 0;
  for (const auto& [partition, batch] : directory.batches) {
    put(out, kBatch);
    put(out, partition);
    put(out, batch.base);
    put(out, batch.end);
    put(out, batch.records);
    put(out, batch.max_timestamp);
    put(out, batch.bytes);
    put(out, batch.checksum);
    body_bytes += batch.bytes;
  }
  uint64_t body_at = position + out.size();
  for (auto& [partition, batch] : directory.batches) {
    batch.position = body_at;
    body_at += batch.bytes;
  }
  put_back(out, 8, kFrameMagic);
  put_back(out, 12, static_cast<uint32_t>(out.size() - kFrameHeaderBytes));
  put_back(out, 16, body_bytes);
  put_back(out, 24, synced);
  put_back(out, 0, xxh3_64(std::string_view(out).substr(8), seed_of(segment, position)));
  return out;
}

std::optional<Frame> decode_frame(const SegmentHeader& segment, std::string_view segment_bytes, uint64_t position) {
  if (position > segment_bytes.size() || segment_bytes.size() - position < kFrameHeaderBytes) return std::nullopt;
  const std::string_view bytes = segment_bytes.substr(position);
  Take take{bytes};
  auto checksum = take.number<uint64_t>();
  if (take.number<uint32_t>() != kFrameMagic) return std::nullopt;
  auto directory_bytes = take.number<uint32_t>();
  auto body_bytes = take.number<uint64_t>();
  Frame frame;
  frame.position = position;
  frame.synced = take.number<uint64_t>();
  if (directory_bytes > take.rest.size() || body_bytes > take.rest.size() - directory_bytes) return std::nullopt;
  if (checksum != xxh3_64(bytes.substr(8, kFrameHeaderBytes - 8 + directory_bytes), seed_of(segment, position)))
    return std::nullopt;
  auto directory = decode_directory(take.rest.substr(0, directory_bytes));
  if (!directory) return std::nullopt;
  std::string_view body = take.rest.substr(directory_bytes, body_bytes);
  uint64_t at = 0;
  for (auto& [partition, batch] : directory->batches) {
    if (batch.bytes > body.size() - at || xxh3_64(body.substr(at, batch.bytes)) != batch.checksum) return std::nullopt;
    batch.position = position + kFrameHeaderBytes + directory_bytes + at;
    at += batch.bytes;
  }
  if (at != body_bytes) return std::nullopt;
  frame.bytes = kFrameHeaderBytes + directory_bytes + body_bytes;
  frame.directory = std::move(*directory);
  return frame;
}

uint64_t synced_behind(const SegmentHeader& segment, std::string_view segment_bytes, uint64_t position) {
  std::string magic;
  put(magic, kFrameMagic);
  uint64_t synced = 0;
  for (size_t at = segment_bytes.find(magic, position + 9); at != std::string_view::npos; at = segment_bytes.find(magic, at + 1)) {
    if (auto frame = decode_frame(segment, segment_bytes, at - 8)) synced = std::max(synced, frame->synced);
  }
  return synced;
}

std::string encode_index(const SegmentHeader& segment, uint64_t segment_bytes, std::span<const Piece> pieces) {
  std::string out(kIndexMagic);
  put(out, segment.id);
  put(out, segment.generation);
  put(out, segment_bytes);
  put(out, static_cast<uint32_t>(pieces.size()));
  for (const Piece& piece : pieces) {
    put(out, piece.summary.partition);
    put(out, piece.summary.batches);
    put(out, piece.summary.base);
    put(out, piece.summary.end);
    put(out, piece.summary.max_timestamp);
    put(out, piece.summary.bytes);
  }
  put(out, xxh3_64(out));
  for (const Piece& piece : pieces) {
    size_t from = out.size();
    for (const BatchEntry& entry : piece.entries) {
      put(out, entry.position);
      put(out, entry.bytes);
      put(out, entry.records);
      put(out, entry.base);
      put(out, entry.end);
      put(out, entry.max_timestamp);
      put(out, entry.checksum);
    }
    put(out, xxh3_64(std::string_view(out).substr(from)));
  }
  return out;
}

Result<std::vector<PieceSummary>> read_index_pieces(const File& file, const SegmentHeader& segment, uint64_t segment_bytes) {
  TRY_ASSIGN(uint64_t size, file.size());
  std::string bytes(kIndexHeaderBytes, '\0');
  if (size < bytes.size()) return index_error(segment, "it is too short");
  TRY(file.read_at(0, bytes));
  Take take{bytes};
  take.rest.remove_prefix(kIndexMagic.size());
  auto id = take.number<uint64_t>(), generation = take.number<uint64_t>(), covers = take.number<uint64_t>();
  if (!bytes.starts_with(kIndexMagic) || id != segment.id || generation != segment.generation || covers != segment_bytes) {
    return index_error(segment, "it does not describe the segment beside it");
  }
  auto count = take.number<uint32_t>();
  const uint64_t table_bytes = kIndexHeaderBytes + uint64_t{count} * kPieceBytes;
  if (size < table_bytes + 8) return index_error(segment, "it is too short");
  bytes.resize(table_bytes + 8);
  TRY(file.read_at(0, bytes));
  take = Take{std::string_view(bytes).substr(kIndexHeaderBytes)};
  std::vector<PieceSummary> pieces(count);
  for (PieceSummary& piece : pieces) {
    piece.partition = take.number<uint32_t>();
    piece.batches = take.number<uint64_t>();
    piece.base = take.number<int64_t>();
    piece.end = take.number<int64_t>();
    piece.max_timestamp = take.number<int64_t>();
    piece.bytes = take.number<uint64_t>();
  }
  if (take.number<uint64_t>() != xxh3_64(std::string_view(bytes).substr(0, table_bytes))) {
    return index_error(segment, "the checksum of its table does not match");
  }
  uint64_t whole = table_bytes + 8;
  for (const PieceSummary& piece : pieces) whole += piece.batches * kBatchEntryBytes + 8;
  if (whole != size) return index_error(segment, "it is cut");
  return pieces;
}

Result<std::vector<BatchEntry>> read_index_entries(const File& file, std::span<const PieceSummary> pieces, size_t which) {
  uint64_t at = kIndexHeaderBytes + pieces.size() * kPieceBytes + 8;
  for (size_t i = 0; i < which; ++i) at += pieces[i].batches * kBatchEntryBytes + 8;
  std::string bytes(pieces[which].batches * kBatchEntryBytes + 8, '\0');
  TRY(file.read_at(at, bytes));
  Take take{bytes};
  std::vector<BatchEntry> entries(pieces[which].batches);
  for (BatchEntry& entry : entries) {
    entry.position = take.number<uint64_t>();
    entry.bytes = take.number<uint32_t>();
    entry.records = take.number<uint32_t>();
    entry.base = take.number<int64_t>();
    entry.end = take.number<int64_t>();
    entry.max_timestamp = take.number<int64_t>();
    entry.checksum = take.number<uint64_t>();
  }
  if (take.number<uint64_t>() != xxh3_64(std::string_view(bytes).substr(0, bytes.size() - 8))) {
    return Error{Errc::kCorrupt, "reading a side-car index at " + std::to_string(at) + ": the checksum does not match"};
  }
  return entries;
}

std::string segment_name(uint64_t id) {
  std::string digits = std::to_string(id);
  return std::string(20 - digits.size(), '0') + digits + ".journal";
}

std::string index_name(uint64_t id) { return segment_name(id).substr(0, 20) + ".index"; }

std::optional<uint64_t> parse_segment_name(std::string_view name) {
  if (name.size() != 28 || name.substr(20) != ".journal") return std::nullopt;
  uint64_t id = 0;
  for (char c : name.substr(0, 20)) {
    if (c < '0' || c > '9') return std::nullopt;
    id = id * 10 + static_cast<uint64_t>(c - '0');
  }
  return id;
}

}  // namespace assay::streams::embedded
