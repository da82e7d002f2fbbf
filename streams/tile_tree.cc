#include "streams/tile_tree.h"

#include <algorithm>
#include <bit>
#include <charconv>
#include <cstring>

namespace assay::streams {
namespace {

using processors::LeafRange;
using processors::merkle_node;

constexpr size_t kHashBytes = 32;
constexpr int kTileHeight = 8;
constexpr int kLevelMax = 7;  // 2^64 leaves have no more
constexpr size_t kTilesKept = 64;

Sha256Digest digest_at(std::string_view hashes, uint64_t i) {
  Sha256Digest out;
  std::memcpy(out.data(), hashes.data() + i * kHashBytes, kHashBytes);
  return out;
}

/// Hashes on a level of tiles in a tree of that size.
uint64_t level_width(uint64_t size, int level) { return level > kLevelMax ? 0 : size >> (kTileHeight * level); }

}  // namespace

std::string tile_name(int level, uint64_t index, uint64_t width) {
  std::string digits = std::to_string(index);
  digits.insert(0, (3 - digits.size() % 3) % 3, '0');
  std::string out = "tile/" + std::to_string(level);
  for (size_t at = 0; at < digits.size(); at += 3) out += (at + 3 < digits.size() ? "/x" : "/") + digits.substr(at, 3);
  if (width != kTileWidth) out += ".p/" + std::to_string(width);
  return out;
}

std::optional<TilePlace> parse_tile_name(std::string_view name) {
  const std::string_view whole = name;
  auto number = [](std::string_view text) -> std::optional<uint64_t> {
    uint64_t value = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
  };
  if (!name.starts_with("tile/")) return std::nullopt;
  name.remove_prefix(5);
  TilePlace place;
  const std::optional<uint64_t> level = number(name.substr(0, name.find('/')));
  if (!level || *level > kLevelMax || name.find('/') == name.npos) return std::nullopt;
  place.level = static_cast<int>(*level);
  name.remove_prefix(name.find('/') + 1);
  if (const size_t partial = name.find(".p/"); partial != name.npos) {
    const std::optional<uint64_t> width = number(name.substr(partial + 3));
    if (!width) return std::nullopt;
    place.width = *width;
    name = name.substr(0, partial);
  }
  std::string digits;
  for (char c : name)
    if (c != '/' && c != 'x') digits.push_back(c);
  const std::optional<uint64_t> index = number(digits);
  if (!index) return std::nullopt;
  place.index = *index;
  if (place.width == 0 || place.width > kTileWidth || tile_name(place.level, place.index, place.width) != whole)
    return std::nullopt;
  return place;
}

uint64_t tile_width(uint64_t size, int level, uint64_t index) {
  const uint64_t hashes = level_width(size, level);
  if (index > hashes / kTileWidth) return 0;
  return std::min(kTileWidth, hashes - index * kTileWidth);
}

Sha256Digest merkle_of(std::string_view hashes) {
  const uint64_t count = hashes.size() / kHashBytes;
  CHECK(std::has_single_bit(count) && hashes.size() % kHashBytes == 0);
  if (count == 1) return digest_at(hashes, 0);
  std::vector<Sha256Digest> row;
  for (uint64_t i = 0; i < count; i += 2) row.push_back(merkle_node(digest_at(hashes, i), digest_at(hashes, i + 1)));
  while (row.size() > 1) {
    for (size_t i = 0; i < row.size() / 2; ++i) row[i] = merkle_node(row[2 * i], row[2 * i + 1]);
    row.resize(row.size() / 2);
  }
  return row.front();
}

Result<const std::string*> TileTree::tile(int level, uint64_t index) {
  if (auto known = tiles_.find({level, index}); known != tiles_.end()) return &known->second;
  const uint64_t width = tile_width(size_, level, index);
  CHECK(width > 0);
  const std::string name = tile_name(level, index, width);
  Result<std::string> bytes = read_(name);
  // A partial tile may be gone since a wider one is there, of which it is the beginning.
  for (uint64_t wider : {kTileWidth, tile_width(grown_to_, level, index)}) {
    if (bytes || bytes.error().code != Errc::kNotFound || wider <= width) continue;
    bytes = read_(tile_name(level, index, wider));
    if (bytes && bytes->size() == wider * kHashBytes) bytes->resize(width * kHashBytes);
  }
  if (!bytes)
    return Error{bytes.error().code == Errc::kNotFound ? Errc::kIncomplete : bytes.error().code,
                 "reading " + name + ": " + bytes.error().message};
  if (bytes->size() != width * kHashBytes)
    return Error{Errc::kCorrupt, "reading " + name + ": it has " + std::to_string(bytes->size()) + " bytes instead of " +
                                     std::to_string(width * kHashBytes)};
  if (tiles_.size() >= kTilesKept) tiles_.clear();
  return &(tiles_[{level, index}] = std::move(*bytes));
}

/// The root of the complete subtree of that height, the index-th on its level.
Result<Sha256Digest> TileTree::node(int height, uint64_t index) {
  const int level = height / kTileHeight, above = height % kTileHeight;
  const uint64_t first = index << above;  // among the hashes of the level
  TRY_ASSIGN(const std::string* hashes, tile(level, first / kTileWidth));
  return merkle_of(std::string_view(*hashes).substr(first % kTileWidth * kHashBytes, kHashBytes << above));
}

Result<Sha256Digest> TileTree::hash_of(LeafRange range) {
  const uint64_t count = range.end - range.begin;
  if (count == 0) return sha256({});
  CHECK(range.end <= size_);
  if (std::has_single_bit(count) && range.begin % count == 0) {
    const int height = std::countr_zero(count);
    return node(height, range.begin >> height);
  }
  const uint64_t middle = range.begin + std::bit_floor(count - 1);
  TRY_ASSIGN(Sha256Digest left, hash_of({range.begin, middle}));
  TRY_ASSIGN(Sha256Digest right, hash_of({middle, range.end}));
  return merkle_node(left, right);
}

Result<std::vector<Sha256Digest>> TileTree::hashes_of(std::span<const LeafRange> ranges) {
  std::vector<Sha256Digest> out;
  for (const LeafRange& range : ranges) {
    TRY_ASSIGN(Sha256Digest hash, hash_of(range));
    out.push_back(hash);
  }
  return out;
}

Result<TileBuilder> TileBuilder::resume(uint64_t size, const TileReader& read, TileWriter write) {
  TileBuilder builder(std::move(write));
  builder.size_ = size;
  for (int level = 0; level_width(size, level) > 0; ++level) {
    Level& part = builder.levels_.emplace_back();
    part.index = level_width(size, level) / kTileWidth;
    const uint64_t width = tile_width(size, level, part.index);
    if (width == 0) continue;
    TRY_ASSIGN(part.hashes, read(tile_name(level, part.index, width)));
    if (part.hashes.size() != width * kHashBytes)
      return Error{Errc::kCorrupt,
                   "reading " + tile_name(level, part.index, width) + ": it has " + std::to_string(part.hashes.size()) + " bytes"};
  }
  return builder;
}

Result<void> TileBuilder::add(const Sha256Digest& leaf) {
  TRY(add_at(0, leaf));
  ++size_;
  return {};
}

Result<void> TileBuilder::add_at(size_t level, const Sha256Digest& hash) {
  if (levels_.size() == level) levels_.emplace_back();
  Level& part = levels_[level];
  part.hashes += as_bytes(hash);
  if (part.hashes.size() < kTileWidth * kHashBytes) return {};
  TRY(write_(tile_name(static_cast<int>(level), part.index), part.hashes));
  const Sha256Digest root = merkle_of(part.hashes);
  part.hashes.clear();
  ++part.index;
  return add_at(level + 1, root);
}

Sha256Digest TileBuilder::root() const {
  // From the smallest subtrees on the right to the greatest on the left.
  std::optional<Sha256Digest> root;
  for (const Level& part : levels_) {
    uint64_t left = part.hashes.size() / kHashBytes;
    while (left > 0) {
      const uint64_t complete = uint64_t{1} << std::countr_zero(left);
      const Sha256Digest hash =
          merkle_of(std::string_view(part.hashes).substr((left - complete) * kHashBytes, complete * kHashBytes));
      root = root ? merkle_node(hash, *root) : hash;
      left -= complete;
    }
  }
  return root ? *root : sha256({});
}

Result<void> TileBuilder::write_partial() const {
  for (size_t level = 0; level < levels_.size(); ++level)
    if (const Level& part = levels_[level]; !part.hashes.empty())
      TRY(write_(tile_name(static_cast<int>(level), part.index, part.hashes.size() / kHashBytes), part.hashes));
  return {};
}

}  // namespace assay::streams
