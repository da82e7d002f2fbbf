// RSA public keys: reading and writing them, and RSASSA-PKCS1-v1_5 with SHA-256 over a digest that is at hand.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "schemas/hash.h"
#include "streams/base.h"

namespace assay::streams {

/// A public key of at least 2048 bits. Copies share it; thread-safe.
class RsaPublicKey {
 public:
  /// From SubjectPublicKeyInfo, as PEM or as DER. Errors: kCorrupt (no RSA key, or one that is too short).
  static Result<RsaPublicKey> parse(std::string_view pem_or_der);
  /// From modulus and exponent, big-endian. Errors: kCorrupt.
  static Result<RsaPublicKey> from_numbers(std::string_view modulus, std::string_view exponent);

  const std::string& pem() const { return pem_; }  // the one form of it that this program writes
  bool verify(const Sha256Digest& digest, std::string_view signature) const;

 private:
  static Result<RsaPublicKey> from_key(void* key);
  std::shared_ptr<void> key_;
  std::string pem_;
};

}  // namespace assay::streams
