#include "streams/signer.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>

#include "schemas/json_parse.h"

namespace assay::streams {
namespace {

constexpr size_t kKeyBytes = 32;
/// DER of SubjectPublicKeyInfo for Ed25519 up to the key itself (RFC 8410).
constexpr std::string_view kSpkiPrefix("\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 12);

/// The raw Ed25519 key from base64 of 32 bytes, or from a PEM SPKI.
Result<std::string> decode_key(std::string_view text) {
  constexpr std::string_view kBegin = "-----BEGIN PUBLIC KEY-----", kEnd = "-----END PUBLIC KEY-----";
  Error bad{Errc::kCorrupt, "not an Ed25519 public key: neither base64 of 32 bytes nor a PEM SubjectPublicKeyInfo"};
  if (size_t begin = text.find(kBegin); begin != text.npos) {
    size_t end = text.find(kEnd, begin);
    if (end == text.npos) return bad;
    std::string body;
    for (char c : text.substr(begin + kBegin.size(), end - begin - kBegin.size()))
      if (c != '\n' && c != '\r' && c != ' ') body.push_back(c);
    Result<std::string> der = from_base64(body);
    if (!der || der->size() != kSpkiPrefix.size() + kKeyBytes || !der->starts_with(kSpkiPrefix)) return bad;
    return der->substr(kSpkiPrefix.size());
  }
  Result<std::string> raw = from_base64(text);
  if (!raw || raw->size() != kKeyBytes) return bad;
  return raw;
}

std::string_view first_of(const Json& entry, std::initializer_list<std::string_view> names) {
  for (std::string_view name : names)
    if (std::string_view text = entry.string_or(name, ""); !text.empty()) return text;
  return {};
}

Result<std::optional<int64_t>> bound(const Json& entry, std::string_view name) {
  const Json* member = entry.find(name);
  if (member == nullptr || member->is_null()) return std::optional<int64_t>();
  int64_t value = 0;
  if (member->is_string()) {
    const std::string& text = member->as_string();
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (error == std::errc() && end == text.data() + text.size() && value > 0) return std::optional<int64_t>(value);
  }
  return Error{Errc::kCorrupt, "\"" + std::string(name) + "\" is not a sequence number as a decimal text"};
}

}  // namespace

Result<std::string> Signer::sign_message(std::string_view) {
  return Error{Errc::kRefused, "signing a message with " + key().signer_id + ": this kind of signer signs digests alone"};
}

Result<std::vector<std::string>> Signer::sign_all(std::span<const Sha256Digest> digests) {
  std::vector<std::string> signatures;
  signatures.reserve(digests.size());
  for (const Sha256Digest& digest : digests) {
    TRY_ASSIGN(std::string signature, sign(digest));
    signatures.push_back(std::move(signature));
  }
  return signatures;
}

Result<void> SignerRegistry::add(SignerEntry entry) {
  const std::string id = entry.key.signer_id;
  if (id.empty()) return Error{Errc::kCorrupt, "adding a signer: it has no id"};
  if (entry.key.algorithm.empty()) return Error{Errc::kCorrupt, "adding signer " + id + ": it has no algorithm"};
  std::string raw = entry.key.public_key;
  std::optional<RsaPublicKey> rsa;
  if (entry.key.algorithm == kEd25519) {
    Result<std::string> decoded = decode_key(entry.key.public_key);
    if (!decoded) return Error{Errc::kCorrupt, "adding signer " + id + ": " + decoded.error().message};
    raw = std::move(decoded).value();
    entry.key.public_key = to_base64(raw);
  } else if (entry.key.algorithm == kRsaSha256) {
    Result<RsaPublicKey> key = RsaPublicKey::parse(entry.key.public_key);
    if (!key) return Error{Errc::kCorrupt, "adding signer " + id + ": " + key.error().message};
    rsa = std::move(key).value();
    entry.key.public_key = raw = rsa->pem();
  }
  if (auto old = entries_.find(id); old != entries_.end()) {
    if (old->second == entry) return {};
    return Error{Errc::kRefused,
                 "adding signer " + id + ": the id already stands for another key or other bounds; ids are never reused"};
  }
  for (const auto& [other, key] : raw_keys_)
    if (key == raw) return Error{Errc::kRefused, "adding signer " + id + ": its key already stands under the id " + other};
  raw_keys_.emplace(id, std::move(raw));
  if (rsa) rsa_keys_.emplace(id, std::move(*rsa));
  entries_.emplace(id, std::move(entry));
  return {};
}

Result<void> SignerRegistry::put(SignerEntry entry) {
  auto old = entries_.find(entry.key.signer_id);
  if (old == entries_.end() || old->second.key != entry.key) return add(std::move(entry));
  old->second = std::move(entry);
  return {};
}

const SignerEntry* SignerRegistry::find(std::string_view signer_id) const {
  auto it = entries_.find(signer_id);
  return it == entries_.end() ? nullptr : &it->second;
}

std::optional<std::string> SignerRegistry::check(std::string_view signer_id, int64_t sequence, const Sha256Digest& digest,
                                                 std::string_view signature_base64) const {
  const std::string id(signer_id);
  const SignerEntry* entry = find(signer_id);
  if (entry == nullptr) return "the signer \"" + id + "\" is not in the registry";
  if (entry->revoked && sequence > entry->attested_through)
    return "the signer " + id + " is revoked" + (entry->revoked_reason.empty() ? "" : " (" + entry->revoked_reason + ")");
  if (entry->first_sequence && sequence < *entry->first_sequence)
    return "the signer " + id + " signs from row " + std::to_string(*entry->first_sequence) + " on";
  if (entry->last_sequence && sequence > *entry->last_sequence)
    return "the signer " + id + " is retired after row " + std::to_string(*entry->last_sequence);
  Result<std::string> signature = from_base64(signature_base64);
  if (!signature) return "the signature is not canonical base64";
  bool holds = false;
  if (entry->key.algorithm == kEd25519)
    holds = ed25519_verify(raw_keys_.find(signer_id)->second, as_bytes(digest), *signature);
  else if (auto rsa = rsa_keys_.find(signer_id); rsa != rsa_keys_.end())
    holds = rsa->second.verify(digest, *signature);
  else
    return "the signer " + id + " uses " + entry->key.algorithm + ", which is not known here";
  if (!holds) return "the signature is not that of " + id + " over the row's hash";
  return std::nullopt;
}

std::string SignerRegistry::to_json() const {
  Json signers = Json::array();
  for (const auto& [id, entry] : entries_) {
    Json one = Json::object();
    one.set("signerId", id).set("publicKey", entry.key.public_key).set("algorithm", entry.key.algorithm);
    if (entry.first_sequence) one.set("firstSequence", std::to_string(*entry.first_sequence));
    if (entry.last_sequence) one.set("lastSequence", std::to_string(*entry.last_sequence));
    if (!entry.provider.empty()) one.set("provider", entry.provider);
    if (entry.revoked) one.set("revoked", true);
    if (!entry.revoked_reason.empty()) one.set("revokedReason", entry.revoked_reason);
    if (entry.attested_by > 0)
      one.set("attestedThrough", std::to_string(entry.attested_through)).set("attestedBy", std::to_string(entry.attested_by));
    signers.push_back(std::move(one));
  }
  return canonical(Json::object().set("signers", std::move(signers))) + "\n";
}

Result<SignerRegistry> SignerRegistry::parse(std::string_view text) {
  Result<Json> document = text.empty() ? Result<Json>(Error{Errc::kCorrupt, "it is empty"}) : parse_json(text);
  if (!document) return Error{Errc::kCorrupt, "reading a signer registry: " + document.error().message};
  const Json* signers = document->find("signers");
  if (signers == nullptr || !signers->is_array())
    return Error{Errc::kCorrupt, "reading a signer registry: there is no array \"signers\""};
  SignerRegistry registry;
  for (const Json& one : signers->as_array()) {
    SignerEntry entry;
    entry.key.signer_id = first_of(one, {"signerId", "signer_kid", "id"});
    entry.key.public_key = first_of(one, {"publicKey", "public_key_pem", "key"});
    entry.key.algorithm = first_of(one, {"algorithm", "alg"});
    std::ranges::transform(entry.key.algorithm, entry.key.algorithm.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    TRY_ASSIGN(entry.first_sequence, bound(one, "firstSequence"));
    TRY_ASSIGN(entry.last_sequence, bound(one, "lastSequence"));
    TRY_ASSIGN(auto attested_through, bound(one, "attestedThrough"));
    TRY_ASSIGN(auto attested_by, bound(one, "attestedBy"));
    if (attested_through.has_value() != attested_by.has_value() || (attested_by && *attested_through >= *attested_by))
      return Error{Errc::kCorrupt, "reading a signer registry: \"attestedBy\" is not a row after \"attestedThrough\""};
    entry.attested_through = attested_through.value_or(0);
    entry.attested_by = attested_by.value_or(0);
    entry.provider = one.string_or("provider", "");
    entry.revoked_reason = one.string_or("revokedReason", "");
    if (const Json* revoked = one.find("revoked"); revoked != nullptr) {
      if (!revoked->is_bool()) return Error{Errc::kCorrupt, "reading a signer registry: \"revoked\" is not true or false"};
      entry.revoked = revoked->as_bool();
    }
    if (Result<void> added = registry.add(std::move(entry)); !added)
      return Error{Errc::kCorrupt, "reading a signer registry: " + added.error().message};
  }
  return registry;
}

Result<SignerRegistry> SignerRegistry::load(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{Errc::kIncomplete, "reading the signer registry " + path + ": it cannot be opened"};
  std::string text((std::istreambuf_iterator<char>(in)), {});
  Result<SignerRegistry> registry = parse(text);
  if (!registry) return Error{registry.error().code, registry.error().message + " (" + path + ")"};
  return registry;
}

}  // namespace assay::streams
