// What tells of a batch: it is read as it is written or not at all, and names no file but that of its rows.
#include "streams/audit_batch.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace assay::streams;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const Result<AuditBatch> batch = AuditBatch::parse(text);
  if (!batch) return 0;
  CHECK(batch->to_json() == text);
  CHECK(batch->file.name.starts_with("audit-events/") && batch->file.name.find("..") == std::string::npos);
  CHECK(batch->file.first_sequence >= 1 && batch->last_sequence() >= batch->file.first_sequence);
  return 0;
}
