#include "streams/runtime.h"

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

namespace assay::streams {
namespace {

class MachineThread : public Runtime::Thread {
 public:
  explicit MachineThread(std::function<void()> work)
      : thread_([this, work = std::move(work)] {
          work();
          done_.store(true, std::memory_order_release);
        }) {}
  bool done() const override { return done_.load(std::memory_order_acquire); }
  void join() override { thread_.join(); }

 private:
  std::atomic<bool> done_{false};
  std::thread thread_;  // last: it uses the others
};

class MachineRuntime : public Runtime {
 public:
  WallTime now() override {
    return WallTime(std::chrono::duration_cast<Milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count());
  }
  Milliseconds uptime() override {
    return std::chrono::duration_cast<Milliseconds>(std::chrono::steady_clock::now().time_since_epoch());
  }
  void sleep(Milliseconds time) override { std::this_thread::sleep_for(time); }
  std::unique_ptr<Thread> spawn(std::function<void()> work) override { return std::make_unique<MachineThread>(std::move(work)); }
};

}  // namespace

Runtime& machine_runtime() {
  static MachineRuntime runtime;
  return runtime;
}

}  // namespace assay::streams
