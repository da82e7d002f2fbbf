// Panes: what an agent's windows are made of. Every instant is held once, at the finest grain a window may still ask for.
#pragma once

#include <cstdint>
#include <limits>
#include <map>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "processors/base.h"
#include "processors/exact.h"
#include "schemas/config.h"
#include "state/digest.h"

namespace assay::processors {

/// Lets maps of strings be searched by views.
struct TextHash {
  using is_transparent = void;
  size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};

/// Names seen by one task, as small numbers; they are never stored.
class Names {
 public:
  uint32_t intern(std::string_view name);
  const std::string& name(uint32_t index) const { return *by_index_[index]; }
  /// Memory held, about.
  size_t bytes() const { return bytes_; }
  bool is(uint32_t index, std::string_view name) const { return index < by_index_.size() && *by_index_[index] == name; }

 private:
  std::unordered_map<std::string, uint32_t, TextHash, std::equal_to<>> index_;
  std::vector<const std::string*> by_index_;
  size_t bytes_ = 0;
};

struct Cell {
  uint32_t metric = 0;  // index into Names
  Moments moments;
};

/// What was accepted in [start, start + grain).
struct Pane {
  uint64_t samples = 0;
  // Of the report with the greatest (timestamp, id): it names the division.
  int64_t last_timestamp = 0;
  std::string last_id;
  std::string last_division;
  std::vector<Cell> cells;  // in the order in which metrics were first seen; the order never shows

  // Not stored: the digest of the entries as they are counted in the store's digest now, and whether that is out of date.
  state::Digest digest;
  bool dirty = false;

  void merge(const Pane& other);
  /// The cell of that metric, made if need be; `guess` is where to look first.
  Cell& cell(uint32_t metric, size_t guess);
};

/// The grains, finest first. Rows of the store hold all panes of one group.
enum class Grain : uint8_t { kMinute, kQuarter, kHour };
constexpr Grain kGrains[] = {Grain::kMinute, Grain::kQuarter, Grain::kHour};
constexpr int64_t grain_ms(Grain g) { return g == Grain::kMinute ? kMinuteMs : g == Grain::kQuarter ? 15 * kMinuteMs : kHourMs; }
constexpr int64_t group_ms(Grain g) { return g == Grain::kMinute ? 15 * kMinuteMs : g == Grain::kQuarter ? kHourMs : kDayMs; }

/// The merged content of a window.
struct WindowContent {
  uint64_t samples = 0;
  std::string_view division;  // of the report with the greatest (timestamp, id); empty: it named none
  std::vector<Cell> cells;
};

/// All panes of one agent.
///
/// Minutes are kept while an open 1h window may ask for them, then merged into quarters; those are kept while an open 24h
/// window may, then merged into hours; those are kept while an open 7d window may. "Open" is decided by the horizon: windows
/// that end at or before it are closed.
class Panes {
 public:
  static constexpr int64_t kNever = std::numeric_limits<int64_t>::min();

  /// The pane of the minute that holds the timestamp. Requires: timestamp >= the horizon that roll() was last given.
  Pane& at(int64_t timestamp);

  /// Says that nothing before `end`, a full hour, will change: whole hours before it are merged once and kept, so that windows of
  /// a day or a week that close one after the other do not fold the same panes each time.
  void settle(int64_t end);

  /// What was accepted in that hour; nullptr: nothing. Requires: settle() passed its end, and an open 7d window holds it.
  const Pane* closed_hour(int64_t start) const;
  /// Those of [start, end) that hold something, oldest first. Requires: as closed_hour() for each.
  void closed_hours(int64_t start, int64_t end, std::vector<const Pane*>& into) const;

  /// Merges and drops what no window that ends after the horizon can ask for. Requires: horizons never fall.
  void roll(int64_t horizon);

  /// Content of [start, end). Requires: holds(start, end).
  WindowContent content(int64_t start, int64_t end) const;
  void content(int64_t start, int64_t end, WindowContent& out) const;  // in the room that it has
  /// Whether [start, end) can be told exactly: nothing in it was dropped or merged across its borders.
  bool holds(int64_t start, int64_t end) const;

  /// End of the newest pane, or kNever.
  int64_t newest_end() const;

  std::map<int64_t, Pane>& grain(Grain g) { return panes_[static_cast<size_t>(g)]; }
  const std::map<int64_t, Pane>& grain(Grain g) const { return panes_[static_cast<size_t>(g)]; }

  /// Where each grain begins: data before minutes_from() is held in quarters, and so on; before hours_from() it is gone.
  int64_t minutes_from() const { return from_[0]; }
  int64_t quarters_from() const { return from_[1]; }
  int64_t hours_from() const { return from_[2]; }

  /// Groups (grain, start of the row) touched since the last call, so that their rows can be written.
  std::vector<std::pair<Grain, int64_t>> take_touched();
  void touch(Grain g, int64_t start);
  /// Notes whether the store has a row of that group, and tells whether it had.
  bool set_stored(Grain g, int64_t start, bool stored);
  /// Digest of panes that were dropped or merged away since the last call: to be taken out of the store's digest.
  state::Digest take_removed();
  /// After loading rows: what roll() had reached.
  void restore_horizon(int64_t horizon);

  size_t stored_groups() const { return stored_.size(); }
  const std::map<int64_t, Pane>& settled() const { return settled_; }

 private:
  void drop(Grain g, std::map<int64_t, Pane>::iterator it);
  template <class Each>
  void for_each(int64_t start, int64_t end, const Each& each) const;

  std::map<int64_t, Pane> panes_[3];
  int64_t from_[3] = {kNever, kNever, kNever};
  int64_t rolled_to_ = kNever;  // the minute of the last horizon
  std::vector<std::pair<Grain, int64_t>> touched_;
  int64_t last_touched_[3] = {kNever, kNever, kNever};  // of each grain
  std::set<std::pair<Grain, int64_t>> stored_;          // groups that have a row
  state::Digest removed_;
  Pane* last_ = nullptr;  // the pane used last: reports of an agent come in runs
  int64_t last_start_ = kNever;

  // Derived and never stored: the hours of [settled_from_, settled_to_) that hold something, by start.
  std::map<int64_t, Pane> settled_;
  int64_t settled_from_ = kNever, settled_to_ = kNever;
};

/// Digest of a pane's logical entries: one for the pane, one per metric.
state::Digest pane_digest(std::string_view agent, Grain grain, int64_t start, const Pane& pane, const Names& names);

/// One row: all panes of a group. Names are spelled out once per row.
std::string encode_group(const std::map<int64_t, Pane>& panes, int64_t group_start, int64_t group_end, const Names& names);
/// Adds the row's panes. Returns false when the bytes are not such a row.
bool decode_group(std::string_view row, std::map<int64_t, Pane>& panes, Names& names);

}  // namespace assay::processors
