#include "tests/simulation/judge.h"

#include <algorithm>
#include <deque>

#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/queries.h"
#include "streams/read_to_end.h"
#include "streams/refold.h"
#include "tests/simulation/workload.h"

namespace assay::simulation {
namespace {

using schemas::Offset;
using schemas::Reason;
using schemas::RecordView;
using schemas::Result;
using schemas::Topic;
using schemas::TopicPartition;

struct Stored {
  int64_t offset = 0, timestamp_ms = 0;
  std::optional<std::string> key, value;
  std::string reason, source;
};
using Records = std::deque<Stored>;

Records read(const replay::SimRemains& remains, const std::string& topic, int32_t partition) {
  Records out;
  const TopicPartition tp{topic, partition};
  std::map<std::string, int64_t, std::less<>> last;  // counter of each writer
  auto done = streams::read_to_end(remains.log, {tp}, [&](const TopicPartition&, const RecordView& r) -> Result<bool> {
    const auto text = r.header(schemas::kHeaderWriter);
    if (const auto stamp = text ? streams::WriterStamp::parse(*text) : std::nullopt; stamp && remains.torn) {
      // What was written before its transaction was torn is written again, under the same numbers: readers drop it.
      auto [known, first] = last.try_emplace(std::string(stamp->writer), -1);
      if (stamp->n <= known->second) return true;
      known->second = stamp->n;
    }
    Stored s{r.offset.value,
             r.timestamp.value,
             {},
             {},
             std::string(r.header(schemas::kHeaderReason).value_or("")),
             std::string(r.header(schemas::kHeaderSource).value_or(""))};
    if (r.key) s.key = std::string(*r.key);
    if (r.value) s.value = std::string(*r.value);
    out.push_back(std::move(s));
    return true;
  });
  CHECK(done.has_value());
  return out;
}

/// What a record says but for when it was made.
std::string without_instant(const RecordView& record) {
  std::string out(record.value.value_or(""));
  const std::string instant = schemas::format_rfc3339_ms(record.timestamp.value);
  for (size_t at = out.find(instant); at != std::string::npos; at = out.find(instant, at)) out.erase(at, instant.size());
  return std::string(record.key.value_or("")) + '\n' + std::string(record.header(schemas::kHeaderReason).value_or("")) + '\n' + out;
}

/// What became of records that were told again, under the same numbers, after their transaction was torn.
struct Told {
  bool otherwise = false;  // not as the first time
  bool less = false;       // not all of them
};

/// A task that comes back after its transaction was torn may fold its inputs in other turns, or under rules that have come in
/// between, so that it tells something else than what stands there, or less. Readers keep what came first, the task goes on from
/// what came last: their accounts differ for good, and `replay verify` names the record.
Told told_again(const replay::SimRemains& remains, const std::string& topic, int32_t partition) {
  Told told;
  std::map<std::string, std::string> said;              // by stamp
  std::map<std::string, int64_t, std::less<>> counted;  // records of each writer
  auto done =
      streams::read_to_end(remains.log, {{topic, partition}}, [&](const TopicPartition&, const RecordView& r) -> Result<bool> {
        const auto text = r.header(schemas::kHeaderWriter);
        const auto stamp = text ? streams::WriterStamp::parse(*text) : std::nullopt;
        if (!stamp) return true;
        auto [first, fresh] = said.try_emplace(std::string(*text), without_instant(r));
        told.otherwise = told.otherwise || (!fresh && first->second != without_instant(r));
        int64_t& count = counted[std::string(stamp->writer)];
        count = std::max(count, stamp->n + 1);
        return true;
      });
  CHECK(done.has_value());
  for (const auto& [writer, count] : counted) {
    auto store = remains.stores.find(writer.substr(0, writer.find('/')));
    if (store == remains.stores.end()) continue;
    auto meta = streams::read_meta(*store->second);
    CHECK(meta.has_value());
    told.less = told.less || count > meta->written[{std::string(remains.names.bare(topic)), partition}];
  }
  return told;
}

/// The same for all topics; `to_tasks`: only those that tasks read.
Told told_again(const replay::SimRemains& remains, bool to_tasks) {
  const streams::TopicNames& names = remains.names;
  std::vector<std::string> topics = {names.full(Topic::kScores), names.full(Topic::kPromotions)};
  if (!to_tasks) topics.insert(topics.end(), {schemas::dlq_of(names.full(Topic::kReports)), names.full(Topic::kAllocations)});
  Told all;
  for (int32_t p = 0; p < names.partitions(); ++p)
    for (const std::string& topic : topics) {
      const Told told = told_again(remains, topic, p);
      all.otherwise = all.otherwise || told.otherwise;
      all.less = all.less || told.less;
    }
  return all;
}

std::vector<std::string_view> values(const Records& records) {
  std::vector<std::string_view> out;
  for (const Stored& s : records) out.emplace_back(*s.value);
  return out;
}

/// Where a task's manifests say that it folded what.
std::vector<Turn> turns_of(const replay::SimRemains& remains, const streams::TaskSpec& spec) {
  const TopicPartition tp{remains.names.full(Topic::kManifests), spec.manifest_partition};
  auto range = remains.log.range(tp);
  std::vector<Turn> out;
  if (range->end == range->start) return out;
  streams::ManifestReader manifests(remains.log, remains.names, spec, 0, *range);
  for (auto next = manifests.next();; next = manifests.next()) {
    CHECK(next.has_value());
    if (!*next) break;
    for (const streams::InputRange& r : (*next)->manifest.ranges)
      out.push_back({r.tp.topic == schemas::topic_spec(Topic::kConfig).name ? Turn::kConfig : r.tp.partition, r.to.value});
  }
  return out;
}

/// No pool holds more than the greatest capacity that the rules ever gave it.
Difference check_pools(const Timeline& timeline, const Json& rows) {
  std::map<std::string, int64_t> most;
  for (const Pool& pool : timeline.start.pools) most[pool.name] = pool.capacity;
  for (const RuleChange& change : timeline.changes)
    for (const Pool& pool : change.rules.pools) most[pool.name] = std::max(most[pool.name], pool.capacity);
  for (const Json& row : rows.as_array()) {
    const std::string name(row.string_or("pool", ""));
    const double held = row.number_or("used", 0) + row.number_or("reserved", 0);
    if (held > static_cast<double>(most[name]))
      return "pool " + name + " holds " + std::to_string(static_cast<int64_t>(held)) + ", more than it ever had";
  }
  return std::nullopt;
}

}  // namespace

replay::SimWork make_work(uint64_t seed, size_t size) {
  Workload load = make_workload(seed, size);
  replay::SimWork out;
  out.rules = std::move(load.rules);
  for (WorkloadReport& r : load.reports)
    out.reports.push_back({std::move(r.key), std::move(r.value), schemas::WallTime(r.timestamp_ms)});
  for (WorkloadChange& c : load.changes) out.changes.push_back({c.after_reports, c.kind, std::move(c.rules)});
  return out;
}

std::optional<std::string> judge(const replay::SimRemains& remains) {
  const streams::TopicNames& names = remains.names;
  Timeline timeline;
  timeline.start = oracle_rules(schemas::Rules{});  // all that a task knows before it folds config.v1
  schemas::Rules rules;
  for (const Stored& s : read(remains, names.full(Topic::kConfig), 0)) {
    auto kind = schemas::fold_config_event(*s.value, rules);
    CHECK(kind.has_value());
    if (*kind != schemas::ConfigKind::kKeys) timeline.changes.push_back({s.offset, oracle_section(*kind), oracle_rules(rules)});
  }
  const auto plans = streams::topology(names, {});
  streams::Stores stores;
  for (const auto& [task, store] : remains.stores) stores[task] = store;
  if (remains.torn && !remains.damaged && told_again(remains, true).otherwise && !remains.told_otherwise)
    return "what a task had folded was told otherwise afterwards, and it did not notice";
  const Told told = remains.torn ? told_again(remains, false) : Told{};
  if (remains.damaged || told.otherwise || told.less) {
    if (!stores.contains("allocation-0")) return std::nullopt;
    auto pools = streams::answer_from(streams::parts_of(stores, remains.log, names), names, {"pools", {}});
    if (!pools) return "the pools cannot be asked for: " + pools.error().message;
    return check_pools(timeline, *pools);
  }

  std::vector<std::vector<PromotionRecord>> promotions;
  std::deque<Records> kept;
  std::vector<std::vector<std::string_view>> allocations;
  std::vector<Score> open;
  for (int32_t p = 0; p < names.partitions(); ++p) {
    const std::string where = "partition " + std::to_string(p) + ": ";
    const Records& reports = kept.emplace_back(read(remains, names.full(Topic::kReports), p));
    auto meta = streams::read_meta(*remains.stores.at("scoring-" + std::to_string(p)));
    CHECK(meta.has_value());
    const auto began = meta->began.find({std::string(topic_spec(Topic::kReports).name), p});
    std::vector<ReportRecord> records;
    for (const Stored& s : reports)
      // What retention took before the task was there for the first time was never its to fold.
      if (began == meta->began.end() || s.offset >= began->second.value)
        records.push_back({s.offset, s.timestamp_ms, s.key ? std::optional<std::string_view>(*s.key) : std::nullopt,
                           s.value ? std::optional<std::string_view>(*s.value) : std::nullopt});
    Scored scored = expect_scores(timeline, p, records, turns_of(remains, plans[0].task(p)));

    std::map<std::string, uint64_t> reasons;
    for (size_t r = 0; r < schemas::kReasonCount; ++r)
      if (meta->tally.refused[r] > 0) reasons[std::string(reason_code(static_cast<Reason>(r)))] = meta->tally.refused[r];
    if (auto d = compare_counts(scored, meta->tally.delivered, meta->tally.accepted, reasons)) return where + *d;

    const Records& letters = kept.emplace_back(read(remains, schemas::dlq_of(names.full(Topic::kReports)), p));
    std::vector<DeadLetterRecord> dead;
    for (const Stored& s : letters)
      dead.push_back({s.reason, s.source, s.key ? std::optional<std::string_view>(*s.key) : std::nullopt,
                      s.value ? std::optional<std::string_view>(*s.value) : std::nullopt});
    if (auto d = compare_dead_letters(scored, p, records, dead)) return where + *d;

    const Records& scores = kept.emplace_back(read(remains, names.full(Topic::kScores), p));
    if (auto d = compare_scores(scored.closed, values(scores))) return where + *d;
    open.insert(open.end(), scored.open.begin(), scored.open.end());

    std::vector<int64_t> offsets;
    for (const Stored& s : scores) offsets.push_back(s.offset);
    const auto expected = expect_promotions(timeline, p, scored.closed, offsets, turns_of(remains, plans[1].task(p)));
    const Records& events = kept.emplace_back(read(remains, names.full(Topic::kPromotions), p));
    if (auto d = compare_promotions(expected, values(events))) return where + *d;
    auto& read_here = promotions.emplace_back();
    for (const Stored& s : events) read_here.push_back(read_promotion(s.offset, *s.value));
    allocations.push_back(values(kept.emplace_back(read(remains, names.full(Topic::kAllocations), p))));
  }
  auto rows = streams::answer_from(streams::parts_of(stores, remains.log, names), names, {"scores", {}});
  if (!rows) return "the open windows cannot be asked for: " + rows.error().message;
  std::stable_sort(open.begin(), open.end(), [](const Score& a, const Score& b) { return a.agent < b.agent; });
  if (auto d = compare_open(open, *rows)) return d;

  const Allocated allocated = expect_allocations(timeline, promotions, turns_of(remains, plans[2].task(0)));
  if (auto d = compare_allocations(allocated, allocations)) return d;
  auto pools = streams::answer_from(streams::parts_of(stores, remains.log, names), names, {"pools", {}});
  if (!pools) return "the pools cannot be asked for: " + pools.error().message;
  if (auto d = compare_pools(allocated.pools, *pools)) return d;
  return check_allocations(timeline, promotions, allocations);
}

}  // namespace assay::simulation
