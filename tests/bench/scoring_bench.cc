// Speed of scoring: reports of a fleet on an embedded log, through the real pipeline into scores and stores, then verified by
// replay. Beside it, on the same records, what bounds it: reading the log, decoding, hashing. One JSON line a figure on stdout; no
// test.
//   scoring_bench DIR json|protobuf REPORTS PARTITIONS        a fleet of its own making
//   scoring_bench DIR json FILE PARTITIONS                    JSON lines of a file
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <random>

#include "processors/merkle.h"
#include "processors/scoring.h"
#include "replay/replayer.h"
#include "schemas/proto/eval_report.pb.h"
#include "schemas/time.h"
#include "streams/embedded_log.h"
#include "streams/pipeline.h"
#include "streams/topic_admin.h"
#include "tests/bench/measure.h"

namespace assay::bench {
namespace {

using namespace streams;

constexpr double kBar = 200'000;        // reports/s of one core, from the log to scores in the store
constexpr double kVerifyBar = 200'000;  // the same, verified
constexpr int kAgents = 42;
constexpr int64_t kStartMs = 1767225600000;  // 2026-01-01
constexpr int64_t kPaceMs = 30'000;          // of one agent
constexpr const char* kMetrics[] = {"accuracy", "calibration", "cost_per_task", "get_latency_ms", "win_rate"};

/// The n-th report of a fleet at a steady pace: 42 agents, four or five metrics, one in ten up to 20 minutes behind its time.
struct Made {
  std::string id, agent, division, source, arrived;
  int metrics = 0;
  double values[5] = {};
  int64_t timestamp_ms = 0;
};

class Fleet {
 public:
  Made next() {
    Made report;
    const auto agent = static_cast<int>(n_ % kAgents);
    const int64_t now = kStartMs + n_ / kAgents * kPaceMs + agent * 700;
    char text[64];
    std::snprintf(text, sizeof text, "eval-%016llx%08llx", static_cast<unsigned long long>(random_()),
                  static_cast<unsigned long long>(n_));
    report.id = text;
    report.agent = "agent-eastus-d8s-" + std::to_string(agent);
    report.division = "division-" + std::to_string(agent % 4);
    report.source = "fleet:eval_suite_" + std::to_string(agent % 7);
    report.timestamp_ms = now - static_cast<int64_t>(random_() % (random_() % 10 == 0 ? 20 * kMinuteMs : 1000));
    report.arrived = format_rfc3339_ms(now);
    report.metrics = 4 + agent % 2;
    for (int m = 0; m < report.metrics; ++m)
      report.values[m] = std::round((m == 3 ? 5.0 : 1.0) * static_cast<double>(random_() % 1'000'000)) / 1e6;
    ++n_;
    return report;
  }

 private:
  std::mt19937_64 random_{20260101};
  int64_t n_ = 0;
};

std::string as_json(const Made& report) {
  std::string out =
      R"({"id":")" + report.id + R"(","agentId":")" + report.agent + R"(","divisionId":")" + report.division + R"(","metricSet":{)";
  for (int m = 0; m < report.metrics; ++m) {
    out += (m == 0 ? "\"" : ",\"") + std::string(kMetrics[m]) + "\":";
    append_number(report.values[m], out);
  }
  return out + R"(},"timestamp":")" + format_rfc3339_ms(report.timestamp_ms) + R"(","source":")" + report.source +
         R"(","metadata":{"arrivedAt":")" + report.arrived + "\"}}";
}

std::string as_protobuf(const Made& report) {
  v1::EvalReport out;
  out.set_id(report.id);
  out.set_agent_id(report.agent);
  out.set_division_id(report.division);
  out.set_source(report.source);
  for (int m = 0; m < report.metrics; ++m) (*out.mutable_metric_set())[kMetrics[m]] = report.values[m];
  out.mutable_timestamp()->set_seconds(report.timestamp_ms / 1000);
  out.mutable_timestamp()->set_nanos(static_cast<int32_t>(report.timestamp_ms % 1000 * 1'000'000));
  (*out.mutable_metadata()->mutable_fields())["arrivedAt"].set_string_value(report.arrived);
  return out.SerializeAsString();
}

class Bench {
 public:
  Bench(std::string dir, int32_t partitions)
      : dir_(std::move(dir)), names_("", partitions), log_(must(open_embedded_log(dir_ + "/log"))) {
    const std::vector<TopicConfig> topics = wanted_topics({"", partitions, -1});
    must(log_->create_topics(topics));
  }

  void fill(const std::string& form, const std::string& input) {
    auto producer = must(log_->open_producer());
    const std::string topic = names_.full(Topic::kReports);
    auto send = [&](std::string key, std::string value, int64_t time_ms) {
      bytes_ += static_cast<double>(value.size());
      ++reports_;
      must(producer->send({{topic, -1}, WallTime(time_ms), std::move(key), std::move(value), {}}));
    };
    if (std::all_of(input.begin(), input.end(), [](char c) { return c >= '0' && c <= '9'; })) {
      Fleet fleet;
      for (int64_t n = std::stoll(input); n > 0; --n) {
        const Made report = fleet.next();
        send(report.agent, form == "json" ? as_json(report) : as_protobuf(report), report.timestamp_ms + kHourMs);
      }
    } else {
      std::ifstream file(input);
      EvalReportDecoder decoder;
      Reject reject{};
      for (std::string line; std::getline(file, line);) {
        RecordView record{Offset(0), WallTime(0), std::nullopt, line, {}};
        const EvalReport* report = decoder.decode(record, &reject);
        if (report != nullptr) send(std::string(report->agent_id), line, report->timestamp.value + kHourMs);
      }
    }
    must(producer->flush());
    std::fprintf(stderr, "%.0f reports of %.0f bytes as %s on %d partitions\n", reports_, bytes_ / reports_, form.c_str(),
                 names_.partitions());
  }

  /// Calls `each` for all reports on the log.
  void read(const std::function<void(const RecordView&)>& each) {
    for (int32_t p = 0; p < names_.partitions(); ++p) {
      const TopicPartition tp{names_.full(Topic::kReports), p};
      const OffsetRange range = must(log_->range(tp));
      auto reader = must(log_->open_reader({{tp, range.start}}));
      for (Offset at = range.start; at < range.end;) {
        auto fetch = must(reader->poll(Milliseconds(1000), 5000));
        if (!fetch) continue;
        for (const RecordView& record : fetch->records) each(record);
        at = fetch->next;
      }
    }
  }

  void limits() {
    uint64_t bytes = 0;
    figure("read the log", "reports", reports_, measure([&] { read([&](const RecordView& r) { bytes += r.value->size(); }); }));
    EvalReportDecoder decoder;
    Reject reject{};
    uint64_t good = 0;
    figure("read and decode", "reports", reports_,
           measure([&] { read([&](const RecordView& r) { good += decoder.decode(r, &reject) != nullptr; }); }));
    processors::MerkleRoot merkle;
    figure("read and hash (SHA-256 Merkle tree)", "reports", reports_, measure([&] {
             read([&](const RecordView& r) {
               state::Encoder head;
               processors::append_merkle_leaf_head(r, head);
               merkle.add(head.str(), *r.value);
             });
           }));
    if (static_cast<double>(good) != reports_ || static_cast<double>(bytes) != bytes_ ||
        static_cast<double>(merkle.count()) != reports_) {
      std::fprintf(stderr, "the log gave other records than were sent\n");
      std::exit(1);
    }
  }

  /// `barred`: this is the stream that the bars are about.
  void score(bool barred) {
    PipelineOptions options;
    options.names = names_;
    options.only = {"scoring"};
    options.until_end = true;
    Metrics metrics;
    std::map<std::string, std::shared_ptr<state::Store>> stores;
    std::mutex mutex;
    Pipeline pipeline(
        *log_, options,
        [&](const std::string& task) -> Result<std::shared_ptr<state::Store>> {
          std::lock_guard lock(mutex);
          if (stores[task] == nullptr) stores[task] = must(state::open_rocksdb_store(dir_ + "/run/" + task, {}));
          return stores[task];
        },
        std::nullopt, metrics);
    std::atomic<bool> stop{false};
    figure("score: log to scores and stores, committed", "reports", reports_, measure([&] { must(pipeline.run(stop)); }),
           barred ? kBar : 0);
    uint64_t accepted = 0;
    int64_t commits = 0;
    for (const auto& [task, store] : stores) {
      const TaskMeta meta = must(read_meta(*store));
      accepted += meta.tally.accepted;
      commits += meta.sequence;
      std::fprintf(stderr, "%s %s\n", task.c_str(), meta.digest.hex().c_str());
    }
    std::fprintf(stderr, "%llu accepted in %lld commits\n", static_cast<unsigned long long>(accepted),
                 static_cast<long long>(commits));
  }

  void verify(bool barred) {
    replay::ReplayOptions options;
    options.names = names_;
    options.threads = 1;
    int64_t delivered = 0;
    auto stores = [&](const std::string& task) -> Result<std::shared_ptr<state::Store>> {
      return std::shared_ptr<state::Store>(must(state::open_rocksdb_store(dir_ + "/again/" + task, {})));
    };
    figure("replay verify: every digest and output compared", "reports", reports_, measure([&] {
             for (const auto& task : must(replay::replay_tasks(*log_, stores, options))) delivered += task.delivered;
           }),
           barred ? kVerifyBar : 0);
    if (static_cast<double>(delivered) != reports_) {
      std::fprintf(stderr, "replay folded %lld reports\n", static_cast<long long>(delivered));
      std::exit(1);
    }
  }

 private:
  std::string dir_;
  TopicNames names_;
  std::unique_ptr<Log> log_;
  double reports_ = 0, bytes_ = 0;
};

}  // namespace
}  // namespace assay::bench

int main(int argc, char** argv) {
  if (argc != 5) {
    std::fprintf(stderr, "usage: scoring_bench DIR json|protobuf REPORTS|FILE PARTITIONS\n");
    return 2;
  }
  const std::string dir = std::string(argv[1]) + "/scoring_bench";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  {
    assay::bench::Bench bench(dir, std::atoi(argv[4]));
    const bool file = std::filesystem::exists(argv[3]);
    bench.fill(argv[2], argv[3]);
    bench.limits();
    bench.score(!file);
    bench.verify(!file);
  }
  std::filesystem::remove_all(dir);
}
