#include "replay/score_at.h"

#include "replay/key_history.h"
#include "streams/windows_at.h"

namespace assay::replay {

Result<std::vector<processors::AgentScore>> score_at(streams::Log& log, const streams::TopicNames& names, const Rules& rules,
                                                     const ScoreQuestion& question) {
  const TopicPartition tp{names.full(Topic::kReports), partition_of(question.agent, names.partitions())};
  TRY_ASSIGN(streams::OffsetRange range, whole_range(log, tp, "scoring agent " + question.agent));
  if (question.known_by) {
    TRY_ASSIGN(range.end, known_by(log, tp, *question.known_by));
  }
  std::set<streams::WindowTarget> targets;
  for (Window window : kWindows) targets.emplace(window, streams::last_boundary(question.at_ms, window));
  streams::WindowsAt windows(rules, std::move(targets), "*", tp.partition);
  TRY(read_key(log, tp, question.agent, range.start, range.end, [&](const RecordView& record) -> Result<void> {
    windows.fold(record);
    return {};
  }));
  return windows.scores();
}

}  // namespace assay::replay
