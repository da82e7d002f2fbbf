#include "replay/archive_log.h"

#include <algorithm>
#include <utility>

#include "replay/key_history.h"

namespace assay::replay {
namespace {

using streams::Fetch;
using streams::LogReader;
using streams::Milliseconds;
using streams::OffsetRange;

/// What is archived, shared by the log and its readers.
struct Content {
  std::unique_ptr<Archive> archive;
  std::map<TopicPartition, ArchiveChain> chains;  // by full name
  std::map<std::string, int32_t> partitions;      // by full name
  std::shared_ptr<streams::Log> live;

  /// Archived offsets; an empty range when there are none.
  OffsetRange range(const TopicPartition& tp) const {
    auto it = chains.find(tp);
    if (it == chains.end() || it->second.empty()) return {};
    return {it->second.front().segment.first, it->second.back().segment.next};
  }
};

Error read_only(const std::string& what) { return {Errc::kRefused, what + ": an archive is only read"}; }

class ArchiveReader : public LogReader {
 public:
  ArchiveReader(std::shared_ptr<const Content> content, const std::map<TopicPartition, Offset>& from)
      : content_(std::move(content)) {
    for (const auto& [tp, offset] : from) places_.push_back({tp, offset, content_->range(tp), {}, nullptr, Offset(0), 0, nullptr});
  }

  Result<std::optional<Fetch>> poll(Milliseconds wait, size_t max_records) override {
    // Partitions take turns; those that go on in the live log are asked last, and only they may wait.
    for (size_t n = 0; n < places_.size(); ++n) {
      Place& place = places_[(turn_ + n) % places_.size()];
      if (place.paused || place.live != nullptr || place.next >= place.archived.end) continue;
      turn_ = (turn_ + n + 1) % places_.size();
      TRY_ASSIGN(Fetch fetch, from_archive(place, max_records));
      return std::optional<Fetch>(std::move(fetch));
    }
    if (content_->live == nullptr) return std::optional<Fetch>();
    size_t open = 0;
    for (const Place& place : places_) open += !place.paused;
    if (open == 0) return std::optional<Fetch>();
    const Milliseconds share(std::max<int64_t>(1, wait.count() / static_cast<int64_t>(open)));
    for (size_t n = 0; n < places_.size(); ++n) {
      Place& place = places_[(turn_ + n) % places_.size()];
      if (place.paused) continue;
      if (place.live == nullptr) {
        TRY_ASSIGN(place.live, content_->live->open_reader({{place.tp, place.next}}));
      }
      TRY_ASSIGN(auto fetch, place.live->poll(share, max_records));
      if (!fetch) continue;
      turn_ = (turn_ + n + 1) % places_.size();
      place.next = fetch->next;
      return fetch;
    }
    return std::optional<Fetch>();
  }

  Result<void> seek(const TopicPartition& tp, Offset to) override {
    Place& place = at(tp);
    place.next = to;
    if (to < place.archived.end)
      place.live.reset();
    else if (place.live != nullptr)
      return place.live->seek(tp, to);
    return {};
  }
  void pause(const TopicPartition& tp) override { at(tp).paused = true; }
  void resume(const TopicPartition& tp) override { at(tp).paused = false; }

 private:
  struct Place {
    TopicPartition tp;
    Offset next;
    OffsetRange archived;
    std::shared_ptr<const SegmentRecords> records;  // of the segment that `next` was last found in
    const ArchiveEntry* entry;
    Offset end;  // of that segment
    size_t used;
    std::unique_ptr<LogReader> live;
    bool paused = false;
  };

  Place& at(const TopicPartition& tp) {
    auto it = std::find_if(places_.begin(), places_.end(), [&](const Place& p) { return p.tp == tp; });
    CHECK(it != places_.end());
    return *it;
  }

  Result<Fetch> from_archive(Place& place, size_t max_records) {
    if (place.next < place.archived.start)
      return Error{Errc::kOutOfRange, "reading " + to_string(place.tp) + " at offset " + std::to_string(place.next.value) +
                                          ": the archive begins at " + std::to_string(place.archived.start.value)};
    const ArchiveChain& chain = content_->chains.at(place.tp);
    auto found = std::upper_bound(chain.begin(), chain.end(), place.next,
                                  [](Offset offset, const ArchiveEntry& e) { return offset < e.segment.next; });
    CHECK(found != chain.end());
    if (place.entry != &*found) {
      TRY_ASSIGN(SegmentReader segment, content_->archive->whole_segment(*found));
      TRY_ASSIGN(SegmentRecords records, segment.all());
      place.records = std::make_shared<const SegmentRecords>(std::move(records));
      place.entry = &*found;
      place.end = found->segment.next;
      place.used = 0;
    }
    const std::vector<RecordView>& all = place.records->records;
    if (place.used > 0 && all[place.used - 1].offset >= place.next) place.used = 0;  // a seek back
    if (place.used >= all.size() || all[place.used].offset < place.next)
      place.used = static_cast<size_t>(
          std::lower_bound(all.begin(), all.end(), place.next, [](const RecordView& r, Offset o) { return r.offset < o; }) -
          all.begin());
    const size_t count = std::min(max_records, all.size() - place.used);
    Fetch fetch;
    fetch.from = place.tp;
    fetch.records.assign(all.begin() + static_cast<ptrdiff_t>(place.used),
                         all.begin() + static_cast<ptrdiff_t>(place.used + count));
    place.used += count;
    place.next = place.used == all.size() ? place.end : all[place.used - 1].offset + 1;
    fetch.next = place.next;
    fetch.at_end = content_->live == nullptr && place.next >= place.archived.end;
    fetch.storage = place.records;
    return fetch;
  }

  std::shared_ptr<const Content> content_;
  std::vector<Place> places_;
  size_t turn_ = 0;
};

class ArchiveLog : public streams::Log, public KeyIndexed {
 public:
  explicit ArchiveLog(std::shared_ptr<const Content> content) : content_(std::move(content)) {}

  std::string describe() const override {
    const std::string archive = "archive in " + content_->archive->objects().describe();
    return content_->live == nullptr ? archive : archive + " and " + content_->live->describe();
  }
  Result<std::string> cluster_id() override { return content_->archive->cluster(); }
  Result<void> create_topics(std::span<const streams::TopicConfig>) override { return read_only("creating topics"); }
  Result<std::vector<streams::TopicConfig>> topics() override {
    std::vector<streams::TopicConfig> out;
    for (const auto& [name, partitions] : content_->partitions) {
      streams::TopicConfig topic;
      topic.name = name;
      topic.partitions = partitions;
      out.push_back(std::move(topic));
    }
    return out;
  }
  Result<int32_t> partition_count(const std::string& topic) override {
    auto it = content_->partitions.find(topic);
    if (it == content_->partitions.end())
      return Error{Errc::kNotFound, "topic " + topic + " of " + describe() + ": never archived"};
    return it->second;
  }
  Result<OffsetRange> range(const TopicPartition& tp) override {
    OffsetRange out = content_->range(tp);
    if (content_->live == nullptr) return out;
    TRY_ASSIGN(const OffsetRange live, content_->live->range(tp));
    return out.end > out.start ? OffsetRange{std::min(out.start, live.start), std::max(out.end, live.end)} : live;
  }
  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    return std::unique_ptr<LogReader>(std::make_unique<ArchiveReader>(content_, from));
  }
  Result<std::unique_ptr<streams::LogWriter>> open_writer(const std::string&) override { return read_only("opening a writer"); }
  Result<std::unique_ptr<streams::LogProducer>> open_producer() override { return read_only("opening a producer"); }
  Result<std::unique_ptr<streams::Membership>> join(const std::string&, const std::vector<std::string>&,
                                                    const std::string&) override {
    return read_only("joining a group");
  }
  Result<std::map<TopicPartition, streams::CommittedOffset>> committed(const std::string& group,
                                                                       std::span<const TopicPartition> of) override {
    if (content_->live != nullptr) return content_->live->committed(group, of);
    return std::map<TopicPartition, streams::CommittedOffset>();
  }
  Result<void> commit_offsets(const streams::OffsetCommit&, const streams::Membership*) override {
    return read_only("committing offsets");
  }
  Result<void> delete_before(const TopicPartition&, Offset) override { return read_only("deleting records"); }

  Result<Offset> each_of_key(const TopicPartition& tp, std::string_view key, Offset from, Offset to,
                             const EachRecord& each) override {
    if (from < content_->range(tp).start) return from;
    for (auto entry = first_entry(tp, from); entry != entries(tp).end() && entry->segment.first < to; ++entry) {
      TRY_ASSIGN(const SegmentReader segment, content_->archive->segment(*entry));
      TRY_ASSIGN(const SegmentRecords found, segment.of_key(key));
      for (const RecordView& record : found.records)
        if (record.offset >= from && record.offset < to) TRY(each(record));
    }
    return std::min(to, std::max(from, content_->range(tp).end));
  }
  Result<Offset> first_later_than(const TopicPartition& tp, WallTime instant, Offset from, Offset to) override {
    if (from < content_->range(tp).start) return from;
    for (auto entry = first_entry(tp, from); entry != entries(tp).end() && entry->segment.first < to; ++entry) {
      if (entry->segment.records == 0 || entry->segment.max_timestamp <= instant) continue;
      return std::max(from, entry->segment.first);  // whoever asks reads on from here and finds it in this segment
    }
    return std::min(to, std::max(from, content_->range(tp).end));
  }

 private:
  const ArchiveChain& entries(const TopicPartition& tp) const {
    static const ArchiveChain none;
    auto it = content_->chains.find(tp);
    return it == content_->chains.end() ? none : it->second;
  }
  /// The entry that holds `from`, or the first behind it.
  ArchiveChain::const_iterator first_entry(const TopicPartition& tp, Offset from) const {
    return std::ranges::upper_bound(entries(tp), from, {}, [](const ArchiveEntry& e) { return e.segment.next; });
  }

  std::shared_ptr<const Content> content_;
};

}  // namespace

Result<void> check_same_history(streams::Log& live, const TopicPartition& full, const ArchiveEntry& last) {
  TRY_ASSIGN(const OffsetRange range, live.range(full));
  auto diverged = [&](const std::string& what) {
    return Error{Errc::kIncomplete,
                 "LOG_DIVERGED: comparing " + to_string(full) + " of " + live.describe() + " with its archive: " + what};
  };
  if (range.end < last.segment.next)
    return diverged("the log ends at offset " + std::to_string(range.end.value) + ", the archive at " +
                    std::to_string(last.segment.next.value));
  if (last.anchor.empty() || range.start >= last.segment.next) return {};
  // The last record stands somewhere before `next`, behind it only markers.
  TRY_ASSIGN(auto reader, live.open_reader({{full, std::max(range.start, last.segment.next - 1000)}}));
  std::string anchor;
  for (int empty = 0; empty < 60;) {
    TRY_ASSIGN(auto fetch, reader->poll(Milliseconds(500), 1000));
    if (!fetch) {
      ++empty;
      continue;
    }
    for (const RecordView& record : fetch->records)
      if (record.offset < last.segment.next) anchor = record_anchor(record);
    if (fetch->next >= last.segment.next || fetch->at_end) break;
  }
  if (!anchor.empty() && anchor != last.anchor)
    return diverged("the record before offset " + std::to_string(last.segment.next.value) + " is not the one that was archived");
  return {};
}

Result<std::unique_ptr<streams::Log>> open_archive_log(std::unique_ptr<Archive> archive, const streams::TopicNames& names,
                                                       std::shared_ptr<streams::Log> live, const streams::SignerRegistry* pinned) {
  auto content = std::make_shared<Content>();
  content->live = live;
  TRY_ASSIGN(auto chains, archive->chains(pinned));
  TRY_ASSIGN(const auto topics, archive->topics());
  for (const auto& [topic, partitions] : topics) content->partitions[names.full(topic)] = partitions;
  for (const TopicSpec& spec : topic_catalogue()) {
    auto it = topics.find(std::string(spec.name));
    if (it != topics.end() && it->second != names.partitions(spec.topic))
      return Error{Errc::kUsage, "topic " + std::string(spec.name) + " was archived with " + std::to_string(it->second) +
                                     " partitions, topics.partitions asks for " + std::to_string(names.partitions(spec.topic)) +
                                     "; set topics.partitions to what it was"};
  }
  for (auto& [tp, chain] : chains) content->chains[{names.full(tp.topic), tp.partition}] = std::move(chain);
  content->archive = std::move(archive);
  if (live != nullptr) {
    for (const auto& [tp, chain] : content->chains) {
      if (chain.empty()) continue;
      auto range = live->range(tp);
      if (!range && range.error().code == Errc::kNotFound)
        return Error{Errc::kIncomplete, "joining the archive with " + live->describe() + ": it has no topic " + tp.topic};
      if (!range) return range.error();
      if (range->start > chain.back().segment.next)
        return Error{Errc::kIncomplete, "INPUT_GAP: joining the archive with " + live->describe() + ": " + to_string(tp) +
                                            " is archived up to offset " + std::to_string(chain.back().segment.next.value) +
                                            ", the log begins at " + std::to_string(range->start.value)};
      TRY(check_same_history(*live, tp, chain.back()));
    }
  }
  return std::unique_ptr<streams::Log>(std::make_unique<ArchiveLog>(std::move(content)));
}

}  // namespace assay::replay
