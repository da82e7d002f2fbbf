#include "streams/audit_window.h"

#include <charconv>
#include <string>
#include <utility>

#include "schemas/time.h"

namespace assay::streams {
namespace {

using OpenChain = std::function<Result<StoredChain>(int64_t after)>;

/// created_at of a row; what is there is proven later.
Result<int64_t> created_at_of(const OpenChain& open, int64_t sequence) {
  TRY_ASSIGN(StoredChain chain, open(sequence - 1));
  TRY_ASSIGN(const std::vector<StoredLine> lines, chain.lines());
  if (lines.empty()) return Error{Errc::kIncomplete, "looking for row " + std::to_string(sequence) + ": the rows end before it"};
  bool canonical_text = true;
  Result<SignedRow> row = parse_audit_line(lines.front().text, nullptr, &canonical_text);
  if (!row) return Error{Errc::kTampered, lines.front().place + ": " + row.error().message};
  return row->row.created_at_us;
}

/// The first row that was created at the instant or later; one behind the last when there is none.
Result<int64_t> first_at(const OpenChain& open, int64_t rows, int64_t instant_us) {
  int64_t low = 1, high = rows + 1;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    TRY_ASSIGN(const int64_t created_at_us, created_at_of(open, middle));
    if (created_at_us < instant_us)
      low = middle + 1;
    else
      high = middle;
  }
  return low;
}

}  // namespace

Result<RowBound> parse_row_bound(std::string_view flag, std::string_view text) {
  int64_t sequence = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), sequence);
  if (error == std::errc() && end == text.data() + text.size() && sequence >= 1) return RowBound{sequence, 0};
  if (const std::optional<int64_t> ms = parse_rfc3339_ms(text)) return RowBound{std::nullopt, *ms * 1000};
  return Error{Errc::kUsage, std::string(flag) + " " + std::string(text) +
                                 ": neither a row's number, from 1, nor an RFC 3339 time with a zone, like 2026-05-01T12:00:00Z"};
}

Result<StoredChain> open_window(const OpenChain& open, const RowWindow& window) {
  TRY_ASSIGN(StoredChain whole, open(0));
  if (window.whole()) return whole;
  const int64_t rows = whole.head.sequence;
  int64_t first = 1, last = rows;
  if (window.from) {
    TRY_ASSIGN(first,
               window.from->sequence ? Result<int64_t>(*window.from->sequence) : first_at(open, rows, window.from->instant_us));
  }
  if (window.to && window.to->sequence) last = *window.to->sequence;
  if (window.to && !window.to->sequence) {
    TRY_ASSIGN(const int64_t behind, first_at(open, rows, window.to->instant_us));
    last = behind - 1;
  }
  if (first > last || last > rows)
    return Error{Errc::kUsage, "there is no row from " + std::to_string(first) + " to " + std::to_string(last) +
                                   ": the chain has " + std::to_string(rows) + " that are signed"};
  TRY_ASSIGN(StoredChain chain, open(first - 1));
  chain.first = first;
  chain.last = last;
  chain.complete = last == rows;
  chain.lines = [lines = std::move(chain.lines), next = first, last]() mutable -> Result<std::vector<StoredLine>> {
    if (next > last) return std::vector<StoredLine>();
    TRY_ASSIGN(std::vector<StoredLine> block, lines());
    size_t kept = 0;
    for (; kept < block.size() && next <= last; ++kept, ++next) {
      if (block[kept].sequence == 0) continue;
      if (block[kept].sequence > last) break;
      next = block[kept].sequence;
    }
    if (kept < block.size()) next = last + 1;
    block.resize(kept);
    return block;
  };
  return chain;
}

}  // namespace assay::streams
