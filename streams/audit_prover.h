// Proves rows in chain order: each by itself on all cores, the links between them in order, in bounded memory.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "streams/audit_verify.h"

namespace assay::streams {

/// Some hundred rows on their way to a core.
struct RowBlock {
  std::string text;                 // one row after the other, line ends included
  std::vector<uint32_t> ends;       // of each row in the text, without its line end
  std::string source;               // file or relation
  int64_t first_line = 1;           // the place of row i is source:first_line + i …
  std::vector<std::string> places;  // … unless it is told here
  std::vector<int64_t> sequences;   // where rows are stored beside a number; empty: their order says it
  bool every_byte_counts = true;    // else a row in another form, whose canonical form is the same, is noted and stands
  size_t rows() const { return ends.size(); }
  std::string_view row(size_t i) const;
  std::string place(size_t i) const;
};

/// Cuts bytes into blocks of whole lines. Errors of add(): kCorrupt, a line without end.
class LineCutter {
 public:
  using Take = std::function<void(RowBlock)>;
  LineCutter(std::string source, bool every_byte_counts, Take take);
  Result<void> add(std::string_view part);
  /// Gives what is left; says whether the last line had its newline.
  bool finish();

 private:
  void give();
  void start_block();

  std::string source_;
  bool every_byte_counts_;
  Take take_;
  RowBlock block_;
  size_t line_begin_ = 0;  // of the line not ended yet, in block_.text
  int64_t lines_ = 0;
};

/// Told of a row that is proven.
using ProvenRow = std::function<void(const Sha256Digest& hash, std::string_view event_id, int64_t created_at_us)>;

/// Told of a proven row of an event that people send ("audit.…"), which may say something of the chain itself.
using ProvenControl =
    std::function<void(int64_t sequence, std::string_view event_id, std::string_view event_type, std::string_view payload)>;

class RowProver {
 public:
  /// `signers` nullptr: signatures are not checked. Requires: all of them outlive it.
  RowProver(const SignerRegistry* signers, const VerifyOptions& options, VerifyReport& report);
  /// Hands each proven row on, in order.
  void tell(ProvenRow proven) { proven_ = std::move(proven); }
  void tell_control(ProvenControl proven) { control_ = std::move(proven); }

  void add(RowBlock block);
  /// Waits until everything added is judged.
  void drain();
  /// After rows that could not be read: the next row's link proves nothing and is not held against it.
  void lose_link();
  /// The next row is this one; what lies before it, and with it its link, is not told of.
  void continue_at(int64_t sequence);
  /// Notes what the end of the rows tells: an earlier head that was never reached. Requires: drained.
  void end(const std::string& place);

  int64_t seen() const { return sequence_; }
  const Sha256Digest& last_hash() const { return last_hash_; }
  bool broken() const { return broken_; }

 private:
  struct Judged;

  void take();
  bool follow(Judged& judged, size_t row);
  void judge_link(Judged& judged, size_t row);
  void judge_entry(Judged& judged, size_t row);
  void judge_earlier_head(Judged& judged, size_t row);

  const SignerRegistry* signers_;
  const VerifyOptions& options_;
  VerifyReport& report_;
  ProvenRow proven_;
  ProvenControl control_;
  unsigned threads_ = 1;
  std::deque<std::future<std::unique_ptr<Judged>>> running_;
  int64_t sent_ = 0, sequence_ = 0;
  Sha256Digest last_hash_{};
  int64_t last_created_at_us_ = 0;
  bool linked_ = true;   // the hash is that of the row before
  bool broken_ = false;  // a row did not hold: nothing after it counts as proven
  size_t row_findings_ = 0;
};

}  // namespace assay::streams
