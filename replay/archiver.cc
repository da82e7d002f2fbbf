#include "replay/archiver.h"

#include <algorithm>
#include <map>
#include <utility>

#include "replay/archive_log.h"

namespace assay::replay {

using streams::Milliseconds;

/// A partition that is ours.
struct Archiver::Place {
  TopicPartition full, bare;
  SegmentWriter open;                                         // what was read and not cut into a segment
  bool taken = false;                                         // the archive said where to go on
  std::optional<ArchiveEntry> last;                           // newest entry of its chain
  Offset begun;                                               // where its archive began, when it has none yet
  std::string anchor;                                         // of the last record that was read
  Milliseconds since{0};                                      // uptime at the first record in `open`
  WallTime first;                                             // timestamp of that record
  std::optional<std::pair<std::string, SegmentInfo>> packed;  // a segment that the archive has not taken yet
  std::string packed_anchor;
  WallTime packed_first;
  std::string halt;    // why it does not go on
  bool ended = false;  // archived up to where it ended when asked to finish

  Place(TopicPartition at, const streams::TopicNames& names)
      : full(std::move(at)),
        bare{std::string(names.bare(full.topic)), full.partition},
        open(bare.topic, bare.partition, Offset(0)) {}
  Offset archived() const { return last ? last->segment.next : begun; }
  size_t bytes() const { return open.bytes() + (packed ? packed->first.size() : 0); }
  bool goes_on() const { return taken && halt.empty(); }
};

class Archiver::Run {
 public:
  Run(Archiver& archiver, const std::atomic<bool>& stop, const std::atomic<bool>& finish)
      : a_(archiver), o_(archiver.options_), instance_(o_.instance_id), stop_(stop), finish_(finish) {}

  Result<void> operator()() {
    Result<void> result;
    while (!stop_ && result && !done()) {
      result = turn();
      publish();
    }
    leave();
    publish();
    if (result && finish_ && halt_) return *halt_;
    return result;
  }

 private:
  bool done() const {
    return finish_ && everything_ &&
           std::all_of(places_.begin(), places_.end(), [](const auto& p) { return p.second.ended || !p.second.halt.empty(); });
  }

  /// What did not work is tried again a little later; other errors end the run.
  Result<void> try_again_later(const Error& error) {
    if (error.code != Errc::kUnreachable) return error;
    if (o_.retrying) o_.retrying(error);
    wait_ = wait_ == Milliseconds(0) ? o_.retry_min : std::min(wait_ * 2, o_.retry_max);
    retry_at_ = a_.runtime_.uptime() + wait_;
    return {};
  }
  bool may_try() const { return a_.runtime_.uptime() >= retry_at_; }
  void worked() {
    if (wait_ != Milliseconds(0) && o_.recovered) o_.recovered();
    wait_ = Milliseconds(0);
  }

  Result<void> turn() {
    if (auto joined = be_member(); !joined) TRY(try_again_later(joined.error()));
    if (member_ == nullptr) {
      a_.runtime_.sleep(Milliseconds(20));
      return {};
    }
    for (auto& [tp, place] : places_) {
      if (place.taken || !may_try()) continue;
      auto taken = take(place);
      reader_.reset();
      if (!taken) {
        TRY(try_again_later(taken.error()));
      } else {
        worked();
      }
    }
    TRY(read());
    TRY(cut());
    finish_others();
    return {};
  }

  // ---- the group ----

  /// Joins when we are no member, or when there are other topics than we joined for; hears what the group says.
  Result<void> be_member() {
    if (member_ != nullptr && (a_.runtime_.uptime() >= look_at_ || (finish_ && !looked_))) {
      TRY_ASSIGN(auto topics, archived_topics(a_.log_, o_.names));
      looked_ = finish_;
      look_at_ = a_.runtime_.uptime() + o_.topics_every;
      if (topics.size() != topics_.size()) leave();
    }
    if (member_ == nullptr) {
      if (!may_try()) return {};
      TRY_ASSIGN(topics_, archived_topics(a_.log_, o_.names));
      std::vector<std::string> names;
      for (const streams::TopicConfig& topic : topics_) {
        TRY(a_.archive_.note_topic(std::string(o_.names.bare(topic.name)), topic.partitions));
        names.push_back(topic.name);
      }
      TRY(a_.archive_.note_signer(a_.signer_.key()));
      TRY_ASSIGN(member_, a_.log_.join(o_.group, names, instance_));
      look_at_ = a_.runtime_.uptime() + o_.topics_every;
      worked();
    }
    auto change = member_->poll(Milliseconds(0));
    if (!change) {  // this membership is of no more use
      if (change.error().code == Errc::kFenced) instance_.clear();
      leave();
      return Error{Errc::kUnreachable, change.error().message};
    }
    if (!*change) return {};
    told_ = (*change)->assigned;
    everything_ = false;
    for (const TopicPartition& tp : (*change)->partitions) {
      if ((*change)->assigned)
        places_.try_emplace(tp, tp, o_.names);
      else
        places_.erase(tp);  // what is not archived yet is the next owner's to read
    }
    reader_.reset();
    return {};
  }

  void leave() {
    reader_.reset();
    places_.clear();
    told_ = everything_ = false;
    if (member_ != nullptr) member_->leave();
    member_.reset();
  }

  /// To finish, what other members have not archived is archived as well: they may wait for more, or be gone. Whoever is second
  /// at an entry goes on behind it.
  void finish_others() {
    if (!finish_ || !told_ || everything_) return;
    for (const auto& [tp, place] : places_)
      if (!place.ended && place.halt.empty()) return;
    everything_ = true;
    for (const streams::TopicConfig& topic : topics_)
      for (int32_t p = 0; p < topic.partitions; ++p) places_.try_emplace({topic.name, p}, TopicPartition{topic.name, p}, o_.names);
  }

  // ---- a partition ----

  /// Finds where the archive of a partition ends, and whether the log goes on from there.
  Result<void> take(Place& place) {
    TRY_ASSIGN(const streams::OffsetRange range, a_.log_.range(place.full));
    auto chain = a_.archive_.chain(place.bare);
    if (!chain && chain.error().code == Errc::kUnreachable) return chain.error();
    place.last.reset();
    if (chain && !chain->empty()) place.last = std::move(chain->back());
    place.begun = range.start;
    place.packed.reset();
    place.open = SegmentWriter(place.bare.topic, place.bare.partition, place.archived());
    place.taken = true;
    if (!chain) {  // somebody has laid hands on it: nothing is built on that
      halt(place, chain.error());
      return {};
    }
    if (!place.last) return {};
    place.anchor = place.last->anchor;
    if (auto same = check_same_history(a_.log_, place.full, *place.last); !same) {
      if (same.error().code != Errc::kIncomplete) {
        place.taken = false;
        return same.error();
      }
      halt(place, same.error());
    } else if (range.start > place.archived()) {
      halt(place, {Errc::kIncomplete, "INPUT_GAP: archiving " + to_string(place.full) + ": retention took offsets " +
                                          std::to_string(place.archived().value) + " to " + std::to_string(range.start.value - 1) +
                                          " before they were archived"});
    }
    return {};
  }

  void halt(Place& place, Error error) {
    place.halt = error.message;
    if (o_.halted) o_.halted(place.full, error);
    if (!halt_) halt_ = std::move(error);
    reader_.reset();
  }

  // ---- reading ----

  Result<void> read() {
    size_t held = 0;
    for (const auto& [tp, place] : places_) held += place.bytes();
    if (held > o_.memory_bytes) {  // the archive takes nothing: what is not read waits on the log
      a_.runtime_.sleep(Milliseconds(20));
      return {};
    }
    if (reader_ == nullptr) {
      std::map<TopicPartition, Offset> from;
      for (const auto& [tp, place] : places_)
        if (place.goes_on()) from[tp] = place.open.next();
      if (from.empty()) {
        a_.runtime_.sleep(Milliseconds(20));
        return {};
      }
      auto reader = a_.log_.open_reader(from);
      if (!reader) return reading_failed(reader.error());
      reader_ = std::move(*reader);
    }
    auto fetch = reader_->poll(Milliseconds(finish_ ? 20 : 100), o_.poll_records);
    if (!fetch) return reading_failed(fetch.error());
    if (!*fetch) return {};
    auto it = places_.find((*fetch)->from);
    if (it == places_.end()) return {};
    Place& place = it->second;
    const std::vector<RecordView>& records = (*fetch)->records;
    if (place.open.records() == 0 && !records.empty()) {
      place.since = a_.runtime_.uptime();
      place.first = records.front().timestamp;
    }
    for (const RecordView& record : records) place.open.add(record);
    if (!records.empty()) place.anchor = record_anchor(records.back());
    place.open.advance((*fetch)->next);
    return {};
  }

  /// A reader tells of one failure; which partition it was shows in the log's ranges.
  Result<void> reading_failed(const Error& error) {
    reader_.reset();
    bool found = false;
    if (error.code == Errc::kOutOfRange) {
      for (auto& [tp, place] : places_) {
        if (!place.goes_on()) continue;
        auto range = a_.log_.range(tp);
        const Offset next = place.open.next();
        if (!range || (range->start <= next && next <= range->end)) continue;
        found = true;
        const std::string where = "archiving " + to_string(tp) + " from offset " + std::to_string(next.value) + ": ";
        halt(place, {Errc::kIncomplete, next > range->end
                                            ? "LOG_DIVERGED: " + where + "the log ends at " + std::to_string(range->end.value)
                                            : "INPUT_GAP: " + where + error.message});
      }
    }
    if (found) return {};
    a_.runtime_.sleep(o_.retry_min);
    return try_again_later({Errc::kUnreachable, error.message});
  }

  // ---- segments ----

  /// Cuts the segments that are due and stores what is cut.
  Result<void> cut() {
    size_t open = 0;
    Place* largest = nullptr;
    for (auto& [tp, place] : places_) {
      if (!place.goes_on()) continue;
      bool last = false;
      if (finish_ && !place.ended) {
        auto range = a_.log_.range(tp);
        last = range && place.open.next() >= range->end;
      }
      const bool old = place.open.records() > 0 && a_.runtime_.uptime() - place.since >= o_.segment_age;
      if (last || old || place.open.bytes() >= o_.segment_bytes) pack(place, last);
      TRY(store(place));
      if (last && place.taken && place.open.next() <= place.archived()) place.ended = true;
      open += place.open.bytes();
      if (!place.packed && (largest == nullptr || place.open.bytes() > largest->open.bytes())) largest = &place;
    }
    if (open > o_.memory_bytes / 2 && largest != nullptr && largest->open.records() > 0) {
      pack(*largest, false);
      TRY(store(*largest));
    }
    return {};
  }

  /// Cuts a segment; `whole`: also one without records, which says that nothing but markers stands there.
  void pack(Place& place, bool whole) {
    if (place.packed || (place.open.records() == 0 && (!whole || place.open.next() <= place.archived()))) return;
    place.packed = place.open.finish(o_.level);
    place.packed_anchor = place.anchor;
    place.packed_first = place.first;
  }

  Result<void> store(Place& place) {
    if (!place.packed || !may_try()) return {};
    auto entry = a_.archive_.append(place.packed->first, place.packed->second, place.packed_anchor,
                                    place.last ? &*place.last : nullptr, a_.signer_);
    if (!entry) return try_again_later(entry.error());
    worked();
    if (!*entry) {  // an answer was lost, or another archiver was quicker: the archive says where to go on
      place.taken = false;
      place.packed.reset();
      return {};
    }
    place.last = std::move(**entry);
    place.packed.reset();
    if (o_.archived) o_.archived(*place.last);
    // For people to see; the entries hold the truth, so that it may fail.
    (void)a_.log_.commit_offsets({o_.group, {{place.full, place.last->segment.next}}}, member_.get());
    return {};
  }

  void publish() {
    std::vector<ArchivedPlace> view;
    for (const auto& [tp, place] : places_) {
      if (!place.taken) continue;
      ArchivedPlace& out = view.emplace_back();
      out.tp = tp;
      out.archived = place.archived();
      out.read = place.open.next();
      out.waiting = place.open.records() + (place.packed ? place.packed->second.records : 0);
      if (place.packed && place.packed->second.records > 0)
        out.oldest = place.packed_first;
      else if (place.open.records() > 0)
        out.oldest = place.first;
      out.halt = place.halt;
    }
    std::lock_guard lock(a_.mutex_);
    a_.view_ = std::move(view);
  }

  Archiver& a_;
  const ArchiverOptions& o_;
  std::string instance_;
  const std::atomic<bool>& stop_;
  const std::atomic<bool>& finish_;
  std::vector<streams::TopicConfig> topics_;
  std::unique_ptr<streams::Membership> member_;
  std::unique_ptr<streams::LogReader> reader_;
  std::map<TopicPartition, Place> places_;
  std::optional<Error> halt_;
  bool told_ = false;        // the group has said what is ours
  bool everything_ = false;  // to finish: everybody's partitions are among the places
  bool looked_ = false;      // for new topics, since it is to finish
  Milliseconds look_at_{0}, retry_at_{0}, wait_{0};
};

Archiver::Archiver(streams::Log& log, Archive& archive, streams::Signer& signer, ArchiverOptions options, streams::Runtime& runtime)
    : log_(log), archive_(archive), signer_(signer), options_(std::move(options)), runtime_(runtime) {}

Result<void> Archiver::run(const std::atomic<bool>& stop, const std::atomic<bool>& finish) { return Run(*this, stop, finish)(); }

std::vector<ArchivedPlace> Archiver::places() const {
  std::lock_guard lock(mutex_);
  return view_;
}

bool is_archived(std::string_view full_name, const streams::TopicNames& names) {
  if (!full_name.starts_with(names.prefix())) return false;
  std::string_view bare = names.bare(full_name);
  if (bare.ends_with(kDlqSuffix)) bare.remove_suffix(kDlqSuffix.size());
  return std::ranges::find(topic_catalogue(), bare, &TopicSpec::name) != topic_catalogue().end();
}

Result<std::vector<streams::TopicConfig>> archived_topics(streams::Log& log, const streams::TopicNames& names) {
  TRY_ASSIGN(auto all, log.topics());
  std::erase_if(all, [&](const streams::TopicConfig& topic) { return !is_archived(topic.name, names); });
  return all;
}

}  // namespace assay::replay
