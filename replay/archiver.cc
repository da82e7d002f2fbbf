#include "replay/archiver.h"

#include <algorithm>
#include <utility>

#include "replay/archive_log.h"

namespace assay::replay {

using streams::Milliseconds;

/// A partition that is ours.
struct Archiver::Place {
  TopicPartition full, bare;
  std::optional<ArchiveEntry> last;  // newest entry of its chain
  SegmentWriter open;                // what is not archived yet
  std::string anchor;                // of the last record in it, or before
  Milliseconds since{0};             // uptime at its first record
  bool halted = false;
  bool stale = false;  // somebody else wrote the entry that was to be ours: the archive says where to go on
  bool ended = false;  // archived up to where it ended when asked to finish
};

class Archiver::Run {
 public:
  Run(Archiver& archiver, const std::atomic<bool>& stop, const std::atomic<bool>& finish)
      : a_(archiver), o_(archiver.options_), stop_(stop), finish_(finish) {}

  Result<void> operator()() {
    TRY_ASSIGN(const auto topics, archived_topics(a_.log_, o_.names));
    std::vector<std::string> names;
    for (const streams::TopicConfig& topic : topics) {
      TRY(retrying([&] { return a_.archive_.note_topic(std::string(o_.names.bare(topic.name)), topic.partitions); }));
      names.push_back(topic.name);
    }
    TRY(retrying([&] { return a_.archive_.note_signer(a_.signer_.key()); }));
    TRY(retrying([&]() -> Result<void> {
      TRY_ASSIGN(member_, a_.log_.join(o_.group, names, o_.instance_id));
      return {};
    }));
    Result<void> result;
    while (!stop_ && result && !done()) result = turn();
    if (member_ != nullptr) member_->leave();
    if (result && finish_ && halt_) return *halt_;
    return result;
  }

 private:
  bool done() const {
    return finish_ && told_ &&
           std::all_of(places_.begin(), places_.end(), [](const auto& p) { return p.second.ended || p.second.halted; });
  }

  /// Calls `f` until it is not unreachable or the run is to stop; the group hears of us meanwhile.
  template <class F>
  Result<void> retrying(F&& f) {
    for (Milliseconds wait = o_.retry_min; !stop_; wait = std::min(wait * 2, o_.retry_max)) {
      Result<void> result = f();
      if (result || result.error().code != Errc::kUnreachable) return result;
      if (o_.retrying) o_.retrying(result.error());
      for (const auto until = a_.runtime_.uptime() + wait; a_.runtime_.uptime() < until && !stop_;)
        a_.runtime_.sleep(Milliseconds(20));
    }
    return {};
  }

  Result<void> turn() {
    auto change = member_->poll(Milliseconds(0));
    if (!change) {
      if (o_.retrying) o_.retrying(change.error());
      a_.runtime_.sleep(o_.retry_min);
    } else if (*change) {
      if ((*change)->assigned) {
        told_ = true;
        for (const TopicPartition& tp : (*change)->partitions) TRY(retrying([&] { return take(tp); }));
      } else {
        // What is not archived yet is the next owner's to read.
        for (const TopicPartition& tp : (*change)->partitions) places_.erase(tp);
      }
      reader_.reset();
    }
    std::vector<TopicPartition> stale;
    for (const auto& [tp, place] : places_)
      if (place.stale) stale.push_back(tp);
    for (const TopicPartition& tp : stale) {
      TRY(retrying([&] { return take(tp); }));
      reader_.reset();
    }
    if (reader_ == nullptr) TRY(retrying([&] { return open_reader(); }));
    if (reader_ == nullptr) {
      a_.runtime_.sleep(Milliseconds(20));
      return {};
    }
    auto fetch = reader_->poll(Milliseconds(finish_ ? 20 : 100), o_.poll_records);
    if (!fetch) {
      TRY(reading_failed(fetch.error()));
    } else if (*fetch) {
      take(**fetch);
    }
    return cut();
  }

  /// Finds where the archive of a partition ends, and whether the log goes on from there.
  Result<void> take(const TopicPartition& tp) {
    const TopicPartition bare{std::string(o_.names.bare(tp.topic)), tp.partition};
    TRY_ASSIGN(ArchiveChain chain, a_.archive_.chain(bare));
    TRY_ASSIGN(const streams::OffsetRange range, a_.log_.range(tp));
    std::optional<ArchiveEntry> last;
    if (!chain.empty()) last = std::move(chain.back());
    const Offset next = last ? last->segment.next : range.start;
    places_.erase(tp);
    Place& place =
        places_.emplace(tp, Place{tp, bare, std::move(last), SegmentWriter(bare.topic, bare.partition, next), {}}).first->second;
    if (!place.last) return {};
    place.anchor = place.last->anchor;
    if (auto same = check_same_history(a_.log_, tp, *place.last); !same) {
      if (same.error().code != Errc::kIncomplete) return same.error();
      halt(place, same.error());
    } else if (range.start > next) {
      halt(place,
           {Errc::kIncomplete, "INPUT_GAP: archiving " + to_string(tp) + ": retention took offsets " + std::to_string(next.value) +
                                   " to " + std::to_string(range.start.value - 1) + " before they were archived"});
    }
    return {};
  }

  void halt(Place& place, Error error) {
    place.halted = true;
    if (o_.halted) o_.halted(place.full, error);
    if (!halt_) halt_ = std::move(error);
    reader_.reset();
  }

  Result<void> open_reader() {
    std::map<TopicPartition, Offset> from;
    for (const auto& [tp, place] : places_)
      if (!place.halted) from[tp] = place.open.next();
    if (from.empty()) return {};
    TRY_ASSIGN(reader_, a_.log_.open_reader(from));
    return {};
  }

  /// A reader tells of one failure; which partition it was shows in the log's ranges.
  Result<void> reading_failed(const Error& error) {
    reader_.reset();
    if (error.code != Errc::kOutOfRange) {
      if (o_.retrying) o_.retrying(error);
      a_.runtime_.sleep(o_.retry_min);
      return {};
    }
    bool found = false;
    for (auto& [tp, place] : places_) {
      if (place.halted) continue;
      auto range = a_.log_.range(tp);
      if (!range || (range->start <= place.open.next() && place.open.next() <= range->end)) continue;
      found = true;
      halt(place, {Errc::kIncomplete, "INPUT_GAP: archiving " + to_string(tp) + " from offset " +
                                          std::to_string(place.open.next().value) + ": " + error.message});
    }
    if (!found) a_.runtime_.sleep(o_.retry_min);
    return {};
  }

  void take(const streams::Fetch& fetch) {
    auto it = places_.find(fetch.from);
    if (it == places_.end()) return;
    Place& place = it->second;
    if (place.open.records() == 0) place.since = a_.runtime_.uptime();
    for (const RecordView& record : fetch.records) place.open.add(record);
    if (!fetch.records.empty()) place.anchor = record_anchor(fetch.records.back());
    place.open.advance(fetch.next);
  }

  /// Ends the segments that are due.
  Result<void> cut() {
    size_t all = 0;
    Place* largest = nullptr;
    for (auto& [tp, place] : places_) {
      if (place.halted || place.stale) continue;
      if (finish_ && !place.ended) {
        auto range = a_.log_.range(tp);
        if (range && place.open.next() >= range->end) {
          TRY(store(place));
          place.ended = !place.stale;
        }
      }
      const bool old = place.open.records() > 0 && a_.runtime_.uptime() - place.since >= o_.segment_age;
      if (!place.stale && (place.open.bytes() >= o_.segment_bytes || old)) TRY(store(place));
      all += place.open.bytes();
      if (largest == nullptr || place.open.bytes() > largest->open.bytes()) largest = &place;
    }
    if (all > o_.memory_bytes) TRY(store(*largest));
    return {};
  }

  Result<void> store(Place& place) {
    const Offset done = place.last ? place.last->segment.next : Offset(-1);
    if (place.open.records() == 0 && (!finish_ || place.open.next() <= done)) return {};
    auto [file, segment] = place.open.finish(o_.level);
    std::optional<ArchiveEntry> entry;
    bool asked = false;
    TRY(retrying([&]() -> Result<void> {
      TRY_ASSIGN(entry, a_.archive_.append(file, segment, place.anchor, place.last ? &*place.last : nullptr, a_.signer_));
      asked = true;
      return {};
    }));
    if (!asked) return {};  // stopped; the next run reads it again
    if (!entry) {
      place.stale = true;  // an answer was lost, or another archiver was quicker
      return {};
    }
    place.last = std::move(entry);
    if (o_.archived) o_.archived(*place.last);
    // For people to see; the entries hold the truth.
    if (auto committed = a_.log_.commit_offsets({o_.group, {{place.full, place.last->segment.next}}}, member_.get()); !committed)
      if (o_.retrying) o_.retrying(committed.error());
    return {};
  }

  Archiver& a_;
  const ArchiverOptions& o_;
  const std::atomic<bool>& stop_;
  const std::atomic<bool>& finish_;
  std::unique_ptr<streams::Membership> member_;
  std::unique_ptr<streams::LogReader> reader_;
  std::map<TopicPartition, Place> places_;
  std::optional<Error> halt_;
  bool told_ = false;
};

Archiver::Archiver(streams::Log& log, Archive& archive, streams::Signer& signer, ArchiverOptions options, streams::Runtime& runtime)
    : log_(log), archive_(archive), signer_(signer), options_(std::move(options)), runtime_(runtime) {}

Result<void> Archiver::run(const std::atomic<bool>& stop, const std::atomic<bool>& finish) { return Run(*this, stop, finish)(); }

Result<std::vector<streams::TopicConfig>> archived_topics(streams::Log& log, const streams::TopicNames& names) {
  TRY_ASSIGN(auto all, log.topics());
  std::erase_if(all, [&](const streams::TopicConfig& topic) {
    if (!topic.name.starts_with(names.prefix())) return true;
    std::string_view bare = names.bare(topic.name);
    if (bare.ends_with(kDlqSuffix)) bare.remove_suffix(kDlqSuffix.size());
    const auto catalogue = topic_catalogue();
    return std::none_of(catalogue.begin(), catalogue.end(), [&](const TopicSpec& spec) { return spec.name == bare; });
  });
  return all;
}

}  // namespace assay::replay
