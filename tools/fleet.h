// A fleet of agents that does not exist: reports as it would send them, the same bytes for the same seed on every machine.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

namespace assay::tools {

struct FleetOptions {
  int64_t agents = 50;      // 1 to 1,000,000
  int64_t reports = 20000;  // lines in all, bad ones included
  uint64_t seed = 1;
  double late = 0.05;  // share of reports that arrive behind their time: four of five within the default grace, one beyond it
  double bad = 0;      // share of lines that must be refused, each reason in turn
};

/// What a fleet does all day. Agents work in daily shifts of five hours, eight or more reports an hour at a steady pace;
/// some are good, some mediocre, some regress and some improve over the days, so that default rules promote and demote.
/// Cost: memory for the agents and what is under way, whatever the number of reports.
class Fleet {
 public:
  /// Requires: options within their ranges.
  explicit Fleet(const FleetOptions& options);
  ~Fleet();

  /// The next line in arrival order, without end of line; false after the last.
  bool next(std::string& line);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace assay::tools
