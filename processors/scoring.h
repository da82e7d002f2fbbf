// The scoring processor: reports in, sliding windows in state, closed scores out.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "processors/agent_score.h"
#include "processors/agent_state.h"
#include "processors/merkle.h"
#include "processors/processor.h"
#include "processors/rules.h"
#include "state/encoding.h"

namespace assay::processors {

struct ScoringOptions {
  // Behaviour.
  bool audit_each = false;  // one eval.submit per accepted report instead of one per committed range
  bool live = true;         // eval.scores.live.v1 at each commit
  // Performance.
  size_t cache_bytes = 256 << 20;  // decoded agents kept in memory between commits
};

/// One partition of eval.reports.v1 into windows and scores.
class Scoring : public Processor {
 public:
  /// `rows` must use scoring_row_digest.
  Scoring(Rows& rows, ScoringOptions options);

  void begin(WallTime instant) override { instant_ = instant; }
  void process(const Input& input, Outputs& outputs) override;
  void before_commit(WallTime instant, Outputs& outputs) override;
  void after_commit() override;
  Held held() const override { return {commit_bytes_, cached_bytes_ + names_.bytes()}; }

  /// Called with each accepted report and its id, given or derived: queries that fold a topic again collect here.
  using Observer = std::function<void(const EvalReport& report, std::string_view id)>;
  void observe(Observer observer) { observer_ = std::move(observer); }

  static const std::vector<ConfigKind>& config_kinds();

 private:
  AgentState& agent(std::string_view id);
  void accept(const Input& input, const EvalReport& report, std::string_view id, AgentState& agent, Outputs& outputs);
  void close_windows(const Input& input, AgentState& agent, int64_t horizon, Outputs& outputs);
  void emit_live(AgentState& agent, Outputs& outputs);
  void emit_range(Outputs& outputs);
  void measure(AgentState& agent);
  void let_go();
  void dead_letter(const Input& input, Reason reason, std::string detail, Outputs& outputs);

  Rows& rows_;
  ScoringOptions options_;
  FoldedRules rules_;
  std::string rules_version_;
  uint64_t rules_epoch_ = 0;  // another one after each change of the rules
  EvalReportDecoder decoder_;
  Names names_;
  Observer observer_;
  WallTime instant_;

  std::unordered_map<std::string, std::unique_ptr<AgentState>, TextHash, std::equal_to<>> agents_;
  AgentState* last_agent_ = nullptr;
  std::vector<AgentState*> dirty_;
  WindowContent content_;  // like the score below, kept for its room
  AgentScore score_;
  uint64_t commit_ = 0;
  size_t cached_bytes_ = 0;  // of all agents in memory, as they were measured last
  size_t commit_bytes_ = 0;  // that this commit has added, and what its end will make of the agents it changed

  // The range of reports of this commit.
  MerkleRoot merkle_;
  state::Encoder leaf_head_;  // kept for its room
  int32_t range_partition_ = 0;
  Offset range_from_, range_to_;
  Tally range_tally_;
};

/// The record that a report is a leaf of in its range's tree: key and value with their lengths, and the timestamp.
void append_merkle_leaf_head(const RecordView& record, state::Encoder& head);

}  // namespace assay::processors
