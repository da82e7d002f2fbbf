// Signers behind one interface, and the registry of the public keys that rows are verified with.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/config.h"
#include "schemas/hash.h"
#include "streams/base.h"
#include "streams/rsa_key.h"

namespace assay::streams {

/// Signs 32-byte digests: Ed25519 takes the digest as the message, RSA is RSASSA-PKCS1-v1_5 with it as the SHA-256. Thread-safe.
class Signer {
 public:
  virtual ~Signer() = default;
  /// The raw signature. Errors: kUnreachable (a remote signer: trying again may help), kRefused (a person must act).
  virtual Result<std::string> sign(const Sha256Digest& digest) = 0;
  /// The signatures of the digests in their order: all, or an error. Errors: as sign().
  virtual Result<std::vector<std::string>> sign_all(std::span<const Sha256Digest> digests);
  /// The raw signature of a message as it is, which Ed25519 alone has. Errors: kRefused (this kind of signer takes digests), and
  /// as sign().
  virtual Result<std::string> sign_message(std::string_view message);
  /// How many digests one call of the service takes.
  virtual size_t batch_max() const { return 1; }
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

inline constexpr std::string_view kEd25519 = "ed25519";
inline constexpr std::string_view kRsaSha256 = "rsa-sha256";

/// One entry of signers.json. The bounds say for which rows the key may stand.
struct SignerEntry {
  SignerKey key;                          // public_key: base64 of the raw 32 bytes, or the PEM of an RSA key
  std::optional<int64_t> first_sequence;  // rows before it are refused
  std::optional<int64_t> last_sequence;   // retired: rows after it are refused
  bool revoked = false;                   // no row of it counts by itself
  std::string revoked_reason = {};        // with `revoked`
  /// Rows of a revoked key up to `attested_through` count again, since row `attested_by`, signed by a key that stands, bears
  /// witness to them: its hash holds theirs. 0: there is no such row.
  int64_t attested_through = 0, attested_by = 0;
  std::string provider = {};  // "emergency": used while the usual signer could not be had
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
  /// Puts the entry in the place of the one with the same key, whose standing has changed; adds it when there is none.
  /// Errors: as add().
  Result<void> put(SignerEntry entry);

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
  std::map<std::string, std::string, std::less<>> raw_keys_;  // decoded, by id: 32 bytes, or PEM as this program writes it
  std::map<std::string, RsaPublicKey, std::less<>> rsa_keys_;
};

}  // namespace assay::streams
