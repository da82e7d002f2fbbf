// Holds the rows of a chain, as they are proven, against checkpoints, tiles and the index of ids.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "streams/audit_verify.h"
#include "streams/id_index.h"
#include "streams/note_policy.h"
#include "streams/tile_tree.h"

namespace assay::streams {

class CheckpointCheck {
 public:
  explicit CheckpointCheck(VerifyReport& report)
      : report_(report),
        tree_([this](const std::string& name, std::string_view bytes) { return made(name, bytes); }),
        ids_([this](const std::string& name, std::string_view bytes) { return made(name, bytes); }) {}

  /// Takes a note; what is wrong with it becomes a finding. `strict`: one of the directory's own, where each signature must be
  /// of a key that the policy names.
  void add_note(const std::string& place, std::string_view note, const NotePolicy& policy, bool strict);
  /// The tiles below a directory, and with `ids` the segments of its index: those of the rows must be there, be what the rows make,
  /// and nothing else.
  void expect_files(std::string dir, const std::vector<std::string>& names, bool ids);
  /// Takes the next proven row.
  void add_row(const Sha256Digest& hash, std::string_view event_id, int64_t created_at_us);
  /// Whether there is anything to hold rows against.
  bool needed() const { return !heads_.empty() || files_expected_; }
  /// After the last row: notes the findings. `broken`: a row was not proven, and what lies behind it tells nothing. `wanted`: there
  /// must be a checkpoint that the policy counts; `place` is where it is missing.
  void end(bool broken, bool wanted, const std::string& place);
  Sha256Digest root() const { return tree_.root(); }

 private:
  struct Head {
    std::string place, origin, fault;  // why the policy does not count it
    Sha256Digest root{};
    size_t witnesses = 0;
    std::string names;
    int64_t witnessed_s = 0;
  };
  Result<void> made(const std::string& name, std::string_view bytes);
  void judge(const Head& head, uint64_t size, std::string_view event_id);

  VerifyReport& report_;
  TileBuilder tree_;
  IdIndexBuilder ids_;
  std::multimap<uint64_t, Head> heads_;
  std::string dir_;
  std::map<std::string, bool> files_;  // by name; whether the rows made it
  bool files_expected_ = false, ids_expected_ = false, forged_ = false;
  bool counted_ = false;  // a checkpoint held that the policy counts
  std::vector<Finding> findings_;
  // The row of the greatest checkpoint that held.
  std::string held_id_, held_hash_;
  int64_t held_created_at_us_ = 0;
};

}  // namespace assay::streams
