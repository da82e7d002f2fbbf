#include "replay/sim_check.h"

#include <set>

#include "replay/replayer.h"
#include "streams/read_to_end.h"
#include "streams/refold.h"
#include "streams/topology.h"

namespace assay::replay {
namespace {

using Wrong = std::optional<std::string>;

/// Each record of a writer was folded once and none was passed over, as far as its last counter says.
Wrong check_counters(const std::string& task, const streams::TaskSpec& spec, const streams::TaskMeta& meta) {
  uint64_t written = 0;
  for (const auto& [writer, n] : meta.upstream) written += static_cast<uint64_t>(n + 1);
  for (const auto& [topic, partition] : spec.inputs)  // reports have no counters, and the first of others may have been taken away
    if (topic == Topic::kReports || meta.began.contains({std::string(topic_spec(topic).name), partition})) return std::nullopt;
  if (meta.tally.delivered == written) return std::nullopt;
  return task + " has folded " + std::to_string(meta.tally.delivered) + " records where its writers have counted " +
         std::to_string(written);
}

/// Each digest is that of the rows, and each record was folded once, whatever else happened.
Wrong check_digests(const SimRemains& remains, const processors::ScoringOptions& scoring) {
  const auto plans = streams::topology(remains.names, scoring);
  for (const auto& [task, store] : remains.stores) {
    if (task.starts_with("audit")) continue;
    auto spec = streams::find_task(plans, remains.names, task);
    CHECK(spec.has_value());
    auto meta = streams::read_meta(*store);
    auto digest = streams::recompute_digest(*store, *spec);
    if (!meta || !digest) return "the store of " + task + " cannot be read";
    if (meta->digest != *digest)
      return "the digest of " + task + " is " + meta->digest.hex() + ", that of its rows is " + digest->hex();
    if (auto wrong = check_counters(task, *spec, *meta)) return wrong;
  }
  return std::nullopt;
}

/// Whatever lies on a disk is what a manifest of the log says: the copies that were kept warm, and what owners of before left
/// behind.
Wrong check_others(const SimRemains& remains, const processors::ScoringOptions& scoring) {
  const auto plans = streams::topology(remains.names, scoring);
  for (const auto& [task, store] : remains.others) {
    auto spec = streams::find_task(plans, remains.names, task);
    CHECK(spec.has_value());
    auto meta = streams::read_meta(*store);
    auto digest = streams::recompute_digest(*store, *spec);
    if (!meta || !digest) return "a copy of " + task + " cannot be read";
    const std::string which = "the copy of " + task + " at manifest " + std::to_string(meta->sequence);
    if (meta->digest != *digest) return which + " has digest " + meta->digest.hex() + ", its rows have " + digest->hex();
    if (auto wrong = check_counters(task, *spec, *meta)) return wrong;
    if (remains.damaged || remains.torn || meta->sequence == 0) continue;
    const TopicPartition manifests{remains.names.full(Topic::kManifests), spec->manifest_partition};
    std::optional<std::string> hash;
    auto read = streams::read_ranges(remains.log, {{manifests, {meta->manifest_offset, meta->manifest_offset + 1}}},
                                     [&](const TopicPartition&, const RecordView& record) -> Result<bool> {
                                       hash = streams::Manifest::hash(record.value.value_or(""));
                                       return true;
                                     });
    if (!read || hash != meta->manifest_hash) return which + " stands at no manifest of the log";
    if (auto owner = remains.stores.find(task); owner != remains.stores.end())
      if (auto last = streams::read_meta(*owner->second); !last || last->sequence < meta->sequence)
        return which + " is ahead of its owner";
  }
  return std::nullopt;
}

Wrong check_instants(const SimRemains& remains, const processors::ScoringOptions& scoring) {
  for (const streams::ProcessorPlan& plan : streams::topology(remains.names, scoring))
    for (int32_t p = 0; p < plan.task_count(remains.names); ++p) {
      const streams::TaskSpec spec = plan.task(p);
      auto range = remains.log.range({remains.names.full(Topic::kManifests), spec.manifest_partition});
      CHECK(range.has_value());
      streams::ManifestReader manifests(remains.log, remains.names, spec, 0, *range);
      for (WallTime last;;) {
        auto next = manifests.next();
        if (!next) return next.error().message;
        if (!*next) break;
        if ((*next)->manifest.instant < last)
          return "the instants of " + spec.name + " run backwards at manifest " + std::to_string((*next)->manifest.sequence);
        last = (*next)->manifest.instant;
      }
    }
  return std::nullopt;
}

Wrong check_replay(const SimRemains& remains, const processors::ScoringOptions& scoring) {
  std::map<std::string, std::shared_ptr<state::Store>> rebuilt;
  ReplayOptions options;
  options.names = remains.names;
  options.scoring = scoring;
  options.threads = 1;
  options.check_outputs = !remains.torn;  // what was torn stands there twice, with two instants
  auto replayed = replay_tasks(
      remains.log,
      [&](const std::string& task) -> Result<std::shared_ptr<state::Store>> { return rebuilt[task] = state::open_memory_store(); },
      options);
  if (!replayed) return "a replay disagrees: " + replayed.error().message;
  for (const ReplayedTask& task : *replayed) {
    auto store = remains.stores.find(task.task);
    if (store == remains.stores.end()) return task.task + " has no owner";
    if (auto same = compare_stores(task.task, *rebuilt.at(task.task), *store->second); !same)
      return "a replay disagrees: " + same.error().message;
  }
  return std::nullopt;
}

/// Whether the rows are those of audit-events, one each, in order.
Wrong check_chained(const SimRemains& remains) {
  std::set<std::string, std::less<>> seen;
  const TopicPartition tp{remains.names.full(Topic::kAudit), 0};
  std::vector<std::string> ids;
  auto end = streams::read_to_end(remains.log, {tp}, [&](const TopicPartition&, const RecordView& record) -> Result<bool> {
    auto writer = record.header(kHeaderWriter);
    if (!writer || seen.emplace(*writer).second) ids.push_back("av-" + std::string(record.header(kHeaderId).value_or("")));
    return true;
  });
  if (!end) return "audit-events cannot be read: " + end.error().message;
  const auto& rows = remains.database.rows;
  if (rows.size() != ids.size())
    return "the chain has " + std::to_string(rows.size()) + " rows for " + std::to_string(ids.size()) + " events";
  for (size_t i = 0; i < rows.size(); ++i)
    if (rows[i].row.id != ids[i])
      return "row " + std::to_string(i + 1) + " of the chain is event " + rows[i].row.id + ", audit-events has " + ids[i] +
             " there";
  return std::nullopt;
}

/// The chain in itself: it is whole and signed, whatever else happened. Rows that waited for their signer when the log lost them,
/// or when the projector halted, stay unsigned behind the rest: what is signed late is what the log still says.
Wrong check_chain(const SimRemains& remains) {
  const auto& rows = remains.database.rows;
  const auto& waiting = remains.database.signed_state;
  const int64_t signed_rows = remains.damaged && waiting ? waiting->sequence : std::ssize(rows);
  std::set<std::string> once;
  std::optional<Sha256Digest> previous;
  for (size_t i = 0; i < rows.size(); ++i) {
    const processors::AuditRow& row = rows[i].row;
    const std::string where = "row " + std::to_string(i + 1) + " of the chain";
    if (row.sequence != static_cast<int64_t>(i) + 1) return where + " has sequence " + std::to_string(row.sequence);
    if (row.prev_hash != previous) return where + " does not follow the row before it";
    if (row.hash != processors::chain_hash(row.payload, previous)) return where + " has a hash that is not of its payload";
    if (row.sequence <= signed_rows && !signed_by_sim_signer(rows[i])) return where + " is not signed";
    if (!once.insert(row.id).second) return "event " + row.id + " is in the chain twice";
    if (i > 0 && row.created_at_us <= rows[i - 1].row.created_at_us) return where + " is not later than the row before it";
    previous = row.hash;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> check_remains(const SimRemains& remains, const processors::ScoringOptions& scoring) {
  if (auto wrong = check_digests(remains, scoring)) return wrong;
  if (auto wrong = check_others(remains, scoring)) return wrong;
  if (auto wrong = check_chain(remains)) return wrong;
  if (remains.damaged) return std::nullopt;
  if (auto wrong = check_instants(remains, scoring)) return wrong;
  if (auto wrong = check_replay(remains, scoring)) return wrong;
  return check_chained(remains);
}

}  // namespace assay::replay
