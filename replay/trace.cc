#include "replay/trace.h"

#include <map>
#include <memory>
#include <vector>

#include "processors/intake.h"
#include "processors/scoring.h"
#include "replay/key_history.h"
#include "streams/refold.h"

namespace assay::replay {
namespace {

constexpr int64_t kCommitRecords = 20'000;

/// Rows that are staged, read as if they were stored.
class StagedRows : public state::Reader {
 public:
  explicit StagedRows(const processors::Rows& rows) : rows_(rows) {}
  Result<std::optional<std::string>> get(std::string_view key) const override { return rows_.get(key); }
  Result<void> scan(std::string_view prefix, const std::function<bool(std::string_view, std::string_view)>& row) const override {
    rows_.scan(prefix, row);
    return {};
  }

 private:
  const processors::Rows& rows_;
};

class Tracer {
 public:
  Tracer(streams::Log& log, const streams::TopicNames& names, const streams::TaskSpec& spec, const Trace& trace)
      : log_(log),
        names_(names),
        spec_(spec),
        trace_(trace),
        store_(state::open_memory_store()),
        rows_(*store_, state::Digest(), spec.row_digest),
        state_(rows_),
        processor_(spec.make(rows_)),
        ranges_(log) {
    if (trace_.accepted)
      if (auto* scoring = dynamic_cast<processors::Scoring*>(processor_.get())) scoring->observe(trace_.accepted);
  }

  Result<void> run() {
    TRY(fold_all());
    if (!trace_.end) return {};
    TRY(store());
    trace_.end(*store_, steps_.empty() ? 0 : steps_.back().manifest);
    return {};
  }

 private:
  Result<void> fold_all() {
    TRY(plan());
    if (trace_.rules != nullptr) follow(*trace_.rules);
    if (!trace_.key) {
      while (next_ < steps_.size() && !enough_) {
        TRY(fold_step(steps_[next_++]));
        TRY(commit());
      }
      return {};
    }
    CHECK(spec_.inputs.size() == 1);
    const TopicPartition tp{names_.full(spec_.inputs[0].first), spec_.inputs[0].second};
    Offset from = Offset(0), to = Offset(0);
    for (const Step& step : steps_)
      if (step.tp == tp) to = step.to;
    TRY(whole_range(log_, tp, "following " + spec_.name));
    constexpr const char* kEnough = "enough";
    auto folded = read_key(log_, tp, *trace_.key, from, to, [&](const RecordView& record) -> Result<void> {
      // Rules that were folded before this record come first.
      while (steps_[next_].tp != tp || steps_[next_].to <= record.offset) {
        if (steps_[next_].tp != tp) TRY(fold_step(steps_[next_]));
        ++next_;
      }
      TRY(fold(steps_[next_], record));
      return enough_ ? Result<void>(Error{Errc::kAborted, kEnough}) : Result<void>();
    });
    if (!folded && !(enough_ && folded.error().message == kEnough)) return folded;
    return {};
  }

  struct Step {
    TopicPartition tp;  // full name
    TopicPartition place;
    Offset from, to;
    int64_t manifest;
    WallTime instant;
  };

  Result<void> plan() {
    const TopicPartition tp{names_.full(Topic::kManifests), spec_.manifest_partition};
    TRY_ASSIGN(const streams::OffsetRange range, whole_range(log_, tp, "following " + spec_.name));
    streams::ManifestReader manifests(log_, names_, spec_, 0, range);
    for (;;) {
      TRY_ASSIGN(auto next, manifests.next());
      if (!next) return {};
      for (const streams::InputRange& r : next->manifest.ranges)
        if (trace_.rules == nullptr || r.tp.topic != topic_spec(Topic::kConfig).name)
          steps_.push_back(
              {{names_.full(r.tp.topic), r.tp.partition}, r.tp, r.from, r.to, next->manifest.sequence, next->manifest.instant});
    }
  }

  void follow(const Rules& rules) {
    rules_ = rules;
    for (ConfigKind kind : kConfigKinds) {
      const std::string event = encode_config_event(rules, kind);
      RecordView record;
      record.key = config_kind_name(kind);
      record.value = event;
      processor_->process({Topic::kConfig, 0, &record, derived_id({}, event, 0)}, outputs_);
    }
    outputs_.clear();
  }

  /// From time to time what is staged is stored: packed, it takes less room. Nothing of it shows.
  Result<void> commit() { return staged_ < kCommitRecords ? Result<void>() : store(); }

  Result<void> store() {
    staged_ = 0;
    processor_->before_commit(instant_, outputs_);
    outputs_.clear();
    TRY(store_->write(rows_.take_changes()));
    processor_->after_commit();
    return {};
  }

  Result<void> fold_step(const Step& step) {
    return ranges_.read(step.tp, step.from, step.to, [&](std::span<const RecordView> records) -> Result<void> {
      for (const RecordView& record : records)
        if (!enough_) TRY(fold(step, record));
      return {};
    });
  }

  Result<void> fold(const Step& step, const RecordView& record) {
    const bool config = step.tp.topic == names_.full(Topic::kConfig);
    Topic topic = Topic::kConfig;
    for (const auto& [input, partition] : spec_.inputs)
      if (!config && names_.full(input) == step.tp.topic) topic = input;
    processors::Input input{topic, step.tp.partition, &record, {}};
    if (config) {
      // One that cannot be folded is a dead letter of the processor, and changes nothing here either.
      (void)fold_config_event(record.value.value_or(""), rules_);
    } else if (topic != Topic::kReports && is_repeated(step.place, record)) {
      return {};
    }
    if (topic != Topic::kReports) input.cause = processors::record_id(record);
    const TracedRecord traced{step.place, record, step.manifest, step.instant, rules_, state_};
    if (trace_.before) trace_.before(traced);
    if (step.manifest != begun_) processor_->begin(step.instant);
    begun_ = step.manifest;
    instant_ = step.instant;
    ++staged_;
    processor_->process(input, outputs_);
    if (trace_.after && !trace_.after(traced, outputs_)) enough_ = true;
    outputs_.clear();
    return {};
  }

  /// As Fold does it; gaps are the replay's business.
  bool is_repeated(const TopicPartition& place, const RecordView& record) {
    const auto text = record.header(kHeaderWriter);
    const auto stamp = text ? streams::WriterStamp::parse(*text) : std::nullopt;
    if (!stamp) return false;
    auto [last, first] = upstream_.try_emplace(to_string(place) + "|" + std::string(stamp->writer), stamp->n);
    if (!first && stamp->n <= last->second) return true;
    last->second = stamp->n;
    return false;
  }

  streams::Log& log_;
  const streams::TopicNames& names_;
  const streams::TaskSpec& spec_;
  const Trace& trace_;
  std::unique_ptr<state::Store> store_;
  processors::Rows rows_;
  StagedRows state_;
  std::unique_ptr<processors::Processor> processor_;
  processors::Outputs outputs_;
  streams::RangeReader ranges_;
  Rules rules_ = default_rules();
  std::vector<Step> steps_;
  size_t next_ = 0;
  int64_t begun_ = 0, staged_ = 0;
  WallTime instant_;  // of the manifest that is folded
  bool enough_ = false;
  std::map<std::string, int64_t> upstream_;
};

}  // namespace

Result<void> trace_task(streams::Log& log, const streams::TopicNames& names, const streams::TaskSpec& spec, const Trace& trace) {
  return Tracer(log, names, spec, trace).run();
}

}  // namespace assay::replay
