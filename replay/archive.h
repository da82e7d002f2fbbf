// An archive: immutable segments and the signed manifest that says which they are. archive_format.md is its grammar.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "replay/segment.h"
#include "streams/object_store.h"
#include "streams/signer.h"

namespace assay::replay {

/// One segment as the manifest of its partition has it.
struct ArchiveEntry {
  std::string cluster;
  int64_t sequence = 0;  // 1, 2, 3 … of the partition
  SegmentInfo segment;
  std::string object;    // where the segment lies
  int64_t bytes = 0;     // of the object
  std::string sha256;    // of the object, hex
  std::string anchor;    // anchor_of() the last record up to here; empty before the first
  std::string previous;  // hex SHA-256 of the entry before, empty for the first
  std::string signer;
  std::string signature;  // base64

  /// Canonical JSON, with or without its signature.
  std::string encode(bool with_signature = true) const;
  /// Errors: kCorrupt.
  static Result<ArchiveEntry> decode(std::string_view text);
};

/// What stands for a record when two histories are compared: hex XXH3-128 of timestamp, key and value.
std::string record_anchor(const RecordView& record);

/// The chain of entries of one partition.
using ArchiveChain = std::vector<ArchiveEntry>;

class Archive {
 public:
  /// Opens an archive that is there. Errors: kIncomplete (none there), kRefused (a newer format), kCorrupt, kUnreachable.
  static Result<std::unique_ptr<Archive>> open(std::shared_ptr<streams::ObjectStore> objects);
  /// The same, making it for this cluster when there is none. Errors: kRefused also when it is another cluster's.
  static Result<std::unique_ptr<Archive>> open_for(std::shared_ptr<streams::ObjectStore> objects, const std::string& cluster,
                                                   WallTime now);

  const std::string& cluster() const { return cluster_; }
  streams::ObjectStore& objects() { return *objects_; }
  const streams::SignerRegistry& signers() const { return signers_; }

  /// Reads and proves the chains of all partitions, by bare topic. With `pinned`, only those keys count.
  /// Errors: kIncomplete (an entry is missing, a segment is not there), kTampered (a signature, a link), kRefused (a newer format).
  Result<std::map<TopicPartition, ArchiveChain>> chains(const streams::SignerRegistry* pinned = nullptr);
  /// The chain of one partition. `proven`, where given, gets the entries that hold even when a later one does not.
  Result<ArchiveChain> chain(const TopicPartition& bare, const streams::SignerRegistry* pinned = nullptr,
                             ArchiveChain* proven = nullptr);

  /// Partitions of the topics that were ever archived, by bare name.
  Result<std::map<std::string, int32_t>> topics();
  /// Notes how many partitions a topic has. Errors: kRefused when it had another number.
  Result<void> note_topic(const std::string& bare, int32_t partitions);
  /// Notes the key, so that the archive can be proven by itself.
  Result<void> note_signer(const streams::SignerKey& key);

  /// Stores a segment and the entry that names it, which it signs. Nothing: somebody else wrote that entry meanwhile.
  /// Errors: kUnreachable, kRefused.
  Result<std::optional<ArchiveEntry>> append(const std::string& file, const SegmentInfo& segment, const std::string& anchor,
                                             const ArchiveEntry* before, streams::Signer& signer);

  /// Opens the segment of an entry, reading only what is asked for. Errors: kIncomplete (not there), kTampered (not the one that
  /// was signed), kCorrupt, kUnreachable.
  Result<SegmentReader> segment(const ArchiveEntry& entry);
  /// Reads the whole object and proves it, then opens it.
  Result<SegmentReader> whole_segment(const ArchiveEntry& entry);

 private:
  Archive(std::shared_ptr<streams::ObjectStore> objects, std::string cluster)
      : objects_(std::move(objects)), cluster_(std::move(cluster)) {}
  Result<void> read_signers();
  Result<ArchiveEntry> read_entry(const std::string& name, const TopicPartition& tp, const ArchiveEntry* before,
                                  const streams::SignerRegistry& signers);

  std::shared_ptr<streams::ObjectStore> objects_;
  std::string cluster_;
  streams::SignerRegistry signers_;
};

}  // namespace assay::replay
