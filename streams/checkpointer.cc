#include "streams/checkpointer.h"

#include <algorithm>
#include <charconv>
#include <cstdio>
#include <set>
#include <utility>

#include "processors/merkle_proof.h"
#include "streams/archive_files.h"
#include "streams/audit_row_view.h"
#include "streams/id_index.h"
#include "streams/witness.h"

namespace assay::streams {
namespace {

const std::string kNewest = "checkpoint", kPolicy = "policy", kNotes = "checkpoints/";

Result<std::optional<std::string>> read_if_there(const std::string& path) {
  Result<MappedFile> file = MappedFile::open(path);
  if (file) return std::optional(std::string(file->bytes()));
  if (file.error().code == Errc::kNotFound) return std::optional<std::string>();
  return file.error();
}

Error rewritten(const std::string& what) { return {Errc::kTampered, "making a checkpoint: " + what}; }

/// Names of the tiles that are not full in a tree of that size, and of the segment of ids that is not.
std::set<std::string> unfinished(uint64_t size) {
  std::set<std::string> names;
  if (size % kIdSegmentRows != 0) names.insert(id_segment_name(size, size));
  for (int level = 0;; ++level) {
    const uint64_t hashes = level > 7 ? 0 : size >> (8 * level);
    if (hashes == 0) return names;
    const uint64_t index = hashes / kTileWidth, width = tile_width(size, level, index);
    if (width > 0) names.insert(tile_name(level, index, width));
  }
}

/// Whether the file is one that a larger tree leaves behind.
bool is_unfinished(const std::string& name) {
  if (const auto tile = parse_tile_name(name)) return tile->width != kTileWidth;
  const auto segment = parse_id_segment_name(name);
  return segment && segment->rows() != kIdSegmentRows;
}

}  // namespace

std::string checkpoint_file(uint64_t size) {
  char text[40];
  std::snprintf(text, sizeof text, "%012llu.note", static_cast<unsigned long long>(size));
  return kNotes + text;
}

std::string checkpoint_object(uint64_t size, std::string_view note) {
  std::string name = checkpoint_file(size);
  return name.insert(name.rfind('.'), "-" + to_hex(as_bytes(sha256(note))).substr(0, 16));
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
  std::optional<MadeCheckpoint> newest;
  std::vector<std::string> placed;  // what each place has got last
  std::set<std::string> kept;  // unfinished tiles of the newest checkpoint and of the one before, which somebody may be reading

  Result<void> step(const std::string& what) const { return options.before_step ? options.before_step(what) : Result<void>(); }

  /// Writes files that count for nothing until a checkpoint speaks of them; those that are new go to `unsynced`.
  TileWriter writer(std::vector<std::string>* unsynced) const {
    return [this, unsynced](const std::string& name, std::string_view bytes) -> Result<void> {
      Result<MappedFile> there = MappedFile::open(options.dir + "/" + name);
      if (!there || there->bytes() != bytes) {  // what is right already is not torn for a moment
        TRY(step("write " + name));
        TRY(write_file(options.dir, name, bytes, false));
      }
      unsynced->push_back(name);
      return {};
    };
  }

  Result<void> sync(std::vector<std::string>* unsynced) const {
    if (unsynced->empty()) return {};
    TRY(step("sync"));
    TRY(sync_files(options.dir, *unsynced));
    unsynced->clear();
    return {};
  }

  /// The text with those of its signatures that somebody known gave.
  Note known_part(const Note& note) const {
    Note out{note.text, {}};
    for (const NoteSignature& signature : note.signatures) {
      const Note one{note.text, {signature}};
      const bool witnessed = std::ranges::any_of(
          policy.witnesses(), [&](const NotePolicy::Witness& witness) { return signed_by(one, witness.key) == Signed::kHolds; });
      if (signed_by(one, signer->key()) == Signed::kHolds)
        out.signatures.insert(out.signatures.begin(), signature);
      else if (witnessed)
        out.signatures.push_back(signature);
    }
    return out;
  }

  /// From here on it is the newest: first in the file that says so, then among the others.
  Result<void> keep(const Checkpoint& checkpoint, const Note& note) {
    TRY(step("newest"));
    TRY(replace_file(options.dir, kNewest, note.to_text(), true));
    newest = MadeCheckpoint{checkpoint, note.to_text(), cosignatures(note)};
    return list_newest();
  }

  Result<void> list_newest() const {
    const std::string file = checkpoint_file(newest->checkpoint.size);
    Result<MappedFile> listed = MappedFile::open(options.dir + "/" + file);
    if (listed && listed->bytes() == newest->note) return {};
    TRY(step("list"));
    return replace_file(options.dir + "/" + kNotes, file.substr(kNotes.size()), newest->note, true);
  }

  size_t cosignatures(const Note& note) const {
    return static_cast<size_t>(std::ranges::count_if(
        policy.witnesses(), [&](const NotePolicy::Witness& witness) { return signed_by(note, witness.key) == Signed::kHolds; }));
  }

  /// The tree and the index at the newest checkpoint, from their files; from nothing when they are not what was signed.
  std::pair<TileBuilder, IdIndexBuilder> resume(const Checkpoint& last, std::vector<std::string>* unsynced) const {
    const TileReader read = directory_tiles(options.dir);
    Result<TileBuilder> tree = TileBuilder::resume(last.size, read, writer(unsynced));
    Result<IdIndexBuilder> ids = IdIndexBuilder::resume(last.size, read, writer(unsynced));
    if (tree && ids && tree->root() == last.root) return {std::move(tree).value(), std::move(ids).value()};
    return {TileBuilder(writer(unsynced)), IdIndexBuilder(writer(unsynced))};
  }

  /// Adds the rows that are new; those that a lost tree must have again are held against what was signed.
  Result<void> grow(TileBuilder& tree, IdIndexBuilder& ids, const Checkpoint& last, const OpenChain& open_chain) const {
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
        Result<Link> row = link_of(line.text);
        if (!row) return rewritten(line.place + ": " + row.error().message);
        const Sha256Digest leaf = processors::merkle_leaf(as_bytes(row->hash));
        const std::optional<Sha256Digest>& link = row->prev_hash;
        const bool follows = known ? leaf == *before : before ? link && processors::merkle_leaf(as_bytes(*link)) == *before : !link;
        if (!follows)
          return rewritten(line.place + ": it does not follow the row that was last when the checkpoint before was made");
        before = leaf;
        if (std::exchange(known, false)) continue;
        TRY(tree.add(leaf));
        TRY(ids.add(row->id));
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

  struct Link {
    Sha256Digest hash{};
    std::optional<Sha256Digest> prev_hash;
    std::string id;
  };
  static Result<Link> link_of(std::string_view line) {
    if (const std::optional<RowView> view = view_audit_line(line)) return Link{view->hash, view->prev_hash, std::string(view->id)};
    bool canonical_text = true;  // a database keeps values, not bytes
    TRY_ASSIGN(SignedRow row, parse_audit_line(line, nullptr, &canonical_text));
    return Link{row.row.hash, row.row.prev_hash, std::move(row.row.id)};
  }

  /// Removes what only checkpoints before the last two needed, and what a crash left behind.
  Result<void> remove_unfinished(const std::set<std::string>& needed) const {
    for (const char* folder : {"tile", "ids"}) {
      Result<std::vector<std::string>> names = list_files(options.dir + "/" + folder);
      if (!names && names.error().code == Errc::kNotFound) continue;
      if (!names) return names.error();
      for (const std::string& below : *names) {
        const std::string name = std::string(folder) + "/" + below;
        if (!is_unfinished(name) || needed.contains(name)) continue;
        TRY(step("remove " + name));
        TRY(remove_file(options.dir, name));
      }
    }
    return {};
  }

  /// Keeps the files of the new checkpoint and of the one before, and removes those of the one before that.
  Result<void> turn_over(uint64_t before, uint64_t now) {
    std::set<std::string> next = unfinished(now);
    next.merge(unfinished(before));
    for (const std::string& name : kept) {
      if (next.contains(name)) continue;
      TRY(step("remove " + name));
      TRY(remove_file(options.dir, name));
    }
    kept = std::move(next);
    return {};
  }

  /// Asks a witness, first from the size it is thought to know, then from the one that it says. Errors: kTampered (a fork).
  Result<std::optional<NoteSignature>> cosign(const NotePolicy::Witness& witness, const Checkpoint& checkpoint, const Note& note,
                                              uint64_t known_size) {
    TileTree tree(directory_tiles(options.dir), checkpoint.size);
    auto trouble = [&](const std::string& what) {
      if (options.on_absent) options.on_absent(witness, what);
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
const std::optional<MadeCheckpoint>& Checkpointer::newest() const { return state_->newest; }

Result<std::unique_ptr<Checkpointer>> Checkpointer::open(CheckpointerOptions options, std::unique_ptr<NoteSigner> signer) {
  CHECK(signer->key().type == NoteKeyType::kLog && (options.policy.witnesses().empty() || options.ask));
  TRY_ASSIGN(DirectoryLock lock, DirectoryLock::take(options.dir));
  const NotePolicy policy = options.policy.with_log(signer->key());
  const std::string dir = options.dir;
  const size_t places = options.places.size();
  std::unique_ptr<State> state(new State{
      std::move(options), std::move(signer), std::move(lock), policy, std::nullopt, std::vector<std::string>(places), {}});
  TRY_ASSIGN(std::optional<std::string> text, read_if_there(dir + "/" + kNewest));
  if (text) {
    TRY_ASSIGN(Note note, Note::parse(*text));
    TRY_ASSIGN(Checkpoint last, Checkpoint::parse(note.text));
    if (last.origin != state->signer->key().name || signed_by(note, state->signer->key()) != Signed::kHolds)
      return Error{Errc::kRefused, "making checkpoints in " + dir + ": the newest there is not of this log (" +
                                       state->signer->key().to_text() + ")"};
    state->newest = MadeCheckpoint{last, *text, state->cosignatures(note)};
    state->kept = unfinished(last.size);
    TRY(state->list_newest());
  }
  TRY(state->remove_unfinished(state->kept));
  TRY(state->step("policy"));
  TRY(replace_file(dir, kPolicy, policy.to_text(), true));
  return std::unique_ptr<Checkpointer>(new Checkpointer(std::move(state)));
}

Result<void> Checkpointer::hear(const std::string& text) {
  State& state = *state_;
  const NoteKey& ours = state.signer->key();
  TRY_ASSIGN(Note note, Note::parse(text));
  TRY_ASSIGN(Checkpoint heard, Checkpoint::parse(note.text));
  if (heard.origin != ours.name) return {};
  if (signed_by(note, ours) != Signed::kHolds)
    return Error{Errc::kRefused, "making checkpoints of " + ours.name + ": one of " + std::to_string(heard.size) +
                                     " rows is signed by another key than " + ours.to_text() +
                                     "; processes that share a chain share audit.checkpoint_key as well, another chain has another "
                                     "audit.checkpoint_origin"};
  const uint64_t known = state.newest ? state.newest->checkpoint.size : 0;
  if (heard.size > known) return state.keep(heard, state.known_part(note));
  if (heard.size == known && known > 0 && heard.root != state.newest->checkpoint.root)
    return rewritten("two checkpoints of " + std::to_string(known) + " rows are of different chains; the other one:\n" + text);
  return {};
}

Result<std::optional<MadeCheckpoint>> Checkpointer::make(const OpenChain& open_chain) {
  State& state = *state_;
  if (state.newest) TRY(state.list_newest());
  const Checkpoint last = state.newest ? state.newest->checkpoint : Checkpoint();
  std::vector<std::string> unsynced;
  auto [tree, ids] = state.resume(last, &unsynced);
  const bool found = tree.size() == last.size;  // else its files are made again
  TRY(state.grow(tree, ids, last, open_chain));
  const Checkpoint next{state.signer->key().name, tree.size(), tree.root(), {}};
  if (next.size == 0) return std::optional<MadeCheckpoint>();
  const bool grown = next.size != last.size;
  if (grown || !found) {
    // The unfinished tiles last: where they fit the checkpoint, those before them are taken to be whole.
    TRY(state.sync(&unsynced));
    TRY(tree.write_partial());
    TRY(ids.write_partial());
    TRY(state.sync(&unsynced));
  }
  Note note{next.to_text(), {}};
  if (grown) {
    TRY_ASSIGN(NoteSignature signature, state.signer->sign(note.text));
    note.signatures.push_back(std::move(signature));
    TRY(state.keep(next, note));
    TRY(state.turn_over(last.size, next.size));
  } else {
    TRY_ASSIGN(note, Note::parse(state.newest->note));
  }
  bool cosigned = false;
  for (const NotePolicy::Witness& witness : state.policy.witnesses()) {
    if (signed_by(note, witness.key) == Signed::kHolds) continue;
    TRY_ASSIGN(std::optional<NoteSignature> signature, state.cosign(witness, next, note, grown ? last.size : next.size));
    if (!signature) continue;
    note.signatures.push_back(std::move(*signature));
    cosigned = true;
  }
  if (cosigned) TRY(state.keep(next, note));
  Result<void> placed;
  for (size_t i = 0; i < state.options.places.size(); ++i) {
    if (state.placed[i] == state.newest->note) continue;
    Result<void> put = state.options.places[i](next, state.newest->note);
    if (put) state.placed[i] = state.newest->note;
    if (placed && !put) placed = std::move(put);
  }
  TRY(std::move(placed));
  if (!grown && !cosigned) return std::optional<MadeCheckpoint>();
  return state.newest;
}

}  // namespace assay::streams
