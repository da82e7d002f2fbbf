// Rows per second through each stage of the audit path: fold, sign, archive, PostgreSQL (when given), verify.
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <functional>
#include <pqxx/pqxx>
#include <thread>

#include "streams/audit_archive.h"
#include "streams/audit_projector.h"
#include "streams/audit_verify.h"
#include "streams/postgres_sink.h"
#include "tests/unit/audit_support.h"

namespace {

using namespace assay::testing;

/// cpu_s is this process's alone (the database's is not in it): on a busy machine it tells more than the wall clock.
void report(const char* what, size_t rows, const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  const std::clock_t cpu_start = std::clock();
  work();
  const double cpu_s = static_cast<double>(std::clock() - cpu_start) / CLOCKS_PER_SEC;
  const double took_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  std::printf("{\"bench\":\"audit.%s\",\"rows\":%zu,\"took_s\":%.3f,\"rows_per_s\":%.0f,\"cpu_s\":%.3f}\n", what, rows, took_s,
              static_cast<double>(rows) / took_s, cpu_s);
  std::fflush(stdout);
}

void project(PartitionLog& log, AuditSink& sink, Signer& signer, size_t batch_rows) {
  AuditProjectorOptions options;
  options.batch_rows_max = batch_rows;
  options.dead_letter = [](const RecordView&, Reason, std::string_view) -> Result<void> { return {}; };
  options.on_retry = [](const Error& error) { std::fprintf(stderr, "%s\n", error.message.c_str()); };
  AuditProjector projector(log, sink, signer, options);
  std::atomic<bool> stop{false};
  std::thread thread([&] {
    Result<void> ended = projector.run(stop);
    if (!ended) std::fprintf(stderr, "%s\n", ended.error().message.c_str());
    CHECK(ended.has_value());
  });
  while (projector.position().value < log.end()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
  stop = true;
  thread.join();
}

}  // namespace

int main(int argc, char** argv) {
  const int count = argc > 1 ? std::atoi(argv[1]) : 100000;
  const size_t n = static_cast<size_t>(count);
  TempDir dir;
  auto signer = test_signer(dir);
  const std::vector<Record> records = make_records(count);
  PartitionLog log;
  log.append_all(records);

  report("fold", n, [&] {
    ChainState state;
    for (const Record& record : records) CHECK(fold_audit_record(record.view(), std::nullopt, state).index() == 0);
  });
  report("sign_one_core", n / 4, [&] {
    const Sha256Digest digest = sha256("x");
    for (size_t i = 0; i < n / 4; ++i) CHECK(signer->sign(digest).has_value());
  });
  report("project_to_archive", n, [&] {
    auto sink = open_archive_sink(dir / "audit", signer).value();
    project(log, *sink, *signer, 4096);
  });
  report("verify_archive", n, [&] { CHECK(verify_archive(dir / "audit", {})->verified()); });
  if (const char* url = std::getenv("ASSAY_TEST_DATABASE_URL")) {
    const std::string name = "audit_bench_" + std::to_string(::getpid());
    const std::string base(url), own = base + (base.find('?') == base.npos ? "?" : "&") + "dbname=" + name;
    auto run = [&](const std::string& sql) {
      pqxx::connection connection(base);
      pqxx::nontransaction(connection).exec(sql);
    };
    run("CREATE DATABASE " + name);
    report("project_to_postgres", n, [&] { project(log, *open_postgres_sink(own), *signer, 4096); });
    report("verify_postgres", n, [&] { CHECK(verify_chain(open_database_chain(own).value(), {})->verified()); });
    run("DROP DATABASE " + name + " WITH (FORCE)");
  }
  return 0;
}
