// A part of the audit chain: some of its rows, by number or by time.
#pragma once

#include <functional>
#include <optional>
#include <string_view>

#include "streams/audit_sink.h"

namespace assay::streams {

/// One end of a part: a row's number, or an instant of created_at.
struct RowBound {
  std::optional<int64_t> sequence;
  int64_t instant_us = 0;  // without a sequence
};

/// Shape: rows numbered [from, to]; instants [from, to). An end that is absent is the chain's.
struct RowWindow {
  std::optional<RowBound> from, to;
  bool whole() const { return !from && !to; }
};

/// "812044" or "2026-05-01T00:00:00Z". Errors: kUsage, naming the flag.
Result<RowBound> parse_row_bound(std::string_view flag, std::string_view text);

/// Opens a chain for the rows of a window. `open` opens it after a row. An instant is searched for, created_at rises along the
/// chain. Cost: log2(rows) openings for an instant.  Errors: kUsage (no such rows: the chain's end is before them), and those of
/// `open`.
Result<StoredChain> open_window(const std::function<Result<StoredChain>(int64_t after)>& open, const RowWindow& window);

}  // namespace assay::streams
