#include "streams/audit_prover.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <thread>

#include "processors/audit_chain.h"
#include "schemas/json_parse.h"
#include "streams/audit_row_view.h"

namespace assay::streams {
namespace {

constexpr size_t kBlockBytes = 128 << 10;
constexpr size_t kRowFindingsMax = 20;      // enough to act on; a broken disk would name them all
constexpr size_t kLineBytesMax = 16 << 20;  // a record is never so long: what unpacks to more is no row

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

/// Why a row does not hold.
struct Fault {
  std::string check, detail, event_id;
};

/// What an event of people says, kept until the row's turn comes: one row in thousands.
struct Control {
  std::string event_type, payload;
};
constexpr std::string_view kControlEvents = "audit.";

/// What one row tells by itself, whatever stands around it.
struct RowVerdict {
  bool readable = false;  // the line is a row, with what follows here
  bool has_prev = false;
  bool equivalent = false;  // not the canonical text, but one whose canonical form is the same
  Sha256Digest hash, prev_hash;
  int64_t created_at_us = 0, recorded_at_ms = 0;
  std::string_view id;  // in the block's text; empty: `other_id` has it
  std::unique_ptr<std::string> other_id;
  std::unique_ptr<Fault> fault;  // absent: sound by itself
  std::unique_ptr<Control> control;

  std::string event_id() const { return other_id ? *other_id : std::string(id); }
  void fail(std::string check, std::string detail) {
    fault = std::make_unique<Fault>(Fault{std::move(check), std::move(detail), event_id()});
  }
};

/// The row that the line is, in whatever form, with all that is wrong with it.
void judge_closely(std::string_view line, int64_t sequence, const SignerRegistry* signers, bool every_byte_counts,
                   RowVerdict& verdict) {
  Json payload;
  bool canonical_text = true;
  Result<SignedRow> parsed = parse_audit_line(line, &payload, every_byte_counts ? nullptr : &canonical_text);
  if (!parsed) {
    verdict.other_id = std::make_unique<std::string>(visible_id(line));
    return verdict.fail("form", parsed.error().message);
  }
  const processors::AuditRow& row = parsed->row;
  verdict.readable = true;
  verdict.equivalent = !canonical_text;
  verdict.hash = row.hash;
  verdict.has_prev = row.prev_hash.has_value();
  if (row.prev_hash) verdict.prev_hash = *row.prev_hash;
  verdict.created_at_us = row.created_at_us;
  verdict.other_id = std::make_unique<std::string>(row.id);
  Result<processors::EnvelopeView> envelope = processors::read_payload(payload);
  if (processors::chain_hash(row.payload, row.prev_hash) != row.hash)
    return verdict.fail("hash", "SHA-256 of its payload and prev_hash is not its hash");
  if (!envelope) return verdict.fail("payload", envelope.error().message);
  *verdict.other_id = envelope->id;  // the hash vouches for it
  verdict.recorded_at_ms = envelope->recorded_at_ms;
  if (row.id != envelope->id) return verdict.fail("metadata", "its id \"" + row.id + "\" is not its payload's");
  if (row.event_type != envelope->event_type)
    return verdict.fail(
        "metadata", "its event_type \"" + row.event_type + "\" is not its payload's \"" + std::string(envelope->event_type) + "\"");
  if (row.event_type.starts_with(kControlEvents)) verdict.control = std::make_unique<Control>(Control{row.event_type, row.payload});
  if (signers != nullptr)
    if (auto fault = signers->check(parsed->signer_kid, sequence, row.hash, parsed->signature))
      verdict.fail("signature", std::move(*fault));
}

RowVerdict judge_row(std::string_view line, int64_t sequence, const SignerRegistry* signers, bool every_byte_counts) {
  RowVerdict verdict;
  const std::optional<RowView> row = view_audit_line(line);
  const bool sound = row && row->id == row->payload_id && row->event_type == row->payload_event_type &&
                     processors::chain_hash(row->payload, row->prev_hash) == row->hash;
  if (!sound) {  // one row in millions: it may take its time
    judge_closely(line, sequence, signers, every_byte_counts, verdict);
    return verdict;
  }
  verdict.readable = true;
  verdict.hash = row->hash;
  verdict.has_prev = row->prev_hash.has_value();
  if (row->prev_hash) verdict.prev_hash = *row->prev_hash;
  verdict.created_at_us = row->created_at_us;
  verdict.recorded_at_ms = row->recorded_at_ms;
  verdict.id = row->id;
  if (row->event_type.starts_with(kControlEvents))
    verdict.control = std::make_unique<Control>(Control{std::string(row->event_type), std::string(row->payload)});
  if (signers != nullptr)
    if (auto fault = signers->check(row->signer_kid, sequence, row->hash, row->signature))
      verdict.fail("signature", std::move(*fault));
  return verdict;
}

}  // namespace

std::string_view RowBlock::row(size_t i) const {
  size_t begin = i == 0 ? 0 : ends[i - 1];
  if (i > 0 && places.empty()) ++begin;  // the newline
  return std::string_view(text).substr(begin, ends[i] - begin);
}

std::string RowBlock::place(size_t i) const {
  return places.empty() ? source + ":" + std::to_string(first_line + static_cast<int64_t>(i)) : places[i];
}

LineCutter::LineCutter(std::string source, bool every_byte_counts, Take take)
    : source_(std::move(source)), every_byte_counts_(every_byte_counts), take_(std::move(take)) {
  start_block();
}

void LineCutter::start_block() {
  block_ = {};
  block_.source = source_;
  block_.first_line = lines_ + 1;
  block_.every_byte_counts = every_byte_counts_;
}

Result<void> LineCutter::add(std::string_view part) {
  while (!part.empty()) {
    const size_t newline = part.find('\n');
    block_.text += part.substr(0, newline == part.npos ? newline : newline + 1);
    if (newline == part.npos) {
      if (block_.text.size() - line_begin_ > kLineBytesMax) return Error{Errc::kCorrupt, "a line of it has no end"};
      return {};
    }
    part.remove_prefix(newline + 1);
    block_.ends.push_back(static_cast<uint32_t>(block_.text.size() - 1));
    line_begin_ = block_.text.size();
    ++lines_;
    if (block_.text.size() >= kBlockBytes) give();
  }
  return {};
}

void LineCutter::give() {
  if (!block_.ends.empty()) take_(std::move(block_));
  start_block();
  line_begin_ = 0;
}

bool LineCutter::finish() {
  const bool ended = line_begin_ == block_.text.size();
  if (!ended) {
    block_.ends.push_back(static_cast<uint32_t>(block_.text.size()));
    ++lines_;
  }
  give();
  return ended;
}

struct RowProver::Judged {
  RowBlock block;
  std::vector<RowVerdict> verdicts;
};

RowProver::RowProver(const SignerRegistry* signers, const VerifyOptions& options, VerifyReport& report)
    : signers_(signers), options_(options), report_(report) {
  threads_ = options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
}

void RowProver::add(RowBlock block) {
  if (block.rows() == 0) return;
  while (running_.size() > (threads_ > 1 ? threads_ : 0)) take();
  const int64_t first = sent_ + 1;
  sent_ += static_cast<int64_t>(block.rows());
  // One thread alone needs no other.
  const auto how = threads_ > 1 ? std::launch::async : std::launch::deferred;
  auto judged = std::make_unique<Judged>();
  judged->block = std::move(block);
  const int64_t from = options_.from.value_or(1), to = options_.to.value_or(std::numeric_limits<int64_t>::max());
  running_.push_back(std::async(how, [judged = std::move(judged), first, from, to, signers = signers_]() mutable {
    const RowBlock& rows = judged->block;
    judged->verdicts.reserve(rows.rows());
    for (size_t i = 0; i < rows.rows(); ++i) {
      const int64_t sequence = rows.sequences.empty() ? first + static_cast<int64_t>(i) : rows.sequences[i];
      const SignerRegistry* by = sequence >= from && sequence <= to ? signers : nullptr;
      judged->verdicts.push_back(judge_row(rows.row(i), sequence, by, rows.every_byte_counts));
    }
    return std::move(judged);
  }));
}

void RowProver::drain() {
  while (!running_.empty()) take();
}

void RowProver::lose_link() {
  drain();
  linked_ = false;
  broken_ = true;
}

void RowProver::continue_at(int64_t sequence) {
  drain();
  sent_ = sequence_ = sequence - 1;
  linked_ = sequence == 1;
  if (report_.rows == 0 && !broken_) report_.first_row = sequence;
}

void RowProver::take() {
  const std::unique_ptr<Judged> judged = running_.front().get();
  running_.pop_front();
  const RowVerdict* proven = nullptr;  // the last that is
  for (size_t i = 0; i < judged->verdicts.size(); ++i)
    if (follow(*judged, i)) proven = &judged->verdicts[i];
  if (proven != nullptr) {
    report_.last_id = proven->event_id();
    report_.head_hash = to_hex(as_bytes(proven->hash));
  }
  if (options_.progress) options_.progress(sequence_);
}

/// Joins a judged row to the chain; says whether it counts as proven.
bool RowProver::follow(Judged& judged, size_t row) {
  RowVerdict& verdict = judged.verdicts[row];
  ++sequence_;
  const int64_t stored = judged.block.sequences.empty() ? sequence_ : judged.block.sequences[row];
  if (stored != sequence_) {
    if (!verdict.fault)
      verdict.fail("sequence",
                   "its sequence is " + std::to_string(stored) + ", the row before it calls for " + std::to_string(sequence_));
    sequence_ = stored;
  } else if (!verdict.fault) {
    judge_link(judged, row);
    judge_earlier_head(judged, row);
  }
  if (verdict.fault) {
    broken_ = true;
    const Fault& fault = *verdict.fault;
    if (row_findings_++ < kRowFindingsMax)
      report_.findings.push_back({Errc::kTampered, sequence_, fault.event_id, judged.block.place(row), fault.check, fault.detail});
  }
  linked_ = verdict.readable;
  if (!linked_) return false;
  last_hash_ = verdict.hash;
  last_created_at_us_ = verdict.created_at_us;
  if (broken_) return false;
  if (verdict.equivalent && report_.equivalent_rows++ == 0)
    report_.first_equivalent = verdict.event_id() + ", at " + judged.block.place(row);
  report_.last_created_at_us = last_created_at_us_;
  if (++report_.rows == 1) {
    report_.first_id = verdict.event_id();
    report_.first_created_at_us = last_created_at_us_;
  }
  const std::string_view id = verdict.other_id ? std::string_view(*verdict.other_id) : verdict.id;
  if (proven_) proven_(verdict.hash, id, verdict.created_at_us);
  if (control_ && verdict.control) control_(sequence_, id, verdict.control->event_type, verdict.control->payload);
  return true;
}

void RowProver::judge_link(Judged& judged, size_t row) {
  RowVerdict& verdict = judged.verdicts[row];
  if (!linked_) return judge_entry(judged, row);
  if (sequence_ == 1 && verdict.has_prev)
    verdict.fail("link", "it is the first row but has a prev_hash: rows before it are missing");
  else if (sequence_ > 1 && (!verdict.has_prev || verdict.prev_hash != last_hash_))
    verdict.fail("link", "its prev_hash is not the hash of the row before it");
  else if (verdict.created_at_us != processors::chain_created_at_us(verdict.recorded_at_ms, sequence_, last_created_at_us_))
    verdict.fail("created_at", "its created_at is not the later of its record's timestamp and the row before + 1 µs");
}

/// A row of whose predecessor nothing is known: an earlier head may tell of it.
void RowProver::judge_entry(Judged& judged, size_t row) {
  RowVerdict& verdict = judged.verdicts[row];
  if (sequence_ > 1 && !verdict.has_prev)
    verdict.fail("link", "it has no prev_hash, and is not the first row");
  else if (options_.earlier_head && options_.earlier_head->rows == sequence_ - 1 && sequence_ == report_.first_row) {
    report_.earlier_head_reached = to_hex(as_bytes(verdict.prev_hash)) == options_.earlier_head->hash;
    if (!report_.earlier_head_reached)
      verdict.fail("earlier head", "it follows a row of another hash than the earlier head says, " + options_.earlier_head->hash);
  }
}

void RowProver::judge_earlier_head(Judged& judged, size_t row) {
  RowVerdict& verdict = judged.verdicts[row];
  if (!options_.earlier_head || options_.earlier_head->rows != sequence_ || verdict.fault) return;
  if (to_hex(as_bytes(verdict.hash)) == options_.earlier_head->hash)
    report_.earlier_head_reached = true;
  else
    verdict.fail("earlier head", "the earlier head says that its hash is " + options_.earlier_head->hash +
                                     ": the chain was written anew from here or before");
}

void RowProver::end(const std::string& place) {
  for (const std::optional<int64_t>& asked : {options_.to, options_.from}) {
    if (!asked || broken_ || (*asked >= report_.first_row && *asked <= sequence_)) continue;
    report_.findings.push_back({Errc::kIncomplete,
                                0,
                                {},
                                place,
                                "rows",
                                "row " + std::to_string(*asked) + " was asked for; " +
                                    (*asked > sequence_ ? "there are " + std::to_string(sequence_)
                                                        : "the first one here is " + std::to_string(report_.first_row))});
    break;
  }
  if (!options_.earlier_head || report_.earlier_head_reached) return;
  if (options_.earlier_head->rows < report_.first_row - 1)
    report_.findings.push_back({Errc::kIncomplete,
                                0,
                                {},
                                place,
                                "earlier head",
                                "the earlier head is that of row " + std::to_string(options_.earlier_head->rows) +
                                    "; the rows between it and row " + std::to_string(report_.first_row) + " are not here"});
  if (sequence_ >= options_.earlier_head->rows) return;
  report_.findings.push_back({Errc::kTampered,
                              0,
                              {},
                              place,
                              "earlier head",
                              "the earlier head says that there were " + std::to_string(options_.earlier_head->rows) +
                                  " rows; there are " + std::to_string(sequence_) + ": the tail was cut off"});
}

}  // namespace assay::streams
