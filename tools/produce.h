// Sends reports from lines onto the log.
#pragma once

#include <map>
#include <string>

#include "streams/log.h"
#include "tools/byte_source.h"
#include "tools/cli.h"

namespace assay::tools {

struct ProduceOptions {
  std::string topic;
  std::string format = "json";      // "json" | "protobuf" | "confluent"
  std::string record_time = "now";  // or a field: "timestamp", "metadata.arrivedAt"
  bool raw = false;                 // send lines as they are, broken ones too
  int32_t partitions = 1;           // of the topic
};

struct ProduceCounts {
  uint64_t sent = 0;
  uint64_t refused = 0;
  std::map<std::string, uint64_t> by_reason;
};

/// Sends every line of the reader; what does not decode (or, raw, what the log does not take) is counted, not sent.
/// Everything sent is durable on return. `progress(lines)` is called after each line. Errors: those of the log and the reader.
Result<ProduceCounts> produce_lines(LineReader& lines, streams::LogProducer& producer, const ProduceOptions& options,
                                    const std::function<WallTime()>& now, const std::function<void(uint64_t)>& progress);

}  // namespace assay::tools
