// Proofs: whatever is sent, no proof holds under a key that signed none of it.
#include "streams/audit_proof.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace assay::streams;
  static const NotePolicy policy =
      NotePolicy().with_log(*NoteKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"));
  const ProofVerdict verdict = check_proof({reinterpret_cast<const char*>(data), size}, policy, nullptr);
  CHECK(!verdict.fault.empty() && verdict.exit_code() != 0);
  return 0;
}
