// The log on Apache Kafka.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <string>

#include "streams/log.h"

namespace assay::streams {

/// What the clients of one log hold now, in bytes. Thread-safe.
struct KafkaHeld {
  std::atomic<int64_t> reading{0}, writing{0};
};

struct KafkaLogOptions {
  // behaviour
  std::string brokers;  // "host:port,host:port"
  std::string client_id = "assay";
  int replication_factor = -1;             // of topics that are created; -1: the broker's default
  int64_t transaction_timeout_ms = 10000;  // after it the broker aborts what a dead writer left, and readers go on
  int64_t session_timeout_ms = 10000;      // after it a silent member's partitions go to others
  /// Set when the process is to end: a commit whose answer does not come within 3 s is then left to the timeout above, and
  /// no other request is waited for longer or repeated.
  /// Not owned; must outlive the log.
  const std::atomic<bool>* stopping = nullptr;
  /// Any librdkafka property (TLS, SASL, tuning). Those that correctness rests on are refused.
  std::map<std::string, std::string> properties;

  // performance
  int64_t fetch_buffer_bytes = 32 << 20;         // what one reader holds ahead of its owner, shared by its partitions
  std::map<std::string, int64_t> fetch_buffers;  // the same for readers of these topics
  int64_t send_buffer_bytes = 64 << 20;          // what one writer or producer holds behind its owner
  std::shared_ptr<KafkaHeld> held = std::make_shared<KafkaHeld>();  // kept by its clients
};

/// Connects and makes sure that a broker answers.
///
/// Places on Kafka: commit and abort markers take offsets, so `Fetch::next` and offsets of records have holes. Between
/// records `next` is one past the last record; markers behind it are passed once the end, or the next record, is seen.
///
/// Writers: kFenced means that the broker refuses this writer's epoch (or static instance id): a newer owner, or a
/// transaction that outlived transaction_timeout_ms, which the protocol cannot tell apart. A group that moved on
/// (generation, member id) is kAborted: the transaction was rolled back, and Membership::poll will say what changed.
/// A commit that is not answered within transaction_timeout_ms is kAmbiguous; so is a commit or an abort that the broker
/// accepted after a request of the transaction whose own answer was lost, and prepare() may say so too, when it had to
/// abort. After kFenced and kAmbiguous the writer is done; every call returns that error again.
/// A timestamp of 0 is written as 1: to librdkafka 0 means the present.
/// Without a Transaction::member the offsets are guarded by the transactional id alone.
///
/// Errors: kUnreachable naming the brokers (within 10 s), kUsage for properties that are unknown or not free.
Result<std::unique_ptr<Log>> open_kafka_log(const KafkaLogOptions& options);

}  // namespace assay::streams
