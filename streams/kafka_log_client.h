// What the parts of the Kafka log share: a librdkafka handle that lives as long as its last user, and the sense of its errors.
// Included by kafka_log*.cc alone.
#pragma once

#include <librdkafka/rdkafka.h>

#include <atomic>
#include <chrono>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "streams/kafka_log.h"

namespace assay::streams::kafka {

/// A request that nobody answered for so long has failed.
inline constexpr int kRequestTimeoutMs = 10000;

/// A blocking call waits so long at once before it looks whether the process is to end.
inline constexpr int kSliceMs = 2500;

/// The largest batch of several records. Kafka's own default lets every topic take it.
inline constexpr int64_t kBatchBytes = 1000000;

/// Room that a topic has over its largest key + value, for headers and framing, and so that a topic for small records takes
/// whole batches of them.
inline constexpr int64_t kRoomBytes = 1024 * 1024;

template <class T, void (*kDestroy)(T*)>
struct Destroyer {
  void operator()(T* p) const { kDestroy(p); }
};
using ErrorPtr = std::unique_ptr<rd_kafka_error_t, Destroyer<rd_kafka_error_t, rd_kafka_error_destroy>>;
using PartitionListPtr = std::unique_ptr<rd_kafka_topic_partition_list_t,
                                         Destroyer<rd_kafka_topic_partition_list_t, rd_kafka_topic_partition_list_destroy>>;
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
  static Result<std::shared_ptr<Client>> create(const KafkaLogOptions& options, rd_kafka_type_t type, Settings tuning,
                                                Settings fixed, void (*prepare)(rd_kafka_conf_t*, void* user) = nullptr,
                                                void* user = nullptr);
  ~Client();
  Client(const Client&) = delete;

  rd_kafka_t* get() const { return rk_; }
  void* user() const { return user_; }
  const std::string& brokers() const { return brokers_; }

  /// Repeats a round trip whose error passes by itself (a leader that is being chosen, a lost connection), as long as one
  /// request may take at most, or until the process is to end.
  template <class Ask>
  auto persist(Ask ask) const -> decltype(ask()) {
    for (const auto began = std::chrono::steady_clock::now();;) {
      auto answer = ask();
      if (answer || answer.error().code != Errc::kUnreachable || !may_wait(began)) return answer;
      std::this_thread::sleep_for(Milliseconds(50));
    }
  }
  bool stopping() const { return stopping_ && stopping_->load(); }
  /// Whether what began then may be tried once more.
  bool may_wait(std::chrono::steady_clock::time_point began) const {
    return !stopping() && std::chrono::steady_clock::now() - began < Milliseconds(kRequestTimeoutMs);
  }

  /// Partitions of a topic, freshly asked for. Errors: kNotFound, kUnreachable.
  Result<int32_t> partition_count(rd_kafka_topic_t* topic) const;
  Result<int32_t> partition_count(const std::string& topic) const;

  /// First offset and end, as the isolation level of the client sees it. Errors: kNotFound, kUnreachable.
  Result<OffsetRange> range(const TopicPartition& tp) const;

  /// "attempting X at BROKERS: what came back (what the client's threads saw last)".
  Error error(Errc code, std::string_view attempt, std::string_view came_back) const;
  Error error(rd_kafka_resp_err_t err, std::string_view attempt, std::string_view detail = {}) const;

 private:
  Client() = default;
  static void on_log(const rd_kafka_t* rk, int level, const char* facility, const char* text);

  rd_kafka_t* rk_ = nullptr;
  void* user_ = nullptr;
  std::string brokers_;
  const std::atomic<bool>* stopping_ = nullptr;
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

/// What one log knows beyond the broker's answers; its writers and producers share it.
class Knowledge {
 public:
  /// Largest key + value of a topic that was created here, or as it would be here; for other topics the broker decides.
  void set_limit(const std::string& topic, int64_t max_record_bytes);
  /// Errors: kTooLarge.
  Result<void> check_sizes(std::span<const OutRecord> records) const;

  /// Places that this process committed. The coordinator acknowledges a commit before its markers are written, so the last
  /// stable offset may stay behind them for a moment.
  void set_committed(const TopicPartition& tp, Offset place);
  /// The greatest, or -1.
  Offset last_committed(const TopicPartition& tp) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::string, int64_t> limits_;
  std::map<TopicPartition, Offset> committed_;
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
