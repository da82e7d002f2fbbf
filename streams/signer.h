// Signers behind one interface, and the registry of the public keys that rows are verified with.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/config.h"
#include "schemas/hash.h"
#include "streams/base.h"

namespace assay::streams {

/// Signs 32-byte digests as messages. Thread-safe.
class Signer {
 public:
  virtual ~Signer() = default;
  /// The raw signature. Errors: kUnreachable (a remote signer), kRefused.
  virtual Result<std::string> sign(const Sha256Digest& digest) = 0;
  /// Id, public key and algorithm, as they stand in the registry.
  virtual const SignerKey& key() const = 0;
};

struct FileSignerOptions {
  std::string path;
  std::string signer_id;    // empty: "ed25519-" and 16 hex digits of SHA-256(public key), so a new key has a new id
  bool create = true;       // behaviour: make the key when there is none
  bool production = false;  // behaviour: refuse, since a key in a file is for development only
};

/// Ed25519 from a key file: the line "ed25519-seed:" and the base64 of 32 bytes, mode 0600.
/// Errors: kRefused (production, a file that others may read), kNotFound, kCorrupt (not such a file).
Result<std::unique_ptr<Signer>> open_file_signer(const FileSignerOptions& options);

/// Whether `signature` is Ed25519's over the message under the raw 32-byte key. Malleable forms are refused.
bool ed25519_verify(std::string_view public_key, std::string_view message, std::string_view signature);

/// One entry of signers.json. The bounds say for which rows the key may stand.
struct SignerEntry {
  SignerKey key;                          // public_key: base64 of the raw 32 bytes
  std::optional<int64_t> first_sequence;  // rows before it are refused
  std::optional<int64_t> last_sequence;   // retired: rows after it are refused
  bool revoked = false;                   // no row of it counts
  bool operator==(const SignerEntry&) const = default;
};

/// The keys by id. Ids are never reused, and a key has one id only (otherwise a row's signer could be renamed unseen).
class SignerRegistry {
 public:
  /// Adds a key; the same entry again changes nothing.
  /// Errors: kRefused (the id stands for another key, or the key under another id), kCorrupt (not a key).
  Result<void> add(SignerEntry entry);
  const SignerEntry* find(std::string_view signer_id) const;
  const std::map<std::string, SignerEntry, std::less<>>& entries() const { return entries_; }
  bool empty() const { return entries_.empty(); }

  /// Whether the signature stands for row `sequence`; otherwise what is wrong, in words.
  std::optional<std::string> check(std::string_view signer_id, int64_t sequence, const Sha256Digest& digest,
                                   std::string_view signature_base64) const;

  /// The text of signers.json: canonical, one newline behind.
  std::string to_json() const;
  /// Reads every form that is in use: signerId|signer_kid|id, publicKey|public_key_pem|key (base64 or PEM), algorithm|alg.
  /// Errors: kCorrupt.
  static Result<SignerRegistry> parse(std::string_view text);
  /// Errors: kIncomplete (no such file), kCorrupt.
  static Result<SignerRegistry> load(const std::string& path);

 private:
  std::map<std::string, SignerEntry, std::less<>> entries_;
  std::map<std::string, std::string, std::less<>> raw_keys_;  // decoded, by id
};

}  // namespace assay::streams
