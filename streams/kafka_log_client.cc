#include "streams/kafka_log_client.h"

#include <algorithm>
#include <array>

#include "schemas/topics.h"

namespace assay::streams::kafka {

namespace {
constexpr int kSyslogWarning = 4;

/// Nobody may loosen these, whatever kind of client they are for.
constexpr std::string_view kNotFree[] = {"bootstrap.servers",
                                         "metadata.broker.list",
                                         "client.id",
                                         "group.id",
                                         "group.instance.id",
                                         "transactional.id",
                                         "enable.idempotence",
                                         "acks",
                                         "request.required.acks",
                                         "isolation.level",
                                         "auto.offset.reset",
                                         "check.crcs",
                                         "enable.auto.commit",
                                         "enable.auto.offset.store",
                                         "enable.partition.eof",
                                         "partitioner",
                                         "partition.assignment.strategy",
                                         "transaction.timeout.ms"};
}  // namespace

ClientConfig::~ClientConfig() {
  if (conf_) rd_kafka_conf_destroy(conf_);
}

Result<rd_kafka_conf_t*> ClientConfig::make(const KafkaLogOptions& options) {
  conf_ = rd_kafka_conf_new();
  auto set = [&](const std::string& name, const std::string& value) -> Result<void> {
    char text[512];
    if (rd_kafka_conf_set(conf_, name.c_str(), value.c_str(), text, sizeof text) != RD_KAFKA_CONF_OK)
      return Error{Errc::kUsage, "setting Kafka client property " + name + " to \"" + value + "\": " + text};
    return {};
  };
  for (const auto& [name, value] : tuning_) TRY(set(name, value));
  for (const auto& [name, value] : options.properties) {
    if (std::ranges::find(kNotFree, name) != std::end(kNotFree))
      return Error{Errc::kUsage, "setting Kafka client property " + name + ": correctness rests on it, so it is not free"};
    TRY(set(name, value));
  }
  for (const auto& [name, value] : fixed_) TRY(set(name, value));
  TRY(set("bootstrap.servers", options.brokers));
  TRY(set("client.id", options.client_id));
  return conf_;
}

Result<std::shared_ptr<Client>> Client::create(const KafkaLogOptions& options, rd_kafka_type_t type, Settings tuning,
                                               Settings fixed, void (*prepare)(rd_kafka_conf_t*, void* user), void* user) {
  // A restarted broker is found again within a second.
  tuning.insert(tuning.begin(),
                {{"reconnect.backoff.ms", "50"}, {"reconnect.backoff.max.ms", "1000"}, {"log.connection.close", "false"}});
  std::shared_ptr<Client> client(new Client);
  client->brokers_ = options.brokers;
  client->user_ = user;
  client->stopping_ = options.stopping;
  ClientConfig config(std::move(tuning), std::move(fixed));
  TRY_ASSIGN(rd_kafka_conf_t * conf, config.make(options));
  rd_kafka_conf_set_opaque(conf, client.get());
  rd_kafka_conf_set_log_cb(conf, on_log);
  if (prepare) prepare(conf, user);
  char text[512];
  client->rk_ = rd_kafka_new(type, conf, text, sizeof text);
  if (!client->rk_) return Error{Errc::kUsage, "making a Kafka client for " + options.brokers + ": " + text};
  config.release();
  return client;
}

Client::~Client() {
  if (rk_) rd_kafka_destroy_flags(rk_, RD_KAFKA_DESTROY_F_NO_CONSUMER_CLOSE);
}

void Client::on_log(const rd_kafka_t* rk, int level, const char* facility, const char* text) {
  auto* client = static_cast<Client*>(rd_kafka_opaque(rk));
  // A consumer's property that a producer was given too is no problem.
  if (level > kSyslogWarning || std::string_view(facility) == "CONFWARN") return;
  std::lock_guard lock(client->mutex_);
  client->last_problem_ = text;
}

Result<int32_t> Client::partition_count(const std::string& topic) const {
  TopicPtr handle(rd_kafka_topic_new(rk_, topic.c_str(), nullptr));
  if (!handle) return error(rd_kafka_last_error(), "naming topic " + topic);
  return partition_count(handle.get());
}

Result<int32_t> Client::partition_count(rd_kafka_topic_t* topic) const {
  const std::string attempt = std::string("asking for the partitions of ") + rd_kafka_topic_name(topic);
  return persist([&]() -> Result<int32_t> {
    const rd_kafka_metadata_t* metadata = nullptr;
    if (auto err = rd_kafka_metadata(rk_, 0, topic, &metadata, kSliceMs)) return error(err, attempt);
    rd_kafka_resp_err_t err = metadata->topic_cnt == 1 ? metadata->topics[0].err : RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART;
    const int32_t count = metadata->topic_cnt == 1 ? metadata->topics[0].partition_cnt : 0;
    // A topic without a leader exists: it was just made, or its broker is on its way back.
    for (int32_t i = 0; i < count && !err; ++i)
      if (metadata->topics[0].partitions[i].leader < 0) err = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
    if (!err && count == 0) err = RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE;
    rd_kafka_metadata_destroy(metadata);
    if (err) return error(err, attempt);
    return count;
  });
}

Result<OffsetRange> Client::range(const TopicPartition& tp) const {
  const std::string attempt = "asking for the range of " + to_string(tp);
  return persist([&]() -> Result<OffsetRange> {
    // Asked for each time: it renews what the client knows of the leader, and librdkafka would wait long for a partition
    // that is not there.
    TRY_ASSIGN(const int32_t count, partition_count(tp.topic));
    if (tp.partition < 0 || tp.partition >= count)
      return error(Errc::kNotFound, attempt, "the topic has " + std::to_string(count) + " partitions");
    // rd_kafka_query_watermark_offsets() asks for both at once, and waits for its requests whatever time-out it was given.
    int64_t places[] = {RD_KAFKA_OFFSET_BEGINNING, RD_KAFKA_OFFSET_END};
    rd_kafka_resp_err_t err{};
    for (int64_t& place : places) {
      const PartitionListPtr asked = make_list(1);
      add_partition(asked.get(), tp, place);
      err = rd_kafka_offsets_for_times(rk_, asked.get(), kSliceMs);
      if (!err) err = asked->elems[0].err;
      if (err) break;
      place = asked->elems[0].offset;
    }
    if (!err) return OffsetRange{Offset(places[0]), Offset(places[1])};
    // It stands in the broker's metadata, so its leader is only about to take it over.
    const bool settling = errc_of(err) == Errc::kNotFound;
    return settling ? error(Errc::kUnreachable, attempt, rd_kafka_err2str(err)) : error(err, attempt);
  });
}

Error Client::error(Errc code, std::string_view attempt, std::string_view came_back) const {
  std::string message = std::string(attempt) + " at Kafka " + brokers_ + ": " + std::string(came_back);
  std::lock_guard lock(mutex_);
  if (code == Errc::kUnreachable && !last_problem_.empty()) message += " (the client last saw: " + last_problem_ + ")";
  return Error{code, std::move(message)};
}

Error Client::error(rd_kafka_resp_err_t err, std::string_view attempt, std::string_view detail) const {
  std::string came_back = rd_kafka_err2str(err);
  if (!detail.empty() && detail != came_back) came_back += std::string(": ") + std::string(detail);
  return error(errc_of(err), attempt, came_back);
}

Errc errc_of(rd_kafka_resp_err_t err) {
  switch (err) {
    case RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART:
    case RD_KAFKA_RESP_ERR__UNKNOWN_TOPIC:
    case RD_KAFKA_RESP_ERR__UNKNOWN_PARTITION:
      return Errc::kNotFound;
    case RD_KAFKA_RESP_ERR_OFFSET_OUT_OF_RANGE:
    case RD_KAFKA_RESP_ERR__AUTO_OFFSET_RESET:
      return Errc::kOutOfRange;
    case RD_KAFKA_RESP_ERR_MSG_SIZE_TOO_LARGE:
    case RD_KAFKA_RESP_ERR_RECORD_LIST_TOO_LARGE:
      return Errc::kTooLarge;
    case RD_KAFKA_RESP_ERR_INVALID_MSG:
    case RD_KAFKA_RESP_ERR_INVALID_MSG_SIZE:
    case RD_KAFKA_RESP_ERR__BAD_MSG:
    case RD_KAFKA_RESP_ERR__BAD_COMPRESSION:
    case RD_KAFKA_RESP_ERR__UNDERFLOW:
      return Errc::kCorrupt;
    case RD_KAFKA_RESP_ERR__FENCED:
    case RD_KAFKA_RESP_ERR_PRODUCER_FENCED:
    case RD_KAFKA_RESP_ERR_INVALID_PRODUCER_EPOCH:
    case RD_KAFKA_RESP_ERR_TRANSACTION_COORDINATOR_FENCED:
    case RD_KAFKA_RESP_ERR_FENCED_INSTANCE_ID:
      return Errc::kFenced;
    case RD_KAFKA_RESP_ERR__TRANSPORT:
    case RD_KAFKA_RESP_ERR__ALL_BROKERS_DOWN:
    case RD_KAFKA_RESP_ERR__RESOLVE:
    case RD_KAFKA_RESP_ERR__TIMED_OUT:
    case RD_KAFKA_RESP_ERR__TIMED_OUT_QUEUE:
    case RD_KAFKA_RESP_ERR__MSG_TIMED_OUT:
    case RD_KAFKA_RESP_ERR__WAIT_COORD:
    case RD_KAFKA_RESP_ERR__WAIT_CACHE:
    case RD_KAFKA_RESP_ERR__NODE_UPDATE:
    case RD_KAFKA_RESP_ERR_REQUEST_TIMED_OUT:
    case RD_KAFKA_RESP_ERR_NETWORK_EXCEPTION:
    case RD_KAFKA_RESP_ERR_BROKER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_LEADER_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_LEADER_FOR_PARTITION:
    case RD_KAFKA_RESP_ERR_COORDINATOR_LOAD_IN_PROGRESS:
    case RD_KAFKA_RESP_ERR_COORDINATOR_NOT_AVAILABLE:
    case RD_KAFKA_RESP_ERR_NOT_COORDINATOR:
    case RD_KAFKA_RESP_ERR_UNSTABLE_OFFSET_COMMIT:
      return Errc::kUnreachable;
    case RD_KAFKA_RESP_ERR__AUTHENTICATION:
    case RD_KAFKA_RESP_ERR_SASL_AUTHENTICATION_FAILED:
    case RD_KAFKA_RESP_ERR_TOPIC_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_GROUP_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_CLUSTER_AUTHORIZATION_FAILED:
    case RD_KAFKA_RESP_ERR_TRANSACTIONAL_ID_AUTHORIZATION_FAILED:
      return Errc::kRefused;
    default:
      return Errc::kUnexpected;
  }
}

PartitionListPtr make_list(size_t size) { return PartitionListPtr(rd_kafka_topic_partition_list_new(static_cast<int>(size))); }

void add_partition(rd_kafka_topic_partition_list_t* list, const TopicPartition& tp, int64_t offset) {
  rd_kafka_topic_partition_list_add(list, tp.topic.c_str(), tp.partition)->offset = offset;
}

void Knowledge::set_limit(const std::string& topic, int64_t max_record_bytes) {
  std::lock_guard lock(mutex_);
  limits_[topic] = max_record_bytes;
}

Result<void> Knowledge::check_sizes(std::span<const OutRecord> records) const {
  std::lock_guard lock(mutex_);
  const std::string* topic = nullptr;
  auto limit = limits_.end();
  for (const OutRecord& record : records) {
    if (topic == nullptr || *topic != record.to.topic) limit = limits_.find(*(topic = &record.to.topic));
    const auto size = static_cast<int64_t>((record.key ? record.key->size() : 0) + (record.value ? record.value->size() : 0));
    if (limit != limits_.end() && size > limit->second)
      return Error{Errc::kTooLarge, "writing to " + *topic + ": key and value have " + std::to_string(size) +
                                        " bytes, the topic takes " + std::to_string(limit->second)};
  }
  return {};
}

void Knowledge::set_committed(const TopicPartition& tp, Offset place) {
  std::lock_guard lock(mutex_);
  Offset& last = committed_.try_emplace(tp, place).first->second;
  last = std::max(last, place);
}

Offset Knowledge::last_committed(const TopicPartition& tp) const {
  std::lock_guard lock(mutex_);
  auto it = committed_.find(tp);
  return it == committed_.end() ? Offset(-1) : it->second;
}

Result<Destinations::Topic*> Destinations::find(const std::string& name) {
  auto it = topics_.find(name);
  if (it != topics_.end()) return &it->second;
  Topic topic;
  topic.handle.reset(rd_kafka_topic_new(client_.get(), name.c_str(), nullptr));
  if (!topic.handle) return client_.error(rd_kafka_last_error(), "naming topic " + name);
  TRY_ASSIGN(topic.partitions, client_.partition_count(topic.handle.get()));
  return &topics_.emplace(name, std::move(topic)).first->second;
}

Result<int32_t> Destinations::partition(Topic& topic, const OutRecord& record) const {
  int32_t partition = record.to.partition;
  if (partition < 0 && record.key) return schemas::partition_of(*record.key, topic.partitions);
  if (partition < 0) return topic.turn++ % topic.partitions;
  if (partition < topic.partitions) return partition;
  return Error{Errc::kNotFound, "writing to " + to_string(record.to) + " at Kafka " + client_.brokers() + ": the topic has " +
                                    std::to_string(topic.partitions) + " partitions"};
}

rd_kafka_resp_err_t produce(rd_kafka_t* rk, rd_kafka_topic_t* topic, int32_t partition, const OutRecord& record, void* opaque) {
  std::array<rd_kafka_vu_t, 8> fields;
  size_t count = 0;
  auto add = [&](rd_kafka_vtype_t type) -> auto& {
    fields[count].vtype = type;
    return fields[count++].u;
  };
  add(RD_KAFKA_VTYPE_RKT).rkt = topic;
  add(RD_KAFKA_VTYPE_PARTITION).i32 = partition;
  add(RD_KAFKA_VTYPE_MSGFLAGS).i = RD_KAFKA_MSG_F_COPY;
  // To librdkafka 0 means now, which would make the record depend on the clock.
  add(RD_KAFKA_VTYPE_TIMESTAMP).i64 = record.timestamp.value == 0 ? 1 : record.timestamp.value;
  add(RD_KAFKA_VTYPE_OPAQUE).ptr = opaque;
  if (record.key) {
    auto& key = add(RD_KAFKA_VTYPE_KEY).mem;
    key.ptr = const_cast<char*>(record.key->data());
    key.size = record.key->size();
  }
  if (record.value) {
    auto& value = add(RD_KAFKA_VTYPE_VALUE).mem;
    value.ptr = const_cast<char*>(record.value->data());
    value.size = record.value->size();
  }
  rd_kafka_headers_t* headers = nullptr;
  if (!record.headers.empty()) {
    headers = rd_kafka_headers_new(record.headers.size());
    for (const Header& h : record.headers)
      rd_kafka_header_add(headers, h.name.data(), static_cast<ssize_t>(h.name.size()), h.value ? h.value->data() : nullptr,
                          h.value ? static_cast<ssize_t>(h.value->size()) : 0);
    add(RD_KAFKA_VTYPE_HEADERS).headers = headers;
  }
  ErrorPtr error(rd_kafka_produceva(rk, fields.data(), count));
  if (!error) return RD_KAFKA_RESP_ERR_NO_ERROR;
  if (headers) rd_kafka_headers_destroy(headers);  // they are the client's only on success
  return rd_kafka_error_code(error.get());
}

}  // namespace assay::streams::kafka
