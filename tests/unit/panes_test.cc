// Panes against a list of everything that was accepted: rolled, settled or neither, a window's content is the same.
#include "processors/panes.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <random>

namespace assay::processors {
namespace {

struct Sample {
  int64_t timestamp;
  std::string id;
  std::string division;
  uint32_t metric;
  int64_t micro;
};

struct Expected {
  uint64_t samples = 0;
  std::string division;
  std::map<uint32_t, Moments> cells;
};

Expected expected(const std::vector<Sample>& all, int64_t start, int64_t end) {
  Expected out;
  const Sample* last = nullptr;
  for (const Sample& s : all) {
    if (s.timestamp < start || s.timestamp >= end) continue;
    ++out.samples;
    out.cells[s.metric].add(s.micro);
    if (last == nullptr || std::tie(s.timestamp, s.id) > std::tie(last->timestamp, last->id)) last = &s;
  }
  if (last != nullptr) out.division = last->division;
  return out;
}

void expect_same(const Panes& panes, const std::vector<Sample>& all, int64_t start, int64_t end) {
  ASSERT_TRUE(panes.holds(start, end));
  const WindowContent content = panes.content(start, end);
  const Expected want = expected(all, start, end);
  ASSERT_EQ(content.samples, want.samples);
  ASSERT_EQ(content.division, want.division);
  ASSERT_EQ(content.cells.size(), want.cells.size());
  for (const Cell& cell : content.cells) {
    auto it = want.cells.find(cell.metric);
    ASSERT_NE(it, want.cells.end());
    ASSERT_TRUE(cell.moments == it->second) << "metric " << cell.metric << " of [" << start << ", " << end << ")";
  }
}

class PanesTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(PanesTest, ContentIsThatOfAllThatWasAccepted) {
  std::mt19937_64 random(GetParam());
  const int64_t grace = static_cast<int64_t>(random() % 90) * kMinuteMs;
  const bool sparse = random() % 2 == 0;
  Panes panes;
  std::vector<Sample> all;
  int64_t clock = 1767225600000 + static_cast<int64_t>(random() % kDayMs), horizon = Panes::kNever;
  for (int i = 0; i < 2000; ++i) {
    int64_t next = clock + static_cast<int64_t>(random() % static_cast<uint64_t>((sparse ? 60 : 10) * kMinuteMs));
    if (random() % 400 == 0) next += static_cast<int64_t>(random() % 9) * kDayMs;
    const int64_t timestamp = random() % 3 == 0 && horizon != Panes::kNever
                                  ? horizon + static_cast<int64_t>(random() % static_cast<uint64_t>(clock - horizon + 1))
                                  : next;
    if (timestamp > clock) clock = timestamp;
    const int64_t before = horizon;
    horizon = std::max(horizon, clock - grace);
    if (before != Panes::kNever)  // as windows close: what lies before them is settled, then the panes are rolled
      for (int64_t end = std::max(floor_to(before, kHourMs), floor_to(horizon, kHourMs) - 7 * kDayMs) + kHourMs; end <= horizon;
           end += kHourMs) {
        if (random() % 4 != 0) panes.settle(end);
        expect_same(panes, all, end - kHourMs, end);
        expect_same(panes, all, end - kDayMs, end);
        if (end % kDayMs == 0) expect_same(panes, all, end - 7 * kDayMs, end);
      }
    panes.roll(horizon);

    Sample s{timestamp, std::to_string(random() % 100000), "d" + std::to_string(random() % 3), static_cast<uint32_t>(random() % 4),
             static_cast<int64_t>(random() % 2000000) - 1000000};
    Pane& pane = panes.at(timestamp);
    if (pane.samples == 0 || std::tie(timestamp, s.id) > std::tie(pane.last_timestamp, pane.last_id)) {
      pane.last_timestamp = timestamp;
      pane.last_id = s.id;
      pane.last_division = s.division;
    }
    ++pane.samples;
    pane.cell(s.metric, random() % 4).moments.add(s.micro);
    all.push_back(std::move(s));

    // The open windows, whatever is settled inside them.
    for (Window window : kWindows) {
      const int64_t end = floor_to(clock, pane_size_ms(window)) + pane_size_ms(window);
      expect_same(panes, all, end - window_size_ms(window), end);
    }
    if (HasFatalFailure()) FAIL() << "after report " << i << " of seed " << GetParam();
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, PanesTest, ::testing::Range<uint64_t>(1, 9));

}  // namespace
}  // namespace assay::processors
