// The topics of an empty log, made again from an archive: every record with its first place in a header, the groups' offsets behind
// them, and a signed map of the positions that opens a new lineage.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "replay/restore_cut.h"
#include "streams/lineage.h"
#include "streams/log.h"
#include "streams/signer.h"
#include "streams/topology.h"

namespace assay::replay {

struct RestoreOptions {
  streams::TopicNames names;
  std::vector<streams::TopicConfig> topics;  // as the settings ask for; what the archive has beside them is made like those
  int64_t lineage = 0;                       // of the new log; 0: the one after the archive's newest
  /// Makes the audit event that says it, an envelope's text. Required.
  std::function<std::string(Json data)> event;
  // Performance.
  unsigned threads = 0;  // partitions side by side; 0: one per core
  size_t batch_records = 20000;
  size_t batch_bytes = 8 << 20;
  std::function<void(int64_t records, double share)> progress;  // written; of the partitions that are done. From several threads
};

struct RestoredPartition {
  TopicPartition tp;             // bare name
  streams::OffsetRange first;    // places that the archive held
  Offset next;                   // of the log: where new records begin
  int64_t records = 0;           // restored
  int64_t left_out = 0;          // in the archive, but written by commits of which a part is missing
  std::optional<WallTime> last;  // timestamp of the last record restored
};

struct RestoredTask {
  std::string task;
  int64_t sequence = 0;  // of the last manifest restored
  int64_t left_out = 0;  // later ones in the archive, of which a part is missing
};

struct Restored {
  int64_t lineage = 0;
  bool was_open = false;  // an earlier restore had done it all
  std::vector<RestoredPartition> partitions;
  std::vector<RestoredTask> tasks;
};

/// Restores what `source`, an archive read as a log, holds into `target`, whose topics must be empty or those that a killed restore
/// of the same archive began: it goes on there, and compares all that it finds. Nobody else may write to the topics meanwhile.
/// Retention of the topics is for ever until somebody sets it: records keep their old timestamps.
/// Errors: kRefused (the log holds other records, or another archive's; somebody owns a group), kIncomplete, kUsage (another number
/// of partitions), kUnreachable, those of the signer.
Result<Restored> restore_log(streams::Log& source, std::shared_ptr<streams::Log> target, streams::Signer& signer,
                             const RestoreOptions& options, WallTime now);

}  // namespace assay::replay
