// The audit chain as files: the sink when there is no database, and the form of an export.
//
//   DIR/audit-events/YYYY/MM/DD/<first>-<last>.jsonl.gz   rows in chain order, 12-digit sequences, the day of created_at
//   DIR/signers.json                                       the public keys
//   DIR/manifest.json                                      every file with count, bytes, hashes; the head; signed
// and in an export, when checkpoints are made:
//   DIR/policy, DIR/checkpoints/<size>.note                the keys of log and witnesses, and the checkpoints; the manifest names
//   them
//   DIR/tile/<L>/<N>[.p/<W>], DIR/ids/<first>-<last>       the Merkle tree of the rows and the index of their ids: proofs are made
//   from these
//
// A file counts only once the manifest names it, and the manifest is replaced by one rename: a crash leaves the old chain or the
// new. Rows that wait for their signatures lie beside it and are no part of it:
//
//   DIR-staging/<first>-<last>.jsonl                       such rows, their signatures empty
//   DIR-staging/head.json                                  where the chain stands with them
//   DIR-staging/signers.json                               while the registry is being replaced: the one before
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "streams/audit_sink.h"

namespace assay::streams {

struct ArchiveFile {
  std::string name;  // relative to the directory
  int64_t first_sequence = 0;
  int64_t rows = 0;
  int64_t size_bytes = 0;      // of the gzip file
  int64_t raw_size_bytes = 0;  // of the lines
  std::string first_hash;      // of its first row
  std::string last_hash;       // of its last row
  std::string sha256;          // of the gzip file
  bool operator==(const ArchiveFile&) const = default;
};

/// A file beside the rows.
struct ArchiveEvidence {
  std::string name;
  std::string sha256;
  bool operator==(const ArchiveEvidence&) const = default;
};

struct ArchiveManifest {
  std::vector<ArchiveFile> files;         // in chain order
  std::vector<ArchiveEvidence> evidence;  // policy and checkpoints
  std::string tree_root;                  // of the rows, 64 hex digits; empty: there are no tiles beside them
  bool indexed = false;                   // there is an index of ids beside the tiles
  processors::ChainState head;
  std::string signers_sha256;
  SignerKey signer;       // who signed the manifest
  std::string signature;  // base64

  /// Rows of the files; an export may begin behind the first row of the chain.
  int64_t rows() const { return head.sequence - (files.empty() ? 0 : files.front().first_sequence - 1); }
  /// The text of manifest.json: canonical, one newline behind. With `with_signature` false: what is signed.
  std::string to_json(bool with_signature = true) const;
  /// Errors: kCorrupt, also when a byte is not where the canonical form has it.
  static Result<ArchiveManifest> parse(std::string_view text);
  /// What the signer signs: SHA-256 over a prefix of its own, so that no row can pass for a manifest, and the text.
  Sha256Digest digest() const;
};

/// "audit-events/2026/05/01/000000000001-000000002500.jsonl.gz" of rows that begin on that day.
std::string archive_file_name(int64_t created_at_us, int64_t first_sequence, int64_t last_sequence);
Json archive_file_to_json(const ArchiveFile& file);
/// What is not of the form comes out as -1 or empty, and differently when it is written again.
ArchiveFile archive_file_from_json(const Json& document);

struct ArchiveOptions {
  int64_t file_rows_max = 2500;          // performance: also what is unpacked to read one row
  int64_t file_raw_bytes_max = 4 << 20;  // performance: also what merging holds in memory
  bool sync = true;                      // behaviour: fsync before a file counts
  /// Called before each step that changes the disk; an error stops there, as a crash would. For tests.
  std::function<Result<void>(std::string_view step)> before_step;
};

/// Opens (or creates) the archive as a sink. Small files are merged as they age, so that a day has few.
/// Errors: kRefused (another process writes there).
Result<std::unique_ptr<AuditSink>> open_archive_sink(const std::string& dir, std::shared_ptr<Signer> signer,
                                                     const ArchiveOptions& options = {});

/// Where the chain of an archive stands with the rows that wait beside it. Errors: as read_archive_manifest().
Result<processors::ChainState> read_archive_head(const std::string& dir);

/// Opens an archive to read its chain, also one that is only added to (audit_batch.h). Errors: kIncomplete (no manifest), kCorrupt.
/// `after`: the rows that follow that one.
Result<StoredChain> open_archive_chain(const std::string& dir, int64_t after = 0);

/// What the manifest of an archive says, without proof of it. Errors: kIncomplete, kCorrupt.
Result<ArchiveManifest> read_archive_manifest(const std::string& dir);

/// Writes a chain as an archive, with its tree; `progress` is told the rows done. `checkpoint_dir`: where a checkpointer keeps
/// what is exported beside the rows; empty: there is none.
/// Errors: kRefused (`out` exists and is not empty), kCorrupt (a line that is no row).
Result<ArchiveManifest> export_archive(StoredChain chain, const std::string& out, Signer& signer,
                                       const std::function<void(int64_t rows)>& progress = {},
                                       const std::string& checkpoint_dir = {});

/// One row of an archive by its sequence, without reading more than the file that holds it. Errors: kNotFound, kCorrupt.
Result<std::string> read_archive_row(const std::string& dir, int64_t sequence);
/// The row of an event: by the index of ids below `index_dir`, and where that does not know it, reading the rows.
/// Errors: kNotFound, kCorrupt.
struct FoundRow {
  int64_t sequence = 0;
  std::string line;
};
Result<FoundRow> find_archive_row(const std::string& dir, std::string_view event_id, const std::string& index_dir);

}  // namespace assay::streams
