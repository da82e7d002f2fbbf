// What the parts of the Kafka log share: a librdkafka handle that lives as long as its last user, and the sense of its errors.
// Included by kafka_log*.cc alone.
#pragma once

#include <librdkafka/rdkafka.h>

#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "streams/kafka_log.h"

namespace assay::streams::kafka {

/// A request that nobody answered for so long has failed.
inline constexpr int kRequestTimeoutMs = 10000;

/// Room that a topic has over its largest key + value, for headers and the framing of the batch.
inline constexpr int64_t kRoomBytes = 64 * 1024;

template <class T, void (*kDestroy)(T*)>
struct Destroyer {
  void operator()(T* p) const { kDestroy(p); }
};
using ErrorPtr = std::unique_ptr<rd_kafka_error_t, Destroyer<rd_kafka_error_t, rd_kafka_error_destroy>>;
using PartitionListPtr =
    std::unique_ptr<rd_kafka_topic_partition_list_t, Destroyer<rd_kafka_topic_partition_list_t, rd_kafka_topic_partition_list_destroy>>;
using QueuePtr = std::unique_ptr<rd_kafka_queue_t, Destroyer<rd_kafka_queue_t, rd_kafka_queue_destroy>>;
using EventPtr = std::unique_ptr<rd_kafka_event_t, Destroyer<rd_kafka_event_t, rd_kafka_event_destroy>>;
using TopicPtr = std::unique_ptr<rd_kafka_topic_t, Destroyer<rd_kafka_topic_t, rd_kafka_topic_destroy>>;
using GroupMetadataPtr = std::unique_ptr<rd_kafka_consumer_group_metadata_t,
                                         Destroyer<rd_kafka_consumer_group_metadata_t, rd_kafka_consumer_group_metadata_destroy>>;

using Settings = std::vector<std::pair<std::string, std::string>>;

/// Properties of one client. `fixed` ones are what correctness rests on; `tuning` ones may be overridden by the options.
class ClientConfig {
 public:
  ClientConfig(Settings tuning, Settings fixed) : tuning_(std::move(tuning)), fixed_(std::move(fixed)) {}
  ~ClientConfig();
  ClientConfig(const ClientConfig&) = delete;

  /// Errors: kUsage.
  Result<rd_kafka_conf_t*> make(const KafkaLogOptions& options);
  /// The handle now owns it.
  void release() { conf_ = nullptr; }

 private:
  Settings tuning_;
  Settings fixed_;
  rd_kafka_conf_t* conf_ = nullptr;
};

/// A handle, and the last thing that its threads complained about.
class Client {
 public:
  /// `prepare` sets callbacks, which find `user` with user_of().
  /// Errors: kUsage.
  static Result<std::shared_ptr<Client>> create(const KafkaLogOptions& options, rd_kafka_type_t type, Settings tuning, Settings fixed,
                                                void (*prepare)(rd_kafka_conf_t*, void* user) = nullptr, void* user = nullptr);
  ~Client();
  Client(const Client&) = delete;

  rd_kafka_t* get() const { return rk_; }
  void* user() const { return user_; }
  const std::string& brokers() const { return brokers_; }

  /// Partitions of a topic, freshly asked for. Errors: kNotFound, kUnreachable.
  Result<int32_t> partition_count(rd_kafka_topic_t* topic) const;
  Result<int32_t> partition_count(const std::string& topic) const;

  /// "attempting X at BROKERS: what came back (what the client's threads saw last)".
  Error error(Errc code, std::string_view attempt, std::string_view came_back) const;
  Error error(rd_kafka_resp_err_t err, std::string_view attempt, std::string_view detail = {}) const;

 private:
  Client() = default;
  static void on_log(const rd_kafka_t* rk, int level, const char* facility, const char* text);

  rd_kafka_t* rk_ = nullptr;
  void* user_ = nullptr;
  std::string brokers_;
  mutable std::mutex mutex_;
  std::string last_problem_;
};

/// The object that a callback was set up for.
template <class T>
T* user_of(void* opaque) {
  return static_cast<T*>(static_cast<Client*>(opaque)->user());
}

Errc errc_of(rd_kafka_resp_err_t err);
inline bool is_fencing(rd_kafka_resp_err_t err) { return errc_of(err) == Errc::kFenced; }

PartitionListPtr make_list(size_t size);
void add_partition(rd_kafka_topic_partition_list_t* list, const TopicPartition& tp, int64_t offset = RD_KAFKA_OFFSET_INVALID);
inline TopicPartition place_of(const rd_kafka_topic_partition_t& p) { return {p.topic, p.partition}; }

/// Largest key + value that create_topics was given for each topic; for other topics the broker decides.
class RecordLimits {
 public:
  void set(const std::string& topic, int64_t max_record_bytes);
  /// Errors: kTooLarge.
  Result<void> check(const OutRecord& record) const;
  int64_t get(const std::string& topic, int64_t otherwise) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int64_t> limits_;
};

/// Topics that a producing client has met, and the partition that a record goes to.
class Destinations {
 public:
  explicit Destinations(const Client& client) : client_(client) {}
  struct Topic {
    TopicPtr handle;
    int32_t partitions = 0;
    int32_t turn = 0;  // for records without key and partition
  };
  /// Asks for the metadata of a topic when it is met first. Errors: kNotFound, kUnreachable.
  Result<Topic*> find(const std::string& name);
  /// Errors: kNotFound.
  Result<int32_t> partition(Topic& topic, const OutRecord& record) const;

 private:
  const Client& client_;
  std::map<std::string, Topic> topics_;
};

/// Queues one record. Returns librdkafka's answer; the record was copied.
rd_kafka_resp_err_t produce(rd_kafka_t* rk, rd_kafka_topic_t* topic, int32_t partition, const OutRecord& record, void* opaque);

}  // namespace assay::streams::kafka
