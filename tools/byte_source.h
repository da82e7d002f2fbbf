// Bytes of an input, whatever they were packed with.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "tools/base.h"

namespace assay::tools {

class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Reads up to `size` bytes; 0 at the end. Errors: kNotFound, kCorrupt (packed bytes that cannot be unpacked), kUnexpected.
  virtual Result<size_t> read(char* into, size_t size) = 0;
  /// Share of the input's bytes that were taken so far, when its size is known.
  virtual std::optional<double> share() const = 0;
};

/// Opens a file, or standard input for "-". zstd and gzip are recognised by their first bytes. Errors: kNotFound.
Result<std::unique_ptr<ByteSource>> open_input(const std::string& path);

struct Line {
  std::string_view text;   // without its end of line; valid until the next line
  uint64_t number = 0;     // from 1
  bool truncated = false;  // longer than the reader keeps; `text` is its beginning
};

/// Lines of a source, split at "\n"; a "\r" before it goes with it.
class LineReader {
 public:
  explicit LineReader(std::unique_ptr<ByteSource> source, size_t line_bytes_max = 8 << 20);
  /// The next line, or nothing at the end. Errors: those of the source.
  Result<std::optional<Line>> next();
  std::optional<double> share() const { return source_->share(); }

 private:
  std::unique_ptr<ByteSource> source_;
  size_t line_bytes_max_;
  std::string buffer_;
  size_t begin_ = 0;
  uint64_t number_ = 0;
  bool ended_ = false;
};

}  // namespace assay::tools
