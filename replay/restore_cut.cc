#include "replay/restore_cut.h"

#include <algorithm>
#include <optional>
#include <vector>

#include "schemas/json_parse.h"
#include "streams/lineage.h"
#include "streams/read_to_end.h"
#include "streams/refold.h"
#include "streams/topology.h"

namespace assay::replay {
namespace {

using streams::Manifest;
using streams::OffsetRange;
using streams::WriterStamp;

/// Records on it carry the counter of the task that wrote them. Reports come from outside, whatever their headers say, and the
/// projector's dead letters keep those of another partition; manifests are counted by their sequence.
bool is_stamped(const streams::TopicNames& names, const TopicPartition& full) {
  return full.topic != names.full(Topic::kReports) && full.topic != names.full(Topic::kManifests) &&
         full.topic != names.full(dlq_of(topic_spec(Topic::kAudit).name));
}

std::optional<WriterStamp> stamp_of(const RecordView& record) {
  const auto text = record.header(kHeaderWriter);
  return text ? WriterStamp::parse(*text) : std::nullopt;
}

std::string task_of(std::string_view writer) { return std::string(writer.substr(0, writer.find('/'))); }

class Cutter {
 public:
  Cutter(streams::Log& source, const streams::TopicNames& names) : source_(source), names_(names) {}

  Result<Cut> run() {
    TRY(read_manifests());
    TRY(count_written());
    TRY(keep());
    while (shorten()) TRY(keep());
    return std::move(cut_);
  }

 private:
  Result<void> read_manifests() {
    TRY_ASSIGN(const auto topics, source_.topics());
    for (const streams::TopicConfig& topic : topics)
      for (int32_t p = 0; p < topic.partitions; ++p) {
        TRY_ASSIGN(cut_.places[TopicPartition(topic.name, p)], source_.range({topic.name, p}));
      }
    for (const streams::ProcessorPlan& plan : streams::topology(names_, {}))
      for (int32_t p = 0; p < plan.task_count(names_); ++p) {
        const streams::TaskSpec spec = plan.task(p);
        const TopicPartition tp{names_.full(Topic::kManifests), spec.manifest_partition};
        streams::ManifestReader reader(source_, names_, spec, 0, cut_.places[tp]);
        std::vector<Manifest>& all = manifests_[spec.name];
        for (;;) {
          TRY_ASSIGN(auto next, reader.next());
          if (!next) break;
          cut_.lineage = std::max(cut_.lineage, streams::lineage_of(next->at));
          all.push_back(std::move(next->manifest));
        }
        cut_.archived[spec.name] = cut_.manifests[spec.name] = static_cast<int64_t>(all.size());
      }
    for (const auto& [tp, range] : cut_.places) cut_.lineage = std::max(cut_.lineage, streams::lineage_of(range.end));
    return check_beginnings();
  }

  /// What is missing at the end is a loss that a cut takes away; at the beginning there is nothing to build on.
  Result<void> check_beginnings() const {
    for (const auto& [task, all] : manifests_)
      for (const Manifest& manifest : all)
        for (const streams::InputRange& range : manifest.ranges) {
          const TopicPartition tp{names_.full(range.tp.topic), range.tp.partition};
          auto held = cut_.places.find(tp);
          if (held != cut_.places.end() && held->second.end > held->second.start && range.from < held->second.start)
            return Error{Errc::kIncomplete, "INPUT_GAP: manifest " + std::to_string(manifest.sequence) + " of " + task +
                                                " folded " + to_string(range.tp) + " from " + std::to_string(range.from.value) +
                                                ", the archive begins at " + std::to_string(held->second.start.value)};
        }
    return {};
  }

  Result<void> count_written() {
    for (const auto& [tp, range] : cut_.places) {
      if (!is_stamped(names_, tp)) continue;
      TRY(streams::read_ranges(source_, {{tp, range}}, [&](const TopicPartition& at, const RecordView& record) -> Result<bool> {
        if (const auto stamp = stamp_of(record); stamp && manifests_.contains(task_of(stamp->writer))) {
          int64_t& count = written_[{at, std::string(stamp->writer)}];
          count = std::max(count, stamp->n + 1);
        }
        return true;
      }));
    }
    return {};
  }

  /// Whether all that the manifest folded and wrote is there.
  bool is_whole(const Manifest& manifest) const {
    for (const streams::InputRange& range : manifest.ranges) {
      const TopicPartition tp{names_.full(range.tp.topic), range.tp.partition};
      auto held = cut_.places.find(tp);
      if (range.from < range.to && (held == cut_.places.end() || range.to > held->second.end)) return false;
      auto left_out = left_out_.find(tp);
      if (left_out != left_out_.end() && range.to > left_out->second) return false;
    }
    for (const streams::OutputCount& output : manifest.outputs) {
      const auto spec = std::ranges::find(topic_catalogue(), output.tp.topic, &TopicSpec::name);
      if (spec != topic_catalogue().end() && spec->compacted) continue;  // the newest of a key is enough there
      auto found = written_.find({{names_.full(output.tp.topic), output.tp.partition}, manifest.task + "/" + manifest.lineage});
      if (output.first + output.count > (found == written_.end() ? 0 : found->second)) return false;
    }
    return true;
  }

  /// Lets each task end before the first of its manifests that is not whole. Returns whether any ends sooner than before.
  bool shorten() {
    bool shorter = false;
    for (const auto& [task, all] : manifests_) {
      int64_t& last = cut_.manifests[task];
      const auto torn = std::ranges::find_if_not(all.begin(), all.begin() + last, [&](const Manifest& m) { return is_whole(m); });
      const int64_t whole = torn - all.begin();
      shorter = shorter || whole < last;
      last = whole;
    }
    return shorter;
  }

  /// Says which records go with the manifests that are left, and where those begin that do not.
  Result<void> keep() {
    cut_.kept.clear();
    for (const auto& [task, all] : manifests_)
      for (int64_t n = 0; n < cut_.manifests[task]; ++n)
        for (const streams::OutputCount& output : all[static_cast<size_t>(n)].outputs)
          cut_.kept[{{names_.full(output.tp.topic), output.tp.partition}, task + "/" + all[static_cast<size_t>(n)].lineage}] =
              output.first + output.count;
    for (const auto& [at, count] : written_) {
      auto kept = cut_.kept.try_emplace(at, 0).first;
      if (kept->second >= count || looked_[at.first] == sum_kept(at.first)) continue;
      looked_[at.first] = sum_kept(at.first);
      left_out_.erase(at.first);
      TRY(streams::read_ranges(source_, {{at.first, cut_.places[at.first]}},
                               [&](const TopicPartition& tp, const RecordView& record) -> Result<bool> {
                                 if (cut_.keeps(names_, tp, record)) return true;
                                 left_out_[tp] = record.offset;
                                 return false;
                               }));
    }
    return {};
  }

  int64_t sum_kept(const TopicPartition& tp) const {
    int64_t sum = 1;  // 0: never looked
    for (const auto& [at, count] : cut_.kept)
      if (at.first == tp) sum += count;
    return sum;
  }

  streams::Log& source_;
  const streams::TopicNames& names_;
  Cut cut_;
  std::map<std::string, std::vector<Manifest>> manifests_;  // by task
  std::map<WriterAt, int64_t> written_;                     // records that are archived
  std::map<TopicPartition, Offset> left_out_;               // the first record of a partition that is not kept
  std::map<TopicPartition, int64_t> looked_;                // for it, when so many were kept
};

}  // namespace

bool Cut::keeps(const streams::TopicNames& names, const TopicPartition& full, const RecordView& record) const {
  if (full.topic == names.full(Topic::kManifests)) {
    auto manifest = Manifest::decode(record.value.value_or(""));
    if (!manifest) return true;
    auto last = manifests.find(manifest->task);
    return last == manifests.end() || manifest->sequence <= last->second;
  }
  if (!is_stamped(names, full)) return true;
  const auto stamp = stamp_of(record);
  if (!stamp || !manifests.contains(task_of(stamp->writer))) return true;
  auto count = kept.find({full, std::string(stamp->writer)});
  return count != kept.end() && stamp->n < count->second;
}

Result<Cut> find_cut(streams::Log& source, const streams::TopicNames& names) { return Cutter(source, names).run(); }

}  // namespace assay::replay
