// The running root against the recursion of RFC 6962 itself.
#include "processors/merkle.h"

#include <gtest/gtest.h>

#include <random>

namespace assay::processors {
namespace {

std::string_view text(const Sha256Digest& d) { return {reinterpret_cast<const char*>(d.data()), d.size()}; }

Sha256Digest naive(const std::vector<std::string>& leaves, size_t from, size_t to) {
  if (from == to) return sha256("");
  if (to - from == 1) return sha256(std::string_view("\0", 1), leaves[from]);
  size_t k = 1;
  while (k * 2 < to - from) k *= 2;
  const Sha256Digest left = naive(leaves, from, from + k), right = naive(leaves, from + k, to);
  return sha256(std::string_view("\1", 1), text(left), text(right));
}

TEST(Merkle, EqualsTheRecursionAtEveryCount) {
  std::mt19937_64 random(3);
  MerkleRoot root;
  std::vector<std::string> leaves;
  for (int n = 0; n <= 130; ++n) {
    ASSERT_EQ(root.count(), leaves.size());
    ASSERT_EQ(root.root(), naive(leaves, 0, leaves.size())) << n;
    std::string leaf(random() % 70, 'a');
    for (char& c : leaf) c = static_cast<char>(random());
    const size_t cut = leaf.empty() ? 0 : random() % leaf.size();
    root.add(std::string_view(leaf).substr(0, cut), std::string_view(leaf).substr(cut));
    leaves.push_back(std::move(leaf));
  }
  root.clear();
  EXPECT_EQ(root.root(), sha256(""));
  root.add("x");
  EXPECT_EQ(root.root(), sha256(std::string_view("\0", 1), "x"));
}

}  // namespace
}  // namespace assay::processors
