#include "streams/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/family.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include <algorithm>
#include <array>
#include <map>
#include <mutex>
#include <sstream>

#include "schemas/utf8.h"

namespace assay::streams {

namespace {

// From one commit (milliseconds) to a backlog (minutes); the bars of 0.2, 0.5, 1 and 2 s are edges, so that shares of them are
// exact.
const prometheus::Histogram::BucketBoundaries kSecondsBuckets = {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.2, 0.5,
                                                                 1,     2,      5,     10,   30,    60,   120, 300, 600};

using Values = std::vector<std::string>;

// One byte that is no UTF-8 would make the scraper refuse the whole page.
std::string scrub(std::string_view value) { return valid_utf8(value) ? std::string(value) : printable(value); }

}  // namespace

struct Metrics::Impl {
  struct Entry {
    prometheus::Family<prometheus::Counter>* counters = nullptr;
    prometheus::Family<prometheus::Gauge>* gauges = nullptr;
    prometheus::Family<prometheus::Histogram>* histograms = nullptr;
    std::map<Values, prometheus::Counter*> counter_series;
    std::map<Values, prometheus::Gauge*> gauge_series;
    std::map<Values, prometheus::Histogram*> histogram_series;
    size_t series() const { return counter_series.size() + gauge_series.size() + histogram_series.size(); }
  };

  mutable std::mutex mutex;  // guards the maps; held while a value changes, so that replace() cannot take the series away under it
  prometheus::Registry registry;
  std::array<Entry, kMetricCount> entries;

  Impl() {
    for (const MetricSpec& spec : kMetricCatalogue) {
      Entry& e = entries[static_cast<size_t>(spec.metric)];
      std::string name(spec.name), help(spec.help);
      switch (spec.kind) {
        case MetricKind::kCounter:
          e.counters = &prometheus::BuildCounter().Name(name).Help(help).Register(registry);
          break;
        case MetricKind::kGauge:
          e.gauges = &prometheus::BuildGauge().Name(name).Help(help).Register(registry);
          break;
        case MetricKind::kHistogram:
          e.histograms = &prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
          break;
      }
      if (spec.label_count() > 0) continue;
      switch (spec.kind) {
        case MetricKind::kCounter:
          counter(spec.metric, {});
          break;
        case MetricKind::kGauge:
          gauge(spec.metric, LabelValues{});
          break;
        case MetricKind::kHistogram:
          histogram(spec.metric, {});
          break;
      }
    }
  }

  // What the labels are counted under: themselves, or "other" when there are too many of them.
  Values key(Metric metric, const auto& labels, const Entry& entry, auto&& known) const {
    CHECK(labels.size() == metric_spec(metric).label_count());
    Values values;
    for (std::string_view label : labels) values.push_back(scrub(label));
    if (!known(values) && entry.series() >= kMaxSeries) std::fill(values.begin(), values.end(), "other");
    return values;
  }

  static prometheus::Labels label_map(Metric metric, const Values& values) {
    prometheus::Labels map;
    for (size_t i = 0; i < values.size(); ++i) map.emplace(std::string(metric_spec(metric).labels[i]), values[i]);
    return map;
  }

  // Finds or makes the series. Requires: the mutex is held (or nobody else knows the object yet).
  template <class Labels, class Family, class Series, class... Args>
  auto& series_of(Metric metric, const Labels& labels, Family* family, Series& series, Args&&... args) {
    CHECK(family != nullptr);
    const Entry& entry = entries[static_cast<size_t>(metric)];
    Values values = key(metric, labels, entry, [&](const Values& v) { return series.contains(v); });
    auto it = series.find(values);
    if (it == series.end()) it = series.emplace(values, &family->Add(label_map(metric, values), args...)).first;
    return *it->second;
  }
  prometheus::Counter& counter(Metric metric, LabelValues labels) {
    Entry& e = entries[static_cast<size_t>(metric)];
    return series_of(metric, labels, e.counters, e.counter_series);
  }
  prometheus::Gauge& gauge(Metric metric, const auto& labels) {
    Entry& e = entries[static_cast<size_t>(metric)];
    return series_of(metric, labels, e.gauges, e.gauge_series);
  }
  prometheus::Histogram& histogram(Metric metric, LabelValues labels) {
    Entry& e = entries[static_cast<size_t>(metric)];
    return series_of(metric, labels, e.histograms, e.histogram_series, kSecondsBuckets);
  }
};

Metrics::Metrics() : impl_(std::make_unique<Impl>()) {}
Metrics::~Metrics() = default;

void Metrics::add(Metric counter, double n, LabelValues labels) {
  CHECK(n >= 0);
  std::lock_guard lock(impl_->mutex);
  impl_->counter(counter, labels).Increment(n);
}

void Metrics::touch(Metric counter_or_gauge, LabelValues labels) {
  std::lock_guard lock(impl_->mutex);
  if (metric_spec(counter_or_gauge).kind == MetricKind::kGauge) {
    impl_->gauge(counter_or_gauge, labels);
  } else {
    impl_->counter(counter_or_gauge, labels);
  }
}

void Metrics::set(Metric gauge, double value, LabelValues labels) {
  std::lock_guard lock(impl_->mutex);
  impl_->gauge(gauge, labels).Set(value);
}

void Metrics::replace(Metric gauge, std::span<const GaugeSeries> series) {
  std::lock_guard lock(impl_->mutex);
  Impl::Entry& e = impl_->entries[static_cast<size_t>(gauge)];
  CHECK(e.gauges != nullptr && metric_spec(gauge).label_count() > 0);
  for (auto& [values, old] : e.gauge_series) e.gauges->Remove(old);
  e.gauge_series.clear();
  for (const GaugeSeries& s : series) impl_->gauge(gauge, s.labels).Set(s.value);
}

void Metrics::observe(Metric histogram, double seconds, LabelValues labels) {
  std::lock_guard lock(impl_->mutex);
  impl_->histogram(histogram, labels).Observe(seconds);
}

void Metrics::observe_all(Metric histogram, std::span<const double> seconds, LabelValues labels) {
  std::lock_guard lock(impl_->mutex);
  std::vector<double> counts(kSecondsBuckets.size() + 1);  // a bucket takes its edge
  double sum = 0;
  for (double value : seconds) {
    ++counts[static_cast<size_t>(std::lower_bound(kSecondsBuckets.begin(), kSecondsBuckets.end(), value) -
                                 kSecondsBuckets.begin())];
    sum += value;
  }
  impl_->histogram(histogram, labels).ObserveMultiple(counts, sum);
}

double Metrics::value(Metric counter_or_gauge, LabelValues labels) const {
  std::lock_guard lock(impl_->mutex);
  const Impl::Entry& e = impl_->entries[static_cast<size_t>(counter_or_gauge)];
  Values values;
  for (std::string_view label : labels) values.push_back(scrub(label));
  if (auto it = e.counter_series.find(values); it != e.counter_series.end()) return it->second->Value();
  if (auto it = e.gauge_series.find(values); it != e.gauge_series.end()) return it->second->Value();
  return 0;
}

std::string Metrics::exposition() const {
  std::vector<prometheus::MetricFamily> families;
  {
    std::lock_guard lock(impl_->mutex);
    families = impl_->registry.Collect();
  }
  std::sort(families.begin(), families.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  auto labels_of = [](const prometheus::ClientMetric& m) {
    std::vector<std::pair<std::string, std::string>> labels;
    for (const auto& l : m.label) labels.emplace_back(l.name, l.value);
    return labels;
  };
  for (auto& family : families)
    std::sort(family.metric.begin(), family.metric.end(),
              [&](const auto& a, const auto& b) { return labels_of(a) < labels_of(b); });
  std::ostringstream out;
  prometheus::TextSerializer().Serialize(out, families);
  return std::move(out).str();
}

}  // namespace assay::streams
