// Proofs that fit into a mail: that one row is in the chain that a checkpoint signed, and that one checkpoint continues another.
#pragma once

#include <string>
#include <string_view>

#include "schemas/json.h"
#include "streams/note_policy.h"
#include "streams/signer.h"
#include "streams/tile_tree.h"

namespace assay::streams {

/// {"checkpoint","format","kind":"inclusion","path":[…],"row":{"payload","prevHash","signature","signerKid"},"sequence"},
/// canonical; `line` is the row's, `note` a checkpoint that covers it. `grown_to`: rows of the tree whose tiles they are.
/// Errors: kUsage (the checkpoint does not cover the row), kCorrupt, and those of the tiles.
Result<Json> prove_inclusion(const TileReader& tiles, uint64_t grown_to, int64_t sequence, std::string_view line,
                             const std::string& note);

/// {"format","from","kind":"consistency","path":[…],"to"} of two checkpoints. Errors: as above.
Result<Json> prove_consistency(const TileReader& tiles, uint64_t grown_to, const std::string& from, const std::string& to);

struct ProofVerdict {
  std::string fault;  // empty: it holds
  Errc code = Errc::kTampered;
  std::string sentence;  // what is proven, when it holds
  int exit_code() const { return fault.empty() ? 0 : schemas::exit_code(code); }
};

/// Checks a proof with nothing but the keys. Without `signers` the row's own signature is not checked, and the sentence says so.
ProofVerdict check_proof(std::string_view text, const NotePolicy& policy, const SignerRegistry* signers);

}  // namespace assay::streams
