#include "streams/task.h"

#include <algorithm>
#include <utility>

#include "processors/audit_chain.h"
#include "schemas/planted.h"
#include "streams/read_to_end.h"

namespace assay::streams {
namespace {

/// Hash of the manifest that stands at one place; nothing when none does.
Result<std::optional<std::string>> manifest_hash_at(Log& log, const TopicPartition& tp, OffsetRange there, Offset at,
                                                    const std::atomic<bool>& stop) {
  std::optional<std::string> hash;
  if (at < there.start || at >= there.end) return hash;
  TRY(read_ranges(
      log, {{tp, {at, at + 1}}},
      [&](const TopicPartition&, const RecordView& record) -> Result<bool> {
        hash = Manifest::hash(record.value.value_or(""));
        return true;
      },
      &stop));
  return hash;
}

/// How the log has the records that a store folded last.
class Anchors {
 public:
  Anchors(const TaskMeta& meta, const TopicNames& names, const std::map<TopicPartition, OffsetRange>& inputs) {
    for (const auto& [bare, anchor] : meta.anchors) {
      const TopicPartition tp{names.full(bare.topic), bare.partition};
      auto input = inputs.find(tp);
      if (input == inputs.end() || anchor.at < input->second.start) continue;  // no input now, or retention took it
      anchors_[tp] = anchor;
      found_[tp] = false;
      if (anchor.at < input->second.end) ranges_[tp] = {anchor.at, anchor.at + 1};
    }
  }
  const std::map<TopicPartition, OffsetRange>& ranges() const { return ranges_; }
  /// Takes a record of those ranges.
  void take(const TopicPartition& tp, const RecordView& record) {
    const Anchor& anchor = anchors_.at(tp);
    found_[tp] = record.offset == anchor.at && processors::anchor_of(record) == anchor.hash;
  }
  /// The place of one that is another record now.
  std::optional<std::string> other() const {
    for (const auto& [tp, same] : found_)
      if (!same) return to_string(tp) + " at offset " + std::to_string(anchors_.at(tp).at.value);
    return std::nullopt;
  }
  bool any() const { return !anchors_.empty(); }

 private:
  std::map<TopicPartition, Anchor> anchors_;
  std::map<TopicPartition, OffsetRange> ranges_;
  std::map<TopicPartition, bool> found_;
};

/// The halt that another fold of the same inputs is.
Error halted(const Error& error) {
  return error.code == Errc::kParity ? Error{Errc::kIncomplete, "LOG_DIVERGED: " + error.message} : error;
}

/// While records follow each other that have waited for so many commit intervals, a commit takes as long: larger ones cost less for
/// each record, and nobody who keeps up ever sees that.
constexpr int kBacklogIntervals = 10;

constexpr int64_t kRepeatWithin = 1000;     // offsets that are looked through first
constexpr size_t kChunkRecords = 16;        // folded between two looks at what the commit holds
constexpr Milliseconds kShowsWithin{5000};  // a decided transaction, everywhere

}  // namespace

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

Result<void> Task::open_fold() {
  fold_.reset();
  auto fold = Fold::open(spec_, names_, store_);
  if (!fold && fold.error().code == Errc::kCorrupt) damage_ = fold.error();
  if (!fold) return fold.error();
  fold_ = std::move(*fold);
  return {};
}

std::vector<TopicPartition> Task::inputs() const {
  std::vector<TopicPartition> out;
  for (auto [topic, partition] : spec_.inputs) out.push_back({names_.full(topic), partition});
  return out;
}

Result<Evidence> Task::gather(const std::atomic<bool>& stop) {
  const std::vector<TopicPartition> of = inputs();
  const TopicPartition manifests{names_.full(Topic::kManifests), spec_.manifest_partition};
  // Looked at first: a manifest that stands there now is committed with its offsets before those are read.
  TRY_ASSIGN(OffsetRange before, log_.range(manifests));
  TRY_ASSIGN(auto committed, log_.committed(spec_.group, of));
  for (const Milliseconds until = runtime_.uptime() + kShowsWithin;;) {
    TRY_ASSIGN(Evidence evidence, gather(of, committed, before.end, stop));
    if (!is_halt(decide(evidence).outcome)) return evidence;
    // The owner, or a newer one, may have committed in between: what looks torn then is only two moments of one log.
    TRY_ASSIGN(before, log_.range(manifests));
    TRY_ASSIGN(auto now, log_.committed(spec_.group, of));
    if (now == committed) {
      // Nor has anybody waited for a follower until the last commit shows everywhere, as a writer does that is opened.
      if (writer_ != nullptr || stop || runtime_.uptime() >= until) return evidence;
      TRY_ASSIGN(const Offset written, log_.written(manifests));
      if (before.end >= written) return evidence;
      runtime_.sleep(Milliseconds(20));
    }
    committed = std::move(now);
  }
}

Result<Evidence> Task::gather(const std::vector<TopicPartition>& inputs, const std::map<TopicPartition, CommittedOffset>& committed,
                              Offset manifests_end, const std::atomic<bool>& stop) {
  Evidence e;
  const TaskMeta& meta = fold_->meta();
  e.stored_sequence = meta.sequence;
  e.stored_manifest_hash = meta.manifest_hash;
  for (const TopicPartition& tp : inputs) {
    TRY_ASSIGN(e.inputs[tp], log_.range(tp));
  }
  e.stored_positions = input_positions(meta);
  for (const auto& [tp, commit] : committed) {
    auto mark = CommitMark::decode(commit.metadata);
    if (!mark) {
      e.foreign_mark = commit.metadata.empty() ? "(none)" : commit.metadata;
      continue;
    }
    // Every commit of a task names all its inputs, so the marks agree.
    if (!e.mark || mark->sequence > e.mark->sequence) e.mark = std::move(*mark);
    e.committed[tp] = commit.offset;
  }

  const TopicPartition manifests{names_.full(Topic::kManifests), spec_.manifest_partition};
  TRY_ASSIGN(const OffsetRange there, log_.range(manifests));
  const Offset last = e.mark ? e.mark->manifest_offset : Offset(-1);
  Anchors anchors(meta, names_, e.inputs);
  std::map<TopicPartition, OffsetRange> look = anchors.ranges();
  if (!e.mark)
    look[manifests] = {there.start, std::min(there.end, manifests_end)};
  else if (last >= there.start && last < there.end)
    look[manifests] = {last, std::max(last + 1, std::min(there.end, manifests_end))};
  TRY(read_ranges(
      log_, look,
      [&](const TopicPartition& tp, const RecordView& record) -> Result<bool> {
        if (tp != manifests)
          anchors.take(tp, record);
        else if (record.offset == last)
          e.last_manifest_hash = Manifest::hash(record.value.value_or(""));
        else
          e.later_manifest = true;
        return true;
      },
      &stop));
  if (auto other = anchors.other()) {
    e.anchor = AnchorFound::kOther;
    e.anchor_place = *other;
  } else if (anchors.any()) {
    e.anchor = AnchorFound::kSame;
  }
  if (e.mark && meta.sequence != e.mark->sequence) TRY(find_base(e, manifests, there, stop));
  return e;
}

/// What a store that does not stand at the mark can start from.
Result<void> Task::find_base(Evidence& e, const TopicPartition& manifests, OffsetRange there, const std::atomic<bool>& stop) {
  if (fold_->meta().sequence > 0) {
    TRY_ASSIGN(e.stored_manifest_in_log, manifest_hash_at(log_, manifests, there, fold_->meta().manifest_offset, stop));
  } else {
    ManifestReader reader(log_, names_, spec_, 0, there, &stop);
    TRY_ASSIGN(auto first, reader.next());
    if (first)
      for (const InputRange& range : first->manifest.ranges)
        e.first.try_emplace({names_.full(range.tp.topic), range.tp.partition}, range.from);
  }
  TRY_ASSIGN(const auto copies, store_.checkpoints());
  for (const state::Checkpoint& copy : copies) {
    auto meta = TaskMeta::decode(copy.note);
    if (!meta || meta->sequence > e.mark->sequence || bad_checkpoints_.contains(copy.sequence)) continue;
    TRY_ASSIGN(const auto hash, manifest_hash_at(log_, manifests, there, meta->manifest_offset, stop));
    if (hash != meta->manifest_hash) continue;
    Anchors anchors(*meta, names_, e.inputs);
    TRY(read_ranges(
        log_, anchors.ranges(),
        [&](const TopicPartition& tp, const RecordView& record) -> Result<bool> {
          anchors.take(tp, record);
          return true;
        },
        &stop));
    if (anchors.other()) continue;
    e.checkpoint = KnownCheckpoint{copy.sequence, input_positions(*meta)};
    break;
  }
  return {};
}

/// Positions of the inputs, by full name.
std::map<TopicPartition, Offset> Task::input_positions(const TaskMeta& meta) const {
  std::map<TopicPartition, Offset> out;
  for (const auto& [bare, offset] : meta.positions)
    if (bare.topic != topic_spec(Topic::kConfig).name) out[{names_.full(bare.topic), bare.partition}] = offset;
  return out;
}

Result<Evidence> Task::recover(const std::atomic<bool>& stop) {
  for (;;) {
    TRY(open_fold());
    auto gathered = gather(stop);
    if (stop) return Evidence();  // what it missed for that is no error
    if (!gathered) return gathered.error();
    Evidence evidence = std::move(*gathered);
    const Decision decision = decide(evidence);
    if (events_.recovered) events_.recovered(spec_, decision.outcome, decision.detail);
    if (is_halt(decision.outcome))
      return Error{Errc::kIncomplete,
                   std::string(recovery_name(decision.outcome)) + ": starting " + spec_.name + ": " + decision.detail};
    if (decision.outcome == Recovery::kCatchUp && !(planted(Bug::kPromotedEarly) && std::exchange(warm_, false))) {
      TRY_ASSIGN(ManifestReader manifests, next_manifests(stop));
      RangeReader ranges(log_, &stop);
      TRY(catch_up(*evidence.mark, manifests, ranges, stop));
    }
    if (decision.outcome != Recovery::kRestore) return evidence;
    TRY(restore(evidence));
  }
}

Result<void> Task::open(const std::atomic<bool>& stop) {
  reader_.reset();
  fetched_ = {};
  folded_ = 0;
  inputs_.clear();
  if (writer_ == nullptr) {
    std::string id = spec_.transactional_id;
    if (planted(Bug::kStaleFencing)) id += "-" + member_->id();
    TRY_ASSIGN(writer_, log_.open_writer(id));
  }
  auto recovered = recover(stop);
  if (!recovered) return halted(recovered.error());
  const Evidence evidence = std::move(*recovered);
  if (stop) return {};
  fold_->enter(log_.lineage());

  // Inputs that were never folded.
  for (const auto& [tp, range] : evidence.inputs) {
    auto committed = evidence.committed.find(tp);
    if (!fold_->position(tp)) fold_->set_position(tp, committed != evidence.committed.end() ? committed->second : range.start);
  }
  const TopicPartition config{names_.full(Topic::kConfig), 0};
  if (!fold_->position(config)) fold_->set_position(config, Offset(0));
  TRY_ASSIGN(const auto copies, store_.checkpoints());
  checkpointed_.reset();
  for (const state::Checkpoint& copy : copies)
    if (auto meta = TaskMeta::decode(copy.note); meta && meta->sequence <= fold_->meta().sequence && !checkpointed_)
      checkpointed_ = meta->instant;

  std::map<TopicPartition, Offset> from;
  for (const auto& [tp, range] : evidence.inputs) from[tp] = *fold_->position(tp);
  if (planted(Bug::kOffsetOffByOne) && decide(evidence).outcome != Recovery::kFresh)
    for (auto& [tp, at] : from)
      if (at < evidence.inputs.at(tp).end) at = at + 1;
  from[config] = *fold_->position(config);
  TRY_ASSIGN(reader_, log_.open_reader(from));
  return fold_config(stop);
}

/// Puts the store's rows aside for those of a checkpoint, or for none.
Result<void> Task::replace_store(std::string_view aside, std::optional<int64_t> checkpoint, std::string why) {
  const Milliseconds started = runtime_.uptime();
  fold_.reset();
  TRY_ASSIGN(std::string former, store_.replace(aside, checkpoint));
  if (events_.restored)
    events_.restored(spec_, {std::move(why), checkpoint.value_or(0), std::move(former), runtime_.uptime() - started});
  return {};
}

/// Takes the checkpoint and makes sure that it is what it says. One that is not is not tried again.
Result<void> Task::restore(const Evidence& e) {
  const int64_t sequence = e.checkpoint->sequence;
  const std::string_view aside = e.stored_sequence > e.mark->sequence ? "ahead" : "behind";
  auto restored = [&]() -> Result<void> {
    TRY(replace_store(aside, sequence, "it stood at manifest " + std::to_string(e.stored_sequence)));
    TRY_ASSIGN(const TaskMeta meta, read_meta(store_));
    TRY_ASSIGN(const state::Digest digest, recompute_digest(store_, spec_));
    if (meta.sequence == sequence && meta.digest == digest) return {};
    return Error{Errc::kCorrupt, "checkpoint " + std::to_string(sequence) + " of " + spec_.name + " holds digest " + digest.hex() +
                                     " at manifest " + std::to_string(meta.sequence) + " instead of " + meta.digest.hex()};
  }();
  if (restored) return restored;
  const Errc code = restored.error().code;
  if (code == Errc::kCorrupt || code == Errc::kNotFound) bad_checkpoints_.insert(sequence);
  if (code == Errc::kNotFound) return {};  // the store is as it was
  if (code != Errc::kCorrupt) return restored;
  return replace_store("corrupt", std::nullopt, restored.error().message);
}

/// Reads on behind the store's manifest, as far as it is told to.
Result<ManifestReader> Task::next_manifests(const std::atomic<bool>& stop) {
  Offset from = fold_->meta().manifest_offset + 1;
  if (fold_->meta().sequence == 0) {
    TRY_ASSIGN(const OffsetRange there, log_.range({names_.full(Topic::kManifests), spec_.manifest_partition}));
    from = there.start;
  }
  return ManifestReader(log_, names_, spec_, fold_->meta().sequence, {from, from}, &stop);
}

/// Folds the manifests behind the store's, up to the mark's. Errors: kParity when one gives something else than it says.
Result<void> Task::catch_up(const CommitMark& mark, ManifestReader& manifests, RangeReader& ranges, const std::atomic<bool>& stop) {
  manifests.extend(mark.manifest_offset + 1);
  for (;;) {
    auto next = manifests.next();
    if (stop) return {};  // the store stands at a manifest; the next start goes on from there
    if (!next) return next.error();
    if (!*next) break;
    const auto& [at, manifest, hash] = **next;
    for (const InputRange& range : manifest.ranges)  // a store that was empty learns here where its inputs began
      if (const TopicPartition tp{names_.full(range.tp.topic), range.tp.partition}; !fold_->position(tp))
        fold_->set_position(tp, range.from);
    auto commit = refold(ranges, names_, *fold_, manifest, hash);
    if (stop) return {};
    if (!commit) return commit.error();
    if (planted(Bug::kOutputsInCatchUp)) {
      Transaction again;
      again.records = std::move(commit->transaction.records);
      again.records.pop_back();  // the manifest
      TRY(writer_->prepare(std::move(again)));
      TRY_ASSIGN(auto places, writer_->commit());
      if (places.empty()) return {};
    }
    TRY(persist(*commit, at));
    if (events_.refolded) events_.refolded(spec_, manifest, mark.sequence);
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
  while (folded_ < records.size()) {
    const size_t room =
        std::max<size_t>(1, options_.max_commit_records - std::min(options_.max_commit_records, fold_->staged_records()));
    const auto chunk = std::span(records).subspan(folded_, std::min({kChunkRecords, room, records.size() - folded_}));
    TRY(fold_->add(fetched_.from, chunk));
    TRY(compare_repeats());
    if (input)
      for (const RecordView& record : chunk) inputs_.push_back(record.timestamp);
    folded_ += chunk.size();
    if (full()) break;
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

/// Whether what was told again is what was told first. It stands not far before: a torn transaction is told again at once.
Result<void> Task::compare_repeats() {
  for (const Repeat& repeat : fold_->take_repeats()) {
    TRY_ASSIGN(const OffsetRange there, log_.range(repeat.tp));
    std::optional<Offset> first;
    std::string said;
    Offset to = repeat.at;
    for (int64_t width = kRepeatWithin; !first && to > there.start; width *= 2) {
      const Offset from(std::max(there.start.value, to.value - width));
      TRY(read_ranges(log_, {{repeat.tp, {from, to}}}, [&](const TopicPartition&, const RecordView& record) -> Result<bool> {
        if (record.header(kHeaderWriter) != repeat.stamp) return true;
        first = record.offset;
        said = said_of(record);
        return false;
      }));
      to = from;
    }
    if (first && said != repeat.said && events_.told_otherwise) events_.told_otherwise(spec_, repeat, *first);
  }
  return {};
}

Result<void> Task::commit() {
  const Milliseconds started = runtime_.uptime();
  const size_t staged_bytes = fold_->staged_bytes();
  TRY_ASSIGN(Commit commit, fold_->finish());
  commit.transaction.member = planted(Bug::kStaleFencing) ? nullptr : member_;
  const processors::Tally part = fold_->outputs().tally;
  if (events_.staged) events_.staged(spec_, commit.transaction.records);
  if (planted(Bug::kStoreBeforeCommit)) TRY(persist(commit, fold_->meta().manifest_offset + 1));
  std::optional<Transaction> again;
  if (planted(Bug::kFailedCommit)) again = commit.transaction;
  TRY(writer_->prepare(std::move(commit.transaction)));
  Result<std::vector<Offset>> places = writer_->commit();
  if (planted(Bug::kFailedCommit) && !places && places.error().code == Errc::kAmbiguous) {
    TRY_ASSIGN(writer_, log_.open_writer(spec_.transactional_id));
    TRY(writer_->prepare(std::move(*again)));
    places = writer_->commit();
  }
  if (planted(Bug::kUnacknowledgedCommit) && !places && places.error().code == Errc::kAmbiguous)
    places = std::vector<Offset>{fold_->meta().manifest_offset + 1};
  if (!places) return places.error();
  if (!planted(Bug::kStoreBeforeCommit)) TRY(persist(commit, places->back()));
  if (events_.committed)
    events_.committed(spec_,
                      {commit.manifest, part, inputs_, runtime_.uptime() - started, staged_bytes, fold_->processor().held().cache});
  inputs_.clear();
  take_checkpoint();
  return {};
}

/// Copies the store when it is time. A copy that cannot be had stops nothing: it is tried again when the next is due.
void Task::take_checkpoint() {
  const TaskMeta& meta = fold_->meta();
  if (options_.checkpoint_interval <= Milliseconds(0)) return;
  if (checkpointed_ && meta.instant - *checkpointed_ < options_.checkpoint_interval.count()) return;
  checkpointed_ = meta.instant;
  const Milliseconds started = runtime_.uptime();
  auto size_bytes = store_.checkpoint({meta.sequence, meta.encode()}, options_.checkpoints_kept);
  if (!size_bytes) {
    if (events_.checkpoint_failed) events_.checkpoint_failed(spec_, size_bytes.error());
  } else if (events_.checkpointed) {
    events_.checkpointed(spec_, {meta.sequence, meta.instant, *size_bytes, runtime_.uptime() - started});
  }
}

Result<void> Task::persist(const Commit& commit, Offset manifest_offset) {
  Result<void> written = fold_->persist(commit, manifest_offset);
  if (!written && events_.store_failed) events_.store_failed(spec_, written.error());
  return written;
}

Result<void> Task::on_sound_store(const std::function<Result<void>()>& work) {
  for (;;) {
    Result<void> result = work();
    if (fold_ != nullptr && fold_->store_error() && fold_->store_error()->code == Errc::kCorrupt) damage_ = fold_->store_error();
    if (result || !damage_) return result;
    reader_.reset();
    // Offsets may show before the manifest that was committed with them; a new writer is there when both do.
    writer_.reset();
    TRY(replace_store("corrupt", std::nullopt, std::exchange(damage_, std::nullopt)->message));
  }
}

Result<void> Task::run(const std::atomic<bool>& stop) {
  return on_sound_store([&] { return run_on_store(stop); });
}

Result<void> Task::follow(const std::atomic<bool>& stop) {
  return on_sound_store([&]() -> Result<void> {
    for (;;) {
      Result<void> result = follow_on_store(stop);
      if (result || result.error().code != Errc::kParity) return result;
      // The store may be at fault. When the next one comes to the same, it is not.
      if (std::exchange(folded_anew_, true)) return halted(result.error());
      TRY(replace_store("diverged", std::nullopt, result.error().message));
    }
  });
}

/// The last manifest that the group's offsets name; nothing when they name none.
Result<std::optional<CommitMark>> Task::read_mark() {
  const std::vector<TopicPartition> of = inputs();
  TRY_ASSIGN(const auto committed, log_.committed(spec_.group, of));
  std::optional<CommitMark> last;
  for (const auto& [tp, commit] : committed) {
    auto mark = CommitMark::decode(commit.metadata);
    if (!mark) return std::optional<CommitMark>();
    if (!last || mark->sequence > last->sequence) last = std::move(*mark);
  }
  return last;
}

Result<void> Task::follow_on_store(const std::atomic<bool>& stop) {
  while (!stop) {
    TRY(recover(stop));
    if (stop) return {};
    TRY_ASSIGN(ManifestReader manifests, next_manifests(stop));
    RangeReader ranges(log_, &stop);
    while (!stop) {
      TRY_ASSIGN(const auto mark, read_mark());
      const TaskMeta& meta = fold_->meta();
      if (mark && events_.followed) events_.followed(spec_, meta.sequence, mark->sequence);
      if (mark && mark->sequence > meta.sequence) {
        TRY(catch_up(*mark, manifests, ranges, stop));
        if (stop) return {};
        if (events_.followed) events_.followed(spec_, meta.sequence, mark->sequence);
      }
      // The log has gone back, or tells another story: the table knows what that means.
      if (mark && (mark->sequence < meta.sequence || mark->manifest_hash != meta.manifest_hash)) break;
      if (!mark && meta.sequence > 0) break;
      for (const Milliseconds until = runtime_.uptime() + options_.follow_interval; !stop && runtime_.uptime() < until;)
        runtime_.sleep(Milliseconds(20));
    }
  }
  return {};
}

Result<void> Task::run_on_store(const std::atomic<bool>& stop) {
  TRY(open(stop));
  if (reader_ == nullptr) return {};  // stopped on the way
  Milliseconds due = runtime_.uptime(), backlog_due = due;
  bool told_running = false;
  const Milliseconds backlog_interval = kBacklogIntervals * options_.commit_interval;
  auto waited_for = [&](Milliseconds time) { return !inputs_.empty() && runtime_.now() - inputs_.back() >= time.count(); };
  auto room = [&] { return std::min(options_.poll_records, options_.max_commit_records - fold_->staged_records()); };
  for (;;) {
    const bool stopping = stop.load(std::memory_order_relaxed);
    bool ends = fold_->moved() && (stopping || full() || runtime_.uptime() >= due);
    if (ends && !stopping && !full() && runtime_.uptime() < backlog_due && waited_for(backlog_interval)) {
      if (fetched_.records.empty()) {
        TRY_ASSIGN(auto fetch, reader_->poll(Milliseconds(0), room()));
        if (fetch) {
          fetched_ = std::move(*fetch);
          if (fetched_.records.empty()) TRY(fold_fetched());  // news of an end
        }
      }
      ends = fetched_.records.empty();
    }
    if (ends) {
      if (auto committed = commit(); !committed) {
        const Errc code = committed.error().code;
        if (code != Errc::kAborted && code != Errc::kAmbiguous) return committed.error();
        if (events_.retrying) events_.retrying(spec_, committed.error());
        // Only a new writer settles what an unanswered commit came to, before anybody looks at the offsets.
        if (code == Errc::kAmbiguous && !planted(Bug::kAmbiguousProducer)) writer_.reset();
        if (stop) return {};  // the next start finds out
        std::map<TopicPartition, Offset> were;
        if (planted(Bug::kSeekForgotten)) were = input_positions(fold_->meta());
        TRY(open(stop));
        if (reader_ == nullptr) return {};
        for (const auto& [tp, at] : were) TRY(reader_->seek(tp, at));
        told_running = false;  // what was recovered just now has been told as a start
      }
      continue;
    }
    if (stopping) return {};
    const bool was_idle = !fold_->moved();
    if (was_idle && !std::exchange(told_running, true) && events_.running) events_.running(spec_);
    const Milliseconds wait = was_idle ? Milliseconds(100) : std::max(Milliseconds(0), due - runtime_.uptime());
    if (fetched_.records.empty()) {
      TRY_ASSIGN(auto fetch, reader_->poll(wait, room()));
      if (!fetch) continue;
      fetched_ = std::move(*fetch);
    }
    TRY(fold_fetched());
    if (was_idle) {
      due = runtime_.uptime() + options_.commit_interval;
      backlog_due = runtime_.uptime() + backlog_interval;
    }
  }
}

}  // namespace assay::streams
