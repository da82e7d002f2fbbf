// Time and threads as the runtime sees them: the machine's, or a simulator's in which one seed decides both.
#pragma once

#include <functional>
#include <memory>
#include <utility>

#include "streams/base.h"
#include "streams/log.h"

namespace assay::streams {

class Runtime {
 public:
  virtual ~Runtime() = default;

  /// Wall clock: it may jump, so it decides nothing but what is written as an instant.
  virtual WallTime now() = 0;
  /// Time since some moment; never runs backwards.
  virtual Milliseconds uptime() = 0;
  virtual void sleep(Milliseconds time) = 0;

  class Thread {
   public:
    virtual ~Thread() = default;
    virtual bool done() const = 0;
    /// Waits for the end. Required once before destruction.
    virtual void join() = 0;
  };
  virtual std::unique_ptr<Thread> spawn(std::function<void()> work) = 0;
  /// A thread for work that must not hold up anything else.
  virtual std::unique_ptr<Thread> spawn_background(std::function<void()> work) { return spawn(std::move(work)); }
};

/// Clocks and threads of this machine.
Runtime& machine_runtime();

}  // namespace assay::streams
