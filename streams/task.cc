#include "streams/task.h"

#include <algorithm>
#include <utility>

namespace assay::streams {
namespace {

// For records that the log says exist: 30 s in all.
constexpr Milliseconds kPollWait{500};
constexpr int kEmptyPollsMax = 60;

/// Reads the record at one place; nothing when there is none.
Result<std::optional<std::string>> value_at(Log& log, const TopicPartition& tp, Offset at) {
  TRY_ASSIGN(OffsetRange range, log.range(tp));
  if (at < range.start || at >= range.end) return std::optional<std::string>();
  TRY_ASSIGN(auto reader, log.open_reader({{tp, at}}));
  for (int empty = 0;;) {
    TRY_ASSIGN(auto fetch, reader->poll(kPollWait, 1));
    if (!fetch) {
      if (++empty > kEmptyPollsMax)
        return Error{Errc::kUnreachable, "reading " + to_string(tp) + " at offset " + std::to_string(at.value) + ": no answer"};
      continue;
    }
    if (!fetch->records.empty()) {
      const RecordView& record = fetch->records.front();
      if (record.offset != at || !record.value) return std::optional<std::string>();
      return std::optional<std::string>(*record.value);
    }
    if (fetch->at_end || fetch->next > at) return std::optional<std::string>();
  }
}

constexpr size_t kFetchRecords = 5000;

}  // namespace

Result<std::vector<std::pair<Offset, Manifest>>> read_manifests(Log& log, const TopicNames& names, const TaskSpec& spec,
                                                                int64_t after_sequence, Offset from, Offset last) {
  const TopicPartition tp{names.full(Topic::kManifests), spec.manifest_partition};
  std::vector<std::pair<Offset, Manifest>> out;
  TRY_ASSIGN(auto reader, log.open_reader({{tp, from}}));
  int64_t expected = after_sequence + 1;
  int empty = 0;
  for (Offset at = from; at <= last;) {
    TRY_ASSIGN(auto fetch, reader->poll(kPollWait, 1000));
    if (!fetch) {
      if (++empty > kEmptyPollsMax) return Error{Errc::kUnreachable, "reading manifests of " + spec.name + ": no answer"};
      continue;
    }
    for (const RecordView& record : fetch->records) {
      if (record.offset > last) break;
      TRY_ASSIGN(Manifest manifest, Manifest::decode(record.value.value_or("")));
      if (manifest.task != spec.name || manifest.sequence < expected) continue;
      if (manifest.sequence != expected)
        return Error{Errc::kIncomplete, "TORN_TXN: manifest " + std::to_string(expected) + " of " + spec.name +
                                            " is missing before offset " + std::to_string(record.offset.value)};
      ++expected;
      out.emplace_back(record.offset, std::move(manifest));
    }
    at = fetch->next;
  }
  return out;
}

Result<void> RangeReader::read(const TopicPartition& tp, Offset from, Offset to,
                               const std::function<Result<void>(const RecordView&)>& each) {
  Place& place = places_[tp];
  if (place.reader == nullptr) {
    TRY_ASSIGN(place.reader, log_.open_reader({{tp, from}}));
  } else if (place.at != from) {
    TRY(place.reader->seek(tp, from));
    place.fetch = {};
    place.used = 0;
  }
  for (int empty = 0;;) {
    for (; place.used < place.fetch.records.size(); ++place.used) {
      const RecordView& record = place.fetch.records[place.used];
      if (record.offset >= to) break;
      TRY(each(record));
    }
    if (place.used < place.fetch.records.size() || place.fetch.next >= to) break;
    TRY_ASSIGN(auto fetch, place.reader->poll(kPollWait, kFetchRecords));
    if (fetch) {
      place.fetch = std::move(*fetch);
      place.used = 0;
    } else if (++empty > kEmptyPollsMax) {
      return Error{Errc::kIncomplete, "INPUT_GAP: " + to_string(tp) + " gives no record up to " + std::to_string(to.value)};
    }
  }
  place.at = to;
  return {};
}

Result<Commit> refold(RangeReader& ranges, const TopicNames& names, Fold& fold, const Manifest& manifest,
                      const std::string& manifest_hash) {
  auto differs = [&](std::string what) {
    return Error{Errc::kParity,
                 "folding " + manifest.task + " manifest " + std::to_string(manifest.sequence) + " again: " + std::move(what)};
  };
  if (manifest.sequence != fold.meta().sequence + 1)
    return differs("it follows manifest " + std::to_string(fold.meta().sequence) + " of the store");
  fold.begin(manifest.instant);
  for (const InputRange& range : manifest.ranges) {
    const TopicPartition tp{names.full(range.tp.topic), range.tp.partition};
    TRY(ranges.read(tp, range.from, range.to, [&](const RecordView& record) { return fold.add(tp, record); }));
    fold.advance(tp, range.to);
  }
  Commit commit = fold.finish();
  if (commit.manifest.delivered != manifest.delivered)
    return differs(std::to_string(commit.manifest.delivered) + " records delivered instead of " +
                   std::to_string(manifest.delivered));
  if (commit.manifest.state_digest != manifest.state_digest)
    return differs("state digest " + commit.manifest.state_digest.hex() + " instead of " + manifest.state_digest.hex());
  if (commit.manifest.output_hash != manifest.output_hash)
    return differs("output hash " + commit.manifest.output_hash + " instead of " + manifest.output_hash);
  if (!manifest_hash.empty() && commit.manifest_hash != manifest_hash)
    return differs("manifest hash " + commit.manifest_hash + " instead of " + manifest_hash);
  return commit;
}

Task::Task(Log& log, TopicNames names, TaskSpec spec, state::Store& store, const Membership* member, TaskOptions options,
           TaskEvents events, Runtime& runtime)
    : log_(log),
      names_(std::move(names)),
      spec_(std::move(spec)),
      store_(store),
      member_(member),
      options_(options),
      events_(std::move(events)),
      runtime_(runtime) {}

Result<Evidence> Task::gather(std::optional<CommitMark>& mark) {
  Evidence e;
  const TaskMeta& meta = fold_->meta();
  e.stored_sequence = meta.sequence;
  e.stored_manifest_hash = meta.manifest_hash;
  std::vector<TopicPartition> inputs;
  for (auto [topic, partition] : spec_.inputs) inputs.push_back({names_.full(topic), partition});
  for (const TopicPartition& tp : inputs) {
    TRY_ASSIGN(OffsetRange range, log_.range(tp));
    e.inputs[tp] = range;
  }
  for (const auto& [bare, offset] : meta.positions)
    if (bare.topic != topic_spec(Topic::kConfig).name) e.stored_positions[{names_.full(bare.topic), bare.partition}] = offset;
  TRY_ASSIGN(auto committed, log_.committed(spec_.group, inputs));
  for (const auto& [tp, commit] : committed) {
    TRY_ASSIGN(CommitMark one, CommitMark::decode(commit.metadata));
    // Every commit of a task names all its inputs, so the marks agree; the newest decides should an input be new.
    if (!mark || one.sequence > mark->sequence) mark = one;
    e.committed[tp] = commit.offset;
  }
  e.mark = mark;
  const TopicPartition manifests{names_.full(Topic::kManifests), spec_.manifest_partition};
  auto hash_at = [&](Offset at) -> Result<std::optional<std::string>> {
    TRY_ASSIGN(auto value, value_at(log_, manifests, at));
    return value ? std::optional<std::string>(Manifest::hash(*value)) : std::optional<std::string>();
  };
  if (mark) {
    TRY_ASSIGN(e.last_manifest_hash, hash_at(mark->manifest_offset));
    if (meta.sequence > 0 && meta.sequence < mark->sequence) {
      TRY_ASSIGN(e.stored_manifest_in_log, hash_at(meta.manifest_offset));
    }
  }
  return e;
}

Result<void> Task::open(const std::atomic<bool>& stop) {
  reader_.reset();
  fetched_ = {};
  folded_ = 0;
  inputs_.clear();
  if (writer_ == nullptr) {
    TRY_ASSIGN(writer_, log_.open_writer(spec_.transactional_id));
  }
  TRY_ASSIGN(fold_, Fold::open(spec_, names_, store_));
  std::optional<CommitMark> mark;
  TRY_ASSIGN(Evidence evidence, gather(mark));
  const Decision decision = decide(evidence);
  if (events_.recovered) events_.recovered(spec_, decision.outcome, decision.detail);
  if (is_halt(decision.outcome))
    return Error{Errc::kIncomplete,
                 std::string(recovery_name(decision.outcome)) + ": starting " + spec_.name + ": " + decision.detail};
  // Positions of inputs that were never folded: a fresh task, or an input that came since.
  for (const auto& [tp, range] : evidence.inputs)
    if (!fold_->position(tp)) fold_->set_position(tp, evidence.mark && evidence.committed.contains(tp) ? Offset(0) : range.start);
  const TopicPartition config{names_.full(Topic::kConfig), 0};
  if (!fold_->position(config)) fold_->set_position(config, Offset(0));
  if (decision.outcome == Recovery::kCatchUp) TRY(catch_up(*mark, stop));
  if (stop) return {};

  std::map<TopicPartition, Offset> from;
  for (const auto& [tp, range] : evidence.inputs) from[tp] = *fold_->position(tp);
  from[config] = *fold_->position(config);
  TRY_ASSIGN(reader_, log_.open_reader(from));
  return fold_config(stop);
}

Result<void> Task::catch_up(const CommitMark& mark, const std::atomic<bool>& stop) {
  const Offset from = fold_->meta().sequence == 0 ? Offset(0) : fold_->meta().manifest_offset + 1;
  TRY_ASSIGN(auto manifests, read_manifests(log_, names_, spec_, fold_->meta().sequence, from, mark.manifest_offset));
  RangeReader ranges(log_);
  for (const auto& [offset, manifest] : manifests) {
    if (stop) return {};  // the store stands at a manifest; the next start goes on from there
    auto commit = refold(ranges, names_, *fold_, manifest, Manifest::hash(manifest.encode()));
    if (!commit) {
      if (commit.error().code != Errc::kParity) return commit.error();
      return Error{Errc::kIncomplete, "LOG_DIVERGED: " + commit.error().message};
    }
    TRY(persist(*commit, offset));
    if (events_.refolded) events_.refolded(spec_, manifest);
  }
  if (fold_->meta().sequence != mark.sequence)
    return Error{Errc::kIncomplete, "TORN_TXN: the manifests of " + spec_.name + " end at " +
                                        std::to_string(fold_->meta().sequence) + ", the offsets name " +
                                        std::to_string(mark.sequence)};
  return {};
}

Result<void> Task::fold_config(const std::atomic<bool>& stop) {
  const TopicPartition config{names_.full(Topic::kConfig), 0};
  TRY_ASSIGN(OffsetRange range, log_.range(config));
  for (auto [topic, partition] : spec_.inputs) reader_->pause({names_.full(topic), partition});
  while (!stop && *fold_->position(config) < range.end) {
    TRY_ASSIGN(auto fetch, reader_->poll(Milliseconds(100), options_.poll_records));
    if (!fetch) continue;
    fetched_ = std::move(*fetch);
    do {
      TRY(fold_fetched());
    } while (!fetched_.records.empty());
  }
  for (auto [topic, partition] : spec_.inputs) reader_->resume({names_.full(topic), partition});
  return {};
}

bool Task::full() const {
  return fold_->staged_records() >= options_.max_commit_records || fold_->staged_bytes() >= options_.max_commit_bytes;
}

/// Folds of what was fetched as much as the commit takes, one record at least.
Result<void> Task::fold_fetched() {
  const std::vector<RecordView>& records = fetched_.records;
  if (records.empty() && fetched_.next <= *fold_->position(fetched_.from)) return {};
  fold_->begin(runtime_.now());
  const bool input = fetched_.from.topic != names_.full(Topic::kConfig);
  for (bool more = !records.empty(); more; more = folded_ < records.size() && !full()) {
    const RecordView& record = records[folded_++];
    TRY(fold_->add(fetched_.from, record));
    if (input) inputs_.push_back(record.timestamp);
  }
  if (folded_ < records.size()) {
    fold_->advance(fetched_.from, records[folded_ - 1].offset + 1);
  } else {
    fold_->advance(fetched_.from, fetched_.next);
    fetched_ = {};
    folded_ = 0;
  }
  return {};
}

Result<void> Task::commit() {
  const Milliseconds started = runtime_.uptime();
  const size_t staged_bytes = fold_->staged_bytes();
  Commit commit = fold_->finish();
  commit.transaction.member = member_;
  const processors::Tally part = fold_->outputs().tally;
  if (events_.staged) events_.staged(spec_, commit.transaction.records);
  TRY(writer_->prepare(std::move(commit.transaction)));
  TRY_ASSIGN(std::vector<Offset> places, writer_->commit());
  TRY(persist(commit, places.back()));
  if (events_.committed)
    events_.committed(spec_,
                      {commit.manifest, part, inputs_, runtime_.uptime() - started, staged_bytes, fold_->processor().held().cache});
  inputs_.clear();
  return {};
}

Result<void> Task::persist(const Commit& commit, Offset manifest_offset) {
  Result<void> written = fold_->persist(commit, manifest_offset);
  if (!written && events_.store_failed) events_.store_failed(spec_, written.error());
  return written;
}

Result<void> Task::run(const std::atomic<bool>& stop) {
  TRY(open(stop));
  if (reader_ == nullptr) return {};  // stopped on the way
  Milliseconds due = runtime_.uptime();
  bool told_running = false;
  for (;;) {
    const bool stopping = stop.load(std::memory_order_relaxed);
    if (fold_->moved() && (stopping || full() || runtime_.uptime() >= due)) {
      if (auto committed = commit(); !committed) {
        const Errc code = committed.error().code;
        if (code != Errc::kAborted && code != Errc::kAmbiguous) return committed.error();
        if (events_.retrying) events_.retrying(spec_, committed.error());
        // Only a new writer settles what an unanswered commit came to, before anybody looks at the offsets.
        if (code == Errc::kAmbiguous) writer_.reset();
        if (stopping) return {};
        TRY(open(stop));
        if (reader_ == nullptr) return {};
      }
      continue;
    }
    if (stopping) return {};
    const bool was_idle = !fold_->moved();
    if (was_idle && !std::exchange(told_running, true) && events_.running) events_.running(spec_);
    const Milliseconds wait = was_idle ? Milliseconds(100) : std::max(Milliseconds(0), due - runtime_.uptime());
    if (fetched_.records.empty()) {
      TRY_ASSIGN(auto fetch,
                 reader_->poll(wait, std::min(options_.poll_records, options_.max_commit_records - fold_->staged_records())));
      if (!fetch) continue;
      fetched_ = std::move(*fetch);
    }
    TRY(fold_fetched());
    if (was_idle) due = runtime_.uptime() + options_.commit_interval;
  }
}

}  // namespace assay::streams
