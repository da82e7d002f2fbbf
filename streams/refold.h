// Folding again what the log says was folded: manifests one by one, the ranges that they name, and the comparison.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "streams/fold.h"
#include "streams/log.h"
#include "streams/manifest.h"

namespace assay::streams {

/// A manifest as it stands on the log.
struct PlacedManifest {
  Offset at;
  Manifest manifest;
  std::string hash;
};

/// Reads the manifests of a task one by one, without holding more than a fetch of them.
class ManifestReader {
 public:
  /// Those of sequences after `after`, at the places [from, to). `stop`, where given, ends a wait for the log.
  ManifestReader(Log& log, const TopicNames& names, const TaskSpec& spec, int64_t after, OffsetRange places,
                 const std::atomic<bool>* stop = nullptr);
  /// The next one, or nothing. Errors: kIncomplete "TORN_TXN …" when a sequence is missing; kCorrupt; kAborted when stopped;
  /// those of the log.
  Result<std::optional<PlacedManifest>> next();
  /// Goes on to this place, where it is further than the end so far.
  void extend(Offset end) { places_.end = std::max(places_.end, end); }

 private:
  Log& log_;
  TopicPartition tp_;
  std::string task_;
  int64_t expected_;
  OffsetRange places_;
  const std::atomic<bool>* stop_;
  std::unique_ptr<LogReader> reader_;
  Fetch fetch_;
  size_t used_ = 0;
};

/// Reads ranges of partitions that mostly follow each other: readers and what they fetched ahead are kept from one to the next.
class RangeReader {
 public:
  explicit RangeReader(Log& log, const std::atomic<bool>* stop = nullptr) : log_(log), stop_(stop) {}
  /// Calls `each` for the records of [from, to), a run at a time, in order. Errors: those of `each` and of the log; kIncomplete
  /// "INPUT_GAP …" when they are not there any more; kUnreachable when the log is silent; kAborted when stopped.
  Result<void> read(const TopicPartition& tp, Offset from, Offset to,
                    const std::function<Result<void>(std::span<const RecordView>)>& each);

 private:
  struct Place {
    std::unique_ptr<LogReader> reader;
    Fetch fetch;
    size_t used = 0;  // records of the fetch that were given out
    Offset at;        // end of the last range
  };
  Log& log_;
  const std::atomic<bool>* stop_;
  std::map<TopicPartition, Place> places_;
};

/// Folds exactly what the manifest says, outputs suppressed. The commit is staged and returned, under the code version of that
/// manifest: another version that comes to the same results is no difference. Errors: those of the log; kParity when the manifest
/// does not follow what is folded.
Result<Commit> fold_manifest(RangeReader& ranges, const TopicNames& names, Fold& fold, const Manifest& manifest);

/// The first part in which a manifest that was made again differs from the one on the log: "state digest A instead of B"; empty
/// when nothing does. `hash`: of the one on the log; empty: not compared.
std::string manifest_difference(const Commit& made, const Manifest& on_log, const std::string& hash);

/// Folds it and compares. Errors: those of fold_manifest; kParity naming what differs.
Result<Commit> refold(RangeReader& ranges, const TopicNames& names, Fold& fold, const Manifest& manifest,
                      const std::string& manifest_hash);

}  // namespace assay::streams
