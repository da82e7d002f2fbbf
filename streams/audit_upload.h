// Stores the signed rows of the audit chain in an archive that nothing can be overwritten in (audit_batch.h), batch by batch.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "streams/audit_batch.h"
#include "streams/object_store.h"

namespace assay::streams {

struct AuditUploadOptions {
  int64_t batch_rows_max = 10000;
  int64_t batch_raw_bytes_max = 4 << 20;  // performance: what is held in memory, and again packed
  /// Told of each batch that this one has stored.
  std::function<void(const ArchiveFile& file)> stored = {};
  /// Called before each step that changes the place; an error stops there, as a crash would. For tests.
  std::function<Result<void>(const std::string& step)> before_step = {};
};

class AuditUploader {
 public:
  /// Opens the chain's signed rows after a sequence, in order.
  using OpenChain = std::function<Result<StoredChain>(int64_t after)>;

  AuditUploader(std::shared_ptr<ObjectStore> objects, OpenChain open_chain, AuditUploadOptions options = {});

  /// Stores the rows that are signed now and not in the place yet; says how many there are in it then. What is there is asked of
  /// the place itself, once, and a batch that was told of and not stored is made again first. Several may do this at a time.
  /// Cost: two objects for a batch, and one signature.
  /// Errors: kTampered (the rows are no chain, or the place holds another one), kIncomplete (the chain does not reach the place's
  /// yet), kRefused (the place holds a batch that cannot be made again), and those of chain, signer and place. Call it again.
  Result<int64_t> upload(Signer& signer);

  /// Rows in the place, as far as it was asked; 0 before.
  int64_t rows() const { return last_ ? last_->last_sequence() : 0; }
  const std::optional<AuditBatch>& last() const { return last_; }

 private:
  struct Rows;
  class Reader;

  Result<void> look();
  Result<void> pass(Signer& signer);
  Result<void> check_last(const SignerRegistry& keys) const;
  Result<Rows> make_last_again(Reader& reader) const;
  Result<bool> tell(AuditBatch batch, SignerRegistry keys, Signer& signer);
  Result<void> store(const std::string& packed);
  Result<void> step(const std::string& what) const { return options_.before_step ? options_.before_step(what) : Result<void>(); }

  std::shared_ptr<ObjectStore> objects_;
  OpenChain open_chain_;
  AuditUploadOptions options_;
  bool looked_ = false;
  std::optional<AuditBatch> last_;  // the last one told of
  std::string last_text_;           // of what tells of it
  bool last_stored_ = false;        // its rows are in the place, too
};

}  // namespace assay::streams
