// Notes, checkpoints, policies and requests to a witness: what is read is written again byte for byte, and nothing made up is
// signed.
#include "streams/note_policy.h"
#include "streams/witness.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace assay::streams;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  static const NoteKey key = *NoteKey::parse("PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW");
  static const std::string published =
      "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
  if (const auto note = Note::parse(text)) {
    CHECK(note->to_text() == text);
    if (signed_by(*note, key) == Signed::kHolds) CHECK(note->text == published);
    if (const auto checkpoint = Checkpoint::parse(note->text)) CHECK(checkpoint->to_text() == note->text);
  }
  if (const auto checkpoint = Checkpoint::parse(text)) CHECK(checkpoint->to_text() == text);
  if (const auto policy = NotePolicy::parse(text)) CHECK(NotePolicy::parse(policy->to_text())->to_text() == policy->to_text());
  if (const auto request = AddCheckpoint::parse(text)) CHECK(request->to_text() == text);
  if (const auto known = NoteKey::parse(text)) CHECK(known->to_text() == text);
  return 0;
}
