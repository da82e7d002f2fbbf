#include "streams/sim_broker.h"

#include <algorithm>

namespace assay::streams {

int64_t SimPartition::stable() const {
  int64_t at = end();
  for (const auto& [producer, run] : ongoing) at = std::min(at, runs[static_cast<size_t>(run)].first);
  return at;
}

Result<SimTopic*> SimBroker::topic(const std::string& name) {
  auto it = topics.find(name);
  if (it == topics.end()) return Error{Errc::kNotFound, "no topic " + name + " in the simulated log"};
  return &it->second;
}

Result<SimPartition*> SimBroker::partition(const TopicPartition& tp) {
  TRY_ASSIGN(SimTopic * found, topic(tp.topic));
  if (tp.partition < 0 || tp.partition >= found->config.partitions)
    return Error{Errc::kNotFound, "no partition " + to_string(tp) + " in the simulated log"};
  return &found->partitions[static_cast<size_t>(tp.partition)];
}

std::optional<int32_t> SimBroker::init(const std::string& id) {
  SimWriter& writer = writers[id];
  if (writer.producer == 0) writer.producer = ++producers_;
  if (writer.open) {  // the older owner's: fenced now, aborted now
    ++writer.epoch;
    end(id, false);
  }
  if (writer.markers_due > 0) return std::nullopt;
  return ++writer.epoch;
}

Result<void> SimBroker::check(const std::string& id, int32_t epoch, const std::string& attempt) {
  const int32_t now = writers[id].epoch;
  if (now == epoch) return {};
  return Error{Errc::kFenced, attempt + " of writer " + id + " with epoch " + std::to_string(epoch) +
                                  " in the simulated log: a newer writer has epoch " + std::to_string(now)};
}

void SimBroker::begin(const std::string& id, SimWriter& writer) {
  if (writer.open) return;
  writer.open = true;
  ++writer.number;
  clock.at(clock.uptime() + options.transaction_timeout, [this, id, number = writer.number] {
    std::lock_guard lock(mutex);
    SimWriter& late = writers[id];
    if (!late.open || late.number != number) return;
    ++late.epoch;
    end(id, false);
  });
}

std::optional<int64_t> SimBroker::append(const std::string& id, SimPartition& to, OutRecord record) {
  SimWriter& writer = writers[id];
  if (writer.markers_due > 0) return std::nullopt;
  begin(id, writer);
  writer.partitions.insert(&to);
  auto [run, fresh] = to.ongoing.try_emplace(writer.producer, static_cast<int32_t>(to.runs.size()));
  if (fresh) to.runs.push_back({SimRun::Fate::kOpen, to.end()});
  record.to = to.tp;
  records_.push_back(std::move(record));
  to.entries.push_back({&records_.back(), run->second});
  return to.end() - 1;
}

void SimBroker::append(SimPartition& to, OutRecord record) {
  record.to = to.tp;
  records_.push_back(std::move(record));
  to.entries.push_back({&records_.back(), -1});
  clock.news(&to);
}

void SimBroker::add_offsets(const std::string& id, const OffsetCommit& commit, const std::string& metadata) {
  SimWriter& writer = writers[id];
  begin(id, writer);
  writer.groups.insert(commit.group);
  auto& pending = groups[commit.group].pending[writer.producer];
  for (const auto& [tp, offset] : commit.offsets) pending.push_back({tp, {offset, metadata}});
}

void SimBroker::after(const TopicPartition& where, std::function<void()> action) {
  const Milliseconds delay = options.marker_delay ? options.marker_delay(where) : Milliseconds(0);
  if (delay.count() == 0) return action();
  clock.at(clock.uptime() + delay, [this, action = std::move(action)] {
    std::lock_guard lock(mutex);
    action();
  });
}

void SimBroker::end(const std::string& id, bool commit) {
  SimWriter& writer = writers[id];
  if (!writer.open) return;
  writer.open = false;
  writer.markers_due += writer.partitions.size() + writer.groups.size();  // of what was torn off before some may be due yet
  const int64_t producer = writer.producer;
  for (SimPartition* to : std::exchange(writer.partitions, {}))
    after(to->tp, [this, &writer, to, producer, commit] {
      show(*to, producer, commit);
      marker_shown(writer);
    });
  static const TopicPartition kOffsets{"__offsets", 0};
  for (const std::string& name : std::exchange(writer.groups, {}))
    after(kOffsets, [this, &writer, group = &groups[name], producer, commit] {
      show(*group, producer, commit);
      marker_shown(writer);
    });
}

void SimBroker::marker_shown(SimWriter& writer) {
  if (--writer.markers_due == 0) clock.news(&writer);
}

void SimBroker::end_late(const std::string& id, int32_t epoch, int64_t number, bool commit) {
  SimWriter& writer = writers[id];
  if (writer.epoch != epoch || !writer.open) return;
  if (writer.number != number && options.torn) options.torn(id, commit);
  end(id, commit);
}

void SimBroker::show(SimPartition& in, int64_t producer, bool commit) {
  auto run = in.ongoing.find(producer);
  if (run != in.ongoing.end()) {  // truncation may have taken it
    in.runs[static_cast<size_t>(run->second)].fate = commit ? SimRun::Fate::kCommitted : SimRun::Fate::kAborted;
    in.ongoing.erase(run);
  }
  in.entries.push_back({});
  clock.news(&in);
}

void SimBroker::show(SimGroup& in, int64_t producer, bool commit) {
  auto pending = in.pending.find(producer);
  if (pending == in.pending.end()) return;
  if (commit)
    for (SimGroup::Pending& one : pending->second) in.offsets[one.tp] = std::move(one.commit);
  in.pending.erase(pending);
  clock.news(&in);
}

bool SimBroker::undecided(const SimGroup& group, std::span<const TopicPartition> of) const {
  for (const auto& [producer, pending] : group.pending)
    for (const SimGroup::Pending& one : pending)
      if (std::ranges::find(of, one.tp) != of.end()) return true;
  return false;
}

std::string SimBroker::join(SimGroup& group, const SimHost& host, const std::vector<std::string>& names,
                            const std::string& instance) {
  const std::string id = (instance.empty() ? "member" : instance) + "-" + std::to_string(++members_);
  SimMember member{instance, &host, names, true, {}};
  auto old = std::ranges::find_if(group.members, [&](const auto& m) { return !instance.empty() && m.second.instance == instance; });
  if (old != group.members.end()) {  // the same member again: it takes over what it had, and nobody else moves
    member.assigned = std::move(old->second.assigned);
    group.members.erase(old);
    group.members.emplace(id, std::move(member));
    if (group.rebalancing) finish_rebalance(group);
    clock.news(&group);
  } else {
    group.members.emplace(id, std::move(member));
    rebalance(group, id);
  }
  return id;
}

void SimBroker::rebalance(SimGroup& group, const std::string& newcomer) {
  if (group.members.empty()) return;
  if (!group.rebalancing) {
    group.rebalancing = true;
    for (auto& [id, member] : group.members) member.joined = id == newcomer;
    clock.at(clock.uptime() + options.rebalance_timeout, [this, &group, round = ++group.round] {
      std::lock_guard lock(mutex);
      if (!group.rebalancing || group.round != round) return;
      std::erase_if(group.members, [](const auto& m) { return !m.second.joined; });
      finish_rebalance(group);
    });
  }
  finish_rebalance(group);
  clock.news(&group);
}

void SimBroker::finish_rebalance(SimGroup& group) {
  for (const auto& [id, member] : group.members)
    if (!member.joined) return;
  group.rebalancing = false;
  ++group.generation;
  std::set<std::string> names;
  for (auto& [id, member] : group.members) {
    member.assigned.clear();
    names.insert(member.topics.begin(), member.topics.end());
  }
  for (const std::string& name : names) {  // the range assignor: members in order, each a run of partitions
    std::vector<SimMember*> takers;
    for (auto& [id, member] : group.members)
      if (std::ranges::find(member.topics, name) != member.topics.end()) takers.push_back(&member);
    auto known = topics.find(name);
    if (known == topics.end()) continue;
    const auto count = static_cast<size_t>(known->second.config.partitions);
    for (size_t p = 0, taker = 0; taker < takers.size(); ++taker) {
      const size_t share = count / takers.size() + (taker < count % takers.size() ? 1 : 0);
      for (size_t i = 0; i < share; ++i) takers[taker]->assigned.push_back({name, static_cast<int32_t>(p++)});
    }
  }
  clock.news(&group);
}

void SimBroker::give_back(SimGroup& group, const std::string& member) {
  auto it = group.members.find(member);
  if (it == group.members.end() || !group.rebalancing) return;
  it->second.joined = true;
  finish_rebalance(group);
}

void SimBroker::leave(SimGroup& group, const std::string& member) {
  if (group.members.erase(member) > 0) rebalance(group, {});
}

void SimBroker::expire(const SimHost& host) {
  for (auto& [name, group] : groups)
    if (std::erase_if(group.members, [&](const auto& m) { return m.second.host == &host; }) > 0) rebalance(group, {});
}

void SimBroker::truncate(SimPartition& from, int64_t at) {
  at = std::max(at, from.start);
  if (at >= from.end()) return;
  from.entries.resize(static_cast<size_t>(at));
  std::erase_if(from.ongoing, [&](const auto& run) { return from.runs[static_cast<size_t>(run.second)].first >= at; });
  clock.news(&from);
}

}  // namespace assay::streams
