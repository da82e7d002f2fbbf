// Proofs over the Merkle tree against the recursion of RFC 6962 and its published roots, and what is no proof refused.
#include "processors/merkle_proof.h"

#include <gtest/gtest.h>

#include <map>

#include "processors/merkle.h"
#include "streams/tile_tree.h"

namespace assay::streams {
namespace {

using namespace processors;

Sha256Digest leaf_of(uint64_t n) { return merkle_leaf("leaf " + std::to_string(n)); }

Sha256Digest naive(uint64_t begin, uint64_t end) {
  if (begin == end) return sha256("");
  if (end - begin == 1) return leaf_of(begin);
  uint64_t k = 1;
  while (k * 2 < end - begin) k *= 2;
  return merkle_node(naive(begin, begin + k), naive(begin + k, end));
}

std::vector<Sha256Digest> hashes(const std::vector<LeafRange>& ranges) {
  std::vector<Sha256Digest> out;
  for (const LeafRange& range : ranges) out.push_back(naive(range.begin, range.end));
  return out;
}

TEST(MerkleProof, ThePublishedRoots) {
  // Source: the reference tests of Certificate Transparency: eight leaves, and the roots of the first n.
  MerkleRoot root;
  const char* roots[] = {"6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
                         "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
                         "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
                         "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
                         "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
                         "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
                         "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
                         "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"};
  const char* leaves[] = {"", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f"};
  for (int i = 0; i < 8; ++i) {
    root.add(from_hex(leaves[i]).value());
    EXPECT_EQ(to_hex(as_bytes(root.root())), roots[i]) << i;
  }
}

TEST(MerkleProof, EveryLeafOfEveryTreeIsProvenAndNothingElse) {
  for (uint64_t size = 1; size <= 40; ++size)
    for (uint64_t index = 0; index < size; ++index) {
      std::vector<Sha256Digest> path = hashes(inclusion_ranges(index, size));
      const Sha256Digest root = naive(0, size);
      ASSERT_EQ(root_of_inclusion(index, size, leaf_of(index), path), root) << index << " of " << size;
      ASSERT_NE(root_of_inclusion(index, size, leaf_of(index + 1), path), root);
      ASSERT_NE(root_of_inclusion((index + 1) % size, size, leaf_of(index), path), size == 1 ? std::nullopt : std::optional(root));
      for (Sha256Digest& hash : path) {
        hash[7] ^= 4;
        ASSERT_NE(root_of_inclusion(index, size, leaf_of(index), path), root);
        hash[7] ^= 4;
      }
      path.push_back(root);
      ASSERT_NE(root_of_inclusion(index, size, leaf_of(index), path), root) << "too long";
    }
  EXPECT_FALSE(root_of_inclusion(3, 3, leaf_of(3), {}));
}

TEST(MerkleProof, EveryBeginningIsProvenAndNothingElse) {
  for (uint64_t size = 1; size <= 40; ++size)
    for (uint64_t old_size = 1; old_size <= size; ++old_size) {
      std::vector<Sha256Digest> path = hashes(consistency_ranges(old_size, size));
      const Sha256Digest old_root = naive(0, old_size), root = naive(0, size);
      ASSERT_TRUE(consistency_holds(old_size, size, old_root, root, path)) << old_size << " of " << size;
      ASSERT_FALSE(consistency_holds(old_size, size, sha256("other"), root, path));
      ASSERT_FALSE(consistency_holds(old_size, size, old_root, sha256("other"), path));
      for (Sha256Digest& hash : path) {
        hash[31] ^= 1;
        ASSERT_FALSE(consistency_holds(old_size, size, old_root, root, path));
        hash[31] ^= 1;
      }
      path.push_back(root);
      ASSERT_FALSE(consistency_holds(old_size, size, old_root, root, path)) << "too long";
      path.pop_back();
      if (path.empty()) continue;
      path.pop_back();
      ASSERT_FALSE(consistency_holds(old_size, size, old_root, root, path)) << "too short";
    }
  EXPECT_TRUE(consistency_holds(0, 9, sha256(""), naive(0, 9), {}));
  EXPECT_FALSE(consistency_holds(9, 8, naive(0, 9), naive(0, 8), {}));
}

TEST(TileTree, NamesAreThoseOfTheSpecification) {
  EXPECT_EQ(tile_name(0, 1234067), "tile/0/x001/x234/067");
  EXPECT_EQ(tile_name(2, 5, 17), "tile/2/005.p/17");
  EXPECT_EQ(tile_name(0, 1000), "tile/0/x001/000");
  for (uint64_t index : {0ull, 7ull, 999ull, 1000ull, 1234067ull, 999999999ull}) {
    EXPECT_EQ(parse_tile_name(tile_name(3, index)), (TilePlace{3, index, 256}));
    EXPECT_EQ(parse_tile_name(tile_name(0, index, 255)), (TilePlace{0, index, 255}));
  }
  for (const char* bad : {"", "tile/", "tile/0", "tile/0/", "tile/00/000", "tile/8/000", "tile/0/1", "tile/0/x001",
                          "tile/0/001/002", "tile/0/x000/001", "tile/0/000.p/0", "tile/0/000.p/256", "tile/0/000.p/01",
                          "tile/0/000.p/", "tile/-1/000", "tile/0/000/", "tile/0/000x"})
    EXPECT_FALSE(parse_tile_name(bad)) << bad;
  // The example of the specification: a tree of 70,000.
  EXPECT_EQ(tile_width(70000, 0, 272), 256u);
  EXPECT_EQ(tile_width(70000, 0, 273), 112u);
  EXPECT_EQ(tile_width(70000, 1, 0), 256u);
  EXPECT_EQ(tile_width(70000, 1, 1), 17u);
  EXPECT_EQ(tile_width(70000, 2, 0), 1u);
  EXPECT_EQ(tile_width(70000, 3, 0), 0u);
  EXPECT_EQ(tile_width(256, 1, 0), 1u);
}

class Tiles : public ::testing::Test {
 protected:
  TileReader reader() {
    return [this](const std::string& name) -> Result<std::string> {
      auto it = files_.find(name);
      if (it == files_.end()) return Error{Errc::kNotFound, "there is none"};
      return it->second;
    };
  }
  TileWriter writer() {
    return [this](const std::string& name, std::string_view bytes) -> Result<void> {
      files_[name] = bytes;
      return {};
    };
  }
  std::map<std::string, std::string> files_;
};

TEST_F(Tiles, AnyCutGivesTheSameTreeAndEveryProof) {
  MerkleRoot expected;
  TileBuilder builder(writer());
  const std::vector<uint64_t> cuts = {1, 255, 256, 257, 511, 512, 700, 65535, 65536, 65537, 66000};
  std::map<uint64_t, Sha256Digest> roots;
  for (uint64_t n = 0, cut = 0; cut < cuts.size(); ++n) {
    expected.add("leaf " + std::to_string(n));
    ASSERT_TRUE(builder.add(leaf_of(n)));
    if (n + 1 != cuts[cut]) continue;
    ++cut;
    ASSERT_EQ(builder.root(), expected.root()) << n;
    roots[n + 1] = expected.root();
    ASSERT_TRUE(builder.write_partial());
    builder = TileBuilder::resume(n + 1, reader(), writer()).value();
    ASSERT_EQ(builder.root(), expected.root()) << "taken up again at " << n + 1;
  }
  for (uint64_t size : cuts) {
    TileTree tree(reader(), size);
    ASSERT_EQ(tree.root().value(), roots[size]);
    for (uint64_t index : {uint64_t{0}, size / 3, size / 2, size - 1}) {
      const auto path = tree.hashes_of(inclusion_ranges(index, size)).value();
      EXPECT_EQ(root_of_inclusion(index, size, leaf_of(index), path), roots[size]) << index << " of " << size;
    }
    for (uint64_t old_size : cuts) {
      if (old_size > size) break;
      const auto path = tree.hashes_of(consistency_ranges(old_size, size)).value();
      EXPECT_TRUE(consistency_holds(old_size, size, roots[old_size], roots[size], path)) << old_size << " of " << size;
    }
  }
  // The partial tiles of older sizes may go.
  std::erase_if(files_, [](const auto& file) {
    auto place = parse_tile_name(file.first);
    return place->width != 256 && tile_width(66000, place->level, place->index) != place->width;
  });
  for (uint64_t size : cuts) EXPECT_EQ(TileTree(reader(), size, 66000).root().value(), roots[size]) << size;
  files_.erase("tile/0/000");
  EXPECT_EQ(TileTree(reader(), 66000).hash_of({0, 1}).error().code, Errc::kIncomplete);
  files_["tile/0/001"].pop_back();
  EXPECT_EQ(TileTree(reader(), 66000).leaf(300).error().code, Errc::kCorrupt);
}

}  // namespace
}  // namespace assay::streams
