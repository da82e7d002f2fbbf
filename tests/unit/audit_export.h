// Rows into an export, and an export's files as lines: for tests that change what is exported.
#pragma once

#include "streams/audit_archive.h"
#include "streams/gzip.h"
#include "tests/unit/audit_support.h"

namespace assay::testing {

inline void export_rows(const std::string& out, const std::vector<SignedRow>& rows, const ChainState& head, Signer& signer) {
  std::vector<StoredLine> lines;
  for (const SignedRow& row : rows) lines.push_back({audit_line(row), "made up", 0});
  StoredChain chain;
  chain.head = head;
  CHECK(chain.signers.add({signer.key(), {}, {}, false}).has_value());
  chain.lines = [lines]() mutable -> Result<std::vector<StoredLine>> { return std::exchange(lines, {}); };
  CHECK(export_archive(std::move(chain), out, signer).has_value());
}

inline std::string gunzipped(const std::string& path) {
  std::string text;
  CHECK(gunzip(read_text(path), [&](std::string_view part) -> Result<void> {
          text += part;
          return {};
        }).has_value());
  return text;
}

}  // namespace assay::testing
