// Speed of the audit projector: events on an embedded log into chained, signed rows in PostgreSQL. Beside it what bounds it:
// chaining, signing and COPY, each alone. One JSON line a figure on stdout; no test.
//   audit_bench DIR EVENTS        with ASSAY_TEST_DATABASE_URL naming an empty database
#include <atomic>
#include <filesystem>
#include <thread>

#include "processors/processor.h"
#include "streams/audit_projector.h"
#include "streams/embedded_log.h"
#include "streams/postgres_sink.h"
#include "streams/topic_admin.h"
#include "tests/bench/measure.h"

namespace assay::bench {
namespace {

using namespace streams;

constexpr double kShareBar = 0.7;  // of the slower of signing alone and COPY alone
constexpr int64_t kStartMs = 1767225600000;
constexpr size_t kBatchRows = 4096;

OutRecord event(int64_t n) {
  const Id cause = place_id("eval.scores.v1", 0, Offset(n));
  schemas::Json source = schemas::Json::object();
  source.set("topic", "eval.scores.v1").set("id", cause.hex());
  schemas::Json data = schemas::Json::object();
  data.set("entityId", "agent-" + std::to_string(n % 42)).set("action", "promote").set("score", 0.8731).set("confidence", 0.976);
  data.set("rationale", "Score at least 0.85 at three hours in a row, and the lower bound of the day at least 0.85.");
  processors::Output out =
      processors::audit_output(derived_id(cause, "promotion", 0), cause, "promotion.applied", "service:eval-engine",
                               "2026-01-01T00:00:00.000Z", std::move(source), std::move(data));
  return {{"audit-events", 0}, WallTime(kStartMs + n), std::move(out.key), std::move(out.value), {}};
}

/// The rows that the chain makes of the events [from, to), unsigned.
std::vector<SignedRow> chain(const std::vector<OutRecord>& events, Offset first, processors::ChainState& state) {
  std::vector<SignedRow> rows;
  rows.reserve(events.size());
  for (size_t i = 0; i < events.size(); ++i) {
    const RecordView view{first + static_cast<int64_t>(i), events[i].timestamp, *events[i].key, *events[i].value, {}};
    processors::ChainStep step = processors::fold_audit_record(view, std::nullopt, state);
    rows.push_back({std::get<processors::AuditRow>(std::move(step)), {}, {}});
  }
  return rows;
}

void run(const std::string& dir, const std::string& database, int64_t count) {
  auto log = must(open_embedded_log(dir + "/log"));
  const std::vector<TopicConfig> topics = wanted_topics({});
  must(log->create_topics(topics));
  {
    auto producer = must(log->open_producer());
    for (int64_t n = 0; n < count; ++n) must(producer->send(event(n)));
    must(producer->flush());
  }
  FileSignerOptions signer_options;
  signer_options.path = dir + "/signer.key";
  std::shared_ptr<Signer> signer = must(open_file_signer(signer_options));
  auto sink = open_postgres_sink(database);
  must(sink->take_over(signer->key()));  // migrations, before the clock starts

  AuditProjectorOptions options;
  options.dead_letter = [](const RecordView&, Reason, std::string_view detail) -> Result<void> {
    return Error{Errc::kUnexpected, "the chain refused an event: " + std::string(detail)};
  };
  AuditProjector projector(*log, *sink, signer, std::move(options));
  std::atomic<bool> stop{false};
  const auto rows_all = static_cast<double>(count);
  const Took projected = measure([&] {
    Result<void> result;
    std::thread thread([&] {
      result = projector.run(stop);
      stop = true;
    });
    while (!stop && projector.position() < Offset(count)) std::this_thread::sleep_for(Milliseconds(5));
    stop = true;
    thread.join();
    must(result);
  });

  // What bounds it, on as many further events of the same kind.
  processors::ChainState state = must(sink->take_over(signer->key()));
  const Offset first = state.next_offset;
  std::vector<OutRecord> events;
  for (int64_t n = 0; n < count; ++n) events.push_back(event(count + n));
  std::vector<std::pair<std::vector<SignedRow>, processors::ChainState>> batches;
  std::vector<SignedRow> rows;
  processors::ChainState chained = state;
  figure("chain alone (canonical form, SHA-256)", "rows", rows_all, measure([&] { rows = chain(events, first, chained); }));
  const Took signed_alone = measure([&] {
    for (SignedRow& row : rows) {
      row.signature = to_base64(must(signer->sign(row.row.hash)));
      row.signer_kid = signer->key().signer_id;
    }
  });
  figure("sign alone (Ed25519, one thread)", "rows", rows_all, signed_alone);
  processors::ChainState again = state;
  for (size_t at = 0; at < events.size(); at += kBatchRows) {
    const size_t end = std::min(events.size(), at + kBatchRows);
    chain({events.begin() + static_cast<ptrdiff_t>(at), events.begin() + static_cast<ptrdiff_t>(end)},
          first + static_cast<int64_t>(at), again);
    batches.emplace_back(
        std::vector<SignedRow>(rows.begin() + static_cast<ptrdiff_t>(at), rows.begin() + static_cast<ptrdiff_t>(end)), again);
  }
  const Took copied = measure([&] {
    processors::ChainState before = state;
    for (const auto& [batch, after] : batches) {
      must(sink->append(batch, before, after));
      before = after;
    }
  });
  figure("COPY alone (rows signed before)", "rows", rows_all, copied);
  figure("project: log to signed rows in PostgreSQL", "rows", rows_all, projected,
         kShareBar * rows_all / std::max(signed_alone.wall_s, copied.wall_s));
}

}  // namespace
}  // namespace assay::bench

int main(int argc, char** argv) {
  const char* database = std::getenv("ASSAY_TEST_DATABASE_URL");
  if (argc != 3 || database == nullptr) {
    std::fprintf(stderr, "usage: audit_bench DIR EVENTS, with ASSAY_TEST_DATABASE_URL in the environment\n");
    return 2;
  }
  const std::string dir = std::string(argv[1]) + "/audit_bench";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  assay::bench::run(dir, database, std::atoll(argv[2]));
  std::filesystem::remove_all(dir);
}
