// Seeded workloads for simulated runs: rules, reports that make them fire, and everything that goes wrong with reports.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schemas/config.h"
#include "tests/simulation/oracle.h"

namespace assay::simulation {

/// A source of choices that is the same on every machine and library (splitmix64).
class Dice {
 public:
  explicit Dice(uint64_t seed) : state_(seed) {}
  uint64_t next();
  /// In [0, n). Requires: n > 0.
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  /// In [from, to].
  int64_t between(int64_t from, int64_t to) { return from + below(to - from + 1); }
  bool chance(int percent) { return below(100) < percent; }
  template <class T>
  T pick(std::initializer_list<T> of) {
    return *(of.begin() + below(static_cast<int64_t>(of.size())));
  }

 private:
  uint64_t state_;
};

/// A report as a producer sends it; murmur2 of the key chooses the partition, and one without a key goes where the caller likes.
struct WorkloadReport {
  std::optional<std::string> key;
  std::string value;
  int64_t timestamp_ms = 0;  // the record's own
};

/// Rules that are published after so many reports were sent: one record of config.v1.
struct WorkloadChange {
  size_t after_reports = 0;
  schemas::ConfigKind kind = schemas::ConfigKind::kScoring;
  schemas::Rules rules;
};

struct Workload {
  schemas::Rules rules;                 // at the start
  std::vector<WorkloadReport> reports;  // in sending order
  std::vector<WorkloadChange> changes;  // in order
};

/// `size` reports of two to six agents over some days of event time. Pure: the seed decides everything.
Workload make_workload(uint64_t seed, size_t size);

/// The same rules in the oracle's own form.
Rules oracle_rules(const schemas::Rules& rules);
Section oracle_section(schemas::ConfigKind kind);

}  // namespace assay::simulation
