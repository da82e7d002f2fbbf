#include "streams/windows_at.h"

#include <algorithm>
#include <tuple>

namespace assay::streams {

WindowsAt::WindowsAt(const Rules& rules, std::set<WindowTarget> targets, std::string agents, int32_t partition)
    : rules_(rules), targets_(std::move(targets)), agents_(std::move(agents)), partition_(partition) {
  store_ = state::open_memory_store();
  rows_ = std::make_unique<processors::Rows>(*store_, state::Digest(), &processors::scoring_row_digest);
  scoring_ = std::make_unique<processors::Scoring>(*rows_, processors::ScoringOptions{.live = false});
  const std::string event = encode_config_event(rules_, ConfigKind::kScoring);
  RecordView config;
  config.value = event;
  scoring_->process({Topic::kConfig, 0, &config, {}}, outputs_);
  outputs_.clear();
  scoring_->observe([this](const EvalReport& report, std::string_view id) { accept(report, id); });
}

void WindowsAt::fold(const RecordView& record) {
  scoring_->process({Topic::kReports, partition_, &record, {}}, outputs_);
  outputs_.clear();
}

void WindowsAt::accept(const EvalReport& report, std::string_view id) {
  if (!glob_match(agents_, report.agent_id)) return;
  const int64_t timestamp = report.timestamp.value;
  for (const WindowTarget& target : targets_) {
    if (timestamp >= target.second || timestamp < target.second - window_size_ms(target.first)) continue;
    auto agent = found_.find(report.agent_id);
    if (agent == found_.end()) agent = found_.try_emplace(std::string(report.agent_id)).first;
    processors::Pane& pane = agent->second[target];
    if (pane.samples == 0 || std::tie(timestamp, id) > std::make_tuple(pane.last_timestamp, std::string_view(pane.last_id))) {
      pane.last_timestamp = timestamp;
      pane.last_id = id;
      pane.last_division = report.division_id;
    }
    ++pane.samples;
    for (const MetricValue& metric : report.metrics) {
      const uint32_t index = names_.intern(metric.name);
      auto cell = std::ranges::find(pane.cells, index, &processors::Cell::metric);
      if (cell == pane.cells.end()) cell = pane.cells.insert(cell, {index, {}});
      cell->moments.add(metric.micro);
    }
  }
}

std::vector<processors::AgentScore> WindowsAt::scores() const {
  std::vector<processors::AgentScore> out;
  for (const auto& [agent, windows] : found_)
    for (const auto& [target, pane] : windows)
      out.push_back(processors::score_window(agent, target.first, target.second, {pane.samples, pane.last_division, pane.cells},
                                             rules_.scoring, names_));
  return out;
}

}  // namespace assay::streams
