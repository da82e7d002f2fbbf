// Committing a task's offsets again, from its last manifest, where the group has lost them.
#pragma once

#include <map>
#include <string>

#include "streams/fold.h"
#include "streams/topology.h"

namespace assay::streams {

struct Recommitted {
  CommitMark mark;                                 // of the last manifest
  std::map<TopicPartition, Offset> offsets;        // of the task's inputs behind it
  std::map<TopicPartition, CommittedOffset> were;  // what the group had
  bool needed = true;                              // false: that is what it had; nothing was written
};

/// Commits what the group's offsets of this task must be: the places behind its last manifest, with the mark that names it. Before
/// that it follows the manifests from the first, each with the hash of the one before, and looks at the inputs and the store, so
/// that nothing is committed which a start would not go on from. An older owner that still lives is fenced.
/// `store`: the task's, when there is one; null: it is folded again.
/// Errors: kRefused: somebody owns the task, the offsets are ours and name another manifest, or the store is another history's;
/// kIncomplete: a manifest or records of an input are missing, or the task never committed; those of the log.
Result<Recommitted> recommit(Log& log, const TopicNames& names, const ProcessorPlan& plan, const TaskSpec& spec,
                             const state::Reader* store);

}  // namespace assay::streams
