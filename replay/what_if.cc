#include "replay/what_if.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <mutex>
#include <set>
#include <thread>
#include <vector>

#include "processors/allocation.h"
#include "replay/course.h"
#include "replay/key_history.h"
#include "replay/what_if_cause.h"
#include "replay/what_if_use.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/refold.h"

namespace assay::replay {
namespace {

constexpr int64_t kCommitRecords = 20'000;

int64_t ts_of(const Json& event) { return parse_rfc3339_ms(event.string_or("ts", "")).value_or(0); }

Decision decision_of(const processors::Output& made) {
  Decision d;
  auto event = parse_json(made.value);
  CHECK(event.has_value());
  d.event = std::move(*event);
  d.promotion = made.topic == Topic::kPromotions;
  d.entity = d.event.string_or("entityId", "");
  d.division = d.event.string_or("divisionId", "");
  d.ts_ms = ts_of(d.event);
  if (d.promotion) {
    const std::string action(d.event.string_or("action", ""));
    const Json* evidence = d.event.find("evidence");
    const std::string wanted(evidence != nullptr ? evidence->string_or("wanted", "") : "");
    const std::string stopped(evidence != nullptr ? evidence->string_or("stoppedBy", "") : "");
    d.kind = action == "promote"                ? "promotion"
             : action == "demote"               ? "demotion"
             : stopped.starts_with("sentinel-") ? "denial"
                                                : "hold";
    d.what = wanted + " " + stopped;
  } else {
    static const std::map<std::string, std::string, std::less<>> kKinds = {
        {"reserved", "reservation"}, {"applied", "grant"}, {"gated", "wait"}, {"rejected", "rejection"}, {"released", "release"}};
    const std::string state(d.event.string_or("state", ""));
    const auto kind = kKinds.find(state);
    d.kind = kind == kKinds.end() ? state : kind->second;
    d.what = std::string(d.event.string_or("allocationId", "")) + " " + std::string(d.event.string_or("pool", ""));
    for (const char* amount : {"cpu", "gpu", "memoryMB"}) d.what += " " + canonical(Json(d.event.number_or(amount, 0)));
  }
  return d;
}

/// What one set of rules makes of one partition.
struct Side {
  Side(const Rules& r, const streams::TopicNames& names, int32_t partition) : rules(r), stages(names, partition) {
    stages.scoring.follow(rules);
    stages.promotion.follow(rules);
  }
  const Rules& rules;
  Stages stages;
  AgentsSeen seen;
  std::vector<processors::Output> promotions;
  std::vector<Decision> decisions;
};

struct ScoreCounts {
  int64_t present = 0, other = 0, changed = 0;
};

/// Both sides of one partition, record by record.
class PartitionRun {
 public:
  PartitionRun(const Rules& present, const Rules& other, const streams::TopicNames& names, int32_t partition)
      : sides_{Side(present, names, partition), Side(other, names, partition)},
        partition_(partition),
        same_scores_(rules_version(present, ConfigKind::kScoring) == rules_version(other, ConfigKind::kScoring)) {}

  void fold(const RecordView& record) {
    std::array<std::vector<processors::Output>, 2> scores;
    scores[0] = closed(sides_[0], record);
    scores[1] = same_scores_ ? scores[0] : closed(sides_[1], record);
    counts_.present += static_cast<int64_t>(scores[0].size());
    counts_.other += static_cast<int64_t>(scores[1].size());
    if (!same_scores_) counts_.changed += changed(scores[0], scores[1]);
    std::array<size_t, 2> before = {sides_[0].decisions.size(), sides_[1].decisions.size()};
    for (size_t s = 0; s < 2; ++s) decide(sides_[s], scores[s], record.timestamp);
    // What the other side knew when one decided: only now are both of one moment.
    for (size_t s = 0; s < 2; ++s)
      for (size_t d = before[s]; d < sides_[s].decisions.size(); ++d)
        sides_[s].decisions[d].there = sides_[1 - s].seen.of(sides_[s].decisions[d].entity);
    if (++folded_ % kCommitRecords == 0)
      for (Side& side : sides_)
        for (Stage* stage : {&side.stages.scoring, &side.stages.promotion}) stage->commit();
  }

  Side& side(size_t s) { return sides_[s]; }
  const ScoreCounts& counts() const { return counts_; }

 private:
  std::vector<processors::Output> closed(Side& side, const RecordView& record) {
    const auto made = side.stages.scoring.fold(Topic::kReports, partition_, record);
    std::vector<processors::Output> out;
    for (const processors::Output& output : made)
      if (output.topic == Topic::kScores) out.push_back(output);
    return out;
  }

  static int64_t changed(const std::vector<processors::Output>& a, const std::vector<processors::Output>& b) {
    int64_t count = 0;
    for (const processors::Output& one : a)
      for (const processors::Output& two : b) {
        if (one.id != two.id) continue;
        auto x = parse_json(one.value), y = parse_json(two.value);
        const Json *left = x->find("score"), *right = y->find("score");
        count += (left == nullptr || right == nullptr || !(*left == *right)) ? 1 : 0;
      }
    return count;
  }

  void decide(Side& side, const std::vector<processors::Output>& scores, WallTime instant) {
    for (const processors::Output& score : scores) {
      side.seen.score(score.value);
      for (const processors::Output& made : side.stages.promotion.fold(score, partition_, instant)) {
        if (made.topic != Topic::kPromotions) continue;
        side.promotions.push_back(made);
        side.decisions.push_back(decision_of(made));
        side.seen.decided(side.decisions.back());
      }
    }
  }

  std::array<Side, 2> sides_;
  int32_t partition_;
  bool same_scores_;
  ScoreCounts counts_;
  int64_t folded_ = 0;
};

/// The promotions of all partitions in one order.
std::vector<std::pair<int32_t, processors::Output>> merged(std::vector<std::vector<processors::Output>> parts) {
  std::vector<std::pair<int32_t, processors::Output>> out;
  std::vector<size_t> next(parts.size(), 0);
  auto ts = [&](size_t p) {
    auto event = parse_json(parts[p][next[p]].value);
    return ts_of(*event);
  };
  for (;;) {
    std::optional<size_t> first;
    for (size_t p = 0; p < parts.size(); ++p)
      if (next[p] < parts[p].size() && (!first || ts(p) < ts(*first))) first = p;
    if (!first) return out;
    out.emplace_back(static_cast<int32_t>(*first), std::move(parts[*first][next[*first]++]));
  }
}

std::vector<Decision> allocate(const Rules& rules, const streams::TopicNames& names,
                               const std::vector<std::pair<int32_t, processors::Output>>& promotions) {
  Stages stages(names);
  stages.allocation.follow(rules);
  std::vector<Decision> out;
  for (const auto& [partition, promotion] : promotions)
    for (const processors::Output& made : stages.allocation.fold(promotion, partition, WallTime(0)))
      if (made.topic == Topic::kAllocations) out.push_back(decision_of(made));
  return out;
}

Json versions(const Rules& rules) {
  Json out = Json::object();
  for (ConfigKind kind : kConfigKinds)
    if (kind != ConfigKind::kKeys) out.set(config_kind_name(kind), rules_version(rules, kind));
  return out;
}

/// Keys whose values differ: {"key","present","other"}.
void changed_keys(const std::string& path, const Json& a, const Json& b, Json& into) {
  if (a == b) return;
  if (a.is_object() && b.is_object()) {
    std::set<std::string> names;
    for (const Json* document : {&a, &b})
      for (const auto& [name, value] : document->as_object()) names.insert(name);
    for (const std::string& name : names) {
      const Json *x = a.find(name), *y = b.find(name);
      changed_keys(path + "." + name, x != nullptr ? *x : Json(), y != nullptr ? *y : Json(), into);
    }
    return;
  }
  into.push_back(Json::object().set("key", path).set("present", a).set("other", b));
}

void count(Json& into, std::string_view name, int64_t by = 1) {
  into.set(name, static_cast<int64_t>(into.number_or(name, 0)) + by);
}

Json& member(Json& of, std::string_view name) {
  if (of.find(name) == nullptr) of.set(name, Json::object());
  for (auto& [key, value] : of.as_object())
    if (key == name) return value;
  CHECK(false);
}

constexpr std::array<std::string_view, 2> kSides = {"present", "other"};

}  // namespace

Result<WhatIf> what_if(streams::Log& log, const Rules& present, const Rules& other, const WhatIfOptions& options) {
  const streams::TopicNames& names = options.names;
  const auto partitions = static_cast<size_t>(names.partitions());
  std::vector<streams::OffsetRange> ranges(partitions);
  int64_t total = 0;
  for (size_t p = 0; p < partitions; ++p) {
    const TopicPartition tp{names.full(Topic::kReports), static_cast<int32_t>(p)};
    TRY_ASSIGN(ranges[p], whole_range(log, tp, "asking what would have been"));
    total += ranges[p].end - ranges[p].start;
  }

  std::array<std::vector<std::vector<processors::Output>>, 2> promotions;
  std::array<std::vector<std::vector<Decision>>, 2> decided;
  for (size_t s = 0; s < 2; ++s) {
    promotions[s].resize(partitions);
    decided[s].resize(partitions);
  }
  std::vector<ScoreCounts> counts(partitions);
  std::atomic<size_t> next{0};
  std::atomic<int64_t> done{0}, reports{0};
  std::mutex mutex;
  std::optional<Error> failure;  // under mutex
  auto run_one = [&](size_t p) -> Result<void> {
    const TopicPartition tp{names.full(Topic::kReports), static_cast<int32_t>(p)};
    PartitionRun run(present, other, names, tp.partition);
    streams::RangeReader reader(log);
    TRY(reader.read(tp, ranges[p].start, ranges[p].end, [&](std::span<const RecordView> records) -> Result<void> {
      for (const RecordView& record : records) run.fold(record);
      reports += static_cast<int64_t>(records.size());
      const int64_t so_far = done += static_cast<int64_t>(records.size());
      if (options.progress) options.progress(so_far, total);
      return {};
    }));
    for (size_t s = 0; s < 2; ++s) {
      promotions[s][p] = std::move(run.side(s).promotions);
      decided[s][p] = std::move(run.side(s).decisions);
    }
    counts[p] = run.counts();
    return {};
  };
  auto worker = [&] {
    for (size_t p = next++; p < partitions; p = next++)
      if (auto result = run_one(p); !result) {
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

  const std::array<const Rules*, 2> rules = {&present, &other};
  std::array<std::vector<Decision>, 2> all, allocations;
  for (size_t s = 0; s < 2; ++s) {
    for (auto& part : decided[s]) std::ranges::move(part, std::back_inserter(all[s]));
    allocations[s] = allocate(*rules[s], names, merged(std::move(promotions[s])));
    std::ranges::copy(allocations[s], std::back_inserter(all[s]));
    std::ranges::stable_sort(all[s], {}, [](const Decision& d) { return std::tie(d.ts_ms, d.entity); });
  }

  // The same event on both sides is no difference; how often it is there counts.
  auto inside = [&](const Decision& d) {
    return (!options.since_ms || d.ts_ms >= *options.since_ms) && (!options.until_ms || d.ts_ms < *options.until_ms);
  };
  std::array<std::map<std::string, int64_t>, 2> have;
  for (size_t s = 0; s < 2; ++s)
    for (const Decision& d : all[s]) ++have[s][d.identity()];
  struct Difference {
    size_t side;
    const Decision* decision;
  };
  std::vector<Difference> differences;
  Json totals = Json::object(), by_kind = Json::object(), by_division = Json::object(), by_entity = Json::object();
  for (size_t s = 0; s < 2; ++s) {
    std::map<std::string, int64_t> shared = have[1 - s];
    for (const Decision& d : all[s]) {
      if (!inside(d)) continue;
      Json& row = member(totals, d.kind);
      if (row.as_object().empty()) row.set("present", 0).set("other", 0).set("onlyPresent", 0).set("onlyOther", 0);
      count(row, kSides[s]);
      if (shared[d.identity()]-- > 0) continue;
      count(row, s == 0 ? "onlyPresent" : "onlyOther");
      count(by_kind, d.kind);
      count(member(by_division, d.division), d.kind);
      count(member(by_entity, d.entity), d.kind);
      differences.push_back({s, &d});
    }
  }
  std::ranges::stable_sort(differences, {}, [](const Difference& d) { return std::tie(d.decision->ts_ms, d.decision->entity); });

  const Causes causes(all[0], all[1], present, other);
  Json examples = Json::array();
  for (const Difference& d : differences) {
    if (options.examples != 0 && examples.as_array().size() == options.examples) break;
    examples.push_back(Json::object()
                           .set("kind", d.decision->kind)
                           .set("only", kSides[d.side])
                           .set("entityId", d.decision->entity)
                           .set("divisionId", d.decision->division)
                           .set("ts", format_rfc3339_ms(d.decision->ts_ms))
                           .set("cause", causes.why(*d.decision, d.side))
                           .set("event", d.decision->event));
  }

  ScoreCounts scores;
  for (const ScoreCounts& part : counts) {
    scores.present += part.present;
    scores.other += part.other;
    scores.changed += part.changed;
  }
  Json changed = Json::array();
  for (ConfigKind kind : kConfigKinds)
    if (kind != ConfigKind::kKeys)
      changed_keys(std::string(config_kind_name(kind)), rules_to_json(present, kind), rules_to_json(other, kind), changed);

  WhatIf found;
  const UseOfPools use(all, allocations, rules, options);
  found.document =
      Json::object()
          .set("differences", static_cast<int64_t>(differences.size()))
          .set("byKind", std::move(by_kind))
          .set("examples", std::move(examples))
          .set("totals", std::move(totals))
          .set("byDivision", std::move(by_division))
          .set("byEntity", std::move(by_entity))
          .set("pools", use.pools())
          .set("money", use.money())
          .set("scores", Json::object().set("present", scores.present).set("other", scores.other).set("changed", scores.changed))
          .set("rules",
               Json::object().set("present", versions(present)).set("other", versions(other)).set("changed", std::move(changed)))
          .set("reports", reports.load());
  if (options.since_ms) found.document.set("since", format_rfc3339_ms(*options.since_ms));
  if (options.until_ms) found.document.set("until", format_rfc3339_ms(*options.until_ms));
  found.series = use.series();
  return found;
}

}  // namespace assay::replay
