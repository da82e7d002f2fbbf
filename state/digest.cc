#include "state/digest.h"

namespace assay::state {

std::string Digest::hex() const {
  std::string bytes;
  for (int shift = 120; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(sum_ >> shift));
  return to_hex(bytes);
}

Result<Digest> Digest::parse(std::string_view hex32) {
  TRY_ASSIGN(std::string bytes, from_hex(hex32));
  if (bytes.size() != 16) return Error{Errc::kCorrupt, "a state digest has 32 hex digits"};
  UInt128 sum = 0;
  for (unsigned char c : bytes) sum = sum << 8 | c;
  return Digest(sum);
}

Digest Digest::of_row(std::string_view key, std::string_view value) {
  std::string entry = std::to_string(key.size());  // the length keeps "ab"+"c" and "a"+"bc" apart
  entry.push_back(':');
  entry += key;
  entry += value;
  Digest digest;
  digest.add(entry);
  return digest;
}

}  // namespace assay::state
