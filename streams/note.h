// Signed notes and checkpoints: the small signed texts of transparency logs.
// Source: C2SP signed-note, tlog-checkpoint and tlog-cosignature, v1.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/hash.h"
#include "streams/base.h"
#include "streams/signer.h"

namespace assay::streams {

/// What a key of a note signs: the text (a log), or that it was seen at an instant (a witness).
enum class NoteKeyType : uint8_t { kLog = 0x01, kCosignature = 0x04 };

/// A key that notes are verified with: "name+hash+base64", where the hash is its id.
struct NoteKey {
  std::string name;
  NoteKeyType type = NoteKeyType::kLog;
  std::string public_key;  // 32 bytes

  /// The first four bytes of SHA-256(name ‖ \n ‖ type ‖ key).
  uint32_t id() const;
  std::string to_text() const;
  /// Errors: kCorrupt, saying what is wrong.
  static Result<NoteKey> parse(std::string_view text);
  bool operator==(const NoteKey&) const = default;
};

struct NoteSignature {
  std::string name;
  uint32_t key_id = 0;
  std::string bytes;  // behind the id
  bool operator==(const NoteSignature&) const = default;
};

struct Note {
  std::string text;  // ends in a newline
  std::vector<NoteSignature> signatures;

  /// Every byte counts: to_text() of the note gives the bytes again. Errors: kCorrupt.
  static Result<Note> parse(std::string_view bytes);
  std::string to_text() const;
};

/// One signature as a line: "— name base64\n".
std::string to_line(const NoteSignature& signature);
/// Reads lines of signatures, each with its newline, as a witness answers. Errors: kCorrupt.
Result<std::vector<NoteSignature>> parse_signature_lines(std::string_view text);

enum class Signed : uint8_t { kAbsent, kHolds, kBroken };
/// Whether the note bears a signature of the key: kBroken when one bears its name and id and does not verify.
/// `time_s`: the instant of a cosignature that holds, seconds since the epoch.
Signed signed_by(const Note& note, const NoteKey& key, int64_t* time_s = nullptr);

/// A tree head: origin, size and root.
struct Checkpoint {
  std::string origin;
  uint64_t size = 0;
  Sha256Digest root{};
  std::string extensions;  // lines that mean nothing here, each with its newline

  std::string to_text() const;
  /// Errors: kCorrupt.
  static Result<Checkpoint> parse(std::string_view text);
  bool operator==(const Checkpoint&) const = default;
};

/// Signs notes with an Ed25519 key, wherever it is.
class NoteSigner {
 public:
  /// `name`: of the key, without spaces and '+'. Errors: kUsage (the name), kRefused (a key that is not Ed25519).
  static Result<std::unique_ptr<NoteSigner>> open(std::shared_ptr<Signer> signer, const std::string& name, NoteKeyType type);

  const NoteKey& key() const { return key_; }
  /// Signature of the text; `time_s` stands in a cosignature, and is not looked at otherwise. It holds: that is looked at first.
  /// Errors: those of the signer.
  Result<NoteSignature> sign(std::string_view text, int64_t time_s = 0) const;

 private:
  NoteSigner(std::shared_ptr<Signer> signer, NoteKey key) : signer_(std::move(signer)), key_(std::move(key)) {}

  std::shared_ptr<Signer> signer_;
  NoteKey key_;
};

struct NoteSignerOptions {
  std::string path;  // of a key file, as open_file_signer() has it
  std::string name;
  NoteKeyType type = NoteKeyType::kLog;
  bool create = true;  // behaviour: make the key when there is none
};
/// Errors: as NoteSigner::open() and open_file_signer().
Result<std::unique_ptr<NoteSigner>> open_note_signer(const NoteSignerOptions& options);

/// Whether the name may stand in a note.
bool is_note_name(std::string_view name);
/// What a witness signs: "cosignature/v1\ntime N\n" and the text.
std::string cosigned_text(std::string_view text, int64_t time_s);

}  // namespace assay::streams
