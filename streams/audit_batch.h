// The audit chain in an archive that nothing can be overwritten in: what stands beside its rows.
//
//   audit-events/YYYY/MM/DD/<first>-<last>.jsonl.gz   a batch: rows in chain order, of one day, as in an export
//   batches/<first>.json                              what the batch of that first row is, signed; 12 digits
//   signers/<SHA-256>.json                            the public keys, as they stood when a batch was made
//
// A batch is told of before it is stored. Its name in batches/ depends on its first row alone and is given once, so that whoever
// uploads, however often and however many at a time, makes the same batches: a crash leaves at most the last of them without its
// rows.
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "streams/audit_archive.h"

namespace assay::streams {

inline constexpr std::string_view kBatchFolder = "batches/";
inline constexpr std::string_view kBatchSignersFolder = "signers/";

struct AuditBatch {
  ArchiveFile file;
  std::optional<std::string> prev_hash;  // of its first row, 64 hex digits
  std::string previous;                  // SHA-256 of what told of the batch before, hex; empty for the first
  std::string signers_sha256;            // of the keys
  SignerKey signer;
  std::string signature;  // base64

  int64_t last_sequence() const { return file.first_sequence + file.rows - 1; }
  /// "batches/000000002501.json"
  std::string name() const { return name_of(file.first_sequence); }
  static std::string name_of(int64_t first_sequence);
  std::string signers_name() const { return std::string(kBatchSignersFolder) + signers_sha256 + ".json"; }

  /// Canonical, one newline behind. With `with_signature` false: what is signed.
  std::string to_json(bool with_signature = true) const;
  /// Errors: kCorrupt, also when a byte is not where the canonical form has it.
  static Result<AuditBatch> parse(std::string_view text);
  Sha256Digest digest() const;
};

}  // namespace assay::streams
