// Counters, gauges and histograms of the catalogue, and their text for /metrics.
#pragma once

#include <initializer_list>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "streams/base.h"
#include "streams/metric_catalogue.h"

namespace assay::streams {

/// Values of a metric's labels, in the catalogue's order.
using LabelValues = std::initializer_list<std::string_view>;

struct GaugeSeries {
  std::vector<std::string> labels;
  double value = 0;
};

/// The numbers of one process. Safe from any thread.
/// Metrics without labels are there from the start, as 0; one with labels appears with its first use (touch() for zeros).
/// A metric holds at most kMaxSeries label sets; what comes later is counted under "other" for every label.
class Metrics {
 public:
  static constexpr size_t kMaxSeries = 2000;

  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  /// Adds to a counter. Requires: n >= 0, a counter, as many label values as the catalogue names.
  void add(Metric counter, double n, LabelValues labels = {});
  void increment(Metric counter, LabelValues labels = {}) { add(counter, 1, labels); }
  /// Makes the series exist, as 0, so that its first increment is seen as one.
  void touch(Metric counter_or_gauge, LabelValues labels);
  /// Sets a gauge.
  void set(Metric gauge, double value, LabelValues labels = {});
  /// Replaces all series of a labelled gauge as one: what moved away does not stay, and no scrape falls in between.
  void replace(Metric gauge, std::span<const GaugeSeries> series);
  /// Adds a value in seconds to a histogram. Buckets: 1 ms to 600 s.
  void observe(Metric histogram, double seconds, LabelValues labels = {});
  /// Adds many at once: one lock for a commit's records.
  void observe_all(Metric histogram, std::span<const double> seconds, LabelValues labels = {});

  /// Current value of a counter or gauge; 0 when the series does not exist.
  double value(Metric counter_or_gauge, LabelValues labels = {}) const;
  /// Prometheus text exposition format 0.0.4: metrics by name, series by their labels.
  std::string exposition() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

inline constexpr std::string_view kExpositionContentType = "text/plain; version=0.0.4; charset=utf-8";

}  // namespace assay::streams
