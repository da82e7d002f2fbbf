#include "streams/kafka_log.h"

#include <algorithm>
#include <functional>
#include <thread>

#include "streams/kafka_log_parts.h"

namespace assay::streams {

namespace kafka {
namespace {

using Clock = std::chrono::steady_clock;
using AdminOptionsPtr = std::unique_ptr<rd_kafka_AdminOptions_t, Destroyer<rd_kafka_AdminOptions_t, rd_kafka_AdminOptions_destroy>>;
using NewTopicPtr = std::unique_ptr<rd_kafka_NewTopic_t, Destroyer<rd_kafka_NewTopic_t, rd_kafka_NewTopic_destroy>>;
using ResourcePtr =
    std::unique_ptr<rd_kafka_ConfigResource_t, Destroyer<rd_kafka_ConfigResource_t, rd_kafka_ConfigResource_destroy>>;

class KafkaLog final : public Log {
 public:
  KafkaLog(KafkaLogOptions options, std::shared_ptr<Client> client) : options_(std::move(options)), client_(std::move(client)) {}

  std::string describe() const override { return "Kafka at " + options_.brokers; }
  LogMemory memory() override { return {options_.held->reading, options_.held->writing}; }
  Result<std::string> cluster_id() override;

  Result<void> create_topics(std::span<const TopicConfig> topics) override;
  Result<std::vector<TopicConfig>> topics() override;
  Result<int32_t> partition_count(const std::string& topic) override { return client_->partition_count(topic); }
  Result<OffsetRange> range(const TopicPartition& tp) override;
  Result<Offset> written(const TopicPartition& tp) override;

  Result<std::unique_ptr<LogReader>> open_reader(const std::map<TopicPartition, Offset>& from) override {
    return kafka::open_reader(options_, from);
  }
  Result<std::unique_ptr<LogWriter>> open_writer(const std::string& transactional_id) override {
    return kafka::open_writer(options_, knowledge_, transactional_id);
  }
  Result<std::unique_ptr<LogProducer>> open_producer() override { return kafka::open_producer(options_, knowledge_); }

  Result<std::unique_ptr<Membership>> join(const std::string& group, const std::vector<std::string>& topics,
                                           const std::string& instance_id) override;
  Result<GroupView> members(const std::string& group) override;
  Result<std::map<TopicPartition, CommittedOffset>> committed(const std::string& group,
                                                              std::span<const TopicPartition> of) override;
  Result<void> commit_offsets(const OffsetCommit& commit, const Membership* member) override;
  Result<void> delete_before(const TopicPartition& tp, Offset before) override;

 private:
  Result<std::vector<TopicConfig>> names();
  Result<void> describe_topics(std::vector<TopicConfig>& topics);
  /// The answer, or nothing when none comes in time.
  EventPtr wait(rd_kafka_queue_t* queue) const;
  /// Sends an admin request and waits for its answer. `given_up_ms`: when librdkafka gives it up.
  using Request = std::function<void(const rd_kafka_AdminOptions_t*, rd_kafka_queue_t*)>;
  Result<EventPtr> ask(std::string_view attempt, rd_kafka_admin_op_t op, const Request& request);
  Result<EventPtr> ask(const Client& client, std::string_view attempt, rd_kafka_admin_op_t op, int given_up_ms,
                       const Request& request);
  Result<void> wait_for_topic(const TopicConfig& topic);
  /// A consumer of that group that never joins it: it asks for offsets and commits them. (librdkafka's admin requests for
  /// offsets abort the process when they time out before the group's coordinator is found.)
  Result<std::shared_ptr<Client>> of_group(const std::string& group);

  const KafkaLogOptions options_;
  const std::shared_ptr<Knowledge> knowledge_ = std::make_shared<Knowledge>();
  const std::shared_ptr<Client> client_;  // metadata and administration
  std::mutex mutex_;
  std::shared_ptr<Client> uncommitted_;                    // made when it is first needed
  std::map<std::string, std::shared_ptr<Client>> groups_;  // likewise
  /// Likewise, and made anew after a request that failed. librdkafka (2.0.2) aborts the process when an admin request
  /// to a group's coordinator is given up and the coordinator is found afterwards. So none is: it has an hour, we wait for
  /// less, and then its client goes with it.
  std::shared_ptr<Client> describer_;
};

Result<std::string> KafkaLog::cluster_id() {
  char* id = rd_kafka_clusterid(client_->get(), kRequestTimeoutMs);
  if (id == nullptr) return Error{Errc::kUnreachable, "asking " + describe() + " for its cluster id: no answer"};
  std::string out = id;
  rd_kafka_mem_free(client_->get(), id);
  return out;
}

EventPtr KafkaLog::wait(rd_kafka_queue_t* queue) const {
  EventPtr event;
  const auto until = Clock::now() + Milliseconds(kRequestTimeoutMs + 5000);
  do {
    event.reset(rd_kafka_queue_poll(queue, kSliceMs));
  } while (!event && Clock::now() < until && !client_->stopping());
  return event;
}

Result<EventPtr> KafkaLog::ask(std::string_view attempt, rd_kafka_admin_op_t op, const Request& request) {
  return ask(*client_, attempt, op, kRequestTimeoutMs, request);
}

Result<EventPtr> KafkaLog::ask(const Client& client, std::string_view attempt, rd_kafka_admin_op_t op, int given_up_ms,
                               const Request& request) {
  char text[512];
  AdminOptionsPtr options(rd_kafka_AdminOptions_new(client.get(), op));
  CHECK(rd_kafka_AdminOptions_set_request_timeout(options.get(), given_up_ms, text, sizeof text) == RD_KAFKA_RESP_ERR_NO_ERROR);
  QueuePtr queue(rd_kafka_queue_new(client.get()));
  request(options.get(), queue.get());
  EventPtr event = wait(queue.get());
  if (!event) return client.error(Errc::kUnreachable, attempt, "no answer");
  if (auto err = rd_kafka_event_error(event.get())) return client.error(err, attempt, rd_kafka_event_error_string(event.get()));
  return event;
}

/// Topics with their partition counts.
Result<std::vector<TopicConfig>> KafkaLog::names() {
  TRY_ASSIGN(const auto* metadata, client_->persist([&]() -> Result<const rd_kafka_metadata_t*> {
    const rd_kafka_metadata_t* answer = nullptr;
    if (auto err = rd_kafka_metadata(client_->get(), 1, nullptr, &answer, kSliceMs)) return client_->error(err, "listing topics");
    return answer;
  }));
  std::vector<TopicConfig> found;
  for (int i = 0; i < metadata->topic_cnt; ++i) {
    TopicConfig topic;
    topic.name = metadata->topics[i].topic;
    topic.partitions = metadata->topics[i].partition_cnt;
    if (!topic.name.starts_with("__")) found.push_back(std::move(topic));  // the broker's own
  }
  rd_kafka_metadata_destroy(metadata);
  std::ranges::sort(found, {}, &TopicConfig::name);
  return found;
}

Result<void> KafkaLog::create_topics(std::span<const TopicConfig> topics) {
  TRY_ASSIGN(auto existing, names());
  std::erase_if(existing, [&](const auto& e) { return std::ranges::find(topics, e.name, &TopicConfig::name) == topics.end(); });
  TRY(describe_topics(existing));
  std::vector<NewTopicPtr> wanted;
  std::vector<const TopicConfig*> configs;
  for (const TopicConfig& topic : topics) {
    if (auto there = std::ranges::find(existing, topic.name, &TopicConfig::name); there != existing.end()) {
      // A topic that somebody else made with other limits takes what its broker takes.
      if (there->max_record_bytes == topic.max_record_bytes) knowledge_->set_limit(topic.name, topic.max_record_bytes);
      continue;
    }
    knowledge_->set_limit(topic.name, topic.max_record_bytes);
    char text[512];
    NewTopicPtr request(
        rd_kafka_NewTopic_new(topic.name.c_str(), topic.partitions, options_.replication_factor, text, sizeof text));
    if (!request) return Error{Errc::kUsage, "creating topic " + topic.name + ": " + text};
    rd_kafka_NewTopic_set_config(request.get(), "max.message.bytes", std::to_string(topic.max_record_bytes + kRoomBytes).c_str());
    rd_kafka_NewTopic_set_config(request.get(), "cleanup.policy", topic.compacted ? "compact" : "delete");
    rd_kafka_NewTopic_set_config(request.get(), "retention.ms", std::to_string(topic.retention_ms).c_str());
    rd_kafka_NewTopic_set_config(request.get(), "message.timestamp.type", "CreateTime");
    wanted.push_back(std::move(request));
    configs.push_back(&topic);
  }
  if (wanted.empty()) return {};
  std::vector<rd_kafka_NewTopic_t*> raw;
  for (const auto& request : wanted) raw.push_back(request.get());
  TRY(client_->persist([&]() -> Result<void> {
    TRY_ASSIGN(auto event, ask("creating topics", RD_KAFKA_ADMIN_OP_CREATETOPICS, [&](auto* options, auto* queue) {
                 rd_kafka_CreateTopics(client_->get(), raw.data(), raw.size(), options, queue);
               }));
    size_t count = 0;
    auto* results = rd_kafka_CreateTopics_result_topics(rd_kafka_event_CreateTopics_result(event.get()), &count);
    for (size_t i = 0; i < count; ++i) {
      const auto err = rd_kafka_topic_result_error(results[i]);
      if (err == RD_KAFKA_RESP_ERR_NO_ERROR || err == RD_KAFKA_RESP_ERR_TOPIC_ALREADY_EXISTS) continue;  // another was quicker
      const char* detail = rd_kafka_topic_result_error_string(results[i]);
      return client_->error(err, std::string("creating topic ") + rd_kafka_topic_result_name(results[i]), detail ? detail : "");
    }
    return {};
  }));
  for (const TopicConfig* topic : configs) TRY(wait_for_topic(*topic));
  return {};
}

/// A topic is there when every partition of it has a leader in the broker's own answer.
Result<void> KafkaLog::wait_for_topic(const TopicConfig& topic) {
  const auto until = Clock::now() + Milliseconds(kRequestTimeoutMs);
  for (;;) {
    auto count = client_->partition_count(topic.name);
    if (count && *count > 0) return {};
    if (!count && count.error().code != Errc::kNotFound) return count.error();
    if (Clock::now() > until) return count.error();
    std::this_thread::sleep_for(Milliseconds(50));
  }
}

Result<std::vector<TopicConfig>> KafkaLog::topics() {
  TRY_ASSIGN(auto found, names());
  TRY(describe_topics(found));
  return found;
}

/// Fills in what the topics are configured to.
Result<void> KafkaLog::describe_topics(std::vector<TopicConfig>& found) {
  if (found.empty()) return {};
  std::vector<ResourcePtr> resources;
  std::vector<rd_kafka_ConfigResource_t*> raw;
  for (const TopicConfig& topic : found) {
    resources.emplace_back(rd_kafka_ConfigResource_new(RD_KAFKA_RESOURCE_TOPIC, topic.name.c_str()));
    raw.push_back(resources.back().get());
  }
  TRY_ASSIGN(auto event, client_->persist([&] {
    return ask("describing topics", RD_KAFKA_ADMIN_OP_DESCRIBECONFIGS, [&](auto* options, auto* queue) {
      rd_kafka_DescribeConfigs(client_->get(), raw.data(), raw.size(), options, queue);
    });
  }));
  size_t count = 0;
  auto* described = rd_kafka_DescribeConfigs_result_resources(rd_kafka_event_DescribeConfigs_result(event.get()), &count);
  for (size_t i = 0; i < count; ++i) {
    const std::string name = rd_kafka_ConfigResource_name(described[i]);
    if (auto err = rd_kafka_ConfigResource_error(described[i])) return client_->error(err, "describing topic " + name);
    auto topic = std::ranges::find(found, name, &TopicConfig::name);
    if (topic == found.end()) continue;
    size_t entries = 0;
    auto* entry = rd_kafka_ConfigResource_configs(described[i], &entries);
    for (size_t k = 0; k < entries; ++k) {
      const std::string_view key = rd_kafka_ConfigEntry_name(entry[k]);
      const char* value = rd_kafka_ConfigEntry_value(entry[k]);
      if (!value) continue;
      if (key == "cleanup.policy") topic->compacted = std::string_view(value).find("compact") != std::string_view::npos;
      if (key == "retention.ms") topic->retention_ms = std::stoll(value);
      if (key == "max.message.bytes") topic->max_record_bytes = std::max<int64_t>(0, std::stoll(value) - kRoomBytes);
    }
  }
  return {};
}

Result<OffsetRange> KafkaLog::range(const TopicPartition& tp) {
  const Offset ours = knowledge_->last_committed(tp);
  const auto until = Clock::now() + Milliseconds(options_.transaction_timeout_ms);  // then others hold the end back
  for (;;) {
    TRY_ASSIGN(const OffsetRange range, client_->range(tp));
    if (range.end > ours || Clock::now() > until || client_->stopping()) return range;
    std::this_thread::sleep_for(Milliseconds(2));
  }
}

Result<Offset> KafkaLog::written(const TopicPartition& tp) {
  std::shared_ptr<Client> client;
  {
    std::lock_guard lock(mutex_);
    if (!uncommitted_) {
      TRY_ASSIGN(uncommitted_, Client::create(options_, RD_KAFKA_CONSUMER, {}, {{"isolation.level", "read_uncommitted"}}));
    }
    client = uncommitted_;
  }
  TRY_ASSIGN(const OffsetRange range, client->range(tp));
  return range.end;
}

Result<std::unique_ptr<Membership>> KafkaLog::join(const std::string& group, const std::vector<std::string>& topics,
                                                   const std::string& instance_id) {
  TRY_ASSIGN(auto member, KafkaMembership::join(options_, group, topics, instance_id));
  return std::unique_ptr<Membership>(std::move(member));
}

Result<GroupView> KafkaLog::members(const std::string& group) {
  constexpr int kHourMs = 3600 * 1000;
  const std::string attempt = "asking for the members of group " + group;
  const char* name = group.c_str();
  std::shared_ptr<Client> client;
  {
    std::lock_guard lock(mutex_);
    if (!describer_) {
      TRY_ASSIGN(describer_, Client::create(options_, RD_KAFKA_CONSUMER, {}, {}));
    }
    client = describer_;
  }
  auto event = ask(*client, attempt, RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS, kHourMs,
                   [&](auto* options, auto* queue) { rd_kafka_DescribeConsumerGroups(client->get(), &name, 1, options, queue); });
  if (!event) {
    std::lock_guard lock(mutex_);
    if (describer_ == client) describer_.reset();
    return event.error();
  }
  size_t count = 0;
  auto* groups = rd_kafka_DescribeConsumerGroups_result_groups(rd_kafka_event_DescribeConsumerGroups_result(event->get()), &count);
  CHECK(count == 1);
  if (const rd_kafka_error_t* error = rd_kafka_ConsumerGroupDescription_error(groups[0]))
    return client->error(rd_kafka_error_code(error), attempt, rd_kafka_error_string(error));
  return view_of(*groups[0]);
}

Result<std::shared_ptr<Client>> KafkaLog::of_group(const std::string& group) {
  std::lock_guard lock(mutex_);
  std::shared_ptr<Client>& client = groups_[group];
  if (!client) {
    TRY_ASSIGN(client,
               Client::create(options_, RD_KAFKA_CONSUMER, {},
                              {{"group.id", group}, {"enable.auto.commit", "false"}, {"isolation.level", "read_committed"}}));
  }
  return client;
}

Result<std::map<TopicPartition, CommittedOffset>> KafkaLog::committed(const std::string& group,
                                                                      std::span<const TopicPartition> of) {
  std::map<TopicPartition, CommittedOffset> found;
  if (of.empty()) return found;
  const std::string attempt = "asking for the committed offsets of group " + group;
  TRY_ASSIGN(const std::shared_ptr<Client> client, of_group(group));
  // A transaction that holds the answer back ends by its timeout at the latest.
  const auto until = Clock::now() + Milliseconds(options_.transaction_timeout_ms + 2 * kRequestTimeoutMs);
  for (;;) {
    found.clear();
    PartitionListPtr list = make_list(of.size());
    for (const TopicPartition& tp : of) add_partition(list.get(), tp);
    std::optional<Error> failed;
    if (auto err = rd_kafka_committed(client->get(), list.get(), kSliceMs)) failed = client->error(err, attempt);
    for (int i = 0; !failed && i < list->cnt; ++i) {
      const auto& p = list->elems[i];
      if (p.err) failed = client->error(p.err, attempt + " for " + to_string(place_of(p)));
      if (p.offset >= 0)
        found[place_of(p)] = {Offset(p.offset),
                              std::string(static_cast<const char*>(p.metadata), p.metadata ? p.metadata_size : 0)};
    }
    if (!failed) return found;
    if (failed->code != Errc::kUnreachable || Clock::now() > until || client->stopping()) return *failed;
    std::this_thread::sleep_for(Milliseconds(50));
  }
}

Result<void> KafkaLog::commit_offsets(const OffsetCommit& commit, const Membership* member) {
  if (commit.offsets.empty()) return {};
  const std::string attempt = "committing offsets of group " + commit.group;
  PartitionListPtr list = make_list(commit.offsets.size());
  for (const auto& [tp, offset] : commit.offsets) add_partition(list.get(), tp, offset.value);
  std::shared_ptr<Client> outsider;
  if (!member) {
    TRY_ASSIGN(outsider, of_group(commit.group));
  }
  rd_kafka_t* rk = member ? static_cast<const KafkaMembership*>(member)->handle() : outsider->get();
  return client_->persist([&]() -> Result<void> {
    QueuePtr queue(rd_kafka_queue_new(rk));
    if (auto err = rd_kafka_commit_queue(rk, list.get(), queue.get(), nullptr, nullptr)) return client_->error(err, attempt);
    EventPtr event = wait(queue.get());
    if (!event) return client_->error(Errc::kUnreachable, attempt, "no answer");
    if (auto err = rd_kafka_event_error(event.get())) return client_->error(err, attempt, rd_kafka_event_error_string(event.get()));
    const auto* answers = rd_kafka_event_topic_partition_list(event.get());
    for (int i = 0; answers && i < answers->cnt; ++i)
      if (auto err = answers->elems[i].err) return client_->error(err, attempt + " for " + to_string(place_of(answers->elems[i])));
    return {};
  });
}

Result<void> KafkaLog::delete_before(const TopicPartition& tp, Offset before) {
  const std::string attempt = "deleting records of " + to_string(tp) + " before offset " + std::to_string(before.value);
  PartitionListPtr list = make_list(1);
  add_partition(list.get(), tp, before.value);
  std::unique_ptr<rd_kafka_DeleteRecords_t, Destroyer<rd_kafka_DeleteRecords_t, rd_kafka_DeleteRecords_destroy>> request(
      rd_kafka_DeleteRecords_new(list.get()));
  auto* raw = request.get();
  return client_->persist([&]() -> Result<void> {
    TRY_ASSIGN(auto event, ask(attempt, RD_KAFKA_ADMIN_OP_DELETERECORDS, [&](auto* options, auto* queue) {
                 rd_kafka_DeleteRecords(client_->get(), &raw, 1, options, queue);
               }));
    const auto* answers = rd_kafka_DeleteRecords_result_offsets(rd_kafka_event_DeleteRecords_result(event.get()));
    for (int i = 0; i < answers->cnt; ++i)
      if (auto err = answers->elems[i].err) return client_->error(err, attempt);
    return {};
  });
}

}  // namespace
}  // namespace kafka

Result<std::unique_ptr<Log>> open_kafka_log(const KafkaLogOptions& options) {
  using namespace kafka;
  if (options.brokers.empty()) return Error{Errc::kUsage, "opening a Kafka log: no brokers are given"};
  TRY_ASSIGN(auto client, Client::create(options, RD_KAFKA_CONSUMER, {}, {{"isolation.level", "read_committed"}}));
  TRY(client->persist([&]() -> Result<void> {
    const rd_kafka_metadata_t* metadata = nullptr;
    const auto err = rd_kafka_metadata(client->get(), 0, nullptr, &metadata, kSliceMs);
    if (metadata) rd_kafka_metadata_destroy(metadata);
    if (err) return client->error(err, "connecting");
    return {};
  }));
  return std::unique_ptr<Log>(std::make_unique<KafkaLog>(options, std::move(client)));
}

}  // namespace assay::streams
