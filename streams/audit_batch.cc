#include "streams/audit_batch.h"

#include <cstdio>

#include "schemas/json_parse.h"

namespace assay::streams {
namespace {

constexpr std::string_view kFormat = "assay-audit-batch/1";

/// Whether the file's name is the one of its rows on some day: no other file is looked at because a stranger names it.
bool well_named(const ArchiveFile& file) {
  constexpr std::string_view kDay = "audit-events/0000/00/00/";
  const std::string same = archive_file_name(0, file.first_sequence, file.first_sequence + file.rows - 1);
  if (file.name.size() != same.size() || file.name.substr(kDay.size()) != same.substr(kDay.size())) return false;
  for (size_t i = 0; i < kDay.size(); ++i)
    if (kDay[i] == '0' ? file.name[i] < '0' || file.name[i] > '9' : file.name[i] != kDay[i]) return false;
  return true;
}

}  // namespace

std::string AuditBatch::name_of(int64_t first_sequence) {
  char text[40];
  std::snprintf(text, sizeof text, "%012lld.json", static_cast<long long>(first_sequence));
  return std::string(kBatchFolder) + text;
}

std::string AuditBatch::to_json(bool with_signature) const {
  Json out = Json::object();
  out.set("file", archive_file_to_json(file)).set("format", kFormat).set("prevHash", prev_hash ? Json(*prev_hash) : Json());
  out.set("previous", previous);
  out.set("signer",
          Json::object().set("signerId", signer.signer_id).set("publicKey", signer.public_key).set("algorithm", signer.algorithm));
  out.set("signers", Json::object().set("name", signers_name()).set("sha256", signers_sha256));
  if (with_signature) out.set("signature", signature);
  return canonical(out) + "\n";
}

Result<AuditBatch> AuditBatch::parse(std::string_view text) {
  const Error bad{Errc::kCorrupt, "reading what tells of a batch: a byte of it is not as this program writes it"};
  Result<Json> document = text.empty() ? bad : parse_json(text);
  if (!document) return Error{Errc::kCorrupt, "reading what tells of a batch: " + document.error().message};
  const Json *file = document->find("file"), *signer = document->find("signer"), *signers = document->find("signers"),
             *prev = document->find("prevHash");
  if (file == nullptr || signer == nullptr || signers == nullptr || prev == nullptr) return bad;
  AuditBatch batch;
  batch.file = archive_file_from_json(*file);
  if (prev->is_string()) batch.prev_hash = prev->as_string();
  batch.previous = document->string_or("previous", "");
  batch.signers_sha256 = signers->string_or("sha256", "");
  batch.signer = {std::string(signer->string_or("signerId", "")), std::string(signer->string_or("publicKey", "")),
                  std::string(signer->string_or("algorithm", ""))};
  batch.signature = document->string_or("signature", "");
  // As with a manifest: whatever was not understood does not come out again.
  if (batch.to_json() != text || batch.file.first_sequence < 1 || batch.file.rows < 1 || !well_named(batch.file)) return bad;
  return batch;
}

Sha256Digest AuditBatch::digest() const { return sha256("assay audit batch\n", to_json(false)); }

}  // namespace assay::streams
