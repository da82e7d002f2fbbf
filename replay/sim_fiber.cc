#include "replay/sim_fiber.h"

#include <sys/mman.h>

#include <boost/context/fiber.hpp>
#include <exception>
#include <utility>
#include <vector>

namespace assay::replay {
namespace {

constexpr size_t kStackBytes = 512 * 1024;  // address space: what is touched stays small
constexpr size_t kPageBytes = 4096;

/// Stacks are used again: mapping one costs more than all that most fibers ever do.
class Stacks {
 public:
  ~Stacks() {
    for (void* base : free_) ::munmap(base, kStackBytes);
  }
  void* take() {
    if (!free_.empty()) {
      void* base = free_.back();
      free_.pop_back();
      return base;
    }
    void* base = ::mmap(nullptr, kStackBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    CHECK(base != MAP_FAILED);
    CHECK(::mprotect(base, kPageBytes, PROT_NONE) == 0);  // an overflow faults here
    return base;
  }
  void give(void* base) { free_.push_back(base); }

 private:
  std::vector<void*> free_;
};

thread_local Stacks stacks;

struct PooledStack {
  boost::context::stack_context allocate() {
    boost::context::stack_context out;
    out.size = kStackBytes;
    out.sp = static_cast<char*>(stacks.take()) + kStackBytes;
    return out;
  }
  void deallocate(boost::context::stack_context& stack) { stacks.give(static_cast<char*>(stack.sp) - kStackBytes); }
};

struct Killed {};  // thrown where a killed fiber waits

}  // namespace

struct Fiber::Impl {
  std::function<void()> work;
  boost::context::fiber inside;   // where the fiber waits
  boost::context::fiber outside;  // where its resumer waits
  bool started = false, done = false, killed = false;
  static thread_local Fiber* running;
};

thread_local Fiber* Fiber::Impl::running = nullptr;

Fiber::Fiber(std::function<void()> work) : impl_(std::make_unique<Impl>()) { impl_->work = std::move(work); }
Fiber::~Fiber() { CHECK(done()); }

bool Fiber::done() const { return impl_->done; }
bool Fiber::killed() const { return impl_->killed; }
Fiber* Fiber::current() { return Impl::running; }

void Fiber::resume() {
  CHECK(!impl_->done);
  Fiber* const before = std::exchange(Impl::running, this);
  if (!std::exchange(impl_->started, true))
    impl_->inside = boost::context::fiber(std::allocator_arg, PooledStack(), [this](boost::context::fiber&& caller) {
      impl_->outside = std::move(caller);
      try {
        impl_->work();
      } catch (const Killed&) {
      }
      impl_->work = nullptr;
      impl_->done = true;
      return std::move(impl_->outside);
    });
  impl_->inside = std::move(impl_->inside).resume();
  Impl::running = before;
}

void Fiber::kill() {
  if (impl_->done || std::exchange(impl_->killed, true)) return;
  if (impl_->started) {
    resume();
  } else {
    impl_->work = nullptr;
    impl_->done = true;
  }
  CHECK(impl_->done);
}

void Fiber::yield() {
  CHECK(Impl::running != nullptr);
  Impl& impl = *Impl::running->impl_;
  if (impl.killed) return;
  impl.outside = std::move(impl.outside).resume();
  if (impl.killed) throw Killed();
}

}  // namespace assay::replay
