// The oracle against the system and against the reference in Python: three that share no code must say the same.
#include "tests/simulation/oracle.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <chrono>
#include <deque>
#include <filesystem>
#include <fstream>

#include "processors/allocation.h"
#include "processors/promotion.h"
#include "processors/scoring.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "schemas/topics.h"
#include "state/store.h"
#include "tests/simulation/workload.h"

namespace assay::simulation {
namespace {

using processors::Input;
using processors::Outputs;
using schemas::ConfigKind;
using schemas::Id;
using schemas::Offset;
using schemas::Reason;
using schemas::RecordView;
using schemas::Topic;
using schemas::WallTime;

constexpr int32_t kPartitions = 2;
constexpr ConfigKind kKinds[] = {ConfigKind::kScoring, ConfigKind::kPromotion, ConfigKind::kPolicy, ConfigKind::kAllocation};

struct Stored {
  int64_t offset = 0;
  int64_t timestamp_ms = 0;
  std::optional<std::string> key;
  std::string value;
  Id id;
};
using Partition = std::deque<Stored>;

/// One task: its processor on a store in memory, committed where the dice say, and now and then lost and opened again.
template <class P>
class TaskUnderTest {
 public:
  explicit TaskUnderTest(std::function<std::unique_ptr<P>(processors::Rows&)> make, processors::Rows::RowDigest digest)
      : make_(std::move(make)), row_digest_(digest) {
    open();
  }
  void fold(Topic topic, int32_t partition, const Stored& record) {
    RecordView view;
    view.offset = Offset(record.offset);
    view.timestamp = WallTime(record.timestamp_ms);
    if (record.key) view.key = *record.key;
    view.value = record.value;
    if (!begun_) processor_->begin(WallTime(0));
    begun_ = true;
    processor_->process(Input{topic, partition, &view, record.id}, outputs_);
  }
  Outputs commit(bool reopen) {
    if (!begun_) processor_->begin(WallTime(0));
    processor_->before_commit(WallTime(0), outputs_);
    EXPECT_TRUE(store_->write(rows_->take_changes()).has_value());
    digest_ = rows_->digest();
    processor_->after_commit();
    begun_ = false;
    Outputs out = std::move(outputs_);
    outputs_ = {};
    if (reopen) open();
    return out;
  }
  const state::Reader& stored() const { return *store_; }

 private:
  void open() {
    processor_.reset();
    rows_ = std::make_unique<processors::Rows>(*store_, digest_, row_digest_);
    processor_ = make_(*rows_);
  }
  std::function<std::unique_ptr<P>(processors::Rows&)> make_;
  processors::Rows::RowDigest row_digest_;
  std::unique_ptr<state::Store> store_ = state::open_memory_store();
  state::Digest digest_;
  std::unique_ptr<processors::Rows> rows_;
  std::unique_ptr<P> processor_;
  Outputs outputs_;
  bool begun_ = false;
};

/// A run of the real processors, as topics would hold it, and the order in which each task folded its inputs.
struct Run {
  std::vector<Partition> reports{kPartitions}, scores{kPartitions}, promotions{kPartitions}, allocations{kPartitions};
  std::vector<processors::Tally> tallies{kPartitions};
  std::vector<std::vector<std::tuple<std::string, std::string, std::optional<std::string>, std::optional<std::string>>>> dead{
      kPartitions};
  std::vector<Json> open = std::vector<Json>(kPartitions);
  Json pools;
  Partition config;  // the changes; the rules at the start came before
  std::vector<std::vector<Turn>> scoring_order{kPartitions}, promotion_order{kPartitions};
  std::vector<Turn> allocation_order;
  Timeline timeline;
};

void append(std::vector<Partition>& to, int32_t partition, const processors::Output& output, Dice& dice) {
  Partition& log = to[static_cast<size_t>(partition)];
  const int64_t next = log.empty() ? 0 : log.back().offset + 1;
  log.push_back({next + dice.below(3), 0, output.key, output.value, output.id});  // commit markers take offsets, too
}

std::vector<Stored> initial_config(const schemas::Rules& rules) {
  std::vector<Stored> out;
  for (ConfigKind kind : kKinds)
    out.push_back({-1, 0, std::string(config_kind_name(kind)), encode_config_event(rules, kind),
                   schemas::place_id("config.v1", 0, Offset(-1))});
  return out;
}

/// Folds the inputs in an order that the dice choose, config records among them, and notes it. The records of each partition stay
/// in order; the turns are whole runs.
template <class P>
void fold_all(TaskUnderTest<P>& task, Topic topic, const std::vector<std::pair<int32_t, const Partition*>>& inputs,
              const Partition& config, const schemas::Rules& start, Dice& dice, std::vector<Turn>& order,
              const std::function<void(Outputs)>& committed, const std::vector<size_t>* config_after = nullptr) {
  for (const Stored& record : initial_config(start)) task.fold(Topic::kConfig, 0, record);
  std::vector<size_t> at(inputs.size(), 0);
  size_t changed = 0;
  auto left = [&] {
    size_t sum = 0;
    for (size_t p = 0; p < inputs.size(); ++p) sum += inputs[p].second->size() - at[p];
    return sum;
  };
  while (left() > 0 || changed < config.size()) {
    const bool due =
        changed < config.size() && (left() == 0 || (config_after != nullptr ? (*config_after)[changed] <= at[0] : dice.chance(5)));
    if (due) {
      task.fold(Topic::kConfig, 0, config[changed]);
      order.push_back({Turn::kConfig, config[changed++].offset + 1});
    } else if (left() > 0) {
      const auto p = static_cast<size_t>(dice.below(static_cast<int64_t>(inputs.size())));
      if (at[p] == inputs[p].second->size()) continue;
      const Stored& record = (*inputs[p].second)[at[p]++];
      task.fold(topic, inputs[p].first, record);
      order.push_back({inputs[p].first, record.offset + 1});
    }
    if (dice.chance(7)) committed(task.commit(dice.chance(30)));
  }
  committed(task.commit(false));
}

Json open_scores(const state::Reader& stored) {
  processors::Names names;
  Json rows = Json::array();
  const ConfigKind kinds[] = {ConfigKind::kScoring};
  const schemas::Rules rules = processors::FoldedRules::read(stored, kinds).value();
  const std::vector<std::string> ids = processors::agent_ids(stored).value();
  for (const std::string& id : ids) {
    auto read = processors::read_agent(stored, id, names);
    const auto agent = std::move(read).value();
    for (schemas::Window window : schemas::kWindows) {
      const int64_t pane = pane_size_ms(window), end = schemas::floor_to(agent->clock, pane) + pane;
      const auto content = agent->panes.content(end - window_size_ms(window), end);
      rows.push_back(
          schemas::parse_json(processors::score_window(id, window, end, content, rules.scoring, names).to_json("", WallTime(0)))
              .value());
    }
  }
  return rows;
}

Run run_system(const Workload& workload, uint64_t seed) {
  Dice dice(seed ^ 0x5eed);
  Run run;
  run.timeline.start = oracle_rules(workload.rules);
  std::vector<std::vector<size_t>> config_after(kPartitions);
  size_t sent = 0;
  auto publish_due = [&](size_t reports) {
    for (; run.config.size() < workload.changes.size() && workload.changes[run.config.size()].after_reports <= reports;) {
      const WorkloadChange& change = workload.changes[run.config.size()];
      const int64_t offset = static_cast<int64_t>(run.config.size()) * 2;
      run.timeline.changes.push_back({offset, oracle_section(change.kind), oracle_rules(change.rules)});
      run.config.push_back({offset, 0, std::string(config_kind_name(change.kind)), encode_config_event(change.rules, change.kind),
                            schemas::place_id("config.v1", 0, Offset(offset))});
      for (size_t p = 0; p < kPartitions; ++p) config_after[p].push_back(run.reports[p].size());
    }
  };
  for (const WorkloadReport& report : workload.reports) {
    publish_due(sent++);
    const int32_t p = report.key ? schemas::partition_of(*report.key, kPartitions) : static_cast<int32_t>(dice.below(kPartitions));
    Partition& log = run.reports[static_cast<size_t>(p)];
    const int64_t offset = (log.empty() ? 0 : log.back().offset + 1) + dice.below(2);
    log.push_back({offset, report.timestamp_ms, report.key, report.value, schemas::place_id("eval.reports.v1", p, Offset(offset))});
  }
  publish_due(SIZE_MAX);

  for (int32_t p = 0; p < kPartitions; ++p) {
    const auto i = static_cast<size_t>(p);
    TaskUnderTest<processors::Scoring> scoring(
        [](auto& rows) { return std::make_unique<processors::Scoring>(rows, processors::ScoringOptions{}); },
        &processors::scoring_row_digest);
    fold_all(
        scoring, Topic::kReports, {{p, &run.reports[i]}}, run.config, workload.rules, dice, run.scoring_order[i],
        [&](Outputs outputs) {
          for (const auto& output : outputs.records)
            if (output.topic == Topic::kScores) append(run.scores, schemas::partition_of(output.key, kPartitions), output, dice);
          for (const auto& letter : outputs.dead_letters)
            run.dead[i].emplace_back(
                reason_code(letter.reason),
                "eval.reports.v1/" + std::to_string(letter.partition) + "/" + std::to_string(letter.offset.value), letter.key,
                letter.value);
          processors::Tally& tally = run.tallies[i];
          tally.delivered += outputs.tally.delivered;
          tally.accepted += outputs.tally.accepted;
          for (size_t r = 0; r < schemas::kReasonCount; ++r) tally.refused[r] += outputs.tally.refused[r];
        },
        &config_after[i]);
    run.tallies[i].delivered = run.reports[i].size();
    run.tallies[i].accepted -= 4 + run.config.size();  // its records of config.v1
    run.open[i] = open_scores(scoring.stored());
  }
  for (int32_t p = 0; p < kPartitions; ++p) {
    const auto i = static_cast<size_t>(p);
    TaskUnderTest<processors::Promotion> promotion([](auto& rows) { return std::make_unique<processors::Promotion>(rows); },
                                                   &state::Digest::of_row);
    fold_all(promotion, Topic::kScores, {{p, &run.scores[i]}}, run.config, workload.rules, dice, run.promotion_order[i],
             [&](Outputs outputs) {
               EXPECT_TRUE(outputs.dead_letters.empty());
               for (const auto& output : outputs.records)
                 if (output.topic == Topic::kPromotions)
                   append(run.promotions, schemas::partition_of(output.key, kPartitions), output, dice);
             });
  }
  TaskUnderTest<processors::Allocation> allocation([](auto& rows) { return std::make_unique<processors::Allocation>(rows); },
                                                   &state::Digest::of_row);
  fold_all(allocation, Topic::kPromotions, {{0, &run.promotions[0]}, {1, &run.promotions[1]}}, run.config, workload.rules, dice,
           run.allocation_order, [&](Outputs outputs) {
             EXPECT_TRUE(outputs.dead_letters.empty());
             for (const auto& output : outputs.records)
               if (output.topic == Topic::kAllocations)
                 append(run.allocations, schemas::partition_of(output.key, kPartitions), output, dice);
           });
  run.pools = processors::pools_json(allocation.stored()).value();
  return run;
}

std::vector<ReportRecord> report_records(const Partition& partition) {
  std::vector<ReportRecord> out;
  for (const Stored& s : partition)
    out.push_back(
        {s.offset, s.timestamp_ms, s.key ? std::optional<std::string_view>(*s.key) : std::nullopt, std::string_view(s.value)});
  return out;
}

std::vector<std::string_view> values(const Partition& partition) {
  std::vector<std::string_view> out;
  for (const Stored& s : partition) out.emplace_back(s.value);
  return out;
}

/// What happened in some runs, by name.
using Seen = std::map<std::string, uint64_t>;

/// The first difference between the run and what the oracle expects, or nothing.
Difference judge(const Run& run, Seen* seen = nullptr) {
  std::vector<std::vector<PromotionRecord>> promotions(kPartitions);
  std::vector<std::vector<std::string_view>> allocations;
  for (int32_t p = 0; p < kPartitions; ++p) {
    const auto i = static_cast<size_t>(p);
    const std::string where = "partition " + std::to_string(p) + ": ";
    const auto records = report_records(run.reports[i]);
    const Scored scored = expect_scores(run.timeline, p, records, run.scoring_order[i]);
    std::map<std::string, uint64_t> reasons;
    for (size_t r = 0; r < schemas::kReasonCount; ++r)
      if (run.tallies[i].refused[r] > 0) reasons[std::string(reason_code(static_cast<Reason>(r)))] = run.tallies[i].refused[r];
    if (auto d = compare_counts(scored, run.tallies[i].delivered, run.tallies[i].accepted, reasons)) return where + *d;
    std::vector<DeadLetterRecord> dead;
    for (const auto& [reason, source, key, value] : run.dead[i])
      dead.push_back({reason, source, key ? std::optional<std::string_view>(*key) : std::nullopt,
                      value ? std::optional<std::string_view>(*value) : std::nullopt});
    if (auto d = compare_dead_letters(scored, p, records, dead)) return where + *d;
    if (auto d = compare_scores(scored.closed, values(run.scores[i]))) return where + *d;
    if (auto d = compare_open(scored.open, run.open[i])) return where + *d;

    std::vector<int64_t> offsets;
    for (const Stored& s : run.scores[i]) offsets.push_back(s.offset);
    const auto expected = expect_promotions(run.timeline, p, scored.closed, offsets, run.promotion_order[i]);
    if (auto d = compare_promotions(expected, values(run.promotions[i]))) return where + *d;
    for (const Stored& s : run.promotions[i]) promotions[i].push_back(read_promotion(s.offset, s.value));
    allocations.push_back(values(run.allocations[i]));
    if (seen == nullptr) continue;
    (*seen)["accepted"] += scored.accepted;
    (*seen)["scores"] += scored.closed.size();
    for (const auto& [reason, count] : scored.refused) (*seen)[std::string(reason)] += count;
    for (const Promotion& event : expected) ++(*seen)[event.action + (event.action == "hold" ? " " + event.stopped_by : "")];
    for (const Score& score : scored.closed) {
      ++(*seen)["score " + score.window];
      if (!score.score) ++(*seen)["null score"];
    }
  }
  const Allocated allocated = expect_allocations(run.timeline, promotions, run.allocation_order);
  if (auto d = compare_allocations(allocated, allocations)) return d;
  if (auto d = compare_pools(allocated.pools, run.pools)) return d;
  if (auto d = check_allocations(run.timeline, promotions, allocations)) return d;
  if (seen != nullptr) {
    std::map<size_t, std::string> last;
    for (const Allocation& event : allocated.events) {
      ++(*seen)[last[event.request] + ">" + event.state];
      last[event.request] = event.state;
    }
    (*seen)["changes"] += run.timeline.changes.size();
  }
  return std::nullopt;
}

size_t size_of(uint64_t seed) { return 50 + seed % 8 * 50; }

TEST(SimulationOracle, AgreesWithTheSystemOnEveryWorkload) {
  Seen seen;
  for (uint64_t seed = 1; seed <= 400; ++seed) {
    const Workload workload = make_workload(seed, size_of(seed));
    ASSERT_EQ(workload.reports.size(), size_of(seed));
    ASSERT_TRUE(validate(workload.rules).empty()) << seed << ": " << validate(workload.rules)[0];
    for (const WorkloadChange& change : workload.changes) ASSERT_TRUE(validate(change.rules).empty()) << seed;
    const Difference difference = judge(run_system(workload, seed), &seen);
    ASSERT_FALSE(difference.has_value()) << "seed " << seed << ": " << *difference;
  }
  // What no workload makes happen was not compared.
  for (const char* what : {"accepted",
                           "scores",
                           "score 1h",
                           "score 24h",
                           "score 7d",
                           "null score",
                           "DUPLICATE",
                           "LATE",
                           "NOT_JSON",
                           "MISSING_FIELD",
                           "BAD_TIMESTAMP",
                           "WRONG_TYPE",
                           "BAD_METRICS",
                           "BAD_ID",
                           "EMPTY",
                           "VALUE_OUT_OF_RANGE",
                           "KEY_MISMATCH",
                           "TIMESTAMP_IN_FUTURE",
                           "CONFLICTING_DUPLICATE",
                           "promote",
                           "demote",
                           "hold cooldown",
                           "hold rate-limit",
                           "hold sentinel-deny-pool",
                           "hold sentinel-max-delta",
                           "hold sentinel-min-confidence",
                           ">reserved",
                           "reserved>applied",
                           "applied>released",
                           ">gated",
                           ">rejected",
                           "gated>reserved",
                           "gated>released",
                           "gated>rejected",
                           "changes"})
    EXPECT_GT(seen[what], 0u) << what;
  for (const auto& [what, count] : seen) RecordProperty(what, std::to_string(count));
}

TEST(SimulationOracle, AWorkloadIsAFunctionOfItsSeed) {
  for (uint64_t seed : {7, 8}) {
    const Workload a = make_workload(seed, 120), b = make_workload(seed, 120);
    ASSERT_EQ(a.reports.size(), b.reports.size());
    for (size_t i = 0; i < a.reports.size(); ++i) {
      EXPECT_EQ(a.reports[i].value, b.reports[i].value);
      EXPECT_EQ(a.reports[i].timestamp_ms, b.reports[i].timestamp_ms);
    }
    EXPECT_EQ(a.rules, b.rules);
  }
  EXPECT_NE(make_workload(7, 120).reports[0].value, make_workload(8, 120).reports[0].value);
}

}  // namespace
}  // namespace assay::simulation
