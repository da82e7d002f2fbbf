// Makes checkpoints of the audit chain: grows the tree by the rows that are new, signs its head, has it cosigned, and puts it
// where the database's owner has no hand.
//
//   DIR/checkpoint                    the newest: the tree below it counts once this names it
//   DIR/tile/<L>/<N>[.p/<W>]          the tree; can be made again from the rows
//   DIR/ids/<first>-<last>            which row an event is (id_index.h); can be made again as well
//   DIR/checkpoints/<size>.note       every checkpoint, 12 digits, with the cosignatures that it got
//   DIR/policy                        the log's key and its witnesses
//
// Tiles are on the disk before the checkpoint that speaks of them, and what an older one needs stays: a crash leaves the tree of
// the checkpoint before or that of the new one, whole.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "streams/audit_sink.h"
#include "streams/note_policy.h"
#include "streams/tile_tree.h"

namespace assay::streams {

struct CheckpointerOptions {
  std::string dir;
  NotePolicy policy;  // the witnesses, with the URLs at which they are asked, and their quorum; the log itself is added
  /// Sends a body to a witness's add-checkpoint. Errors: kUnreachable. Required when there are witnesses.
  std::function<Result<std::pair<int, std::string>>(const NotePolicy::Witness& witness, const std::string& body)> ask = {};
  /// Puts a note elsewhere too; each is called again with the newest until it succeeds.
  std::vector<std::function<Result<void>(const Checkpoint& checkpoint, const std::string& note)>> places = {};
  /// A witness that gave no cosignature: the checkpoint stands without it, and it is asked again.
  std::function<void(const NotePolicy::Witness& witness, const std::string& what)> on_absent = {};
  /// Called before each step that changes the disk; an error stops there, as a crash would. For tests.
  std::function<Result<void>(const std::string& step)> before_step = {};
};

/// A checkpoint that was made.
struct MadeCheckpoint {
  Checkpoint checkpoint;
  std::string note;
  size_t cosignatures = 0;
};

/// "checkpoints/000000000812.note"
std::string checkpoint_file(uint64_t size);
/// The same with 16 hex digits of the note's SHA-256, for where nothing is overwritten: "checkpoints/000000000812-….note".
std::string checkpoint_object(uint64_t size, std::string_view note);

class Checkpointer {
 public:
  /// Opens the chain's rows after a sequence, in order.
  using OpenChain = std::function<Result<StoredChain>(int64_t after)>;

  /// `signer` signs for the log; its key's name is the origin.
  /// Errors: kRefused (the directory belongs to another log, or process), kCorrupt (its newest checkpoint is none).
  static Result<std::unique_ptr<Checkpointer>> open(CheckpointerOptions options, std::unique_ptr<NoteSigner> signer);
  ~Checkpointer();

  /// Takes up a checkpoint that was found elsewhere, when it is this log's and newer: the chain must continue that one.
  /// Errors: kRefused (another key signs in this log's name), kTampered (the two are of different chains), kCorrupt (it is none).
  Result<void> hear(const std::string& note);

  /// Makes a checkpoint of the chain as it is now. Nothing: no row is new, and no cosignature was got that was missing.
  /// Errors: kTampered (the rows do not continue those of the last checkpoint, or a witness saw another chain), and those of
  /// reading, signing and writing; after a checkpoint was made, those of the places: newest() tells.
  Result<std::optional<MadeCheckpoint>> make(const OpenChain& open_chain);
  /// The newest checkpoint, whoever made it.
  const std::optional<MadeCheckpoint>& newest() const;
  const NotePolicy& policy() const;

 private:
  struct State;
  explicit Checkpointer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Reads tiles below a directory.
TileReader directory_tiles(const std::string& dir);

}  // namespace assay::streams
