#include "processors/running_day.h"

#include <algorithm>
#include <utility>

namespace assay::processors {

size_t RunningDay::find(uint32_t metric, size_t guess) const {
  if (guess < metrics_.size() && metrics_[guess] == metric) return guess;
  return static_cast<size_t>(std::find(metrics_.begin(), metrics_.end(), metric) - metrics_.begin());
}

/// Minimum and maximum cannot be taken back: they are looked for in the hours that remain.
void RunningDay::find_extremes(size_t at) {
  Moments& moments = score_.components[at].moments;
  bool first = true;
  for (const Pane* hour : hours_) {
    auto cell = std::find_if(hour->cells.begin(), hour->cells.end(), [&](const Cell& c) { return c.metric == metrics_[at]; });
    if (cell == hour->cells.end()) continue;
    moments.min = first ? cell->moments.min : std::min(moments.min, cell->moments.min);
    moments.max = first ? cell->moments.max : std::max(moments.max, cell->moments.max);
    first = false;
  }
}

/// From the day that ends an hour before end_ to that which ends there.
void RunningDay::move(const Panes& panes, const ScoringRules& rules, const Names& names) {
  std::vector<Component>& components = score_.components;
  const Pane* came = panes.closed_hour(end_ - kHourMs);
  const Pane* went = panes.closed_hour(end_ - kDayMs - kHourMs);
  std::vector<bool> changed(components.size());
  if (came != nullptr) {
    score_.samples += came->samples;
    size_t guess = 0;
    for (const Cell& cell : came->cells) {
      size_t at = find(cell.metric, guess);
      if (at == metrics_.size()) {
        const std::string& name = names.name(cell.metric);
        at = static_cast<size_t>(std::lower_bound(components.begin(), components.end(), name,
                                                  [](const Component& c, const std::string& n) { return c.metric < n; }) -
                                 components.begin());
        components.insert(components.begin() + static_cast<long>(at), Component())->metric = name;
        metrics_.insert(metrics_.begin() + static_cast<long>(at), cell.metric);
        changed.insert(changed.begin() + static_cast<long>(at), true);
      }
      components[at].moments.merge(cell.moments);
      changed[at] = true;
      guess = at + 1;
    }
  }
  if (went != nullptr) {
    score_.samples -= went->samples;
    size_t guess = 0;
    for (const Cell& cell : went->cells) {
      const size_t at = find(cell.metric, guess);
      Moments& moments = components[at].moments;
      moments.take_out(cell.moments);
      if (moments.count > 0 && (cell.moments.min <= moments.min || cell.moments.max >= moments.max)) find_extremes(at);
      changed[at] = true;
      guess = at + 1;
    }
  }
  size_t kept = 0;
  for (size_t at = 0; at < components.size(); ++at) {
    if (components[at].moments.count == 0) continue;
    if (kept != at) std::swap(components[kept], components[at]);
    if (changed[at]) judge(components[kept], score_.division_id, score_.window, rules);
    metrics_[kept++] = metrics_[at];
  }
  components.resize(kept);
  metrics_.resize(kept);
}

const AgentScore* RunningDay::close(std::string_view agent, int64_t end, const Panes& panes, const ScoringRules& rules,
                                    uint64_t rules_epoch, const Names& names) {
  const bool follows = end == end_ + kHourMs && rules_epoch == rules_epoch_;
  end_ = end;
  rules_epoch_ = rules_epoch;
  panes.closed_hours(end - kDayMs, end, hours_);
  // Of the last report: it lies in the last hour that holds one.
  const std::string_view division = hours_.empty() ? std::string_view() : hours_.back()->last_division;
  if (follows && score_.division_id == division_or_default(division)) {
    move(panes, rules, names);
  } else {
    const WindowContent content = panes.content(end - kDayMs, end);
    score_window(agent, Window::k24h, end, content, rules, names, score_);
    metrics_.clear();
    for (const Cell& cell : content.cells) metrics_.push_back(cell.metric);
    std::sort(metrics_.begin(), metrics_.end(), [&](uint32_t a, uint32_t b) { return names.name(a) < names.name(b); });
  }
  if (score_.samples == 0) return nullptr;
  score_.start = end - kDayMs;
  score_.end = end;
  score_.combine();
  return &score_;
}

}  // namespace assay::processors
