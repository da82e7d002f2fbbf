#include "replay/sim_runtime.h"

#include <algorithm>
#include <utility>

namespace assay::replay {
namespace {

constexpr uint64_t kStepsAtOneTimeMax = 100000;  // more, and something spins without waiting
constexpr uint64_t kStepsMax = 1000000;          // more, and something spins with too short waits
constexpr Microseconds kNever{INT64_MAX};

}  // namespace

struct SimScheduler::Strand {
  std::unique_ptr<Fiber> fiber;
  SimProcess* process = nullptr;
  std::vector<Strand*> joining;  // wait for its end
  const void* about[8] = {};     // what it waits for news of
  size_t about_count = 0;
  uint64_t token = 0;
  bool waiting = false;
};

class SimScheduler::StrandThread : public streams::Runtime::Thread {
 public:
  StrandThread(SimScheduler& scheduler, Strand& strand) : scheduler_(scheduler), strand_(strand), fiber_(strand.fiber.get()) {}
  bool done() const override { return fiber_->done(); }
  void join() override {
    while (!done() && scheduler_.running_ != nullptr && !scheduler_.running_->fiber->killed()) {
      strand_.joining.push_back(scheduler_.running_);
      scheduler_.block(kNever, {});
    }
  }

 private:
  SimScheduler& scheduler_;
  Strand& strand_;
  Fiber* fiber_;
};

SimScheduler::SimScheduler(uint64_t seed) : dice_(seed) {}

SimScheduler::~SimScheduler() {
  for (auto& strand : strands_) CHECK(strand->fiber->done());
}

void SimScheduler::wait(std::unique_lock<std::mutex>& lock, Milliseconds until, std::span<const void* const> about) {
  lock.unlock();
  block(until, about);
  lock.lock();
}

void SimScheduler::news(const void* about) {
  for (size_t i = 0; i < waiting_.size();) {
    Strand* strand = waiting_[i];
    if (std::find(strand->about, strand->about + strand->about_count, about) != strand->about + strand->about_count) {
      wake(*strand);  // takes it out, and another stands in its place
    } else {
      ++i;
    }
  }
}

void SimScheduler::after(Microseconds delay, std::function<void()> action) {
  uint64_t index = actions_.size();
  if (free_actions_.empty()) {
    actions_.push_back(std::move(action));
  } else {
    index = free_actions_.back();
    free_actions_.pop_back();
    actions_[index] = std::move(action);
  }
  timers_.push({now_ + std::max(delay, Microseconds(0)), order_++, nullptr, index});
}

SimScheduler::Strand& SimScheduler::spawn(SimProcess& process, std::function<void()> work) {
  strands_.push_back(std::make_unique<Strand>());
  Strand& strand = *strands_.back();
  strand.fiber = std::make_unique<Fiber>(std::move(work));
  strand.process = &process;
  ready_.push_back(&strand);
  return strand;
}

void SimScheduler::block(Microseconds until, std::span<const void* const> about) {
  CHECK(running_ != nullptr);
  Strand& strand = *running_;
  if (strand.fiber->killed()) return;
  CHECK(about.size() <= std::size(strand.about));
  std::copy(about.begin(), about.end(), strand.about);
  strand.about_count = about.size();
  strand.waiting = true;
  ++strand.token;
  if (until != kNever) timers_.push({std::max(until, now_), order_++, &strand, strand.token});
  if (!about.empty()) waiting_.push_back(&strand);
  Fiber::yield();
}

void SimScheduler::wake(Strand& strand) {
  if (!strand.waiting) return;
  strand.waiting = false;
  ++strand.token;
  if (strand.about_count > 0) {
    auto it = std::find(waiting_.begin(), waiting_.end(), &strand);
    *it = waiting_.back();
    waiting_.pop_back();
    strand.about_count = 0;
  }
  ready_.push_back(&strand);
}

void SimScheduler::advance() {
  now_ = timers_.top().when;
  steps_now_ = 0;
  while (!timers_.empty() && timers_.top().when == now_) {
    const Timer timer = timers_.top();
    timers_.pop();
    if (timer.strand != nullptr) {
      if (timer.strand->token == timer.token) wake(*timer.strand);
    } else {
      auto action = std::exchange(actions_[timer.token], nullptr);
      free_actions_.push_back(timer.token);
      action();
    }
  }
}

bool SimScheduler::run(const std::function<bool()>& done) {
  while (!done()) {
    if (ready_.empty()) {
      if (timers_.empty()) return false;
      advance();
      continue;
    }
    std::swap(ready_[static_cast<size_t>(dice_.below(std::ssize(ready_)))], ready_.back());
    Strand* strand = ready_.back();
    ready_.pop_back();
    if (strand->fiber->done()) continue;
    if (strand->process->paused_) {
      strand->process->parked_.push_back(strand);
      continue;
    }
    ++steps_;
    if (++steps_now_ > kStepsAtOneTimeMax || steps_ > kStepsMax) return false;
    running_ = strand;
    strand->fiber->resume();
    running_ = nullptr;
    if (strand->fiber->done())
      for (Strand* other : std::exchange(strand->joining, {})) wake(*other);
  }
  return true;
}

std::unique_ptr<streams::Runtime::Thread> SimProcess::spawn(std::function<void()> work) {
  SimScheduler::Strand& strand = scheduler_.spawn(*this, std::move(work));
  strands_.push_back(&strand);
  return std::make_unique<SimScheduler::StrandThread>(scheduler_, strand);
}

void SimProcess::kill() {
  alive_ = false;
  SimScheduler::Strand* const caller = scheduler_.running_;
  while (!strands_.empty()) {
    SimScheduler::Strand* strand = strands_.back();
    strands_.pop_back();
    CHECK(strand != caller);
    if (strand->waiting) {  // nothing may wake it any more
      scheduler_.wake(*strand);
      scheduler_.ready_.pop_back();
    }
    scheduler_.running_ = strand;
    strand->fiber->kill();
  }
  scheduler_.running_ = caller;
  std::erase_if(scheduler_.ready_, [](const auto* s) { return s->fiber->done(); });
  parked_.clear();
}

void SimProcess::resume() {
  paused_ = false;
  for (SimScheduler::Strand* strand : std::exchange(parked_, {})) scheduler_.ready_.push_back(strand);
}

}  // namespace assay::replay
