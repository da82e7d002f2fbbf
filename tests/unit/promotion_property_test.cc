// Promotion against a model that remembers everything and works every decision out from the whole history, over seeded random
// streams of scores, rules and bad records, with commits, restarts and crashes between any two of them.
#include <gtest/gtest.h>

#include "processors/promotion.h"
#include "tests/unit/decision_driver.h"

namespace assay::processors {
namespace {

/// One step of a stream, as the generator knows it.
struct Step {
  TestRecord record;
  // Exactly one of these two tells what it is; neither: a record that must be set aside.
  std::optional<Rules> rules;
  struct Window {
    std::string agent, window;
    int64_t end = 0;  // hours since the epoch
    std::optional<double> score, lower, confidence;
    int64_t samples = 0;
  };
  std::optional<Window> window;
};

Json or_null(const std::optional<double>& value) { return value ? Json(*value) : Json(); }

std::vector<Step> random_stream(uint64_t seed, int length) {
  Dice dice(seed);
  std::vector<Step> steps;
  uint64_t next_id = 0;
  Rules rules;
  rules.allocation.pools = {Pool{"gpus-us-east", "gpu", 10, {}}, Pool{"cpu-highmem", "cpu", 64, {}}};
  auto publish = [&](ConfigKind kind) { steps.push_back({config_record(rules, kind, next_id++), rules, {}}); };
  rules.promotion.cooldown_ms = dice.pick({6, 24, 30}) * kHourMs;
  publish(ConfigKind::kPromotion);
  publish(ConfigKind::kAllocation);

  struct Fleet {
    int64_t end = 1000;
    int mood = 0;  // 0 high, 1 low, 2 anything
  };
  std::map<std::string, Fleet> fleet;
  for (const char* name : {"a", "a/b", "agent-\xC3\xA9"}) fleet[name].mood = static_cast<int>(dice.below(3));
  auto emit = [&](const Step::Window& w, bool broken) {
    Json body = Json::object()
                    .set("agentId", w.agent)
                    .set("divisionId", "d")
                    .set("window", w.window)
                    .set("windowEnd", hour(static_cast<double>(w.end)));
    body.set("score", or_null(w.score))
        .set("lower", or_null(w.lower))
        .set("confidence", or_null(w.confidence))
        .set("samples", w.samples);
    Step step{{Topic::kScores, w.agent, canonical(body), test_id(next_id++)}, {}, w};
    if (broken) {
      step.window.reset();
      if (dice.chance(50))
        step.record.key = "another";
      else
        step.record.value = step.record.value->substr(0, step.record.value->size() / 2);
    }
    steps.push_back(std::move(step));
  };
  auto score = [&](int mood) -> std::optional<double> {
    int kind = static_cast<int>(dice.below(20));
    if (kind == 0) return std::nullopt;
    if (mood == 2) return static_cast<double>(dice.below(1001)) / 1000;
    if (mood == 0) return kind < 3 ? 0.849999999 : kind < 8 ? 0.85 : 0.95;
    return kind < 3 ? 0.8 : kind < 8 ? 0.799999999 : 0.4;
  };

  while (static_cast<int>(steps.size()) < length) {
    if (dice.chance(3)) {
      switch (dice.below(5)) {
        case 0:
          rules.promotion.enter = dice.pick({0.85, 0.9, 0.85});
          publish(ConfigKind::kPromotion);
          break;
        case 1:
          rules.promotion.min_samples = dice.pick({1, 5, 7});
          publish(ConfigKind::kPromotion);
          break;
        case 2:
          rules.promotion.max_per_week = dice.below(5);
          publish(ConfigKind::kPromotion);
          break;
        case 3:
          rules.policy.deny_pools.clear();
          if (dice.chance(30)) rules.policy.deny_pools = {dice.pick({"gpus-*", "cpu-*"})};
          rules.policy.min_confidence = dice.pick({0.0, 0.0, 0.9});
          rules.policy.max_delta = dice.pick({5.0, 5.0, 0.5});
          publish(ConfigKind::kPolicy);
          break;
        default:
          rules.allocation.grant.pool = dice.pick({"gpus-us-east", "cpu-highmem"});
          rules.allocation.grant.cpu = 3;
          publish(ConfigKind::kAllocation);
      }
      continue;
    }
    auto member = fleet.begin();
    std::advance(member, dice.below(static_cast<int64_t>(fleet.size())));
    auto& [agent, f] = *member;
    if (dice.chance(8)) f.mood = static_cast<int>(dice.below(3));
    f.end += dice.chance(92) ? 1 : dice.chance(90) ? 2 : 1 + dice.below(200);
    Step::Window w{agent, "1h", f.end, score(f.mood), std::nullopt, std::nullopt, dice.chance(90) ? 10 : dice.below(8)};
    w.confidence = dice.chance(95) ? std::optional(dice.pick({0.89, 0.9, 0.97})) : std::nullopt;
    if (dice.chance(20)) emit({agent, "7d", f.end, 0.9, 0.9, 0.9, 100}, dice.chance(5));
    if (dice.chance(93)) {
      Step::Window day = w;
      day.window = "24h";
      day.lower = dice.chance(90) ? std::optional(dice.pick({0.85, 0.9, 0.849999999, 0.95})) : std::nullopt;
      emit(day, dice.chance(2));
      if (dice.chance(2)) emit(day, false);  // again
    }
    emit(w, dice.chance(2));
    if (dice.chance(2)) emit(w, false);
    if (dice.chance(2)) {
      w.end -= 1 + dice.below(3);
      emit(w, false);  // too late
    }
  }
  return steps;
}

/// What the model says about the last step of a history.
struct Verdict1h {
  bool fired = false;
  std::string wanted, stopped_by;  // stopped_by empty: applied
  bool told = false;
};

/// The model: it keeps the whole history, and each question is answered by looking through all of it.
class Model {
 public:
  void add(const Step& step) {
    steps_.push_back(step);
    verdicts_.push_back({});
    const size_t now = steps_.size() - 1;
    if (!step.window || step.window->window != "1h" || !counts(now)) return;
    verdicts_[now] = judge(now);
  }
  const Verdict1h& last() const { return verdicts_.back(); }
  bool counted_last() const { return steps_.back().window && counts(steps_.size() - 1); }

 private:
  /// Whether the window is the newest of its kind so far; 7d windows always are.
  bool counts(size_t at) const {
    const auto& w = *steps_[at].window;
    if (w.window == "7d") return true;
    for (size_t i = 0; i < at; ++i)
      if (const auto& o = steps_[i].window; o && o->agent == w.agent && o->window == w.window && o->end >= w.end) return false;
    return true;
  }
  const Step::Window* find(size_t before, const std::string& agent, const std::string& window, int64_t end) const {
    for (size_t i = 0; i <= before; ++i)
      if (const auto& o = steps_[i].window; o && o->agent == agent && o->window == window && o->end == end && counts(i)) return &*o;
    return nullptr;
  }
  Rules rules(size_t at) const {
    for (size_t i = at;; --i)
      if (steps_[i].rules) return *steps_[i].rules;
  }
  std::vector<std::pair<int64_t, std::string>> applied(size_t before, const std::string& agent) const {
    std::vector<std::pair<int64_t, std::string>> found;
    for (size_t i = 0; i < before; ++i)
      if (verdicts_[i].fired && verdicts_[i].stopped_by.empty() && steps_[i].window->agent == agent)
        found.emplace_back(steps_[i].window->end, verdicts_[i].wanted);
    return found;
  }

  Verdict1h judge(size_t at) const {
    const auto& w = *steps_[at].window;
    const Rules r = rules(at);
    const auto done = applied(at, w.agent);
    const bool promoted = !done.empty() && done.back().second == "promote";
    int high = 0, low = 0;
    for (int64_t end = w.end - 2; end <= w.end; ++end) {
      const auto* h = find(at, w.agent, "1h", end);
      high += h && h->score && *h->score >= r.promotion.enter && h->samples >= r.promotion.min_samples;
      low += h && h->score && *h->score < r.promotion.leave;
    }
    const auto* day = find(at, w.agent, "24h", w.end);
    const bool sure = day && day->lower && *day->lower >= r.promotion.enter;

    Verdict1h v;
    v.fired = promoted ? low == 3 : high == 3 && sure;
    if (!v.fired) return v;
    v.wanted = promoted ? "demote" : "promote";
    const bool cpu = r.allocation.grant.pool == "cpu-highmem";
    const bool denied_pool = !r.policy.deny_pools.empty() && r.policy.deny_pools[0] == (cpu ? "cpu-*" : "gpus-*");
    const int64_t units = cpu ? r.allocation.grant.cpu : r.allocation.grant.gpu;
    int64_t in_week = 0;
    for (const auto& [end, what] : done) in_week += end > w.end - 168;
    if (!promoted && denied_pool)
      v.stopped_by = "sentinel-deny-pool";
    else if (!promoted && static_cast<double>(units) > r.policy.max_delta)
      v.stopped_by = "sentinel-max-delta";
    else if (!promoted && (!w.confidence || *w.confidence < r.policy.min_confidence))
      v.stopped_by = "sentinel-min-confidence";
    else if (!done.empty() && (w.end - done.back().first) * kHourMs < r.promotion.cooldown_ms)
      v.stopped_by = "cooldown";
    else if (in_week >= r.promotion.max_per_week)
      v.stopped_by = "rate-limit";
    v.told = true;
    if (!v.stopped_by.empty())
      for (size_t i = at; i-- > 0;) {
        const auto& o = steps_[i].window;
        if (!o || o->agent != w.agent || o->window != "1h" || !counts(i)) continue;
        // Told already when the hour before it ended the same way.
        if (verdicts_[i].fired && verdicts_[i].wanted == v.wanted && verdicts_[i].stopped_by == v.stopped_by) v.told = false;
        break;
      }
    return v;
  }

  std::vector<Step> steps_;
  std::vector<Verdict1h> verdicts_;
};

struct Seen {
  int promotions = 0, demotions = 0, records_dead = 0, filtered = 0;
  std::map<std::string, int> holds;
};

void check(const Step& step, const Model& model, const Outputs& outputs, Seen& seen) {
  ASSERT_EQ(outputs.dead_letters.size(), step.rules || step.window ? 0u : 1u);
  seen.records_dead += static_cast<int>(outputs.dead_letters.size());
  if (step.window) {
    ASSERT_EQ(outputs.tally.accepted, model.counted_last() ? 1u : 0u);
  }
  if (step.window && !model.counted_last()) ++seen.filtered;
  const Verdict1h& v = model.last();
  ASSERT_EQ(outputs.records.size(), v.told ? 3u : 0u);
  if (!v.told) return;
  Json event = parsed(outputs.records[0].value);
  const bool applied = v.stopped_by.empty();
  EXPECT_EQ(event.string_or("action", ""), applied ? v.wanted : "hold");
  EXPECT_EQ(event.string_or("status", ""), applied ? "applied" : "rejected");
  EXPECT_EQ(event.string_or("entityId", ""), step.window->agent);
  EXPECT_EQ(event.string_or("ts", ""), hour(static_cast<double>(step.window->end)));
  EXPECT_EQ(*event.find("score"), or_null(step.window->score));
  EXPECT_EQ(*event.find("confidence"), or_null(step.window->confidence));
  EXPECT_EQ(event.find("evidence")->find("scores")->as_array().size(), 3u);
  EXPECT_EQ(event.find("evidence")->string_or("wanted", ""), applied ? "" : v.wanted);
  EXPECT_EQ(event.find("evidence")->string_or("stoppedBy", ""), v.stopped_by);
  EXPECT_EQ(parsed(outputs.records[1].value).string_or("eventType", ""), "policy.decision");
  EXPECT_EQ(parsed(outputs.records[2].value).string_or("eventType", ""), applied ? "promotion.applied" : "promotion.hold");
  if (!applied)
    ++seen.holds[v.stopped_by];
  else
    ++(v.wanted == "promote" ? seen.promotions : seen.demotions);
}

TEST(promotion_property, agrees_with_the_whole_history_whatever_is_committed_when) {
  Seen seen;
  for (uint64_t seed = 1; seed <= 100; ++seed) {
    SCOPED_TRACE("seed " + std::to_string(seed));
    Model model;
    Driver<Promotion> whole, each, broken;  // one commit at the end; one each; any, with restarts and crashes
    Dice dice(seed + 5000);
    for (const Step& step : random_stream(seed, 500)) {
      model.add(step);
      Outputs outputs = whole.feed(step.record);
      check(step, model, outputs, seen);
      if (::testing::Test::HasFailure()) return;
      each.feed(step.record);
      each.commit();
      broken.feed(step.record);
      if (dice.chance(10)) broken.commit();
      if (dice.chance(5)) broken.restart();
      if (dice.chance(5)) broken.crash();
    }
    EXPECT_EQ(each.all(), whole.all());
    EXPECT_EQ(broken.all(), whole.all());
    whole.commit();
    broken.commit();
    EXPECT_EQ(each.digest(), whole.digest());
    EXPECT_EQ(broken.digest(), whole.digest());
    if (::testing::Test::HasFailure()) return;
  }
  // The streams reach every branch often; otherwise the agreement above would say little.
  EXPECT_GE(seen.promotions, 100);
  EXPECT_GE(seen.demotions, 50);
  EXPECT_GE(seen.records_dead, 50);
  EXPECT_GE(seen.filtered, 50);
  for (const char* reason : {"cooldown", "rate-limit", "sentinel-deny-pool", "sentinel-max-delta", "sentinel-min-confidence"})
    EXPECT_GE(seen.holds[reason], 10) << reason;
}

}  // namespace
}  // namespace assay::processors
