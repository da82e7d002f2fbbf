#include "streams/sim_log.h"

#include <algorithm>
#include <condition_variable>
#include <map>
#include <utility>

#include "schemas/topics.h"
#include "streams/runtime.h"
#include "streams/sim_broker.h"

namespace assay::streams {
namespace {

constexpr Milliseconds kPatience{30000};  // how long a request that cannot be answered yet is repeated

class MachineSimClock final : public SimClock {
 public:
  Milliseconds uptime() override { return machine_runtime().uptime(); }
  void wait(std::unique_lock<std::mutex>& lock, Milliseconds until, std::span<const void* const>) override {
    const auto due = std::min(until, actions_.empty() ? until : actions_.begin()->first);
    news_.wait_for(lock, std::max(due - uptime(), Milliseconds(0)));
    while (!actions_.empty() && actions_.begin()->first <= uptime()) {
      auto action = std::move(actions_.begin()->second);
      actions_.erase(actions_.begin());
      lock.unlock();
      action();
      lock.lock();
    }
  }
  void news(const void*) override { news_.notify_all(); }
  void at(Milliseconds when, std::function<void()> action) override { actions_.emplace(when, std::move(action)); }

 private:
  std::condition_variable news_;
  std::multimap<Milliseconds, std::function<void()>> actions_;  // under the broker's mutex
};

Error unreachable(const std::string& attempt) { return {Errc::kUnreachable, attempt + " in the simulated log: no answer"}; }

/// One process' connection: every request and every answer of its clients passes here.
struct Link {
  SimBroker& broker;
  SimHost& host;

  const void* writer(const std::string& id) const {
    std::lock_guard lock(broker.mutex);
    return &broker.writers[id];
  }
  const void* group(const std::string& name) const {
    std::lock_guard lock(broker.mutex);
    return &broker.groups[name];
  }

  /// Asks the broker until it has an answer, again when there is news. Errors: kUnreachable; those of `ask`.
  template <class T>
  Result<T> call(SimRequest what, const std::string& attempt, const void* about,
                 const std::function<Result<std::optional<T>>()>& ask) {
    if (!host.there(what)) return unreachable(attempt);
    std::optional<T> answer;
    {
      std::unique_lock lock(broker.mutex);
      const Milliseconds deadline = broker.clock.uptime() + kPatience;
      for (;;) {
        TRY_ASSIGN(answer, ask());
        if (answer) break;
        if (broker.clock.uptime() >= deadline) return unreachable(attempt);
        broker.clock.wait(lock, deadline, std::span(&about, 1));
      }
    }
    if (!host.back(what)) return unreachable(attempt);
    return std::move(*answer);
  }
  /// For what can be answered at once.
  template <class T>
  Result<T> now(SimRequest what, const std::string& attempt, const std::function<Result<T>()>& ask) {
    return call<T>(what, attempt, nullptr, [&]() -> Result<std::optional<T>> {
      TRY_ASSIGN(T answer, ask());
      return std::optional<T>(std::move(answer));
    });
  }
};

using Done = std::monostate;

/// Checks that the topic takes the record, and finds its partition. Requires: the broker's mutex.
Result<SimPartition*> admit(SimBroker& broker, const OutRecord& record) {
  TRY_ASSIGN(SimTopic * topic, broker.topic(record.to.topic));
  const size_t size = (record.key ? record.key->size() : 0) + (record.value ? record.value->size() : 0);
  if (size > static_cast<size_t>(topic->config.max_record_bytes))
    return Error{Errc::kTooLarge, "writing a record of " + std::to_string(size) + " bytes to " + record.to.topic +
                                      " in the simulated log: the topic takes " + std::to_string(topic->config.max_record_bytes)};
  int32_t partition = record.to.partition;
  if (partition < 0) {
    partition = record.key ? partition_of(*record.key, topic->config.partitions) : topic->turn++ % topic->config.partitions;
  }
  return broker.partition({record.to.topic, partition});
}

class Reader final : public LogReader {
 public:
  Reader(Link link, const std::map<TopicPartition, SimPartition*>& partitions, const std::map<TopicPartition, Offset>& from)
      : link_(link) {
    for (const auto& [tp, offset] : from) {
      places_.push_back({partitions.at(tp), offset.value});
      about_.push_back(partitions.at(tp));
    }
  }

  Result<std::optional<Fetch>> poll(Milliseconds wait, size_t max_records) override {
    CHECK(max_records > 0);
    const Milliseconds deadline = link_.broker.clock.uptime() + wait;
    if (!link_.host.there(SimRequest::kFetch)) return unreachable("reading");
    std::optional<Fetch> fetch;
    {
      std::unique_lock lock(link_.broker.mutex);
      for (;;) {
        TRY_ASSIGN(fetch, look(max_records));
        if (fetch || link_.broker.clock.uptime() >= deadline) break;
        link_.broker.clock.wait(lock, deadline, about_);
      }
    }
    if (!fetch) return fetch;
    Place& place = *std::ranges::find_if(places_, [&](const Place& p) { return p.partition->tp == fetch->from; });
    const Place before = place;
    place.position = fetch->next.value;
    place.told_end = fetch->at_end && fetch->records.empty();
    if (link_.host.back(SimRequest::kFetch)) return fetch;
    place = before;
    return std::optional<Fetch>();
  }

  Result<void> seek(const TopicPartition& tp, Offset to) override {
    for (Place& place : places_)
      if (place.partition->tp == tp) {
        place.position = to.value;
        place.told_end = false;
        return {};
      }
    return Error{Errc::kNotFound, "seeking " + to_string(tp) + " in the simulated log: this reader does not read it"};
  }
  void pause(const TopicPartition& tp) override { set_paused(tp, true); }
  void resume(const TopicPartition& tp) override { set_paused(tp, false); }

 private:
  struct Place {
    SimPartition* partition;
    int64_t position;
    bool paused = false;
    bool told_end = false;
  };

  void set_paused(const TopicPartition& tp, bool paused) {
    for (Place& place : places_)
      if (place.partition->tp == tp) place.paused = paused;
  }

  /// What the next partition in turn has to say.
  Result<std::optional<Fetch>> look(size_t max_records) {
    const size_t first = turn_ + link_.host.pass_over(places_.size());
    for (size_t i = 0; i < places_.size(); ++i) {
      const Place& place = places_[(first + i) % places_.size()];
      if (place.paused) continue;
      const SimPartition& in = *place.partition;
      if (place.position < in.start || place.position > in.end())
        return Error{Errc::kOutOfRange, "reading " + to_string(in.tp) + " at " + std::to_string(place.position) +
                                            " in the simulated log: it holds offsets " + std::to_string(in.start) + " to " +
                                            std::to_string(in.end())};
      const int64_t stable = in.stable();
      if (place.position > stable || (place.position == stable && place.told_end)) continue;
      Fetch fetch;
      fetch.from = in.tp;
      int64_t at = place.position;
      for (; at < stable && fetch.records.size() < max_records; ++at) {
        const SimEntry& entry = in.entries[static_cast<size_t>(at)];
        if (in.shows(entry)) fetch.records.push_back(view(*entry.record, at));
      }
      fetch.next = Offset(at);
      fetch.at_end = at == stable;
      turn_ = (first + i + 1) % places_.size();
      return std::optional<Fetch>(std::move(fetch));
    }
    return std::optional<Fetch>();
  }

  static RecordView view(const OutRecord& record, int64_t offset) {
    RecordView out;
    out.offset = Offset(offset);
    out.timestamp = record.timestamp;
    if (record.key) out.key = *record.key;
    if (record.value) out.value = *record.value;
    for (const Header& header : record.headers)
      out.headers.push_back({header.name, header.value ? std::optional<std::string_view>(*header.value) : std::nullopt});
    return out;
  }

  Link link_;
  std::vector<Place> places_;
  std::vector<const void*> about_;  // its partitions
  size_t turn_ = 0;
};

class Member final : public Membership {
 public:
  Member(Link link, SimGroup& group, std::vector<std::string> topics, std::string instance)
      : link_(link), group_(group), topics_(std::move(topics)), instance_(std::move(instance)) {}
  ~Member() override {
    if (link_.host.alive()) leave();
  }

  Result<std::optional<Change>> poll(Milliseconds wait) override {
    CHECK(!left_);
    const Milliseconds deadline = link_.broker.clock.uptime() + wait;
    if (!link_.host.there(SimRequest::kGroup)) return std::optional<Change>();
    std::unique_lock lock(link_.broker.mutex);
    if (giving_back_) {
      giving_back_ = false;
      link_.broker.give_back(group_, id_);
    }
    for (;;) {
      TRY_ASSIGN(auto change, look());
      if (change || link_.broker.clock.uptime() >= deadline) return change;
      const void* const about = &group_;
      link_.broker.clock.wait(lock, deadline, std::span(&about, 1));
    }
  }

  std::string id() const override { return id_; }

  void leave() override {
    if (left_) return;
    left_ = true;
    if (!link_.host.there(SimRequest::kGroup)) return;
    std::lock_guard lock(link_.broker.mutex);
    if (instance_.empty()) return link_.broker.leave(group_, id_);
    // A static member is expected back; it is out when its session ends.
    link_.broker.clock.at(link_.broker.clock.uptime() + link_.broker.options.session_timeout,
                          [broker = &link_.broker, group = &group_, id = id_] {
                            std::lock_guard again(broker->mutex);
                            broker->leave(*group, id);
                          });
  }

  /// Whether the group still takes commits of ours. Requires: the broker's mutex.
  bool valid() const { return group_.members.contains(id_) && generation_ == group_.generation; }
  bool replaced() const {
    return !instance_.empty() && !group_.members.contains(id_) &&
           std::ranges::any_of(group_.members, [&](const auto& m) { return m.second.instance == instance_; });
  }

 private:
  Result<std::optional<Change>> look() {
    auto me = group_.members.find(id_);
    if (me == group_.members.end()) {
      if (!id_.empty() && replaced())
        return Error{Errc::kFenced,
                     "being member " + instance_ + " of a group of the simulated log: a newer process took its name"};
      if (generation_ >= 0) {  // put out while we were away
        generation_ = -1;
        return std::optional<Change>(Change{false, std::move(held_), true});
      }
      id_ = link_.broker.join(group_, link_.host, topics_, instance_);
      me = group_.members.find(id_);
    }
    if (group_.rebalancing && !me->second.joined) {
      if (generation_ < 0) {
        link_.broker.give_back(group_, id_);
      } else {
        generation_ = -1;
        giving_back_ = true;
        return std::optional<Change>(Change{false, std::move(held_), false});
      }
    }
    if (!group_.rebalancing && generation_ != group_.generation) {
      if (generation_ >= 0) {  // the group went on without our having given back: what we held is not ours to keep
        generation_ = -1;
        return std::optional<Change>(Change{false, std::move(held_), true});
      }
      generation_ = group_.generation;
      held_ = me->second.assigned;
      return std::optional<Change>(Change{true, held_, false});
    }
    return std::optional<Change>();
  }

  Link link_;
  SimGroup& group_;
  std::vector<std::string> topics_;
  std::string instance_;
  std::string id_;
  int64_t generation_ = -1;  // that we hold partitions of; -1: we hold none
  std::vector<TopicPartition> held_;
  bool giving_back_ = false;  // a revocation was returned; the next poll confirms it
  bool left_ = false;
};

class Writer final : public LogWriter {
 public:
  Writer(Link link, std::string id, int32_t epoch) : link_(link), id_(std::move(id)), epoch_(epoch) {}

  Result<void> prepare(Transaction transaction) override {
    CHECK(!prepared_);
    places_.clear();
    noticed_ = false;
    {
      std::lock_guard lock(link_.broker.mutex);
      TRY(link_.broker.check(id_, epoch_, "preparing a transaction"));
      for (const OutRecord& record : transaction.records) TRY(admitted(record));
    }
    TRY_ASSIGN(Done ready, link_.call<Done>(SimRequest::kMetadata, "beginning a transaction", link_.writer(id_),
                                            [&]() -> Result<std::optional<Done>> {
                                              TRY(link_.broker.check(id_, epoch_, "preparing a transaction"));
                                              return link_.broker.busy(id_) ? std::optional<Done>() : std::optional<Done>(Done());
                                            }));
    (void)ready;
    // In pieces, so that a copy of an older request may fall between two.
    const size_t count = transaction.records.size();
    for (size_t i = 0; i < count;) {
      if (!link_.host.there(SimRequest::kWrite)) return roll_back("writing records");
      {
        std::lock_guard lock(link_.broker.mutex);
        for (const size_t stop = std::min(count, i + std::max<size_t>(1, count / 2)); i < stop; ++i) {
          TRY(link_.broker.check(id_, epoch_, "writing a record"));
          TRY_ASSIGN(SimPartition * to, admit(link_.broker, transaction.records[i]));
          auto place = link_.broker.append(id_, *to, std::move(transaction.records[i]));
          if (!place) break;
          number_ = link_.broker.writers[id_].number;
          places_.push_back(Offset(*place));
        }
        if (auto copy = std::exchange(copy_, std::nullopt)) link_.broker.end_late(id_, epoch_, copy->number, copy->commit);
      }
      if (!link_.host.back(SimRequest::kWrite)) return roll_back("writing records");
      if (places_.size() < i) return roll_back("writing records");  // the transaction before is being ended once more
    }
    transaction.records.clear();
    prepared_ = std::move(transaction);
    return {};
  }

  Result<std::vector<Offset>> commit() override {
    std::optional<Transaction> transaction = std::exchange(prepared_, std::nullopt);
    {
      std::lock_guard lock(link_.broker.mutex);
      TRY(link_.broker.check(id_, epoch_, "committing a transaction"));
    }
    if (!transaction) return std::vector<Offset>();
    if (transaction->offsets && !transaction->offsets->offsets.empty()) TRY(send_offsets(*transaction));
    TRY(end(true));
    return std::move(places_);
  }

  Result<void> abort() override {
    prepared_.reset();
    return end(false);
  }

 private:
  Result<void> admitted(const OutRecord& record) {
    auto to = admit(link_.broker, record);
    return to ? Result<void>() : Result<void>(to.error());
  }

  Result<void> send_offsets(const Transaction& transaction) {
    const std::string metadata = transaction.metadata ? transaction.metadata(places_) : std::string();
    if (!link_.host.there(SimRequest::kTxnOffsets)) return roll_back("committing offsets");
    std::optional<Error> refused;
    {
      std::lock_guard lock(link_.broker.mutex);
      TRY(link_.broker.check(id_, epoch_, "committing offsets"));
      const auto* member = static_cast<const Member*>(transaction.member);
      if (member != nullptr && !member->valid())
        refused = Error{member->replaced() ? Errc::kFenced : Errc::kAborted,
                        "committing offsets of group " + transaction.offsets->group +
                            " in the simulated log: the group has another generation"};
      else
        link_.broker.add_offsets(id_, *transaction.offsets, metadata);
    }
    if (!link_.host.back(SimRequest::kTxnOffsets)) return roll_back("committing offsets");
    if (!refused) return {};
    TRY(end(false));
    return *refused;
  }

  /// Ends the transaction at the coordinator. Errors: kFenced, kAmbiguous.
  Result<void> end(bool commit) {
    const std::string attempt = commit ? "committing a transaction" : "aborting a transaction";
    const Error ambiguous{Errc::kAmbiguous, attempt + " of writer " + id_ + " in the simulated log: no answer"};
    if (!link_.host.there(SimRequest::kEndTxn)) return ambiguous;
    {
      std::lock_guard lock(link_.broker.mutex);
      TRY(link_.broker.check(id_, epoch_, attempt));
      link_.broker.end(id_, commit);
    }
    const bool answered = link_.host.back(SimRequest::kEndTxn);
    noticed_ = noticed_ || !answered;
    if (auto later = link_.host.end_again(noticed_); later && later->count() == 0) {
      copy_ = Copy{number_, commit};
    } else if (later) {
      std::lock_guard lock(link_.broker.mutex);
      link_.broker.clock.at(link_.broker.clock.uptime() + *later,
                            [broker = &link_.broker, id = id_, epoch = epoch_, number = number_, commit] {
                              std::lock_guard again(broker->mutex);
                              broker->end_late(id, epoch, number, commit);
                            });
    }
    return noticed_ ? Result<void>(ambiguous) : Result<void>();
  }

  /// A request of the transaction got no answer: it is aborted, and what became of the request stays unknown.
  Error roll_back(const std::string& attempt) {
    noticed_ = true;
    Result<void> ended = end(false);
    Error error = ended.error();  // a request without an answer makes it ambiguous, whatever the end says
    error.message = attempt + ": " + error.message;
    return error;
  }

  Link link_;
  const std::string id_;
  const int32_t epoch_;
  int64_t number_ = 0;    // of our transaction at the coordinator
  bool noticed_ = false;  // a request of the transaction got no answer
  struct Copy {
    int64_t number;
    bool commit;
  };
  std::optional<Copy> copy_;  // of the last EndTxn: it arrives after the next write
  std::optional<Transaction> prepared_;
  std::vector<Offset> places_;
};

class Producer final : public LogProducer {
 public:
  explicit Producer(Link link) : link_(link) {}
  Result<void> send(OutRecord record) override {
    {
      std::lock_guard lock(link_.broker.mutex);
      TRY_ASSIGN(SimPartition * to, admit(link_.broker, record));
      record.to.partition = to->tp.partition;
    }
    queue_.push_back(std::move(record));
    return {};
  }
  Result<void> flush() override {
    // The servers know a repeated write again, so a lost answer costs time and nothing else.
    while (!queue_.empty()) {
      if (!link_.host.there(SimRequest::kProduce)) continue;
      {
        std::lock_guard lock(link_.broker.mutex);
        for (OutRecord& record : queue_) {
          TRY_ASSIGN(SimPartition * to, link_.broker.partition(record.to));
          link_.broker.append(*to, std::move(record));
        }
        queue_.clear();
      }
      while (!link_.host.back(SimRequest::kProduce)) {
      }
    }
    return {};
  }

 private:
  Link link_;
  std::vector<OutRecord> queue_;
};

class SimLog final : public Log {
 public:
  SimLog(SimBroker& broker, SimHost& host) : link_{broker, host} {}

  std::string describe() const override { return "simulated log"; }
  Result<std::string> cluster_id() override { return std::string("simulated"); }

  Result<void> create_topics(std::span<const TopicConfig> topics) override {
    std::lock_guard lock(link_.broker.mutex);
    for (const TopicConfig& config : topics) {
      auto [topic, fresh] = link_.broker.topics.try_emplace(config.name);
      if (!fresh) continue;
      topic->second.config = config;
      for (int32_t p = 0; p < config.partitions; ++p) topic->second.partitions.emplace_back().tp = {config.name, p};
    }
    return {};
  }
  Result<std::vector<TopicConfig>> topics() override {
    std::lock_guard lock(link_.broker.mutex);
    std::vector<TopicConfig> out;
    for (const auto& [name, topic] : link_.broker.topics) out.push_back(topic.config);
    return out;
  }
  Result<int32_t> partition_count(const std::string& topic) override {
    std::lock_guard lock(link_.broker.mutex);
    TRY_ASSIGN(SimTopic * found, link_.broker.topic(topic));
    return found->config.partitions;
  }
  Result<OffsetRange> range(const TopicPartition& tp) override {
    return link_.now<OffsetRange>(SimRequest::kMetadata, "asking for the ends of " + to_string(tp), [&]() -> Result<OffsetRange> {
      TRY_ASSIGN(SimPartition * in, link_.broker.partition(tp));
      return OffsetRange{Offset(in->start), Offset(std::max(in->start, in->stable()))};
    });
  }
  Result<Offset> written(const TopicPartition& tp) override {
    return link_.now<Offset>(SimRequest::kMetadata, "asking for the end of " + to_string(tp), [&]() -> Result<Offset> {
      TRY_ASSIGN(SimPartition * in, link_.broker.partition(tp));
      return Offset(in->end());
    });
  }

  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    std::map<TopicPartition, SimPartition*> partitions;
    std::lock_guard lock(link_.broker.mutex);
    for (const auto& [tp, offset] : from) {
      TRY_ASSIGN(partitions[tp], link_.broker.partition(tp));
    }
    return std::unique_ptr<LogReader>(std::make_unique<Reader>(link_, partitions, from));
  }
  Result<std::unique_ptr<LogWriter>> open_writer(const std::string& id) override {
    TRY_ASSIGN(const int32_t epoch, link_.call<int32_t>(SimRequest::kInitWriter, "opening writer " + id, link_.writer(id),
                                                        [&]() -> Result<std::optional<int32_t>> { return link_.broker.init(id); }));
    return std::unique_ptr<LogWriter>(std::make_unique<Writer>(link_, id, epoch));
  }
  Result<std::unique_ptr<LogProducer>> open_producer() override {
    return std::unique_ptr<LogProducer>(std::make_unique<Producer>(link_));
  }

  Result<std::unique_ptr<Membership>> join(const std::string& group, const std::vector<std::string>& topics,
                                           const std::string& instance_id) override {
    std::lock_guard lock(link_.broker.mutex);
    for (const std::string& topic : topics) TRY(exists(topic));
    return std::unique_ptr<Membership>(std::make_unique<Member>(link_, link_.broker.groups[group], topics, instance_id));
  }
  Result<GroupView> members(const std::string& group) override {
    return link_.now<GroupView>(SimRequest::kGroup, "asking for the members of group " + group, [&]() -> Result<GroupView> {
      const SimGroup& in = link_.broker.groups[group];
      GroupView out;
      out.settled = !in.rebalancing;
      for (const auto& [id, member] : in.members)
        out.members.push_back({id, "simulated", member.instance, out.settled ? member.assigned : std::vector<TopicPartition>()});
      return out;
    });
  }
  Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string& group,
                                                              std::span<const TopicPartition> of) override {
    using Offsets = std::map<TopicPartition, CommittedOffset>;
    return link_.call<Offsets>(SimRequest::kCommitted, "asking for the offsets of group " + group, link_.group(group),
                               [&]() -> Result<std::optional<Offsets>> {
                                 const SimGroup& in = link_.broker.groups[group];
                                 if (link_.broker.undecided(in, of)) return std::optional<Offsets>();
                                 Offsets out;
                                 for (const TopicPartition& tp : of)
                                   if (auto it = in.offsets.find(tp); it != in.offsets.end()) out.insert(*it);
                                 return std::optional<Offsets>(std::move(out));
                               });
  }
  Result<void> commit_offsets(const OffsetCommit& commit, const Membership* member) override {
    TRY_ASSIGN(Done done, link_.now<Done>(SimRequest::kGroup, "committing offsets of group " + commit.group, [&]() -> Result<Done> {
      if (member != nullptr && !static_cast<const Member*>(member)->valid())
        return Error{Errc::kRefused,
                     "committing offsets of group " + commit.group + " in the simulated log: the group has another generation"};
      for (const auto& [tp, offset] : commit.offsets) link_.broker.groups[commit.group].offsets[tp] = {offset, ""};
      return Done();
    }));
    (void)done;
    return {};
  }
  Result<void> delete_before(const TopicPartition& tp, Offset before) override {
    std::lock_guard lock(link_.broker.mutex);
    TRY_ASSIGN(SimPartition * in, link_.broker.partition(tp));
    in->start = std::clamp(before.value, in->start, in->end());
    link_.broker.clock.news(in);
    return {};
  }

 private:
  Result<void> exists(const std::string& topic) {
    auto found = link_.broker.topic(topic);
    return found ? Result<void>() : Result<void>(found.error());
  }

  Link link_;
};

}  // namespace

std::unique_ptr<SimClock> machine_sim_clock() { return std::make_unique<MachineSimClock>(); }

SimCluster::SimCluster(SimClock& clock, SimLogOptions options) : broker_(std::make_unique<SimBroker>(clock, std::move(options))) {}
SimCluster::~SimCluster() = default;

std::unique_ptr<Log> SimCluster::client(SimHost& host) { return std::make_unique<SimLog>(*broker_, host); }

void SimCluster::expire(const SimHost& host) {
  std::lock_guard lock(broker_->mutex);
  broker_->expire(host);
}

void SimCluster::truncate(const TopicPartition& tp, Offset from) {
  std::lock_guard lock(broker_->mutex);
  auto in = broker_->partition(tp);
  CHECK(in.has_value());
  broker_->truncate(**in, from.value);
}

Offset SimCluster::written(const TopicPartition& tp) {
  std::lock_guard lock(broker_->mutex);
  auto in = broker_->partition(tp);
  CHECK(in.has_value());
  return Offset((*in)->end());
}

void SimCluster::undelete(const TopicPartition& tp) {
  std::lock_guard lock(broker_->mutex);
  auto in = broker_->partition(tp);
  CHECK(in.has_value());
  (*in)->start = 0;
}

}  // namespace assay::streams
