// Writing: transactions of one transactional id, and idempotent writes outside of them.
#include <algorithm>
#include <cstdlib>
#include <future>
#include <set>

#include "streams/kafka_log_parts.h"

namespace assay::streams::kafka {

namespace {

using Clock = std::chrono::steady_clock;

constexpr Milliseconds kStopping{3000};  // a process that is to end waits so long for an answer
constexpr Milliseconds kSlice{500};      // how soon a waiting call notices

/// How long one request of a transaction is waited for; then it is sent again or given up, and counts as unanswered. The call that
/// registers offsets waits for that and for nothing else, so a process that is to end cannot be held up for longer.
Milliseconds answer_patience(int64_t transaction_timeout_ms) {
  return Milliseconds(std::min<int64_t>(4000, transaction_timeout_ms - 100));
}

/// While more is queued than may go, librdkafka's thread asks again and again, without a pause, whether it may now: a core is spent
/// on waiting. So a transaction queues the next batch while one is on its way, and the one after that when the first has arrived.
constexpr size_t kQueuedBytes = kBatchBytes / 8 * 7;
constexpr size_t kRecordFramingBytes = 200;  // about what key, headers and lengths add
/// What librdkafka keeps about a record that waits to be sent, its headers among it, beside key and value.
constexpr int64_t kQueuedRecordBytes = 1024;

Settings producer_tuning(const KafkaLogOptions& options) {
  // One half for the bytes of records, the other for what the client keeps about each.
  const int64_t half = options.send_buffer_bytes / 2;
  // A record that is larger than the queue would never get in.
  const int64_t least_kb = (kMaxDeadLetterBytes + kRoomBytes) / 1024;
  return {{"queue.buffering.max.messages", std::to_string(std::clamp<int64_t>(half / kQueuedRecordBytes, 1000, 1000000))},
          {"queue.buffering.max.kbytes", std::to_string(std::clamp<int64_t>(half / 1024, least_kb, 2097151))},
          {"message.max.bytes", "16777216"},  // the topic decides, not the client
          {"batch.size", std::to_string(kBatchBytes)},
          {"linger.ms", "5"},
          {"compression.type", "lz4"},  // records of one agent resemble each other
          {"retry.backoff.ms", "50"}};
}

Settings producer_fixed() { return {{"enable.idempotence", "true"}, {"acks", "all"}, {"partitioner", "murmur2_random"}}; }

/// Requests of a transaction that were sent and not answered. When one stays behind, a late copy of it may still reach a
/// coordinator and hit the next transaction (KAFKA-17754); only a new producer epoch is safe from it. A transactional
/// producer has one request of a kind under way at a time, and librdkafka tells interceptors of the answer no correlation
/// id, so the kind identifies the request. An answer is told twice, before the next request of its kind can be sent.
class Unanswered {
 public:
  void sent(int16_t key) {
    if (!tracked(key)) return;
    std::lock_guard lock(mutex_);
    if (!open_.insert(key).second) lost_ = true;  // it is sent again, and the first was never answered
  }
  void answered(int16_t key, bool received) {
    if (!tracked(key)) return;
    std::lock_guard lock(mutex_);
    if (open_.erase(key) && !received) lost_ = true;
  }
  bool any() const {
    std::lock_guard lock(mutex_);
    return lost_ || !open_.empty();
  }
  bool registering() const {
    std::lock_guard lock(mutex_);
    return open_.contains(kAddPartitionsToTxn);
  }

 private:
  static constexpr int16_t kAddPartitionsToTxn = 24, kAddOffsetsToTxn = 25, kEndTxn = 26, kTxnOffsetCommit = 28;
  static bool tracked(int16_t key) {
    return key == kAddPartitionsToTxn || key == kAddOffsetsToTxn || key == kEndTxn || key == kTxnOffsetCommit;
  }
  mutable std::mutex mutex_;
  std::set<int16_t> open_;
  bool lost_ = false;
};

class KafkaWriter final : public LogWriter {
 public:
  ~KafkaWriter() override { let_go(); }
  static Result<std::unique_ptr<LogWriter>> open(const KafkaLogOptions& options, std::shared_ptr<Knowledge> knowledge,
                                                 const std::string& transactional_id);

  Result<void> prepare(Transaction transaction) override;
  Result<std::vector<Offset>> commit() override;
  Result<void> abort() override;

 private:
  static rd_kafka_resp_err_t on_new(rd_kafka_t* rk, const rd_kafka_conf_t*, void* unanswered, char*, size_t);
  static void on_delivery(rd_kafka_t*, const rd_kafka_message_t* m, void* opaque);

  Result<void> deliver(size_t count, bool all);
  using Offsets = std::shared_ptr<rd_kafka_topic_partition_list_t>;
  using GroupProof = std::shared_ptr<const rd_kafka_consumer_group_metadata_t>;
  std::optional<ErrorPtr> register_offsets(const Offsets& offsets, const GroupProof& proof);
  /// Nothing of ours waits in the client any more.
  void let_go() {
    if (held_) held_->writing -= std::exchange(held_bytes_, 0);
  }
  Result<void> send_offsets();
  Error roll_back(std::string_view attempt, std::string_view why);
  Error finish(Error error);
  Error failed(const ErrorPtr& error, std::string_view attempt);
  bool stopping() const { return client_->stopping(); }
  /// Whether a call that began then has waited long enough. All calls of a process that is to end share one patience.
  bool over(Clock::time_point began) {
    const auto now = Clock::now();
    if (stopping() && !stop_seen_) stop_seen_ = now;
    return now - began >= Milliseconds(timeout_ms_) || (stop_seen_ && now - *stop_seen_ >= kStopping);
  }
  ErrorPtr end(rd_kafka_error_t* (*call)(rd_kafka_t*, int));
  std::string named(std::string_view what) const { return std::string(what) + " as " + id_; }

  std::string id_;
  std::shared_ptr<Knowledge> knowledge_;
  int64_t timeout_ms_ = 0;
  std::optional<Clock::time_point> stop_seen_;

  std::optional<Transaction> transaction_;  // prepared
  std::optional<Error> done_;               // fenced or ambiguous: this writer does nothing more

  // Of the transaction being delivered; reports of an earlier one carry another number and do not count.
  uint32_t number_ = 0;
  std::shared_ptr<KafkaHeld> held_;
  int64_t held_bytes_ = 0;  // that were counted there for it
  std::vector<int32_t> partitions_;
  std::vector<Offset> places_;
  size_t delivered_ = 0;
  rd_kafka_resp_err_t delivery_error_ = RD_KAFKA_RESP_ERR_NO_ERROR;

  const std::shared_ptr<Unanswered> unanswered_ = std::make_shared<Unanswered>();
  std::shared_ptr<Client> client_;  // its threads end before what they call
  std::optional<Destinations> destinations_;
};

rd_kafka_resp_err_t KafkaWriter::on_new(rd_kafka_t* rk, const rd_kafka_conf_t*, void* unanswered, char*, size_t) {
  auto sent = [](rd_kafka_t*, int, const char*, int32_t, int16_t key, int16_t, int32_t, size_t, void* open) {
    static_cast<Unanswered*>(open)->sent(key);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
  };
  auto received = [](rd_kafka_t*, int, const char*, int32_t, int16_t key, int16_t, int32_t, size_t, int64_t,
                     rd_kafka_resp_err_t err, void* open) {
    static_cast<Unanswered*>(open)->answered(key, err == RD_KAFKA_RESP_ERR_NO_ERROR);
    return RD_KAFKA_RESP_ERR_NO_ERROR;
  };
  if (auto err = rd_kafka_interceptor_add_on_request_sent(rk, "assay", sent, unanswered)) return err;
  return rd_kafka_interceptor_add_on_response_received(rk, "assay", received, unanswered);
}

void KafkaWriter::on_delivery(rd_kafka_t*, const rd_kafka_message_t* m, void* opaque) {
  auto* writer = user_of<KafkaWriter>(opaque);
  const auto tag = reinterpret_cast<uintptr_t>(m->_private);
  if (static_cast<uint32_t>(tag >> 32) != writer->number_) return;
  ++writer->delivered_;
  if (m->err && !writer->delivery_error_) writer->delivery_error_ = m->err;
  writer->places_[tag & 0xffffffff] = Offset(m->offset);
}

Result<std::unique_ptr<LogWriter>> KafkaWriter::open(const KafkaLogOptions& options, std::shared_ptr<Knowledge> knowledge,
                                                     const std::string& transactional_id) {
  auto writer = std::make_unique<KafkaWriter>();
  writer->id_ = transactional_id;
  writer->knowledge_ = std::move(knowledge);
  writer->timeout_ms_ = options.transaction_timeout_ms;
  writer->held_ = options.held;
  Settings fixed = producer_fixed();
  fixed.emplace_back("transactional.id", transactional_id);
  fixed.emplace_back("transaction.timeout.ms", std::to_string(options.transaction_timeout_ms));
  fixed.emplace_back("message.timeout.ms", std::to_string(options.transaction_timeout_ms));
  Settings tuning = producer_tuning(options);
  tuning.emplace_back("socket.timeout.ms", std::to_string(answer_patience(options.transaction_timeout_ms).count()));
  TRY_ASSIGN(writer->client_, Client::create(
                                  options, RD_KAFKA_PRODUCER, std::move(tuning), std::move(fixed),
                                  [](rd_kafka_conf_t* conf, void* self) {
                                    rd_kafka_conf_set_dr_msg_cb(conf, on_delivery);
                                    rd_kafka_conf_interceptor_add_on_new(conf, "assay", on_new,
                                                                         static_cast<KafkaWriter*>(self)->unanswered_.get());
                                  },
                                  writer.get()));
  writer->destinations_.emplace(*writer->client_);
  // An older owner's unfinished transaction is ended first; its markers may take a moment.
  for (const auto began = Clock::now();;) {
    ErrorPtr error(rd_kafka_init_transactions(writer->client_->get(), kSliceMs));  // a time-out is taken up by the next call
    if (!error) break;
    const bool silent = errc_of(rd_kafka_error_code(error.get())) == Errc::kUnreachable;
    const Milliseconds patience(silent ? kRequestTimeoutMs : 3 * kRequestTimeoutMs);
    if (rd_kafka_error_is_retriable(error.get()) && !writer->stopping() && Clock::now() - began < patience) continue;
    return writer->client_->error(rd_kafka_error_code(error.get()), writer->named("opening a transactional writer"),
                                  rd_kafka_error_string(error.get()));
  }
  return std::unique_ptr<LogWriter>(std::move(writer));
}

/// Commits or aborts. The call itself would wait for an answer for ever; on a time-out it goes on in the background and is
/// taken up again, and where patience ends, it is left and the writer with it.
ErrorPtr KafkaWriter::end(rd_kafka_error_t* (*call)(rd_kafka_t*, int)) {
  const auto began = Clock::now();
  for (;;) {
    ErrorPtr error(call(client_->get(), static_cast<int>(kSlice.count())));
    if (!error || rd_kafka_error_code(error.get()) != RD_KAFKA_RESP_ERR__TIMED_OUT || rd_kafka_error_is_fatal(error.get()) ||
        rd_kafka_error_txn_requires_abort(error.get()) || over(began))
      return error;
  }
}

/// Remembers that this writer is of no more use.
Error KafkaWriter::finish(Error error) {
  transaction_.reset();
  done_ = error;
  return error;
}

/// The error of a call that left the transaction beyond rolling back.
Error KafkaWriter::failed(const ErrorPtr& error, std::string_view attempt) {
  char text[512];
  rd_kafka_resp_err_t err = rd_kafka_fatal_error(client_->get(), text, sizeof text);
  if (!err) err = rd_kafka_error_code(error.get());
  const std::string why = rd_kafka_error_string(error.get());
  if (is_fencing(err) || is_fencing(rd_kafka_error_code(error.get())))
    return finish(client_->error(Errc::kFenced, named(attempt), why));
  return finish(client_->error(Errc::kAmbiguous, named(attempt), why));
}

/// Ends the transaction after something in it failed. kAborted when it certainly did not happen and nothing of it is on its way.
Error KafkaWriter::roll_back(std::string_view attempt, std::string_view why) {
  transaction_.reset();
  // librdkafka aborts the process when it hears of such a request, or gives it up, after its transaction has ended. It is left
  // to the next writer of this id to end it.
  if (unanswered_->registering())
    return finish(client_->error(Errc::kAmbiguous, named(attempt), std::string(why) + "; its partitions were never confirmed"));
  ErrorPtr error = end(rd_kafka_abort_transaction);
  if (error) return failed(error, std::string(attempt) + " (" + std::string(why) + "), then aborting");
  if (unanswered_->any())
    return finish(
        client_->error(Errc::kAmbiguous, named(attempt), std::string(why) + "; aborted, but a request of it was never answered"));
  return client_->error(Errc::kAborted, named(attempt), why);
}

Result<void> KafkaWriter::prepare(Transaction transaction) {
  CHECK(!transaction_);
  if (done_) return *done_;
  TRY(knowledge_->check_sizes(transaction.records));
  std::vector<rd_kafka_topic_t*> topics;
  topics.reserve(transaction.records.size());
  partitions_.clear();
  partitions_.reserve(transaction.records.size());
  // Topics are known before the first write: metadata asked for in a transaction can outlast it.
  const std::string* named = nullptr;  // records for one topic mostly follow each other
  Destinations::Topic* topic = nullptr;
  for (const OutRecord& record : transaction.records) {
    if (named == nullptr || *named != record.to.topic) {
      named = &record.to.topic;
      TRY_ASSIGN(topic, destinations_->find(*named));
    }
    TRY_ASSIGN(const int32_t partition, destinations_->partition(*topic, record));
    topics.push_back(topic->handle.get());
    partitions_.push_back(partition);
  }
  if (ErrorPtr error{rd_kafka_begin_transaction(client_->get())}) return failed(error, "beginning a transaction");
  transaction_ = std::move(transaction);
  const auto& records = transaction_->records;
  ++number_;
  places_.assign(records.size(), Offset(-1));
  delivered_ = 0;
  delivery_error_ = RD_KAFKA_RESP_ERR_NO_ERROR;
  const auto began = Clock::now();
  size_t batch_begin = 0, batch_bytes = 0;
  for (size_t i = 0; i < records.size(); ++i) {
    if (batch_bytes >= kQueuedBytes) {
      TRY(deliver(batch_begin, false));
      batch_begin = i;
      batch_bytes = 0;
    }
    batch_bytes += kRecordFramingBytes + (records[i].value ? records[i].value->size() : 0);
    const auto size = static_cast<int64_t>((records[i].value ? records[i].value->size() : 0)) + kQueuedRecordBytes;
    held_bytes_ += size;
    held_->writing += size;
    auto* tag = reinterpret_cast<void*>(static_cast<uintptr_t>(number_) << 32 | i);
    rd_kafka_resp_err_t err;
    while ((err = produce(client_->get(), topics[i], partitions_[i], records[i], tag)) == RD_KAFKA_RESP_ERR__QUEUE_FULL &&
           !over(began))
      rd_kafka_poll(client_->get(), 50);
    if (!err) continue;
    const std::string attempt = "writing to " + to_string({records[i].to.topic, partitions_[i]});
    Error aborted = roll_back(attempt, rd_kafka_err2str(err));
    if (aborted.code == Errc::kAborted && errc_of(err) == Errc::kTooLarge) aborted.code = Errc::kTooLarge;
    return aborted;
  }
  return deliver(records.size(), true);
}

/// Waits until so many records have arrived: `all`, or some while others follow.
Result<void> KafkaWriter::deliver(size_t count, bool all) {
  char text[512];
  const auto began = Clock::now();
  while (delivered_ < count && !delivery_error_ && !rd_kafka_fatal_error(client_->get(), text, sizeof text)) {
    constexpr int kSliceOfWaiting = static_cast<int>(kSlice.count());  // message.timeout.ms bounds every delivery
    if (all)
      rd_kafka_flush(client_->get(), kSliceOfWaiting);
    else
      rd_kafka_poll(client_->get(), kSliceOfWaiting);
    if (stopping() && over(began)) delivery_error_ = RD_KAFKA_RESP_ERR__MSG_TIMED_OUT;
  }
  if (all) let_go();
  const std::string attempt = "writing " + std::to_string(places_.size()) + " records";
  if (auto fatal = rd_kafka_fatal_error(client_->get(), text, sizeof text))
    return finish(client_->error(is_fencing(fatal) ? Errc::kFenced : Errc::kAmbiguous, named(attempt), text));
  if (delivery_error_) {
    Error error = roll_back(attempt, rd_kafka_err2str(delivery_error_));
    if (error.code == Errc::kAborted && errc_of(delivery_error_) == Errc::kTooLarge) error.code = Errc::kTooLarge;
    return error;
  }
  // A repeated write that the broker recognised is acknowledged without its place; the metadata needs every place.
  if (all && std::any_of(places_.begin(), places_.end(), [](Offset o) { return o.value < 0; }))
    return roll_back(attempt, "a repeated write was acknowledged without its offset");
  return {};
}

/// The call's time-out cannot be taken up, and it is looked at only when a request has been answered or given up; while the group's
/// coordinator cannot be connected to, none is sent, and the call lasts until it can. So it has a thread to wait in, where a
/// process that is to end leaves it, with all that it uses; then there is no answer.
std::optional<ErrorPtr> KafkaWriter::register_offsets(const Offsets& offsets, const GroupProof& proof) {
  const Milliseconds patience = answer_patience(timeout_ms_);
  std::packaged_task<ErrorPtr()> call([used = std::pair(unanswered_, client_), offsets, proof, patience] {
    return ErrorPtr(
        rd_kafka_send_offsets_to_transaction(used.second->get(), offsets.get(), proof.get(), static_cast<int>(patience.count())));
  });
  std::future<ErrorPtr> answer = call.get_future();
  std::thread(std::move(call)).detach();
  for (auto began = Clock::now(); answer.wait_for(kSlice) != std::future_status::ready;) {
    if (!stopping()) began = Clock::now();
    if (Clock::now() - began > patience + kSlice) return std::nullopt;
  }
  return answer.get();
}

Result<void> KafkaWriter::send_offsets() {
  const OffsetCommit& commit = *transaction_->offsets;
  const std::string metadata = transaction_->metadata ? transaction_->metadata(places_) : std::string();
  const Offsets list = make_list(commit.offsets.size());
  for (const auto& [tp, offset] : commit.offsets) {
    auto* place = rd_kafka_topic_partition_list_add(list.get(), tp.topic.c_str(), tp.partition);
    place->offset = offset.value;
    place->metadata = std::malloc(metadata.size() + 1);  // the list frees it
    std::copy_n(metadata.c_str(), metadata.size() + 1, static_cast<char*>(place->metadata));
    place->metadata_size = metadata.size();
  }
  GroupProof proof;
  if (transaction_->member)
    proof = static_cast<const KafkaMembership*>(transaction_->member)->proof();
  else
    proof = {rd_kafka_consumer_group_metadata_new(commit.group.c_str()), rd_kafka_consumer_group_metadata_destroy};
  const std::string attempt = "committing offsets of group " + commit.group;
  if (!proof) return roll_back(attempt, "the member has no assignment");
  for (const auto began = Clock::now();;) {
    const auto called = Clock::now();
    std::optional<ErrorPtr> answer = register_offsets(list, proof);
    if (!answer) return finish(client_->error(Errc::kAmbiguous, named(attempt), "no answer, and the process is to end"));
    const ErrorPtr& error = *answer;
    if (!error) return {};
    if (stopping() && !stop_seen_) stop_seen_ = called;
    if (rd_kafka_error_is_fatal(error.get()) || is_fencing(rd_kafka_error_code(error.get()))) {
      // A taken-over static instance id is not fatal to the producer: nothing of the transaction may stay behind.
      const bool instance = rd_kafka_error_code(error.get()) == RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID;
      if (!instance) return failed(error, attempt);
      Error rolled_back = roll_back(attempt, rd_kafka_error_string(error.get()));
      if (rolled_back.code == Errc::kAborted) rolled_back.code = Errc::kFenced;
      return finish(std::move(rolled_back));
    }
    if (rd_kafka_error_is_retriable(error.get()) && !rd_kafka_error_txn_requires_abort(error.get()) && !over(began)) continue;
    return roll_back(attempt, rd_kafka_error_string(error.get()));
  }
}

Result<std::vector<Offset>> KafkaWriter::commit() {
  if (done_) return *done_;
  CHECK(transaction_);
  if (transaction_->offsets && !transaction_->offsets->offsets.empty()) TRY(send_offsets());
  ErrorPtr error = end(rd_kafka_commit_transaction);
  if (error) {
    if (rd_kafka_error_txn_requires_abort(error.get()))
      return roll_back("committing a transaction", rd_kafka_error_string(error.get()));
    return failed(error, "committing a transaction");
  }
  if (unanswered_->any())
    return finish(
        client_->error(Errc::kAmbiguous, named("committing a transaction"), "committed after a request that was never answered"));
  const auto& records = transaction_->records;
  for (size_t i = 0; i < places_.size(); ++i) {
    // The last of a run has the greatest place of it.
    if (i + 1 < places_.size() && partitions_[i + 1] == partitions_[i] && records[i + 1].to.topic == records[i].to.topic) continue;
    knowledge_->set_committed({records[i].to.topic, partitions_[i]}, places_[i]);
  }
  transaction_.reset();
  return std::move(places_);
}

Result<void> KafkaWriter::abort() {
  if (done_) return *done_;
  CHECK(transaction_);
  Error error = roll_back("aborting a transaction", "asked for");
  if (error.code == Errc::kAborted) return {};
  return error;
}

/// Outside transactions; the broker drops what the client repeats.
class KafkaProducer final : public LogProducer {
 public:
  static Result<std::unique_ptr<LogProducer>> open(const KafkaLogOptions& options, std::shared_ptr<Knowledge> knowledge);

  Result<void> send(OutRecord record) override;
  Result<void> flush() override;

 private:
  static void on_delivery(rd_kafka_t*, const rd_kafka_message_t* m, void* opaque);

  std::shared_ptr<Knowledge> knowledge_;
  std::optional<Error> first_error_;
  std::shared_ptr<Client> client_;
  std::optional<Destinations> destinations_;
};

void KafkaProducer::on_delivery(rd_kafka_t*, const rd_kafka_message_t* m, void* opaque) {
  auto* producer = user_of<KafkaProducer>(opaque);
  if (m->err && !producer->first_error_)
    producer->first_error_ =
        producer->client_->error(m->err, "writing to " + to_string({rd_kafka_topic_name(m->rkt), m->partition}));
}

Result<std::unique_ptr<LogProducer>> KafkaProducer::open(const KafkaLogOptions& options, std::shared_ptr<Knowledge> knowledge) {
  auto producer = std::make_unique<KafkaProducer>();
  producer->knowledge_ = std::move(knowledge);
  Settings tuning = producer_tuning(options);
  tuning.emplace_back("message.timeout.ms", "30000");
  TRY_ASSIGN(producer->client_,
             Client::create(
                 options, RD_KAFKA_PRODUCER, std::move(tuning), producer_fixed(),
                 [](rd_kafka_conf_t* conf, void*) { rd_kafka_conf_set_dr_msg_cb(conf, on_delivery); }, producer.get()));
  producer->destinations_.emplace(*producer->client_);
  return std::unique_ptr<LogProducer>(std::move(producer));
}

Result<void> KafkaProducer::send(OutRecord record) {
  TRY(knowledge_->check_sizes({&record, 1}));
  TRY_ASSIGN(auto* topic, destinations_->find(record.to.topic));
  TRY_ASSIGN(const int32_t partition, destinations_->partition(*topic, record));
  rd_kafka_poll(client_->get(), 0);
  rd_kafka_resp_err_t err;
  // A full queue empties: what cannot be delivered leaves it after message.timeout.ms.
  while ((err = produce(client_->get(), topic->handle.get(), partition, record, nullptr)) == RD_KAFKA_RESP_ERR__QUEUE_FULL)
    rd_kafka_poll(client_->get(), 50);
  if (err) return client_->error(err, "writing to " + to_string({record.to.topic, partition}));
  return {};
}

Result<void> KafkaProducer::flush() {
  while (rd_kafka_flush(client_->get(), 1000) == RD_KAFKA_RESP_ERR__TIMED_OUT) {
  }
  if (!first_error_) return {};
  Error error = std::move(*first_error_);
  first_error_.reset();
  return error;
}

}  // namespace

Result<std::unique_ptr<LogWriter>> open_writer(const KafkaLogOptions& options, std::shared_ptr<Knowledge> knowledge,
                                               const std::string& transactional_id) {
  return KafkaWriter::open(options, std::move(knowledge), transactional_id);
}

Result<std::unique_ptr<LogProducer>> open_producer(const KafkaLogOptions& options, std::shared_ptr<Knowledge> knowledge) {
  return KafkaProducer::open(options, std::move(knowledge));
}

}  // namespace assay::streams::kafka
