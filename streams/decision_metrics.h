// Counts decisions where they can be seen by anybody: in the records that a commit writes. Processors stay free of metrics.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <vector>

#include "streams/log.h"
#include "streams/metrics.h"

namespace assay::streams {

/// The decisions among the records of one commit: read before the records go to the log, counted when they are acknowledged.
/// One per task; not thread-safe.
class DecisionMetrics {
 public:
  /// Every task sets aside the rules that it does not understand; `counts_rules` says which one speaks for all.
  DecisionMetrics(std::string topic_prefix, bool counts_rules) : prefix_(std::move(topic_prefix)), counts_rules_(counts_rules) {}

  /// Reads the records of the commit that comes now; those of a commit that never came to be are forgotten.
  void stage(std::span<const OutRecord> records);
  /// Counts what was staged. `waited_seconds`: how long the commit's oldest input record waited; nothing: there was none.
  void count(Metrics& metrics, std::optional<double> waited_seconds);

 private:
  struct Sample {
    Metric metric;
    std::vector<std::string> labels;
  };
  void read(std::string_view topic, const OutRecord& record);

  std::string prefix_;
  bool counts_rules_;
  std::vector<Sample> staged_;
  bool promotions_ = false, allocations_ = false;
};

/// "info" | "warning" | "critical": how much an allow, a quarantine or a deny asks for somebody's eyes.
std::string_view decision_severity(std::string_view decision);

}  // namespace assay::streams
