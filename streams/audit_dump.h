// Rows that lie outside an archive: lines of JSON, or the relation as PostgreSQL's COPY and pg_dump write it.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "processors/audit_chain.h"
#include "streams/audit_prover.h"
#include "streams/audit_verify.h"

namespace assay::streams {

/// A field of COPY's text form; nothing: NULL.
using CopyFields = std::vector<std::optional<std::string>>;

/// The table audit_signatures of a dump, read beside the rows: they come in the same order, unless somebody rewrote the table, so
/// that few are ever held.
class LateSignatures {
 public:
  struct Late {
    std::string signature, signer_kid;
  };
  explicit LateSignatures(ByteReader read) : read_(std::move(read)) {}
  /// The signature of a row that had none when it was written. Errors: kCorrupt, and those of the reader.
  Result<std::optional<Late>> find(int64_t sequence);
  /// Whether a row behind that one has one. After find() has found none for it.
  bool more(int64_t sequence) const { return next_.has_value() || passed_.upper_bound(sequence) != passed_.end(); }

 private:
  Result<std::optional<std::string>> line();
  Result<void> advance();

  ByteReader read_;
  std::string buffer_;
  size_t taken_ = 0;
  bool ended_ = false, in_table_ = false;
  std::vector<std::string> columns_;
  std::optional<std::pair<int64_t, Late>> next_;
  std::map<int64_t, Late> passed_;  // out of order, or of rows that have one
};

/// Finds the rows in what is handed to it, part by part, and gives them on in blocks.
class LooseReader {
 public:
  /// `again` as in LooseFile.
  LooseReader(std::string source, LineCutter::Take take, std::function<Result<ByteReader>()> again = {});
  /// Errors: kCorrupt: not text of a known form; the sentence says which forms there are. kIncomplete: signatures that came late
  /// cannot be had.
  Result<void> add(std::string_view part);
  Result<void> finish();
  /// Where the chain stood when it was dumped, as far as it is signed, if the dump says so.
  const std::optional<processors::ChainState>& head() const { return head_; }
  /// Rows at the end that have no signature yet: they are no part of audit_events.
  int64_t waiting() const { return waiting_; }
  /// Whether head() tells waiting rows from signed ones.
  bool head_is_signed() const { return head_is_signed_; }

 private:
  enum class Form { kUnknown, kJsonLines, kDump, kBareCopy };
  enum class Table { kNone, kRows, kHead, kLate, kOther };

  Result<void> line(std::string_view text);
  Result<void> recognise(std::string_view first_line);
  Result<void> begin_table(std::string_view statement);
  Result<void> copied(std::string_view text);
  Result<void> row(const CopyFields& fields);
  Result<void> state(const CopyFields& fields);
  Result<std::optional<LateSignatures::Late>> late_signature(const std::optional<std::string>& sequence);
  void give();

  std::string source_;
  LineCutter::Take take_;
  LineCutter json_lines_;
  Form form_ = Form::kUnknown;
  Table table_ = Table::kNone;
  std::vector<std::string> columns_;
  std::string rest_;
  RowBlock block_;
  int64_t line_number_ = 0, waiting_ = 0;
  std::optional<processors::ChainState> head_;
  bool head_is_signed_ = false;
  std::function<Result<ByteReader>()> again_;
  std::unique_ptr<LateSignatures> late_;  // once a row asked for one
};

}  // namespace assay::streams
