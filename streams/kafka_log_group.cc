// Membership of a consumer group: librdkafka's callback only notes what changed. A revocation is confirmed (which lets the
// group go on) at the poll after the one that returned it, so that its owner can commit under the old generation.
#include <algorithm>
#include <chrono>
#include <tuple>

#include "streams/kafka_log_parts.h"

namespace assay::streams::kafka {

constexpr Milliseconds kLeaving{5000};  // so long is waited for the answer to a leave

Result<std::unique_ptr<KafkaMembership>> KafkaMembership::join(const KafkaLogOptions& options, const std::string& group,
                                                               const std::vector<std::string>& topics,
                                                               const std::string& instance_id) {
  CHECK(!topics.empty());
  std::unique_ptr<KafkaMembership> member(new KafkaMembership);
  member->group_ = group;
  Settings fixed = {{"group.id", group},
                    {"enable.auto.commit", "false"},
                    {"enable.auto.offset.store", "false"},
                    {"auto.offset.reset", "error"},
                    {"isolation.level", "read_committed"},
                    {"partition.assignment.strategy", "range"}};
  Settings tuning = {{"session.timeout.ms", std::to_string(options.session_timeout_ms)},
                     {"heartbeat.interval.ms", std::to_string(options.session_timeout_ms / 5)},
                     {"max.poll.interval.ms", std::to_string(std::max<int64_t>(30000, 2 * options.session_timeout_ms))}};
  if (!instance_id.empty()) fixed.emplace_back("group.instance.id", instance_id);
  TRY_ASSIGN(member->client_,
             Client::create(
                 options, RD_KAFKA_CONSUMER, std::move(tuning), std::move(fixed),
                 [](rd_kafka_conf_t* conf, void*) { rd_kafka_conf_set_rebalance_cb(conf, on_rebalance); }, member.get()));
  rd_kafka_poll_set_consumer(member->handle());
  PartitionListPtr list = make_list(topics.size());
  for (const std::string& topic : topics) {
    TRY(member->client_->partition_count(topic));  // a subscription to nothing would wait in silence
    add_partition(list.get(), {topic, RD_KAFKA_PARTITION_UA});
  }
  if (auto err = rd_kafka_subscribe(member->handle(), list.get())) return member->client_->error(err, "joining group " + group);
  return member;
}

KafkaMembership::~KafkaMembership() {
  if (client_) leave();
}

void KafkaMembership::on_rebalance(rd_kafka_t*, rd_kafka_resp_err_t err, rd_kafka_topic_partition_list_t* partitions,
                                   void* opaque) {
  user_of<KafkaMembership>(opaque)->rebalance(err, *partitions);
}

void KafkaMembership::rebalance(rd_kafka_resp_err_t err, const rd_kafka_topic_partition_list_t& partitions) {
  rd_kafka_t* rk = handle();
  if (left_) {
    rd_kafka_assign(rk, nullptr);
    return;
  }
  Queued queued;
  for (int i = 0; i < partitions.cnt; ++i) queued.change.partitions.push_back(place_of(partitions.elems[i]));
  if (err == RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS) {
    PartitionListPtr nothing = make_list(0);
    rd_kafka_assign(rk, nothing.get());
    queued.change.assigned = true;
    queued.proof = {rd_kafka_consumer_group_metadata(rk), rd_kafka_consumer_group_metadata_destroy};
  } else {
    queued.change.lost = rd_kafka_assignment_lost(rk);
    revocation_open_ = true;
  }
  changes_.push_back(std::move(queued));
  rd_kafka_yield(rk);  // or the poll that we are in would go on waiting
}

std::optional<Membership::Change> KafkaMembership::take_change() {
  if (changes_.empty()) return std::nullopt;
  Queued queued = std::move(changes_.front());
  changes_.pop_front();
  if (queued.change.assigned) {
    std::lock_guard lock(mutex_);
    proof_ = std::move(queued.proof);
  }
  return std::move(queued.change);
}

Result<std::optional<Membership::Change>> KafkaMembership::poll(Milliseconds wait) {
  CHECK(!left_);
  if (changes_.empty() && revocation_open_) {
    revocation_open_ = false;
    rd_kafka_assign(handle(), nullptr);
  }
  if (auto change = take_change()) return change;
  const auto until = std::chrono::steady_clock::now() + wait;
  for (;;) {
    const auto left = std::chrono::duration_cast<Milliseconds>(until - std::chrono::steady_clock::now());
    rd_kafka_message_t* m = rd_kafka_consumer_poll(handle(), static_cast<int>(std::max<int64_t>(0, left.count())));
    const rd_kafka_resp_err_t err = m ? m->err : RD_KAFKA_RESP_ERR_NO_ERROR;
    const std::string detail = m && m->err ? rd_kafka_message_errstr(m) : "";
    if (m) rd_kafka_message_destroy(m);
    if (auto change = take_change()) return change;
    char text[512];
    if (auto fatal = rd_kafka_fatal_error(handle(), text, sizeof text))
      return client_->error(fatal, "being a member of group " + group_, text);
    const Errc code = errc_of(err);
    if (code == Errc::kRefused || code == Errc::kNotFound) return client_->error(err, "being a member of group " + group_, detail);
    // Anything else passes by itself, or ends in a revocation that says so.
    if (left.count() <= 0) return std::optional<Change>();
  }
}

std::string KafkaMembership::id() const {
  char* id = rd_kafka_memberid(handle());
  std::string out = id ? id : "";
  if (id) rd_kafka_mem_free(handle(), id);
  return out;
}

void KafkaMembership::leave() {
  if (left_) return;
  left_ = true;
  if (revocation_open_) rd_kafka_assign(handle(), nullptr);
  // Closing waits for the broker's answer, as long as a request may take. One that does not answer learns it from the session.
  const QueuePtr queue(rd_kafka_queue_new(handle()));
  if (rd_kafka_error_t* error = rd_kafka_consumer_close_queue(handle(), queue.get())) {
    rd_kafka_error_destroy(error);  // it is closed, or its client is dead
    return;
  }
  const auto until = std::chrono::steady_clock::now() + kLeaving;
  while (rd_kafka_consumer_closed(handle()) == 0 && std::chrono::steady_clock::now() < until)
    rd_kafka_queue_poll_callback(queue.get(), 50);
}

GroupView view_of(const rd_kafka_ConsumerGroupDescription_t& group) {
  GroupView view;
  const auto state = rd_kafka_ConsumerGroupDescription_state(&group);
  view.settled = state == RD_KAFKA_CONSUMER_GROUP_STATE_STABLE || state == RD_KAFKA_CONSUMER_GROUP_STATE_EMPTY ||
                 state == RD_KAFKA_CONSUMER_GROUP_STATE_DEAD;  // dead: nobody ever joined
  auto text = [](const char* s) { return std::string(s ? s : ""); };
  for (size_t i = 0; i < rd_kafka_ConsumerGroupDescription_member_count(&group); ++i) {
    const auto* member = rd_kafka_ConsumerGroupDescription_member(&group, i);
    GroupMember& out = view.members.emplace_back();
    out.id = text(rd_kafka_MemberDescription_consumer_id(member));
    out.client_id = text(rd_kafka_MemberDescription_client_id(member));
    out.instance_id = text(rd_kafka_MemberDescription_group_instance_id(member));
    const auto* assignment = rd_kafka_MemberDescription_assignment(member);
    const auto* list = assignment && view.settled ? rd_kafka_MemberAssignment_partitions(assignment) : nullptr;
    for (int p = 0; list && p < list->cnt; ++p) out.partitions.push_back(place_of(list->elems[p]));
  }
  std::ranges::sort(view.members, {}, [](const GroupMember& m) { return std::tie(m.client_id, m.id); });
  return view;
}

std::shared_ptr<const rd_kafka_consumer_group_metadata_t> KafkaMembership::proof() const {
  std::lock_guard lock(mutex_);
  return proof_;
}

}  // namespace assay::streams::kafka
