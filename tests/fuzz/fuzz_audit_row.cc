// Rows of the chain: the fast reader agrees with the slow one in every member, and a line read again gives its bytes.
#include "processors/audit_chain.h"
#include "streams/audit_row_view.h"
#include "streams/audit_sink.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace assay;
  using namespace assay::streams;
  const std::string_view line(reinterpret_cast<const char*>(data), size);
  schemas::Json payload;
  const Result<SignedRow> row = parse_audit_line(line, &payload);
  const std::optional<RowView> view = view_audit_line(line);
  if (row) CHECK(audit_line(*row) == line);
  bool canonical_text = false;
  if (Result<SignedRow> loose = parse_audit_line(line, nullptr, &canonical_text); loose && canonical_text) CHECK(row);
  if (!view) return 0;
  CHECK(row);
  const Result<processors::EnvelopeView> envelope = processors::read_payload(payload);
  CHECK(envelope && envelope->recorded_at_ms == view->recorded_at_ms && envelope->id == view->payload_id);
  CHECK(row->row.created_at_us == view->created_at_us && row->row.hash == view->hash && row->row.prev_hash == view->prev_hash);
  CHECK(row->row.payload == view->payload && row->signature == view->signature && row->signer_kid == view->signer_kid);
  CHECK((row->row.event_type == envelope->event_type) == (view->event_type == view->payload_event_type));
  CHECK((row->row.id == envelope->id) == (view->id == view->payload_id));
  return 0;
}
