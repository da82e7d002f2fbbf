#include "processors/panes.h"

#include <algorithm>

#include "state/encoding.h"

namespace assay::processors {

uint32_t Names::intern(std::string_view name) {
  if (auto it = index_.find(name); it != index_.end()) return it->second;
  auto [it, inserted] = index_.emplace(std::string(name), static_cast<uint32_t>(by_index_.size()));
  by_index_.push_back(&it->first);
  bytes_ += 120 + name.size();
  return it->second;
}

namespace {

Cell& find_cell(std::vector<Cell>& cells, uint32_t metric, size_t guess) {
  if (guess < cells.size() && cells[guess].metric == metric) return cells[guess];
  auto it = std::find_if(cells.begin(), cells.end(), [&](const Cell& c) { return c.metric == metric; });
  return it != cells.end() ? *it : cells.emplace_back(Cell{metric, {}});
}

void merge_cells(std::vector<Cell>& into, const std::vector<Cell>& from) {
  if (into.empty()) {
    into = from;
    return;
  }
  // Panes of one agent mostly carry the same metrics in the same order, so the guess is nearly always right.
  size_t guess = 0;
  for (const Cell& cell : from) {
    Cell& to = find_cell(into, cell.metric, guess);
    to.moments.merge(cell.moments);
    guess = static_cast<size_t>(&to - into.data()) + 1;
  }
}

}  // namespace

Cell& Pane::cell(uint32_t metric, size_t guess) { return find_cell(cells, metric, guess); }

void Pane::merge(const Pane& other) {
  if (samples == 0 || std::tie(other.last_timestamp, other.last_id) > std::tie(last_timestamp, last_id)) {
    last_timestamp = other.last_timestamp;
    last_id = other.last_id;
    last_division = other.last_division;
  }
  samples += other.samples;
  merge_cells(cells, other.cells);
  dirty = true;
}

Pane& Panes::at(int64_t timestamp) {
  const int64_t start = floor_to(timestamp, kMinuteMs);
  if (last_ == nullptr || start != last_start_) {
    last_ = &grain(Grain::kMinute)[start];
    last_start_ = start;
    touch(Grain::kMinute, start);
  } else if (!last_->dirty) {
    touch(Grain::kMinute, start);
  }
  last_->dirty = true;
  return *last_;
}

void Panes::touch(Grain g, int64_t start) {
  const int64_t group = floor_to(start, group_ms(g));
  int64_t& last = last_touched_[static_cast<size_t>(g)];
  if (last == group) return;
  last = group;
  touched_.emplace_back(g, group);
}

bool Panes::set_stored(Grain g, int64_t start, bool stored) {
  return stored ? !stored_.emplace(g, start).second : stored_.erase({g, start}) > 0;
}

std::vector<std::pair<Grain, int64_t>> Panes::take_touched() {
  std::sort(touched_.begin(), touched_.end());
  touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
  std::fill(std::begin(last_touched_), std::end(last_touched_), kNever);
  return std::exchange(touched_, {});
}

state::Digest Panes::take_removed() { return std::exchange(removed_, {}); }

void Panes::drop(Grain g, std::map<int64_t, Pane>::iterator it) {
  removed_ += it->second.digest;
  touch(g, it->first);
  if (last_ == &it->second) last_ = nullptr;
  grain(g).erase(it);
}

void Panes::restore_horizon(int64_t horizon) {
  // The first open window of each size ends at the first boundary after the horizon. What lies before its start and fills
  // a whole pane of the next grain needs no finer one.
  from_[0] = floor_to(floor_to(horizon, kMinuteMs) + kMinuteMs - kHourMs, 15 * kMinuteMs);
  from_[1] = floor_to(floor_to(horizon, 15 * kMinuteMs) + 15 * kMinuteMs - kDayMs, kHourMs);
  from_[2] = floor_to(horizon, kHourMs) + kHourMs - 7 * kDayMs;
}

void Panes::roll(int64_t horizon) {
  if (from_[0] != kNever && floor_to(horizon, kMinuteMs) == rolled_to_) return;  // all borders are functions of the minute
  rolled_to_ = floor_to(horizon, kMinuteMs);
  const int64_t before[] = {from_[0], from_[1], from_[2]};
  restore_horizon(horizon);
  if (std::equal(before, before + 3, from_)) return;
  if (settled_from_ != kNever && settled_from_ < from_[1]) {  // the hour panes themselves serve there from now on
    settled_.erase(settled_.begin(), settled_.lower_bound(from_[1]));
    settled_from_ = from_[1];
    settled_to_ = std::max(settled_to_, settled_from_);
  }
  for (Grain g : {Grain::kMinute, Grain::kQuarter}) {
    const Grain coarser = g == Grain::kMinute ? Grain::kQuarter : Grain::kHour;
    auto& panes = grain(g);
    for (auto it = panes.begin(); it != panes.end() && it->first < from_[static_cast<size_t>(g)]; it = panes.begin()) {
      const int64_t start = floor_to(it->first, grain_ms(coarser));
      grain(coarser)[start].merge(it->second);
      touch(coarser, start);
      drop(g, it);
    }
  }
  auto& hours = grain(Grain::kHour);
  while (!hours.empty() && hours.begin()->first < from_[2]) drop(Grain::kHour, hours.begin());
}

bool Panes::holds(int64_t start, int64_t end) const {
  if (start < from_[2]) return false;
  auto whole_at = [&](int64_t border) {
    if (border >= from_[0]) return border % kMinuteMs == 0;
    if (border >= from_[1]) return border % (15 * kMinuteMs) == 0;
    return border % kHourMs == 0;
  };
  return whole_at(start) && whole_at(end);
}

template <class Each>
void Panes::for_each(int64_t start, int64_t end, const Each& each) const {
  for (Grain g : kGrains) {
    const auto& panes = grain(g);
    for (auto it = panes.lower_bound(start); it != panes.end() && it->first < end; ++it) each(it->first, it->second);
  }
}

void Panes::settle(int64_t end) {
  if (end <= settled_to_) return;
  if (settled_to_ == kNever) settled_from_ = settled_to_ = std::min(from_[1], end);
  for_each(settled_to_, end, [&](int64_t start, const Pane& pane) { settled_[floor_to(start, kHourMs)].merge(pane); });
  settled_to_ = end;
}

const Pane* Panes::closed_hour(int64_t start) const {
  const auto& hours = start < settled_from_ ? grain(Grain::kHour) : settled_;
  auto it = hours.find(start);
  return it == hours.end() ? nullptr : &it->second;
}

void Panes::closed_hours(int64_t start, int64_t end, std::vector<const Pane*>& into) const {
  into.clear();
  const int64_t border = std::clamp(settled_from_, start, end);
  auto add = [&](const std::map<int64_t, Pane>& hours, int64_t from, int64_t to) {
    if (from == to) return;
    for (auto it = hours.lower_bound(from); it != hours.end() && it->first < to; ++it) into.push_back(&it->second);
  };
  add(grain(Grain::kHour), start, border);
  add(settled_, border, end);
}

WindowContent Panes::content(int64_t start, int64_t end) const {
  WindowContent out;
  content(start, end, out);
  return out;
}

void Panes::content(int64_t start, int64_t end, WindowContent& out) const {
  out.samples = 0;
  out.division = {};
  out.cells.clear();
  const Pane* last = nullptr;
  auto add = [&](int64_t, const Pane& pane) {
    out.samples += pane.samples;
    merge_cells(out.cells, pane.cells);
    if (last == nullptr || std::tie(pane.last_timestamp, pane.last_id) > std::tie(last->last_timestamp, last->last_id))
      last = &pane;
  };
  const int64_t settled_start = std::max(floor_to(start + kHourMs - 1, kHourMs), settled_from_);
  const int64_t settled_end = std::min(floor_to(end, kHourMs), settled_to_);
  if (settled_start < settled_end) {
    for_each(start, settled_start, add);
    for (auto it = settled_.lower_bound(settled_start); it != settled_.end() && it->first < settled_end; ++it)
      add(it->first, it->second);
    for_each(settled_end, end, add);
  } else {
    for_each(start, end, add);
  }
  if (last != nullptr) out.division = last->last_division;
}

int64_t Panes::newest_end() const {
  int64_t newest = kNever;
  for (Grain g : kGrains)
    if (!grain(g).empty()) newest = std::max(newest, grain(g).rbegin()->first + grain_ms(g));
  return newest;
}

state::Digest pane_digest(std::string_view agent, Grain g, int64_t start, const Pane& pane, const Names& names) {
  state::Digest digest;
  state::Encoder prefix;
  prefix.bytes(agent).u(static_cast<uint64_t>(g)).i(start);
  state::Encoder entry;
  entry.bytes("pane").fixed(prefix.str().data(), prefix.str().size());
  entry.u(pane.samples).i(pane.last_timestamp).bytes(pane.last_id).bytes(pane.last_division);
  digest.add(entry.str());
  for (const Cell& cell : pane.cells) {
    const Moments& m = cell.moments;
    entry.clear();
    entry.bytes("cell").fixed(prefix.str().data(), prefix.str().size()).bytes(names.name(cell.metric));
    entry.u(m.count).i128(m.sum).u128(m.sum_squares.low).u(m.sum_squares.high).i(m.min).i(m.max);
    digest.add(entry.str());
  }
  return digest;
}

std::string encode_group(const std::map<int64_t, Pane>& panes, int64_t group_start, int64_t group_end, const Names& names) {
  // Row: names, then panes: start, samples, last (timestamp, id, division), cells by the place of their name in this row.
  std::vector<uint32_t> in_row;
  state::Encoder body;
  uint64_t count = 0;
  for (auto it = panes.lower_bound(group_start); it != panes.end() && it->first < group_end; ++it, ++count) {
    const Pane& pane = it->second;
    body.i(it->first).u(pane.samples).i(pane.last_timestamp).bytes(pane.last_id).bytes(pane.last_division).u(pane.cells.size());
    for (size_t k = 0; k < pane.cells.size(); ++k) {
      const Cell& cell = pane.cells[k];
      auto at = k < in_row.size() && in_row[k] == cell.metric ? in_row.begin() + static_cast<long>(k)
                                                              : std::find(in_row.begin(), in_row.end(), cell.metric);
      if (at == in_row.end()) at = in_row.insert(at, cell.metric);
      const Moments& m = cell.moments;
      body.u(static_cast<uint64_t>(at - in_row.begin())).u(m.count).i128(m.sum).u128(m.sum_squares.low).u(m.sum_squares.high);
      body.i(m.min).i(m.max);
    }
  }
  if (count == 0) return {};
  state::Encoder row;
  row.u(in_row.size());
  for (uint32_t metric : in_row) row.bytes(names.name(metric));
  row.u(count);
  return row.take() + body.str();
}

bool decode_group(std::string_view row, std::map<int64_t, Pane>& panes, Names& names) {
  state::Decoder in(row);
  std::vector<uint32_t> metrics;
  for (uint64_t n = in.u(); n > 0 && in.ok(); --n) metrics.push_back(names.intern(in.bytes()));
  for (uint64_t n = in.u(); n > 0 && in.ok(); --n) {
    Pane& pane = panes[in.i()];
    pane.samples = in.u();
    pane.last_timestamp = in.i();
    pane.last_id = in.bytes();
    pane.last_division = in.bytes();
    for (uint64_t cells = in.u(); cells > 0 && in.ok(); --cells) {
      const uint64_t at = in.u();
      if (at >= metrics.size()) return false;
      Cell cell{metrics[at], {}};
      Moments& m = cell.moments;
      m.count = in.u();
      m.sum = in.i128();
      m.sum_squares.low = in.u128();
      m.sum_squares.high = in.u();
      m.min = in.i();
      m.max = in.i();
      pane.cells.push_back(cell);
    }
  }
  return in.ok() && in.at_end();
}

}  // namespace assay::processors
