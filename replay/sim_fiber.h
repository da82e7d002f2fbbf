// Fibers: code that blocks, run on one thread, switched only where it waits.
#pragma once

#include <functional>
#include <memory>

#include "replay/base.h"

namespace assay::replay {

class Fiber {
 public:
  explicit Fiber(std::function<void()> work);
  /// Requires: done().
  ~Fiber();

  /// Runs it until it yields or ends. Requires: called outside of it, and it is not done.
  void resume();
  /// Unwinds it from where it waits, or never starts it. While it unwinds, yield() returns at once.
  void kill();
  bool done() const;
  bool killed() const;

  /// Goes back to whoever resumed the running fiber. Requires: a fiber runs.
  static void yield();
  static Fiber* current();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace assay::replay
