// The parts that kafka_log.cc puts together. Included by kafka_log*.cc alone.
#pragma once

#include <deque>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "streams/kafka_log_client.h"

namespace assay::streams::kafka {

Result<std::unique_ptr<LogReader>> open_reader(const KafkaLogOptions& options, const std::map<TopicPartition, Offset>& from);

Result<std::unique_ptr<LogWriter>> open_writer(const KafkaLogOptions& options, std::shared_ptr<Knowledge> knowledge,
                                               const std::string& transactional_id);

Result<std::unique_ptr<LogProducer>> open_producer(const KafkaLogOptions& options, std::shared_ptr<Knowledge> knowledge);

GroupView view_of(const rd_kafka_ConsumerGroupDescription_t& group);

/// A consumer that is a member and fetches nothing: it confirms assignments with an empty one.
class KafkaMembership final : public Membership {
 public:
  static Result<std::unique_ptr<KafkaMembership>> join(const KafkaLogOptions& options, const std::string& group,
                                                       const std::vector<std::string>& topics, const std::string& instance_id);
  ~KafkaMembership() override;

  Result<std::optional<Change>> poll(Milliseconds wait) override;
  std::string id() const override;
  void leave() override;

  /// Proof of the membership under which the last returned assignment was given, never a later one: a writer that has not
  /// yet heard of a newer generation must not commit under it. Null before the first assignment. Safe from any thread.
  std::shared_ptr<const rd_kafka_consumer_group_metadata_t> proof() const;

  rd_kafka_t* handle() const { return client_->get(); }

 private:
  KafkaMembership() = default;
  static void on_rebalance(rd_kafka_t* rk, rd_kafka_resp_err_t err, rd_kafka_topic_partition_list_t* partitions, void* opaque);
  void rebalance(rd_kafka_resp_err_t err, const rd_kafka_topic_partition_list_t& partitions);
  std::optional<Change> take_change();

  struct Queued {
    Change change;
    std::shared_ptr<const rd_kafka_consumer_group_metadata_t> proof;  // of an assignment
  };

  std::string group_;
  std::deque<Queued> changes_;
  bool revocation_open_ = false;  // the group waits for us; the next poll lets it go on
  bool left_ = false;
  mutable std::mutex mutex_;
  std::shared_ptr<const rd_kafka_consumer_group_metadata_t> proof_;
  std::shared_ptr<Client> client_;  // last: its threads end before what they call
};

}  // namespace assay::streams::kafka
