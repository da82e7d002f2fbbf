#include "replay/course.h"

namespace assay::replay {
namespace {

/// Live scores are for people who look on; nobody looks on here.
constexpr processors::ScoringOptions kQuiet{.live = false};

streams::TaskSpec spec_of(const streams::TopicNames& names, size_t plan, int32_t partition) {
  return streams::topology(names, kQuiet)[plan].task(partition);
}

}  // namespace

Stage::Stage(streams::TaskSpec spec) : spec_(std::move(spec)), store_(state::open_memory_store()) { crash(); }

void Stage::crash() {
  processor_.reset();
  rows_ = std::make_unique<processors::Rows>(*store_, state::Digest(), spec_.row_digest);
  processor_ = spec_.make(*rows_);
  outputs_.clear();
}

std::span<const processors::Output> Stage::follow(const Rules& rules) {
  outputs_.clear();
  for (ConfigKind kind : kConfigKinds) {
    const std::string event = encode_config_event(rules, kind);
    RecordView record;
    record.key = config_kind_name(kind);
    record.value = event;
    processor_->process({Topic::kConfig, 0, &record, derived_id({}, event, 0)}, outputs_);
  }
  return outputs_.records;
}

std::span<const processors::Output> Stage::fold(Topic topic, int32_t partition, const RecordView& record, const Id& cause) {
  outputs_.clear();
  instant_ = record.timestamp;
  processor_->begin(instant_);
  processor_->process({topic, partition, &record, cause}, outputs_);
  return outputs_.records;
}

std::span<const processors::Output> Stage::fold(const processors::Output& made, int32_t partition, WallTime instant) {
  RecordView record;
  record.timestamp = instant;
  record.key = made.key;
  record.value = made.value;
  return fold(made.topic, partition, record, made.id);
}

void Stage::commit() {
  processors::Outputs whole;  // what belongs to a commit as a whole is nobody's here
  processor_->before_commit(instant_, whole);
  CHECK(store_->write(rows_->take_changes()).has_value());  // memory
  processor_->after_commit();
}

Stages::Stages(const streams::TopicNames& names, int32_t partition)
    : scoring(spec_of(names, 0, partition)), promotion(spec_of(names, 1, partition)), allocation(spec_of(names, 2, 0)) {}

}  // namespace assay::replay
