#include "streams/checkpointer.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <utility>

#include "processors/merkle_proof.h"
#include "streams/archive_files.h"
#include "streams/witness.h"

namespace assay::streams {
namespace {

constexpr std::string_view kNewest = "checkpoint", kPolicy = "policy";

Result<std::optional<std::string>> read_if_there(const std::string& path) {
  Result<MappedFile> file = MappedFile::open(path);
  if (file) return std::optional(std::string(file->bytes()));
  if (file.error().code == Errc::kNotFound) return std::optional<std::string>();
  return file.error();
}

Error rewritten(const std::string& what) { return {Errc::kTampered, "making a checkpoint: " + what}; }

}  // namespace

std::string checkpoint_file(uint64_t size) {
  char text[40];
  std::snprintf(text, sizeof text, "checkpoints/%012llu.note", static_cast<unsigned long long>(size));
  return text;
}

TileReader directory_tiles(const std::string& dir) {
  return [dir](const std::string& name) -> Result<std::string> {
    TRY_ASSIGN(MappedFile file, MappedFile::open(dir + "/" + name));
    return std::string(file.bytes());
  };
}

struct Checkpointer::State {
  CheckpointerOptions options;
  std::unique_ptr<NoteSigner> signer;
  DirectoryLock lock;
  NotePolicy policy;
  std::optional<std::string> unpublished;  // the newest note, until it is elsewhere too
  bool looked = false;                     // for a note of the process before

  TileWriter writer() const {
    // Not synced: tiles that a crash tears are made again from the rows.
    return [dir = options.dir](const std::string& name, std::string_view bytes) { return write_file(dir, name, bytes, false); };
  }

  Result<void> keep(const Checkpoint& checkpoint, const Note& note) {
    TRY(write_file(options.dir, checkpoint_file(checkpoint.size), note.to_text(), true));
    unpublished = note.to_text();
    return replace_file(options.dir, std::string(kNewest), note.to_text(), true);
  }

  Result<void> publish(const Checkpoint& checkpoint) {
    if (!unpublished || !options.publish) return {};
    TRY(options.publish(checkpoint, *unpublished));
    unpublished.reset();
    return {};
  }

  /// The tree at the last checkpoint, from its tiles; from nothing when they are not what was signed.
  TileBuilder resume(const Checkpoint& last) const {
    Result<TileBuilder> builder = TileBuilder::resume(last.size, directory_tiles(options.dir), writer());
    if (builder && builder->root() == last.root) return std::move(builder).value();
    return TileBuilder(writer());
  }

  /// Adds the rows that are new; those that a lost tree must have again are held against what was signed.
  Result<void> grow(TileBuilder& tree, const Checkpoint& last, const OpenChain& open_chain) const {
    std::optional<Sha256Digest> before;  // leaf of the row before
    bool known = tree.size() > 0;        // the first row to come is the last one of the tree: it must still be there
    if (known) {
      TileTree stored(directory_tiles(options.dir), tree.size());
      TRY_ASSIGN(before, stored.leaf(tree.size() - 1));
    }
    TRY_ASSIGN(StoredChain chain, open_chain(static_cast<int64_t>(tree.size()) - (known ? 1 : 0)));
    while (true) {
      TRY_ASSIGN(std::vector<StoredLine> lines, chain.lines());
      if (lines.empty()) break;
      for (const StoredLine& line : lines) {
        bool canonical_text = true;
        Result<SignedRow> row = parse_audit_line(line.text, nullptr, &canonical_text);
        if (!row) return rewritten(line.place + ": " + row.error().message);
        const Sha256Digest leaf = processors::merkle_leaf(as_bytes(row->row.hash));
        const std::optional<Sha256Digest>& link = row->row.prev_hash;
        const bool follows = known ? leaf == *before : before ? link && processors::merkle_leaf(as_bytes(*link)) == *before : !link;
        if (!follows)
          return rewritten(line.place + ": it does not follow the row that was last when the checkpoint before was made");
        before = leaf;
        if (std::exchange(known, false)) continue;
        TRY(tree.add(leaf));
        if (tree.size() == last.size && tree.root() != last.root)
          return rewritten("rows 1 to " + std::to_string(last.size) + " are not those that the checkpoint before was made of");
      }
    }
    if (known) return rewritten("row " + std::to_string(tree.size()) + ", the last when the checkpoint before was made, is gone");
    if (tree.size() < last.size)
      return rewritten("the chain has " + std::to_string(tree.size()) + " rows; the checkpoint before was made of " +
                       std::to_string(last.size));
    return {};
  }

  /// Asks a witness, first from the size it is thought to know, then from the one that it says. Errors: kTampered (a fork).
  Result<std::optional<NoteSignature>> cosign(const NotePolicy::Witness& witness, const Checkpoint& checkpoint, const Note& note,
                                              uint64_t known_size) {
    TileTree tree(directory_tiles(options.dir), checkpoint.size);
    auto trouble = [&](const std::string& what) {
      if (options.on_trouble) options.on_trouble("witness " + witness.name + " at " + witness.url + ": " + what);
      return std::optional<NoteSignature>();
    };
    for (int tries = 0; tries < 2; ++tries) {
      AddCheckpoint request{known_size, {}, Note{note.text, {note.signatures.front()}}.to_text()};
      if (known_size > 0) {
        TRY_ASSIGN(request.proof, tree.hashes_of(processors::consistency_ranges(known_size, checkpoint.size)));
      }
      Result<std::pair<int, std::string>> answer = options.ask(witness, request.to_text());
      if (!answer) return trouble(answer.error().message);
      const auto& [status, body] = *answer;
      if (status == 409) {
        uint64_t size = 0;
        auto [stop, error] = std::from_chars(body.data(), body.data() + body.size(), size);
        if (error != std::errc() || std::string_view(stop, static_cast<size_t>(body.data() + body.size() - stop)) != "\n")
          return trouble("it answered 409 without a size");
        if (size > checkpoint.size || (size == checkpoint.size && known_size == size))
          return rewritten("witness " + witness.name + " has cosigned another chain, of " + std::to_string(size) + " rows");
        known_size = size;
        continue;
      }
      if (status == 422)
        return rewritten("witness " + witness.name + " refused: the chain is not the one it cosigned at " +
                         std::to_string(known_size) + " rows");
      Result<std::vector<NoteSignature>> lines =
          status == 200 ? parse_signature_lines(body)
                        : Error{Errc::kUnreachable, "it answered " + std::to_string(status) + " " + body};
      if (!lines) return trouble(lines.error().message);
      for (const NoteSignature& signature : *lines)
        if (signed_by(Note{note.text, {signature}}, witness.key) == Signed::kHolds) return std::optional(signature);
      return trouble("its answer bears no signature of its key");
    }
    return trouble("it answered 409 twice");
  }
};

Checkpointer::Checkpointer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Checkpointer::~Checkpointer() = default;
const NotePolicy& Checkpointer::policy() const { return state_->policy; }

Result<std::unique_ptr<Checkpointer>> Checkpointer::open(CheckpointerOptions options, std::unique_ptr<NoteSigner> signer) {
  CHECK(signer->key().type == NoteKeyType::kLog && (options.policy.witnesses().empty() || options.ask));
  TRY_ASSIGN(DirectoryLock lock, DirectoryLock::take(options.dir));
  const NotePolicy policy = options.policy.with_log(signer->key());
  TRY(replace_file(options.dir, std::string(kPolicy), policy.to_text(), true));
  return std::unique_ptr<Checkpointer>(new Checkpointer(
      std::unique_ptr<State>(new State{std::move(options), std::move(signer), std::move(lock), policy, std::nullopt, false})));
}

Result<std::optional<MadeCheckpoint>> Checkpointer::make(const OpenChain& open_chain) {
  State& state = *state_;
  Checkpoint last;
  std::optional<Note> note;
  TRY_ASSIGN(std::optional<std::string> newest, read_if_there(state.options.dir + "/" + std::string(kNewest)));
  if (newest) {
    TRY_ASSIGN(note, Note::parse(*newest));
    TRY_ASSIGN(last, Checkpoint::parse(note->text));
    if (last.origin != state.signer->key().name || signed_by(*note, state.signer->key()) != Signed::kHolds)
      return Error{Errc::kRefused, "making a checkpoint in " + state.options.dir + ": the newest there is not of this log (" +
                                       state.signer->key().to_text() + ")"};
  }
  if (newest && !state.looked) state.unpublished = newest;  // whether the process before got to it is not known
  state.looked = true;
  TileBuilder tree = state.resume(last);
  TRY(state.grow(tree, last, open_chain));
  Checkpoint next{state.signer->key().name, tree.size(), tree.root(), {}};
  if (next.size == 0) return std::optional<MadeCheckpoint>();
  const bool grown = next.size != last.size;
  if (grown) {
    TRY(tree.write_partial());
    note = Note{next.to_text(), {}};
    note->signatures.push_back(state.signer->sign(note->text));
    TRY(state.keep(next, *note));
  }
  bool cosigned = false;
  for (const NotePolicy::Witness& witness : state.policy.witnesses()) {
    if (signed_by(*note, witness.key) == Signed::kHolds) continue;
    TRY_ASSIGN(std::optional<NoteSignature> signature, state.cosign(witness, next, *note, grown ? last.size : next.size));
    if (!signature) continue;
    note->signatures.push_back(std::move(*signature));
    cosigned = true;
  }
  if (cosigned) TRY(state.keep(next, *note));
  TRY(state.publish(next));
  if (!grown && !cosigned) return std::optional<MadeCheckpoint>();
  return std::optional(MadeCheckpoint{next, note->to_text(), note->signatures.size() - 1});
}

}  // namespace assay::streams
