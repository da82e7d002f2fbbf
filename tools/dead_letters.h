// Dead letters: what they say, and sending them back to where they came from.
#pragma once

#include <functional>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "streams/log.h"
#include "tools/base.h"

namespace assay::tools {

/// Headers of dead letters beside those of schemas/record.h.
inline constexpr std::string_view kHeaderProcessor = "assay-processor";  // which processor refused the record
inline constexpr std::string_view kHeaderTruncated = "assay-truncated";  // the value is the beginning of what did not fit

struct DeadRecord {
  std::string id;     // its own id, or that of its place
  std::string topic;  // where the original stood: full name
  int32_t partition = 0;
  Offset offset;
  std::string reason, detail, processor;
  bool truncated = false;
  WallTime timestamp;
  std::optional<std::string> key, value;  // the original bytes
  std::vector<Header> headers;            // the original ones
};

struct DeadLetterFilter {
  std::string topic;             // source topic without prefix; empty: all
  std::string reason;            // empty: all
  std::vector<std::string> ids;  // empty: all
};

/// Reads the dead letters of every topic below the prefix, oldest first within a partition, until `take` returns false.
Result<void> read_dead_letters(streams::Log& log, const std::string& prefix, const DeadLetterFilter& filter,
                               const std::function<Result<bool>(const DeadRecord&)>& take);

struct Redriven {
  uint64_t sent = 0;
  uint64_t refused = 0;
  std::map<std::string, uint64_t> by_reason;  // of those refused: why
};

/// Sends the original bytes, key and headers back to their source topic, with the timestamp `now`. A truncated one is refused:
/// its original is gone. Everything sent is durable on return.
Result<Redriven> redrive(streams::Log& log, const std::string& prefix, const DeadLetterFilter& filter, WallTime now);

/// {"id","topic","partition","offset","reason","detail","processor","ts"}
Json dead_letter_row(const DeadRecord& record);

}  // namespace assay::tools
