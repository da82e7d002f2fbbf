#include "processors/merkle_proof.h"

#include <bit>

namespace assay::processors {
namespace {

/// The largest power of two below n. Requires: n > 1.
uint64_t split(uint64_t n) { return std::bit_floor(n - 1); }

void inclusion(uint64_t index, LeafRange tree, std::vector<LeafRange>& out) {
  if (tree.end - tree.begin == 1) return;
  const uint64_t middle = tree.begin + split(tree.end - tree.begin);
  const LeafRange left{tree.begin, middle}, right{middle, tree.end};
  inclusion(index, index < middle ? left : right, out);
  out.push_back(index < middle ? right : left);
}

void consistency(uint64_t old_end, LeafRange tree, bool whole, std::vector<LeafRange>& out) {
  if (old_end == tree.end) {
    if (!whole) out.push_back(tree);
    return;
  }
  const uint64_t middle = tree.begin + split(tree.end - tree.begin);
  const LeafRange left{tree.begin, middle}, right{middle, tree.end};
  if (old_end <= middle) {
    consistency(old_end, left, whole, out);
    out.push_back(right);
  } else {
    consistency(old_end, right, false, out);
    out.push_back(left);
  }
}

}  // namespace

Sha256Digest merkle_leaf(std::string_view entry) { return sha256(std::string_view("\0", 1), entry); }

Sha256Digest merkle_node(const Sha256Digest& left, const Sha256Digest& right) {
  return sha256(std::string_view("\1", 1), as_bytes(left), as_bytes(right));
}

std::vector<LeafRange> inclusion_ranges(uint64_t index, uint64_t size) {
  CHECK(index < size);
  std::vector<LeafRange> out;
  inclusion(index, {0, size}, out);
  return out;
}

std::vector<LeafRange> consistency_ranges(uint64_t old_size, uint64_t new_size) {
  CHECK(old_size > 0 && old_size <= new_size);
  std::vector<LeafRange> out;
  consistency(old_size, {0, new_size}, true, out);
  return out;
}

std::optional<Sha256Digest> root_of_inclusion(uint64_t index, uint64_t size, const Sha256Digest& leaf,
                                              std::span<const Sha256Digest> path) {
  if (index >= size) return std::nullopt;
  uint64_t node = index, last = size - 1;
  Sha256Digest root = leaf;
  for (const Sha256Digest& sibling : path) {
    if (last == 0) return std::nullopt;
    if ((node & 1) != 0 || node == last) {
      root = merkle_node(sibling, root);
      // The last node of a level that has no sibling goes up as it is.
      while ((node & 1) == 0 && node != 0) node >>= 1, last >>= 1;
    } else {
      root = merkle_node(root, sibling);
    }
    node >>= 1;
    last >>= 1;
  }
  if (last != 0) return std::nullopt;
  return root;
}

bool consistency_holds(uint64_t old_size, uint64_t new_size, const Sha256Digest& old_root, const Sha256Digest& new_root,
                       std::span<const Sha256Digest> path) {
  if (old_size > new_size) return false;
  if (old_size == new_size) return path.empty() && old_root == new_root;
  if (old_size == 0) return path.empty();
  uint64_t node = old_size - 1, last = new_size - 1;
  while ((node & 1) != 0) node >>= 1, last >>= 1;
  // A complete old tree is itself the first hash.
  if (!std::has_single_bit(old_size)) {
    if (path.empty()) return false;
  }
  Sha256Digest from_old = std::has_single_bit(old_size) ? old_root : path.front();
  if (!std::has_single_bit(old_size)) path = path.subspan(1);
  Sha256Digest from_new = from_old;
  for (const Sha256Digest& sibling : path) {
    if (last == 0) return false;
    if ((node & 1) != 0 || node == last) {
      from_old = merkle_node(sibling, from_old);
      from_new = merkle_node(sibling, from_new);
      while ((node & 1) == 0 && node != 0) node >>= 1, last >>= 1;
    } else {
      from_new = merkle_node(from_new, sibling);
    }
    node >>= 1;
    last >>= 1;
  }
  return last == 0 && from_old == old_root && from_new == new_root;
}

}  // namespace assay::processors
