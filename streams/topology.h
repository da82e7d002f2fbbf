// The topology: which processors there are, what they read, and which task is which.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "processors/scoring.h"
#include "streams/fold.h"

namespace assay::streams {

/// One processor of the pipeline and how its tasks are shared out.
struct ProcessorPlan {
  std::string name;                 // "scoring"
  std::string group;                // full name: "<prefix>assay.scoring"
  std::vector<std::string> topics;  // joined by the group; for a processor with one task, one topic of one partition
  bool single_task = false;         // owns all partitions of its inputs; whoever is given the token partition runs it
  std::vector<Topic> inputs;
  /// The task of a partition (0 for a single task).
  std::function<TaskSpec(int32_t partition)> task;

  /// Input partitions of all tasks, with full names.
  std::vector<TopicPartition> input_partitions(const TopicNames& names) const;
  int32_t task_count(const TopicNames& names) const { return single_task ? 1 : names.partitions(); }
};

/// Scoring, promotion and allocation, in the order in which records flow.
std::vector<ProcessorPlan> topology(const TopicNames& names, const processors::ScoringOptions& scoring);

/// The spec of a task by its name ("scoring-3"). Errors: kNotFound.
Result<TaskSpec> find_task(const std::vector<ProcessorPlan>& plans, const TopicNames& names, std::string_view task);

/// Name of the projector's group, whose committed offsets are for standard tools to see.
inline std::string audit_group(const TopicNames& names) { return names.full("assay.audit"); }

}  // namespace assay::streams
