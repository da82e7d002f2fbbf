// A row of the chain as views into its line: what a verifier of millions of rows reads, without a document or a copy.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "schemas/hash.h"
#include "streams/base.h"

namespace assay::streams {

struct RowView {
  int64_t created_at_us = 0;
  Sha256Digest hash{};
  std::optional<Sha256Digest> prev_hash;
  std::string_view event_type;  // as it stands between the quotes, escapes and all
  std::string_view id;
  std::string_view payload;
  std::string_view signature;
  std::string_view signer_kid;
  // What the payload says of itself.
  std::string_view payload_id, payload_event_type;
  int64_t recorded_at_ms = 0;
};

/// Reads a line that is canonical and of which nothing is wrong but, perhaps, that its members do not agree. Nothing: it needs
/// a closer look, which parse_audit_line() and read_payload() take; what is read here they read alike.  Pure.
std::optional<RowView> view_audit_line(std::string_view line);

}  // namespace assay::streams
