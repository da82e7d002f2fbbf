// The metrics page: its text form, its bounds, and the catalogue's own consistency.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <regex>
#include <set>
#include <sstream>
#include <thread>

#include "streams/metrics.h"

namespace assay::streams {
namespace {

using testing::HasSubstr;
using testing::Not;

TEST(Metrics, ShowsUnlabelledOnesFromTheStart) {
  Metrics metrics;
  std::string page = metrics.exposition();
  EXPECT_THAT(page, HasSubstr("# TYPE assay_audit_rows_total counter\nassay_audit_rows_total 0\n"));
  EXPECT_THAT(page, HasSubstr("# HELP audit_stager_pending "));
  EXPECT_THAT(page, Not(HasSubstr("assay_dead_letters_total{")));
}

TEST(Metrics, CountsByLabel) {
  Metrics metrics;
  metrics.touch(Metric::kDeadLetters, {"eval.reports.v1", "EMPTY"});
  metrics.increment(Metric::kDeadLetters, {"eval.reports.v1", "NOT_JSON"});
  metrics.add(Metric::kDeadLetters, 2, {"eval.reports.v1", "NOT_JSON"});
  std::string page = metrics.exposition();
  EXPECT_THAT(page, HasSubstr("assay_dead_letters_total{reason=\"EMPTY\",topic=\"eval.reports.v1\"} 0\n"
                              "assay_dead_letters_total{reason=\"NOT_JSON\",topic=\"eval.reports.v1\"} 3\n"));
  EXPECT_EQ(metrics.value(Metric::kDeadLetters, {"eval.reports.v1", "NOT_JSON"}), 3);
  EXPECT_EQ(metrics.value(Metric::kDeadLetters, {"eval.reports.v1", "TOO_DEEP"}), 0);
}

TEST(Metrics, HistogramsAddUp) {
  Metrics metrics;
  for (double seconds : {0.0005, 0.2, 0.21, 700.0}) metrics.observe(Metric::kSubmissionLatency, seconds);
  std::string page = metrics.exposition();
  EXPECT_THAT(page, HasSubstr("eval_engine_eval_submission_latency_seconds_bucket{le=\"0.001\"} 1\n"));
  EXPECT_THAT(page, HasSubstr("eval_engine_eval_submission_latency_seconds_bucket{le=\"0.2\"} 2\n"));
  EXPECT_THAT(page, HasSubstr("eval_engine_eval_submission_latency_seconds_bucket{le=\"0.5\"} 3\n"));
  EXPECT_THAT(page, HasSubstr("eval_engine_eval_submission_latency_seconds_bucket{le=\"+Inf\"} 4\n"));
  EXPECT_THAT(page, HasSubstr("eval_engine_eval_submission_latency_seconds_count 4\n"));
}

TEST(Metrics, ReplacesTheSeriesOfAGauge) {
  Metrics metrics;
  metrics.replace(Metric::kLagRecords, std::vector<GaugeSeries>{{{"t", "0", "g"}, 5}, {{"t", "1", "g"}, 6}});
  metrics.replace(Metric::kLagRecords, std::vector<GaugeSeries>{{{"t", "1", "g"}, 7}});
  std::string page = metrics.exposition();
  EXPECT_THAT(page, HasSubstr("assay_lag_records{group=\"g\",partition=\"1\",topic=\"t\"} 7\n"));
  EXPECT_THAT(page, Not(HasSubstr("partition=\"0\"")));
}

// The grammar of the text format, line by line: a scraper refuses the whole page for one bad one.
TEST(Metrics, EveryLineKeepsToTheFormatWhateverTheLabels) {
  Metrics metrics;
  for (const char* evil : {"a\"b", "a\\b", "a\nb", "\xFF\xFE", "", "{}=,", "ü"})
    metrics.increment(Metric::kDeadLetters, {"eval.reports.v1", evil});
  const std::regex comment(R"(# (HELP|TYPE) [a-zA-Z_:][a-zA-Z0-9_:]* .*)");
  const std::regex sample(R"re([a-zA-Z_:][a-zA-Z0-9_:]*(\{([a-z_]+="([^"\\]|\\["\\n])*",?)*\})? [-+0-9.eEInfNa]+)re");
  std::istringstream page(metrics.exposition());
  std::string line;
  size_t lines = 0;
  while (std::getline(page, line)) {
    ++lines;
    EXPECT_TRUE(std::regex_match(line, line.starts_with("#") ? comment : sample)) << line;
  }
  EXPECT_GT(lines, kMetricCount);
}

TEST(Metrics, BoundsTheSeriesOfOneMetric) {
  Metrics metrics;
  for (size_t i = 0; i < Metrics::kMaxSeries + 100; ++i) metrics.increment(Metric::kDelivered, {"task-" + std::to_string(i)});
  EXPECT_EQ(metrics.value(Metric::kDelivered, {"other"}), 100);
  EXPECT_EQ(metrics.value(Metric::kDelivered, {"task-0"}), 1);
  metrics.increment(Metric::kDelivered, {"task-0"});
  EXPECT_EQ(metrics.value(Metric::kDelivered, {"task-0"}), 2);
}

TEST(Metrics, LosesNothingBetweenThreads) {
  Metrics metrics;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&metrics] {
      for (int i = 0; i < 5000; ++i) {
        metrics.increment(Metric::kCommits, {"scoring-0"});
        if (i % 500 == 0) {
          metrics.replace(Metric::kLagRecords, std::vector<GaugeSeries>{{{"t", "0", "g"}, double(i)}});
          metrics.exposition();
        }
      }
    });
  for (auto& thread : threads) thread.join();
  EXPECT_EQ(metrics.value(Metric::kCommits, {"scoring-0"}), 20000);
}

TEST(MetricsDeathTest, RefusesWrongKindsAndLabels) {
  Metrics metrics;
  EXPECT_DEATH(metrics.increment(Metric::kDeadLetters, {"one"}), "CHECK failed");
  EXPECT_DEATH(metrics.set(Metric::kCommits, 1, {"scoring-0"}), "CHECK failed");
  EXPECT_DEATH(metrics.add(Metric::kAuditRows, -1), "CHECK failed");
}

TEST(MetricCatalogue, KeepsPrometheusHabits) {
  std::set<std::string_view> names;
  for (const MetricSpec& spec : kMetricCatalogue) {
    EXPECT_TRUE(names.insert(spec.name).second) << spec.name;
    EXPECT_TRUE(std::regex_match(std::string(spec.name), std::regex("[a-z][a-z0-9_]*"))) << spec.name;
    EXPECT_EQ(spec.kind == MetricKind::kCounter, spec.name.ends_with("_total")) << spec.name;
    if (spec.kind == MetricKind::kHistogram) {
      EXPECT_TRUE(spec.name.ends_with("_seconds")) << spec.name;
    }
    EXPECT_TRUE(spec.help.ends_with(".")) << spec.name;
    for (size_t i = spec.label_count(); i < kMaxLabels; ++i) EXPECT_TRUE(spec.labels[i].empty()) << spec.name;
  }
}

}  // namespace
}  // namespace assay::streams
