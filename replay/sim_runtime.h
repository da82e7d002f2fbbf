// Virtual time and simulated processes: one seed decides who runs next, and time passes only when nobody can.
#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <queue>
#include <span>
#include <string>
#include <vector>

#include "replay/base.h"
#include "replay/sim_fiber.h"
#include "streams/runtime.h"
#include "streams/sim_log.h"

namespace assay::replay {

using Microseconds = std::chrono::microseconds;
using streams::Milliseconds;

/// Choices that are the same on every machine and library (splitmix64).
class SimDice {
 public:
  explicit SimDice(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
  }
  /// In [0, n). Requires: n > 0.
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  /// In [from, to].
  int64_t between(int64_t from, int64_t to) { return from + below(to - from + 1); }
  bool chance(int64_t permille) { return below(1000) < permille; }

 private:
  uint64_t state_;
};

class SimProcess;

/// Runs fibers on one thread, in virtual time.
class SimScheduler final : public streams::SimClock {
 public:
  explicit SimScheduler(uint64_t seed);
  ~SimScheduler() override;

  // SimClock
  Milliseconds uptime() override { return std::chrono::duration_cast<Milliseconds>(now_); }
  void wait(std::unique_lock<std::mutex>& lock, Milliseconds until, std::span<const void* const> about) override;
  void news(const void* about) override;
  void at(Milliseconds when, std::function<void()> action) override { after(when - uptime(), std::move(action)); }

  Microseconds time() const { return now_; }
  void after(Microseconds delay, std::function<void()> action);
  /// Runs until `done`, or until nothing is left to do, or time stands still for too long. Returns whether `done`.
  bool run(const std::function<bool()>& done);
  uint64_t steps() const { return steps_; }

 private:
  friend class SimProcess;
  struct Strand;  // a fiber and what it waits for
  class StrandThread;
  struct Timer {
    Microseconds when;
    uint64_t order;
    Strand* strand;  // or an action:
    uint64_t token;  // of the strand's wait; of the action: its index
    bool operator>(const Timer& o) const { return when != o.when ? when > o.when : order > o.order; }
  };

  Strand& spawn(SimProcess& process, std::function<void()> work);
  /// The running fiber waits. Returns at once in one that is being killed.
  void block(Microseconds until, std::span<const void* const> about);
  void wake(Strand& strand);
  void advance();

  SimDice dice_;
  Microseconds now_{0};
  std::deque<std::unique_ptr<Strand>> strands_;
  std::vector<Strand*> ready_;
  std::vector<Strand*> waiting_;  // for news
  std::priority_queue<Timer, std::vector<Timer>, std::greater<>> timers_;
  std::vector<std::function<void()>> actions_;
  std::vector<uint64_t> free_actions_;
  Strand* running_ = nullptr;
  uint64_t order_ = 0;
  uint64_t steps_ = 0;
  uint64_t steps_now_ = 0;  // since time last passed
};

/// One process: its fibers are paused and killed together.
class SimProcess : public streams::Runtime {
 public:
  SimProcess(SimScheduler& scheduler, WallTime epoch) : scheduler_(scheduler), epoch_(epoch) {}
  ~SimProcess() override { kill(); }

  // Runtime
  WallTime now() override { return epoch_ + scheduler_.uptime().count() + skew_.count(); }
  Milliseconds uptime() override { return scheduler_.uptime(); }
  void sleep(Milliseconds time) override { sleep_for(time); }
  std::unique_ptr<Thread> spawn(std::function<void()> work) override;

  void sleep_for(Microseconds time) { scheduler_.block(scheduler_.time() + time, {}); }
  /// kill -9: every fiber is unwound from where it waits, the youngest first.
  void kill();
  bool alive() const { return alive_; }
  void pause() { paused_ = true; }
  void resume();
  bool paused() const { return paused_; }
  void jump_clock(Milliseconds by) { skew_ += by; }

 private:
  friend class SimScheduler;
  SimScheduler& scheduler_;
  WallTime epoch_;
  Milliseconds skew_{0};
  bool alive_ = true;
  bool paused_ = false;
  std::vector<SimScheduler::Strand*> strands_;
  std::vector<SimScheduler::Strand*> parked_;  // could run, were the process not paused
};

}  // namespace assay::replay
