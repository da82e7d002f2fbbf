// The running pipeline of one process: group membership, one thread per task, and what outsiders may ask of it.
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
#include "streams/standby.h"
#include "streams/task.h"
#include "streams/topology.h"

namespace assay::streams {

/// The audit projector as the pipeline sees it: something that runs while this process owns the partition of audit-events.
struct Projection {
  std::function<Result<void>(const Membership* member, const std::atomic<bool>& stop)> run;
  std::function<Offset()> position;      // everything before it is stored; negative: not known yet
  std::function<std::string()> trouble;  // why it waits and tries again; empty: it does not
  std::function<bool()> held = {};       // whether somebody wants it to wait where it is
};

struct PipelineOptions {
  TopicNames names;
  std::set<std::string> only;       // behaviour: processors to run ("audit" is the projector); empty: all
  std::string instance_id;          // behaviour: static membership under this name; empty: dynamic
  bool until_end = false;           // behaviour: ends when everything is folded and committed
  Milliseconds patience{60000};     // behaviour: with until_end, a log that gives no answer for so long is an error
  std::function<void()> gave_up;    // told of that before its threads are joined, which wait for answers themselves
  int standbys = 0;                 // behaviour: processes that keep a copy of a task's store beside its owner; none with until_end
  Milliseconds standby_look{1000};  // behaviour: between two looks at who has to keep which
  TaskOptions task;
  processors::ScoringOptions scoring;
  Milliseconds retry_min{200}, retry_max{10000};
};

enum class TaskState : uint8_t { kStarting, kRunning, kRetrying, kFenced, kHalted, kStopped };
std::string_view task_state_name(TaskState state);

struct TaskView {
  std::string name;
  TaskState state = TaskState::kStarting;
  std::string detail;  // of a halt or of the last error
  std::shared_ptr<state::Store> store;
  int64_t sequence = 0;                      // of the last commit that this process made of it; 0: none yet
  size_t staged_bytes = 0, cache_bytes = 0;  // that this commit held, and that its processor goes on holding
};

/// A processor's place in its group.
struct MemberView {
  std::string processor;
  bool joined = false;  // assigned its partitions, which may be none, and in touch with the group
};

class Pipeline {
 public:
  Pipeline(Log& log, PipelineOptions options, StoreFactory stores, std::optional<Projection> projection, Metrics& metrics,
           Runtime& runtime = machine_runtime());
  ~Pipeline();

  /// Runs until `stop`, or, with until_end, until all is done. Returns after every task has committed and stopped.
  /// Errors: with until_end, the first halt (kIncomplete) or failure, and kUnreachable when the log stays away.
  Result<void> run(const std::atomic<bool>& stop);

  /// Tasks owned by this process, by name.
  std::vector<TaskView> tasks() const;
  std::vector<MemberView> members() const;
  /// Copies of other processes' stores that are kept here. They answer no question.
  std::vector<StandbyView> standbys() const { return standbys_.view(); }
  /// All processors are members of their groups and all their tasks run: none starts, waits to try again, or is halted.
  bool ready() const;
  /// Records of this run's inputs that are not committed yet, by offsets (markers included): for progress bars.
  Result<int64_t> offsets_behind();

 private:
  struct Running;
  struct Driver;

  void drive(Driver& driver, const std::atomic<bool>& stop);
  Result<void> be_member(Driver& driver, const std::atomic<bool>& stop);
  void start_task(Driver& driver, int32_t partition);
  void stop_tasks(Driver& driver, const std::vector<int32_t>& partitions);
  void stop_all(Driver& driver);
  void run_task(Running& running);
  void run_projection(Running& running);
  bool still_ours(const Running& running);
  void wait_until_ours(Running& running, Milliseconds& pause);
  void set_state(Running& running, TaskState state, std::string detail);
  TaskEvents events(Running& running);
  void touch_series(const TaskSpec& spec);
  std::unique_ptr<LogWriter> take_over(Running& running);
  Result<void> open_store(Running& running);
  Result<bool> caught_up();
  Result<void> check_reachable(Milliseconds& asked, Milliseconds& answered);
  void sleep_until(const std::atomic<bool>& stop, Milliseconds time);
  TaskView view(const Running& running) const;  // Requires: mutex_
  bool wants(std::string_view processor) const { return options_.only.empty() || options_.only.contains(std::string(processor)); }

  Log& log_;
  PipelineOptions options_;
  StoreFactory stores_;
  std::optional<Projection> projection_;
  Metrics& metrics_;
  Runtime& runtime_;
  std::vector<ProcessorPlan> plans_;
  Standbys standbys_;
  std::vector<std::unique_ptr<Driver>> drivers_;
  mutable std::mutex mutex_;  // guards the maps of running tasks and their states
  std::atomic<bool> failed_{false};
  Error failure_;  // under mutex_
};

}  // namespace assay::streams
