// The simulated log: in memory, with transactions, groups and fencing as a broker has them, and hooks by which a seed decides
// what goes wrong. Without a seed it is a plain log and passes the conformance suite.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <string>

#include "streams/log.h"

namespace assay::streams {

class SimBroker;

/// Time as the broker sees it.
class SimClock {
 public:
  virtual ~SimClock() = default;
  virtual Milliseconds uptime() = 0;
  /// Waits, the lock given up, until then or until there is news about one of these.
  virtual void wait(std::unique_lock<std::mutex>& lock, Milliseconds until, std::span<const void* const> about) = 0;
  virtual void news(const void* about) = 0;
  /// Runs the action at that time. It takes the broker's lock itself.
  virtual void at(Milliseconds when, std::function<void()> action) = 0;
};

/// The machine's clock, for tests with threads. Actions run on whichever thread waits next.
std::unique_ptr<SimClock> machine_sim_clock();

enum class SimRequest : uint8_t { kMetadata, kFetch, kInitWriter, kWrite, kTxnOffsets, kEndTxn, kCommitted, kProduce, kGroup };

/// The process behind a client of the log, and its network. The defaults are a process that lives for ever on a perfect one.
class SimHost {
 public:
  virtual ~SimHost() = default;
  /// A dead process' clients do nothing any more.
  virtual bool alive() const { return true; }
  /// The way of a request: waits as long as it takes. False: it never arrives. Called without locks.
  virtual bool there(SimRequest) { return true; }
  /// The way of its answer back. False: the answer is lost.
  virtual bool back(SimRequest) { return true; }
  /// Asked for each EndTxn: how much later a copy of it arrives, if one does (KAFKA-17754); 0: in the midst of the next transaction
  /// that this writer begins. `noticed`: the client knows that a request of it may still be under way.
  virtual std::optional<Milliseconds> end_again(bool noticed) {
    (void)noticed;
    return std::nullopt;
  }
  /// How many of so many partitions are passed over before the next that has something to read.
  virtual size_t pass_over(size_t partitions) {
    (void)partitions;
    return 0;
  }
};

struct SimLogOptions {
  // Behaviour.
  Milliseconds session_timeout{10000};      // of a static member that went away and does not come back
  Milliseconds rebalance_timeout{30000};    // members that have not given back their partitions by then are put out
  Milliseconds transaction_timeout{10000};  // open transactions are aborted then, and their writers fenced
  /// How much later than its decision a transaction shows on a partition (a commit marker's way); empty: at once.
  /// The partition of a group's offsets is {"__offsets", 0}.
  std::function<Milliseconds(const TopicPartition&)> marker_delay;
  /// Told when a copy of an EndTxn ended a transaction that it was not sent for.
  std::function<void(const std::string& transactional_id, bool commit)> torn;
};

/// The servers of a simulated log; they outlive the processes that use them.
class SimCluster {
 public:
  SimCluster(SimClock& clock, SimLogOptions options);
  ~SimCluster();

  /// The log as that process sees it. Requires: the cluster and the host outlive it.
  std::unique_ptr<Log> client(SimHost& host);

  /// The group's servers have not heard of the process for too long: its members are put out.
  void expire(const SimHost& host);
  /// Unclean leader election: what lies from there on is lost. Committed or not does not matter.
  void truncate(const TopicPartition& tp, Offset from);
  /// Place after the last record, decided or not.
  Offset written(const TopicPartition& tp);
  /// Brings back what delete_before() took, for a referee who knows all that was ever sent.
  void undelete(const TopicPartition& tp);

 private:
  std::unique_ptr<SimBroker> broker_;
};

}  // namespace assay::streams
