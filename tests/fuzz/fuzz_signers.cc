// The registry of keys: what is read is written and read again the same, and no signature that was made up stands.
#include "streams/signer.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace assay::streams;
  const Result<SignerRegistry> registry = SignerRegistry::parse({reinterpret_cast<const char*>(data), size});
  if (!registry) return 0;
  const std::string text = registry->to_json();
  const Result<SignerRegistry> again = SignerRegistry::parse(text);
  CHECK(again && again->to_json() == text && again->entries() == registry->entries());
  for (const auto& [id, entry] : registry->entries()) CHECK(registry->check(id, 1, Sha256Digest{}, std::string(86, 'A') + "=="));
  return 0;
}
