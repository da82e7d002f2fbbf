// Suggested rules: percentiles against their definition, directions from names, and a file that loads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "tools/commands.h"
#include "tools/settings.h"
#include "tools/suggest.h"

namespace assay::tools {
namespace {

/// By definition: the smallest value such that at least percent/100 of all values are not greater. By counting, without sorting.
double percentile_by_counting(const std::vector<double>& values, int percent) {
  double best = std::numeric_limits<double>::infinity();
  for (double candidate : values) {
    size_t not_greater = 0;
    for (double value : values) not_greater += value <= candidate;
    if (not_greater * 100 >= values.size() * static_cast<size_t>(percent)) best = std::min(best, candidate);
  }
  return best;
}

TEST(Percentile, AgreesWithItsDefinition) {
  std::mt19937_64 random(9);
  for (int round = 0; round < 500; ++round) {
    std::vector<double> values(1 + random() % 130);
    for (double& value : values) value = static_cast<double>(static_cast<int64_t>(random() % 50) - 25) / 4;
    for (int percent : {1, 5, 50, 95, 99, 100}) {
      const double expected = percentile_by_counting(values, percent);
      std::vector<double> sorted = values;
      ASSERT_EQ(percentile(sorted, percent), expected) << values.size() << " values, " << percent << " %";
    }
  }
}

TEST(Direction, ComesFromTheName) {
  for (const char* down :
       {"p99_latency_ms", "latency", "error_rate", "errorRate", "cost_usd", "cost_per_task", "duration", "response_time",
        "gc_pause_ms", "elapsed_seconds", "ErrorsPerSecond", "latency_ms_per_request", "timeouts", "validation-loss"})
    EXPECT_TRUE(lower_is_better(down)) << down;
  for (const char* up : {"success_rate", "cost_efficiency", "redis_test_get_parallel_connections_50_per_second", "throughput",
                         "win", "uptime", "items_ms_score", "requests_per_seconds", "time_saved", "lossless", "quality", "7"})
    EXPECT_FALSE(lower_is_better(up)) << up;
}

TEST(SuggestedRules, AreSoundWhateverTheValues) {
  std::mt19937_64 random(4);
  for (int round = 0; round < 300; ++round) {
    std::map<std::string, std::vector<double>> values;
    for (int metric = 0; metric < 5; ++metric)
      for (uint64_t n = 1 + random() % 6; n > 0; --n)
        values["m" + std::to_string(metric)].push_back(
            (random() % 2 == 0 ? -1.0 : 1.0) *
            std::min(1e12, std::pow(10.0, static_cast<double>(random() % 25) - 12) * static_cast<double>(random() % 3)));
    values["zero_ms"] = {0};
    values["top"] = {1e12, 1e12};
    values["bottom"] = {-1e12};
    values["least"] = {5e-324};
    Rules rules;
    rules.scoring.metrics = suggest_rules(values);
    ASSERT_THAT(validate(rules), ::testing::IsEmpty()) << "round " << round;
  }
}

TEST(SuggestedRules, AsTomlLoadAsTheyWere) {
  std::map<std::string, std::vector<double>> values = {{"plain", {1, 2, 3}},
                                                       {"with \"quotes\" and \\", {0.1, 0.25}},
                                                       {"tab\tand\x7f", {-1e21 / 1e10, 1e-7}},
                                                       {"größe", {1e12, -1e12}}};
  const std::vector<MetricRule> rules = suggest_rules(values);
  const auto file = std::filesystem::temp_directory_path() / ("assay-suggest-" + std::to_string(getpid()) + ".toml");
  std::ofstream(file) << rules_to_toml(rules);
  auto settings = load_settings({.config_file = file.string(), .environment = {}, .sets = {}, .flags = {}});
  std::filesystem::remove(file);
  ASSERT_TRUE(settings) << settings.error().message;
  EXPECT_EQ(settings->rules.scoring.metrics, rules);
}

TEST(SuggestCommand, PrintsAFileForTheConfiguration) {
  const auto dir = std::filesystem::temp_directory_path() / ("assay-suggest-" + std::to_string(getpid()));
  std::filesystem::create_directories(dir);
  {
    std::ofstream out(dir / "in.jsonl");
    for (int i = 1; i <= 100; ++i)
      out << R"({"agentId":"a","metricSet":{"p99_latency_ms":)" << i << R"(,"speed":7},"timestamp":"2026-01-01T00:00:00Z"})"
          << "\n";
    out << "not a report\n";
  }
  std::ostringstream out, err;
  EXPECT_EQ(run_cli({"-q", "config", "suggest", "--input", (dir / "in.jsonl").string()}, {}, {register_config}, out, err), 0)
      << err.str();
  EXPECT_EQ(out.str(),
            "# Proposed from 100 reports: low and high are the 5th and 95th percentile of each metric.\n\n"
            "[[scoring.metric]]\nmetric = \"p99_latency_ms\"\ndirection = \"down\"\nlow = 5.0\nhigh = 95.0\nweight = 1.0\n\n"
            "[[scoring.metric]]\nmetric = \"speed\"\ndirection = \"up\"\nlow = 3.5\nhigh = 10.5\nweight = 1.0\n\n");
  EXPECT_EQ(err.str(), "assay: 1 lines are no reports and were left out\n");
  std::ofstream(dir / "none.jsonl") << "x\n";
  EXPECT_EQ(run_cli({"-q", "config", "suggest", "--input", (dir / "none.jsonl").string()}, {}, {register_config}, out, err), 2);
  EXPECT_EQ(run_cli({"-q", "config", "suggest", "--input", "/nowhere"}, {}, {register_config}, out, err), 2);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace assay::tools
