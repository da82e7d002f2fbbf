// The log that the settings name: the only place that knows which implementation stands behind the seam.
#pragma once

#include <atomic>
#include <memory>

#include "streams/log.h"
#include "streams/topic_admin.h"
#include "tools/settings.h"

namespace assay::tools {

enum class LogAccess {
  kReadWrite,
  kRead,  // looks only: an embedded log is opened without writing a byte
};

/// Opens Kafka when brokers are set, else the embedded log in DIR/log (created with its directory for kReadWrite).
/// `stopping`, when given, is set when the process is to end: then nothing on the log is waited for much longer.
/// `shares`, when given, are what readers and writers of all tasks together may hold. `client_id` names the process to the broker.
/// A log that was restored is given with the places of its first lineage.
/// Errors: kRefused when another process holds the directory, or a restore of the log is not through; kUnreachable; kIncomplete
/// (kRead, nothing there yet).
Result<std::unique_ptr<streams::Log>> open_log(const Settings& settings, LogAccess access,
                                               const std::atomic<bool>* stopping = nullptr, const MemoryShares* shares = nullptr,
                                               const std::string& client_id = "assay");

/// The same without what a restore says of its places: for the restore itself. Errors: as open_log.
Result<std::unique_ptr<streams::Log>> open_plain_log(const Settings& settings, LogAccess access,
                                                     const std::atomic<bool>* stopping = nullptr,
                                                     const MemoryShares* shares = nullptr, const std::string& client_id = "assay");

/// The topics that these settings ask for.
std::vector<streams::TopicConfig> configured_topics(const Settings& settings);

/// Whether the topics that are there have as many partitions as the settings say: which agent is whose, and which task is which,
/// depends on it. Errors: kUsage naming topic and cure.
Result<void> check_partitions(const Settings& settings, streams::Log& log);

/// Creates the topics that are missing, unless topics.manage = false, and checks the partitions of all.
Result<void> ensure_topics(const Settings& settings, streams::Log& log);

/// Milliseconds since the epoch, as this machine says.
WallTime wall_now();

}  // namespace assay::tools
