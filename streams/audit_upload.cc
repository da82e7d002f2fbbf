#include "streams/audit_upload.h"

#include <algorithm>
#include <utility>
#include <vector>

#include "schemas/time.h"
#include "streams/audit_prover.h"
#include "streams/gzip.h"

namespace assay::streams {

struct AuditUploader::Rows {
  std::string text;  // lines
  int64_t first_sequence = 0, count = 0;
  int64_t first_created_at_us = 0;
  std::string first_hash, last_hash;
  std::optional<std::string> prev_hash;  // of the first

  ArchiveFile file(const std::string& packed) const {
    ArchiveFile out;
    out.name = archive_file_name(first_created_at_us, first_sequence, first_sequence + count - 1);
    out.first_sequence = first_sequence;
    out.rows = count;
    out.size_bytes = std::ssize(packed);
    out.raw_size_bytes = std::ssize(text);
    out.first_hash = first_hash;
    out.last_hash = last_hash;
    out.sha256 = to_hex(as_bytes(sha256(packed)));
    return out;
  }
};

/// Takes rows out of a chain, and proves them on the way: what is stored here is there for good.
class AuditUploader::Reader {
 public:
  /// From row `first` on. Requires: the chain gives it next.
  Reader(StoredChain& chain, int64_t first)
      : chain_(chain), next_(first), keys_(bare(chain.signers)), proving_(in_one_thread()), prover_(&keys_, proving_, report_) {
    prover_.continue_at(first);
  }

  /// Rows that belong into one file: of one day, as many as the limits allow; none at the end.
  Result<Rows> take(int64_t rows_max, int64_t raw_bytes_max) {
    Rows out;
    out.first_sequence = next_;
    RowBlock block;
    block.every_byte_counts = false;  // a database keeps values; their canonical form is what is stored
    while (out.count < rows_max) {
      TRY(fill());
      if (taken_ == lines_.size()) break;
      StoredLine& line = lines_[taken_];
      bool canonical_text = true;
      Result<SignedRow> row = parse_audit_line(line.text, nullptr, &canonical_text);
      if (!row) return broken(line.place + ": " + row.error().message);
      const std::string text = canonical_text ? line.text : audit_line(*row);
      const int64_t created_at_us = row->row.created_at_us;
      if (out.count == 0) {
        out.first_created_at_us = created_at_us;
        out.first_hash = to_hex(as_bytes(row->row.hash));
        if (row->row.prev_hash) out.prev_hash = to_hex(as_bytes(*row->row.prev_hash));
      } else if (floor_to(created_at_us, kDayMs * 1000) != floor_to(out.first_created_at_us, kDayMs * 1000) ||
                 std::ssize(out.text) + std::ssize(text) >= raw_bytes_max) {
        break;
      }
      out.last_hash = to_hex(as_bytes(row->row.hash));
      out.text += text;
      out.text += '\n';
      ++out.count;
      block.text += line.text;
      block.ends.push_back(static_cast<uint32_t>(block.text.size()));
      block.places.push_back(std::move(line.place));
      if (line.sequence != 0) block.sequences.push_back(line.sequence);
      ++taken_;
    }
    next_ += out.count;
    prover_.add(std::move(block));
    prover_.drain();
    if (report_.findings.empty()) return out;
    const Finding& finding = report_.findings.front();
    return broken(finding.place + ": check \"" + finding.check + "\" failed: " + finding.detail);
  }

 private:
  /// The keys whatever became of them: whether a revoked one's rows count is asked when they are verified, and may change.
  static SignerRegistry bare(const SignerRegistry& keys) {
    SignerRegistry out;
    for (const auto& [id, entry] : keys.entries()) CHECK(out.add({entry.key, {}, {}, false}).has_value());
    return out;
  }
  static VerifyOptions in_one_thread() {
    VerifyOptions out;
    out.threads = 1;
    return out;
  }
  static Error broken(const std::string& what) { return {Errc::kTampered, "archiving the audit chain: " + what}; }

  Result<void> fill() {
    if (taken_ < lines_.size() || ended_) return {};
    TRY_ASSIGN(lines_, chain_.lines());
    taken_ = 0;
    ended_ = lines_.empty();
    return {};
  }

  StoredChain& chain_;
  int64_t next_;
  std::vector<StoredLine> lines_;
  size_t taken_ = 0;
  bool ended_ = false;
  const SignerRegistry keys_;
  const VerifyOptions proving_;
  VerifyReport report_;
  RowProver prover_;
};

AuditUploader::AuditUploader(std::shared_ptr<ObjectStore> objects, OpenChain open_chain, AuditUploadOptions options)
    : objects_(std::move(objects)), open_chain_(std::move(open_chain)), options_(std::move(options)) {}

Result<int64_t> AuditUploader::upload(Signer& signer) {
  // A chain of files may be merged under our feet; then it is read anew from where we are.
  constexpr int kTries = 10;
  for (int tries = 1;; ++tries) {
    if (!looked_) TRY(look());
    const int64_t before = rows();
    Result<void> passed = pass(signer);
    if (passed && looked_) return rows();
    if (!passed && (passed.error().code != Errc::kIncomplete || tries == kTries)) return passed.error();
    if (tries == kTries)
      return Error{Errc::kUnreachable,
                   "archiving the audit chain in " + objects_->describe() + ": others are archiving it all the time"};
    if (rows() > before) tries = 0;
  }
}

/// What is there, by the place itself.
Result<void> AuditUploader::look() {
  TRY_ASSIGN(const std::vector<std::string> names, objects_->list(std::string(kBatchFolder)));
  last_.reset();
  last_text_.clear();
  if (!names.empty()) {
    TRY_ASSIGN(last_text_, objects_->get(names.back()));
    Result<AuditBatch> batch = AuditBatch::parse(last_text_);
    if (!batch || batch->name() != names.back())
      return Error{Errc::kTampered, "archiving the audit chain in " + objects_->describe() + ": " + names.back() + ": " +
                                        (batch ? "it tells of another batch" : batch.error().message)};
    last_ = std::move(batch).value();
    TRY_ASSIGN(const std::vector<std::string> stored, objects_->list(last_->file.name));
    last_stored_ = std::ranges::find(stored, last_->file.name) != stored.end();
  }
  looked_ = true;
  return {};
}

/// Whether the place is this chain's: by the keys that may sign for it. Its rows are compared where they are read.
Result<void> AuditUploader::check_last(const SignerRegistry& keys) const {
  SignerRegistry own;
  TRY(own.add({last_->signer, {}, {}, false}));
  std::optional<std::string> fault = own.check(last_->signer.signer_id, 1, last_->digest(), last_->signature);
  if (const SignerEntry* known = keys.find(last_->signer.signer_id); !fault && (known == nullptr || known->key != last_->signer))
    fault = "its signer " + last_->signer.signer_id + " is none of the chain's";
  if (!fault) return {};
  return Error{Errc::kTampered, "archiving the audit chain in " + objects_->describe() + ": " + last_->name() + ": " + *fault};
}

Result<AuditUploader::Rows> AuditUploader::make_last_again(Reader& reader) const {
  TRY_ASSIGN(Rows rows, reader.take(last_->file.rows, INT64_MAX));
  if (rows.count < last_->file.rows)
    return Error{Errc::kIncomplete, "archiving the audit chain in " + objects_->describe() + ": it ends before row " +
                                        std::to_string(last_->last_sequence()) + ", of which " + last_->name() + " tells already"};
  if (rows.first_hash != last_->file.first_hash || rows.last_hash != last_->file.last_hash)
    return Error{Errc::kTampered, "archiving the audit chain in " + objects_->describe() + ": " + last_->name() +
                                      " tells of other rows than the chain has"};
  return rows;
}

/// Puts what tells of the batch; says whether it was the first to do so.
Result<bool> AuditUploader::tell(AuditBatch batch, SignerRegistry keys, Signer& signer) {
  batch.signer = signer.key();
  if (const SignerEntry* known = keys.find(batch.signer.signer_id); known == nullptr || known->key != batch.signer)
    TRY(keys.add({batch.signer, {}, {}, false}));
  const std::string registry = keys.to_json();
  batch.signers_sha256 = to_hex(as_bytes(sha256(registry)));
  if (last_) batch.previous = to_hex(as_bytes(sha256(last_text_)));
  TRY_ASSIGN(const std::string signature, signer.sign(batch.digest()));
  batch.signature = to_base64(signature);
  if (!last_ || last_->signers_sha256 != batch.signers_sha256) {
    TRY(step(batch.signers_name()));
    TRY(objects_->put_new(batch.signers_name(), registry));
  }
  TRY(step(batch.name()));
  std::string text = batch.to_json();
  Result<bool> told = objects_->put_new(batch.name(), text);
  if (!told || !*told) {
    looked_ = false;  // another one told of it, or this one did and never heard so: the place knows
    return told;
  }
  last_ = std::move(batch);
  last_text_ = std::move(text);
  last_stored_ = false;
  return true;
}

Result<void> AuditUploader::store(const std::string& packed) {
  TRY(step(last_->file.name));
  TRY_ASSIGN(const bool stored, objects_->put_new(last_->file.name, packed));
  if (!stored) {
    TRY_ASSIGN(const std::string there, objects_->get(last_->file.name));
    if (there != packed)
      return Error{Errc::kTampered, "archiving the audit chain in " + objects_->describe() + ": " + last_->file.name +
                                        " is there and is not what " + last_->name() + " tells of"};
  }
  last_stored_ = true;
  if (options_.stored) options_.stored(last_->file);
  return {};
}

Result<void> AuditUploader::pass(Signer& signer) {
  const bool again = last_ && !last_stored_;
  const int64_t begin = again ? last_->file.first_sequence : rows() + 1;
  const int64_t anchor = begin - 1;  // the row that the place ends with
  TRY_ASSIGN(StoredChain chain, open_chain_(std::max<int64_t>(0, anchor - 1)));
  if (last_) TRY(check_last(chain.signers));
  Reader reader(chain, std::max<int64_t>(1, anchor));
  if (anchor > 0) {
    TRY_ASSIGN(const Rows row, reader.take(1, INT64_MAX));
    if (row.count == 0)
      return Error{Errc::kIncomplete, "archiving the audit chain in " + objects_->describe() + ": the place holds " +
                                          std::to_string(rows()) + " rows, the chain ends before"};
    if (row.last_hash != (again ? last_->prev_hash : last_->file.last_hash))
      return Error{Errc::kTampered, "archiving the audit chain in " + objects_->describe() + ": row " + std::to_string(anchor) +
                                        " is another one than " + (again ? "the one before " : "the last of ") +
                                        (again ? last_->name() : last_->file.name)};
  }
  if (again) {
    TRY_ASSIGN(const Rows rows, make_last_again(reader));
    const std::string packed = gzip(rows.text);
    if (to_hex(as_bytes(sha256(packed))) != last_->file.sha256)
      return Error{Errc::kRefused, "archiving the audit chain in " + objects_->describe() + ": the rows that " + last_->name() +
                                       " tells of pack to other bytes here (another zlib); start the version that told of them"};
    TRY(store(packed));
  }
  while (true) {
    TRY_ASSIGN(const Rows rows, reader.take(options_.batch_rows_max, options_.batch_raw_bytes_max));
    if (rows.count == 0) return {};
    const std::string packed = gzip(rows.text);
    AuditBatch batch;
    batch.file = rows.file(packed);
    batch.prev_hash = rows.prev_hash;
    TRY_ASSIGN(const bool told, tell(std::move(batch), chain.signers, signer));
    if (!told) return {};
    TRY(store(packed));
  }
}

}  // namespace assay::streams
