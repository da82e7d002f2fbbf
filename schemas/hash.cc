#include "schemas/hash.h"

#define OPENSSL_SUPPRESS_DEPRECATED  // SHA256_*: see below
#include <openssl/evp.h>
#include <openssl/sha.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <cstring>

namespace assay::schemas {

int exit_code(Errc code) {
  switch (code) {
    case Errc::kUsage:
      return 2;
    case Errc::kUnhealthy:
      return 3;
    case Errc::kTampered:
    case Errc::kCorrupt:
      return 4;
    case Errc::kRefused:
    case Errc::kFenced:
      return 5;
    case Errc::kUnreachable:
      return 6;
    case Errc::kParity:
      return 7;
    case Errc::kIncomplete:
    case Errc::kOutOfRange:
      return 8;
    default:
      return 1;
  }
}

UInt128 xxh3_128(std::string_view bytes, uint64_t seed) {
  XXH128_hash_t h = XXH3_128bits_withSeed(bytes.data(), bytes.size(), seed);
  return (static_cast<UInt128>(h.high64) << 64) | h.low64;
}

uint64_t xxh3_64(std::string_view bytes, uint64_t seed) { return XXH3_64bits_withSeed(bytes.data(), bytes.size(), seed); }

// OpenSSL's own hash functions, without the layer that chooses among implementations: for a short record that layer costs as much
// as the hash, and it chooses these.
namespace {
SHA256_CTX& state_of(void* context) { return *static_cast<SHA256_CTX*>(context); }

void add_part(SHA256_CTX& state, std::string_view part) {
  if (!part.empty()) CHECK(SHA256_Update(&state, part.data(), part.size()) == 1);
}
}  // namespace

Sha256::Sha256() : context_(new SHA256_CTX) { CHECK(SHA256_Init(&state_of(context_)) == 1); }
Sha256::~Sha256() { delete &state_of(context_); }

void Sha256::add(std::string_view part) { add_part(state_of(context_), part); }

Sha256Digest Sha256::done() {
  Sha256Digest out;
  CHECK(SHA256_Final(out.data(), &state_of(context_)) == 1);
  CHECK(SHA256_Init(&state_of(context_)) == 1);
  return out;
}

Sha256Digest sha256(std::string_view a, std::string_view b, std::string_view c) {
  SHA256_CTX state;
  CHECK(SHA256_Init(&state) == 1);
  for (std::string_view part : {a, b, c}) add_part(state, part);
  Sha256Digest out;
  CHECK(SHA256_Final(out.data(), &state) == 1);
  return out;
}

std::string to_hex(std::string_view bytes) {
  static constexpr char kDigits[] = "0123456789abcdef";
  std::string out;
  out.reserve(bytes.size() * 2);
  for (unsigned char c : bytes) {
    out.push_back(kDigits[c >> 4]);
    out.push_back(kDigits[c & 15]);
  }
  return out;
}

Result<std::string> from_hex(std::string_view text) {
  auto nibble = [](char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1; };
  if (text.size() % 2 != 0) return Error{Errc::kCorrupt, "hex text has an odd length"};
  std::string out;
  out.reserve(text.size() / 2);
  for (size_t i = 0; i < text.size(); i += 2) {
    int high = nibble(text[i]), low = nibble(text[i + 1]);
    if (high < 0 || low < 0) return Error{Errc::kCorrupt, "not lower-case hex"};
    out.push_back(static_cast<char>(high << 4 | low));
  }
  return out;
}

std::string to_base64(std::string_view bytes) {
  std::string out(4 * ((bytes.size() + 2) / 3) + 1, '\0');
  int n = EVP_EncodeBlock(reinterpret_cast<unsigned char*>(out.data()), reinterpret_cast<const unsigned char*>(bytes.data()),
                          static_cast<int>(bytes.size()));
  out.resize(static_cast<size_t>(n));
  return out;
}

Result<std::string> from_base64(std::string_view text) {
  Error bad{Errc::kCorrupt, "not canonical base64"};
  if (text.size() % 4 != 0) return bad;
  std::string out(text.size() / 4 * 3 + 1, '\0');
  int n = EVP_DecodeBlock(reinterpret_cast<unsigned char*>(out.data()), reinterpret_cast<const unsigned char*>(text.data()),
                          static_cast<int>(text.size()));
  if (n < 0) return bad;
  size_t padding = text.ends_with("==") ? 2 : text.ends_with("=") ? 1 : 0;
  out.resize(static_cast<size_t>(n) - padding);
  if (to_base64(out) != text) return bad;
  return out;
}

std::string Id::hex() const { return to_hex({reinterpret_cast<const char*>(bytes.data()), bytes.size()}); }

Result<Id> Id::parse(std::string_view hex32) {
  TRY_ASSIGN(std::string raw, from_hex(hex32));
  Id id;
  if (raw.size() != id.bytes.size()) return Error{Errc::kCorrupt, "an id has 32 hex digits"};
  std::memcpy(id.bytes.data(), raw.data(), raw.size());
  return id;
}

namespace {
Id first_half(const Sha256Digest& digest) {
  Id id;
  std::memcpy(id.bytes.data(), digest.data(), id.bytes.size());
  return id;
}
}  // namespace

Id place_id(std::string_view topic, int32_t partition, Offset offset) {
  std::string text(topic);
  text.push_back('\0');
  text += std::to_string(partition);
  text.push_back('\0');
  text += std::to_string(offset.value);
  return first_half(sha256(text));
}

Id derived_id(const Id& cause, std::string_view processor, uint64_t ordinal) {
  std::string text(reinterpret_cast<const char*>(cause.bytes.data()), cause.bytes.size());
  text.push_back('\0');
  text += processor;
  text.push_back('\0');
  text += std::to_string(ordinal);
  return first_half(sha256(text));
}

}  // namespace assay::schemas
