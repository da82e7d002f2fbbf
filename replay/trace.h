// Follows one task again as its manifests say it folded, record by record: who made what, and by which rules.
#pragma once

#include <functional>
#include <optional>
#include <string>

#include "processors/processor.h"
#include "replay/base.h"
#include "schemas/config.h"
#include "schemas/eval_report.h"
#include "streams/fold.h"
#include "streams/log.h"

namespace assay::replay {

/// A record that is folded.
struct TracedRecord {
  const TopicPartition& place;  // bare name
  const RecordView& record;
  int64_t manifest;            // that says so: its sequence
  WallTime instant;            // of that commit
  const Rules& rules;          // in force, the record's own included
  const state::Reader& state;  // what the processor has kept so far
};

struct Trace {
  /// The records of this key alone, beside those of config.v1. Requires: the task has one input partition, and its processor keeps
  /// keys apart. Nothing: all of them.
  std::optional<std::string> key;
  /// These throughout, instead of those that config.v1 brought; nothing: those.
  const Rules* rules = nullptr;
  std::function<void(const TracedRecord&)> before;
  /// With what the record made. False: that was all that is wanted.
  std::function<bool(const TracedRecord&, const processors::Outputs&)> after;
  /// When all is folded: what the task keeps of it, and how many manifests there are.
  std::function<void(const state::Reader&, int64_t manifests)> end;
  /// Of a scoring task: each report that is accepted, after `before` and before `after`.
  std::function<void(const EvalReport&, std::string_view id)> accepted;
};

/// Folds it. What a commit as a whole makes (live scores, the audit event of a range) is not made.
/// Errors: kIncomplete when records or manifests are gone; those of the log. Cost: the manifests, and the records of the key; holds
/// what the task's store would.
Result<void> trace_task(streams::Log& log, const streams::TopicNames& names, const streams::TaskSpec& spec, const Trace& trace);

}  // namespace assay::replay
