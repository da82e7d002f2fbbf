#include "streams/pipeline.h"

#include <algorithm>
#include <utility>

#include "streams/decision_metrics.h"
#include "streams/logging.h"

namespace assay::streams {
namespace {

constexpr Milliseconds kProgressEvery{5000};

/// The word before the first ": " of a named halt, or nothing.
std::string_view halt_name(const Error& error) {
  const std::string_view message = error.message;
  const size_t colon = message.find(':');
  if (error.code == Errc::kOutOfRange) return "INPUT_GAP";
  if (error.code != Errc::kIncomplete || colon == std::string_view::npos) return {};
  const std::string_view word = message.substr(0, colon);
  return std::all_of(word.begin(), word.end(), [](char c) { return (c >= 'A' && c <= 'Z') || c == '_'; }) ? word
                                                                                                          : std::string_view();
}

std::string_view error_word(Errc code) {
  switch (code) {
    case Errc::kUnreachable:
      return "unreachable";
    case Errc::kCorrupt:
      return "corrupt";
    case Errc::kTooLarge:
      return "too_large";
    case Errc::kAborted:
      return "aborted";
    case Errc::kAmbiguous:
      return "ambiguous";
    case Errc::kRefused:
      return "refused";
    default:
      return "other";
  }
}

}  // namespace

std::string_view task_state_name(TaskState state) {
  switch (state) {
    case TaskState::kStarting:
      return "starting";
    case TaskState::kRunning:
      return "running";
    case TaskState::kRetrying:
      return "retrying";
    case TaskState::kFenced:
      return "fenced";
    case TaskState::kHalted:
      return "halted";
    case TaskState::kStopped:
      return "stopped";
  }
  return "unknown";
}

struct Pipeline::Running {
  const Driver* driver = nullptr;
  int32_t partition = 0;
  TaskSpec spec;
  std::unique_ptr<Standbys::Follower> follower;  // that kept its store until now
  std::shared_ptr<state::Store> store;
  std::atomic<bool> stop{false};
  std::atomic<bool> store_failed{false};  // it is opened again before it is used again
  std::unique_ptr<Runtime::Thread> thread;
  TaskState state = TaskState::kStarting;  // under mutex_
  std::string detail;                      // under mutex_
  std::string halt;                        // under mutex_; name of the halt it stands at
  int64_t sequence = 0;                    // under mutex_; of its last commit, as the next two
  size_t staged_bytes = 0, cache_bytes = 0;
};

/// One processor's share in this process.
struct Pipeline::Driver {
  const ProcessorPlan* plan = nullptr;  // nullptr: the audit projector
  std::string name;
  std::string group;
  std::vector<std::string> topics;
  std::unique_ptr<Membership> member;
  std::map<int32_t, std::unique_ptr<Running>> running;  // by partition; under mutex_ for the map itself
  std::unique_ptr<Runtime::Thread> thread;
  std::atomic<bool> joined{false};
};

Pipeline::Pipeline(Log& log, PipelineOptions options, StoreFactory stores, std::optional<Projection> projection, Metrics& metrics,
                   Runtime& runtime)
    : log_(log),
      options_(std::move(options)),
      stores_(std::move(stores)),
      projection_(std::move(projection)),
      metrics_(metrics),
      runtime_(runtime),
      plans_(topology(options_.names, options_.scoring)),
      standbys_(log, options_.names, plans_, stores_,
                {.count = options_.until_end ? 0 : options_.standbys,
                 .look = options_.standby_look,
                 .task = options_.task,
                 .retry_min = options_.retry_min,
                 .retry_max = options_.retry_max},
                metrics, runtime) {
  for (const ProcessorPlan& plan : plans_) {
    if (!wants(plan.name)) continue;
    auto driver = std::make_unique<Driver>();
    driver->plan = &plan;
    driver->name = plan.name;
    driver->group = plan.group;
    driver->topics = plan.topics;
    drivers_.push_back(std::move(driver));
  }
  if (projection_ && wants("audit")) {
    auto driver = std::make_unique<Driver>();
    driver->name = "audit";
    driver->group = audit_group(options_.names);
    driver->topics = {options_.names.full(Topic::kAudit)};
    drivers_.push_back(std::move(driver));
  }
}

Pipeline::~Pipeline() = default;

/// Series that a first failure must be seen on as a step.
void Pipeline::touch_series(const TaskSpec& spec) {
  for (Metric counter : {Metric::kCommits, Metric::kDelivered, Metric::kCommitsAborted, Metric::kCommitsAmbiguous, Metric::kFenced,
                         Metric::kCatchUpRecords, Metric::kStoreWriteFailures, Metric::kCheckpointFailures, Metric::kToldOtherwise})
    metrics_.touch(counter, {spec.name});
  for (const char* from : {"checkpoint", "nothing"}) metrics_.touch(Metric::kRestores, {spec.name, from});
  for (Recovery r = Recovery::kStateAhead; r <= Recovery::kTopologyChanged; r = static_cast<Recovery>(static_cast<uint8_t>(r) + 1))
    metrics_.touch(Metric::kHalts, {spec.name, recovery_name(r)});
  for (size_t r = 0; r < kReasonCount; ++r) {
    const auto reason = static_cast<Reason>(r);
    if (is_filtered(reason))
      metrics_.touch(Metric::kFiltered, {spec.name, reason_code(reason)});
    else
      metrics_.touch(Metric::kDeadLetters, {topic_spec(spec.inputs.front().first).name, reason_code(reason)});
  }
  if (spec.processor == "scoring")
    for (const char* outcome : {"accepted", "filtered", "dead_letter"}) metrics_.touch(Metric::kSubmissions, {outcome});
}

TaskEvents Pipeline::events(Running& running) {
  TaskEvents e;
  auto decisions = std::make_shared<DecisionMetrics>(options_.names.prefix(), running.spec.processor == "allocation");
  e.running = [this, &running](const TaskSpec&) { set_state(running, TaskState::kRunning, {}); };
  e.refolded = [this, &running, told = runtime_.uptime()](const TaskSpec& spec, const Manifest& manifest, int64_t last) mutable {
    metrics_.add(Metric::kCatchUpRecords, static_cast<double>(manifest.delivered), {spec.name});
    set_state(running, TaskState::kStarting,
              "catching up: manifest " + std::to_string(manifest.sequence) + " of " + std::to_string(last));
    if (runtime_.uptime() - told < kProgressEvery) return;
    told = runtime_.uptime();
    log_info("task.catching_up", {{"task", spec.name}, {"sequence", manifest.sequence}, {"last", last}});
  };
  e.restored = [this](const TaskSpec& spec, const RestoreReport& report) {
    metrics_.increment(Metric::kRestores, {spec.name, report.sequence > 0 ? "checkpoint" : "nothing"});
    log_warning("store.replaced", {{"task", spec.name},
                                   {"sequence", report.sequence},
                                   {"put_aside", report.put_aside},
                                   {"detail", report.why},
                                   {"took_ms", report.took.count()}});
  };
  e.checkpointed = [this](const TaskSpec& spec, const CheckpointReport& report) {
    metrics_.set(Metric::kCheckpointInstant, static_cast<double>(report.instant.value) / 1000, {spec.name});
    metrics_.set(Metric::kCheckpointSize, static_cast<double>(report.size_bytes), {spec.name});
    log_info("checkpoint.committed", {{"task", spec.name},
                                      {"sequence", report.sequence},
                                      {"size_bytes", static_cast<int64_t>(report.size_bytes)},
                                      {"took_ms", report.took.count()}});
  };
  e.checkpoint_failed = [this](const TaskSpec& spec, const Error& error) {
    metrics_.increment(Metric::kCheckpointFailures, {spec.name});
    log_warning("checkpoint.failed", {{"task", spec.name}, {"detail", error.message}});
  };
  // Scoring decides nothing, and its outputs are many.
  if (running.spec.processor != "scoring")
    e.staged = [decisions](const TaskSpec&, std::span<const OutRecord> records) { decisions->stage(records); };
  e.store_failed = [this, &running](const TaskSpec& spec, const Error& error) {
    running.store_failed = true;
    metrics_.increment(Metric::kStoreWriteFailures, {spec.name});
    log_error("store.failed", "store_write_failures", {{"task", spec.name}, {"detail", error.message}});
  };
  e.recovered = [this](const TaskSpec& spec, Recovery outcome, const std::string& detail) {
    if (is_halt(outcome)) return;  // told where the run ends
    log_info("task.recovered", {{"task", spec.name}, {"outcome", recovery_name(outcome)}, {"detail", detail}});
  };
  e.committed = [this, decisions, &running](const TaskSpec& spec, const CommitReport& report) {
    {
      std::lock_guard lock(mutex_);
      running.sequence = report.manifest.sequence;
      running.staged_bytes = report.staged_bytes;
      running.cache_bytes = report.cache_bytes;
    }
    const processors::Tally& part = report.part;
    std::optional<double> waited_seconds;
    const WallTime now = runtime_.now();
    auto seconds_since = [now](WallTime then) { return static_cast<double>(std::max<int64_t>(0, now - then)) / 1000; };
    if (!report.inputs.empty()) waited_seconds = seconds_since(*std::min_element(report.inputs.begin(), report.inputs.end()));
    decisions->count(metrics_, waited_seconds);
    metrics_.increment(Metric::kCommits, {spec.name});
    metrics_.observe(Metric::kCommitLatency, static_cast<double>(report.took.count()) / 1000, {spec.processor});
    metrics_.add(Metric::kDelivered, static_cast<double>(part.delivered), {spec.name});
    if (spec.processor == "scoring") {
      uint64_t filtered = 0, dead = 0;
      for (size_t r = 0; r < kReasonCount; ++r) (is_filtered(static_cast<Reason>(r)) ? filtered : dead) += part.refused[r];
      std::vector<double> waited;
      waited.reserve(report.inputs.size());
      for (WallTime then : report.inputs) waited.push_back(seconds_since(then));
      metrics_.observe_all(Metric::kSubmissionLatency, waited);
      metrics_.add(Metric::kSubmissions, static_cast<double>(part.accepted), {"accepted"});
      metrics_.add(Metric::kSubmissions, static_cast<double>(filtered), {"filtered"});
      metrics_.add(Metric::kSubmissions, static_cast<double>(dead), {"dead_letter"});
      metrics_.add(Metric::kUnknownFields, static_cast<double>(part.unknown_fields), {spec.name});
    }
    for (size_t r = 0; r < kReasonCount; ++r) {
      if (part.refused[r] == 0) continue;
      const auto reason = static_cast<Reason>(r);
      const auto count = static_cast<double>(part.refused[r]);
      if (is_filtered(reason))
        metrics_.add(Metric::kFiltered, count, {spec.name, reason_code(reason)});
      else
        metrics_.add(Metric::kDeadLetters, count, {topic_spec(spec.inputs.front().first).name, reason_code(reason)});
    }
    log_debug("commit.acknowledged", {{"task", spec.name},
                                      {"sequence", report.manifest.sequence},
                                      {"delivered", report.manifest.delivered},
                                      {"digest", report.manifest.state_digest.hex()},
                                      {"took_ms", report.took.count()}});
  };
  e.told_otherwise = [this](const TaskSpec& spec, const Repeat& second, Offset first) {
    metrics_.increment(Metric::kToldOtherwise, {spec.name});
    log_error("record.told_otherwise", "told_otherwise",
              {{"task", spec.name},
               {"writer", second.stamp},
               {"detail", to_string(second.tp) + " has it at offset " + std::to_string(first.value) +
                              ", which was folded, and at " + std::to_string(second.at.value) + " with another content"}});
  };
  e.retrying = [this](const TaskSpec& spec, const Error& error) {
    metrics_.increment(error.code == Errc::kAmbiguous ? Metric::kCommitsAmbiguous : Metric::kCommitsAborted, {spec.name});
    log_warning("commit.retried", {{"task", spec.name}, {"error", error_word(error.code)}, {"detail", error.message}});
  };
  return e;
}

void Pipeline::set_state(Running& running, TaskState state, std::string detail) {
  std::lock_guard lock(mutex_);
  running.state = state;
  running.detail = std::move(detail);
}

/// Closes the copy that was kept here and takes its store. The former owner is fenced first: the copy may wait for what that one
/// left dangling.
std::unique_ptr<LogWriter> Pipeline::take_over(Running& running) {
  if (running.follower == nullptr) return nullptr;
  auto writer = log_.open_writer(running.spec.transactional_id);  // what is wrong with it the task will be told again
  auto store = std::exchange(running.follower, nullptr)->close();
  if (store != nullptr) {
    metrics_.increment(Metric::kStandbyTakeovers, {running.spec.name});
    log_info("standby.taken_over", {{"task", running.spec.name}});
  }
  std::lock_guard lock(mutex_);
  running.store = std::move(store);
  return writer ? std::move(*writer) : nullptr;
}

Result<void> Pipeline::open_store(Running& running) {
  if (running.store_failed.exchange(false)) {
    std::lock_guard lock(mutex_);
    running.store.reset();
  }
  if (running.store != nullptr) return {};
  auto store = stores_(running.spec.name);
  if (!store) return store.error();
  std::lock_guard lock(mutex_);
  running.store = std::move(*store);
  return {};
}

/// Whether the group says so: not what this process was told last, which may be the past.
bool Pipeline::still_ours(const Running& running) {
  auto view = log_.members(running.driver->group);
  if (!view || !view->settled) return false;
  const std::string id = running.driver->member->id();
  if (id.empty()) return view->members.empty();  // a log of one process
  for (const GroupMember& member : view->members)
    if (member.id == id)
      return std::ranges::find(member.partitions, running.partition, &TopicPartition::partition) != member.partitions.end();
  return false;
}

/// A writer was fenced: by a newer owner, or by a broker for which its transaction took too long; the protocol does not tell which.
/// Opening another at once could fence that owner in turn. So the group is asked; when the partition went to somebody else,
/// the revocation that stops this task is on its way.
void Pipeline::wait_until_ours(Running& running, Milliseconds& pause) {
  do {
    sleep_until(running.stop, pause);
    pause = std::min(pause * 2, options_.retry_max);
  } while (!running.stop && !still_ours(running));
}

void Pipeline::run_task(Running& running) {
  const std::string& name = running.spec.name;
  touch_series(running.spec);
  Milliseconds pause = options_.retry_min;
  while (!running.stop) {
    set_state(running, TaskState::kStarting, {});
    const Milliseconds started = runtime_.uptime();
    auto writer = take_over(running);
    // A store that was ours before may still be read by somebody's query: opening it is tried again like everything else.
    Result<void> result = open_store(running);
    if (result) {
      Task task(log_, options_.names, running.spec, *running.store, running.driver->member.get(), options_.task, events(running),
                runtime_);
      task.use(std::move(writer));
      result = task.run(running.stop);
    }
    if (result) break;
    const Error& error = result.error();
    if (runtime_.uptime() - started > options_.retry_max) pause = options_.retry_min;
    if (const std::string_view halt = halt_name(error); !halt.empty()) {
      metrics_.increment(Metric::kHalts, {name, halt});
      metrics_.set(Metric::kTaskHalted, 1, {name, halt});
      log_error("task.halted", "task_halted", {{"task", name}, {"halt", halt}, {"detail", error.message}});
      set_state(running, TaskState::kHalted, error.message);
      std::lock_guard lock(mutex_);
      running.halt = halt;
      if (!failed_.exchange(true)) failure_ = error;
      return;
    }
    if (error.code == Errc::kFenced) {
      metrics_.increment(Metric::kFenced, {name});
      log_warning("task.fenced", {{"task", name}, {"detail", error.message}});
      set_state(running, TaskState::kFenced, error.message);
      wait_until_ours(running, pause);
      continue;
    }
    metrics_.increment(Metric::kLogErrors, {name, error_word(error.code)});
    log_warning("task.retrying",
                {{"task", name}, {"error", error_word(error.code)}, {"detail", error.message}, {"pause_ms", pause.count()}});
    set_state(running, TaskState::kRetrying, error.message);
    if (error.code == Errc::kCorrupt) {
      std::lock_guard lock(mutex_);
      if (!failed_.exchange(true)) failure_ = error;
    }
    sleep_until(running.stop, pause);
    pause = std::min(pause * 2, options_.retry_max);
  }
  set_state(running, TaskState::kStopped, {});
}

void Pipeline::run_projection(Running& running) {
  Milliseconds pause = options_.retry_min;
  while (!running.stop) {
    set_state(running, TaskState::kRunning, {});
    const Milliseconds started = runtime_.uptime();
    Result<void> result = projection_->run(running.driver->member.get(), running.stop);
    if (result) break;
    const Error& error = result.error();
    if (runtime_.uptime() - started > options_.retry_max) pause = options_.retry_min;
    if (error.code == Errc::kFenced) {
      metrics_.increment(Metric::kProjectorFenced);
      log_warning("projector.fenced", {{"detail", error.message}});
      set_state(running, TaskState::kFenced, error.message);
      wait_until_ours(running, pause);
      continue;
    }
    metrics_.increment(Metric::kProjectorErrors, {error_word(error.code)});
    if (error.code == Errc::kUnreachable || error.code == Errc::kUnexpected) {
      log_warning("projector.retrying", {{"detail", error.message}, {"pause_ms", pause.count()}});
      set_state(running, TaskState::kRetrying, error.message);
      sleep_until(running.stop, pause);
      pause = std::min(pause * 2, options_.retry_max);
      continue;
    }
    log_error("projector.halted", "projector_errors", {{"detail", error.message}});
    set_state(running, TaskState::kHalted, error.message);
    std::lock_guard lock(mutex_);
    if (!failed_.exchange(true)) failure_ = error;
    return;
  }
  set_state(running, TaskState::kStopped, {});
}

void Pipeline::start_task(Driver& driver, int32_t partition) {
  auto running = std::make_unique<Running>();
  Running& r = *running;
  r.driver = &driver;
  r.partition = partition;
  if (driver.plan == nullptr) {
    r.spec.name = "audit-0";
    r.spec.processor = "audit";
    r.thread = runtime_.spawn([this, &r] { run_projection(r); });
  } else {
    r.spec = driver.plan->task(partition);
    r.follower = standbys_.take(r.spec.name);
    r.thread = runtime_.spawn([this, &r] { run_task(r); });
  }
  std::lock_guard lock(mutex_);
  driver.running[partition] = std::move(running);
}

void Pipeline::stop_tasks(Driver& driver, const std::vector<int32_t>& partitions) {
  std::vector<std::unique_ptr<Running>> leaving;
  {
    std::lock_guard lock(mutex_);
    for (int32_t p : partitions)
      if (auto it = driver.running.find(p); it != driver.running.end()) {
        leaving.push_back(std::move(it->second));
        driver.running.erase(it);
      }
  }
  for (auto& running : leaving) running->stop = true;  // all at once, then wait for each
  for (auto& running : leaving) {
    running->thread->join();
    if (!running->halt.empty()) metrics_.set(Metric::kTaskHalted, 0, {running->spec.name, running->halt});
    if (running->follower != nullptr) running->follower->close();  // it was stopped before it began
    running->store.reset();
    standbys_.give_back(running->spec.name);
  }
}

void Pipeline::stop_all(Driver& driver) {
  std::vector<int32_t> all;
  {
    std::lock_guard lock(mutex_);
    for (auto& [p, running] : driver.running) all.push_back(p);
  }
  stop_tasks(driver, all);
}

/// Does what the group says until `stop`, or until the membership is of no more use.
Result<void> Pipeline::be_member(Driver& driver, const std::atomic<bool>& stop) {
  while (!stop) {
    TRY_ASSIGN(auto change, driver.member->poll(Milliseconds(100)));
    if (!change) continue;
    std::vector<int32_t> partitions;
    std::string list;
    for (const TopicPartition& tp : change->partitions) {
      partitions.push_back(tp.partition);
      list += (list.empty() ? "" : ",") + std::to_string(tp.partition);
    }
    log_info(change->assigned ? "group.assigned" : "group.revoked", {{"group", driver.group},
                                                                     {"partitions", static_cast<int64_t>(partitions.size())},
                                                                     {"which", list},
                                                                     {"lost", change->lost}});
    if (change->assigned) {
      for (int32_t p : partitions) start_task(driver, p);
      standbys_.be_member(driver.name, driver.member->id());
      driver.joined = true;
    } else {
      driver.joined = false;  // until the group has found its new balance
      stop_tasks(driver, partitions);
    }
  }
  return {};
}

void Pipeline::drive(Driver& driver, const std::atomic<bool>& stop) {
  std::string instance = options_.instance_id.empty() ? std::string() : options_.instance_id + "-" + driver.name;
  while (!stop) {
    auto member = log_.join(driver.group, driver.topics, instance);
    if (!member) {
      log_warning("group.unreachable", {{"group", driver.group}, {"detail", member.error().message}});
      sleep_until(stop, Milliseconds(1000));
      continue;
    }
    driver.member = std::move(*member);
    Result<void> ended = be_member(driver, stop);
    driver.joined = false;
    standbys_.be_member(driver.name, {});
    const Milliseconds stopped = runtime_.uptime();
    stop_all(driver);
    const Milliseconds leaving = runtime_.uptime();
    driver.member->leave();
    log_info("group.left", {{"group", driver.group},
                            {"tasks_ms", (leaving - stopped).count()},
                            {"leave_ms", (runtime_.uptime() - leaving).count()}});
    if (ended) return;
    log_warning("group.failed", {{"group", driver.group}, {"instance", instance}, {"detail", ended.error().message}});
    // Somebody else goes by our name, maybe from a copy of this data directory. Taking it back would cost him his place and
    // then us ours, for ever; without a name both can work.
    if (ended.error().code == Errc::kFenced) instance.clear();
    sleep_until(stop, Milliseconds(1000));
  }
}

void Pipeline::sleep_until(const std::atomic<bool>& stop, Milliseconds time) {
  for (const Milliseconds until = runtime_.uptime() + time; !stop && runtime_.uptime() < until;) runtime_.sleep(Milliseconds(20));
}

Result<bool> Pipeline::caught_up() {
  // A task that has not come up may still have to catch its store up, or to fold rules whose consequences flow on.
  {
    std::lock_guard lock(mutex_);
    for (const auto& driver : drivers_) {
      if (!driver->joined) return false;
      for (const auto& [p, running] : driver->running)
        if (running->state != TaskState::kRunning) return false;
    }
  }
  // In the order in which records flow, with no way back: when a processor has committed its whole input, all that it will
  // ever make for the next was written before. Written is not yet visible, though: a broker acknowledges a commit of another
  // process before the last stable offset of every partition shows it. So an end counts only when nothing undecided stands
  // behind it. Reports come from outside: somebody's open transaction there is not ours to wait for.
  for (auto& driver : drivers_) {
    if (driver->plan == nullptr) {
      const TopicPartition tp{options_.names.full(Topic::kAudit), 0};
      TRY_ASSIGN(Offset written, log_.written(tp));
      TRY_ASSIGN(OffsetRange range, log_.range(tp));
      if (range.end < written) return false;
      bool owned = false;
      {
        std::lock_guard lock(mutex_);
        owned = !driver->running.empty();
      }
      if (owned && projection_->held && projection_->held()) continue;
      Offset done(-1);
      if (owned) {
        done = projection_->position();
      } else {
        TRY_ASSIGN(auto committed, log_.committed(driver->group, std::span(&tp, 1)));
        if (auto it = committed.find(tp); it != committed.end()) done = it->second.offset;
      }
      if (done < range.end && range.end > range.start) return false;
      continue;
    }
    const std::vector<TopicPartition> inputs = driver->plan->input_partitions(options_.names);
    TRY_ASSIGN(auto committed, log_.committed(driver->group, inputs));
    for (const TopicPartition& tp : inputs) {
      Offset written(-1);
      if (tp.topic != options_.names.full(Topic::kReports)) {
        TRY_ASSIGN(written, log_.written(tp));
      }
      TRY_ASSIGN(OffsetRange range, log_.range(tp));
      if (range.end < written) return false;
      auto it = committed.find(tp);
      if (range.end > range.start && (it == committed.end() || it->second.offset < range.end)) return false;
    }
  }
  return true;
}

Result<int64_t> Pipeline::offsets_behind() {
  int64_t behind = 0;
  for (const ProcessorPlan& plan : plans_) {
    if (!wants(plan.name)) continue;
    const std::vector<TopicPartition> inputs = plan.input_partitions(options_.names);
    TRY_ASSIGN(auto committed, log_.committed(plan.group, inputs));
    for (const TopicPartition& tp : inputs) {
      TRY_ASSIGN(OffsetRange range, log_.range(tp));
      auto it = committed.find(tp);
      behind += log_.distance(tp, it == committed.end() ? range.start : std::min(it->second.offset, range.end), range.end);
    }
  }
  return behind;
}

/// Every second, whether the log still answers. Errors: kUnreachable when it has not for too long.
Result<void> Pipeline::check_reachable(Milliseconds& asked, Milliseconds& answered) {
  if (runtime_.uptime() - asked < Milliseconds(1000)) return {};
  auto range = log_.range({options_.names.full(Topic::kConfig), 0});
  asked = runtime_.uptime();
  if (range || range.error().code != Errc::kUnreachable) {
    answered = asked;
  } else if (asked - answered >= options_.patience) {
    return Error{Errc::kUnreachable, "folding to the end: no answer for " + std::to_string(options_.patience.count() / 1000) +
                                         " s: " + range.error().message};
  }
  return {};
}

Result<void> Pipeline::run(const std::atomic<bool>& stop) {
  std::atomic<bool> ending{false};
  for (auto& driver : drivers_) driver->thread = runtime_.spawn([this, d = driver.get(), &ending] { drive(*d, ending); });
  auto standbys = runtime_.spawn([this, &ending] { standbys_.run(ending); });
  Result<void> result;
  Milliseconds asked = runtime_.uptime(), answered = asked;
  while (!stop) {
    runtime_.sleep(Milliseconds(options_.until_end ? 20 : 100));
    if (!options_.until_end) continue;
    if (failed_) break;
    auto done = caught_up();
    if (done && *done) break;
    if (!done && done.error().code != Errc::kUnreachable) {
      result = done.error();
      break;
    }
    if (result = check_reachable(asked, answered); !result) {
      if (options_.gave_up) options_.gave_up();
      break;
    }
  }
  ending = true;
  for (auto& driver : drivers_) driver->thread->join();
  standbys->join();
  std::lock_guard lock(mutex_);
  if (options_.until_end && failed_) result = failure_;
  return result;
}

TaskView Pipeline::view(const Running& running) const {
  TaskView out{running.spec.name, running.state,        running.detail,     running.store,
               running.sequence,  running.staged_bytes, running.cache_bytes};
  if (running.spec.processor == "audit" && running.state == TaskState::kRunning && projection_->trouble) {
    out.detail = projection_->trouble();
    if (!out.detail.empty()) out.state = TaskState::kRetrying;
  }
  return out;
}

std::vector<TaskView> Pipeline::tasks() const {
  std::lock_guard lock(mutex_);
  std::vector<TaskView> out;
  for (const auto& driver : drivers_)
    for (const auto& [p, running] : driver->running) out.push_back(view(*running));
  return out;
}

std::vector<MemberView> Pipeline::members() const {
  std::vector<MemberView> out;
  for (const auto& driver : drivers_) out.push_back({driver->name, driver->joined});
  return out;
}

bool Pipeline::ready() const {
  std::lock_guard lock(mutex_);
  for (const auto& driver : drivers_) {
    if (!driver->joined) return false;
    for (const auto& [p, running] : driver->running)
      if (view(*running).state != TaskState::kRunning) return false;
  }
  return true;
}

}  // namespace assay::streams
