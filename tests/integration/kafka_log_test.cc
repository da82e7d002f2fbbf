// What only a real broker can show: markers, groups of several members, foreign clients, lost answers, restarts.
#include <librdkafka/rdkafka.h>
#include <signal.h>

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <functional>
#include <future>
#include <random>
#include <regex>
#include <sstream>
#include <thread>

#include "schemas/topics.h"
#include "tests/integration/kafka_world.h"

namespace assay::streams {
namespace {

using Clock = std::chrono::steady_clock;
constexpr Milliseconds kPoll{100};

template <class T>
T must(Result<T> result) {
  if (!result.has_value()) throw std::runtime_error(result.error().message);
  return std::move(result).value();
}

void must(Result<void> result) {
  if (!result.has_value()) throw std::runtime_error(result.error().message);
}

/// Standard output of a shell command.
std::string shell(const std::string& command) {
  std::FILE* pipe = ::popen(command.c_str(), "r");
  std::string out;
  char buffer[4096];
  for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) out.append(buffer, n);
  const int status = ::pclose(pipe);
  EXPECT_EQ(status, 0) << command << "\n" << out;
  return out;
}

class KafkaLogTest : public LogConformance {
 protected:
  void leave_while_registering(const std::function<void()>& silence, const std::function<void()>& undo);
  static Transaction transaction(std::vector<OutRecord> records) {
    Transaction t;
    t.records = std::move(records);
    return t;
  }
  static std::string kcat_read(const std::string& topic) {
    return shell("kcat -C -e -q -b " + std::string(KafkaWorld::brokers()) + " -t " + topic +
                 " -X isolation.level=read_committed -f '(%k->%s)'");
  }
  /// `verb`: down, or restart, which starts one that is down.
  static void broker(const std::string& verb) {
    const char* dir = std::getenv("ASSAY_TEST_BROKER_DIR");
    ASSERT_NE(dir, nullptr) << "run this through deploy/with --broker -- ...";
    shell(ASSAY_SOURCE_DIR "/deploy/broker " + verb + " " + std::string(dir) + " --now");
  }
  /// The broker's own process: the only child of the supervisor that pid.json names.
  static pid_t broker_pid() {
    const char* dir = std::getenv("ASSAY_TEST_BROKER_DIR");
    CHECK(dir != nullptr);
    std::stringstream json;
    json << std::ifstream(std::string(dir) + "/pid.json").rdbuf();
    std::smatch match;
    const std::string all = json.str();
    CHECK(std::regex_search(all, match, std::regex("\"pid\": ([0-9]+)")));
    std::ifstream children("/proc/" + match[1].str() + "/task/" + match[1].str() + "/children");
    pid_t pid = 0;
    children >> pid;
    CHECK(pid > 1);
    return pid;
  }
  /// Stops the broker's process and waits until every thread of it stands still; a signal alone is only on its way.
  static pid_t stop_broker() {
    const pid_t broker = broker_pid();
    EXPECT_EQ(::kill(broker, SIGSTOP), 0);
    auto stands = [](const std::filesystem::path& task) {
      std::string stat;
      std::getline(std::ifstream(task / "stat"), stat);
      const size_t name_end = stat.rfind(')');  // "pid (name) state ..."
      return name_end == std::string::npos || stat.substr(name_end, 3) == ") T";
    };
    for (auto until = Clock::now() + std::chrono::seconds(10); Clock::now() < until;) {
      bool all = true;
      for (const auto& task : std::filesystem::directory_iterator("/proc/" + std::to_string(broker) + "/task"))
        all = all && stands(task.path());
      if (all) return broker;
      std::this_thread::sleep_for(Milliseconds(1));
    }
    ADD_FAILURE() << "the broker does not stop";
    return broker;
  }
  /// Polls until the member has been told of a change of that kind.
  static Membership::Change wait_for(Membership& member, bool assigned) {
    for (auto until = Clock::now() + std::chrono::seconds(30); Clock::now() < until;) {
      auto change = must(member.poll(kPoll));
      if (change && change->assigned == assigned) return *change;
    }
    throw std::runtime_error("no change came");
  }
};

TEST_P(KafkaLogTest, AnAbsentBrokerIsNamedInTime) {
  KafkaLogOptions options;
  options.brokers = "127.0.0.1:1";
  const auto start = Clock::now();
  auto log = open_kafka_log(options);
  ASSERT_FALSE(log.has_value());
  EXPECT_EQ(log.error().code, Errc::kUnreachable);
  EXPECT_NE(log.error().message.find("127.0.0.1:1"), std::string::npos) << log.error().message;
  EXPECT_NE(log.error().message.find("refused"), std::string::npos) << log.error().message;
  EXPECT_LT(Clock::now() - start, std::chrono::seconds(12));
}

TEST_P(KafkaLogTest, PropertiesPassThroughUnlessCorrectnessRestsOnThem) {
  auto open = [](const std::string& name, const std::string& value) {
    KafkaLogOptions options;
    options.brokers = KafkaWorld::brokers();
    options.properties[name] = value;
    return open_kafka_log(options);
  };
  EXPECT_TRUE(open("socket.keepalive.enable", "true").has_value());
  for (auto [name, value] : {std::pair{"no.such.property", "1"}, {"linger.ms", "soon"}, {"isolation.level", "read_uncommitted"}}) {
    auto log = open(name, value);
    ASSERT_FALSE(log.has_value()) << name;
    EXPECT_EQ(log.error().code, Errc::kUsage);
    EXPECT_NE(log.error().message.find(name), std::string::npos) << log.error().message;
  }
}

TEST_P(KafkaLogTest, AbortedTransactionsBetweenCommittedOnesAreSkippedWithTheirMarkers) {
  const std::string topic = fresh_topic();
  auto by = writer(fresh_name("writer"));
  std::mt19937 random(11);
  std::string expected;
  for (int i = 0; i < 40; ++i) {
    std::vector<OutRecord> records;
    std::string texts;
    for (int n = 1 + static_cast<int>(random() % 5); n > 0; --n) {
      records.push_back(record(topic, 0, std::to_string(i), std::to_string(n)));
      texts += "(" + std::to_string(i) + "->" + std::to_string(n) + ")";
    }
    must(by->prepare(transaction(std::move(records))));
    if (random() % 2) {
      must(by->abort());
    } else {
      must(by->commit());
      expected += texts;
    }
  }
  must(by->prepare(transaction({record(topic, 0, "last", "aborted")})));
  must(by->abort());
  // Whatever the size of a fetch, and from whatever place: the same records, and the end lies behind the last marker.
  for (size_t most : {1, 3, 1000}) {
    auto from = reader({{{topic, 0}, Offset(0)}});
    std::string seen;
    Offset at(0);
    for (bool ended = false; !ended;) {
      auto fetch = must(from->poll(kPoll, most));
      if (!fetch) continue;
      ASSERT_LE(fetch->records.size(), most);
      for (const RecordView& r : fetch->records) EXPECT_GE(r.offset, at);
      ASSERT_GE(fetch->next, at);
      at = fetch->next;
      seen += text(copy(*fetch));
      ended = fetch->at_end && at == range(topic).end;
    }
    EXPECT_EQ(seen, expected);
    auto again = reader({{{topic, 0}, at}});
    expect_silence(*again, Milliseconds(300));
  }
  EXPECT_EQ(kcat_read(topic), expected);
}

TEST_P(KafkaLogTest, ForeignReadersSeeATransactionOnlyWhenItIsCommitted) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  must(by->prepare(transaction({record(topic, 0, "a", "1"), record(topic, 1, "b", "2")})));
  EXPECT_EQ(kcat_read(topic), "");
  must(by->commit());
  range(topic, 0), range(topic, 1);  // the markers are written
  const std::string seen = kcat_read(topic);
  EXPECT_TRUE(seen == "(a->1)(b->2)" || seen == "(b->2)(a->1)") << seen;
}

TEST_P(KafkaLogTest, ForeignProducersChooseOurPartitions) {
  constexpr int32_t kPartitions = 7;
  const std::string topic = fresh_topic(kPartitions);
  const std::string brokers = KafkaWorld::brokers();
  shell("for i in $(seq 100); do echo \"agent-$i:$i\"; done | kcat -P -K: -b " + brokers + " -t " + topic +
        " -X topic.partitioner=murmur2_random");
  size_t count = 0;
  for (int32_t p = 0; p < kPartitions; ++p) {
    for (const Read& r : read_all(topic, p)) {
      EXPECT_EQ(partition_of(*r.key, kPartitions), p) << *r.key;
      ++count;
    }
  }
  EXPECT_EQ(count, 100u);
}

TEST_P(KafkaLogTest, AZombieWritesNothing) {
  const std::string topic = fresh_topic(), id = fresh_name("writer");
  auto zombie = writer(id);
  write(*zombie, {record(topic, 0, "first", "1")});
  must(zombie->prepare(transaction({record(topic, 0, "zombie", "prepared")})));
  auto owner = writer(id);
  write(*owner, {record(topic, 0, "second", "2")});
  auto late = zombie->commit();
  ASSERT_FALSE(late.has_value());
  EXPECT_EQ(late.error().code, Errc::kFenced) << late.error().message;
  auto again = zombie->prepare(transaction({record(topic, 0, "zombie", "again")}));
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code, Errc::kFenced) << again.error().message;
  write(*owner, {record(topic, 0, "third", "3")});
  EXPECT_EQ(text(read_all(topic)), "(first->1)(second->2)(third->3)");
}

TEST_P(KafkaLogTest, AZombieThatNeverPreparedIsFencedWhenItDoes) {
  const std::string topic = fresh_topic(), id = fresh_name("writer");
  auto zombie = writer(id);
  auto owner = writer(id);
  auto prepared = zombie->prepare(transaction({record(topic, 0, "zombie", "1")}));
  const Error error = prepared ? zombie->commit().error() : prepared.error();
  EXPECT_EQ(error.code, Errc::kFenced) << error.message;
  EXPECT_EQ(text(read_all(topic)), "");
}

TEST_P(KafkaLogTest, TwoMembersSplitThePartitionsAndALeaveGivesThemBack) {
  const std::string topic = fresh_topic(4), group = fresh_name("group");
  auto by = writer(fresh_name("writer"));
  auto commit = [&](const Membership* member, int64_t offset) {
    Transaction t;
    t.offsets = OffsetCommit{group, {{{topic, 0}, Offset(offset)}}};
    t.member = member;
    must(by->prepare(std::move(t)));
    return by->commit();
  };
  auto first = must(log_->join(group, {topic}, ""));
  EXPECT_EQ(wait_for(*first, true).partitions.size(), 4u);
  EXPECT_TRUE(commit(first.get(), 1).has_value());

  // The first is asked to give everything up, may still commit, and only then does the second get its share.
  auto second = must(log_->join(group, {topic}, ""));
  Membership::Change revoked = wait_for(*first, false);
  EXPECT_EQ(revoked.partitions.size(), 4u);
  EXPECT_FALSE(revoked.lost);
  for (int i = 0; i < 10; ++i) EXPECT_FALSE(must(second->poll(kPoll)).has_value());
  auto in_between = commit(first.get(), 2);
  EXPECT_TRUE(in_between.has_value()) << in_between.error().message;

  std::set<TopicPartition> all;
  auto share_of_first = std::async(std::launch::async, [&] { return wait_for(*first, true); });
  for (const auto& tp : wait_for(*second, true).partitions) all.insert(tp);
  EXPECT_EQ(all.size(), 2u);
  for (const auto& tp : share_of_first.get().partitions) all.insert(tp);
  EXPECT_EQ(all.size(), 4u);
  EXPECT_TRUE(commit(first.get(), 3).has_value());

  second->leave();
  wait_for(*first, false);
  // The group has moved on once the first has confirmed: what it proves by is then a generation too old, until it is told.
  EXPECT_EQ(wait_for(*first, true).partitions.size(), 4u);
  EXPECT_TRUE(commit(first.get(), 4).has_value());
  const std::vector<TopicPartition> of = {{topic, 0}};
  EXPECT_EQ((must(log_->committed(group, of)).at({topic, 0}).offset), Offset(4));

  // Proof of a member that has left is refused, and nothing of the transaction happened.
  auto refused = commit(second.get(), 5);
  ASSERT_FALSE(refused.has_value());
  EXPECT_EQ(refused.error().code, Errc::kAborted) << refused.error().message;
  EXPECT_EQ((must(log_->committed(group, of)).at({topic, 0}).offset), Offset(4));
  EXPECT_TRUE(commit(first.get(), 6).has_value());  // and the writer goes on
}

TEST_P(KafkaLogTest, AStaticMemberComesBackWithoutARebalance) {
  const std::string topic = fresh_topic(2), group = fresh_name("group");
  auto other = must(log_->join(group, {topic}, "b"));
  wait_for(*other, true);
  auto member = must(log_->join(group, {topic}, "a"));
  auto wait_for_other = std::async(std::launch::async, [&] {
    while (wait_for(*other, true).partitions.size() != 1) {
    }
  });
  const auto before = wait_for(*member, true).partitions;
  wait_for_other.get();
  member->leave();
  member = must(log_->join(group, {topic}, "a"));
  EXPECT_EQ(wait_for(*member, true).partitions, before);
  EXPECT_FALSE(must(other->poll(Milliseconds(500))).has_value());
}

TEST_P(KafkaLogTest, CommittedOffsetsWaitForOpenTransactions) {
  const std::string topic = fresh_topic(), group = fresh_name("group");
  const std::vector<TopicPartition> of = {{topic, 0}};
  must(log_->commit_offsets({group, {{{topic, 0}, Offset(3)}}}, nullptr));
  EXPECT_EQ((must(log_->committed(group, of)).at({topic, 0}).offset), Offset(3));

  // A producer of its own, for ours sends offsets only as it commits.
  rd_kafka_conf_t* conf = rd_kafka_conf_new();
  char error[512];
  ASSERT_EQ(rd_kafka_conf_set(conf, "bootstrap.servers", KafkaWorld::brokers(), error, sizeof error), RD_KAFKA_CONF_OK);
  ASSERT_EQ(rd_kafka_conf_set(conf, "transactional.id", fresh_name("raw").c_str(), error, sizeof error), RD_KAFKA_CONF_OK);
  rd_kafka_t* raw = rd_kafka_new(RD_KAFKA_PRODUCER, conf, error, sizeof error);
  ASSERT_NE(raw, nullptr) << error;
  ASSERT_EQ(rd_kafka_init_transactions(raw, 10000), nullptr);
  ASSERT_EQ(rd_kafka_begin_transaction(raw), nullptr);
  auto* offsets = rd_kafka_topic_partition_list_new(1);
  rd_kafka_topic_partition_list_add(offsets, topic.c_str(), 0)->offset = 8;
  auto* proof = rd_kafka_consumer_group_metadata_new(group.c_str());
  ASSERT_EQ(rd_kafka_send_offsets_to_transaction(raw, offsets, proof, -1), nullptr);
  rd_kafka_consumer_group_metadata_destroy(proof);
  rd_kafka_topic_partition_list_destroy(offsets);

  auto answer = std::async(std::launch::async, [&] { return must(log_->committed(group, of)).at({topic, 0}).offset; });
  EXPECT_EQ(answer.wait_for(std::chrono::seconds(1)), std::future_status::timeout);
  ASSERT_EQ(rd_kafka_commit_transaction(raw, -1), nullptr);
  EXPECT_EQ(answer.get(), Offset(8));
  rd_kafka_destroy(raw);
}

TEST_P(KafkaLogTest, OffsetsAskedForWhileNobodyAnswersHarmNothingLater) {
  const std::string topic = fresh_topic(), group = fresh_name("group");
  const std::vector<TopicPartition> of = {{topic, 0}};
  KafkaLogOptions options;
  options.brokers = KafkaWorld::brokers();
  options.transaction_timeout_ms = 1000;
  auto log = must(open_kafka_log(options));
  must(log->partition_count(topic));
  const pid_t broker = stop_broker();
  // The coordinator is not known yet: the request waits for it longer than its patience lasts.
  auto unanswered = log->committed(group, of);
  ASSERT_EQ(::kill(broker, SIGCONT), 0);
  ASSERT_FALSE(unanswered.has_value());
  EXPECT_EQ(unanswered.error().code, Errc::kUnreachable) << unanswered.error().message;
  EXPECT_TRUE(must(log->committed(group, of)).empty());
  must(log->commit_offsets({group, {{{topic, 0}, Offset(3)}}}, nullptr));
  EXPECT_EQ((must(log->committed(group, of)).at({topic, 0}).offset), Offset(3));
}

TEST_P(KafkaLogTest, AFetchOutlivesItsReader) {
  const std::string topic = fresh_topic();
  auto by = writer(fresh_name("writer"));
  write(*by, {record(topic, 0, "a", std::string(1000, 'x')), record(topic, 0, "b", "2")});
  auto from = reader({{{topic, 0}, Offset(0)}});
  std::optional<Fetch> fetch;
  while (!fetch || fetch->records.empty()) fetch = must(from->poll(kPoll, 10));
  from.reset();
  EXPECT_EQ(text(copy(*fetch)), "(a->" + std::string(1000, 'x') + ")(b->2)");
}

TEST_P(KafkaLogTest, AnErrorStaysUntilASeekAndTheOtherPartitionsGoOn) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  write(*by, {record(topic, 0, "a", "1"), record(topic, 1, "b", "1")});
  auto from = reader({{{topic, 0}, Offset(1000)}, {{topic, 1}, Offset(0)}});
  std::vector<Read> before;  // the other partition's record may come before the error
  EXPECT_EQ(read_error(*from, &before), Errc::kOutOfRange);
  EXPECT_EQ(read_error(*from, &before), Errc::kOutOfRange);
  must(from->seek({topic, 0}, Offset(0)));
  EXPECT_EQ(before.size() + read_some(*from, 2 - before.size()).size(), 2u);
  write(*by, {record(topic, 0, "a", "2"), record(topic, 1, "b", "2")});
  EXPECT_EQ(read_some(*from, 2).size(), 2u);
  expect_silence(*from, Milliseconds(300));
}

TEST_P(KafkaLogTest, AReaderMissesNothingHoweverSlowlyItIsOpened) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  write(*by, {record(topic, 0, "a", "1"), record(topic, 1, "b", "1")});
  std::vector<std::thread> threads;  // more than there are processors: each is held up somewhere between its steps
  for (int t = 0; t < 6; ++t)
    threads.emplace_back([&] {
      for (int i = 0; i < 6; ++i) {
        auto from = reader({{{topic, 0}, Offset(0)}, {{topic, 1}, Offset(0)}});
        EXPECT_EQ(read_some(*from, 2).size(), 2u);
      }
    });
  for (auto& thread : threads) thread.join();
}

TEST_P(KafkaLogTest, ASeekOvertakesTheRefusalOfAnEarlierPlace) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  write(*by, {record(topic, 0, "a", "1"), record(topic, 1, "b", "1")});
  for (int wait_ms = 0; wait_ms < 12; ++wait_ms) {  // the refusal is asked for, on its way, or there
    auto from = reader({{{topic, 0}, Offset(1000)}, {{topic, 1}, Offset(0)}});
    std::this_thread::sleep_for(Milliseconds(wait_ms));
    must(from->seek({topic, 0}, Offset(0)));
    EXPECT_EQ(read_some(*from, 2).size(), 2u);
  }
}

TEST_P(KafkaLogTest, PausesAndSeeksAtRandomLoseAndDoubleNothing) {
  const std::string topic = fresh_topic(2);
  auto by = writer(fresh_name("writer"));
  constexpr int kCount = 400;
  std::vector<std::vector<Offset>> places(2);
  for (int n = 0; n < kCount;) {
    std::vector<OutRecord> records;
    for (int i = 0; i < 50; ++i, ++n)
      for (int p : {0, 1}) records.push_back(record(topic, p, std::to_string(n), "v"));
    auto at = write(*by, std::move(records));
    for (size_t i = 0; i < at.size(); ++i) places[i % 2].push_back(at[i]);
  }
  for (uint32_t seed = 1; seed <= 5; ++seed) {
    std::mt19937 random(seed);
    auto from = reader({{{topic, 0}, Offset(0)}, {{topic, 1}, Offset(0)}});
    size_t next[2] = {0, 0};
    bool paused[2] = {false, false};
    for (int step = 0; step < 150; ++step) {
      const int p = static_cast<int>(random() % 2);
      const TopicPartition tp{topic, p};
      switch (random() % 6) {
        case 0:
          from->pause(tp), paused[p] = true;
          break;
        case 1:
          from->resume(tp), paused[p] = false;
          break;
        case 2:
          next[p] = random() % kCount;
          must(from->seek(tp, places[p][next[p]]));
          break;
        default: {
          auto fetch = must(from->poll(Milliseconds(20), 1 + random() % 30));
          if (!fetch) break;
          const int of = fetch->from.partition;
          ASSERT_FALSE(paused[of]) << "seed " << seed;
          for (const RecordView& r : fetch->records) {
            ASSERT_EQ(*r.key, std::to_string(next[of])) << "seed " << seed << " step " << step << " partition " << of;
            ++next[of];
          }
        }
      }
    }
  }
}

TEST_P(KafkaLogTest, AnUnansweredCommitIsAmbiguousAndAllOrNothing) {
  KafkaLogOptions options;
  options.brokers = KafkaWorld::brokers();
  options.transaction_timeout_ms = 4000;
  auto log = must(open_kafka_log(options));
  const std::string topic = fresh_topic(2), id = fresh_name("writer");
  auto by = must(log->open_writer(id));
  write(*by, {record(topic, 0, "a", "1"), record(topic, 1, "a", "1")});
  must(by->prepare(transaction({record(topic, 0, "b", "2"), record(topic, 1, "b", "2")})));
  const pid_t broker = stop_broker();
  const auto start = Clock::now();
  auto outcome = by->commit();
  const auto took = Clock::now() - start;
  ASSERT_EQ(::kill(broker, SIGCONT), 0);
  ASSERT_FALSE(outcome.has_value());
  EXPECT_EQ(outcome.error().code, Errc::kAmbiguous) << outcome.error().message;
  EXPECT_LT(took, std::chrono::seconds(15));
  auto again = by->prepare(transaction({record(topic, 0, "c", "3")}));
  ASSERT_FALSE(again.has_value());
  EXPECT_EQ(again.error().code, Errc::kAmbiguous) << again.error().message;
  by.reset();
  by = writer(id);
  write(*by, {record(topic, 0, "d", "4"), record(topic, 1, "d", "4")});
  const std::string left = text(read_all(topic, 0)), right = text(read_all(topic, 1));
  EXPECT_EQ(left, right);
  EXPECT_TRUE(left == "(a->1)(d->4)" || left == "(a->1)(b->2)(d->4)") << left;
}

TEST_P(KafkaLogTest, ACommitAcceptedAfterALostAnswerIsAmbiguous) {
  KafkaLogOptions options;
  options.brokers = KafkaWorld::brokers();
  options.transaction_timeout_ms = 30000;
  options.properties["socket.timeout.ms"] = "2000";
  auto log = must(open_kafka_log(options));
  const std::string topic = fresh_topic();
  auto by = must(log->open_writer(fresh_name("writer")));
  must(by->prepare(transaction({record(topic, 0, "a", "1")})));
  const pid_t broker = stop_broker();
  auto outcome = std::async(std::launch::async, [&] { return by->commit(); });
  std::this_thread::sleep_for(std::chrono::seconds(4));  // the request times out and is sent again
  ASSERT_EQ(::kill(broker, SIGCONT), 0);
  auto committed = outcome.get();
  ASSERT_FALSE(committed.has_value());
  EXPECT_EQ(committed.error().code, Errc::kAmbiguous) << committed.error().message;
  EXPECT_NE(committed.error().message.find("never answered"), std::string::npos) << committed.error().message;
  EXPECT_EQ(text(read_all(topic)), "(a->1)");
}

TEST_P(KafkaLogTest, AStoppingProcessLeavesAnUnansweredCommitSoon) {
  std::atomic<bool> stopping{false};
  KafkaLogOptions options;
  options.brokers = KafkaWorld::brokers();
  options.stopping = &stopping;
  auto log = must(open_kafka_log(options));
  const std::string topic = fresh_topic();
  auto by = must(log->open_writer(fresh_name("writer")));
  must(by->prepare(transaction({record(topic, 0, "a", "1")})));
  const pid_t broker = stop_broker();
  stopping = true;
  const auto start = Clock::now();
  auto outcome = by->commit();
  by.reset();
  const auto took = Clock::now() - start;
  ASSERT_EQ(::kill(broker, SIGCONT), 0);
  ASSERT_FALSE(outcome.has_value());
  EXPECT_EQ(outcome.error().code, Errc::kAmbiguous) << outcome.error().message;
  EXPECT_LT(took, std::chrono::seconds(5));
}

/// A process is told to end while it registers offsets with a broker to which this was done, and undone at the end.
void KafkaLogTest::leave_while_registering(const std::function<void()>& silence, const std::function<void()>& undo) {
  std::atomic<bool> stopping{false};
  KafkaLogOptions options;
  options.brokers = KafkaWorld::brokers();
  options.stopping = &stopping;
  options.transaction_timeout_ms = 60000;
  auto log = must(open_kafka_log(options));
  auto by = must(log->open_writer(fresh_name("writer")));
  const std::string topic = fresh_topic();
  Transaction t = transaction({record(topic, 0, "a", "1")});
  t.offsets = OffsetCommit{fresh_name("group"), {{TopicPartition{topic, 0}, Offset(0)}}};
  must(by->prepare(std::move(t)));
  silence();
  auto outcome = std::async(std::launch::async, [&] { return by->commit(); });
  std::this_thread::sleep_for(std::chrono::milliseconds(500));  // the offsets are on their way
  stopping = true;
  const auto start = Clock::now();
  const auto came_back = outcome.get();
  by.reset();
  const auto took = Clock::now() - start;
  undo();
  ASSERT_FALSE(came_back.has_value());
  EXPECT_EQ(came_back.error().code, Errc::kAmbiguous) << came_back.error().message;
  EXPECT_LT(took, std::chrono::seconds(8));
}

TEST_P(KafkaLogTest, AProcessThatStopsWhileOffsetsAreUnansweredLeavesSoon) {
  pid_t broker = 0;
  leave_while_registering([&] { broker = stop_broker(); }, [&] { ASSERT_EQ(::kill(broker, SIGCONT), 0); });
}

TEST_P(KafkaLogTest, AProcessThatStopsWhileThereIsNobodyToSendOffsetsToLeavesSoon) {
  leave_while_registering([] { broker("down"); }, [] { broker("restart"); });
}

TEST_P(KafkaLogTest, ReadersAndWritersSurviveRestartsOfTheBroker) {
  const std::string topic = fresh_topic(), id = fresh_name("writer");
  std::atomic<bool> enough{false};
  std::atomic<int> done{0};
  std::map<std::string, bool> certain;  // key of a transaction of two records -> committed; absent: nobody knows
  std::thread writing([&] {
    auto by = writer(id);
    for (int i = 0; !enough; ++i) {
      const std::string key = std::to_string(i);
      auto prepared = by->prepare(transaction({record(topic, 0, key, "1"), record(topic, 0, key, "2")}));
      Errc code{};
      if (prepared) {
        auto outcome = by->commit();
        if (outcome) {
          certain[key] = true;
          ++done;
          continue;
        }
        code = outcome.error().code;
      } else {
        code = prepared.error().code;
      }
      if (code == Errc::kAborted) certain[key] = false;
      // A restart that takes longer than a transaction may: the coordinator ends that one, and fences whoever began it.
      if (code != Errc::kAmbiguous && code != Errc::kFenced) continue;
      for (;;) {
        by.reset();
        auto opened = log_->open_writer(id);
        if (opened) {
          by = std::move(*opened);
          break;
        }
        ASSERT_EQ(opened.error().code, Errc::kUnreachable) << opened.error().message;
      }
    }
  });
  auto from = reader({{{topic, 0}, Offset(0)}});
  std::string live;
  auto read_for = [&](int transactions) {
    const int target = done + transactions;
    for (auto until = Clock::now() + std::chrono::seconds(90); done < target && Clock::now() < until;) {
      auto fetch = must(from->poll(kPoll, 100));
      if (fetch) live += text(copy(*fetch));
    }
    EXPECT_GE(done, target) << "writing does not go on";
  };
  read_for(5);
  for (int i = 0; i < 2; ++i) {
    broker("restart");
    read_for(5);
  }
  enough = true;
  writing.join();
  const std::string all = text(read_all(topic));
  for (auto until = Clock::now() + std::chrono::seconds(30); live.size() < all.size() && Clock::now() < until;)
    if (auto fetch = must(from->poll(kPoll, 100))) live += text(copy(*fetch));
  EXPECT_EQ(live, all);
  auto count = [&](const std::string& what) {
    size_t n = 0;
    for (size_t at = all.find(what); at != std::string::npos; at = all.find(what, at + 1)) ++n;
    return n;
  };
  for (const auto& [key, committed] : certain) {
    EXPECT_EQ(count("(" + key + "->1)"), committed ? 1u : 0u) << key;
    EXPECT_EQ(count("(" + key + "->2)"), committed ? 1u : 0u) << key;
  }
  EXPECT_EQ(count("->1)"), count("->2)"));
}

INSTANTIATE_TEST_SUITE_P(Kafka, KafkaLogTest, testing::Values(kafka_kind()),
                         [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace assay::streams
