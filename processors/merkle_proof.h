// Proofs over an RFC 6962 Merkle tree: which subtrees make them, and whether they hold.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "processors/base.h"

namespace assay::processors {

Sha256Digest merkle_leaf(std::string_view entry);
Sha256Digest merkle_node(const Sha256Digest& left, const Sha256Digest& right);

/// Leaves [begin, end), whose subtree's root is one hash of a proof.
struct LeafRange {
  uint64_t begin = 0, end = 0;
  bool operator==(const LeafRange&) const = default;
};

/// The subtrees whose roots prove that leaf `index` is in a tree of `size`, from the leaf up. Source: RFC 6962 §2.1.1.
/// Requires: index < size.  Pure.
std::vector<LeafRange> inclusion_ranges(uint64_t index, uint64_t size);

/// The subtrees whose roots prove that the tree of `old_size` is the beginning of that of `new_size`. Source: RFC 6962 §2.1.2.
/// Requires: 0 < old_size <= new_size.  Pure.
std::vector<LeafRange> consistency_ranges(uint64_t old_size, uint64_t new_size);

/// The root that a path leads to; nothing when the path is not one for that leaf and size. Source: RFC 9162 §2.1.3.2.
std::optional<Sha256Digest> root_of_inclusion(uint64_t index, uint64_t size, const Sha256Digest& leaf,
                                              std::span<const Sha256Digest> path);

/// Whether the path proves that the new tree begins with the old one; an empty old tree begins every tree, by an empty path.
/// Source: RFC 9162 §2.1.4.2.
bool consistency_holds(uint64_t old_size, uint64_t new_size, const Sha256Digest& old_root, const Sha256Digest& new_root,
                       std::span<const Sha256Digest> path);

}  // namespace assay::processors
