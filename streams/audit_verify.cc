#include "streams/audit_verify.h"

#include <algorithm>
#include <charconv>
#include <set>

#include "schemas/json_parse.h"
#include "streams/archive_files.h"
#include "streams/audit_archive.h"
#include "streams/audit_batch.h"
#include "streams/audit_dump.h"
#include "streams/audit_prover.h"
#include "streams/checkpoint_check.h"
#include "streams/corrections_check.h"
#include "streams/gzip.h"
#include "streams/object_store.h"

namespace assay::streams {
namespace {

/// What the manifest and the registry of a directory are worth, found out before any row is read.
struct Surroundings {
  std::vector<Finding> findings;
  std::string manifest_text;
  ArchiveManifest manifest;
  bool manifest_holds = false;            // its signature fits the key it names: its bytes are as they were signed
  std::optional<SignerRegistry> signers;  // to check rows with; absent: signatures cannot be checked
};

Finding file_finding(std::string place, std::string check, std::string detail, Errc code = Errc::kTampered) {
  return {code, 0, {}, std::move(place), std::move(check), std::move(detail)};
}

/// The bytes of a file, or a finding that it is not there.
Result<std::optional<MappedFile>> open_evidence(const std::string& dir, const std::string& name, std::vector<Finding>& findings) {
  Result<MappedFile> file = MappedFile::open(dir + "/" + name);
  if (file) return std::optional<MappedFile>(std::move(file).value());
  if (file.error().code != Errc::kNotFound) return file.error();
  findings.push_back(file_finding(name, "missing", "the file is not there", Errc::kIncomplete));
  return std::optional<MappedFile>();
}

/// A byte changed in manifest.json breaks the signature under the key that the manifest itself names; a byte changed in
/// signers.json breaks the SHA-256 that an unbroken manifest holds. So the two can be told apart. That the key is also one
/// to trust is asked of the registry afterwards.
Result<Surroundings> judge_surroundings(const std::string& dir, const VerifyOptions& options) {
  Surroundings out;
  TRY_ASSIGN(std::optional<MappedFile> manifest_file, open_evidence(dir, "manifest.json", out.findings));
  TRY_ASSIGN(std::optional<MappedFile> signers_file, open_evidence(dir, "signers.json", out.findings));
  if (manifest_file) {
    out.manifest_text = manifest_file->bytes();
    Result<ArchiveManifest> manifest = ArchiveManifest::parse(out.manifest_text);
    if (manifest) {
      out.manifest = std::move(manifest).value();
      SignerRegistry own;
      std::optional<std::string> fault;
      if (Result<void> added = own.add({out.manifest.signer, {}, {}, false}); !added) fault = added.error().message;
      if (!fault) fault = own.check(out.manifest.signer.signer_id, 1, out.manifest.digest(), out.manifest.signature);
      out.manifest_holds = !fault;
      if (fault)
        out.findings.push_back(file_finding("manifest.json", "signature", "it was changed after it was signed: " + *fault));
    } else {
      out.findings.push_back(file_finding("manifest.json", "form", manifest.error().message));
    }
  }

  std::optional<SignerRegistry> beside;
  if (signers_file) {
    Result<SignerRegistry> registry = SignerRegistry::parse(signers_file->bytes());
    if (out.manifest_holds && to_hex(as_bytes(sha256(signers_file->bytes()))) != out.manifest.signers_sha256)
      out.findings.push_back(file_finding("signers.json", "sha256", "its SHA-256 is not the one the manifest holds"));
    else if (!registry)
      out.findings.push_back(file_finding("signers.json", "form", registry.error().message));
    else
      beside = std::move(registry).value();
  }
  out.signers = options.pinned ? options.pinned : std::move(beside);
  if (out.manifest_holds && out.signers) {
    const SignerEntry* known = out.signers->find(out.manifest.signer.signer_id);
    if (known == nullptr || known->key != out.manifest.signer || known->revoked)
      out.findings.push_back(file_finding("manifest.json", "signer",
                                          "it is signed by " + out.manifest.signer.signer_id + ", whose key is not among " +
                                              (options.pinned ? "the pinned ones" : "those of signers.json")));
  }
  return out;
}

/// Proves one file of rows: its bytes against the manifest (when that holds), its lines against the chain.
Result<void> prove_file(const std::string& dir, const std::string& name, const ArchiveFile* expected, RowProver& prover,
                        std::vector<Finding>& findings) {
  TRY_ASSIGN(std::optional<MappedFile> file, open_evidence(dir, name, findings));
  if (!file) {
    prover.lose_link();
    return {};
  }
  const int64_t rows_before = prover.seen();
  LineCutter cutter(name, true, [&](RowBlock block) { prover.add(std::move(block)); });
  Result<void> unpacked = gunzip(file->bytes(), [&](std::string_view part) { return cutter.add(part); });
  // What is left is judged as a row all the same: the byte that is wrong may be its newline.
  const bool unended = unpacked && !cutter.finish();
  prover.drain();
  if (expected != nullptr && to_hex(as_bytes(sha256(file->bytes()))) != expected->sha256)
    findings.push_back(file_finding(name, "sha256", "its SHA-256 is not the one the manifest holds"));
  if (unended) findings.push_back(file_finding(name, "form", "its last line has no newline"));
  if (!unpacked) {
    findings.push_back(file_finding(name, "gzip", unpacked.error().message));
    prover.lose_link();
  }
  if (expected == nullptr) return {};
  const int64_t rows = prover.seen() - rows_before;
  if (rows != expected->rows)
    findings.push_back(file_finding(
        name, "rows", "it holds " + std::to_string(rows) + " rows, the manifest says " + std::to_string(expected->rows)));
  else if (rows > 0 && to_hex(as_bytes(prover.last_hash())) != expected->last_hash && !prover.broken())
    findings.push_back(file_finding(name, "rows", "its last row does not have the hash that the manifest says"));
  return {};
}

void judge_end(const processors::ChainState& head, bool complete, const std::string& place, const RowProver& prover,
               std::vector<Finding>& findings) {
  if (prover.broken()) return;
  if (complete && prover.seen() != head.sequence)
    findings.push_back(file_finding(place, "rows",
                                    "the rows end at " + std::to_string(prover.seen()) + ", the head says " +
                                        std::to_string(head.sequence) + ": the tail was cut off or added to"));
  else if (complete && head.sequence > 0 && prover.last_hash() != head.head_hash)
    findings.push_back(file_finding(place, "head", "the last row does not have the hash that the head says"));
  else if (!complete && prover.seen() > head.sequence)
    findings.push_back(file_finding(place, "rows", "there are rows behind the head"));
}

void judge_emptiness(const VerifyOptions& options, const std::string& place, VerifyReport& report) {
  if (report.findings.empty() && report.rows == 0 && !options.allow_empty)
    report.findings.push_back(file_finding(place, "empty", "there is no row; --allow-empty accepts that", Errc::kIncomplete));
}

/// Notes that were given beside the rows. Without a policy nothing says whose word they are.
void take_given_checkpoints(const VerifyOptions& options, CheckpointCheck& checkpoints) {
  for (const auto& [place, note] : options.checkpoints) checkpoints.add_note(place, note, *options.policy, false);
}

void hear(CorrectionsCheck& corrections, RowProver& prover) {
  prover.tell_control([&](int64_t sequence, std::string_view event_id, std::string_view event_type, std::string_view payload) {
    corrections.add(sequence, event_id, event_type, payload);
  });
}

/// Requires: where the rows begin is known.
void hold_against(CheckpointCheck& checkpoints, RowProver& prover, VerifyReport& report) {
  if (checkpoints.needed() && report.first_row > 1)
    report.findings.push_back(
        file_finding("the checkpoints", "checkpoint",
                     "they speak of a tree of all rows; here are only those from row " + std::to_string(report.first_row) + " on",
                     Errc::kIncomplete));
  else if (checkpoints.needed())
    prover.tell([&](const Sha256Digest& hash, std::string_view event_id, int64_t created_at_us) {
      checkpoints.add_row(hash, event_id, created_at_us);
    });
}

/// What an export has beside its rows: policy, checkpoints and tiles. Each is `named` from then on.
Result<void> take_evidence(const std::string& dir, const ArchiveManifest& manifest, const std::vector<std::string>& present,
                           const VerifyOptions& options, CheckpointCheck& checkpoints, std::set<std::string>& named,
                           std::vector<Finding>& findings) {
  std::vector<std::pair<std::string, std::string>> notes;
  std::optional<NotePolicy> own;
  for (const ArchiveEvidence& one : manifest.evidence) {
    named.insert(one.name);
    TRY_ASSIGN(std::optional<MappedFile> file, open_evidence(dir, one.name, findings));
    if (!file) continue;
    if (to_hex(as_bytes(sha256(file->bytes()))) != one.sha256) {
      findings.push_back(file_finding(one.name, "sha256", "its SHA-256 is not the one the manifest holds"));
    } else if (one.name == "policy") {
      Result<NotePolicy> policy = NotePolicy::parse(file->bytes());
      if (!policy) findings.push_back(file_finding(one.name, "form", policy.error().message));
      if (policy) own = std::move(policy).value();
    } else {
      notes.emplace_back(one.name, file->bytes());
    }
  }
  if (options.policy || own)
    for (const auto& [name, note] : notes)
      checkpoints.add_note(name, note, options.policy ? *options.policy : *own, !options.policy);
  if (manifest.tree_root.empty()) return {};
  std::vector<std::string> files;
  for (const std::string& name : present)
    if (parse_tile_name(name) || (manifest.indexed && parse_id_segment_name(name))) files.push_back(name);
  named.insert(files.begin(), files.end());
  checkpoints.expect_files(dir, files, manifest.indexed);
  return {};
}

void note_keys(const VerifyOptions& options, bool any, VerifyReport& report) {
  report.keys_pinned = options.pinned.has_value();
  report.policy_pinned = options.policy.has_value();
  report.links_only = options.links_only;
  report.signed_from = options.from.value_or(0);
  report.signed_to = options.to.value_or(0);
  report.signatures_checked = any && !options.links_only;
}

Result<VerifyReport> verify_archive_once(const std::string& dir, const VerifyOptions& options, std::string& manifest_text) {
  TRY_ASSIGN(Surroundings around, judge_surroundings(dir, options));
  manifest_text = around.manifest_text;
  const bool being_written = DirectoryLock::held(dir);
  TRY_ASSIGN(std::vector<std::string> present, list_files(dir));

  VerifyReport report;
  note_keys(options, around.signers.has_value(), report);
  report.manifest_checked = around.manifest_holds;
  RowProver prover(report.signatures_checked ? &*around.signers : nullptr, options, report);
  std::vector<Finding> files;
  std::set<std::string> named{"manifest.json", "signers.json"};
  CheckpointCheck checkpoints(report);
  if (around.manifest_holds) TRY(take_evidence(dir, around.manifest, present, options, checkpoints, named, files));
  take_given_checkpoints(options, checkpoints);
  if (around.manifest_holds && !around.manifest.files.empty()) prover.continue_at(around.manifest.files.front().first_sequence);
  hold_against(checkpoints, prover, report);
  CorrectionsCheck corrections(options, report);
  hear(corrections, prover);
  if (around.manifest_holds) {
    for (const ArchiveFile& file : around.manifest.files) {
      named.insert(file.name);
      TRY(prove_file(dir, file.name, &file, prover, files));
    }
    judge_end(around.manifest.head, true, "manifest.json", prover, files);
    // A writer at work has files that its manifest does not name yet, or not any more.
    for (const std::string& name : present)
      if (!being_written && !named.contains(name))
        files.push_back(file_finding(
            name, "unlisted", "the manifest does not name it (what a crash leaves behind goes when the writer starts again)"));
  } else {
    for (const std::string& name : present)
      if (name.starts_with("audit-events/")) TRY(prove_file(dir, name, nullptr, prover, files));
  }
  prover.drain();
  prover.end(dir);
  if (report.first_row == 1) checkpoints.end(prover.broken(), options.policy.has_value(), dir);
  corrections.end(prover.broken());
  if (around.manifest_holds && !prover.broken() && !around.manifest.tree_root.empty() &&
      to_hex(as_bytes(checkpoints.root())) != around.manifest.tree_root)
    files.push_back(file_finding("manifest.json", "tree", "its treeRoot is not the root of the rows' tree"));
  report.findings.insert(report.findings.end(), around.findings.begin(), around.findings.end());
  report.findings.insert(report.findings.end(), files.begin(), files.end());
  judge_emptiness(options, dir, report);
  return report;
}

/// A batch of an archive that is only added to, as far as what tells of it can be read.
struct ToldBatch {
  std::string name;  // of what tells of it
  std::string text;
  std::optional<AuditBatch> batch;
};

std::vector<std::string> names_below(const std::vector<std::string>& names, std::string_view folder) {
  std::vector<std::string> out;
  std::ranges::copy_if(names, std::back_inserter(out), [&](const std::string& name) { return name.starts_with(folder); });
  return out;
}

/// Reads what tells of the batches, the keys of the newest, and judges all that can be judged without their rows.
Result<std::vector<ToldBatch>> judge_batches(const std::string& dir, const std::vector<std::string>& present,
                                             const VerifyOptions& options, std::optional<SignerRegistry>& signers,
                                             std::set<std::string>& named, std::vector<Finding>& findings) {
  std::vector<ToldBatch> told;
  std::optional<std::string> before;  // SHA-256 of what told of the batch before; absent: not to be held against the next
  int64_t next = 1;                   // that follows it
  for (const std::string& name : names_below(present, kBatchFolder)) {
    named.insert(name);
    TRY_ASSIGN(std::optional<MappedFile> file, open_evidence(dir, name, findings));
    if (!file) continue;
    ToldBatch one{name, std::string(file->bytes()), {}};
    Result<AuditBatch> batch = AuditBatch::parse(one.text);
    if (!batch) findings.push_back(file_finding(name, "form", batch.error().message));
    std::optional<std::string> fault;
    if (batch) {
      SignerRegistry own;
      if (Result<void> added = own.add({batch->signer, {}, {}, false}); !added) fault = added.error().message;
      if (!fault) fault = own.check(batch->signer.signer_id, 1, batch->digest(), batch->signature);
      if (fault) findings.push_back(file_finding(name, "signature", "it was changed after it was signed: " + *fault));
      if (!fault && batch->name() != name)
        findings.push_back(file_finding(name, "name", "it tells of the batch of " + batch->name()));
      if (!fault && before && batch->file.first_sequence == next && batch->previous != *before)
        findings.push_back(file_finding(name, "previous", "what it follows is not what stands before it"));
    }
    before.reset();
    if (batch && !fault) {
      before = to_hex(as_bytes(sha256(one.text)));
      next = batch->last_sequence() + 1;
      const std::string keys = batch->signers_name();
      if (named.insert(keys).second) {
        TRY_ASSIGN(std::optional<MappedFile> registry, open_evidence(dir, keys, findings));
        Result<SignerRegistry> parsed = Error{};
        if (registry && to_hex(as_bytes(sha256(registry->bytes()))) != batch->signers_sha256)
          findings.push_back(file_finding(keys, "sha256", "its SHA-256 is not the one in its name"));
        else if (registry && !(parsed = SignerRegistry::parse(registry->bytes())))
          findings.push_back(file_finding(keys, "form", parsed.error().message));
        if (parsed) signers = std::move(parsed).value();  // the newest that can be read
      }
      one.batch = std::move(batch).value();
    }
    told.push_back(std::move(one));
  }
  if (options.pinned) signers = options.pinned;
  for (const ToldBatch& one : told) {
    if (!one.batch || !signers) continue;
    const SignerKey& signer = one.batch->signer;
    const SignerEntry* known = signers->find(signer.signer_id);
    if (known == nullptr || known->key != signer || (known->revoked && known->attested_through < one.batch->last_sequence()))
      findings.push_back(file_finding(one.name, "signer",
                                      "it is signed by " + signer.signer_id + ", whose key is not among " +
                                          (options.pinned ? "the pinned ones" : "those of the newest batch") + ", or was revoked"));
  }
  return told;
}

/// Proves an archive that is only added to (audit_batch.h). `newest` becomes the name of its last batch.
Result<VerifyReport> verify_batches_once(const std::string& dir, const VerifyOptions& options, std::string& newest) {
  TRY_ASSIGN(std::vector<std::string> present, list_files(dir));
  // What a killed process was writing has no name yet.
  std::erase_if(present, [](const std::string& name) { return name.substr(name.rfind('/') + 1).starts_with(kUnnamedObject); });
  VerifyReport report;
  std::vector<Finding> files;
  std::set<std::string> named;
  std::optional<SignerRegistry> signers;
  TRY_ASSIGN(const std::vector<ToldBatch> told, judge_batches(dir, present, options, signers, named, files));
  if (!told.empty()) newest = told.back().name;
  note_keys(options, signers.has_value(), report);
  RowProver prover(report.signatures_checked ? &*signers : nullptr, options, report);
  CheckpointCheck checkpoints(report);
  for (const std::string& name : names_below(present, "checkpoints/")) {
    named.insert(name);
    if (!options.policy) continue;  // nothing says whose word they are
    TRY_ASSIGN(std::optional<MappedFile> note, open_evidence(dir, name, files));
    if (note) checkpoints.add_note(name, note->bytes(), *options.policy, false);
  }
  take_given_checkpoints(options, checkpoints);
  hold_against(checkpoints, prover, report);
  for (const ToldBatch& one : told) {
    const int64_t first = std::strtoll(one.name.c_str() + kBatchFolder.size(), nullptr, 10), next = prover.seen() + 1;
    if (first > next) {
      files.push_back(file_finding(AuditBatch::name_of(next), "missing",
                                   "rows " + std::to_string(next) + " to " + std::to_string(first - 1) + " are not there",
                                   Errc::kIncomplete));
      prover.lose_link();
      prover.continue_at(first);
    } else if (first < next) {
      files.push_back(file_finding(one.name, "double", "rows from " + std::to_string(first) + " on are there already"));
      if (one.batch) named.insert(one.batch->file.name);
      continue;
    }
    std::string name = one.batch ? one.batch->file.name : "";
    if (!one.batch) {  // its rows can be told by their name
      const std::string digits = archive_file_name(0, first, first).substr(24, 13);
      for (const std::string& row_file : names_below(present, "audit-events/"))
        if (row_file.substr(row_file.rfind('/') + 1).starts_with(digits)) name = row_file;
    }
    if (name.empty()) {
      prover.lose_link();
      continue;
    }
    named.insert(name);
    TRY(prove_file(dir, name, one.batch ? &one.batch->file : nullptr, prover, files));
    if (one.batch && prover.seen() != one.batch->last_sequence()) {
      prover.lose_link();
      prover.continue_at(one.batch->last_sequence() + 1);
    }
  }
  prover.drain();
  for (const std::string& name : present)
    if (!named.contains(name)) files.push_back(file_finding(name, "unlisted", "no batch names it"));
  prover.end(dir);
  checkpoints.end(prover.broken(), options.policy.has_value(), dir);
  report.findings.insert(report.findings.end(), files.begin(), files.end());
  judge_emptiness(options, dir, report);
  return report;
}

/// Whether a directory is an archive that is only added to.
bool has_batches(const std::string& dir) {
  Result<std::vector<std::string>> batches = list_files(dir + "/" + std::string(kBatchFolder));
  return batches && !batches->empty() && !MappedFile::open(dir + "/manifest.json");
}

}  // namespace

Result<VerifyReport> verify_archive(const std::string& dir, const VerifyOptions& options) {
  while (has_batches(dir)) {
    // A batch may be added while we look: what was found wrong counts only if the last one is still the one that we saw.
    std::string newest;
    Result<VerifyReport> report = verify_batches_once(dir, options, newest);
    if (!report || report->verified()) return report;
    TRY_ASSIGN(const std::vector<std::string> now, list_files(dir + "/" + std::string(kBatchFolder)));
    if (now.empty() || newest == std::string(kBatchFolder) + now.back()) return report;
  }
  // A writer may merge files under our feet: what was found wrong counts only if the manifest is still the one we read.
  constexpr int kTries = 10;
  for (int tries = 1;; ++tries) {
    std::string read, now;
    Result<VerifyReport> report = verify_archive_once(dir, options, read);
    if ((report && report->verified()) || tries == kTries) return report;
    if (Result<MappedFile> manifest = MappedFile::open(dir + "/manifest.json")) now = manifest->bytes();
    if (now == read) {
      if (!report && report.error().code == Errc::kNotFound)
        return Error{Errc::kIncomplete, "verifying " + dir + ": " + report.error().message};
      return report;
    }
  }
}

Result<VerifyReport> verify_chain(const StoredChain& chain, const VerifyOptions& options) {
  VerifyReport report;
  note_keys(options, true, report);
  const SignerRegistry& signers = options.pinned ? *options.pinned : chain.signers;
  RowProver prover(report.signatures_checked ? &signers : nullptr, options, report);
  CheckpointCheck checkpoints(report);
  take_given_checkpoints(options, checkpoints);
  prover.continue_at(chain.first);
  hold_against(checkpoints, prover, report);
  CorrectionsCheck corrections(options, report);
  hear(corrections, prover);
  std::string place = "the chain";
  while (true) {
    TRY_ASSIGN(std::vector<StoredLine> lines, chain.lines());
    if (lines.empty()) break;
    place = lines.front().place;
    RowBlock block;
    block.every_byte_counts = false;  // a database keeps values, not bytes
    for (StoredLine& line : lines) {
      block.text += line.text;
      block.ends.push_back(static_cast<uint32_t>(block.text.size()));
      block.places.push_back(std::move(line.place));
      if (line.sequence != 0) block.sequences.push_back(line.sequence);
    }
    CHECK(block.sequences.empty() || block.sequences.size() == block.rows());
    prover.add(std::move(block));
  }
  prover.drain();
  if (chain.last > 0 && prover.seen() != chain.last && !prover.broken())
    report.findings.push_back(
        file_finding(place, "rows", "the rows end at " + std::to_string(prover.seen()) + ", not at " + std::to_string(chain.last)));
  else
    judge_end(chain.head, chain.complete, place, prover, report.findings);
  prover.end(place);
  if (report.first_row == 1) checkpoints.end(prover.broken(), options.policy.has_value(), place);
  corrections.end(prover.broken());
  judge_emptiness(options, place, report);
  return report;
}

Result<VerifyReport> verify_files(std::vector<LooseFile> files, const VerifyOptions& options) {
  constexpr size_t kReadBytes = 128 << 10;
  VerifyReport report;
  note_keys(options, options.pinned.has_value(), report);
  RowProver prover(report.signatures_checked ? &*options.pinned : nullptr, options, report);
  CheckpointCheck checkpoints(report);
  take_given_checkpoints(options, checkpoints);
  hold_against(checkpoints, prover, report);
  CorrectionsCheck corrections(options, report);
  hear(corrections, prover);
  std::string buffer(kReadBytes, '\0');
  std::vector<Finding> findings;
  std::optional<processors::ChainState> head;
  bool complete = true;  // the rows reach the head, or they do not reach what it says
  for (LooseFile& file : files) {
    LooseReader reader(
        file.name, [&](RowBlock block) { prover.add(std::move(block)); }, file.again);
    while (true) {
      Result<size_t> got = file.read(buffer.data(), buffer.size());
      if (!got && got.error().code != Errc::kCorrupt) return got.error();
      Result<void> taken = got ? reader.add({buffer.data(), *got}) : Result<void>(got.error());
      if (taken && *got == 0) taken = reader.finish();
      if (!taken) {
        const bool missing = taken.error().code == Errc::kIncomplete;
        findings.push_back(file_finding(file.name, missing ? "missing" : "form", taken.error().message,
                                        missing ? Errc::kIncomplete : Errc::kTampered));
        prover.lose_link();
      }
      if (!taken || *got == 0) break;
    }
    if (reader.head()) head = reader.head();
    complete = complete && (reader.waiting() == 0 || reader.head_is_signed());
  }
  prover.drain();
  const std::string place = files.empty() ? "the files" : files.back().name;
  if (head) judge_end(*head, complete, place, prover, findings);
  report.findings.insert(report.findings.end(), findings.begin(), findings.end());
  prover.end(place);
  checkpoints.end(prover.broken(), options.policy.has_value(), place);
  corrections.end(prover.broken());
  if (!options.links_only && !options.pinned)
    report.findings.push_back(
        file_finding(place, "keys", "there are no keys to check signatures with; --signers FILE gives them", Errc::kIncomplete));
  judge_emptiness(options, place, report);
  return report;
}

Result<EarlierHead> parse_earlier_head(std::string_view text) {
  Error bad{Errc::kUsage, "reading an earlier head: it is neither ROWS:HASH nor what `assay audit head -o json` prints"};
  while (text.ends_with('\n')) text.remove_suffix(1);
  EarlierHead head;
  if (text.starts_with('{')) {
    Result<Json> document = parse_json(text);
    if (!document) return bad;
    const double rows = document->number_or("rows", 0);
    if (!(rows >= 1 && rows <= 9007199254740992.0)) return bad;
    head = {static_cast<int64_t>(rows), std::string(document->string_or("headHash", ""))};
  } else {
    const size_t colon = text.find(':');
    if (colon == text.npos) return bad;
    auto [end, error] = std::from_chars(text.data(), text.data() + colon, head.rows);
    if (error != std::errc() || end != text.data() + colon || head.rows < 1) return bad;
    head.hash = text.substr(colon + 1);
  }
  if (Result<std::string> raw = from_hex(head.hash); !raw || raw->size() != sizeof(Sha256Digest)) return bad;
  return head;
}

}  // namespace assay::streams
