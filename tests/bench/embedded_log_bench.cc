// Speed of the embedded log: records of 380 bytes through producer, transactions and readers. One JSON line a figure on stdout; no
// test.
//   embedded_log_bench DIR [RECORDS]
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include "streams/embedded_log.h"
#include "tests/bench/measure.h"

namespace assay::bench {
namespace {

using namespace streams;

constexpr int32_t kPartitions = 4;
constexpr size_t kValueBytes = 360;  // and a key of 20

void row(const char* what, double count, Took took) { figure(what, "records", count, took); }

OutRecord sample(int64_t n) {
  char key[32];
  std::snprintf(key, sizeof key, "agent-%014lld", static_cast<long long>(n % 100'000));
  return {
      {"t", -1}, WallTime(1'700'000'000'000 + n), std::string(key), std::string(kValueBytes, static_cast<char>('a' + n % 26)), {}};
}

int64_t read_all(Log& log) {
  std::map<TopicPartition, Offset> from;
  int64_t expected = 0, count = 0;
  uint64_t bytes = 0;
  for (int32_t p = 0; p < kPartitions; ++p) {
    from[{"t", p}] = Offset(0);
    expected += must(log.range({"t", p})).end.value;
  }
  auto reader = must(log.open_reader(from));
  while (count < expected) {
    auto fetch = must(reader->poll(Milliseconds(100), 2000));
    if (!fetch) continue;
    for (const RecordView& r : fetch->records) bytes += r.value->size() + r.key->size();
    count += static_cast<int64_t>(fetch->records.size());
  }
  if (bytes != static_cast<uint64_t>(count) * 380) std::exit(1);
  return count;
}

void run(const std::string& dir, int64_t records) {
  auto log = must(open_embedded_log(dir));
  TopicConfig config;
  config.name = "t";
  config.partitions = kPartitions;
  must(log->create_topics({&config, 1}));
  row("produce", static_cast<double>(records), measure([&] {
        auto producer = must(log->open_producer());
        for (int64_t n = 0; n < records; ++n) must(producer->send(sample(n)));
        must(producer->flush());
      }));
  auto writer = must(log->open_writer("bench"));
  const int64_t batch = 1000;
  row("transactions of 1000", static_cast<double>(records / 4 / batch * batch), measure([&] {
        for (int64_t n = 0; n < records / 4 / batch; ++n) {
          Transaction transaction;
          for (int64_t i = 0; i < batch; ++i) {
            transaction.records.push_back(sample(n * batch + i));
            transaction.records.back().to.partition = static_cast<int32_t>(i % kPartitions);
          }
          must(writer->prepare(std::move(transaction)));
          must(writer->commit());
        }
      }));
  row("transactions of 1", 200, measure([&] {
        for (int64_t n = 0; n < 200; ++n) {
          Transaction transaction;
          transaction.records.push_back(sample(n));
          transaction.records.back().to.partition = 0;
          must(writer->prepare(std::move(transaction)));
          must(writer->commit());
        }
      }));
  int64_t count = 0;
  for (const char* what : {"read (first time)", "read (again)"}) {
    const Took took = measure([&] { count = read_all(*log); });
    row(what, static_cast<double>(count), took);
  }
  writer.reset();
  log.reset();
  row("open", static_cast<double>(count), measure([&] { log = must(open_embedded_log(dir)); }));
}

}  // namespace
}  // namespace assay::bench

int main(int argc, char** argv) {
  if (argc < 2) {
    std::fprintf(stderr, "usage: embedded_log_bench DIR [RECORDS]\n");
    return 2;
  }
  const std::string dir = std::string(argv[1]) + "/embedded_log_bench";
  std::filesystem::remove_all(dir);
  assay::bench::run(dir, argc > 2 ? std::atoll(argv[2]) : 1'000'000);
  std::filesystem::remove_all(dir);
}
