#include "replay/replayer.h"

#include <algorithm>
#include <map>
#include <mutex>
#include <set>
#include <span>
#include <thread>
#include <unordered_map>

#include "replay/json_difference.h"
#include "replay/row_difference.h"
#include "streams/refold.h"
#include "streams/runtime.h"

namespace assay::replay {
namespace {

using streams::Fold;
using streams::Manifest;
using streams::TaskSpec;

/// What one output record must be like, in 16 bytes.
UInt128 fingerprint(std::string_view id, const std::optional<std::string_view>& key, const std::optional<std::string_view>& value) {
  std::string text;
  for (auto part : {std::optional<std::string_view>(id), key, value}) {
    text += part ? std::to_string(part->size()) + ":" : "-";
    if (part) text += *part;
  }
  return xxh3_128(text);
}

/// The records that tasks have written, found by writer and counter. 16 bytes a record.
class WrittenRecords {
 public:
  explicit WrittenRecords(const streams::TopicNames& names) : names_(names) {}

  Result<void> scan(streams::Log& log, const TopicPartition& tp) {
    TRY_ASSIGN(streams::OffsetRange range, log.range(tp));
    TRY_ASSIGN(auto reader, log.open_reader({{tp, range.start}}));
    for (Offset at = range.start; at < range.end;) {
      TRY_ASSIGN(auto fetch, reader->poll(streams::Milliseconds(1000), 5000));
      if (!fetch) continue;
      for (const RecordView& record : fetch->records) {
        auto text = record.header(kHeaderWriter);
        auto stamp = text ? streams::WriterStamp::parse(*text) : std::nullopt;
        if (!stamp) continue;
        // A record written twice (a lost answer) has the same counter; readers drop the second, so the first stands.
        auto& written = by_writer_[to_string(TopicPartition{std::string(names_.bare(tp.topic)), tp.partition}) + "|" +
                                   std::string(stamp->writer)];
        written.try_emplace(stamp->n, fingerprint(record.header(kHeaderId).value_or(""), record.key, record.value));
      }
      at = fetch->next;
    }
    return {};
  }

  const UInt128* find(const std::string& place_and_writer, int64_t n) const {
    auto writer = by_writer_.find(place_and_writer);
    if (writer == by_writer_.end()) return nullptr;
    auto record = writer->second.find(n);
    return record == writer->second.end() ? nullptr : &record->second;
  }

 private:
  const streams::TopicNames& names_;
  std::unordered_map<std::string, std::unordered_map<int64_t, UInt128>> by_writer_;
};

std::optional<std::string_view> view(const std::optional<std::string>& s) {
  return s ? std::optional<std::string_view>(*s) : std::nullopt;
}

/// Topics whose old records may be gone by design: compaction keeps only the newest of a key.
bool may_be_compacted(const streams::TopicNames& names, const TopicPartition& tp) {
  for (const TopicSpec& spec : topic_catalogue())
    if (spec.compacted && names.full(spec.topic) == tp.topic) return true;
  return false;
}

bool beyond(const Manifest& manifest, const ReplayOptions& options) {
  if (options.until && manifest.instant > *options.until) return true;
  return std::ranges::any_of(manifest.ranges, [&](const streams::InputRange& range) {
    auto it = options.until_offsets.find({options.names.full(range.tp.topic), range.tp.partition});
    return it != options.until_offsets.end() && range.to > it->second;
  });
}

/// A record as its writer's counter finds it on the log: read again, because only fingerprints are kept.
Result<std::optional<std::string>> value_on_log(streams::Log& log, const TopicPartition& tp, std::string_view writer, int64_t n) {
  std::optional<std::string> found;
  TRY_ASSIGN(const streams::OffsetRange range, log.range(tp));
  streams::RangeReader ranges(log);
  TRY(ranges.read(tp, range.start, range.end, [&](std::span<const RecordView> records) -> Result<void> {
    for (const RecordView& record : records) {
      auto text = record.header(kHeaderWriter);
      auto stamp = text ? streams::WriterStamp::parse(*text) : std::nullopt;
      if (!found && stamp && stamp->writer == writer && stamp->n == n) found = std::string(record.value.value_or(""));
    }
    return {};
  }));
  return found;
}

Result<int64_t> check_outputs(streams::Log& log, const streams::Commit& commit, const streams::TopicNames& names,
                              const WrittenRecords& written) {
  int64_t checked = 0;
  for (const OutRecord& record : commit.transaction.records) {
    const Header* stamp_header = nullptr;
    std::string_view id;
    for (const Header& h : record.headers) {
      if (h.name == kHeaderWriter) stamp_header = &h;
      if (h.name == kHeaderId && h.value) id = *h.value;
    }
    if (stamp_header == nullptr) continue;  // the manifest itself, compared by its hash
    auto stamp = streams::WriterStamp::parse(*stamp_header->value);
    CHECK(stamp.has_value());
    const TopicPartition place{std::string(names.bare(record.to.topic)), record.to.partition};
    const UInt128* on_log = written.find(to_string(place) + "|" + std::string(stamp->writer), stamp->n);
    const std::string which = "record " + std::to_string(stamp->n) + " of " + std::string(stamp->writer) + " on " +
                              to_string(place) + " (manifest " + std::to_string(commit.manifest.sequence) + ")";
    if (on_log == nullptr) {
      if (may_be_compacted(names, record.to)) continue;
      return Error{Errc::kIncomplete, "comparing outputs: " + which + " is not on the log"};
    }
    if (*on_log != fingerprint(id, view(record.key), view(record.value))) {
      TRY_ASSIGN(const auto value, value_on_log(log, record.to, stamp->writer, stamp->n));
      const std::string difference = text_difference(value.value_or(""), "on the log", record.value.value_or(""), "folded again");
      return Error{Errc::kParity, "comparing outputs: " + which + ": " +
                                      (difference.empty() ? "its key or id is another one than folded again" : difference)};
    }
    ++checked;
  }
  return checked;
}

}  // namespace

Result<std::vector<ReplayedTask>> replay_tasks(streams::Log& log, const streams::StoreFactory& stores,
                                               const ReplayOptions& options) {
  const streams::TopicNames& names = options.names;
  struct Work {
    TaskSpec spec;
    std::vector<streams::PlacedManifest> manifests;
    ReplayedTask result;
  };
  std::vector<Work> work;
  int64_t total = 0;
  std::set<std::string> unknown(options.only.begin(), options.only.end());
  for (const streams::ProcessorPlan& plan : streams::topology(names, options.scoring)) {
    for (int32_t p = 0; p < plan.task_count(names); ++p) {
      Work w;
      w.spec = plan.task(p);
      const bool named = std::ranges::count(options.only, plan.name) + std::ranges::count(options.only, w.spec.name) > 0;
      unknown.erase(plan.name);
      unknown.erase(w.spec.name);
      if (!options.only.empty() && !named) continue;
      const TopicPartition tp{names.full(Topic::kManifests), w.spec.manifest_partition};
      TRY_ASSIGN(streams::OffsetRange range, log.range(tp));
      streams::ManifestReader manifests(log, names, w.spec, 0, range);
      for (;;) {
        TRY_ASSIGN(auto next, manifests.next());
        if (!next || beyond(next->manifest, options)) break;
        total += next->manifest.delivered;
        w.manifests.push_back(std::move(*next));
      }
      w.result.task = w.spec.name;
      work.push_back(std::move(w));
    }
  }

  if (!unknown.empty())
    return Error{Errc::kUsage,
                 "replaying only " + *unknown.begin() + ": there is no such task or processor; like scoring, scoring-0"};

  WrittenRecords written(names);
  if (options.check_outputs) {
    std::map<TopicPartition, bool> scanned;
    for (const Work& w : work)
      for (const auto& [at, manifest, hash] : w.manifests)
        for (const streams::OutputCount& output : manifest.outputs) {
          const TopicPartition tp{names.full(output.tp.topic), output.tp.partition};
          if (!std::exchange(scanned[tp], true)) TRY(written.scan(log, tp));
        }
  }

  std::atomic<size_t> next{0};
  std::atomic<int64_t> done{0}, folded{0};  // with what an earlier replay did; by this one
  streams::Runtime& runtime = streams::machine_runtime();
  const streams::Milliseconds started = runtime.uptime();
  std::mutex mutex;
  std::optional<Error> failure;  // under mutex
  // What is known of a difference: the output record and its field, else the first row that the running store has otherwise.
  auto unexpected = [&](Work& w, const streams::Manifest& manifest, const std::string& difference, const streams::Commit& commit,
                        Fold& fold, state::Store& store, streams::RangeReader& ranges, Offset at) -> Error {
    std::string message = "folding " + manifest.task + " manifest " + std::to_string(manifest.sequence) + " again: " + difference;
    const bool state_differs = commit.manifest.state_digest != manifest.state_digest;
    if (options.check_outputs && !state_differs)
      if (auto checked = check_outputs(log, commit, names, written); !checked) message += "; " + checked.error().message;
    auto running = options.running && state_differs ? options.running(w.spec.name) : nullptr;
    auto meta = running == nullptr ? Result<streams::TaskMeta>(streams::TaskMeta()) : streams::read_meta(*running);
    if (running == nullptr || !meta || meta->sequence < manifest.sequence) return {Errc::kParity, message};
    // On to the commit that the running store has, however much differs by then.
    if (auto kept = fold.persist(commit, at); !kept) return {Errc::kParity, message};
    for (const auto& later : w.manifests) {
      if (later.manifest.sequence <= manifest.sequence || later.manifest.sequence > meta->sequence) continue;
      auto again = streams::fold_manifest(ranges, names, fold, later.manifest);
      if (!again || !fold.persist(*again, later.at)) return {Errc::kParity, message};
    }
    if (auto same = compare_stores(w.spec.name, store, *running); !same) message += "; " + same.error().message;
    return {Errc::kParity, message};
  };
  auto replay_one = [&](Work& w) -> Result<void> {
    TRY_ASSIGN(auto store, stores(w.spec.name));
    TRY_ASSIGN(auto fold, Fold::open(w.spec, names, *store));
    // A store that an earlier replay left, killed or finished, is gone on with when it holds the beginning of this very history.
    const auto begun = static_cast<size_t>(fold->meta().sequence);
    if (begun > w.manifests.size() || (begun > 0 && w.manifests[begun - 1].hash != fold->meta().manifest_hash))
      return Error{Errc::kRefused, "replaying " + w.spec.name + ": its store is not fresh and holds another history (manifest " +
                                       std::to_string(begun) + ")"};
    for (size_t n = 0; n < begun; ++n) w.result.delivered += w.manifests[n].manifest.delivered;
    w.result.manifests = static_cast<int64_t>(begun);
    done += w.result.delivered;
    streams::RangeReader ranges(log);
    for (const auto& [at, manifest, hash] : std::span(w.manifests).subspan(begun)) {
      for (;;) {
        {
          std::lock_guard lock(mutex);
          if (failure) return {};
        }
        if (options.rate <= 0 || folded * 1000 <= options.rate * (runtime.uptime() - started).count()) break;
        runtime.sleep(streams::Milliseconds(5));
      }
      for (const streams::InputRange& range : manifest.ranges)
        if (const TopicPartition tp{names.full(range.tp.topic), range.tp.partition}; !fold->position(tp))
          fold->set_position(tp, range.from);
      TRY_ASSIGN(streams::Commit commit, streams::fold_manifest(ranges, names, *fold, manifest));
      const std::string difference = streams::manifest_difference(commit, manifest, hash);
      const bool by_other_code = w.result.expected || manifest.code_version != streams::kCodeVersion;
      if (by_other_code && !difference.empty()) {
        if (!w.result.expected)
          w.result.expected = "manifest " + std::to_string(manifest.sequence) + " was made by code version " +
                              manifest.code_version + ", this is " + std::string(streams::kCodeVersion) + ": " + difference;
        commit.manifest = manifest;  // the chain goes on as the log has it
        commit.manifest_hash = hash;
      } else if (!difference.empty()) {
        return unexpected(w, manifest, difference, commit, *fold, *store, ranges, at);
      }
      if (options.check_outputs && !by_other_code) {
        TRY_ASSIGN(int64_t checked, check_outputs(log, commit, names, written));
        w.result.outputs += checked;
      }
      TRY(fold->persist(commit, at));
      ++w.result.manifests;
      w.result.delivered += manifest.delivered;
      folded += manifest.delivered;
      const int64_t so_far = done += manifest.delivered;
      if (options.progress) options.progress(so_far, total);
    }
    const streams::TaskMeta& meta = fold->meta();
    w.result.digest = meta.digest;
    w.result.lineage = meta.lineage;
    if (auto audit = meta.written.find({std::string(topic_spec(Topic::kAudit).name), 0}); audit != meta.written.end())
      w.result.audit_records = audit->second;
    return {};
  };
  auto worker = [&] {
    for (size_t i = next++; i < work.size(); i = next++)
      if (auto result = replay_one(work[i]); !result) {
        std::lock_guard lock(mutex);
        if (!failure) failure = result.error();
      }
  };
  const unsigned threads = options.threads != 0 ? options.threads : std::max(1u, std::thread::hardware_concurrency());
  std::vector<std::thread> pool;
  for (unsigned t = 1; t < threads; ++t) pool.emplace_back(worker);
  worker();
  for (std::thread& t : pool) t.join();
  if (failure) return *failure;

  std::vector<ReplayedTask> out;
  for (Work& w : work) out.push_back(w.result);
  return out;
}

Result<void> compare_stores(const std::string& task, const state::Reader& rebuilt, const state::Reader& running) {
  TRY_ASSIGN(streams::TaskMeta a, streams::read_meta(rebuilt));
  TRY_ASSIGN(streams::TaskMeta b, streams::read_meta(running));
  if (a.sequence != b.sequence)
    return Error{Errc::kIncomplete, "comparing " + task + ": rebuilt up to manifest " + std::to_string(a.sequence) +
                                        ", running at " + std::to_string(b.sequence)};
  if (a.digest == b.digest) return {};
  std::map<std::string, std::string> rows;
  TRY(rebuilt.scan("", [&](std::string_view key, std::string_view value) {
    if (key != streams::kMetaKey) rows.emplace(key, value);
    return true;
  }));
  std::string difference;
  TRY(running.scan("", [&](std::string_view key, std::string_view value) {
    if (key == streams::kMetaKey) return true;
    auto it = rows.find(std::string(key));
    if (it == rows.end())
      difference = row_difference(key, std::nullopt, value);
    else if (it->second != value)
      difference = row_difference(key, it->second, value);
    if (it != rows.end()) rows.erase(it);
    return difference.empty();
  }));
  if (difference.empty() && !rows.empty()) difference = row_difference(rows.begin()->first, rows.begin()->second, std::nullopt);
  return Error{Errc::kParity,
               "comparing " + task + ": digest " + a.digest.hex() + " rebuilt, " + b.digest.hex() + " running; " + difference};
}

}  // namespace assay::replay
