#include "replay/what_if_use.h"

#include <algorithm>
#include <cmath>
#include <set>

#include "processors/intake.h"
#include "processors/policy.h"
#include "schemas/time.h"

namespace assay::replay {
namespace {

constexpr std::array<std::string_view, 2> kSides = {"present", "other"};

/// A thousandth is enough for hours and money, and nobody wants to read more.
Json round3(double value) { return Json(std::round(value * 1000) / 1000); }

}  // namespace

UseOfPools::UseOfPools(const std::array<std::vector<Decision>, 2>& decisions,
                       const std::array<std::vector<Decision>, 2>& allocations, const std::array<const Rules*, 2>& rules,
                       const WhatIfOptions& options)
    : decisions_(decisions), rules_(rules), options_(options) {
  for (const auto& side : decisions)
    for (const Decision& d : side) end_ms_ = std::max(end_ms_, d.ts_ms);
  for (size_t s = 0; s < 2; ++s) {
    for (const schemas::Pool& pool : rules[s]->allocation.pools) pools_[s][pool.name].unit = pool.unit;
    fold(s, allocations[s]);
  }
}

/// Of [from, to), what lies within the time that is asked for.
double UseOfPools::hours(int64_t from, int64_t to) const {
  from = std::max(from, options_.since_ms.value_or(from));
  to = std::min(to, options_.until_ms.value_or(to));
  return to <= from ? 0 : static_cast<double>(to - from) / static_cast<double>(kHourMs);
}

void UseOfPools::fold(size_t side, const std::vector<Decision>& allocations) {
  int64_t newest = 0;
  struct Held {
    std::string pool, division;
    int64_t amount = 0, since_ms = 0;
    bool waits = false;
  };
  std::map<std::string, Held, std::less<>> held;  // by allocation
  auto let_go = [&](const Held& h, int64_t at) {
    Pool& pool = pools_[side][h.pool];
    const double time = hours(h.since_ms, at);
    if (h.waits) {
      pool.wait_hours += time;
      return;
    }
    pool.unit_hours += time * static_cast<double>(h.amount);
    Division& division = pool.divisions[h.division];
    division.unit_hours += time * static_cast<double>(h.amount);
    division.held -= h.amount;
    pool.used -= h.amount;
    pool.use.emplace_back(newest, pool.used);
  };
  for (const Decision& d : allocations) {
    newest = std::max(newest, d.ts_ms);
    if (d.kind == "reservation") continue;
    const std::string id(d.event.string_or("allocationId", ""));
    if (auto before = held.find(id); before != held.end()) {
      let_go(before->second, d.ts_ms);
      held.erase(before);
    }
    if (d.kind != "grant" && d.kind != "wait") continue;
    const std::string name(d.event.string_or("pool", ""));
    Pool& pool = pools_[side][name];
    Grant grant;
    grant.cpu = processors::integer_of(d.event, "cpu");
    grant.gpu = processors::integer_of(d.event, "gpu");
    grant.memory_mb = processors::integer_of(d.event, "memoryMB");
    const Held h{name, d.division, processors::grant_amount(grant, pool.unit).value_or(0), d.ts_ms, d.kind == "wait"};
    held.emplace(id, h);
    if (h.waits) {
      if (hours(d.ts_ms, d.ts_ms + 1) > 0) ++pool.waits;
      continue;
    }
    pool.used += h.amount;
    pool.peak = std::max(pool.peak, pool.used);
    pool.use.emplace_back(newest, pool.used);
    Division& division = pool.divisions[d.division];
    division.held += h.amount;
    division.peak = std::max(division.peak, division.held);
  }
  for (const auto& [id, h] : held) {
    let_go(h, end_ms_);
    if (!h.waits) pools_[side][h.pool].use.pop_back();  // nobody let go: the records end
  }
}

Json UseOfPools::pools() const {
  std::set<std::string> names;
  for (const Pools& side : pools_)
    for (const auto& [name, pool] : side) names.insert(name);
  Json out = Json::array();
  for (const std::string& name : names) {
    Json row = Json::object().set("pool", name);
    for (size_t s = 0; s < 2; ++s) {
      const schemas::Pool* rule = processors::find_pool(rules_[s]->allocation, name);
      const auto found = pools_[s].find(name);
      const Pool pool = found == pools_[s].end() ? Pool() : found->second;
      if (row.find("unit") == nullptr || row.string_or("unit", "").empty()) row.set("unit", pool.unit);
      std::set<std::string> divisions;
      for (const auto& [division, use] : pool.divisions) divisions.insert(division);
      if (rule != nullptr)
        for (const auto& [division, quota] : rule->quotas) divisions.insert(division);
      Json by_division = Json::object();
      for (const std::string& division : divisions) {
        const auto use = pool.divisions.find(division);
        const Division d = use == pool.divisions.end() ? Division() : use->second;
        Json one = Json::object();
        const bool bounded = rule != nullptr && rule->quotas.contains(division);
        one.set("quota", bounded ? Json(rule->quotas.at(division)) : Json());
        by_division.set(division, one.set("unitHours", round3(d.unit_hours)).set("peakHeld", d.peak));
      }
      row.set(kSides[s], Json::object()
                             .set("capacity", rule != nullptr ? Json(rule->capacity) : Json())
                             .set("unitHours", round3(pool.unit_hours))
                             .set("peakUsed", pool.peak)
                             .set("waits", pool.waits)
                             .set("waitHours", round3(pool.wait_hours))
                             .set("divisions", std::move(by_division)));
    }
    out.push_back(std::move(row));
  }
  return out;
}

Json UseOfPools::money() const {
  if (options_.price_per_hour.empty()) return Json();
  std::array<double, 2> total{};
  std::map<std::string, std::array<double, 2>> by_division;
  for (size_t s = 0; s < 2; ++s)
    for (const auto& [name, pool] : pools_[s]) {
      const auto price = options_.price_per_hour.find(pool.unit);
      if (price == options_.price_per_hour.end()) continue;
      total[s] += pool.unit_hours * price->second;
      for (const auto& [division, use] : pool.divisions) by_division[division][s] += use.unit_hours * price->second;
    }
  auto row = [](const std::array<double, 2>& sums) {
    return Json::object()
        .set("present", round3(sums[0]))
        .set("other", round3(sums[1]))
        .set("difference", round3(sums[1] - sums[0]));
  };
  Json divisions = Json::object();
  for (const auto& [division, sums] : by_division) divisions.set(division, row(sums));
  return row(total).set("byDivision", std::move(divisions));
}

Json UseOfPools::series() const {
  std::map<std::string, std::array<int64_t, 2>> days;
  Json promoted = Json::object(), pools = Json::array();
  for (size_t s = 0; s < 2; ++s) {
    int64_t count = 0;
    Json steps = Json::array();
    for (const Decision& d : decisions_[s]) {
      ++days[format_rfc3339_ms(d.ts_ms).substr(0, 10)][s];
      if (d.kind != "promotion" && d.kind != "demotion") continue;
      count += d.kind == "promotion" ? 1 : -1;
      steps.push_back(Json(Json::Array{Json(d.ts_ms), Json(count)}));
    }
    promoted.set(kSides[s], std::move(steps));
  }
  Json decisions = Json::array();
  for (const auto& [day, counts] : days)
    decisions.push_back(Json::object().set("day", day).set("present", counts[0]).set("other", counts[1]));
  std::set<std::string> names;
  for (const Pools& side : pools_)
    for (const auto& [name, pool] : side)
      if (!pool.use.empty()) names.insert(name);
  for (const std::string& name : names) {
    Json row = Json::object().set("pool", name);
    for (size_t s = 0; s < 2; ++s) {
      Json steps = Json::array();
      if (auto found = pools_[s].find(name); found != pools_[s].end())
        for (const auto& [ts, used] : found->second.use) steps.push_back(Json(Json::Array{Json(ts), Json(used)}));
      const schemas::Pool* rule = processors::find_pool(rules_[s]->allocation, name);
      row.set(kSides[s],
              Json::object().set("use", std::move(steps)).set("capacity", rule != nullptr ? Json(rule->capacity) : Json()));
    }
    pools.push_back(std::move(row));
  }
  return Json::object()
      .set("decisions", std::move(decisions))
      .set("promoted", std::move(promoted))
      .set("pools", std::move(pools))
      .set("end", end_ms_);
}

}  // namespace assay::replay
