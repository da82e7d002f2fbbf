// A day that moves on by the hour against the same day scored from its panes: the same bytes, whatever came, went or changed.
#include "processors/running_day.h"

#include <gtest/gtest.h>

#include <random>
#include <string>

namespace assay::processors {
namespace {

class RunningDayTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(RunningDayTest, GivesWhatTheWholeWindowGives) {
  std::mt19937_64 random(GetParam());
  const bool extremes = GetParam() % 2 == 0;  // values that only wide integers hold
  ScoringRules rules;
  uint64_t epoch = 0;
  Names names;
  Panes panes;
  RunningDay day;
  int64_t horizon = 1767225600000;
  panes.roll(horizon);
  int scored = 0;
  for (int hour = 0; hour < 400; ++hour) {
    const bool silent = random() % 60 < 3 || (hour % 100 > 40 && hour % 100 < 70);  // for longer than a day, now and then
    for (uint64_t n = silent ? 0 : random() % 6; n > 0; --n) {
      const int64_t timestamp = horizon + static_cast<int64_t>(random() % kHourMs);
      Pane& pane = panes.at(timestamp);
      const std::string id = "r" + std::to_string(random() % 1000);
      if (pane.samples == 0 || std::tie(timestamp, id) > std::tie(pane.last_timestamp, pane.last_id)) {
        pane.last_timestamp = timestamp;
        pane.last_id = id;
        pane.last_division = hour % 150 < 75 ? "" : "d" + std::to_string(random() % 40 / 39);
      }
      ++pane.samples;
      for (int m = 0; m < 3; ++m) {
        const auto metric = names.intern("metric-" + std::to_string((random() % 9 * 7 + static_cast<uint64_t>(m)) % 30));
        const int64_t value = static_cast<int64_t>(random() % 1'000'001);
        pane.cell(metric, static_cast<size_t>(m)).moments.add(extremes ? value * 1'000'000'000'000 - 5'000'000 : value * (m + 1));
      }
    }
    if (random() % 90 == 0) {
      ++epoch;
      rules.metrics = {{"d*", "24h", "metric-1*", random() % 2 == 0, 0.1, 0.4 + static_cast<double>(random() % 9), 2.5},
                       {"*", "*", "metric-2*", true, 0, 1, random() % 2 == 0 ? 0.0 : 1.0}};
    }
    const int64_t end = horizon + kHourMs;
    if (random() % 50 == 0) day = RunningDay();  // as after a restart
    panes.settle(end);
    if (random() % 40 != 0) {  // now and then an hour is left out
      const AgentScore* score = day.close("agent", end, panes, rules, epoch, names);
      const WindowContent content = panes.content(end - kDayMs, end);
      ASSERT_EQ(score != nullptr, content.samples > 0) << "hour " << hour;
      if (score != nullptr) {
        ++scored;
        ASSERT_EQ(score->to_json("v", WallTime(1)),
                  score_window("agent", Window::k24h, end, content, rules, names).to_json("v", WallTime(1)))
            << "hour " << hour;
      }
    }
    horizon = end;
    panes.roll(horizon);
  }
  EXPECT_GT(scored, 100);
}

INSTANTIATE_TEST_SUITE_P(Seeds, RunningDayTest, ::testing::Range<uint64_t>(1, 13));

}  // namespace
}  // namespace assay::processors
