// The audit chain as a fold: one record of audit-events in, one hashed row out. Storing and signing are streams/'s business.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "processors/audit_control.h"
#include "processors/base.h"
#include "schemas/eval_report.h"
#include "schemas/hash.h"
#include "schemas/json.h"

namespace assay::processors {

/// Who wrote a record, and the how-manieth of that writer on this partition it is (from 0, without holes).
struct WriterStamp {
  std::string writer;  // task and lineage
  uint64_t n = 0;
};

/// Everything the next row depends on; what a sink stores beside the rows.
struct ChainState {
  int64_t sequence = 0;            // of the last row; 0: there is none
  Sha256Digest head_hash{};        // of the last row
  std::string head_id;             // of the last row
  int64_t last_created_at_us = 0;  // of the last row
  Offset last_offset{-1};          // of the record that made the last row
  std::string anchor;              // XXH3-128 of that record's value, seeded by its timestamp: shows a log of another origin
  Offset next_offset{0};           // first record not folded yet
  std::map<std::string, uint64_t, std::less<>> writers;  // last n of each writer
  AuditControl control;                                  // what the rows so far say about signing
  bool operator==(const ChainState&) const = default;
};

/// One row of the chain, not signed yet.
struct AuditRow {
  int64_t sequence = 0;  // from 1
  std::string id;
  std::string event_type;
  int64_t created_at_us = 0;              // max(record timestamp, the row before + 1)
  std::string payload;                    // canonical text of the envelope and its recordedAt: all that is hashed but the link
  std::optional<Sha256Digest> prev_hash;  // absent in the first row
  Sha256Digest hash{};
  bool operator==(const AuditRow&) const = default;
};

/// Anchor of a record, 32 hex digits.
std::string anchor_of(const RecordView& record);

/// hash of a row: SHA-256(payload ‖ 32 raw bytes of the previous hash); the first row appends nothing.
Sha256Digest chain_hash(std::string_view payload, const std::optional<Sha256Digest>& prev_hash);

/// created_at of a row whose record carries that timestamp and that follows a row of that created_at.
/// `sequence` is the row's own: the first row follows nothing.
int64_t chain_created_at_us(int64_t recorded_at_ms, int64_t sequence, int64_t previous_us);

/// A record the chain does not take; the record's bytes go to the dead letters.
struct Refused {
  Reason reason;
  std::string detail;
};
/// A record that was already folded under another offset; dropped.
struct Repeated {};
/// Records of one writer are missing before this one: the partition must halt (INPUT_GAP). The state did not move.
struct InputGap {
  std::string writer;
  uint64_t expected = 0;
  uint64_t found = 0;
};

using ChainStep = std::variant<AuditRow, Refused, Repeated, InputGap>;

/// Folds one record and moves `state` on (also past refused and repeated ones).
/// The hashed payload is the record's envelope, whole, and `recordedAt`, the record's timestamp: what created_at was made from.
/// While an emergency key signs, `provider` = "emergency" is added. Places of the log stay outside it, so that a restored log gives
/// the same hashes.
/// Requires: records in partition order.  Pure.
ChainStep fold_audit_record(const RecordView& record, const std::optional<WriterStamp>& stamp, ChainState& state);

/// The envelope inside a payload, as far as a verifier needs it.
struct EnvelopeView {
  std::string_view id;
  std::string_view event_type;
  int64_t recorded_at_ms = 0;
};
/// Reads a payload of the chain. Errors: kCorrupt, naming the member that is not as it must be.
Result<EnvelopeView> read_payload(const Json& payload);

/// The state as a document for manifests, and back. Errors: kCorrupt.
Json chain_state_to_json(const ChainState& state);
Result<ChainState> chain_state_from_json(const Json& document);

}  // namespace assay::processors
