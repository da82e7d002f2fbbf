#include "streams/lineage_log.h"

#include <algorithm>
#include <functional>
#include <utility>

namespace assay::streams {
namespace {

constexpr Milliseconds kPollWait{1000};
constexpr int kWaitsMax = 60;
constexpr size_t kBatch = 1000;

/// One partition's share of the map, by full name.
struct Part {
  TopicPartition bare;
  PositionMap map;
};

/// What log, readers and writers share.
struct Shared {
  std::shared_ptr<Log> log;
  int64_t number = 0;
  std::map<TopicPartition, Part> parts;

  const Part& part(const TopicPartition& full) const {
    static const Part none;  // never restored: nothing stands before its first new record
    auto it = parts.find(full);
    return it == parts.end() ? none : it->second;
  }
  Offset fresh(Offset offset) const { return place_in(number, offset); }

  /// The restored record's first place.
  Result<Offset> first_place(const TopicPartition& full, const RecordView& record) const {
    const auto text = record.header(kHeaderPlace);
    const auto place = text ? read_place(*text, part(full).bare) : std::nullopt;
    if (place) return *place;
    return Error{Errc::kCorrupt, "reading " + to_string(full) + " at offset " + std::to_string(record.offset.value) + " of " +
                                     log->describe() + ": it stands among restored records and names no first place"};
  }

  /// An offset not above any restored record at or behind the place.
  Offset floor(const PositionMap& map, Offset place) const {
    auto above = std::ranges::upper_bound(map.points, place, {}, &std::pair<Offset, Offset>::first);
    return above == map.points.begin() ? Offset(0) : std::prev(above)->second;
  }

  /// The first restored record from `from` on that `wanted` takes; nothing: there is none.
  Result<std::optional<std::pair<Offset, Offset>>> find(const TopicPartition& full, Offset from,
                                                        const std::function<bool(Offset place, Offset offset)>& wanted) const {
    std::optional<std::pair<Offset, Offset>> none;
    const PositionMap& map = part(full).map;
    TRY_ASSIGN(const OffsetRange there, log->range(full));
    from = std::max(from, there.start);
    if (from >= map.next) return none;
    TRY_ASSIGN(auto reader, log->open_reader({{full, from}}));
    for (int waits = 0; waits < kWaitsMax;) {
      TRY_ASSIGN(const auto fetch, reader->poll(kPollWait, kBatch));
      if (!fetch) {
        ++waits;
        continue;
      }
      for (const RecordView& record : fetch->records) {
        if (record.offset >= map.next) return none;
        TRY_ASSIGN(const Offset place, first_place(full, record));
        if (wanted(place, record.offset)) return std::optional(std::pair{place, record.offset});
      }
      if (fetch->next >= map.next) return none;
    }
    return Error{Errc::kUnreachable, "looking for a place in " + to_string(full) + " of " + log->describe() + ": no answer"};
  }

  /// Where a position of the log is: the place of the record there, or behind the last restored one.
  Result<Offset> to_place(const TopicPartition& full, Offset offset) const {
    const PositionMap& map = part(full).map;
    if (offset > map.next) return fresh(offset);
    if (offset == map.next) return map.first.end;
    if (offset == Offset(0)) return map.first.start;
    auto above = std::ranges::upper_bound(map.points, offset, {}, &std::pair<Offset, Offset>::second);
    const Offset from = above == map.points.begin() ? Offset(0) : std::prev(above)->second;
    TRY_ASSIGN(const auto found, find(full, from, [&](Offset, Offset at) { return at >= offset; }));
    return found ? found->first : map.first.end;
  }

  /// The offset of the first record at the place or behind it.
  Result<Offset> to_offset(const TopicPartition& full, Offset place) const {
    const PositionMap& map = part(full).map;
    if (place >= fresh(map.next)) return offset_in(place);
    if (place >= map.first.end) return map.next;
    if (place <= map.first.start) return Offset(0);
    TRY_ASSIGN(const auto found, find(full, floor(map, place), [&](Offset at, Offset) { return at >= place; }));
    return found ? found->second : map.next;
  }

  Result<OffsetRange> range(const TopicPartition& full) const {
    TRY_ASSIGN(const OffsetRange there, log->range(full));
    OffsetRange out{part(full).map.first.start, {}};
    if (there.start > Offset(0)) {
      TRY_ASSIGN(out.start, to_place(full, there.start));
    }
    TRY_ASSIGN(out.end, to_place(full, there.end));
    return out;
  }
};

class LineageReader : public LogReader {
 public:
  static Result<std::unique_ptr<LogReader>> open(std::shared_ptr<const Shared> shared,
                                                 const std::map<TopicPartition, Offset>& from) {
    auto reader = std::make_unique<LineageReader>(std::move(shared));
    std::map<TopicPartition, Offset> start;
    for (const auto& [tp, place] : from) {
      TRY_ASSIGN(start[tp], reader->begin(tp, place));
    }
    TRY_ASSIGN(reader->inner_, reader->shared_->log->open_reader(start));
    return std::unique_ptr<LogReader>(std::move(reader));
  }
  explicit LineageReader(std::shared_ptr<const Shared> shared) : shared_(std::move(shared)) {}

  Result<std::optional<Fetch>> poll(Milliseconds wait, size_t max_records) override {
    for (auto& [tp, place] : places_)
      if (place.gone && !place.paused) return *place.gone;
    TRY_ASSIGN(auto fetch, inner_->poll(wait, max_records));
    if (!fetch) return fetch;
    Place& place = places_.at(fetch->from);
    const PositionMap& map = shared_->part(fetch->from).map;
    size_t kept = 0;
    Offset last = place.next;  // behind the last record
    for (RecordView& record : fetch->records) {
      Offset at = shared_->fresh(record.offset);
      if (record.offset < map.next) {
        TRY_ASSIGN(at, shared_->first_place(fetch->from, record));
        std::erase_if(record.headers, [](const HeaderView& header) { return header.name == kHeaderPlace; });
      }
      if (at < place.next) continue;  // the reader began somewhat before what was asked for
      record.offset = at;
      last = at + 1;
      if (&fetch->records[kept] != &record) fetch->records[kept] = std::move(record);
      ++kept;
    }
    fetch->records.resize(kept);
    if (fetch->next > map.next)
      place.next = std::max(last, shared_->fresh(fetch->next));
    else
      place.next = fetch->next == map.next ? std::max(last, map.first.end) : last;
    fetch->next = place.next;
    return fetch;
  }

  Result<void> seek(const TopicPartition& tp, Offset to) override {
    TRY_ASSIGN(const Offset offset, begin(tp, to));
    return inner_->seek(tp, offset);
  }
  void pause(const TopicPartition& tp) override {
    places_.at(tp).paused = true;
    inner_->pause(tp);
  }
  void resume(const TopicPartition& tp) override {
    places_.at(tp).paused = false;
    inner_->resume(tp);
  }

 private:
  struct Place {
    Offset next;
    bool paused = false;
    std::optional<Error> gone;  // retention took what was asked for; stays until a seek
  };

  /// Where to read from so that nothing at the place or behind it is missed.
  Result<Offset> begin(const TopicPartition& tp, Offset to) {
    Place& place = places_[tp];
    place.next = to;
    place.gone.reset();
    const PositionMap& map = shared_->part(tp).map;
    if (to >= map.first.end) return shared_->to_offset(tp, to);
    const Offset from = shared_->floor(map, to);
    TRY_ASSIGN(const OffsetRange there, shared_->log->range(tp));
    if (there.start <= from) return from;
    TRY_ASSIGN(const Offset first, shared_->to_place(tp, there.start));
    if (to < first)
      place.gone = Error{Errc::kOutOfRange, "reading " + to_string(tp) + " from offset " + std::to_string(to.value) +
                                                ": what is left of it begins at " + std::to_string(first.value)};
    return there.start;
  }

  std::shared_ptr<const Shared> shared_;
  std::map<TopicPartition, Place> places_;
  std::unique_ptr<LogReader> inner_;
};

class LineageWriter : public LogWriter {
 public:
  LineageWriter(std::shared_ptr<const Shared> shared, std::unique_ptr<LogWriter> inner)
      : shared_(std::move(shared)), inner_(std::move(inner)) {}

  Result<void> prepare(Transaction transaction) override {
    if (transaction.offsets)
      for (auto& [tp, offset] : transaction.offsets->offsets) {
        TRY_ASSIGN(offset, shared_->to_offset(tp, offset));
      }
    if (transaction.metadata)
      transaction.metadata = [this, made = std::move(transaction.metadata)](std::span<const Offset> offsets) {
        return made(places(offsets));
      };
    return inner_->prepare(std::move(transaction));
  }
  Result<std::vector<Offset>> commit() override {
    TRY_ASSIGN(const auto offsets, inner_->commit());
    return places(offsets);
  }
  Result<void> abort() override { return inner_->abort(); }

 private:
  std::vector<Offset> places(std::span<const Offset> offsets) const {
    std::vector<Offset> out;
    for (const Offset offset : offsets) out.push_back(shared_->fresh(offset));
    return out;
  }

  std::shared_ptr<const Shared> shared_;
  std::unique_ptr<LogWriter> inner_;
};

class LineageLog : public Log {
 public:
  explicit LineageLog(std::shared_ptr<const Shared> shared) : shared_(std::move(shared)), log_(*shared_->log) {}

  std::string describe() const override { return log_.describe() + ", lineage " + lineage(); }
  Result<std::string> cluster_id() override {
    TRY_ASSIGN(const std::string id, log_.cluster_id());
    return id + "-lineage-" + lineage();
  }
  std::string lineage() const override { return std::to_string(shared_->number); }
  LogMemory memory() override { return log_.memory(); }
  int64_t distance(const TopicPartition& tp, Offset from, Offset to) override {
    const PositionMap& map = shared_->part(tp).map;
    const Offset fresh = shared_->fresh(map.next);
    if (from < fresh && to > fresh) return std::max<int64_t>(0, map.first.end - from) + (to - fresh);
    return to - from;
  }

  Result<void> create_topics(std::span<const TopicConfig> topics) override { return log_.create_topics(topics); }
  Result<std::vector<TopicConfig>> topics() override { return log_.topics(); }
  Result<int32_t> partition_count(const std::string& topic) override { return log_.partition_count(topic); }
  Result<OffsetRange> range(const TopicPartition& tp) override { return shared_->range(tp); }
  Result<Offset> written(const TopicPartition& tp) override {
    TRY_ASSIGN(const Offset offset, log_.written(tp));
    return shared_->to_place(tp, offset);
  }
  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    return LineageReader::open(shared_, from);
  }
  Result<std::unique_ptr<LogWriter>> open_writer(const std::string& transactional_id) override {
    TRY_ASSIGN(auto writer, log_.open_writer(transactional_id));
    return std::unique_ptr<LogWriter>(std::make_unique<LineageWriter>(shared_, std::move(writer)));
  }
  Result<std::unique_ptr<LogProducer>> open_producer() override { return log_.open_producer(); }
  Result<std::unique_ptr<Membership>> join(const std::string& group, const std::vector<std::string>& topics,
                                           const std::string& instance_id) override {
    return log_.join(group, topics, instance_id);
  }
  Result<GroupView> members(const std::string& group) override { return log_.members(group); }
  Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string& group,
                                                              std::span<const TopicPartition> of) override {
    TRY_ASSIGN(auto found, log_.committed(group, of));
    for (auto& [tp, commit] : found) {
      TRY_ASSIGN(commit.offset, shared_->to_place(tp, commit.offset));
    }
    return found;
  }
  Result<void> commit_offsets(const OffsetCommit& commit, const Membership* member) override {
    OffsetCommit translated = commit;
    for (auto& [tp, offset] : translated.offsets) {
      TRY_ASSIGN(offset, shared_->to_offset(tp, offset));
    }
    return log_.commit_offsets(translated, member);
  }
  Result<void> delete_before(const TopicPartition& tp, Offset before) override {
    TRY_ASSIGN(const Offset offset, shared_->to_offset(tp, before));
    return log_.delete_before(tp, offset);
  }

 private:
  std::shared_ptr<const Shared> shared_;
  Log& log_;
};

}  // namespace

std::unique_ptr<Log> open_lineage_log(std::shared_ptr<Log> log, Lineage lineage, const std::string& prefix) {
  auto shared = std::make_shared<Shared>();
  shared->log = std::move(log);
  shared->number = lineage.number;
  for (auto& [bare, map] : lineage.maps) shared->parts[{prefix + bare.topic, bare.partition}] = {bare, std::move(map)};
  return std::make_unique<LineageLog>(std::move(shared));
}

Result<std::unique_ptr<Log>> follow_lineage(std::unique_ptr<Log> log, const std::string& prefix) {
  TRY_ASSIGN(LineageStatements said, read_lineage(*log, prefix));
  if (said.opened) return open_lineage_log(std::move(log), std::move(*said.opened), prefix);
  if (said.plan.empty()) return log;
  return Error{Errc::kRefused, "RESTORE_INCOMPLETE: opening " + log->describe() +
                                   ": a restore was begun and is not through; `assay replay run --into-log` with the same archive "
                                   "goes on with it"};
}

}  // namespace assay::streams
