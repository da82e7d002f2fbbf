// The pipeline in memory, under rules of one's choice: a processor at a time, as its task would fold it, with nothing around it.
#pragma once

#include <memory>
#include <span>
#include <vector>

#include "processors/processor.h"
#include "replay/base.h"
#include "streams/fold.h"
#include "streams/topology.h"

namespace assay::replay {

/// One task's processor on a store in memory.
class Stage {
 public:
  explicit Stage(streams::TaskSpec spec);

  /// Folds these rules, as if config.v1 had just said them; returns what they make. Valid until the next call.
  std::span<const processors::Output> follow(const Rules& rules);
  /// Folds one record of an input. `cause`: its own id, for records made inside. Valid until the next call.
  std::span<const processors::Output> fold(Topic topic, int32_t partition, const RecordView& record, const Id& cause = {});
  /// The same for what another stage has made.
  std::span<const processors::Output> fold(const processors::Output& made, int32_t partition, WallTime instant);

  /// Stores what is staged. Needed from time to time: it bounds the memory.
  void commit();
  /// Forgets everything but what was stored, as a crash would.
  void crash();

  const processors::Outputs& last() const { return outputs_; }
  /// What is stored.
  const state::Reader& state() const { return *store_; }
  processors::Processor& processor() { return *processor_; }

 private:
  streams::TaskSpec spec_;
  std::unique_ptr<state::Store> store_;
  std::unique_ptr<processors::Rows> rows_;
  std::unique_ptr<processors::Processor> processor_;
  processors::Outputs outputs_;
  WallTime instant_;
};

/// The three processors of one partition, for a course of events that is small or only needs decisions.
struct Stages {
  explicit Stages(const streams::TopicNames& names, int32_t partition = 0);
  Stage scoring, promotion, allocation;
};

}  // namespace assay::replay
