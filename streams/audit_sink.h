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
  std::string signature;   // base64; empty: it waits for one
  std::string signer_kid;  // of a row that waits: the key that was in use when it was made
};

class AuditSink {
 public:
  virtual ~AuditSink() = default;
  virtual std::string describe() const = 0;  // "archive in /var/lib/assay/audit" | "PostgreSQL at 127.0.0.1:5432/assay"

  /// Becomes the only writer (every older one is fenced), notes the signer's key, and says where the chain stands.
  /// Errors: kUnreachable (try again), kRefused (another process holds the directory, schema too new, signer id taken), kCorrupt.
  virtual Result<processors::ChainState> take_over(const SignerKey& signer) = 0;

  /// Where the rows end that have their signatures, when others wait behind them; nothing: none waits. After take_over().
  virtual std::optional<processors::ChainState> signed_state() const = 0;

  /// Stores the rows between two states, as one. May be called again with the same arguments after kUnreachable: what was
  /// stored is found and not stored twice.
  /// Requires: rows are those between `before` and `after`; none at all just moves next_offset. Each has its signature, and no row
  /// waits for one.
  /// Errors: kFenced (stop), kUnreachable (call again), kCorrupt and kUnexpected (a person must look).
  virtual Result<void> append(std::span<const SignedRow> rows, const processors::ChainState& before,
                              const processors::ChainState& after) = 0;

  /// The same for rows without signatures: they count, and nobody sees them, nor what follows them, until they have one.
  virtual Result<void> stage(std::span<const SignedRow> rows, const processors::ChainState& before,
                             const processors::ChainState& after) = 0;

  /// Gives staged rows their signatures: the oldest that wait, those between the signed state `before` and `after`. May be called
  /// again like append().
  virtual Result<void> sign(std::span<const SignedRow> rows, const processors::ChainState& before,
                            const processors::ChainState& after) = 0;

  /// From now on what the sink itself signs is signed by this. For sinks whose form is signed as a whole.
  virtual void use_signer(std::shared_ptr<Signer>) {}
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

/// What the registry says when the chain's own events have been heard: bounds, revocations, keys that are to come. A key of an
/// event that is none is left out: it signs nothing.
SignerRegistry standing_registry(SignerRegistry base, const processors::AuditControl& control);

/// A chain to read: its lines, what its head says, and the keys that came with it.
struct StoredChain {
  LineSource lines;
  int64_t first = 1;            // of the first line …
  int64_t last = 0;             // … and of the last; 0: they go on to the head
  processors::ChainState head;  // of the rows that are signed
  bool complete = true;         // the lines reach the head
  SignerRegistry signers;
};

}  // namespace assay::streams
