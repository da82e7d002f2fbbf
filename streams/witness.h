// A witness of transparency logs: cosigns a checkpoint when it continues the one before, and never a fork.
// Source: C2SP tlog-witness, add-checkpoint.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <vector>

#include "streams/note.h"

namespace assay::streams {

struct WitnessAnswer {
  int status = 200;
  std::string content_type = "text/plain; charset=utf-8";
  std::string body;
};

struct WitnessOptions {
  std::string dir;            // what was cosigned last of each log, one file a log
  std::vector<NoteKey> logs;  // those that it knows
  bool sync = true;           // behaviour: on the disk before the answer
};

/// Thread-safe: requests are answered one after the other.
class Witness {
 public:
  /// Requires: a key of type kCosignature. Errors: kRefused (another process is the witness of that directory), kUnexpected.
  static Result<std::unique_ptr<Witness>> open(WitnessOptions options, std::unique_ptr<NoteSigner> signer);
  ~Witness();

  /// Answers the body of one POST add-checkpoint at an instant, seconds since the epoch.
  WitnessAnswer add_checkpoint(std::string_view body, int64_t now_s);
  const NoteKey& key() const;

 private:
  struct State;
  explicit Witness(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

/// The body of a request, and back. Errors: kCorrupt.
struct AddCheckpoint {
  uint64_t old_size = 0;
  std::vector<Sha256Digest> proof;
  std::string note;
  std::string to_text() const;
  static Result<AddCheckpoint> parse(std::string_view body);
};

}  // namespace assay::streams
