// The two languages of reports, JSON and Protobuf, each read into a draft. Internal to the eval_report files.
#pragma once

#include <string_view>

#include "schemas/eval_report_draft.h"
#include "schemas/json_scan.h"

namespace assay::schemas {

/// Reads a report, or a CloudEvents 1.0 document around one, and says in `form` which of them it was.
/// Returns false and fills `reject` when the text as a whole cannot be read; the draft judges the rest.
bool read_json_report(std::string_view text, bool must_be_event, JsonScanner* scan, ReportDraft* draft, WireForm* form,
                      Reject* reject);

/// Reads a raw Protobuf report from the wire format itself: no message object, no allocation.
/// Returns false and fills `reject` when the bytes as a whole cannot be read; the draft judges the rest.
bool read_protobuf_report(std::string_view bytes, ReportDraft* draft, Reject* reject);

}  // namespace assay::schemas
