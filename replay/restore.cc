#include "replay/restore.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>
#include <utility>

#include "schemas/json.h"
#include "streams/lineage_log.h"
#include "streams/recommit.h"

namespace assay::replay {
namespace {

using streams::Fetch;
using streams::Milliseconds;
using streams::OffsetRange;

constexpr Milliseconds kPollWait{1000};
constexpr int kWaitsMax = 60;
constexpr size_t kFetchRecords = 5000;
constexpr size_t kPointsMax = 2048;  // of a map; between two of them a reader looks at headers
constexpr int kAttempts = 5;         // of a partition whose commits are not answered

std::string number(int64_t n) { return std::to_string(n); }

/// The records of one partition up to an end, one by one.
class Records {
 public:
  Records(streams::Log& log, TopicPartition tp, OffsetRange range) : log_(log), tp_(std::move(tp)), range_(range) {
    fetch_.next = range.start;
  }
  /// The next one, which lives until the call after; null: there is none. Errors: those of the log.
  Result<const RecordView*> next() {
    for (int waits = 0;;) {
      if (used_ < fetch_.records.size() && fetch_.records[used_].offset < range_.end) return &fetch_.records[used_++];
      if (used_ < fetch_.records.size() || fetch_.next >= range_.end) return nullptr;
      if (reader_ == nullptr) {
        TRY_ASSIGN(reader_, log_.open_reader({{tp_, range_.start}}));
      }
      TRY_ASSIGN(auto fetch, reader_->poll(kPollWait, kFetchRecords));
      if (fetch) {
        fetch_ = std::move(*fetch);
        used_ = 0;
      } else if (++waits == kWaitsMax) {
        return Error{Errc::kUnreachable, "reading " + to_string(tp_) + " of " + log_.describe() + ": nothing came for a minute"};
      }
    }
  }

 private:
  streams::Log& log_;
  TopicPartition tp_;
  OffsetRange range_;
  std::unique_ptr<streams::LogReader> reader_;
  Fetch fetch_;
  size_t used_ = 0;
};

OutRecord restored(const RecordView& record, const TopicPartition& full, const TopicPartition& bare) {
  OutRecord out;
  out.to = full;
  out.timestamp = record.timestamp;
  if (record.key) out.key = std::string(*record.key);
  if (record.value) out.value = std::string(*record.value);
  for (const HeaderView& header : record.headers)
    out.headers.push_back({std::string(header.name), header.value ? std::optional(std::string(*header.value)) : std::nullopt});
  out.headers.push_back({std::string(kHeaderPlace), streams::place_text(bare, record.offset)});
  return out;
}

/// Whether a record of the restored log is the archive's, with its place behind it.
bool is_same(const RecordView& there, const RecordView& wanted, const TopicPartition& bare) {
  if (there.timestamp != wanted.timestamp || there.key != wanted.key || there.value != wanted.value) return false;
  if (there.headers.size() != wanted.headers.size() + 1) return false;
  for (size_t n = 0; n < wanted.headers.size(); ++n)
    if (there.headers[n].name != wanted.headers[n].name || there.headers[n].value != wanted.headers[n].value) return false;
  const HeaderView& last = there.headers.back();
  return last.name == kHeaderPlace && last.value && streams::read_place(*last.value, bare) == wanted.offset;
}

size_t size_of(const OutRecord& record) {
  size_t size = 200 + record.key.value_or("").size() + record.value.value_or("").size();
  for (const Header& header : record.headers) size += header.name.size() + header.value.value_or("").size();
  return size;
}

/// Every so-many-th position, so that there are never more than kPointsMax.
class Points {
 public:
  void add(Offset place, Offset offset) {
    if (count_++ % every_ != 0) return;
    points_.emplace_back(place, offset);
    if (points_.size() < kPointsMax) return;
    for (size_t n = 0; n < points_.size() / 2; ++n) points_[n] = points_[2 * n];
    points_.resize(points_.size() / 2);
    every_ *= 2;
  }
  std::vector<std::pair<Offset, Offset>> take() { return std::move(points_); }

 private:
  std::vector<std::pair<Offset, Offset>> points_;
  size_t count_ = 0, every_ = 1;
};

class Restorer {
 public:
  Restorer(streams::Log& source, std::shared_ptr<streams::Log> target, streams::Signer& signer, const RestoreOptions& options,
           WallTime now)
      : source_(source), target_(std::move(target)), signer_(signer), o_(options), now_(now) {}

  Result<Restored> run() {
    TRY_ASSIGN(cut_, find_cut(source_, o_.names));
    out_.lineage = o_.lineage > 0 ? o_.lineage : cut_.lineage + 1;
    if (out_.lineage <= cut_.lineage)
      return Error{Errc::kUsage,
                   attempt() + ": lineage " + number(out_.lineage) + " is not behind the archive's, " + number(cut_.lineage)};
    for (const auto& [task, last] : cut_.manifests) out_.tasks.push_back({task, last, cut_.archived.at(task) - last});
    TRY_ASSIGN(const std::string archive, source_.cluster_id());
    const std::string plan = plan_text(archive);
    TRY_ASSIGN(const auto said, streams::read_lineage(*target_, o_.names.prefix()));
    if (!said.plan.empty() && said.plan != plan)
      return Error{Errc::kRefused, attempt() + ": a restore of something else was begun there; " + kEmpty};
    if (said.plan.empty()) TRY(begin(plan));
    for (const auto& [full, range] : cut_.places) {
      RestoredPartition one;
      one.tp = bare(full);
      one.first = range;
      out_.partitions.push_back(std::move(one));
    }
    if (said.opened) {
      out_.was_open = true;
      out_.lineage = said.opened->number;
      for (RestoredPartition& one : out_.partitions) {
        const streams::PositionMap& map = said.opened->maps.at(one.tp);
        one.next = map.next;
        one.records = map.records;
      }
      return std::move(out_);
    }
    TRY(restore_all());
    TRY(open(plan, archive));
    return std::move(out_);
  }

 private:
  static constexpr const char* kEmpty = "a restore needs topics that are empty, or those that it began itself";

  std::string attempt() const { return "restoring " + source_.describe() + " into " + target_->describe(); }
  TopicPartition bare(const TopicPartition& full) const { return {std::string(o_.names.bare(full.topic)), full.partition}; }

  /// What is restored, by which a later restore knows that it is the same.
  std::string plan_text(const std::string& archive) const {
    Json tasks = Json::object(), places = Json::object();
    for (const auto& [task, last] : cut_.manifests) tasks.set(task, number(last));
    for (const auto& [full, range] : cut_.places)
      places.set(to_string(bare(full)), number(range.start.value) + ":" + number(range.end.value));
    return canonical(Json::object()
                         .set("archive", archive)
                         .set("lineage", number(out_.lineage))
                         .set("manifests", std::move(tasks))
                         .set("places", std::move(places)));
  }

  /// Makes the topics, sees that they are empty and writes down what is to come.
  Result<void> begin(const std::string& plan) {
    std::vector<streams::TopicConfig> topics = o_.topics;
    TRY_ASSIGN(const auto archived, source_.topics());
    for (const streams::TopicConfig& topic : archived)
      if (std::ranges::find(topics, topic.name, &streams::TopicConfig::name) == topics.end()) topics.push_back(topic);
    for (streams::TopicConfig& topic : topics) topic.retention_ms = -1;
    streams::TopicConfig own;
    own.name = o_.names.full(streams::kLineageTopic);
    topics.push_back(own);
    // Before anything is made: what is there already must be empty.
    for (const streams::TopicConfig& topic : topics) {
      auto partitions = target_->partition_count(topic.name);
      if (!partitions && partitions.error().code == Errc::kNotFound) continue;
      if (!partitions) return partitions.error();
      if (*partitions != topic.partitions)
        return Error{Errc::kUsage, attempt() + ": topic " + topic.name + " has " + number(*partitions) +
                                       " partitions, archived were " + number(topic.partitions)};
      for (int32_t p = 0; p < *partitions; ++p) {
        TRY_ASSIGN(const OffsetRange range, target_->range({topic.name, p}));
        if (range.end > Offset(0))
          return Error{Errc::kRefused, attempt() + ": " + to_string(TopicPartition{topic.name, p}) +
                                           " holds records up to offset " + number(range.end.value) + "; " + kEmpty};
      }
    }
    TRY(target_->create_topics(topics));
    TRY_ASSIGN(auto writer, target_->open_writer(o_.names.full("assay.restore")));
    streams::Transaction first;
    first.records.push_back(streams::plan_record(o_.names.prefix(), plan, now_));
    TRY(writer->prepare(std::move(first)));
    TRY(writer->commit());
    return {};
  }

  Result<void> restore_all() {
    maps_.resize(out_.partitions.size());
    std::atomic<size_t> next{0};
    std::optional<Error> failure;  // under mutex_
    auto worker = [&] {
      for (size_t n = next++; n < out_.partitions.size(); n = next++) {
        Result<void> done;
        for (int tries = 0; tries < kAttempts; ++tries) {
          done = restore_one(out_.partitions[n], maps_[n]);
          // What became of an unanswered commit shows when the partition is compared again.
          if (done || (done.error().code != Errc::kAborted && done.error().code != Errc::kAmbiguous)) break;
        }
        if (done) {
          ++done_;
          continue;
        }
        std::lock_guard lock(mutex_);
        if (!failure) failure = done.error();
        next = out_.partitions.size();
      }
    };
    const unsigned threads = o_.threads != 0 ? o_.threads : std::max(1u, std::thread::hardware_concurrency());
    std::vector<std::thread> pool;
    for (unsigned t = 1; t < threads; ++t) pool.emplace_back(worker);
    worker();
    for (std::thread& t : pool) t.join();
    if (failure) return *failure;
    return {};
  }

  /// The archive's next record that is restored; null: there is none.
  Result<const RecordView*> next_kept(Records& archive, const TopicPartition& full, int64_t& left_out) const {
    for (;;) {
      TRY_ASSIGN(const RecordView* record, archive.next());
      if (record == nullptr || cut_.keeps(o_.names, full, *record)) return record;
      ++left_out;
    }
  }

  /// Compares what is there with what must be, then writes what is missing, and compares again.
  Result<void> restore_one(RestoredPartition& one, streams::PositionMap& map) {
    const TopicPartition full{o_.names.full(one.tp.topic), one.tp.partition};
    for (bool wrote = true; wrote;) {
      wrote = false;
      Points points;
      one.records = one.left_out = 0;
      one.last.reset();
      Records archive(source_, full, one.first);
      TRY_ASSIGN(const OffsetRange there, target_->range(full));
      TRY_ASSIGN(const RecordView* wanted, next_kept(archive, full, one.left_out));
      TRY(compare(full, one, there, archive, wanted, points));
      if (wanted != nullptr) {
        TRY(write(full, one, archive, wanted));
        wrote = true;
      }
      map.first = one.first;
      map.next = one.next = there.end;
      map.records = one.records;
      map.points = points.take();
    }
    return {};
  }

  Result<void> compare(const TopicPartition& full, RestoredPartition& one, OffsetRange there, Records& archive,
                       const RecordView*& wanted, Points& points) {
    Records records(*target_, full, there);
    const bool compacted =
        std::ranges::any_of(topic_catalogue(), [&](const TopicSpec& spec) { return spec.compacted && spec.name == one.tp.topic; });
    for (;;) {
      TRY_ASSIGN(const RecordView* found, records.next());
      if (found == nullptr) return {};
      // Compaction may have taken some since.
      while (compacted && wanted != nullptr && !is_same(*found, *wanted, one.tp)) {
        TRY_ASSIGN(wanted, next_kept(archive, full, one.left_out));
      }
      if (wanted == nullptr || !is_same(*found, *wanted, one.tp))
        return Error{Errc::kRefused,
                     attempt() + ": " + to_string(full) + " holds at offset " + number(found->offset.value) +
                         " a record that the archive does not have there; keep everybody else away from the topics, " +
                         "delete them and begin again"};
      points.add(wanted->offset, found->offset);
      one.last = wanted->timestamp;
      ++one.records;
      TRY_ASSIGN(wanted, next_kept(archive, full, one.left_out));
    }
  }

  Result<void> write(const TopicPartition& full, RestoredPartition& one, Records& archive, const RecordView* wanted) {
    TRY_ASSIGN(auto writer, target_->open_writer(o_.names.full("assay.restore." + one.tp.topic + "-" + number(one.tp.partition))));
    while (wanted != nullptr) {
      streams::Transaction batch;
      for (size_t bytes = 0; wanted != nullptr && batch.records.size() < o_.batch_records && bytes < o_.batch_bytes;) {
        batch.records.push_back(restored(*wanted, full, one.tp));
        bytes += size_of(batch.records.back());
        TRY_ASSIGN(wanted, next_kept(archive, full, one.left_out));
      }
      const auto count = static_cast<int64_t>(batch.records.size());
      TRY(writer->prepare(std::move(batch)));
      TRY(writer->commit());
      const int64_t written = written_ += count;
      if (o_.progress) o_.progress(written, static_cast<double>(done_) / static_cast<double>(out_.partitions.size()));
    }
    return {};
  }

  /// Commits the groups' offsets, and then, as one, all that makes it another lineage.
  Result<void> open(const std::string& plan, const std::string& archive) {
    streams::Lineage lineage{out_.lineage, {}};
    int64_t records = 0;
    for (size_t n = 0; n < maps_.size(); ++n) {
      lineage.maps[out_.partitions[n].tp] = maps_[n];
      records += maps_[n].records;
    }
    const auto places = streams::open_lineage_log(target_, lineage, o_.names.prefix());
    for (const streams::ProcessorPlan& processor : streams::topology(o_.names, {}))
      for (int32_t p = 0; p < processor.task_count(o_.names); ++p) {
        const streams::TaskSpec spec = processor.task(p);
        if (cut_.manifests.at(spec.name) > 0) TRY(streams::recommit(*places, o_.names, processor, spec, nullptr));
      }
    streams::Transaction last;
    TRY_ASSIGN(last.records, streams::opening_records(o_.names.prefix(), lineage, plan, signer_, now_));
    OutRecord event;
    event.to = {o_.names.full(Topic::kAudit), 0};
    event.timestamp = now_;
    event.value = o_.event(Json::object()
                               .set("archive", archive)
                               .set("lineage", number(out_.lineage))
                               .set("records", number(records))
                               .set("positionMap", to_hex(as_bytes(sha256(*last.records.back().value)))));
    last.records.push_back(std::move(event));
    TRY_ASSIGN(auto writer, target_->open_writer(o_.names.full("assay.restore")));
    TRY(writer->prepare(std::move(last)));
    TRY(writer->commit());
    return {};
  }

  streams::Log& source_;
  std::shared_ptr<streams::Log> target_;
  streams::Signer& signer_;
  const RestoreOptions& o_;
  WallTime now_;
  Cut cut_;
  Restored out_;
  std::vector<streams::PositionMap> maps_;  // of out_.partitions
  std::mutex mutex_;
  std::atomic<int64_t> written_{0};  // records
  std::atomic<int64_t> done_{0};     // partitions
};

}  // namespace

Result<Restored> restore_log(streams::Log& source, std::shared_ptr<streams::Log> target, streams::Signer& signer,
                             const RestoreOptions& options, WallTime now) {
  return Restorer(source, std::move(target), signer, options, now).run();
}

}  // namespace assay::replay
