// Hashes: XXH3-128 where a fault must be seen, SHA-256 where a forgery must be.
#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>

#include "schemas/result.h"
#include "schemas/types.h"

namespace assay::schemas {

__extension__ using Int128 = __int128;
__extension__ using UInt128 = unsigned __int128;

UInt128 xxh3_128(std::string_view bytes, uint64_t seed = 0);
uint64_t xxh3_64(std::string_view bytes, uint64_t seed = 0);

using Sha256Digest = std::array<uint8_t, 32>;

/// SHA-256 of the parts, one after the other.
Sha256Digest sha256(std::string_view a, std::string_view b = {}, std::string_view c = {});

/// SHA-256 of a text that comes in parts.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;
  void add(std::string_view part);
  /// Ends the text; what is added afterwards begins a new one.
  Sha256Digest done();

 private:
  void* context_;
};

inline std::string_view as_bytes(const Sha256Digest& d) { return {reinterpret_cast<const char*>(d.data()), d.size()}; }

std::string to_hex(std::string_view bytes);              // lower case
Result<std::string> from_hex(std::string_view text);     // lower case only; Errors: kCorrupt
std::string to_base64(std::string_view bytes);           // standard alphabet, padded
Result<std::string> from_base64(std::string_view text);  // canonical only: from(x) succeeds iff to(from(x)) == x

/// 128-bit identity of a record: derived from its cause, never drawn.
struct Id {
  std::array<uint8_t, 16> bytes{};
  auto operator<=>(const Id&) const = default;
  std::string hex() const;
  static Result<Id> parse(std::string_view hex32);
};

/// Id of a record from outside: the first 16 bytes of SHA-256(topic NUL partition NUL offset). `topic` without prefix.
Id place_id(std::string_view topic, int32_t partition, Offset offset);

/// Id of a record made inside: the first 16 bytes of SHA-256(cause NUL processor NUL ordinal).
Id derived_id(const Id& cause, std::string_view processor, uint64_t ordinal);

}  // namespace assay::schemas
