// Reading: one consumer with explicit places, one librdkafka queue per partition, so that a paused partition simply stays
// in its (bounded) queue and partitions with records take turns.
//
// librdkafka pours the queue of a partition into the consumer's common one as soon as the partition is assigned, unless the
// queue was told before to stand alone; what was poured before that lands where nobody looks for records. So the queues
// come first and the assignment second.
#include <algorithm>
#include <condition_variable>
#include <thread>

#include "streams/kafka_log_parts.h"

namespace assay::streams::kafka {

namespace {

using Clock = std::chrono::steady_clock;

/// After so long without news the reader makes sure that there is a broker; librdkafka itself would try for ever in silence.
constexpr Milliseconds kOutagePatience{30000};

/// What a small record takes in a queue: some 500 bytes of librdkafka's beside its own.
constexpr int64_t kQueuedRecordBytes = 800;

/// How long the broker holds the answer to a fetch that finds nothing. Every reading that has an end waits so long for the news
/// that only markers follow; and while a partition's queue is full, the other partitions are asked for alone, so that a queue which
/// was emptied meanwhile stays so. 20 requests a second of an idle reader cost nothing that could be measured beside that.
constexpr Milliseconds kFetchWait{50};

/// A fetch ends after so many bytes of records, whatever their number: they are held until all of them are folded.
constexpr size_t kFetchBytes = 1 << 20;

/// Bell that librdkafka's threads ring when an empty queue gets something.
class Bell {
 public:
  void ring() {
    std::lock_guard lock(mutex_);
    ++rings_;
    rung_.notify_one();
  }
  uint64_t rings() {
    std::lock_guard lock(mutex_);
    return rings_;
  }
  /// Waits until it rang after `seen` was taken.
  void wait(uint64_t seen, Clock::time_point until) {
    std::unique_lock lock(mutex_);
    rung_.wait_until(lock, until, [&] { return rings_ != seen; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable rung_;
  uint64_t rings_ = 0;
};

/// Messages of a fetch; they must go before their client.
struct Messages {
  Messages(std::shared_ptr<Client> c, std::shared_ptr<KafkaHeld> all) : client(std::move(c)), memory(std::move(all)) {}
  ~Messages() {
    for (rd_kafka_message_t* m : held) rd_kafka_message_destroy(m);
    memory->reading -= size_bytes;
  }
  Messages(const Messages&) = delete;

  void add(rd_kafka_message_t* m) {
    const auto size = static_cast<int64_t>(m->len + m->key_len) + kQueuedRecordBytes;
    held.push_back(m);
    size_bytes += size;
    memory->reading += size;
  }

  std::shared_ptr<Client> client;
  std::shared_ptr<KafkaHeld> memory;
  std::vector<rd_kafka_message_t*> held;
  int64_t size_bytes = 0;
};

std::optional<std::string_view> bytes(const void* data, size_t size) {
  if (!data) return std::nullopt;
  return std::string_view(static_cast<const char*>(data), size);
}

RecordView view(rd_kafka_message_t* m) {
  RecordView record;
  record.offset = Offset(m->offset);
  record.timestamp = WallTime(rd_kafka_message_timestamp(m, nullptr));
  record.key = bytes(m->key, m->key_len);
  record.value = bytes(m->payload, m->len);
  rd_kafka_headers_t* headers = nullptr;
  if (rd_kafka_message_headers(m, &headers) == RD_KAFKA_RESP_ERR_NO_ERROR) {
    const size_t count = rd_kafka_header_cnt(headers);
    record.headers.reserve(count);
    const char* name;
    const void* value;
    size_t size;
    for (size_t i = 0; rd_kafka_header_get_all(headers, i, &name, &value, &size) == RD_KAFKA_RESP_ERR_NO_ERROR; ++i)
      record.headers.push_back({name, bytes(value, size)});
  }
  return record;
}

class KafkaReader final : public LogReader {
 public:
  static Result<std::unique_ptr<LogReader>> open(const KafkaLogOptions& options, const std::map<TopicPartition, Offset>& from);
  ~KafkaReader() override;

  Result<std::optional<Fetch>> poll(Milliseconds wait, size_t max_records) override;
  Result<void> seek(const TopicPartition& tp, Offset to) override;
  void pause(const TopicPartition& tp) override { find(tp).paused = true; }
  void resume(const TopicPartition& tp) override { find(tp).paused = false; }

 private:
  struct Partition {
    TopicPartition tp;
    Offset next;
    bool paused = false;
    std::optional<Error> failed;  // stays until a seek
    QueuePtr queue;
  };

  Partition& find(const TopicPartition& tp);
  Result<std::optional<Fetch>> take(Partition& p, size_t max_records);
  Error failure(const Partition& p, const rd_kafka_message_t& m) const;
  Result<void> assign();
  bool is_stale(const Partition& p) const;
  Result<void> watch_outage();
  void count_queues();

  Bell bell_;
  std::vector<Partition> partitions_;
  std::map<std::string, TopicPtr> topics_;  // held, so that librdkafka keeps the partitions that the queues belong to
  size_t turn_ = 0;
  Clock::time_point heard_ = Clock::now();  // of the broker, for sure
  std::shared_ptr<KafkaHeld> held_;
  int64_t queued_bytes_ = 0;                   // that were counted there for our queues
  int64_t record_bytes_ = kQueuedRecordBytes;  // of one, in the mean of the last fetch
  std::shared_ptr<Client> client_;
};

Result<std::unique_ptr<LogReader>> KafkaReader::open(const KafkaLogOptions& options, const std::map<TopicPartition, Offset>& from) {
  int64_t buffer = from.empty() ? options.fetch_buffer_bytes : 0;
  for (const auto& [tp, offset] : from) {
    const auto own = options.fetch_buffers.find(tp.topic);
    buffer = std::max(buffer, own != options.fetch_buffers.end() ? own->second : options.fetch_buffer_bytes);
  }
  // Full queues are looked at again after a second (2.0.2 has no setting for it), so that a queue which is too short for a
  // second of records holds its reader up: many small records and few large ones may both fill it.
  const int64_t share = buffer / std::max<int64_t>(1, std::ssize(from));
  auto reader = std::make_unique<KafkaReader>();
  reader->held_ = options.held;
  TRY_ASSIGN(reader->client_,
             Client::create(options, RD_KAFKA_CONSUMER,
                            {{"queued.max.messages.kbytes", std::to_string(std::clamp<int64_t>(share / 4 * 3 / 1024, 64, 1 << 20))},
                             {"queued.min.messages", std::to_string(std::clamp<int64_t>(share / kQueuedRecordBytes, 100, 100000))},
                             {"max.partition.fetch.bytes", std::to_string(std::clamp<int64_t>(buffer / 2, 64 << 10, 1 << 20))},
                             {"fetch.max.bytes", std::to_string(std::clamp<int64_t>(buffer / 2, 1 << 20, 32 << 20))},
                             {"fetch.wait.max.ms", std::to_string(kFetchWait.count())},
                             {"fetch.error.backoff.ms", "100"}},
                            {{"group.id", options.client_id + "-reader"},  // librdkafka wants one; nothing is committed under it
                             {"enable.auto.commit", "false"},
                             {"enable.auto.offset.store", "false"},
                             {"auto.offset.reset", "error"},
                             {"check.crcs", "true"},
                             {"isolation.level", "read_committed"},
                             {"enable.partition.eof", "true"}}));
  std::map<std::string, int32_t> counts;
  for (const auto& [tp, offset] : from) {
    if (!counts.contains(tp.topic)) {
      TopicPtr topic(rd_kafka_topic_new(reader->client_->get(), tp.topic.c_str(), nullptr));
      if (!topic) return reader->client_->error(rd_kafka_last_error(), "naming topic " + tp.topic);
      TRY_ASSIGN(counts[tp.topic], reader->client_->partition_count(topic.get()));
      reader->topics_[tp.topic] = std::move(topic);
    }
    if (tp.partition < 0 || tp.partition >= counts[tp.topic])
      return Error{Errc::kNotFound, "reading " + to_string(tp) + " at Kafka " + options.brokers + ": the topic has " +
                                        std::to_string(counts[tp.topic]) + " partitions"};
    Partition p;
    p.tp = tp;
    p.next = offset;
    p.queue.reset(rd_kafka_queue_get_partition(reader->client_->get(), tp.topic.c_str(), tp.partition));
    CHECK(p.queue);
    rd_kafka_queue_forward(p.queue.get(), nullptr);
    rd_kafka_queue_cb_event_enable(
        p.queue.get(), [](rd_kafka_t*, void* bell) { static_cast<Bell*>(bell)->ring(); }, &reader->bell_);
    reader->partitions_.push_back(std::move(p));
  }
  TRY(reader->assign());
  return std::unique_ptr<LogReader>(std::move(reader));
}

KafkaReader::~KafkaReader() {
  if (held_) held_->reading -= queued_bytes_;
  // A fetch may outlive us and with it the client, whose threads must not ring a bell that has gone.
  for (Partition& p : partitions_) {
    rd_kafka_queue_cb_event_enable(p.queue.get(), nullptr, nullptr);
    p.queue.reset();
  }
  topics_.clear();  // like the queues, before their client
}

/// Starts every partition anew where we are; those that failed wait for their seek.
Result<void> KafkaReader::assign() {
  PartitionListPtr list = make_list(partitions_.size());
  for (const Partition& p : partitions_)
    if (!p.failed) add_partition(list.get(), p.tp, p.next.value);
  if (auto err = rd_kafka_assign(client_->get(), list.get())) return client_->error(err, "assigning partitions to a reader");
  return {};
}

KafkaReader::Partition& KafkaReader::find(const TopicPartition& tp) {
  auto it = std::ranges::find(partitions_, tp, &Partition::tp);
  CHECK(it != partitions_.end());
  return *it;
}

Result<std::optional<Fetch>> KafkaReader::poll(Milliseconds wait, size_t max_records) {
  CHECK(max_records > 0);
  const auto until = Clock::now() + wait;
  for (;;) {
    const uint64_t seen = bell_.rings();
    for (size_t i = 0; i < partitions_.size(); ++i) {
      Partition& p = partitions_[(turn_ + i) % partitions_.size()];
      if (p.paused) continue;
      TRY_ASSIGN(auto fetch, take(p, max_records));
      if (!fetch) continue;
      turn_ = (turn_ + i + 1) % partitions_.size();
      return fetch;
    }
    TRY(watch_outage());
    if (Clock::now() >= until) return std::optional<Fetch>();
    bell_.wait(seen, std::min(until, Clock::now() + Milliseconds(500)));
  }
}

Result<std::optional<Fetch>> KafkaReader::take(Partition& p, size_t max_records) {
  if (p.failed) return *p.failed;
  std::shared_ptr<Messages> messages;
  Fetch fetch;
  size_t size_bytes = 0;
  while (fetch.records.size() < max_records && size_bytes < kFetchBytes) {
    rd_kafka_message_t* m = rd_kafka_consume_queue(p.queue.get(), 0);
    if (!m) break;
    if (m->err == RD_KAFKA_RESP_ERR_NO_ERROR) {
      if (!messages) messages = std::make_shared<Messages>(client_, held_);
      messages->add(m);
      fetch.records.push_back(view(m));
      size_bytes += m->len + m->key_len;
      p.next = Offset(m->offset + 1);
      continue;
    }
    if (m->err == RD_KAFKA_RESP_ERR__PARTITION_EOF) {
      p.next = std::max(p.next, Offset(m->offset));
      fetch.at_end = true;
    } else if (errc_of(m->err) != Errc::kUnreachable) {  // it goes on by itself when it can
      p.failed = failure(p, *m);
    }
    rd_kafka_message_destroy(m);
    if (fetch.at_end || p.failed) break;
  }
  if (p.failed && p.failed->code == Errc::kOutOfRange && is_stale(p)) {
    p.failed.reset();
    if (auto assigned = assign(); !assigned) p.failed = assigned.error();  // told after the records that we hold
  }
  if (fetch.records.empty() && !fetch.at_end) {
    if (p.failed) return *p.failed;
    return std::optional<Fetch>();
  }
  if (messages) record_bytes_ = messages->size_bytes / std::ssize(messages->held);
  count_queues();
  heard_ = Clock::now();
  fetch.from = p.tp;
  fetch.next = p.next;
  fetch.storage = std::move(messages);
  return std::optional<Fetch>(std::move(fetch));
}

/// librdkafka tells how many records wait in a queue, and not how large they are: they are taken to be like those before.
void KafkaReader::count_queues() {
  int64_t records = 0;
  for (const Partition& p : partitions_) records += static_cast<int64_t>(rd_kafka_queue_length(p.queue.get()));
  const int64_t now = records * record_bytes_;
  held_->reading += now - std::exchange(queued_bytes_, now);
}

/// Whether a refusal of a place speaks of one that we have left. librdkafka does not number these refusals as it numbers
/// records: one that was on its way while we sought elsewhere arrives all the same, and stops the partition. In doubt the
/// partition is started again: a place that is not there is refused again.
bool KafkaReader::is_stale(const Partition& p) const {
  const auto range = client_->range(p.tp);
  return !range || (range->start <= p.next && p.next <= range->end);
}

Error KafkaReader::failure(const Partition& p, const rd_kafka_message_t& m) const {
  const std::string attempt = "reading " + to_string(p.tp) + " from offset " + std::to_string(p.next.value);
  return client_->error(m.err, attempt, rd_kafka_message_errstr(&m));
}

Result<void> KafkaReader::watch_outage() {
  while (rd_kafka_message_t* m = rd_kafka_consumer_poll(client_->get(), 0)) {  // what belongs to no partition
    CHECK(m->err);  // a record that did not pass through its partition's queue would be lost
    rd_kafka_message_destroy(m);
  }
  if (Clock::now() - heard_ < kOutagePatience) return {};
  const rd_kafka_metadata_t* metadata = nullptr;
  if (auto err = rd_kafka_metadata(client_->get(), 0, nullptr, &metadata, kSliceMs))
    return client_->error(Errc::kUnreachable, "reading",
                          "no answer since " + std::to_string(kOutagePatience.count()) + " ms: " + rd_kafka_err2str(err));
  rd_kafka_metadata_destroy(metadata);
  heard_ = Clock::now();
  return {};
}

Result<void> KafkaReader::seek(const TopicPartition& tp, Offset to) {
  Partition& p = find(tp);
  p.next = to;
  if (!p.failed) {
    PartitionListPtr list = make_list(1);
    add_partition(list.get(), tp, to.value);
    ErrorPtr error(rd_kafka_seek_partitions(client_->get(), list.get(), kRequestTimeoutMs));
    if (!error && !list->elems[0].err) return {};
  }
  // A partition that is not being fetched cannot be moved: it was assigned a moment ago, or a refusal of its place stopped it.
  // A new assignment starts all of them where we are.
  p.failed.reset();
  return assign();
}

}  // namespace

Result<std::unique_ptr<LogReader>> open_reader(const KafkaLogOptions& options, const std::map<TopicPartition, Offset>& from) {
  return KafkaReader::open(options, from);
}

}  // namespace assay::streams::kafka
