// Warm copies of the stores of tasks that other processes own, so that a takeover finds a store that is a few commits old at most.
#pragma once

#include <atomic>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "streams/metrics.h"
#include "streams/runtime.h"
#include "streams/task.h"
#include "streams/topology.h"

namespace assay::streams {

/// Opens the store of a task; production gives RocksDB, tests may give memory.
using StoreFactory = std::function<Result<std::shared_ptr<state::Store>>(const std::string& task)>;

/// Ids of the members that keep a partition's store warm: the one that the range assignor would give the partition to if its
/// owner left, then the one after that, up to `count`. Every process comes to the same from the same view, so that none has to
/// say so. Nothing while the group changes or nobody owns the partition. Pure.
std::vector<std::string> standbys_of(const GroupView& view, int32_t partition, int32_t partitions, int count);

struct StandbyOptions {
  int count = 0;            // behaviour: copies of each task beside its owner's; 0: none
  Milliseconds look{1000};  // behaviour: between two looks at the groups
  TaskOptions task;
  Milliseconds retry_min{200}, retry_max{10000};
};

struct StandbyView {
  std::string task;
  int64_t sequence = 0;   // of the manifest that the copy stands at
  int64_t committed = 0;  // of the last one when it looked
  std::string trouble;    // why it cannot follow; empty: it can
};

class Standbys {
 public:
  Standbys(Log& log, TopicNames names, const std::vector<ProcessorPlan>& plans, StoreFactory stores, StandbyOptions options,
           Metrics& metrics, Runtime& runtime);
  ~Standbys();

  /// A copy on its way to the task that takes over.
  class Follower;
  /// Follows what the groups' members make this process follow, until `stop`.
  void run(const std::atomic<bool>& stop);

  /// This process is the member of that id in the group of the processor; none: it is no member.
  void be_member(const std::string& processor, const std::string& id);
  /// The task is run by this process from now on, and followed no more. Gives its follower, which is about to end.
  std::unique_ptr<Follower> take(const std::string& task);
  /// The task is not run here any more, and its store is closed.
  void give_back(const std::string& task);

  std::vector<StandbyView> view() const;

 private:
  void look(const ProcessorPlan& plan);
  std::set<int32_t> wanted(const ProcessorPlan& plan, const GroupView& view, const std::string& id) const;
  void start(const TaskSpec& spec);
  void end(std::vector<std::unique_ptr<Follower>> followers);
  void follow(Follower& follower);
  TaskEvents events(Follower& follower);
  void export_lag();

  Log& log_;
  TopicNames names_;
  const std::vector<ProcessorPlan>& plans_;
  StoreFactory stores_;
  StandbyOptions options_;
  Metrics& metrics_;
  Runtime& runtime_;
  mutable std::mutex mutex_;                                    // guards what follows, and what followers say of themselves
  std::map<std::string, std::string> ids_;                      // by processor
  std::set<std::string> taken_;                                 // tasks that this process runs
  std::string opening_;                                         // task whose store is being opened
  std::map<std::string, std::unique_ptr<Follower>> followers_;  // by task
};

/// Thread and store of one copy.
class Standbys::Follower {
 public:
  /// Waits until the copy is at rest and gives its store, which nobody else uses any more; nothing when it could not be written.
  std::shared_ptr<state::Store> close();

 private:
  friend class Standbys;
  TaskSpec spec_;
  std::shared_ptr<state::Store> store_;
  std::atomic<bool> stop_{false};
  std::atomic<bool> store_failed_{false};
  std::unique_ptr<Runtime::Thread> thread_;
  StandbyView view_;
};

}  // namespace assay::streams
