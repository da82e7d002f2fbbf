#include "processors/merkle.h"

namespace assay::processors {
namespace {
constexpr std::string_view kLeaf("\0", 1);
constexpr std::string_view kNode("\1", 1);
}  // namespace

void MerkleRoot::add(std::string_view a, std::string_view b) {
  Sha256Digest hash = sha256(kLeaf, a, b);
  ++count_;
  // As many merges as the new count has trailing zero bits: those subtrees are complete now.
  for (uint64_t n = count_; (n & 1) == 0; n >>= 1) {
    hash = sha256(kNode, as_bytes(stack_.back()), as_bytes(hash));
    stack_.pop_back();
  }
  stack_.push_back(hash);
}

Sha256Digest MerkleRoot::root() const {
  if (stack_.empty()) return sha256({});
  Sha256Digest hash = stack_.back();
  for (size_t i = stack_.size() - 1; i-- > 0;) hash = sha256(kNode, as_bytes(stack_[i]), as_bytes(hash));
  return hash;
}

void MerkleRoot::clear() {
  stack_.clear();
  count_ = 0;
}

}  // namespace assay::processors
