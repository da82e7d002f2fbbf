// A durable log in one directory of one process: everything Kafka does for one machine, with nothing installed.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "streams/log.h"

namespace assay::streams {

namespace embedded {
class Files;
}

struct EmbeddedLogOptions {
  // behaviour
  bool read_only = false;                  // refuse writes, create nothing, cut nothing; allowed beside others while nobody writes
  std::function<WallTime()> now;           // clock of retention by time; empty: the machine's
  std::function<bool()> held;              // asked when retention would delete: true, it does not, this time; empty: it may
  std::shared_ptr<embedded::Files> files;  // operating system calls; empty: the real ones

  // performance
  uint64_t segment_bytes = 64 << 20;       // a new segment begins when the last would grow beyond it
  double clean_dead_share = 0.5;           // rewrite a sealed segment when more than this share of it is dead
  int64_t clean_interval_ms = 30'000;      // how often retention and cleaning look by themselves; <= 0: only when clean() is called
  size_t batch_bytes = 256 << 10;          // what one partition gets in a batch, the unit of reading
  int64_t linger_ms = 3;                   // how long a producer waits for company
  size_t producer_queue_bytes = 16 << 20;  // send() blocks beyond it
};

/// What the embedded log can do besides being a Log.
class EmbeddedLog : public Log {
 public:
  /// Applies retention by time, frees what is dead on disk, compacts compacted topics. The log also does it by itself.
  virtual Result<void> clean() = 0;
  virtual uint64_t disk_bytes() const = 0;
};

/// Opens (or creates) the log of a directory; what a crash left half-written at the end is cut.
/// Errors: kRefused naming the directory and the process that holds it; kCorrupt naming file and position; kNotFound (read-only).
Result<std::unique_ptr<Log>> open_embedded_log(const std::string& dir, const EmbeddedLogOptions& options = {});

}  // namespace assay::streams
