#include "streams/refold.h"

#include <algorithm>
#include <utility>

namespace assay::streams {
namespace {

// For records that the log says exist: 30 s in all.
constexpr Milliseconds kPollWait{200};
constexpr int kEmptyPollsMax = 150;
constexpr size_t kFetchRecords = 5000;
constexpr size_t kFetchManifests = 1000;

bool stopped(const std::atomic<bool>* stop) { return stop != nullptr && stop->load(std::memory_order_relaxed); }

}  // namespace

ManifestReader::ManifestReader(Log& log, const TopicNames& names, const TaskSpec& spec, int64_t after, OffsetRange places,
                               const std::atomic<bool>* stop)
    : log_(log),
      tp_{names.full(Topic::kManifests), spec.manifest_partition},
      task_(spec.name),
      expected_(after + 1),
      places_(places),
      stop_(stop) {}

Result<std::optional<PlacedManifest>> ManifestReader::next() {
  if (reader_ == nullptr && places_.start < places_.end) {
    TRY_ASSIGN(reader_, log_.open_reader({{tp_, places_.start}}));
    fetch_.next = places_.start;
  }
  for (int empty = 0;;) {
    while (used_ < fetch_.records.size()) {
      const RecordView& record = fetch_.records[used_];
      if (record.offset >= places_.end) return std::optional<PlacedManifest>();  // it stays, for an end that is extended
      ++used_;
      const std::string_view text = record.value.value_or("");
      TRY_ASSIGN(Manifest manifest, Manifest::decode(text));
      if (manifest.task != task_ || manifest.sequence < expected_) continue;
      if (manifest.sequence != expected_)
        return Error{Errc::kIncomplete, "TORN_TXN: manifest " + std::to_string(expected_) + " of " + task_ +
                                            " is missing before offset " + std::to_string(record.offset.value)};
      ++expected_;
      return std::optional<PlacedManifest>({record.offset, std::move(manifest), Manifest::hash(text)});
    }
    if (reader_ == nullptr || fetch_.next >= places_.end) return std::optional<PlacedManifest>();
    if (stopped(stop_)) return Error{Errc::kAborted, "reading manifests of " + task_ + ": stopped"};
    TRY_ASSIGN(auto fetch, reader_->poll(kPollWait, kFetchManifests));
    if (fetch) {
      fetch_ = std::move(*fetch);
      used_ = 0;
      empty = 0;
    } else if (++empty > kEmptyPollsMax) {
      return Error{Errc::kUnreachable, "reading manifests of " + task_ + ": no answer"};
    }
  }
}

Result<void> RangeReader::read(const TopicPartition& tp, Offset from, Offset to,
                               const std::function<Result<void>(std::span<const RecordView>)>& each) {
  Place& place = places_[tp];
  if (place.reader == nullptr) {
    TRY_ASSIGN(place.reader, log_.open_reader({{tp, from}}));
    place.fetch.next = from;
  } else if (place.at != from) {
    TRY(place.reader->seek(tp, from));
    place.fetch = {};
    place.fetch.next = from;
    place.used = 0;
  }
  for (int empty = 0;;) {
    const std::span<const RecordView> left = std::span(place.fetch.records).subspan(place.used);
    const size_t count = static_cast<size_t>(std::ranges::lower_bound(left, to, {}, &RecordView::offset) - left.begin());
    TRY(each(left.first(count)));
    place.used += count;
    if (count < left.size() || place.fetch.next >= to) break;
    if (stopped(stop_)) return Error{Errc::kAborted, "reading " + to_string(tp) + ": stopped"};
    auto fetch = place.reader->poll(kPollWait, kFetchRecords);
    const std::string what = to_string(tp) + " from " + std::to_string(from.value) + " to " + std::to_string(to.value);
    if (!fetch && fetch.error().code == Errc::kOutOfRange)
      return Error{Errc::kIncomplete,
                   "INPUT_GAP: " + what + " cannot be read any more; the archive is needed: " + fetch.error().message};
    if (!fetch) return fetch.error();
    if (*fetch) {
      place.fetch = std::move(**fetch);
      place.used = 0;
      empty = 0;
    } else if (++empty > kEmptyPollsMax) {
      // A log that ends before them has not got them. One that does not has not said that they are gone: only that nobody answers.
      TRY_ASSIGN(const OffsetRange there, log_.range(tp));
      if (there.end < to)
        return Error{Errc::kIncomplete,
                     "INPUT_GAP: reading " + what + ": what there is ends at " + std::to_string(there.end.value)};
      return Error{Errc::kUnreachable, "reading " + what + ": the log gave nothing for 30 s"};
    }
  }
  place.at = to;
  return {};
}

Result<Commit> fold_manifest(RangeReader& ranges, const TopicNames& names, Fold& fold, const Manifest& manifest) {
  if (manifest.sequence != fold.meta().sequence + 1)
    return Error{Errc::kParity, "folding " + manifest.task + " manifest " + std::to_string(manifest.sequence) +
                                    " again: it follows manifest " + std::to_string(fold.meta().sequence) + " of the store"};
  fold.enter(manifest.lineage);
  fold.begin(manifest.instant);
  for (const InputRange& range : manifest.ranges) {
    const TopicPartition tp{names.full(range.tp.topic), range.tp.partition};
    TRY(ranges.read(tp, range.from, range.to, [&](std::span<const RecordView> records) { return fold.add(tp, records); }));
    fold.advance(tp, range.to);
  }
  TRY_ASSIGN(Commit commit, fold.finish());
  if (commit.manifest.code_version != manifest.code_version) {
    commit.manifest.code_version = manifest.code_version;
    commit.manifest_hash = Manifest::hash(commit.manifest.encode());
  }
  return commit;
}

std::string manifest_difference(const Commit& commit, const Manifest& on_log, const std::string& hash) {
  const Manifest& made = commit.manifest;
  auto instead = [](const std::string& what, const std::string& is, const std::string& was) {
    return what + " " + is + " instead of " + was;
  };
  for (size_t n = 0; n < std::max(made.ranges.size(), on_log.ranges.size()); ++n) {
    auto text = [&](const Manifest& m) {
      if (n >= m.ranges.size()) return std::string("none");
      const InputRange& r = m.ranges[n];
      return to_string(r.tp) + " [" + std::to_string(r.from.value) + ", " + std::to_string(r.to.value) + ")";
    };
    if (text(made) != text(on_log)) return instead("input range " + std::to_string(n + 1), text(made), text(on_log));
  }
  if (made.delivered != on_log.delivered)
    return std::to_string(made.delivered) + " records delivered instead of " + std::to_string(on_log.delivered);
  if (made.state_digest != on_log.state_digest) return instead("state digest", made.state_digest.hex(), on_log.state_digest.hex());
  if (made.output_hash != on_log.output_hash) return instead("output hash", made.output_hash, on_log.output_hash);
  if (!(made.outputs == on_log.outputs)) return "the counters of its outputs are others";
  if (made.previous != on_log.previous) return instead("manifest before", made.previous, on_log.previous);
  if (!hash.empty() && commit.manifest_hash != hash) return instead("manifest hash", commit.manifest_hash, hash);
  return {};
}

Result<Commit> refold(RangeReader& ranges, const TopicNames& names, Fold& fold, const Manifest& manifest,
                      const std::string& manifest_hash) {
  TRY_ASSIGN(Commit commit, fold_manifest(ranges, names, fold, manifest));
  if (const std::string difference = manifest_difference(commit, manifest, manifest_hash); !difference.empty())
    return Error{Errc::kParity,
                 "folding " + manifest.task + " manifest " + std::to_string(manifest.sequence) + " again: " + difference};
  return commit;
}

}  // namespace assay::streams
