#include "streams/standby.h"

#include <algorithm>
#include <utility>

#include "streams/logging.h"

namespace assay::streams {
namespace {

/// The order in which librdkafka's range assignor takes members: static ones by their instance, others by their id.
bool assigned_before(const GroupMember& a, const GroupMember& b) {
  if (!a.instance_id.empty() && !b.instance_id.empty()) return a.instance_id < b.instance_id;
  return a.id < b.id;
}

/// Whom the range assignor gives a partition: each member a run of them, the first members one more than the others.
size_t range_owner(int32_t partition, int32_t partitions, size_t members) {
  const auto p = static_cast<size_t>(partition), each = static_cast<size_t>(partitions) / members;
  const size_t longer = static_cast<size_t>(partitions) % members;
  return p < longer * (each + 1) ? p / (each + 1) : longer + (p - longer * (each + 1)) / each;
}

}  // namespace

std::vector<std::string> standbys_of(const GroupView& view, int32_t partition, int32_t partitions, int count) {
  std::vector<std::string> out;
  if (!view.settled) return out;
  std::vector<GroupMember> left = view.members;
  std::ranges::sort(left, assigned_before);
  auto owner = std::ranges::find_if(left, [&](const GroupMember& member) {
    return std::ranges::find(member.partitions, partition, &TopicPartition::partition) != member.partitions.end();
  });
  if (owner == left.end()) return out;
  left.erase(owner);
  while (!left.empty() && std::ssize(out) < count) {
    const auto next = left.begin() + static_cast<ptrdiff_t>(range_owner(partition, partitions, left.size()));
    out.push_back(next->id);
    left.erase(next);
  }
  return out;
}

Standbys::Standbys(Log& log, TopicNames names, const std::vector<ProcessorPlan>& plans, StoreFactory stores, StandbyOptions options,
                   Metrics& metrics, Runtime& runtime)
    : log_(log),
      names_(std::move(names)),
      plans_(plans),
      stores_(std::move(stores)),
      options_(std::move(options)),
      metrics_(metrics),
      runtime_(runtime) {}

Standbys::~Standbys() = default;

std::shared_ptr<state::Store> Standbys::Follower::close() {
  stop_ = true;
  if (thread_ != nullptr) std::exchange(thread_, nullptr)->join();
  auto store = std::exchange(store_, nullptr);
  return store_failed_ ? nullptr : std::move(store);
}

void Standbys::be_member(const std::string& processor, const std::string& id) {
  std::lock_guard lock(mutex_);
  if (id.empty())
    ids_.erase(processor);
  else
    ids_[processor] = id;
}

std::unique_ptr<Standbys::Follower> Standbys::take(const std::string& task) {
  std::unique_lock lock(mutex_);
  taken_.insert(task);
  while (opening_ == task) {
    lock.unlock();
    runtime_.sleep(Milliseconds(5));
    lock.lock();
  }
  auto found = followers_.find(task);
  if (found == followers_.end()) return nullptr;
  auto follower = std::move(found->second);
  followers_.erase(found);
  follower->stop_ = true;
  return follower;
}

void Standbys::give_back(const std::string& task) {
  std::lock_guard lock(mutex_);
  taken_.erase(task);
}

std::vector<StandbyView> Standbys::view() const {
  std::lock_guard lock(mutex_);
  std::vector<StandbyView> out;
  for (const auto& [task, follower] : followers_) out.push_back(follower->view_);
  return out;
}

void Standbys::run(const std::atomic<bool>& stop) {
  if (options_.count <= 0) return;
  while (!stop) {
    for (const ProcessorPlan& plan : plans_)
      if (!stop) look(plan);
    export_lag();
    for (const Milliseconds until = runtime_.uptime() + options_.look; !stop && runtime_.uptime() < until;)
      runtime_.sleep(Milliseconds(20));
  }
  std::vector<std::unique_ptr<Follower>> all;
  {
    std::lock_guard lock(mutex_);
    for (auto& [task, follower] : followers_) all.push_back(std::move(follower));
    followers_.clear();
  }
  end(std::move(all));
  export_lag();
}

void Standbys::end(std::vector<std::unique_ptr<Follower>> followers) {
  for (auto& follower : followers) follower->stop_ = true;  // all at once, then wait for each
  for (auto& follower : followers) follower->close();
}

/// Starts and ends followers of one processor's tasks as its group has it now.
void Standbys::look(const ProcessorPlan& plan) {
  std::string id;
  {
    std::lock_guard lock(mutex_);
    if (auto found = ids_.find(plan.name); found != ids_.end()) id = found->second;
  }
  auto view = id.empty() ? Result(GroupView()) : log_.members(plan.group);
  if (!view || !view->settled) return;  // until it is known who owns what, everybody goes on
  const std::set<int32_t> partitions = wanted(plan, *view, id);
  std::vector<std::unique_ptr<Follower>> leaving;
  std::vector<TaskSpec> coming;
  for (int32_t p = 0; p < plan.task_count(names_); ++p) {
    TaskSpec spec = plan.task(p);
    std::lock_guard lock(mutex_);
    auto found = followers_.find(spec.name);
    const bool here = found != followers_.end();
    if (here && (!partitions.contains(p) || found->second->thread_->done())) {  // done: its store has to be opened again
      leaving.push_back(std::move(found->second));
      followers_.erase(found);
    } else if (!here && partitions.contains(p)) {
      coming.push_back(std::move(spec));
    }
  }
  end(std::move(leaving));
  for (const TaskSpec& spec : coming) start(spec);
}

std::set<int32_t> Standbys::wanted(const ProcessorPlan& plan, const GroupView& view, const std::string& id) const {
  std::set<int32_t> out;
  const int32_t partitions = plan.task_count(names_);
  for (int32_t p = 0; p < partitions; ++p)
    if (std::ranges::count(standbys_of(view, p, partitions, options_.count), id) > 0) out.insert(p);
  return out;
}

/// Opens the store, here and not on the follower's thread: threads that a store starts live at the priority of who opened it.
void Standbys::start(const TaskSpec& spec) {
  {
    std::lock_guard lock(mutex_);
    if (taken_.contains(spec.name)) return;
    opening_ = spec.name;
  }
  auto store = stores_(spec.name);
  std::lock_guard lock(mutex_);
  opening_.clear();
  if (!store) {  // a query may still read it; the next look tries again
    log_warning("standby.waiting", {{"task", spec.name}, {"detail", store.error().message}});
    return;
  }
  auto follower = std::make_unique<Follower>();
  follower->spec_ = spec;
  follower->view_.task = spec.name;
  follower->store_ = std::move(*store);
  log_info("standby.started", {{"task", spec.name}});
  follower->thread_ = runtime_.spawn_background([this, f = follower.get()] { follow(*f); });
  followers_[spec.name] = std::move(follower);
}

TaskEvents Standbys::events(Follower& follower) {
  TaskEvents e;
  auto stands = [this, &follower](int64_t sequence, int64_t committed) {
    std::lock_guard lock(mutex_);
    follower.view_.sequence = sequence;
    follower.view_.committed = committed;
    follower.view_.trouble.clear();
  };
  e.recovered = [](const TaskSpec& spec, Recovery outcome, const std::string& detail) {
    if (!is_halt(outcome))
      log_info("standby.recovered", {{"task", spec.name}, {"outcome", recovery_name(outcome)}, {"detail", detail}});
  };
  e.refolded = [stands](const TaskSpec&, const Manifest& manifest, int64_t last) { stands(manifest.sequence, last); };
  e.followed = [stands](const TaskSpec&, int64_t sequence, int64_t committed) { stands(sequence, committed); };
  e.restored = [this](const TaskSpec& spec, const RestoreReport& report) {
    metrics_.increment(Metric::kRestores, {spec.name, report.sequence > 0 ? "checkpoint" : "nothing"});
    log_warning("store.replaced", {{"task", spec.name},
                                   {"sequence", report.sequence},
                                   {"put_aside", report.put_aside},
                                   {"detail", report.why},
                                   {"took_ms", report.took.count()}});
  };
  e.store_failed = [this, &follower](const TaskSpec& spec, const Error& error) {
    follower.store_failed_ = true;
    metrics_.increment(Metric::kStoreWriteFailures, {spec.name});
    log_error("store.failed", "store_write_failures", {{"task", spec.name}, {"detail", error.message}});
  };
  return e;
}

void Standbys::follow(Follower& follower) {
  Task task(log_, names_, follower.spec_, *follower.store_, nullptr, options_.task, events(follower), runtime_);
  Milliseconds pause = options_.retry_min;
  std::string told;
  while (!follower.stop_ && !follower.store_failed_) {
    const Milliseconds started = runtime_.uptime();
    Result<void> result = task.follow(follower.stop_);
    if (result) continue;
    const std::string& trouble = result.error().message;
    if (std::exchange(told, trouble) != trouble)
      log_warning("standby.waiting", {{"task", follower.spec_.name}, {"detail", trouble}});
    {
      std::lock_guard lock(mutex_);
      follower.view_.trouble = trouble;
    }
    if (runtime_.uptime() - started > options_.retry_max) pause = options_.retry_min;
    for (const Milliseconds until = runtime_.uptime() + pause; !follower.stop_ && runtime_.uptime() < until;)
      runtime_.sleep(Milliseconds(20));
    pause = std::min(pause * 2, options_.retry_max);
  }
}

void Standbys::export_lag() {
  std::vector<GaugeSeries> series;
  for (const StandbyView& one : view())
    if (one.committed > 0) series.push_back({{one.task}, static_cast<double>(std::max<int64_t>(0, one.committed - one.sequence))});
  metrics_.replace(Metric::kStandbyLag, series);
}

}  // namespace assay::streams
