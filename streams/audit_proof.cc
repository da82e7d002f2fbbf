#include "streams/audit_proof.h"

#include <algorithm>

#include "processors/audit_chain.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/audit_sink.h"

namespace assay::streams {
namespace {

constexpr std::string_view kFormat = "assay-audit-proof/1";

struct Head {
  Note note;
  Checkpoint checkpoint;
};

Result<Head> read_head(const std::string& text) {
  Head head;
  TRY_ASSIGN(head.note, Note::parse(text));
  TRY_ASSIGN(head.checkpoint, Checkpoint::parse(head.note.text));
  return head;
}

Json path_of(const std::vector<Sha256Digest>& hashes) {
  Json path = Json::array();
  for (const Sha256Digest& hash : hashes) path.push_back(to_base64(as_bytes(hash)));
  return path;
}

Result<std::vector<Sha256Digest>> read_path(const Json& document) {
  const Json* path = document.find("path");
  Error bad{Errc::kCorrupt, "\"path\" is not a list of hashes in base64"};
  if (path == nullptr || !path->is_array() || path->as_array().size() > 128) return bad;
  std::vector<Sha256Digest> out;
  for (const Json& element : path->as_array()) {
    Result<std::string> raw = element.is_string() ? from_base64(element.as_string()) : bad;
    if (!raw || raw->size() != sizeof(Sha256Digest)) return bad;
    std::copy(raw->begin(), raw->end(), out.emplace_back().begin());
  }
  return out;
}

std::string seen_by(const PolicyVerdict& verdict) {
  if (verdict.witnesses.empty()) return ", which no witness has cosigned";
  std::string out = ", cosigned by ";
  for (size_t i = 0; i < verdict.witnesses.size(); ++i) out += (i > 0 ? ", " : "") + verdict.witnesses[i];
  return out + " at " + format_rfc3339_ms(verdict.witnessed_s * 1000);
}

/// A checkpoint in a proof that counts, or why it does not.
Result<std::pair<Head, PolicyVerdict>> trusted_head(const Json& document, std::string_view member, const NotePolicy& policy) {
  TRY_ASSIGN(Head head, read_head(std::string(document.string_or(member, ""))));
  PolicyVerdict verdict = policy.judge(head.note);
  if (!verdict.fault.empty())
    return Error{verdict.tampered ? Errc::kTampered : Errc::kIncomplete,
                 "the checkpoint in \"" + std::string(member) + "\": " + verdict.fault};
  return std::pair(std::move(head), std::move(verdict));
}

Result<std::string> check_inclusion(const Json& document, const NotePolicy& policy, const SignerRegistry* signers) {
  TRY_ASSIGN(auto trusted, trusted_head(document, "checkpoint", policy));
  const auto& [head, verdict] = trusted;
  TRY_ASSIGN(std::vector<Sha256Digest> path, read_path(document));
  const std::string sequence_text(document.string_or("sequence", ""));
  const int64_t sequence = std::strtoll(sequence_text.c_str(), nullptr, 10);
  if (sequence < 1 || std::to_string(sequence) != sequence_text) return Error{Errc::kCorrupt, "\"sequence\" is no row's number"};
  const Json* row = document.find("row");
  const Json* payload = row == nullptr ? nullptr : row->find("payload");
  const Json* prev_hash = row == nullptr ? nullptr : row->find("prevHash");
  if (payload == nullptr || prev_hash == nullptr) return Error{Errc::kCorrupt, "\"row\" has no payload or no prevHash"};
  TRY_ASSIGN(processors::EnvelopeView envelope, processors::read_payload(*payload));
  std::optional<Sha256Digest> link;
  if (!prev_hash->is_null()) {
    Result<std::string> raw = prev_hash->is_string() ? from_hex(prev_hash->as_string()) : Error{};
    if (!raw || raw->size() != sizeof(Sha256Digest)) return Error{Errc::kCorrupt, "\"prevHash\" is not 64 lower-case hex digits"};
    std::copy(raw->begin(), raw->end(), link.emplace().begin());
  }
  const Sha256Digest hash = processors::chain_hash(canonical(*payload), link);
  std::string signature = "; its own signature was not checked: no keys were given";
  if (signers != nullptr) {
    const std::string_view signer = row->string_or("signerKid", "");
    if (auto fault = signers->check(signer, sequence, hash, row->string_or("signature", "")))
      return Error{Errc::kTampered, "the row: " + *fault};
    signature = " and is signed by " + std::string(signer);
  }
  const auto root = processors::root_of_inclusion(static_cast<uint64_t>(sequence - 1), head.checkpoint.size,
                                                  processors::merkle_leaf(as_bytes(hash)), path);
  if (!root || *root != head.checkpoint.root)
    return Error{Errc::kTampered, "the path does not lead from row " + sequence_text + " to the root of the checkpoint"};
  return "Event " + std::string(envelope.id) + " is row " + sequence_text + " of the " + std::to_string(head.checkpoint.size) +
         " rows of the checkpoint of " + head.checkpoint.origin + seen_by(verdict) + signature + ".";
}

Result<std::string> check_consistency(const Json& document, const NotePolicy& policy) {
  TRY_ASSIGN(auto from, trusted_head(document, "from", policy));
  TRY_ASSIGN(auto to, trusted_head(document, "to", policy));
  TRY_ASSIGN(std::vector<Sha256Digest> path, read_path(document));
  const Checkpoint &old_head = from.first.checkpoint, &new_head = to.first.checkpoint;
  if (old_head.origin != new_head.origin) return Error{Errc::kTampered, "the checkpoints are of two logs"};
  if (!processors::consistency_holds(old_head.size, new_head.size, old_head.root, new_head.root, path))
    return Error{Errc::kTampered, "the path does not prove that the " + std::to_string(new_head.size) + " rows begin with the " +
                                      std::to_string(old_head.size)};
  return "The " + std::to_string(new_head.size) + " rows of the later checkpoint" + seen_by(to.second) + " begin with the " +
         std::to_string(old_head.size) + " rows of the earlier one" + seen_by(from.second) + ".";
}

}  // namespace

Result<Json> prove_inclusion(const TileReader& tiles, uint64_t grown_to, int64_t sequence, std::string_view line,
                             const std::string& note) {
  TRY_ASSIGN(Head head, read_head(note));
  const uint64_t size = head.checkpoint.size;
  if (sequence < 1 || static_cast<uint64_t>(sequence) > size)
    return Error{Errc::kUsage,
                 "proving row " + std::to_string(sequence) + ": the checkpoint is of " + std::to_string(size) + " rows"};
  TileTree tree(tiles, size, grown_to);
  TRY_ASSIGN(auto path, tree.hashes_of(processors::inclusion_ranges(static_cast<uint64_t>(sequence - 1), size)));
  // Only what the hash covers, and the signature over it: created_at beside it is told by the row before, which is not here.
  Json payload;
  TRY_ASSIGN(SignedRow signed_row, parse_audit_line(line, &payload));
  Json row = Json::object().set("payload", std::move(payload)).set("signature", signed_row.signature);
  row.set("signerKid", signed_row.signer_kid);
  row.set("prevHash", signed_row.row.prev_hash ? Json(to_hex(as_bytes(*signed_row.row.prev_hash))) : Json());
  Json proof = Json::object();
  proof.set("checkpoint", note).set("format", kFormat).set("kind", "inclusion").set("path", path_of(path));
  return proof.set("row", std::move(row)).set("sequence", std::to_string(sequence));
}

Result<Json> prove_consistency(const TileReader& tiles, uint64_t grown_to, const std::string& from, const std::string& to) {
  TRY_ASSIGN(Head old_head, read_head(from));
  TRY_ASSIGN(Head new_head, read_head(to));
  const uint64_t old_size = old_head.checkpoint.size, new_size = new_head.checkpoint.size;
  if (old_size > new_size)
    return Error{Errc::kUsage,
                 "proving that " + std::to_string(new_size) + " rows begin with " + std::to_string(old_size) + ": they are fewer"};
  std::vector<Sha256Digest> path;
  if (old_size > 0) {
    TileTree tree(tiles, new_size, grown_to);
    TRY_ASSIGN(path, tree.hashes_of(processors::consistency_ranges(old_size, new_size)));
  }
  return Json::object()
      .set("format", kFormat)
      .set("from", from)
      .set("kind", "consistency")
      .set("path", path_of(path))
      .set("to", to);
}

ProofVerdict check_proof(std::string_view text, const NotePolicy& policy, const SignerRegistry* signers) {
  ProofVerdict verdict;
  auto check = [&]() -> Result<std::string> {
    TRY_ASSIGN(Json document, parse_json(text));
    if (canonical(document) != text.substr(0, text.size() - (text.ends_with('\n') ? 1 : 0)))
      return Error{Errc::kCorrupt, "it is not in canonical form (RFC 8785)"};
    if (document.string_or("format", "") != kFormat)
      return Error{Errc::kCorrupt, "it is no proof of the form " + std::string(kFormat)};
    if (document.string_or("kind", "") == "inclusion") return check_inclusion(document, policy, signers);
    if (document.string_or("kind", "") == "consistency") return check_consistency(document, policy);
    return Error{Errc::kCorrupt, "its kind is neither inclusion nor consistency"};
  };
  Result<std::string> sentence = check();
  if (sentence) {
    verdict.sentence = std::move(sentence).value();
  } else {
    verdict.fault = sentence.error().message;
    verdict.code = sentence.error().code == Errc::kIncomplete ? Errc::kIncomplete : Errc::kTampered;
  }
  return verdict;
}

}  // namespace assay::streams
