#include "streams/runtime.h"

#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <thread>
#include <utility>

namespace assay::streams {
namespace {

constexpr int kBackgroundNice = 10;

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
  std::unique_ptr<Thread> spawn_background(std::function<void()> work) override {
    return std::make_unique<MachineThread>([work = std::move(work)] {
      // Of this thread alone, and of those that it starts. Where it is not allowed, the work is merely done sooner.
      setpriority(PRIO_PROCESS, static_cast<id_t>(syscall(SYS_gettid)), kBackgroundNice);
      work();
    });
  }
};

}  // namespace

Runtime& machine_runtime() {
  static MachineRuntime runtime;
  return runtime;
}

}  // namespace assay::streams
