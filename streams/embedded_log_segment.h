// One segment file of the embedded log: finding and reading batches in it.
#pragma once

#include <map>
#include <mutex>

#include "streams/embedded_log_format.h"

namespace assay::streams::embedded {

/// Batches read together; the views live as long as the storage.
struct LoadedBatches {
  struct One {
    std::string_view bytes;
    int64_t base, end;
  };
  std::vector<One> batches;
  std::shared_ptr<const void> storage;
};

/// A segment whose content does not change any more, or the file of the active one. Thread-safe.
class Segment {
 public:
  Segment(SegmentHeader header, std::string dir, std::shared_ptr<Files> files, std::shared_ptr<File> file, uint64_t bytes,
          std::vector<PieceSummary> pieces)
      : header_(header),
        dir_(std::move(dir)),
        files_(std::move(files)),
        file_(std::move(file)),
        bytes_(bytes),
        pieces_(std::move(pieces)) {}

  /// Opens a sealed segment by its side-car, or by reading all of it when that is missing or unsound (and writes it again when
  /// asked). Errors: kCorrupt naming file and position.
  static Result<std::shared_ptr<Segment>> open(const std::string& dir, std::shared_ptr<Files> files, uint64_t id,
                                               bool repair_index);

  const SegmentHeader& header() const { return header_; }
  const std::shared_ptr<File>& file() const { return file_; }
  uint64_t bytes() const { return bytes_; }
  const std::vector<PieceSummary>& pieces() const { return pieces_; }
  std::string path() const { return dir_ + "/" + segment_name(header_.id); }

  /// The batches of one partition; kept while somebody holds them.
  Result<std::shared_ptr<const std::vector<BatchEntry>>> entries(uint32_t partition) const;

  /// Reads those batches and checks them. Errors: kCorrupt naming file and position.
  Result<LoadedBatches> load(std::span<const BatchEntry> entries) const;

 private:
  const SegmentHeader header_;
  const std::string dir_;
  const std::shared_ptr<Files> files_;
  const std::shared_ptr<File> file_;
  const uint64_t bytes_;
  const std::vector<PieceSummary> pieces_;
  mutable std::mutex mutex_;
  mutable std::map<uint32_t, std::weak_ptr<const std::vector<BatchEntry>>> cache_;
};

/// A segment's whole content, header checked.
struct SegmentBytes {
  std::string bytes;
  SegmentHeader header;
};
Result<SegmentBytes> read_segment(const File& file, const std::string& path, uint64_t id);

/// Calls `frame` for each frame in order and returns where they end. In the last segment a torn tail ends them; anywhere else,
/// or when a later frame proves that the bad place was durable, it is damage.
/// Errors: kCorrupt naming the file and the position.
Result<uint64_t> scan_frames(const SegmentBytes& segment, const std::string& path, bool last,
                             const std::function<void(Frame&)>& frame);

/// Collects batches by partition.
std::vector<Piece> pieces_of(const std::map<uint32_t, std::vector<BatchEntry>>& batches);

/// Writes the side-car of a segment through a temporary file. Not synced: its checksums tell whether it can be used.
Result<void> write_index(Files& files, const std::string& dir, const SegmentHeader& header, uint64_t segment_bytes,
                         std::span<const Piece> pieces);

/// Writes a file of that content under a temporary name and makes it durable. Returns it open; nothing is left on failure.
Result<std::unique_ptr<File>> stage_file(Files& files, const std::string& path, std::span<const std::string_view> parts);
/// Gives the staged file its name, durably. After a failure nobody knows which name it will have.
Result<void> publish_file(Files& files, const std::string& dir, const std::string& name);

}  // namespace assay::streams::embedded
