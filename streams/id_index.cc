#include "streams/id_index.h"

#include <algorithm>
#include <charconv>
#include <cstdio>

#include "schemas/hash.h"
#include "streams/archive_files.h"

namespace assay::streams {
namespace {

constexpr int kPlaceBits = 16;
constexpr size_t kEntryBytes = 8;
static_assert(kIdSegmentRows == uint64_t{1} << kPlaceBits);

uint64_t key_of(std::string_view event_id) { return schemas::xxh3_64(event_id) >> kPlaceBits; }

uint64_t entry_at(std::string_view bytes, uint64_t i) {
  uint64_t value = 0;
  for (char c : bytes.substr(i * kEntryBytes, kEntryBytes)) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

}  // namespace

std::string id_segment_name(uint64_t size, uint64_t sequence) {
  CHECK(sequence >= 1 && sequence <= size);
  const uint64_t first = (sequence - 1) / kIdSegmentRows * kIdSegmentRows + 1;
  char text[64];
  std::snprintf(text, sizeof text, "ids/%012llu-%012llu", static_cast<unsigned long long>(first),
                static_cast<unsigned long long>(std::min(size, first + kIdSegmentRows - 1)));
  return text;
}

std::optional<IdSegment> parse_id_segment_name(std::string_view name) {
  constexpr std::string_view kFolder = "ids/";
  if (!name.starts_with(kFolder)) return std::nullopt;
  const std::string_view digits = name.substr(kFolder.size());
  IdSegment out;
  auto [dash, error] = std::from_chars(digits.data(), digits.data() + digits.size(), out.first);
  const char* end = digits.data() + digits.size();
  if (error != std::errc() || dash == end || *dash != '-') return std::nullopt;
  auto [stop, other] = std::from_chars(dash + 1, end, out.last);
  if (other != std::errc() || stop != end || out.first < 1 || out.last < out.first) return std::nullopt;
  if (id_segment_name(out.last, out.first) != name) return std::nullopt;
  return out;
}

Result<IdIndexBuilder> IdIndexBuilder::resume(uint64_t size, const TileReader& read, TileWriter write) {
  IdIndexBuilder builder(std::move(write));
  builder.full_rows_ = size / kIdSegmentRows * kIdSegmentRows;
  if (builder.full_rows_ == size) return builder;
  const std::string name = id_segment_name(size, size);
  TRY_ASSIGN(const std::string bytes, read(name));
  std::vector<bool> placed(size - builder.full_rows_);
  for (uint64_t i = 0; i < bytes.size() / kEntryBytes; ++i) {
    const uint64_t entry = entry_at(bytes, i), place = entry % kIdSegmentRows;
    if (place < placed.size()) placed[place] = true;
    builder.segment_.push_back(entry);
  }
  if (bytes.size() != placed.size() * kEntryBytes || std::ranges::count(placed, true) != std::ssize(placed))
    return Error{Errc::kCorrupt, "reading " + name + ": it is not an entry for each of its rows"};
  return builder;
}

Result<void> IdIndexBuilder::add(std::string_view event_id) {
  segment_.push_back(key_of(event_id) << kPlaceBits | segment_.size());
  if (segment_.size() < kIdSegmentRows) return {};
  TRY(write_segment());
  full_rows_ += segment_.size();
  segment_.clear();
  return {};
}

Result<void> IdIndexBuilder::write_partial() const { return segment_.empty() ? Result<void>() : write_segment(); }

Result<void> IdIndexBuilder::write_segment() const {
  std::vector<uint64_t> sorted = segment_;
  std::ranges::sort(sorted);
  std::string bytes;
  bytes.reserve(sorted.size() * kEntryBytes);
  for (uint64_t entry : sorted)
    for (int shift = 56; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(entry >> shift));
  return write_(id_segment_name(size(), size()), bytes);
}

std::vector<int64_t> find_in_id_index(const std::string& dir, std::string_view event_id) {
  std::vector<int64_t> found;
  Result<std::vector<std::string>> names = list_files(dir + "/ids");
  if (!names) return found;
  const uint64_t key = key_of(event_id);
  for (const std::string& name : *names) {
    const std::optional<IdSegment> segment = parse_id_segment_name("ids/" + name);
    Result<MappedFile> file = segment ? MappedFile::open(dir + "/ids/" + name) : Error{};
    if (!file || file->bytes().size() != segment->rows() * kEntryBytes) continue;
    uint64_t low = 0, high = segment->rows();
    while (low < high) {
      const uint64_t middle = low + (high - low) / 2;
      if (entry_at(file->bytes(), middle) >> kPlaceBits < key)
        low = middle + 1;
      else
        high = middle;
    }
    for (; low < segment->rows() && entry_at(file->bytes(), low) >> kPlaceBits == key; ++low)
      found.push_back(static_cast<int64_t>(segment->first + entry_at(file->bytes(), low) % kIdSegmentRows));
  }
  std::ranges::sort(found);
  found.erase(std::unique(found.begin(), found.end()), found.end());
  return found;
}

}  // namespace assay::streams
