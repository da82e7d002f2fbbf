#include "processors/agent_state.h"

#include "schemas/planted.h"
#include "state/encoding.h"

namespace assay::processors {
namespace {

std::string header_key(std::string_view agent) { return "A" + std::string(agent); }

std::string prefix_of(char kind, std::string_view agent) {
  std::string key(1, kind);
  key += agent;
  key.push_back('\0');
  return key;
}

std::string group_key(std::string_view agent, Grain grain, int64_t start) {
  std::string key = prefix_of('P', agent);
  key.push_back(static_cast<char>('0' + static_cast<int>(grain)));
  state::append_be64(key, start);
  return key;
}

std::string dedupe_key(std::string_view agent, int64_t bucket, uint64_t chunk) {
  std::string key = prefix_of('D', agent);
  state::append_be64(key, bucket);
  state::append_be64(key, static_cast<int64_t>(chunk));
  return key;
}

std::string encode_header(const AgentState& agent) { return state::Encoder().i(agent.clock).i(agent.horizon).take(); }

bool decode_header(std::string_view value, AgentState& agent) {
  state::Decoder in(value);
  agent.clock = in.i();
  agent.horizon = in.i();
  return in.ok() && in.at_end();
}

constexpr size_t kGroupSuffix = 1 + 8;
constexpr size_t kDedupeSuffix = 8 + 8;

bool load_group(std::string_view key, std::string_view value, AgentState& agent, Names& names) {
  const auto grain = static_cast<size_t>(key[key.size() - kGroupSuffix] - '0');
  if (grain > 2) return false;
  auto& panes = agent.panes.grain(static_cast<Grain>(grain));
  const size_t before = panes.size();
  if (!decode_group(value, panes, names)) return false;
  if (panes.size() == before) return false;
  const int64_t start = state::read_be64(key.substr(key.size() - 8));
  agent.panes.set_stored(static_cast<Grain>(grain), start, true);
  for (auto it = panes.lower_bound(start); it != panes.end(); ++it)
    it->second.digest = pane_digest(agent.id, static_cast<Grain>(grain), it->first, it->second, names);
  return true;
}

}  // namespace

size_t AgentState::approximate_bytes() const {
  size_t bytes_held = 400 + dedupe.bytes() + (day == nullptr ? 0 : day->bytes()) + panes.stored_groups() * 64;
  for (Grain g : kGrains)
    for (const auto& [start, pane] : panes.grain(g)) bytes_held += 220 + pane.cells.size() * sizeof(Cell);
  for (const auto& [start, pane] : panes.settled()) bytes_held += 220 + pane.cells.size() * sizeof(Cell);
  return bytes_held;
}

std::unique_ptr<AgentState> load_agent(const Rows& rows, std::string_view id, Names& names) {
  auto header = rows.get(header_key(id));
  if (!header) return nullptr;
  auto agent = std::make_unique<AgentState>(std::string(id));
  CHECK(decode_header(*header, *agent));
  agent->header_digest = state::Digest::of_row(header_key(id), *header);
  rows.scan(prefix_of('P', id), [&](std::string_view key, std::string_view value) {
    CHECK(load_group(key, value, *agent, names));
    return true;
  });
  rows.scan(prefix_of('D', id), [&](std::string_view key, std::string_view value) {
    if (planted(Bug::kDedupeLost)) return true;
    const std::string_view suffix = key.substr(key.size() - kDedupeSuffix);
    CHECK(agent->dedupe.load(id, state::read_be64(suffix), static_cast<uint64_t>(state::read_be64(suffix.substr(8))), value));
    return true;
  });
  agent->panes.restore_horizon(agent->horizon);
  if (planted(Bug::kHorizonLost)) agent->horizon = Panes::kNever;
  return agent;
}

Result<std::unique_ptr<AgentState>> read_agent(const state::Reader& reader, std::string_view id, Names& names) {
  TRY_ASSIGN(auto header, reader.get(header_key(id)));
  if (!header) return Error{Errc::kNotFound, "no agent " + std::string(id)};
  auto agent = std::make_unique<AgentState>(std::string(id));
  bool sound = decode_header(*header, *agent);
  TRY(reader.scan(prefix_of('P', id), [&](std::string_view key, std::string_view value) {
    sound = sound && load_group(key, value, *agent, names);
    return sound;
  }));
  if (!sound) return Error{Errc::kCorrupt, "reading the state of agent " + std::string(id) + ": a row cannot be decoded"};
  agent->panes.restore_horizon(agent->horizon);
  return agent;
}

Result<std::vector<std::string>> agent_ids(const state::Reader& reader) {
  std::vector<std::string> ids;
  TRY(reader.scan("A", [&](std::string_view key, std::string_view) {
    ids.emplace_back(key.substr(1));
    return true;
  }));
  return ids;
}

void flush_agent(AgentState& agent, Rows& rows, const Names& names) {
  state::Digest change;
  change -= agent.panes.take_removed();
  for (auto [grain, start] : agent.panes.take_touched()) {
    auto& panes = agent.panes.grain(grain);
    const int64_t end = start + group_ms(grain);
    for (auto it = panes.lower_bound(start); it != panes.end() && it->first < end; ++it) {
      Pane& pane = it->second;
      if (!pane.dirty) continue;
      change -= pane.digest;
      pane.digest = pane_digest(agent.id, grain, it->first, pane, names);
      change += pane.digest;
      pane.dirty = false;
    }
    std::string row = encode_group(panes, start, end, names);
    const bool holds = !row.empty();
    // Most groups of a large commit come and go within it: the store has never heard of them.
    const bool stored = agent.panes.set_stored(grain, start, holds);
    if (holds)
      rows.put_known(group_key(agent.id, grain, start), std::move(row), {});
    else if (stored)
      rows.erase_known(group_key(agent.id, grain, start), {});
  }
  for (Dedupe::Row& row : agent.dedupe.take_rows()) {
    if (row.value.empty())
      rows.erase_known(dedupe_key(agent.id, row.bucket, row.chunk), {});
    else
      rows.put_known(dedupe_key(agent.id, row.bucket, row.chunk), std::move(row.value), {});
  }
  change += agent.dedupe.take_change();
  std::string header = encode_header(agent);
  change -= agent.header_digest;
  agent.header_digest = state::Digest::of_row(header_key(agent.id), header);
  change += agent.header_digest;
  rows.put_known(header_key(agent.id), std::move(header), change);
  agent.dirty = false;
}

state::Digest scoring_row_digest(std::string_view key, std::string_view value) {
  state::Digest digest;
  if (key.starts_with('P') && key.size() > 2 + kGroupSuffix) {
    Names names;
    AgentState agent(std::string(key.substr(1, key.size() - 2 - kGroupSuffix)));
    if (!load_group(key, value, agent, names)) return state::Digest::of_row(key, value);
    for (Grain g : kGrains)
      for (const auto& [start, pane] : agent.panes.grain(g)) digest += pane.digest;
  } else if (key.starts_with('D') && key.size() > 2 + kDedupeSuffix) {
    const std::string_view agent = key.substr(1, key.size() - 2 - kDedupeSuffix);
    std::vector<Dedupe::Entry> entries;
    if (!Dedupe::decode(state::read_be64(key.substr(key.size() - kDedupeSuffix)), value, entries))
      return state::Digest::of_row(key, value);
    for (const Dedupe::Entry& entry : entries) digest += Dedupe::entry_digest(agent, entry);
  } else {
    digest = state::Digest::of_row(key, value);
  }
  return digest;
}

}  // namespace assay::processors
