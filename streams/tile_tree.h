// The Merkle tree of the chain as tiles: 256 hashes each, written once, and every proof read from a handful of them.
// Source: C2SP tlog-tiles. The entry of row n is the 32 bytes of its hash; its leaf is SHA-256(0x00 ‖ entry).
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "processors/merkle_proof.h"
#include "streams/base.h"

namespace assay::streams {

inline constexpr uint64_t kTileWidth = 256;

/// "tile/0/x001/x234/067", or with a width below 256 "tile/0/x001/x234/067.p/17".
std::string tile_name(int level, uint64_t index, uint64_t width = kTileWidth);
struct TilePlace {
  int level = 0;
  uint64_t index = 0, width = kTileWidth;
  bool operator==(const TilePlace&) const = default;
};
/// The place that a name stands for; nothing when tile_name() gives no such name.
std::optional<TilePlace> parse_tile_name(std::string_view name);
/// Hashes of the tile at (level, index) in a tree of that size; 0: there is no such tile.
uint64_t tile_width(uint64_t size, int level, uint64_t index);

/// Reads a tile's bytes by its name. Errors: kNotFound, and the store's own.
using TileReader = std::function<Result<std::string>(const std::string& name)>;
using TileWriter = std::function<Result<void>(const std::string& name, std::string_view bytes)>;

/// A tree of a certain size, read from its tiles; a few are kept.
class TileTree {
 public:
  /// `grown_to`: the size whose partial tiles are there, when it is not this one.
  TileTree(TileReader read, uint64_t size, uint64_t grown_to = 0)
      : read_(std::move(read)), size_(size), grown_to_(std::max(size, grown_to)) {}

  uint64_t size() const { return size_; }
  /// Errors of all: kIncomplete (a tile is missing), kCorrupt (it is not as long as it must be).
  Result<Sha256Digest> root() { return hash_of({0, size_}); }
  Result<Sha256Digest> leaf(uint64_t index) { return node(0, index); }
  /// Root of the subtree over the leaves. Requires: a range that a proof in this tree asks for, or [0, n).
  Result<Sha256Digest> hash_of(processors::LeafRange range);
  Result<std::vector<Sha256Digest>> hashes_of(std::span<const processors::LeafRange> ranges);

 private:
  Result<Sha256Digest> node(int height, uint64_t index);
  Result<const std::string*> tile(int level, uint64_t index);

  TileReader read_;
  uint64_t size_, grown_to_;
  std::map<std::pair<int, uint64_t>, std::string> tiles_;
};

/// Grows a tree leaf by leaf and hands on each tile when it is full.
class TileBuilder {
 public:
  explicit TileBuilder(TileWriter write) : write_(std::move(write)) {}
  /// Takes up a tree where it was left. Errors: those of the reader.
  static Result<TileBuilder> resume(uint64_t size, const TileReader& read, TileWriter write);

  Result<void> add(const Sha256Digest& leaf);
  uint64_t size() const { return size_; }
  Sha256Digest root() const;
  /// Writes the tiles that are not full: those a checkpoint of this size needs.
  Result<void> write_partial() const;

 private:
  struct Level {
    std::string hashes;  // of the tile that is being filled
    uint64_t index = 0;
  };
  Result<void> add_at(size_t level, const Sha256Digest& hash);

  TileWriter write_;
  std::vector<Level> levels_;
  uint64_t size_ = 0;
};

/// Root of 2^k hashes that stand one after the other. Requires: a power of two of 32-byte hashes.
Sha256Digest merkle_of(std::string_view hashes);

}  // namespace assay::streams
