// Where the audit chain is stored: one fenced writer, all or nothing per batch. PostgreSQL and archive files stand behind it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "processors/audit_chain.h"
#include "streams/signer.h"

namespace assay::streams {

struct SignedRow {
  processors::AuditRow row;
  std::string signature;  // base64
  std::string signer_kid;
};

class AuditSink {
 public:
  virtual ~AuditSink() = default;
  virtual std::string describe() const = 0;  // "archive in /var/lib/assay/audit" | "PostgreSQL at 127.0.0.1:5432/assay"

  /// Becomes the only writer (every older one is fenced), notes the signer's key, and says where the chain stands.
  /// Errors: kUnreachable (try again), kRefused (another process holds the directory, schema too new, signer id taken), kCorrupt.
  virtual Result<processors::ChainState> take_over(const SignerKey& signer) = 0;

  /// Stores the rows between two states, as one. May be called again with the same arguments after kUnreachable: what was
  /// stored is found and not stored twice.
  /// Requires: rows are those between `before` and `after`; none at all just moves next_offset.
  /// Errors: kFenced (stop), kUnreachable (call again), kCorrupt and kUnexpected (a person must look).
  virtual Result<void> append(std::span<const SignedRow> rows, const processors::ChainState& before,
                              const processors::ChainState& after) = 0;
};

/// One stored row as an archive has it: a line of canonical JSON, without newline, and where it was found.
struct StoredLine {
  std::string text;
  std::string place;     // "audit-events/2026/05/01/000000000001-000000010000.jsonl.gz:17" | "audit_events sequence 17"
  int64_t sequence = 0;  // where it is stored beside the row; 0: its place in the order says it
};

/// Gives stored rows in chain order, a block at a time; an empty block is the end.
using LineSource = std::function<Result<std::vector<StoredLine>>()>;

/// The line of a row: {"created_at","event_type","hash","id","payload","prev_hash","signature","signer_kid"}, canonical.
std::string audit_line(const SignedRow& row);
/// Reads a line; its sequence stays 0. Every byte counts: audit_line() of the row gives the line again.
/// With `payload`, the payload as a document besides. With `canonical_text`, a line in another form, whose canonical form is
/// that of a row, is read as well, and the flag says so. Errors: kCorrupt, naming the member.
Result<SignedRow> parse_audit_line(std::string_view line, Json* payload = nullptr, bool* canonical_text = nullptr);

/// A chain to read: its lines, what its head says, and the keys that came with it.
struct StoredChain {
  LineSource lines;
  processors::ChainState head;
  bool complete = true;  // the lines reach the head; else rows wait for their signatures
  SignerRegistry signers;
};

}  // namespace assay::streams
