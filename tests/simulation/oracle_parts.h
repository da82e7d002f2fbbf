// What the oracle's files share: the list of accepted reports of an agent, and how a window of it is scored.
#pragma once

#include "tests/simulation/oracle.h"

namespace assay::simulation {

constexpr int64_t kMinute = 60'000, kHour = 60 * kMinute, kDay = 24 * kHour;
constexpr int64_t kMicroUnits = 1'000'000;

struct WindowKind {
  std::string_view name;
  int64_t size, pane, emit;  // an end is a multiple of `pane`; a closed one becomes a record where it is a multiple of `emit`
};
constexpr WindowKind kHourWindow{"1h", kHour, kMinute, kHour};
constexpr WindowKind kDayWindow{"24h", kDay, 15 * kMinute, kHour};
constexpr WindowKind kWeekWindow{"7d", 7 * kDay, kHour, kDay};

struct Value {
  uint32_t metric = 0;  // index into the list of names
  int64_t micro = 0;
};

struct Accepted {
  int64_t timestamp = 0;
  std::string id, division;
  std::vector<Value> values;
};

/// All accepted reports of one agent, by (timestamp, id).
struct AgentReports {
  std::string agent;
  std::vector<Accepted> list;
};

/// The score of [end - size, end), or nothing when no report lies in it.
std::optional<Score> score_window(const AgentReports& reports, const std::vector<std::string>& names, const WindowKind& window,
                                  int64_t end, const Rules& rules, Arithmetic arithmetic);

/// The double's exact value in 10^-6, rounded half to even. Requires: finite, |value| <= 10^12.
int64_t micro_of(double value);

/// '*' any run, '?' one byte, everything else itself.
bool glob(std::string_view pattern, std::string_view text);

/// Takes over the section from a change.
void apply(const RuleChange& change, Rules& rules);

/// Calls on_change(change) and on_record(partition, index) in the order that the turns give.
template <class OffsetOf, class OnChange, class OnRecord>
void walk(const std::vector<RuleChange>& changes, const std::vector<std::pair<int32_t, size_t>>& partitions,
          std::span<const Turn> order, const OffsetOf& offset_of, const OnChange& on_change, const OnRecord& on_record) {
  size_t changed = 0;
  std::vector<size_t> folded(partitions.size(), 0);
  for (const Turn& turn : order) {
    if (turn.partition == Turn::kConfig)
      for (; changed < changes.size() && changes[changed].offset < turn.to; ++changed) on_change(changes[changed]);
    for (size_t p = 0; p < partitions.size(); ++p)
      if (partitions[p].first == turn.partition)
        for (; folded[p] < partitions[p].second && offset_of(turn.partition, folded[p]) < turn.to; ++folded[p])
          on_record(turn.partition, folded[p]);
  }
  for (; changed < changes.size(); ++changed) on_change(changes[changed]);
  for (size_t p = 0; p < partitions.size(); ++p)
    for (; folded[p] < partitions[p].second; ++folded[p]) on_record(partitions[p].first, folded[p]);
}

}  // namespace assay::simulation
