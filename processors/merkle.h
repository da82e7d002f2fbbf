// RFC 6962 Merkle tree root over leaves that arrive one after the other.
#pragma once

#include <string_view>
#include <vector>

#include "processors/base.h"

namespace assay::processors {

/// Keeps one hash per complete subtree: O(log n) memory whatever the number of leaves. Source: RFC 6962 §2.1.
class MerkleRoot {
 public:
  /// Adds the leaf SHA-256(0x00 ‖ a ‖ b).
  void add(std::string_view a, std::string_view b = {});
  uint64_t count() const { return count_; }
  /// Root over the leaves so far; SHA-256 of nothing when there are none.
  Sha256Digest root() const;
  void clear();

 private:
  std::vector<Sha256Digest> stack_;  // complete subtrees, largest first
  uint64_t count_ = 0;
};

}  // namespace assay::processors
