// Promotion: closed score windows in, decisions out. Hysteresis, minimum samples, policy gate, cooldown, rate limit, hold.
#pragma once

#include "processors/policy.h"
#include "processors/processor.h"
#include "processors/rules.h"

namespace assay::processors {

/// Decides at each closed 1h score and nowhere else, so neither the size of a commit nor a restart can show in a decision.
/// Source: eval.scores.v1 (one partition) and config.v1.
///
/// A score that corrects another decides nothing, and nothing that was decided is undone: where the other is still remembered, the
/// next decision rests on the correction.
///
/// Rows: "rules/<kind>"  the config.v1 value in force
///       "agent/<id>"    what the next decision needs, canonical JSON: promoted, the 1h scores of the last three hours, the last
///                       24h lower bound, instants of applied decisions, the hold that was already told
///       "event/<id>"    the agent's last promotion event, as it was emitted
class Promotion final : public Processor {
 public:
  explicit Promotion(Rows& rows);

  void process(const Input& input, Outputs& outputs) override;
  void before_commit(WallTime, Outputs&) override {}
  void after_commit() override {}

 private:
  struct Score;
  struct Agent;
  struct Choice;

  void fold_score(const Input& input, Outputs& outputs);
  void fold_correction(const Score& now, const std::optional<std::string>& corrects, Outputs& outputs);
  void decide(const Score& now, Agent& agent, Outputs& outputs);
  Agent load(std::string_view agent_id) const;
  void store(std::string_view agent_id, const Agent& agent);
  void emit(const Score& now, const Agent& agent, const Choice& choice, Outputs& outputs);

  Rows& rows_;
  FoldedRules rules_;
  IdSequence ids_;
};

/// The last event of each entity, ordered by entity id. Errors: those of the reader; kCorrupt.
Result<Json> promotions_json(const state::Reader& reader);

}  // namespace assay::processors
