// What the servers of the simulated log remember, and how requests change it. Private to the simulated log.
#pragma once

#include <deque>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "streams/sim_log.h"

namespace assay::streams {

/// Records of one writer in one partition between two markers: they show together or not at all.
struct SimRun {
  enum class Fate : uint8_t { kOpen, kCommitted, kAborted } fate = Fate::kOpen;
  int64_t first = 0;
};

struct SimEntry {
  const OutRecord* record = nullptr;  // nullptr: a marker, which takes an offset and is never delivered
  int32_t run = -1;                   // index into the partition's runs; -1: outside transactions
};

struct SimPartition {
  TopicPartition tp;
  int64_t start = 0;
  std::vector<SimEntry> entries;  // by offset, from 0
  std::vector<SimRun> runs;
  std::map<int64_t, int32_t> ongoing;  // producer -> its open run

  struct ByName {  // no order of addresses: a run must be the same each time
    bool operator()(const SimPartition* a, const SimPartition* b) const { return a->tp < b->tp; }
  };
  int64_t end() const { return static_cast<int64_t>(entries.size()); }
  int64_t stable() const;  // last stable offset
  bool shows(const SimEntry& entry) const {
    return entry.record != nullptr && (entry.run < 0 || runs[static_cast<size_t>(entry.run)].fate == SimRun::Fate::kCommitted);
  }
};

struct SimTopic {
  TopicConfig config;
  std::deque<SimPartition> partitions;
  int32_t turn = 0;  // of records without key
};

/// A member of a group as its coordinator knows it.
struct SimMember {
  std::string instance;
  const SimHost* host = nullptr;
  std::vector<std::string> topics;
  bool joined = false;  // in the round that is under way
  std::vector<TopicPartition> assigned;
};

struct SimGroup {
  std::map<std::string, SimMember> members;
  int64_t generation = 0;
  int64_t round = 0;         // of rebalances begun
  bool rebalancing = false;  // members are to give back what they have and join again
  std::map<TopicPartition, CommittedOffset> offsets;
  struct Pending {
    TopicPartition tp;
    CommittedOffset commit;
  };
  std::map<int64_t, std::vector<Pending>> pending;  // producer -> offsets of its transaction, not decided or not shown yet
};

/// A transactional id as its coordinator knows it.
struct SimWriter {
  int64_t producer = 0;
  int32_t epoch = -1;
  int64_t number = 0;  // of the transaction that is open or was the last
  bool open = false;
  size_t markers_due = 0;  // of transactions that are decided
  std::set<SimPartition*, SimPartition::ByName> partitions;
  std::set<std::string> groups;
};

/// Requests that cannot be answered yet return nothing: wait for news (of the partition, the group or the writer) and ask again.
/// All require the mutex.
class SimBroker {
 public:
  SimBroker(SimClock& clock_in, SimLogOptions options_in) : clock(clock_in), options(std::move(options_in)) {}

  Result<SimTopic*> topic(const std::string& name);
  Result<SimPartition*> partition(const TopicPartition& tp);

  /// The next epoch of the id, once what its older owner left is decided and shown everywhere.
  std::optional<int32_t> init(const std::string& id);
  /// Errors: kFenced.
  Result<void> check(const std::string& id, int32_t epoch, const std::string& attempt);
  /// Appends to the open transaction of the id, which begins one. Nothing: the one before is not shown everywhere yet.
  std::optional<int64_t> append(const std::string& id, SimPartition& to, OutRecord record);
  void append(SimPartition& to, OutRecord record);
  bool busy(const std::string& id) { return writers[id].markers_due > 0; }
  void add_offsets(const std::string& id, const OffsetCommit& commit, const std::string& metadata);
  /// Ends the open transaction of the id, if there is one.
  void end(const std::string& id, bool commit);
  /// A copy of an EndTxn that was sent for transaction `number`.
  void end_late(const std::string& id, int32_t epoch, int64_t number, bool commit);

  std::string join(SimGroup& group, const SimHost& host, const std::vector<std::string>& topics, const std::string& instance);
  void give_back(SimGroup& group, const std::string& member);  // and join the round
  void leave(SimGroup& group, const std::string& member);
  bool undecided(const SimGroup& group, std::span<const TopicPartition> of) const;
  void expire(const SimHost& host);
  void truncate(SimPartition& from, int64_t at);

  std::mutex mutex;
  SimClock& clock;
  const SimLogOptions options;
  std::map<std::string, SimTopic> topics;
  std::map<std::string, SimWriter> writers;
  std::map<std::string, SimGroup> groups;

 private:
  void begin(const std::string& id, SimWriter& writer);
  void show(SimPartition& in, int64_t producer, bool commit);
  void show(SimGroup& in, int64_t producer, bool commit);
  void after(const TopicPartition& where, std::function<void()> action);  // a marker's way
  void marker_shown(SimWriter& writer);
  void rebalance(SimGroup& group, const std::string& newcomer);
  void finish_rebalance(SimGroup& group);

  std::deque<OutRecord> records_;  // never freed: fetches point at them
  int64_t producers_ = 0;
  int64_t members_ = 0;
};

}  // namespace assay::streams
