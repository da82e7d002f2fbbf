// The oracle against the system and against the reference in Python: three that share no code must say the same.
#include "tests/simulation/oracle.h"

#include <gtest/gtest.h>
#include <unistd.h>

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
struct SystemRun {
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

SystemRun run_system(const Workload& workload, uint64_t seed) {
  Dice dice(seed ^ 0x5eed);
  SystemRun run;
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
Difference judge(const SystemRun& run, Seen* seen = nullptr) {
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

/// The reports of a workload as one partition.
std::vector<ReportRecord> one_partition(const Workload& workload) {
  std::vector<ReportRecord> out;
  for (const WorkloadReport& report : workload.reports)
    out.push_back({static_cast<int64_t>(out.size()), report.timestamp_ms,
                   report.key ? std::optional<std::string_view>(*report.key) : std::nullopt, std::string_view(report.value)});
  return out;
}

std::string shown(std::optional<double> number) {
  if (!number) return "null";
  std::string out;
  schemas::append_number(*number, out);
  return out;
}

std::string shown(const Score& s) {
  std::string out = s.agent + "|" + s.division + "|" + s.window + "|" + std::to_string(s.end_ms) + "|" + shown(s.score) + "|" +
                    shown(s.lower) + "|" + shown(s.upper) + "|" + shown(s.confidence) + "|" + std::to_string(s.samples);
  for (const Component& c : s.components)
    out += "|" + c.metric + " " + std::to_string(c.count) + " " + shown(c.mean) + " " + shown(c.variance) + " " + shown(c.min) +
           " " + shown(c.max) + " " + shown(c.normalized) + " " + shown(c.weight) + " " + shown(c.contribution);
  return out;
}

TEST(SimulationOracle, CheckedMantissasSayWhatRationalsSay) {
  size_t compared = 0;
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    const Workload workload = make_workload(seed, size_of(seed));
    const auto records = one_partition(workload);
    const Timeline timeline{oracle_rules(workload.rules), {}};
    const Scored checked = expect_scores(timeline, 0, records),
                 exact = expect_scores(timeline, 0, records, {}, Arithmetic::kExactOnly);
    ASSERT_EQ(checked.closed.size(), exact.closed.size());
    for (size_t i = 0; i < checked.closed.size(); ++i, ++compared)
      ASSERT_EQ(shown(checked.closed[i]), shown(exact.closed[i])) << "seed " << seed;
  }
  EXPECT_GT(compared, 5000u);
}

/// What the reference in Python says of these files.
Json reference(const std::string& what, const std::string& rules, const std::string& reports) {
  const std::string command =
      "python3 -B " ASSAY_SOURCE_DIR "/tests/oracle/reference.py " + what + " --config " + rules + " --input " + reports;
  FILE* pipe = popen(command.c_str(), "r");
  std::string text;
  char part[65536];
  for (size_t n; (n = fread(part, 1, sizeof part, pipe)) > 0;) text.append(part, n);
  EXPECT_EQ(pclose(pipe), 0) << command;
  auto document = schemas::parse_json(text);
  EXPECT_TRUE(document.has_value()) << command;
  return document ? std::move(*document) : Json();
}

std::string toml(const Rules& rules) {
  auto number = [](double v) { return shown(v) + (shown(v).find('.') == std::string::npos ? ".0" : ""); };
  std::string out =
      "[scoring]\ngrace = \"" + std::to_string(rules.grace_ms) + "ms\"\ndedupe = \"" + std::to_string(rules.dedupe_ms) + "ms\"\n";
  for (const MetricRule& m : rules.metrics)
    out += "[[scoring.metric]]\ndivision = \"" + m.division + "\"\nwindow = \"" + m.window + "\"\nmetric = \"" + m.metric +
           "\"\ndirection = \"" + (m.up ? "up" : "down") + "\"\nlow = " + number(m.low) + "\nhigh = " + number(m.high) +
           "\nweight = " + number(m.weight) + "\n";
  return out + "[promotion]\nenter = " + number(rules.enter) + "\nleave = " + number(rules.leave) +
         "\nmin_samples = " + std::to_string(rules.min_samples) + "\ncooldown = \"" + std::to_string(rules.cooldown_ms) +
         "ms\"\nmax_per_week = " + std::to_string(rules.max_per_week) + "\n";
}

TEST(SimulationOracle, AgreesWithTheReferenceInPython) {
  const std::string base = (std::filesystem::temp_directory_path() / ("assay-oracle-" + std::to_string(getpid()))).string();
  size_t scores = 0, decisions = 0;
  for (uint64_t seed = 501; seed <= 507; ++seed) {
    Workload workload = make_workload(seed, 300);
    // The reference knows neither keys, nor the policy, nor records' own timestamps, nor ids made from places.
    workload.rules.policy = {};
    Rules rules = oracle_rules(workload.rules);
    rules.pools = {{"pool", "gpu", 1, {}}};
    rules.grant = {"pool", 0, 1, 0, 0};
    std::erase_if(workload.reports, [](const WorkloadReport& r) {
      const bool whole = r.value.ends_with("Z\"}"), has_id = r.value.find("\"id\":") != std::string::npos;
      return !r.key || r.key->ends_with("x") || (whole && !has_id);
    });
    std::ofstream(base + ".toml") << toml(rules);
    std::ofstream lines(base + ".jsonl");
    for (WorkloadReport& report : workload.reports) {
      report.timestamp_ms = INT64_MAX / 2;
      lines << report.value << "\n";
    }
    lines.close();
    const auto records = one_partition(workload);
    const Timeline timeline{rules, {}};
    const Scored expected = expect_scores(timeline, 0, records);

    const Json counts = reference("counts", base + ".toml", base + ".jsonl");
    std::map<std::string, uint64_t> reasons;
    for (const auto& [reason, count] : counts.find("byReason")->as_object())
      reasons[reason] = static_cast<uint64_t>(count.as_number());
    const Difference counted = compare_counts(expected, static_cast<uint64_t>(counts.number_or("in", 0)),
                                              static_cast<uint64_t>(counts.number_or("accepted", 0)), reasons);
    EXPECT_FALSE(counted.has_value()) << "seed " << seed << ": " << *counted;
    for (const auto& [what, rows] : {std::pair("closed", &expected.closed), std::pair("scores", &expected.open)}) {
      const Difference difference = compare_open(*rows, reference(what, base + ".toml", base + ".jsonl"));
      EXPECT_FALSE(difference.has_value()) << "seed " << seed << " " << what << ": " << *difference;
      scores += rows->size();
    }
    const Json told = reference("promotions", base + ".toml", base + ".jsonl");
    std::vector<std::string> texts;
    for (Json event : told.as_array()) {
      std::string stopped(event.string_or("reason", ""));
      if (stopped == "rate_limit") stopped = "rate-limit";
      event.set("evidence", Json::object().set("wanted", event.string_or("wanted", "")).set("stoppedBy", stopped));
      texts.push_back(canonical(event));
    }
    const Difference difference = compare_promotions(expect_promotions(timeline, 0, expected.closed),
                                                     std::vector<std::string_view>(texts.begin(), texts.end()));
    EXPECT_FALSE(difference.has_value()) << "seed " << seed << ": " << *difference;
    decisions += texts.size();
  }
  EXPECT_GT(scores, 2000u);
  EXPECT_GT(decisions, 20u);
  std::filesystem::remove(base + ".toml");
  std::filesystem::remove(base + ".jsonl");
}

/// The whole run again with one thing wrong in what the system wrote.
void expect_noticed(const SystemRun& run, const std::string& said, const std::function<void(SystemRun&)>& spoil) {
  SystemRun spoilt = run;
  spoil(spoilt);
  const Difference difference = judge(spoilt);
  ASSERT_TRUE(difference.has_value()) << "unnoticed, where this was expected: " << said;
  EXPECT_NE(difference->find(said), std::string::npos) << *difference;
}

void replace(std::string& text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from << " in " << text;
  text.replace(at, from.size(), to);
}

TEST(SimulationOracle, NamesTheFirstDifference) {
  uint64_t seed = 1;
  SystemRun run;
  do {
    run = run_system(make_workload(seed, 300), seed);
  } while ((run.promotions[0].size() < 2 || run.allocations[0].size() + run.allocations[1].size() < 4 || run.dead[0].size() < 2) &&
           ++seed < 100);
  ASSERT_FALSE(judge(run).has_value());
  const size_t pool = run.allocations[0].empty() ? 1 : 0;
  expect_noticed(run, "the first that is missing: score of", [](SystemRun& r) { r.scores[0].pop_back(); });
  expect_noticed(run, "should be", [](SystemRun& r) { std::swap(r.scores[0][3], r.scores[0][4]); });
  expect_noticed(run, "the first too many", [](SystemRun& r) { r.scores[0].push_back(r.scores[0].back()); });
  expect_noticed(run, "samples should be", [](SystemRun& r) { replace(r.scores[0][0].value, "\"samples\":", "\"samples\":1"); });
  expect_noticed(run, "cannot be read", [](SystemRun& r) { r.scores[0][0].value.pop_back(); });
  expect_noticed(run, "accepted should be", [](SystemRun& r) { ++r.tallies[0].accepted; });
  expect_noticed(run, "dead letters expected", [](SystemRun& r) { r.dead[0].pop_back(); });
  expect_noticed(run, "source should be", [](SystemRun& r) { std::swap(r.dead[0][0], r.dead[0][1]); });
  expect_noticed(run, "the first that is missing", [](SystemRun& r) { r.promotions[0].pop_back(); });
  expect_noticed(run, "the first too many", [](SystemRun& r) { r.promotions[0].push_back(r.promotions[0].back()); });
  expect_noticed(run, "open score of", [](SystemRun& r) { r.open[0].as_array()[0].set("upper", 2.0); });
  expect_noticed(run, "is missing", [&](SystemRun& r) { r.allocations[pool].pop_back(); });
  expect_noticed(run, "too many", [&](SystemRun& r) { r.allocations[pool].push_back(r.allocations[pool].back()); });
  expect_noticed(run, "used should be", [](SystemRun& r) { r.pools.as_array()[0].set("used", 99); });
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
