// The fixed encoding of stored values: LEB128 varints, zigzag for signed numbers, length-prefixed bytes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "schemas/hash.h"
#include "state/base.h"

namespace assay::state {

class Encoder {
 public:
  Encoder& u(uint64_t v) {
    while (v >= 0x80) {
      out_.push_back(static_cast<char>(v | 0x80));
      v >>= 7;
    }
    out_.push_back(static_cast<char>(v));
    return *this;
  }
  Encoder& i(int64_t v) { return u((static_cast<uint64_t>(v) << 1) ^ static_cast<uint64_t>(v >> 63)); }
  Encoder& u128(UInt128 v) {
    while (v >= 0x80) {
      out_.push_back(static_cast<char>(static_cast<uint8_t>(v) | 0x80));
      v >>= 7;
    }
    out_.push_back(static_cast<char>(v));
    return *this;
  }
  Encoder& i128(Int128 v) { return u128((static_cast<UInt128>(v) << 1) ^ static_cast<UInt128>(v >> 127)); }
  Encoder& bytes(std::string_view b) {
    u(b.size());
    out_ += b;
    return *this;
  }
  Encoder& fixed(const void* data, size_t size) {
    out_.append(static_cast<const char*>(data), size);
    return *this;
  }
  const std::string& str() const { return out_; }
  std::string take() { return std::move(out_); }
  void clear() { out_.clear(); }

 private:
  std::string out_;
};

/// Reads what Encoder wrote. After the last read, ok() tells whether every read was inside the bytes; a failed read gives 0.
class Decoder {
 public:
  explicit Decoder(std::string_view in) : in_(in) {}

  uint64_t u() { return static_cast<uint64_t>(varint(64)); }
  int64_t i() {
    uint64_t v = u();
    return static_cast<int64_t>(v >> 1) ^ -static_cast<int64_t>(v & 1);
  }
  UInt128 u128() { return varint(128); }
  Int128 i128() {
    UInt128 v = u128();
    return static_cast<Int128>(v >> 1) ^ -static_cast<Int128>(v & 1);
  }
  std::string_view bytes() { return fixed(u()); }
  std::string_view fixed(uint64_t size) {
    if (size > in_.size()) {
      ok_ = false;
      in_ = {};
      return {};
    }
    std::string_view out = in_.substr(0, size);
    in_.remove_prefix(size);
    return out;
  }
  bool ok() const { return ok_; }
  bool at_end() const { return in_.empty(); }

 private:
  UInt128 varint(int bits) {
    UInt128 v = 0;
    for (int shift = 0; shift < bits; shift += 7) {
      if (in_.empty()) break;
      auto c = static_cast<unsigned char>(in_.front());
      in_.remove_prefix(1);
      v |= static_cast<UInt128>(c & 0x7f) << shift;
      if (c < 0x80) return v;
    }
    ok_ = false;
    in_ = {};
    return 0;
  }

  std::string_view in_;
  bool ok_ = true;
};

/// Eight bytes, big-endian: keys of non-negative numbers sort as the numbers do.
inline void append_be64(std::string& out, int64_t v) {
  for (int shift = 56; shift >= 0; shift -= 8) out.push_back(static_cast<char>(static_cast<uint64_t>(v) >> shift));
}
/// Requires: at least eight bytes.
inline int64_t read_be64(std::string_view in) {
  uint64_t v = 0;
  for (int k = 0; k < 8; ++k) v = v << 8 | static_cast<unsigned char>(in[static_cast<size_t>(k)]);
  return static_cast<int64_t>(v);
}

}  // namespace assay::state
