#include "replay/sim_check.h"

#include <set>

#include "replay/replayer.h"
#include "streams/read_to_end.h"
#include "streams/topology.h"

namespace assay::replay {
namespace {

using Wrong = std::optional<std::string>;

Wrong check_stores(const SimRemains& remains, const processors::ScoringOptions& scoring) {
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
  }

  std::map<std::string, std::shared_ptr<state::Store>> rebuilt;
  ReplayOptions options;
  options.names = remains.names;
  options.scoring = scoring;
  options.threads = 1;
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

Wrong check_chain(const SimRemains& remains) {
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
  std::set<std::string> once;
  std::optional<Sha256Digest> previous;
  for (size_t i = 0; i < rows.size(); ++i) {
    const processors::AuditRow& row = rows[i].row;
    const std::string where = "row " + std::to_string(i + 1) + " of the chain";
    if (row.sequence != static_cast<int64_t>(i) + 1) return where + " has sequence " + std::to_string(row.sequence);
    if (row.prev_hash != previous) return where + " does not follow the row before it";
    if (row.hash != processors::chain_hash(row.payload, previous)) return where + " has a hash that is not of its payload";
    if (!signed_by_sim_signer(rows[i])) return where + " is not signed";
    if (row.id != ids[i]) return where + " is event " + row.id + ", audit-events has " + ids[i] + " there";
    if (!once.insert(row.id).second) return "event " + row.id + " is in the chain twice";
    if (i > 0 && row.created_at_us <= rows[i - 1].row.created_at_us) return where + " is not later than the row before it";
    previous = row.hash;
  }
  return std::nullopt;
}

}  // namespace

std::optional<std::string> check_remains(const SimRemains& remains, const processors::ScoringOptions& scoring) {
  if (auto wrong = check_stores(remains, scoring)) return wrong;
  return check_chain(remains);
}

}  // namespace assay::replay
