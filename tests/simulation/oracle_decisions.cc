// What scores decide and what decisions are granted, each from the whole history: no rows, no queues, no running totals.
#include <algorithm>
#include <set>

#include "tests/simulation/oracle_parts.h"

namespace assay::simulation {
namespace {

std::optional<int64_t> amount_of(const Grant& grant, std::string_view unit) {
  if (unit == "gpu") return grant.gpu;
  if (unit == "cpu") return grant.cpu;
  if (unit == "memoryMB") return grant.memory_mb;
  return std::nullopt;
}

const Pool* pool_of(const Rules& rules, std::string_view name) {
  for (const Pool& pool : rules.pools)
    if (pool.name == name) return &pool;
  return nullptr;
}

/// The policy that stops a grant, or nothing. What cannot be judged is denied; to deny outweighs to set aside.
std::string_view gate(const Rules& rules, const Grant& grant, std::optional<double> confidence) {
  for (const std::string& pattern : rules.deny_pools)
    if (glob(pattern, grant.pool)) return "sentinel-deny-pool";
  const Pool* pool = pool_of(rules, grant.pool);
  const auto amount = pool == nullptr ? std::nullopt : amount_of(grant, pool->unit);
  if (!amount || *amount < 0 || static_cast<double>(*amount) > rules.max_delta) return "sentinel-max-delta";
  if (!confidence || *confidence < rules.min_confidence) return "sentinel-min-confidence";
  return {};
}

// -------------------------------------------------------------------------------------------------------------- promotions

struct Entity {
  std::map<int64_t, const Score*> hours, days;  // closed 1h and 24h scores by their end
  std::vector<int64_t> applied;
  bool promoted = false;
  std::pair<std::string, std::string> told;  // the hold that was said last
};

void decide(const Score& now, const Rules& rules, Entity& entity, std::vector<Promotion>& out) {
  const int64_t end = now.end_ms;
  auto all_three = [&](auto holds) {
    for (int64_t back = 0; back < 3; ++back) {
      const auto hour = entity.hours.find(end - back * kHour);
      if (hour == entity.hours.end() || !hour->second->score || !holds(*hour->second)) return false;
    }
    return true;
  };
  bool fires;
  if (entity.promoted) {
    fires = all_three([&](const Score& s) { return *s.score < rules.leave; });
  } else {
    const auto day = entity.days.find(end);
    fires = day != entity.days.end() && day->second->lower && *day->second->lower >= rules.enter && all_three([&](const Score& s) {
              return static_cast<int64_t>(s.samples) >= rules.min_samples && *s.score >= rules.enter;
            });
  }
  if (!fires) {
    entity.told = {};
    return;
  }
  const std::string wanted = entity.promoted ? "demote" : "promote";
  std::string stopped_by;
  if (!entity.promoted) stopped_by = gate(rules, rules.grant, now.confidence);
  if (stopped_by.empty() && !entity.applied.empty() && end - entity.applied.back() < rules.cooldown_ms) stopped_by = "cooldown";
  const auto this_week =
      std::count_if(entity.applied.begin(), entity.applied.end(), [&](int64_t e) { return e > end - 7 * kDay && e <= end; });
  if (stopped_by.empty() && this_week >= rules.max_per_week) stopped_by = "rate-limit";

  Promotion event{now.agent, now.division, wanted, "applied", now.score, now.confidence, end, wanted, stopped_by};
  if (stopped_by.empty()) {
    entity.promoted = !entity.promoted;
    entity.applied.push_back(end);
    entity.told = {};
  } else {
    if (entity.told == std::pair(wanted, stopped_by)) return;
    entity.told = {wanted, stopped_by};
    event.action = "hold";
    event.status = "rejected";
  }
  out.push_back(std::move(event));
}

// ------------------------------------------------------------------------------------------------------------- allocations

struct Request {
  const PromotionRecord* promotion = nullptr;
  Grant grant;
  std::string state;  // of its last event; "asked" before the first
};

class Ledger {
 public:
  explicit Ledger(const Rules& rules) : rules_(rules) {}

  void change(const RuleChange& change) {
    apply(change, rules_);
    if (change.section != Section::kAllocation) return;
    cause_.clear();
    ts_.reset();
    std::set<std::string> pools;
    for (const Request& request : requests_) pools.insert(request.grant.pool);
    for (const std::string& pool : pools) {
      for (size_t waiting : line(pool))
        if (hopeless(requests_[waiting])) tell(waiting, "rejected");
      serve(pool, {});
    }
  }

  void fold(const PromotionRecord& record) {
    const Promotion& event = record.event;
    if (event.status != "applied" || event.action == "hold" || !seen_.insert(record.id).second) return;
    cause_ = record.id;
    ts_ = event.ts_ms;
    if (event.action == "promote") {
      requests_.push_back({&record, rules_.grant, "asked"});
      const size_t asked = requests_.size() - 1;
      if (!gate(rules_, rules_.grant, event.confidence).empty() || hopeless(requests_[asked])) return tell(asked, "rejected");
      serve(rules_.grant.pool, asked);
      if (requests_[asked].state == "asked") tell(asked, "gated");
      return;
    }
    std::set<std::string> freed;
    for (size_t i = 0; i < requests_.size(); ++i) {
      const Request& request = requests_[i];
      if (request.promotion->event.entity != event.entity || (request.state != "gated" && request.state != "applied")) continue;
      freed.insert(request.grant.pool);
      tell(i, "released");
    }
    for (const std::string& pool : freed) serve(pool, {});
  }

  Allocated finish() {
    std::map<std::string, PoolFigures> figures;
    for (const Pool& pool : rules_.pools) {
      PoolFigures& f = figures[pool.name];
      f.unit = pool.unit;
      f.capacity = pool.capacity;
      for (const auto& [division, quota] : pool.quotas) f.quotas[division] = {quota, 0};
    }
    for (const Request& request : requests_) {
      if (request.state == "applied" || request.state == "gated") figures.try_emplace(request.grant.pool);
    }
    for (auto& [name, f] : figures) {
      f.pool = name;
      if (f.unit.empty()) f.unit = unit_of(name);
      f.used = held(name, f.unit, nullptr);
      f.capacity = std::max(f.capacity, f.used);  // a smaller pool takes nothing away
      for (auto& [division, quota] : f.quotas) {
        quota.used = held(name, f.unit, &division);
        quota.quota = std::max(quota.quota, quota.used);
      }
      out_.pools.push_back(f);
    }
    return std::move(out_);
  }

 private:
  void tell(size_t number, std::string_view state) {
    Request& request = requests_[number];
    const Promotion& asked = request.promotion->event;
    request.state = state;
    out_.events.push_back({number, asked.entity, asked.division, request.grant.pool, request.grant.cpu, request.grant.gpu,
                           request.grant.memory_mb, request.state, cause_, ts_.value_or(asked.ts_ms)});
  }

  int64_t held(const std::string& pool, const std::string& unit, const std::string* division) const {
    int64_t sum = 0;
    for (const Request& r : requests_)
      if (r.state == "applied" && r.grant.pool == pool && (division == nullptr || r.promotion->event.division == *division))
        sum += amount_of(r.grant, unit).value_or(0);
    return sum;
  }

  std::string unit_of(const std::string& pool) {
    if (const Pool* p = pool_of(rules_, pool)) last_unit_[pool] = p->unit;
    return last_unit_[pool];
  }

  /// Whether it cannot be served under these rules however much is given back.
  bool hopeless(const Request& request) {
    const Pool* pool = pool_of(rules_, request.grant.pool);
    const auto amount = pool == nullptr ? std::nullopt : amount_of(request.grant, pool->unit);
    if (!amount || *amount > pool->capacity) return true;
    const auto quota = pool->quotas.find(request.promotion->event.division);
    return quota != pool->quotas.end() && *amount > quota->second;
  }

  /// Who waits for the pool: higher priority first, then in folding order.
  std::vector<size_t> line(const std::string& pool) const {
    std::vector<size_t> waiting;
    for (size_t i = 0; i < requests_.size(); ++i)
      if ((requests_[i].state == "gated" || requests_[i].state == "asked") && requests_[i].grant.pool == pool) waiting.push_back(i);
    std::stable_sort(waiting.begin(), waiting.end(),
                     [&](size_t a, size_t b) { return requests_[a].grant.priority > requests_[b].grant.priority; });
    return waiting;
  }

  /// Serves the first in line whose division has room, again and again, until the pool has none for it. A division at its quota
  /// stands aside with its first request and all behind it.
  void serve(const std::string& name, std::optional<size_t> just_asked) {
    unit_of(name);
    const Pool* pool = pool_of(rules_, name);
    if (pool == nullptr) return;
    for (bool again = true; again;) {
      again = false;
      std::set<std::string> aside;
      for (size_t number : line(name)) {
        const Request& request = requests_[number];
        const std::string& division = request.promotion->event.division;
        const int64_t amount = amount_of(request.grant, pool->unit).value_or(0);
        const auto quota = pool->quotas.find(division);
        if (aside.contains(division)) continue;
        if (quota != pool->quotas.end() && held(name, pool->unit, &division) + amount > quota->second) {
          aside.insert(division);
          continue;
        }
        if (held(name, pool->unit, nullptr) + amount > pool->capacity) return;
        if (number != just_asked && !gate(rules_, request.grant, request.promotion->event.confidence).empty()) {
          tell(number, "rejected");
        } else {
          tell(number, "reserved");
          tell(number, "applied");
        }
        again = true;
        break;
      }
    }
  }

  Rules rules_;
  std::vector<Request> requests_;
  std::set<std::string> seen_;
  std::map<std::string, std::string> last_unit_;
  std::string cause_;
  std::optional<int64_t> ts_;
  Allocated out_;
};

}  // namespace

std::vector<Promotion> expect_promotions(const Timeline& timeline, int32_t partition, std::span<const Score> closed,
                                         std::span<const int64_t> offsets, std::span<const Turn> order) {
  Rules rules = timeline.start;
  std::map<std::string, Entity> entities;
  std::vector<Promotion> out;
  walk(
      timeline.changes, {{partition, closed.size()}}, order,
      [&](int32_t, size_t i) { return i < offsets.size() ? offsets[i] : INT64_MAX; },
      [&](const RuleChange& change) { apply(change, rules); },
      [&](int32_t, size_t i) {
        const Score& score = closed[i];
        Entity& entity = entities[score.agent];
        if (score.window == "24h") entity.days[score.end_ms] = &score;
        if (score.window != "1h") return;
        entity.hours[score.end_ms] = &score;
        decide(score, rules, entity, out);
      });
  return out;
}

Allocated expect_allocations(const Timeline& timeline, std::span<const std::vector<PromotionRecord>> promotions,
                             std::span<const Turn> order) {
  Ledger ledger(timeline.start);
  std::vector<std::pair<int32_t, size_t>> partitions;
  for (size_t p = 0; p < promotions.size(); ++p) partitions.emplace_back(static_cast<int32_t>(p), promotions[p].size());
  auto at = [&](int32_t partition, size_t i) -> const PromotionRecord& { return promotions[static_cast<size_t>(partition)][i]; };
  walk(
      timeline.changes, partitions, order, [&](int32_t p, size_t i) { return at(p, i).offset; },
      [&](const RuleChange& change) { ledger.change(change); }, [&](int32_t p, size_t i) { ledger.fold(at(p, i)); });
  return ledger.finish();
}

}  // namespace assay::simulation
