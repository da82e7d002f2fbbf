// Proves a chain: every byte of every row, every link, every signature, and the files around them. Knows no log and no database.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "processors/personal.h"
#include "schemas/json.h"
#include "streams/audit_sink.h"
#include "streams/note_policy.h"

namespace assay::streams {

/// One thing that does not hold.
struct Finding {
  Errc code = Errc::kTampered;  // kTampered or kIncomplete
  int64_t sequence = 0;         // of the row; 0: a byte outside any row
  std::string event_id;         // of the row, as far as it can be read
  std::string place;            // file:line, file, or relation
  std::string check;            // which check failed, in one word: "hash", "link", "signature", "canonical", "sha256" …
  std::string detail;           // one sentence
};

struct VerifyReport {
  std::vector<Finding> findings;  // rows first; empty: verified
  int64_t first_row = 1;          // what lies before it was not looked at
  int64_t rows = 0;               // proven, from that one on
  std::string first_id, last_id;  // of the proven rows
  int64_t first_created_at_us = 0, last_created_at_us = 0;
  std::string head_hash;     // of the last proven row
  bool keys_pinned = false;  // else the keys came with the rows, and prove only that the parts fit together
  bool signatures_checked = true;
  bool links_only = false;  // signatures were left out because that was asked for
  int64_t signed_from = 0,
          signed_to = 0;          // rows whose signatures were looked at, where not all were to be; 0: from the first, to the last
  bool manifest_checked = false;  // a signed manifest says how many rows there were when it was written
  bool earlier_head_reached = false;  // the chain is the one that an earlier head was taken from
  int64_t equivalent_rows = 0;        // proven ones whose text is not canonical, but whose canonical form is what was signed
  std::string first_equivalent;       // the first of them, and its place
  int64_t checkpoints = 0;            // signed ones that the rows agree with
  int64_t checkpoint_rows = 0;        // of the greatest of them
  int64_t witnessed_rows = 0;         // of the greatest that enough witnesses cosigned …
  int64_t witnessed_s = 0;            // … when the last of them did, seconds since the epoch
  std::string witnesses;              // … and their names
  bool policy_pinned = false;         // else the keys of log and witnesses came with the rows
  std::vector<processors::Reconciled> reconciled;  // ranges of topics that proven rows say are missing for good
  std::vector<std::string> holds;                  // legal holds in force
  int64_t personal_references = 0;                 // to personal data, in proven rows
  bool personal_checked = false;                   // plaintexts were given …
  int64_t personal_plaintexts = 0;                 // … and so many fit their commitments
  int64_t personal_erased = 0;                     // commitments whose plaintext an event says was erased
  int64_t last_row() const { return first_row + rows - 1; }
  bool verified() const { return findings.empty(); }
  /// 0, 4 or 8; tampering outweighs what is missing.
  int exit_code() const;
};

/// Where a chain once stood, as `audit head` said.
struct EarlierHead {
  int64_t rows = 0;
  std::string hash;  // 64 hex digits
};

struct VerifyOptions {
  std::optional<SignerRegistry> pinned;  // keys from elsewhere
  std::optional<EarlierHead> earlier_head;
  std::optional<NotePolicy> policy;                              // keys of log and witnesses, from elsewhere
  std::vector<std::pair<std::string, std::string>> checkpoints;  // notes from elsewhere: their place and text
  std::optional<std::vector<processors::PersonalRow>> personal;  // plaintexts to hold the rows' commitments against; in memory
  bool links_only = false;          // hashes, links and what is signed around the rows; no signature of a row
  std::optional<int64_t> from, to;  // the signatures of these rows alone; every hash and every link all the same
  bool allow_empty = false;
  unsigned threads = 0;  // 0: one per core
  std::function<void(int64_t rows)> progress;
};

/// Proves an archive directory: an export, or batches as they are uploaded (audit_batch.h). Memory is bounded whatever its size.
/// Findings are in the report; an Error means that it could not be looked at. Errors: kUnexpected (a file that cannot be read).
Result<VerifyReport> verify_archive(const std::string& dir, const VerifyOptions& options);

/// Proves rows from any source (a database) against the head stored beside them.
Result<VerifyReport> verify_chain(const StoredChain& chain, const VerifyOptions& options);

/// Up to `size` bytes; 0 at the end.
using ByteReader = std::function<Result<size_t>(char* into, size_t size)>;

struct LooseFile {
  std::string name;
  ByteReader read;
  /// Opens it anew, from its beginning: signatures that came late stand behind the rows of a dump. Absent: it comes by once.
  std::function<Result<ByteReader>()> again = {};
};
/// Proves rows without a manifest around them: lines of an archive, a PostgreSQL dump (COPY text, with or without the rest of
/// pg_dump), several files one after the other. A row in another form than the canonical one is noted and stands.
/// Errors: those of the readers.
Result<VerifyReport> verify_files(std::vector<LooseFile> files, const VerifyOptions& options);

/// The verdict for people: "Audit chain verified" and a summary, or every finding; then what is proven, and what is not.
std::string to_text(const VerifyReport& report);
Json to_json(const VerifyReport& report);
/// What was proven and what was not, in one sentence.
std::string sentence(const VerifyReport& report);

/// Reads `audit head -o json`, or "ROWS:HASH". Errors: kUsage.
Result<EarlierHead> parse_earlier_head(std::string_view text);

}  // namespace assay::streams
