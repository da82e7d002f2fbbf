#include "streams/audit_verify.h"

#include <algorithm>
#include <deque>
#include <filesystem>
#include <future>
#include <set>
#include <thread>

#include "processors/audit_chain.h"
#include "schemas/time.h"
#include "streams/archive_files.h"
#include "streams/audit_archive.h"
#include "streams/gzip.h"

namespace assay::streams {
namespace {

constexpr size_t kBlockLines = 256;
constexpr size_t kBlockBytes = 1 << 20;
constexpr size_t kRowFindingsMax = 20;      // enough to act on; a broken disk would name them all
constexpr size_t kLineBytesMax = 64 << 20;  // a record is never so long: what unpacks to more is no row

/// The id that can still be seen in a line that is no row any more.
std::string visible_id(std::string_view line) {
  constexpr std::string_view kStart = "\"id\":\"av-";
  constexpr size_t kIdBytes = 35;  // av- and 32 digits
  for (size_t at = line.find(kStart); at != line.npos; at = line.find(kStart, at + 1)) {
    std::string_view id = line.substr(at + kStart.size() - 3, kIdBytes);
    if (id.size() == kIdBytes && Id::parse(id.substr(3))) return std::string(id);
  }
  return {};
}

/// What one row tells by itself, whatever stands around it.
struct RowVerdict {
  std::optional<SignedRow> row;  // absent: the line is no row
  int64_t recorded_at_ms = 0;
  std::string event_id;
  std::string check, detail;  // empty: sound by itself
};

RowVerdict judge_row(const StoredLine& line, int64_t sequence, const SignerRegistry* signers) {
  RowVerdict verdict;
  auto fail = [&](std::string check, std::string detail) {
    verdict.check = std::move(check);
    verdict.detail = std::move(detail);
    return verdict;
  };
  Json payload;
  Result<SignedRow> row = parse_audit_line(line.text, &payload);
  if (!row) {
    verdict.event_id = visible_id(line.text);
    return fail("form", row.error().message);
  }
  verdict.row = std::move(row).value();
  const processors::AuditRow& stored = verdict.row->row;
  Result<processors::EnvelopeView> envelope = processors::read_payload(payload);
  verdict.event_id = stored.id;
  if (processors::chain_hash(stored.payload, stored.prev_hash) != stored.hash)
    return fail("hash", "SHA-256 of its payload and prev_hash is not its hash");
  if (!envelope) return fail("payload", envelope.error().message);
  verdict.event_id = envelope->id;  // the hash vouches for it
  verdict.recorded_at_ms = envelope->recorded_at_ms;
  if (stored.id != envelope->id) return fail("metadata", "its id \"" + stored.id + "\" is not its payload's");
  if (stored.event_type != envelope->event_type)
    return fail("metadata",
                "its event_type \"" + stored.event_type + "\" is not its payload's \"" + std::string(envelope->event_type) + "\"");
  if (signers != nullptr)
    if (auto fault = signers->check(verdict.row->signer_kid, sequence, stored.hash, verdict.row->signature))
      return fail("signature", *fault);
  return verdict;
}

/// Proves rows in chain order. Each row by itself is judged on all cores; the links are followed in order.
class RowProver {
 public:
  RowProver(const SignerRegistry* signers, const VerifyOptions& options, VerifyReport& report)
      : signers_(signers), progress_(options.progress), report_(report) {
    threads_ = options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  }

  void add(StoredLine line) {
    filling_bytes_ += line.text.size();
    filling_.push_back(std::move(line));
    if (filling_.size() >= kBlockLines || filling_bytes_ >= kBlockBytes) send();
  }

  /// Waits until everything added is judged.
  void drain() {
    send();
    while (!running_.empty()) take();
  }

  /// After rows that could not be read: the next row's link proves nothing and is not held against it.
  void lose_link() {
    drain();
    linked_ = false;
    broken_ = true;
  }

  int64_t seen() const { return sequence_; }
  const Sha256Digest& last_hash() const { return previous_.hash; }
  bool broken() const { return broken_; }

 private:
  struct Judged {
    std::vector<StoredLine> lines;
    std::vector<RowVerdict> verdicts;
  };

  void send() {
    if (filling_.empty()) return;
    while (running_.size() >= threads_ + 1) take();
    const int64_t first = sent_ + 1;
    sent_ += std::ssize(filling_);
    running_.push_back(std::async(std::launch::async, [lines = std::move(filling_), first, signers = signers_]() mutable {
      Judged judged{std::move(lines), {}};
      judged.verdicts.reserve(judged.lines.size());
      for (size_t i = 0; i < judged.lines.size(); ++i) {
        const StoredLine& line = judged.lines[i];
        judged.verdicts.push_back(judge_row(line, line.sequence != 0 ? line.sequence : first + static_cast<int64_t>(i), signers));
      }
      return judged;
    }));
    filling_.clear();
    filling_bytes_ = 0;
  }

  void take() {
    Judged judged = running_.front().get();
    running_.pop_front();
    for (size_t i = 0; i < judged.lines.size(); ++i) follow(judged.verdicts[i], judged.lines[i]);
    if (progress_) progress_(sequence_);
  }

  /// Joins a judged row to the chain.
  void follow(RowVerdict& verdict, const StoredLine& line) {
    ++sequence_;
    if (line.sequence != 0 && line.sequence != sequence_) {
      if (verdict.check.empty()) {
        verdict.check = "sequence";
        verdict.detail =
            "its sequence is " + std::to_string(line.sequence) + ", the row before it calls for " + std::to_string(sequence_);
      }
      sequence_ = line.sequence;
    } else if (verdict.check.empty()) {
      judge_link(verdict);
    }
    if (!verdict.check.empty()) {
      broken_ = true;
      if (row_findings_++ < kRowFindingsMax)
        report_.findings.push_back({Errc::kTampered, sequence_, verdict.event_id, line.place, verdict.check, verdict.detail});
    }
    linked_ = verdict.row.has_value();
    if (!linked_) return;
    previous_ = verdict.row->row;
    if (broken_) return;
    ++report_.rows;
    if (report_.rows == 1) {
      report_.first_id = previous_.id;
      report_.first_created_at_us = previous_.created_at_us;
    }
    report_.last_id = previous_.id;
    report_.last_created_at_us = previous_.created_at_us;
    report_.head_hash = to_hex(as_bytes(previous_.hash));
  }

  void judge_link(RowVerdict& verdict) {
    const processors::AuditRow& row = verdict.row->row;
    if (!linked_) return;
    if (sequence_ == 1 && row.prev_hash) {
      verdict.check = "link";
      verdict.detail = "it is the first row but has a prev_hash: rows before it are missing";
    } else if (sequence_ > 1 && (!row.prev_hash || *row.prev_hash != previous_.hash)) {
      verdict.check = "link";
      verdict.detail = "its prev_hash is not the hash of the row before it";
    } else if (row.created_at_us != processors::chain_created_at_us(verdict.recorded_at_ms, sequence_, previous_.created_at_us)) {
      verdict.check = "created_at";
      verdict.detail = "its created_at is not the later of its record's timestamp and the row before + 1 µs";
    }
  }

  const SignerRegistry* signers_;
  std::function<void(int64_t)> progress_;
  VerifyReport& report_;
  unsigned threads_ = 1;
  std::vector<StoredLine> filling_;
  size_t filling_bytes_ = 0;
  std::deque<std::future<Judged>> running_;
  int64_t sent_ = 0, sequence_ = 0;
  processors::AuditRow previous_;
  bool linked_ = true;   // `previous_` is the row before
  bool broken_ = false;  // a row did not hold: nothing after it counts as proven
  size_t row_findings_ = 0;
};

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
  std::string rest;
  int64_t line = 0;
  Result<void> unpacked = gunzip(file->bytes(), [&](std::string_view part) -> Result<void> {
    for (size_t end; (end = part.find('\n')) != part.npos; part.remove_prefix(end + 1)) {
      rest += part.substr(0, end);
      prover.add({std::move(rest), name + ":" + std::to_string(++line), 0});
      rest.clear();
    }
    rest += part;
    if (rest.size() > kLineBytesMax) return Error{Errc::kCorrupt, "a line of it has no end"};
    return {};
  });
  const bool unended = unpacked && !rest.empty();  // judged as a row all the same: the byte that is wrong may be its newline
  if (unended) prover.add({std::move(rest), name + ":" + std::to_string(++line), 0});
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

Result<VerifyReport> verify_archive_once(const std::string& dir, const VerifyOptions& options, std::string& manifest_text) {
  TRY_ASSIGN(Surroundings around, judge_surroundings(dir, options));
  manifest_text = around.manifest_text;
  const bool being_written = DirectoryLock::held(dir);
  TRY_ASSIGN(std::vector<std::string> present, list_files(dir));

  VerifyReport report;
  report.keys_pinned = options.pinned.has_value();
  report.signatures_checked = around.signers.has_value();
  RowProver prover(around.signers ? &*around.signers : nullptr, options, report);
  std::vector<Finding> files;
  std::set<std::string> named{"manifest.json", "signers.json"};
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
  report.findings.insert(report.findings.end(), around.findings.begin(), around.findings.end());
  report.findings.insert(report.findings.end(), files.begin(), files.end());
  judge_emptiness(options, dir, report);
  return report;
}

std::string quoted_row(int64_t sequence, const std::string& id) {
  return "row " + std::to_string(sequence) + (id.empty() ? " (its event id cannot be read)" : ", event " + id);
}

}  // namespace

int VerifyReport::exit_code() const {
  if (findings.empty()) return 0;
  const bool tampered = std::ranges::any_of(findings, [](const Finding& finding) { return finding.code == Errc::kTampered; });
  return schemas::exit_code(tampered ? Errc::kTampered : Errc::kIncomplete);
}

Result<VerifyReport> verify_archive(const std::string& dir, const VerifyOptions& options) {
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
  report.keys_pinned = options.pinned.has_value();
  const SignerRegistry& signers = options.pinned ? *options.pinned : chain.signers;
  RowProver prover(&signers, options, report);
  std::string place = "the chain";
  while (true) {
    TRY_ASSIGN(std::vector<StoredLine> block, chain.lines());
    if (block.empty()) break;
    place = block.front().place;
    for (StoredLine& line : block) prover.add(std::move(line));
  }
  prover.drain();
  judge_end(chain.head, chain.complete, place, prover, report.findings);
  judge_emptiness(options, place, report);
  return report;
}

std::string to_text(const VerifyReport& report) {
  std::string out;
  auto proven = [&](const char* label) {
    out += label + std::to_string(report.rows) + " rows";
    if (report.rows > 0) {
      out += "\n  first      " + format_rfc3339_us(report.first_created_at_us) + "  " + report.first_id;
      out += "\n  last       " + format_rfc3339_us(report.last_created_at_us) + "  " + report.last_id;
      out += "\n  head hash  " + report.head_hash;
    }
    out += '\n';
  };
  if (report.verified()) {
    out += "Audit chain verified\n";
    proven("  rows       ");
  } else {
    out += report.exit_code() == schemas::exit_code(Errc::kTampered) ? "Audit chain NOT verified: tampered with\n"
                                                                     : "Audit chain NOT verified: evidence is missing\n";
    for (const Finding& finding : report.findings) {
      out +=
          "  " + (finding.sequence > 0 ? quoted_row(finding.sequence, finding.event_id) + ", at " : std::string()) + finding.place;
      out += ": check \"" + finding.check + "\" failed: " + finding.detail + '\n';
    }
    proven("Still proven, from the first row: ");
  }
  if (!report.signatures_checked)
    out += "  No signature was checked: there are no keys to check them with.\n";
  else if (!report.keys_pinned)
    out += "  The keys were not pinned: they came with the rows. --signers FILE gives keys that you trust.\n";
  return out;
}

Json to_json(const VerifyReport& report) {
  Json findings = Json::array();
  for (const Finding& finding : report.findings) {
    Json one = Json::object();
    one.set("place", finding.place).set("check", finding.check).set("detail", finding.detail);
    if (finding.sequence > 0) one.set("sequence", std::to_string(finding.sequence)).set("eventId", finding.event_id);
    one.set("verdict", finding.code == Errc::kTampered ? "tampered" : "missing");
    findings.push_back(std::move(one));
  }
  const bool any = report.rows > 0;
  Json out = Json::object();
  out.set("verified", report.verified()).set("rows", std::to_string(report.rows));
  out.set("firstId", any ? Json(report.first_id) : Json()).set("lastId", any ? Json(report.last_id) : Json());
  out.set("firstCreatedAt", any ? Json(format_rfc3339_us(report.first_created_at_us)) : Json());
  out.set("lastCreatedAt", any ? Json(format_rfc3339_us(report.last_created_at_us)) : Json());
  out.set("headHash", any ? Json(report.head_hash) : Json()).set("keysPinned", report.keys_pinned);
  out.set("signaturesChecked", report.signatures_checked).set("findings", std::move(findings));
  return out;
}

}  // namespace assay::streams
