#include "streams/note.h"

#include <algorithm>
#include <charconv>

#include "schemas/utf8.h"

namespace assay::streams {
namespace {

constexpr std::string_view kDash = "\xe2\x80\x94 ";
constexpr size_t kNoteBytesMax = 1 << 20;
constexpr size_t kSignaturesMax = 128;
constexpr size_t kKeyBytes = 32, kSignatureBytes = 64, kTimeBytes = 8;

Error bad(std::string_view what) { return {Errc::kCorrupt, "reading a note: " + std::string(what)}; }

uint32_t big_endian(std::string_view bytes) {
  uint32_t value = 0;
  for (char c : bytes.substr(0, 4)) value = value << 8 | static_cast<unsigned char>(c);
  return value;
}

void append_big_endian(uint64_t value, int bytes, std::string& out) {
  for (int i = bytes - 1; i >= 0; --i) out.push_back(static_cast<char>(value >> (8 * i)));
}

/// Spaces beyond ASCII, as Unicode has them.
bool has_space(std::string_view text) {
  if (text.find_first_of(" \t\n\v\f\r") != text.npos) return true;
  for (std::string_view space :
       {"\xc2\x85", "\xc2\xa0", "\xe1\x9a\x80", "\xe2\x80\xa8", "\xe2\x80\xa9", "\xe2\x80\xaf", "\xe2\x81\x9f", "\xe3\x80\x80"})
    if (text.find(space) != text.npos) return true;
  for (size_t at = 0; (at = text.find("\xe2\x80", at)) != text.npos; at += 2)
    if (at + 2 < text.size() && static_cast<unsigned char>(text[at + 2]) <= 0x8a) return true;
  return false;
}

bool is_text(std::string_view bytes) {
  return schemas::valid_utf8(bytes) &&
         std::ranges::none_of(bytes, [](char c) { return static_cast<unsigned char>(c) < 0x20 && c != '\n'; });
}

Result<uint64_t> decimal(std::string_view text) {
  uint64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || std::to_string(value) != text)
    return bad("\"" + schemas::printable(text, 40) + "\" is no decimal number");
  return value;
}

/// Takes the first line, without its newline. Requires: the text ends in one.
std::string_view take_line(std::string_view* text) {
  const size_t end = text->find('\n');
  std::string_view line = text->substr(0, end);
  text->remove_prefix(end + 1);
  return line;
}

Result<NoteSignature> parse_signature(std::string_view line) {
  if (!line.starts_with(kDash)) return bad("a line of the signatures does not begin with a dash");
  line.remove_prefix(kDash.size());
  const size_t space = line.find(' ');
  if (space == line.npos || !is_note_name(line.substr(0, space))) return bad("a signature has no name");
  Result<std::string> raw = from_base64(line.substr(space + 1));
  if (!raw || raw->size() < 5) return bad("a signature is not base64 of an id and a signature");
  return NoteSignature{std::string(line.substr(0, space)), big_endian(*raw), raw->substr(4)};
}

Result<void> check_name(const std::string& name) {
  if (is_note_name(name)) return {};
  return Error{Errc::kUsage, "signing notes as \"" + name + "\": such a name may not stand in a note; it has no spaces and no '+'"};
}

}  // namespace

bool is_note_name(std::string_view name) {
  return !name.empty() && is_text(name) && !has_space(name) && name.find('+') == name.npos;
}

uint32_t NoteKey::id() const {
  const std::string type_byte(1, static_cast<char>(type));
  return big_endian(as_bytes(sha256(name, "\n" + type_byte, public_key)));
}

std::string NoteKey::to_text() const {
  std::string id_bytes;
  append_big_endian(id(), 4, id_bytes);
  return name + "+" + to_hex(id_bytes) + "+" + to_base64(std::string(1, static_cast<char>(type)) + public_key);
}

Result<NoteKey> NoteKey::parse(std::string_view text) {
  auto fail = [&](std::string_view what) {
    return Error{Errc::kCorrupt, "reading the note key \"" + schemas::printable(text, 120) + "\": " + std::string(what)};
  };
  const size_t first = text.find('+'), second = first == text.npos ? first : text.find('+', first + 1);
  if (second == text.npos) return fail("it is not name+hash+base64");
  NoteKey key;
  key.name = text.substr(0, first);
  if (!is_note_name(key.name)) return fail("its name may not stand in a note");
  Result<std::string> raw = from_base64(text.substr(second + 1));
  if (!raw || raw->size() != 1 + kKeyBytes) return fail("it is not base64 of a type and 32 bytes");
  if (raw->front() != static_cast<char>(NoteKeyType::kLog) && raw->front() != static_cast<char>(NoteKeyType::kCosignature))
    return fail("its type is neither 1 (Ed25519) nor 4 (cosignature)");
  key.type = static_cast<NoteKeyType>(raw->front());
  key.public_key = raw->substr(1);
  if (key.to_text() != text) return fail("its hash is not that of its name and key");
  return key;
}

std::string to_line(const NoteSignature& signature) {
  std::string raw;
  append_big_endian(signature.key_id, 4, raw);
  return std::string(kDash) + signature.name + " " + to_base64(raw + signature.bytes) + "\n";
}

Result<std::vector<NoteSignature>> parse_signature_lines(std::string_view text) {
  if (text.size() > kNoteBytesMax || !is_text(text)) return bad("it is no text");
  if (!text.ends_with('\n')) return bad("it does not end in a newline");
  std::vector<NoteSignature> signatures;
  while (!text.empty()) {
    if (signatures.size() == kSignaturesMax) return bad("it has too many signatures");
    TRY_ASSIGN(NoteSignature signature, parse_signature(take_line(&text)));
    signatures.push_back(std::move(signature));
  }
  return signatures;
}

Result<Note> Note::parse(std::string_view bytes) {
  if (bytes.size() > kNoteBytesMax || !is_text(bytes)) return bad("it is no text, or a very long one");
  const size_t blank = bytes.rfind("\n\n");
  if (blank == bytes.npos) return bad("there is no blank line between text and signatures");
  Note note;
  note.text = bytes.substr(0, blank + 1);
  TRY_ASSIGN(note.signatures, parse_signature_lines(bytes.substr(blank + 2)));
  if (note.signatures.empty()) return bad("it has no signature");
  return note;
}

std::string Note::to_text() const {
  std::string out = text + "\n";
  for (const NoteSignature& signature : signatures) out += to_line(signature);
  return out;
}

std::string cosigned_text(std::string_view text, int64_t time_s) {
  return "cosignature/v1\ntime " + std::to_string(time_s) + "\n" + std::string(text);
}

Result<std::unique_ptr<NoteSigner>> NoteSigner::open(std::shared_ptr<Signer> signer, const std::string& name, NoteKeyType type) {
  TRY(check_name(name));
  const SignerKey& known = signer->key();
  Result<std::string> raw = from_base64(known.public_key);
  if (known.algorithm != kEd25519 || !raw || raw->size() != kKeyBytes)
    return Error{Errc::kRefused, "signing notes as " + name + ": they are signed with Ed25519, and the key " + known.signer_id +
                                     " is of " + known.algorithm};
  return std::unique_ptr<NoteSigner>(new NoteSigner(std::move(signer), {name, type, std::move(raw).value()}));
}

Result<NoteSignature> NoteSigner::sign(std::string_view text, int64_t time_s) const {
  const bool cosigns = key_.type == NoteKeyType::kCosignature;
  const std::string message = cosigns ? cosigned_text(text, time_s) : std::string(text);
  TRY_ASSIGN(std::string signature, signer_->sign_message(message));
  if (!ed25519_verify(key_.public_key, message, signature))
    return Error{Errc::kRefused, "signing a note as " + key_.name + ": what the signer gave is no signature of its key"};
  std::string bytes;
  if (cosigns) append_big_endian(static_cast<uint64_t>(time_s), kTimeBytes, bytes);
  return NoteSignature{key_.name, key_.id(), bytes + signature};
}

Result<std::unique_ptr<NoteSigner>> open_note_signer(const NoteSignerOptions& options) {
  TRY(check_name(options.name));  // before a key is made for it
  FileSignerOptions file;
  file.path = options.path;
  file.signer_id = options.name;
  file.create = options.create;
  TRY_ASSIGN(auto signer, open_file_signer(file));
  return NoteSigner::open(std::move(signer), options.name, options.type);
}

Signed signed_by(const Note& note, const NoteKey& key, int64_t* time_s) {
  Signed verdict = Signed::kAbsent;
  const uint32_t id = key.id();
  for (const NoteSignature& signature : note.signatures) {
    if (signature.name != key.name || signature.key_id != id) continue;
    std::string_view bytes = signature.bytes;
    int64_t time = 0;
    if (key.type == NoteKeyType::kCosignature) {
      if (bytes.size() != kTimeBytes + kSignatureBytes || (bytes[0] & 0x80) != 0) return Signed::kBroken;
      for (char c : bytes.substr(0, kTimeBytes)) time = time << 8 | static_cast<unsigned char>(c);
      bytes.remove_prefix(kTimeBytes);
    }
    const bool holds =
        ed25519_verify(key.public_key, key.type == NoteKeyType::kCosignature ? cosigned_text(note.text, time) : note.text, bytes);
    if (!holds) return Signed::kBroken;
    verdict = Signed::kHolds;
    if (time_s != nullptr) *time_s = time;
  }
  return verdict;
}

std::string Checkpoint::to_text() const {
  return origin + "\n" + std::to_string(size) + "\n" + to_base64(as_bytes(root)) + "\n" + extensions;
}

Result<Checkpoint> Checkpoint::parse(std::string_view text) {
  if (std::ranges::count(text, '\n') < 3 || !text.ends_with('\n')) return bad("a checkpoint has at least three lines");
  Checkpoint out;
  out.origin = take_line(&text);
  if (out.origin.empty()) return bad("a checkpoint has an origin");
  TRY_ASSIGN(out.size, decimal(take_line(&text)));
  Result<std::string> root = from_base64(take_line(&text));
  if (!root || root->size() != out.root.size()) return bad("a checkpoint's root is not base64 of 32 bytes");
  std::copy(root->begin(), root->end(), out.root.begin());
  out.extensions = text;
  if (text.starts_with('\n') || text.find("\n\n") != text.npos) return bad("a line of a checkpoint is empty");
  return out;
}

}  // namespace assay::streams
