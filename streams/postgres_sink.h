// The audit chain in PostgreSQL: migrations, the fenced writer, and the reader for verification and export.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "streams/audit_sink.h"

namespace assay::streams {

/// Brings the schema to what this binary knows; safe to run by several at once and again. A role that may only write needs a schema
/// that is up to date: it changes nothing.
/// Errors: kUnreachable, kRefused (the schema is newer than this binary, an applied migration differs from ours, or the role may
/// not change it).
Result<void> migrate_database(const std::string& url);

/// Connects lazily; take_over() migrates first.
std::unique_ptr<AuditSink> open_postgres_sink(const std::string& url);

/// Reads the relation audit_events in chain order, from one snapshot, a bounded part at a time; the rows after `after`.
/// Errors: kUnreachable, kNotFound (no such relation).
Result<StoredChain> open_database_chain(const std::string& url, int64_t after = 0);
/// The sequence of an event. Errors: kUnreachable, kNotFound.
Result<int64_t> find_database_row(const std::string& url, const std::string& event_id);

/// For `audit head`: where the chain stands. Errors: kUnreachable, kNotFound.
struct DatabaseHead {
  processors::ChainState state;
  int64_t signed_through = 0;  // sequence up to which audit_events shows rows
  int64_t epoch = 0;
  SignerRegistry signers;  // with what the chain's events say of them
};
Result<DatabaseHead> read_database_head(const std::string& url);

}  // namespace assay::streams
