// Follows every topic of the log into an archive. Exactly once whatever happens: what is archived is what the entries say.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replay/archive.h"
#include "streams/fold.h"
#include "streams/log.h"
#include "streams/runtime.h"

namespace assay::replay {

/// How far a partition is archived.
struct ArchivedPlace {
  TopicPartition tp;               // full name
  Offset archived;                 // everything before it is in the archive
  Offset read;                     // and up to here it was read
  int64_t waiting = 0;             // records between the two
  std::optional<WallTime> oldest;  // timestamp of the first of them
  std::string halt;                // why it does not go on; empty: it does
};

struct ArchiverOptions {
  streams::TopicNames names;
  std::string group;        // full name: members share the partitions, and its offsets show how far the archive is
  std::string instance_id;  // static membership; empty: dynamic
  // Performance.
  size_t segment_bytes = size_t{32} << 20;    // a segment ends when its records take this much, encoded
  size_t memory_bytes = size_t{128} << 20;    // of all open segments; over it the largest ends, and nothing is read while none can
  streams::Milliseconds segment_age{300000};  // or when its first record has waited this long
  size_t poll_records = 5000;
  int level = 3;  // of zstd
  streams::Milliseconds retry_min{200}, retry_max{10000};
  streams::Milliseconds topics_every{60000};                        // how often it looks for topics that are new
  std::function<void(const ArchiveEntry&)> archived;                // told of each new entry
  std::function<void(const TopicPartition&, const Error&)> halted;  // told when a partition cannot go on
  std::function<void(const Error&)> retrying;                       // told of what did not work and is tried again
  std::function<void()> recovered;                                  // told when it works again
};

class Archiver {
 public:
  /// Requires: log, archive, signer and runtime outlive it.
  Archiver(streams::Log& log, Archive& archive, streams::Signer& signer, ArchiverOptions options,
           streams::Runtime& runtime = streams::machine_runtime());

  /// Archives its share until `stop`. Once `finish` is set, it ends when all partitions, other members' included, are archived up
  /// to where they end then. A partition whose next records are gone, or whose history is not the archived one, halts by itself;
  /// the others go on. An archive or a log that does not answer is tried again, and the group hears of us meanwhile.
  /// Errors: with `finish`, the first halt; kRefused (another number of partitions, not allowed to write).
  Result<void> run(const std::atomic<bool>& stop, const std::atomic<bool>& finish);

  /// The partitions that are this member's now. From any thread.
  std::vector<ArchivedPlace> places() const;

 private:
  struct Place;
  class Run;
  streams::Log& log_;
  Archive& archive_;
  streams::Signer& signer_;
  ArchiverOptions options_;
  streams::Runtime& runtime_;
  mutable std::mutex mutex_;
  std::vector<ArchivedPlace> view_;  // under mutex_
};

/// Whether an archive keeps the topic: one of the catalogue, or its dead letters.
bool is_archived(std::string_view full_name, const streams::TopicNames& names);

/// Topics of the log that an archive keeps, with full names, as far as they exist.
Result<std::vector<streams::TopicConfig>> archived_topics(streams::Log& log, const streams::TopicNames& names);

}  // namespace assay::replay
