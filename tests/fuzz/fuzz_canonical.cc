// The canonicaliser: what the fast reader takes is what the slow one makes, and the canonical form is its own canonical form.
#include "schemas/json_canonical.h"
#include "schemas/json_parse.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace assay::schemas;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const size_t end = canonical_end(text, 0);
  Result<Json> document = parse_json(text);
  if (end == text.size()) CHECK(document && canonical(*document) == text);
  if (!document) return 0;
  const std::string form = canonical(*document);
  Result<Json> again = parse_json(form);
  CHECK(again && canonical(*again) == form);
  // Only names with escapes and numbers at the edge of a double may be left to the slow reader.
  if (form.find('\\') == form.npos && form.find('e') == form.npos) CHECK(canonical_end(form, 0) == form.size());
  return 0;
}
