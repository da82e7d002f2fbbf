#include "streams/witness.h"

#include <algorithm>
#include <charconv>

#include "processors/merkle_proof.h"
#include "streams/archive_files.h"

namespace assay::streams {
namespace {

constexpr size_t kProofMax = 63;

std::string file_of(const std::string& origin) { return to_hex(as_bytes(sha256(origin))) + ".checkpoint"; }

WitnessAnswer refuse(int status, const std::string& why) { return {status, "text/plain; charset=utf-8", why + "\n"}; }

}  // namespace

std::string AddCheckpoint::to_text() const {
  std::string out = "old " + std::to_string(old_size) + "\n";
  for (const Sha256Digest& hash : proof) out += to_base64(as_bytes(hash)) + "\n";
  return out + "\n" + note;
}

Result<AddCheckpoint> AddCheckpoint::parse(std::string_view body) {
  auto fail = [](std::string_view what) { return Error{Errc::kCorrupt, "reading a request to a witness: " + std::string(what)}; };
  AddCheckpoint out;
  for (bool first = true;; first = false) {
    const size_t end = body.find('\n');
    if (end == body.npos) return fail("there is no empty line before the checkpoint");
    std::string_view line = body.substr(0, end);
    body.remove_prefix(end + 1);
    if (first) {
      if (!line.starts_with("old ")) return fail("it does not begin with \"old \" and a size");
      line.remove_prefix(4);
      auto [stop, error] = std::from_chars(line.data(), line.data() + line.size(), out.old_size);
      if (error != std::errc() || stop != line.data() + line.size() || std::to_string(out.old_size) != line)
        return fail("the old size is no decimal number");
      continue;
    }
    if (line.empty()) break;
    Result<std::string> raw = from_base64(line);
    Sha256Digest hash;
    if (!raw || raw->size() != hash.size()) return fail("a line of the proof is not base64 of 32 bytes");
    if (out.proof.size() == kProofMax) return fail("the proof has more than 63 lines");
    std::copy(raw->begin(), raw->end(), hash.begin());
    out.proof.push_back(hash);
  }
  out.note = body;
  return out;
}

struct Witness::State {
  WitnessOptions options;
  std::unique_ptr<NoteSigner> signer;
  DirectoryLock lock;
  std::mutex mutex;
};

Witness::Witness(std::unique_ptr<State> state) : state_(std::move(state)) {}
Witness::~Witness() = default;

Result<std::unique_ptr<Witness>> Witness::open(WitnessOptions options, std::unique_ptr<NoteSigner> signer) {
  CHECK(signer->key().type == NoteKeyType::kCosignature);
  TRY_ASSIGN(DirectoryLock lock, DirectoryLock::take(options.dir));
  return std::unique_ptr<Witness>(
      new Witness(std::unique_ptr<State>(new State{std::move(options), std::move(signer), std::move(lock), {}})));
}

const NoteKey& Witness::key() const { return state_->signer->key(); }

WitnessAnswer Witness::add_checkpoint(std::string_view body, int64_t now_s) {
  Result<AddCheckpoint> request = AddCheckpoint::parse(body);
  if (!request) return refuse(400, request.error().message);
  Result<Note> note = Note::parse(request->note);
  if (!note) return refuse(400, note.error().message);
  Result<Checkpoint> checkpoint = Checkpoint::parse(note->text);
  if (!checkpoint) return refuse(400, checkpoint.error().message);

  bool known = false, trusted = false;
  for (const NoteKey& log : state_->options.logs) {
    if (log.name != checkpoint->origin) continue;
    known = true;
    trusted = trusted || signed_by(*note, log) == Signed::kHolds;
  }
  if (!known) return refuse(404, "this witness does not know the log " + checkpoint->origin);
  if (!trusted) return refuse(403, "no key that this witness knows of the log has signed the checkpoint");
  if (request->old_size > checkpoint->size) return refuse(400, "the old size is greater than that of the checkpoint");

  std::lock_guard lock(state_->mutex);
  const std::string& dir = state_->options.dir;
  const std::string file = file_of(checkpoint->origin);
  Checkpoint last;
  Result<MappedFile> stored = MappedFile::open(dir + "/" + file);
  if (stored) {
    Result<Checkpoint> parsed = Checkpoint::parse(stored->bytes());
    if (!parsed || parsed->origin != checkpoint->origin) return refuse(500, "the state of this witness is damaged: " + file);
    last = std::move(parsed).value();
  } else if (stored.error().code != Errc::kNotFound) {
    return refuse(500, stored.error().message);
  }
  const WitnessAnswer conflict{409, "text/x.tlog.size", std::to_string(last.size) + "\n"};
  if (request->old_size != last.size) return conflict;
  if (last.size == checkpoint->size && stored && last.root != checkpoint->root) return conflict;
  const bool holds = last.size == 0
                         ? request->proof.empty()
                         : processors::consistency_holds(last.size, checkpoint->size, last.root, checkpoint->root, request->proof);
  if (!holds) return refuse(422, "the checkpoint does not continue the one that was cosigned last");
  if (checkpoint->size == 0 && checkpoint->root != sha256({})) return refuse(422, "an empty tree has another root");

  Result<NoteSignature> signature = state_->signer->sign(note->text, now_s);
  if (!signature) return refuse(500, signature.error().message);
  if (Result<void> kept = replace_file(dir, file, note->text, state_->options.sync); !kept)
    return refuse(500, kept.error().message);
  return {200, "text/plain; charset=utf-8", to_line(*signature)};
}

}  // namespace assay::streams
