// Which records of an archive make one consistent history: an archiver's partitions end where each of them was, and a commit of
// which only a part was archived must not be there at all.
#pragma once

#include <map>
#include <string>
#include <utility>

#include "replay/base.h"
#include "streams/fold.h"
#include "streams/log.h"

namespace assay::replay {

/// A writer on a partition: full names and "<task>/<lineage>".
using WriterAt = std::pair<TopicPartition, std::string>;

struct Cut {
  std::map<std::string, int64_t> manifests;               // by task: the last that is kept; 0: none
  std::map<std::string, int64_t> archived;                // by task: the last that there is
  std::map<WriterAt, int64_t> kept;                       // records of a task's writer that its kept manifests name
  std::map<TopicPartition, streams::OffsetRange> places;  // by full name: what the archive holds, kept or not
  int64_t lineage = 0;                                    // the newest that any of it belongs to

  /// Whether the record is restored: everything from outside, and what kept manifests name.
  bool keeps(const streams::TopicNames& names, const TopicPartition& full, const RecordView& record) const;
};

/// Finds the last manifest of each task whose inputs and outputs are all there, and all those of the manifests before it, and
/// leaves out what later ones wrote; what had read that is left out in turn.
/// Errors: kIncomplete when the beginning of an input is missing, or a manifest in between; those of the source.
/// Cost: reads the manifests, and everything that tasks wrote, once and for each commit that is torn somewhat more.
Result<Cut> find_cut(streams::Log& source, const streams::TopicNames& names);

}  // namespace assay::replay
