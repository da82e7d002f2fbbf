// Makes checkpoints of the audit chain: grows the tree by the rows that are new, signs its head, has it cosigned, and puts it
// where the database's owner has no hand.
//
//   DIR/tile/<L>/<N>[.p/<W>]          the tree; can be made again from the rows
//   DIR/checkpoints/<size>.note       every checkpoint, 12 digits, with the cosignatures that it got
//   DIR/checkpoint                    the newest
//   DIR/policy                        the log's key and its witnesses
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "streams/audit_sink.h"
#include "streams/note_policy.h"
#include "streams/tile_tree.h"

namespace assay::streams {

struct CheckpointerOptions {
  std::string dir;
  NotePolicy policy;  // the witnesses, with the URLs at which they are asked, and their quorum; the log itself is added
  /// Sends a body to a witness's add-checkpoint. Errors: kUnreachable. Required when there are witnesses.
  std::function<Result<std::pair<int, std::string>>(const NotePolicy::Witness& witness, const std::string& body)> ask = {};
  /// Puts a note elsewhere too; called again with the same one until it succeeds.
  std::function<Result<void>(const Checkpoint& checkpoint, const std::string& note)> publish = {};
  std::function<void(const std::string& what)> on_trouble = {};  // a witness that does not answer: the checkpoint stands without it
};

/// A checkpoint that was made.
struct MadeCheckpoint {
  Checkpoint checkpoint;
  std::string note;
  size_t cosignatures = 0;
};

std::string checkpoint_file(uint64_t size);

class Checkpointer {
 public:
  /// Opens the chain's rows after a sequence, in order.
  using OpenChain = std::function<Result<StoredChain>(int64_t after)>;

  /// `signer` signs for the log; its key's name is the origin. Errors: kRefused (the directory belongs to another log, or process).
  static Result<std::unique_ptr<Checkpointer>> open(CheckpointerOptions options, std::unique_ptr<NoteSigner> signer);
  ~Checkpointer();

  /// Makes a checkpoint of the chain as it is now. Nothing: no row is new, and no cosignature was got that was missing.
  /// Errors: kTampered (the rows do not continue those of the last checkpoint, or a witness saw another chain), and those of
  /// reading and writing.
  Result<std::optional<MadeCheckpoint>> make(const OpenChain& open_chain);
  const NotePolicy& policy() const;

 private:
  struct State;
  explicit Checkpointer(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// Reads tiles below a directory.
TileReader directory_tiles(const std::string& dir);

}  // namespace assay::streams
