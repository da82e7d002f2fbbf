#include "replay/segment.h"

#include <algorithm>
#include <cstring>

#include "state/encoding.h"
#include "streams/zstd.h"

namespace assay::replay {
namespace {

using state::Decoder;
using state::Encoder;

constexpr std::string_view kMagic = "assayseg";
constexpr uint32_t kFormat = 1;
constexpr size_t kHeaderBytes = 12;                   // magic, format
constexpr size_t kTrailerBytes = 8 + 4 + 4 + 16 + 8;  // index: place, size, raw size, checksum; magic
constexpr size_t kBlockBytes = 256 * 1024;
constexpr uint64_t kRawMax = uint64_t{1} << 30;  // of a block or an index: hostile sizes are refused before memory is asked for

// How a record says its key.
constexpr uint64_t kKeyNull = 0, kKeySame = 1, kKeySizes = 2;

void append_le(std::string& out, uint64_t v, int bytes) {
  for (int k = 0; k < bytes; ++k) out.push_back(static_cast<char>(v >> (8 * k)));
}
uint64_t read_le(std::string_view in, size_t at, int bytes) {
  uint64_t v = 0;
  for (int k = bytes - 1; k >= 0; --k) v = v << 8 | static_cast<unsigned char>(in[at + static_cast<size_t>(k)]);
  return v;
}

uint64_t hash_of(const std::optional<std::string_view>& key) { return key ? xxh3_64(*key) : 0; }

/// Half a SHA-256: enough against forgery of bytes whose whole is signed.
std::string checksum(std::string_view bytes) { return std::string(as_bytes(sha256(bytes)).substr(0, 16)); }

Error corrupt(const std::string& what) { return Error{Errc::kCorrupt, "reading a segment: " + what}; }

}  // namespace

SegmentWriter::SegmentWriter(std::string topic, int32_t partition, Offset first) {
  info_.topic = std::move(topic);
  info_.partition = partition;
  info_.first = info_.next = first;
}

std::string_view SegmentWriter::key_of(const Entry& e) const {
  return e.key_size == kNullKey ? std::string_view() : std::string_view(arena_).substr(e.at, e.key_size);
}

void SegmentWriter::add(const RecordView& record) {
  CHECK(record.offset >= info_.next);
  Entry e{};
  e.key_hash = hash_of(record.key);
  e.key_size = record.key ? static_cast<uint32_t>(record.key->size()) : kNullKey;
  e.at = arena_.size();
  e.offset = record.offset;
  e.timestamp = record.timestamp;
  if (record.key) arena_ += *record.key;
  const size_t body = arena_.size();
  auto number = [&](uint64_t v) {
    for (; v >= 0x80; v >>= 7) arena_.push_back(static_cast<char>(v | 0x80));
    arena_.push_back(static_cast<char>(v));
  };
  auto text = [&](const std::optional<std::string_view>& s) {  // absent is 0, else its size + 1
    number(s ? s->size() + 1 : 0);
    if (s) arena_ += *s;
  };
  text(record.value);
  number(record.headers.size());
  int64_t raw = static_cast<int64_t>(record.key.value_or("").size() + record.value.value_or("").size());
  for (const HeaderView& h : record.headers) {
    number(h.name.size());
    arena_ += h.name;
    text(h.value);
    raw += static_cast<int64_t>(h.name.size() + h.value.value_or("").size());
  }
  e.body_size = static_cast<uint32_t>(arena_.size() - body);
  info_.min_timestamp = entries_.empty() ? e.timestamp : std::min(info_.min_timestamp, e.timestamp);
  info_.max_timestamp = entries_.empty() ? e.timestamp : std::max(info_.max_timestamp, e.timestamp);
  entries_.push_back(e);
  info_.next = record.offset + 1;
  info_.raw_bytes += raw;
  ++info_.records;
}

void SegmentWriter::advance(Offset next) { info_.next = std::max(info_.next, next); }

std::pair<std::string, SegmentInfo> SegmentWriter::finish(int level) {
  // Records of a key lie together: a key's history is a few blocks, and like packs better beside like.
  std::sort(entries_.begin(), entries_.end(), [&](const Entry& a, const Entry& b) {
    if (a.key_hash != b.key_hash) return a.key_hash < b.key_hash;
    if ((a.key_size == kNullKey) != (b.key_size == kNullKey)) return a.key_size == kNullKey;
    if (const int order = key_of(a).compare(key_of(b)); order != 0) return order < 0;
    return a.offset < b.offset;
  });

  std::string file(kMagic);
  append_le(file, kFormat, 4);
  Encoder index;
  index.bytes(info_.topic).u(static_cast<uint64_t>(info_.partition));
  index.i(info_.first.value).i(info_.next.value).u(static_cast<uint64_t>(info_.records)).u(static_cast<uint64_t>(info_.raw_bytes));
  index.i(info_.min_timestamp.value).i(info_.max_timestamp.value);

  Encoder blocks;
  uint64_t block_count = 0;
  std::string raw;
  for (size_t i = 0; i < entries_.size();) {
    raw.clear();
    const size_t begin = i;
    Encoder head;
    int64_t before_offset = info_.first.value, before_timestamp = info_.min_timestamp.value;
    for (; i < entries_.size() && (i == begin || raw.size() < kBlockBytes); ++i) {
      const Entry& e = entries_[i];
      head.clear();
      head.i(e.offset.value - before_offset).i(e.timestamp.value - before_timestamp);
      before_offset = e.offset.value;
      before_timestamp = e.timestamp.value;
      const bool same = i > begin && e.key_size == entries_[i - 1].key_size && key_of(e) == key_of(entries_[i - 1]);
      const bool null = e.key_size == kNullKey;
      head.u(null ? kKeyNull : same ? kKeySame : kKeySizes + e.key_size);
      raw += head.str();
      if (!null && !same) raw += key_of(e);
      raw.append(arena_, e.at + (null ? 0 : e.key_size), e.body_size);
    }
    const std::string frame = streams::zstd(raw, level);
    blocks.u(file.size()).u(frame.size()).u(raw.size()).u(i - begin);
    std::string fixed;
    append_le(fixed, entries_[begin].key_hash, 8);
    append_le(fixed, entries_[i - 1].key_hash, 8);
    fixed += checksum(frame);
    blocks.fixed(fixed.data(), fixed.size());
    ++block_count;
    file += frame;
  }
  index.u(block_count);
  const std::string index_raw = index.take() + blocks.take();
  const std::string frame = streams::zstd(index_raw, level);
  const uint64_t at = file.size();
  file += frame;
  append_le(file, at, 8);
  append_le(file, frame.size(), 4);
  append_le(file, index_raw.size(), 4);
  file += checksum(frame);
  file += kMagic;

  SegmentInfo info = info_;
  info.index_sha256 = to_hex(as_bytes(sha256(frame)));
  info_.first = info_.next;
  info_.records = info_.raw_bytes = 0;
  info_.min_timestamp = info_.max_timestamp = WallTime(0);
  entries_.clear();
  arena_.clear();
  return {std::move(file), std::move(info)};
}

Result<SegmentReader> SegmentReader::open(uint64_t size, ReadAt read) {
  if (size < kHeaderBytes + kTrailerBytes) return corrupt("it has " + std::to_string(size) + " bytes, too few for a segment");
  TRY_ASSIGN(const std::string header, read(0, kHeaderBytes));
  if (!header.starts_with(kMagic)) return corrupt("it does not begin as a segment does");
  if (const uint64_t format = read_le(header, kMagic.size(), 4); format != kFormat)
    return Error{Errc::kRefused,
                 "reading a segment: its format is " + std::to_string(format) + ", this version reads " + std::to_string(kFormat)};
  TRY_ASSIGN(const std::string trailer, read(size - kTrailerBytes, kTrailerBytes));
  if (!trailer.ends_with(kMagic)) return corrupt("it does not end as a segment does");
  const uint64_t at = read_le(trailer, 0, 8), packed = read_le(trailer, 8, 4), raw_size = read_le(trailer, 12, 4);
  if (at < kHeaderBytes || at > size || packed != size - kTrailerBytes - at || raw_size > kRawMax)
    return corrupt("its trailer names no index");
  TRY_ASSIGN(const std::string frame, read(at, packed));
  if (checksum(frame) != std::string_view(trailer).substr(16, 16)) return corrupt("the checksum of its index does not hold");
  std::string index(raw_size, '\0');
  TRY(streams::unzstd(frame, index.data(), index.size()));

  SegmentReader out;
  out.info_.index_sha256 = to_hex(as_bytes(sha256(frame)));
  Decoder in(index);
  out.info_.topic = in.bytes();
  out.info_.partition = static_cast<int32_t>(in.u());
  out.info_.first = Offset(in.i());
  out.info_.next = Offset(in.i());
  out.info_.records = static_cast<int64_t>(in.u());
  out.info_.raw_bytes = static_cast<int64_t>(in.u());
  out.info_.min_timestamp = WallTime(in.i());
  out.info_.max_timestamp = WallTime(in.i());
  const uint64_t count = in.u();
  uint64_t end = kHeaderBytes, records = 0;
  for (uint64_t b = 0; b < count && in.ok(); ++b) {
    Block block;
    block.at = in.u();
    block.size = in.u();
    block.raw_size = in.u();
    block.records = in.u();
    const std::string_view fixed = in.fixed(32);
    if (!in.ok()) break;
    block.first_hash = read_le(fixed, 0, 8);
    block.last_hash = read_le(fixed, 8, 8);
    block.checksum = fixed.substr(16);
    if (block.at != end || block.size > at - end || block.raw_size > kRawMax || block.records > block.raw_size)
      return corrupt("block " + std::to_string(b) + " of its index lies where it cannot");
    end += block.size;
    records += block.records;
    out.blocks_.push_back(block);
  }
  if (!in.ok() || !in.at_end() || end != at || records != static_cast<uint64_t>(out.info_.records) ||
      out.info_.next < out.info_.first || out.info_.next - out.info_.first < out.info_.records)
    return corrupt("its index does not add up");
  out.read_ = std::move(read);
  return out;
}

Result<void> SegmentReader::read_block(const Block& block, std::string_view frame, SegmentRecords& into,
                                       const std::string_view* only) const {
  if (frame.size() != block.size || checksum(frame) != block.checksum)
    return corrupt("the checksum of the block at byte " + std::to_string(block.at) + " does not hold");
  auto bytes = std::make_unique_for_overwrite<char[]>(block.raw_size);
  TRY(streams::unzstd(frame, bytes.get(), block.raw_size));
  Decoder in({bytes.get(), block.raw_size});
  auto text = [&]() -> std::optional<std::string_view> {
    const uint64_t size = in.u();
    return size == 0 ? std::nullopt : std::optional(in.fixed(size - 1));
  };
  int64_t offset = info_.first.value, timestamp = info_.min_timestamp.value;
  std::optional<std::string_view> key;
  for (uint64_t r = 0; r < block.records && in.ok(); ++r) {
    RecordView record;
    offset += in.i();
    timestamp += in.i();
    record.offset = Offset(offset);
    record.timestamp = WallTime(timestamp);
    const uint64_t how = in.u();
    if (how == kKeyNull)
      key.reset();
    else if (how >= kKeySizes)
      key = in.fixed(how - kKeySizes);
    record.key = key;
    record.value = text();
    const uint64_t headers = in.u();
    for (uint64_t h = 0; h < headers && in.ok(); ++h) {
      HeaderView header;
      header.name = in.bytes();
      header.value = text();
      record.headers.push_back(header);
    }
    if (record.offset < info_.first || record.offset >= info_.next) return corrupt("a record lies outside its range");
    if (only == nullptr || (key && *key == *only)) into.records.push_back(std::move(record));
  }
  if (!in.ok() || !in.at_end()) return corrupt("the block at byte " + std::to_string(block.at) + " does not hold its records");
  into.storage.push_back(std::move(bytes));
  return {};
}

Result<SegmentRecords> SegmentReader::all() const {
  SegmentRecords grouped;
  grouped.records.reserve(static_cast<size_t>(info_.records));
  if (!blocks_.empty()) {
    const uint64_t begin = blocks_.front().at, end = blocks_.back().at + blocks_.back().size;
    TRY_ASSIGN(const std::string frames, read_(begin, end - begin));
    for (const Block& block : blocks_)
      TRY(read_block(block, std::string_view(frames).substr(block.at - begin, block.size), grouped, nullptr));
  }
  // Back into the order of the log. Offsets are nearly dense, so each record knows its place.
  std::vector<uint32_t> order(grouped.records.size());
  const auto offset_of = [&](uint32_t r) { return grouped.records[r].offset; };
  if (const int64_t places = info_.next - info_.first; places <= 4 * info_.records + 1024) {
    std::vector<uint32_t> at(static_cast<size_t>(places), UINT32_MAX);
    for (uint32_t r = 0; r < order.size(); ++r) at[static_cast<size_t>(offset_of(r) - info_.first)] = r;
    size_t kept = 0;
    for (uint32_t r : at)
      if (r != UINT32_MAX) order[kept++] = r;
    if (kept != order.size()) return corrupt("an offset is there twice");
  } else {
    for (uint32_t r = 0; r < order.size(); ++r) order[r] = r;
    std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return offset_of(a) < offset_of(b); });
    for (size_t r = 1; r < order.size(); ++r)
      if (offset_of(order[r - 1]) == offset_of(order[r])) return corrupt("an offset is there twice");
  }
  SegmentRecords out;
  out.storage = std::move(grouped.storage);
  out.records.reserve(order.size());
  for (uint32_t r : order) out.records.push_back(std::move(grouped.records[r]));
  return out;
}

Result<SegmentRecords> SegmentReader::of_key(std::string_view key) const {
  const uint64_t hash = xxh3_64(key);
  SegmentRecords out;
  auto block = std::lower_bound(blocks_.begin(), blocks_.end(), hash, [](const Block& b, uint64_t h) { return b.last_hash < h; });
  for (; block != blocks_.end() && block->first_hash <= hash; ++block) {
    TRY_ASSIGN(const std::string frame, read_(block->at, block->size));
    TRY(read_block(*block, frame, out, &key));
  }
  return out;
}

}  // namespace assay::replay
