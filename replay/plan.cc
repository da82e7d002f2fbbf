#include "replay/plan.h"

#include <algorithm>
#include <functional>
#include <map>
#include <set>
#include <thread>

#include "replay/archive_log.h"

namespace assay::replay {
namespace {

using streams::OffsetRange;

bool is_empty(const OffsetRange& range) { return range.end <= range.start; }

/// What one partition has, and the entries that hold.
struct Looked {
  PlannedPartition plan;
  ArchiveChain chain;
};

Result<Looked> look(Archive* archive, streams::Log* live, const TopicPartition& bare, const std::set<std::string>& segments,
                    const PlanOptions& options) {
  Looked out;
  PlannedPartition& plan = out.plan;
  plan.tp = bare;
  if (archive != nullptr) {
    auto whole = archive->chain(bare, options.pinned, &out.chain);
    if (!whole) {
      if (whole.error().code == Errc::kUnreachable || whole.error().code == Errc::kRefused) return whole.error();
      plan.problem = whole.error();
    }
    for (size_t n = 0; n < out.chain.size(); ++n)
      if (!segments.contains(out.chain[n].object)) {
        plan.problem = Error{Errc::kIncomplete, out.chain[n].object + " of the archive in " + archive->objects().describe() +
                                                    ": the segment is missing"};
        out.chain.resize(n);
      }
  }
  for (const ArchiveEntry& entry : out.chain) {
    const SegmentInfo& segment = entry.segment;
    if (segment.records > 0) {
      plan.oldest = plan.records == 0 ? segment.min_timestamp : std::min(plan.oldest, segment.min_timestamp);
      plan.newest = plan.records == 0 ? segment.max_timestamp : std::max(plan.newest, segment.max_timestamp);
    }
    ++plan.segments;
    plan.records += segment.records;
    plan.bytes += entry.bytes;
    plan.raw_bytes += segment.raw_bytes;
  }
  if (!out.chain.empty()) plan.archived = {out.chain.front().segment.first, out.chain.back().segment.next};
  if (live == nullptr) return out;

  const TopicPartition full{options.names.full(bare.topic), bare.partition};
  auto range = live->range(full);
  if (range) plan.live = *range;
  if (!range && range.error().code != Errc::kNotFound) return range.error();
  if (plan.problem || is_empty(plan.archived)) return out;
  if (auto same = check_same_history(*live, full, out.chain.back()); !same) {
    if (same.error().code != Errc::kIncomplete) return same.error();
    plan.problem = same.error();
  } else if (plan.live.start > plan.archived.end) {
    plan.problem = Error{Errc::kIncomplete, "INPUT_GAP: " + to_string(bare) + " is archived up to offset " +
                                                std::to_string(plan.archived.end.value) + ", the log begins at " +
                                                std::to_string(plan.live.start.value)};
  }
  return out;
}

/// The records of a partition as far as they can be read: of the archive, then of the log behind it.
Result<void> each_record(Archive* archive, streams::Log* live, const Looked& in, const streams::TopicNames& names,
                         const std::function<Result<void>(const RecordView&)>& each) {
  for (const ArchiveEntry& entry : in.chain) {
    TRY_ASSIGN(const SegmentReader segment, archive->whole_segment(entry));
    TRY_ASSIGN(const SegmentRecords records, segment.all());
    for (const RecordView& record : records.records) TRY(each(record));
  }
  const Offset from = std::max(in.plan.archived.end, in.plan.live.start);
  if (live == nullptr || in.plan.problem || from >= in.plan.live.end) return {};
  TRY_ASSIGN(auto reader, live->open_reader({{{names.full(in.plan.tp.topic), in.plan.tp.partition}, from}}));
  for (Offset at = from; at < in.plan.live.end;) {
    TRY_ASSIGN(auto fetch, reader->poll(streams::Milliseconds(1000), 1000));
    if (!fetch) continue;
    for (const RecordView& record : fetch->records)
      if (record.offset < in.plan.live.end) TRY(each(record));
    at = fetch->next;
  }
  return {};
}

}  // namespace

bool PlannedPartition::holds(Offset from, Offset to) const {
  if (from >= to) return true;
  if (from >= archived.start && from < archived.end) from = archived.end;
  return from >= to || (!problem && from >= live.start && to <= live.end);
}

std::optional<Error> ReplayPlan::problem() const {
  std::optional<Error> first;
  auto note = [&](const std::optional<Error>& one) {
    if (one && (!first || (one->code == Errc::kTampered && first->code != Errc::kTampered))) first = one;
  };
  for (const PlannedPartition& partition : partitions) note(partition.problem);
  for (const PlannedTask& task : tasks) note(task.problem);
  return first;
}

Result<ReplayPlan> plan_replay(Archive* archive, streams::Log* live, const PlanOptions& options) {
  const streams::TopicNames& names = options.names;
  std::set<TopicPartition> all;
  std::set<std::string> segments;
  if (archive != nullptr) {
    TRY_ASSIGN(const auto topics, archive->topics());
    for (const auto& [topic, partitions] : topics)
      for (int32_t p = 0; p < partitions; ++p) all.insert({topic, p});
    TRY_ASSIGN(const auto listed, archive->objects().list("segments/"));
    segments.insert(listed.begin(), listed.end());
  }
  for (const TopicSpec& spec : topic_catalogue())
    for (int32_t p = 0; p < names.partitions(spec.topic); ++p) all.insert({std::string(spec.name), p});

  std::map<TopicPartition, Looked> looked;
  ReplayPlan plan;
  for (const TopicPartition& tp : all) {
    TRY_ASSIGN(looked[tp], look(archive, live, tp, segments, options));
    plan.partitions.push_back(looked[tp].plan);
  }

  int64_t records = 0, longest = 0;
  for (const streams::ProcessorPlan& processor : streams::topology(names, {}))
    for (int32_t p = 0; p < processor.task_count(names); ++p) {
      const streams::TaskSpec spec = processor.task(p);
      PlannedTask task;
      task.task = spec.name;
      auto cannot = [&](const std::string& what) {
        if (!task.problem) task.problem = Error{Errc::kIncomplete, what};
      };
      const Looked& manifests = looked.at({std::string(topic_spec(Topic::kManifests).name), spec.manifest_partition});
      auto read = each_record(archive, live, manifests, names, [&](const RecordView& record) -> Result<void> {
        TRY_ASSIGN(const streams::Manifest manifest, streams::Manifest::decode(record.value.value_or("")));
        if (manifest.task != spec.name || manifest.sequence <= task.manifests) return {};
        if (manifest.sequence != task.manifests + 1)
          cannot("TORN_TXN: manifest " + std::to_string(task.manifests + 1) + " of " + spec.name + " is missing");
        task.manifests = manifest.sequence;
        for (const streams::InputRange& range : manifest.ranges) {
          auto input = looked.find(range.tp);
          if (input == looked.end() || !input->second.plan.holds(range.from, range.to))
            cannot("INPUT_GAP: manifest " + std::to_string(manifest.sequence) + " of " + spec.name + " folded " +
                   to_string(range.tp) + " from " + std::to_string(range.from.value) + " to " + std::to_string(range.to.value) +
                   ", which is not all there");
        }
        if (task.problem) return {};
        task.rebuildable = manifest.sequence;
        task.records += manifest.delivered;
        return {};
      });
      if (!read && read.error().code == Errc::kUnreachable) return read.error();
      if (!read) task.problem = read.error();
      if (manifests.plan.problem && !task.problem) task.problem = manifests.plan.problem;
      records += task.records;
      longest = std::max(longest, task.records);
      plan.tasks.push_back(std::move(task));
    }
  const auto threads =
      static_cast<int64_t>(options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency()));
  plan.estimated_ms = std::max(longest, records / threads) * 1000 / options.records_per_second;
  return plan;
}

}  // namespace assay::replay
