// Rows that lie outside an archive: lines of JSON, or the relation as PostgreSQL's COPY and pg_dump write it.
#pragma once

#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "processors/audit_chain.h"
#include "streams/audit_prover.h"

namespace assay::streams {

/// Finds the rows in what is handed to it, part by part, and gives them on in blocks.
class LooseReader {
 public:
  LooseReader(std::string source, LineCutter::Take take);
  /// Errors: kCorrupt: not text of a known form; the sentence says which forms there are.
  Result<void> add(std::string_view part);
  Result<void> finish();
  /// Where the chain stood when it was dumped, if the dump says so.
  const std::optional<processors::ChainState>& head() const { return head_; }
  /// Rows at the end that have no signature yet: they are no part of audit_events.
  int64_t waiting() const { return waiting_; }

 private:
  enum class Form { kUnknown, kJsonLines, kDump, kBareCopy };
  enum class Table { kNone, kRows, kHead, kOther };

  Result<void> line(std::string_view text);
  Result<void> recognise(std::string_view first_line);
  Result<void> begin_table(std::string_view statement);
  Result<void> copied(std::string_view text);
  Result<void> row(const std::vector<std::optional<std::string>>& fields);
  Result<void> state(const std::vector<std::optional<std::string>>& fields);
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
};

}  // namespace assay::streams
