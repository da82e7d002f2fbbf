// Speed of the archive, on the log that a run has left: writing it beside zstd alone on the same bytes, its size beside the
// reports' JSON, and replays from it. One JSON line a figure on stdout; no test.
//   archive_bench DATA_DIR JSON_FILE PARTITIONS      the log is DATA_DIR/log; the archive is made in DATA_DIR/bench-archive
#include <algorithm>
#include <filesystem>

#include "replay/archive_log.h"
#include "replay/archiver.h"
#include "replay/replayer.h"
#include "streams/embedded_log.h"
#include "streams/zstd.h"
#include "tests/bench/measure.h"

namespace assay::bench {
namespace {

using namespace streams;

constexpr double kShareOfZstd = 0.5;
constexpr double kVerifyBar = 200'000, kFoldBar = 300'000;  // reports/s of one core
constexpr int kLevel = 3;
constexpr size_t kSegmentBytes = size_t{32} << 20, kBlockBytes = 256 * 1024;

/// Every fetch of a topic's partitions, kept.
std::vector<Fetch> fetched(Log& log, const std::string& topic) {
  std::vector<Fetch> out;
  for (int32_t p = 0; p < must(log.partition_count(topic)); ++p) {
    const TopicPartition tp{topic, p};
    const OffsetRange range = must(log.range(tp));
    if (range.start >= range.end) continue;
    auto reader = must(log.open_reader({{tp, range.start}}));
    for (Offset at = range.start; at < range.end;) {
      auto fetch = must(reader->poll(Milliseconds(1000), 5000));
      if (!fetch) continue;
      at = fetch->next;
      out.push_back(std::move(*fetch));
    }
  }
  return out;
}

void run(const std::filesystem::path& data, const std::filesystem::path& json, int32_t partitions) {
  const TopicNames names("", partitions);
  EmbeddedLogOptions reading;
  reading.read_only = true;
  auto log = must(open_embedded_log((data / "log").string(), reading));
  const std::vector<Fetch> reports = fetched(*log, names.full(Topic::kReports));
  double count = 0, bytes = 0;
  std::string plain;  // the same records, one after the other
  for (const Fetch& fetch : reports)
    for (const RecordView& r : fetch.records) {
      ++count;
      bytes += static_cast<double>(r.key.value_or("").size() + r.value.value_or("").size());
      plain.append(r.key.value_or("")).append(r.value.value_or(""));
    }
  const Took alone = measure([&] {
    for (size_t at = 0; at < plain.size(); at += kBlockBytes) (void)zstd(std::string_view(plain).substr(at, kBlockBytes), kLevel);
  });
  figure("zstd alone, 256 KiB blocks, level 3", "bytes", bytes, alone);
  figure("segments: order by key, zstd, index, hashes", "bytes", bytes, measure([&] {
           std::unique_ptr<replay::SegmentWriter> writer;
           TopicPartition of;
           for (const Fetch& fetch : reports) {
             if (writer == nullptr || of != fetch.from) {
               if (writer != nullptr) (void)writer->finish(kLevel);
               of = fetch.from;
               writer = std::make_unique<replay::SegmentWriter>(of.topic, of.partition, Offset(0));
             }
             for (const RecordView& r : fetch.records) writer->add(r);
             if (writer->bytes() >= kSegmentBytes) (void)writer->finish(kLevel);
           }
           if (writer != nullptr) (void)writer->finish(kLevel);
         }),
         kShareOfZstd * bytes / alone.wall_s);

  const std::filesystem::path dir = data / "bench-archive";
  std::filesystem::remove_all(dir);
  std::shared_ptr<ObjectStore> objects = must(open_directory_objects(dir.string(), true));
  auto archive = must(replay::Archive::open_for(objects, must(log->cluster_id()), WallTime(0)));
  auto signer = must(open_file_signer({.path = (data / "bench.key").string(), .signer_id = "bench"}));
  replay::ArchiverOptions options;
  options.names = names;
  options.group = "assay.archive";
  options.segment_bytes = kSegmentBytes;
  replay::Archiver archiver(*log, *archive, *signer, options);
  const std::atomic<bool> stop{false}, finish{true};
  const Took archived = measure([&] { must(archiver.run(stop, finish)); });
  double all_raw = 0, reports_packed = 0;
  for (const auto& [tp, chain] : must(archive->chains()))
    for (const replay::ArchiveEntry& entry : chain) {
      all_raw += static_cast<double>(entry.segment.raw_bytes);
      if (tp.topic == topic_spec(Topic::kReports).name) reports_packed += static_cast<double>(entry.bytes);
    }
  figure("archiver: every topic from the log to signed, synced files", "bytes", all_raw, archived);
  const auto json_bytes = static_cast<double>(std::filesystem::file_size(json));
  figure("archived reports, of their JSON (percent; at most 15)", "percent", 100 * reports_packed / json_bytes, Took{1, 1});

  for (const bool verified : {true, false}) {
    auto source = must(replay::open_archive_log(must(replay::Archive::open(objects)), names));
    replay::ReplayOptions replaying;
    replaying.names = names;
    replaying.check_outputs = verified;
    replaying.threads = 1;
    const StoreFactory stores = [](const std::string&) -> Result<std::shared_ptr<state::Store>> {
      return std::shared_ptr<state::Store>(state::open_memory_store());
    };
    const Took took = measure([&] { (void)must(replay::replay_tasks(*source, stores, replaying)); });
    figure(verified ? "replay from the archive: every digest, manifest and output compared"
                    : "replay from the archive: digests and manifests, outputs not compared one by one",
           "reports", count, took, verified ? kVerifyBar : kFoldBar);
  }
}

}  // namespace
}  // namespace assay::bench

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "see the head of archive_bench.cc\n");
    return 2;
  }
  assay::bench::run(argv[1], argv[2], std::atoi(argv[3]));
  return 0;
}
