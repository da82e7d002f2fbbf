// State digest: an order-independent multiset hash over the logical entries of a store.
#pragma once

#include <string>
#include <string_view>

#include "schemas/hash.h"
#include "state/base.h"

namespace assay::state {

/// Sum modulo 2^128 of XXH3-128 of each entry: adding and removing one entry is one operation whatever the size of the store.
/// It shows faults (a lost, doubled or changed entry), not forgeries: those are the audit chain's.
class Digest {
 public:
  Digest() = default;
  explicit Digest(UInt128 sum) : sum_(sum) {}

  void add(std::string_view entry) { sum_ += xxh3_128(entry); }
  void remove(std::string_view entry) { sum_ -= xxh3_128(entry); }
  Digest& operator+=(Digest other) {
    sum_ += other.sum_;
    return *this;
  }
  Digest& operator-=(Digest other) {
    sum_ -= other.sum_;
    return *this;
  }
  bool operator==(const Digest&) const = default;

  std::string hex() const;  // 32 digits
  static Result<Digest> parse(std::string_view hex32);

  /// Digest of a row that is one logical entry.
  static Digest of_row(std::string_view key, std::string_view value);

 private:
  UInt128 sum_ = 0;
};

}  // namespace assay::state
