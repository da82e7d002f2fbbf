// The rules a processor decides by, folded from config.v1 and kept as rows, so that a restart decides as the log said.
#pragma once

#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "processors/processor.h"
#include "schemas/config.h"

namespace assay::processors {

/// Rules in force. Only the kinds that the processor depends on are kept: a change of any other leaves its digest alone.
class FoldedRules {
 public:
  /// Restores what was folded before; a kind that no record has set yet is as in default_rules().
  FoldedRules(Rows& rows, std::vector<ConfigKind> kinds);

  const Rules& operator*() const { return rules_; }
  const Rules* operator->() const { return &rules_; }
  /// Of the rules of a kept kind, as rules_version() gives it.
  const std::string& version(ConfigKind kind) const;

  /// Folds one record of config.v1, counts it, and says which kept kind it set (nothing: another kind, or a dead letter).
  std::optional<ConfigKind> fold(const Input& input, Outputs& outputs);

  /// Reads the rules that a processor with these kinds has stored. Errors: those of the reader; kCorrupt.
  static Result<Rules> read(const state::Reader& reader, std::span<const ConfigKind> kinds);

 private:
  Rows& rows_;
  std::vector<ConfigKind> kinds_;
  Rules rules_ = default_rules();
  std::map<ConfigKind, std::shared_ptr<const ConfigEvent>> events_;  // that set them; a kind without one is at its defaults
  void take(std::shared_ptr<const ConfigEvent> event);
};

}  // namespace assay::processors
