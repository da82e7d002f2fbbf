// What the system wrote against what the oracle expects: the first difference as one sentence.
#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

#include "schemas/json_parse.h"
#include "schemas/json_scan.h"
#include "schemas/time.h"
#include "tests/simulation/oracle_parts.h"

namespace assay::simulation {
namespace {

using schemas::JsonScanner;
using Kind = JsonScanner::Kind;

std::string text_of(std::string_view text) { return "\"" + std::string(text) + "\""; }
std::string text_of(const std::optional<double>& number) {
  if (!number) return "null";
  std::string out;
  schemas::append_number(*number, out);
  return out;
}
std::string text_of(const Json* member) { return member == nullptr ? "nothing" : canonical(*member); }
std::string time_of(int64_t ms) { return schemas::format_rfc3339_ms(ms); }

std::string differ(const std::string& where, std::string_view field, const std::string& expected, const std::string& actual) {
  return where + ": " + std::string(field) + " should be " + expected + " and is " + actual;
}

/// Compares members of a document one after the other and keeps the first that differs.
class Members {
 public:
  Members(std::string where, const Json& document) : where_(std::move(where)), document_(document) {}

  void text(std::string_view name, std::string_view expected) {
    const Json* member = document_.find(name);
    if (member == nullptr || !member->is_string() || member->as_string() != expected) found(name, text_of(expected), member);
  }
  void time(std::string_view name, int64_t expected) { text(name, time_of(expected)); }
  void number(std::string_view name, const std::optional<double>& expected) {
    const Json* member = document_.find(name);
    if (member == nullptr || (expected ? !member->is_number() || member->as_number() != *expected : !member->is_null()))
      found(name, text_of(expected), member);
  }
  void count(std::string_view name, uint64_t expected) { number(name, static_cast<double>(expected)); }
  const Json* member(std::string_view name) const { return document_.find(name); }
  void found(std::string_view name, const std::string& expected, const Json* actual) {
    if (!first_) first_ = differ(where_, name, expected, text_of(actual));
  }
  const Difference& first() const { return first_; }

 private:
  std::string where_;
  const Json& document_;
  Difference first_;
};

/// One unit of the ninth decimal, where a bound may be either of two.

std::string name_of(const Score& score) {
  return "score of " + score.agent + " in " + score.window + " to " + time_of(score.end_ms);
}

Difference compare_score(const Score& expected, const Json& actual, const std::string& where) {
  Members members(where, actual);
  members.text("agentId", expected.agent);
  members.text("window", expected.window);
  members.time("windowEnd", expected.end_ms);
  members.time("windowStart", expected.start_ms);
  members.text("divisionId", expected.division);
  members.count("samples", expected.samples);
  members.number("score", expected.score);
  members.number("lower", expected.lower);
  members.number("upper", expected.upper);
  members.number("confidence", expected.confidence);
  if (members.first()) return members.first();
  const Json* components = members.member("components");
  if (components == nullptr || !components->is_array() || components->as_array().size() != expected.components.size())
    return differ(where, "components", std::to_string(expected.components.size()) + " of them", text_of(components));
  for (size_t i = 0; i < expected.components.size(); ++i) {
    const Component& c = expected.components[i];
    Members parts(where + ", metric " + c.metric, components->as_array()[i]);
    parts.text("metric", c.metric);
    parts.count("count", c.count);
    parts.number("mean", c.mean);
    parts.number("variance", c.variance);
    parts.number("min", c.min);
    parts.number("max", c.max);
    parts.number("normalized", c.normalized);
    parts.number("weight", c.weight);
    parts.number("contribution", c.contribution);
    if (parts.first()) return parts.first();
  }
  return std::nullopt;
}

/// Whether the text is that of the expected record, read without building a document: what is not told equal here is looked at
/// member by member by `compare_score`.
class QuickLook {
 public:
  bool same(const Score& expected, std::string_view text) {
    scan_.start(text, 8);
    unsigned seen = 0;
    if (scan_.kind() != Kind::kObject) return false;
    for (bool more = scan_.begin_object(); more; more = scan_.next_member()) {
      const std::string_view name = scan_.name().bytes;
      bool equal = true;
      if (name == "agentId")
        equal = text_is(expected.agent, seen, 0);
      else if (name == "window")
        equal = text_is(expected.window, seen, 1);
      else if (name == "windowEnd")
        equal = time_is(expected.end_ms, seen, 2);
      else if (name == "windowStart")
        equal = time_is(expected.start_ms, seen, 3);
      else if (name == "divisionId")
        equal = text_is(expected.division, seen, 4);
      else if (name == "samples")
        equal = number_is(static_cast<double>(expected.samples), seen, 5);
      else if (name == "score")
        equal = number_is(expected.score, seen, 6);
      else if (name == "lower")
        equal = number_is(expected.lower, seen, 7);
      else if (name == "upper")
        equal = number_is(expected.upper, seen, 8);
      else if (name == "confidence")
        equal = number_is(expected.confidence, seen, 9);
      else if (name == "components")
        equal = components_are(expected.components, seen, 10);
      else
        scan_.skip();
      if (!equal) return false;
    }
    return seen == (1u << 11) - 1 && scan_.finish();
  }

 private:
  bool text_is(std::string_view expected, unsigned& seen, int bit) {
    JsonScanner::String text;
    seen |= 1u << bit;
    return scan_.kind() == Kind::kString && scan_.read_string(&text) && text.bytes == expected;
  }
  bool time_is(int64_t expected, unsigned& seen, int bit) {
    if (expected != last_time_[bit & 1] || last_text_[bit & 1].empty()) {
      last_time_[bit & 1] = expected;
      last_text_[bit & 1] = time_of(expected);
    }
    return text_is(last_text_[bit & 1], seen, bit);
  }
  bool number_is(std::optional<double> expected, unsigned& seen, int bit) {
    seen |= 1u << bit;
    if (!expected) return scan_.kind() == Kind::kNull && scan_.read_literal();
    double number = 0;
    return scan_.kind() == Kind::kNumber && scan_.read_number(&number) && number == *expected;
  }
  bool components_are(const std::vector<Component>& expected, unsigned& seen, int bit) {
    seen |= 1u << bit;
    if (scan_.kind() != Kind::kArray) return false;
    size_t i = 0;
    for (bool more = scan_.begin_array(); more; more = scan_.next_element(), ++i) {
      if (i >= expected.size() || scan_.kind() != Kind::kObject) return false;
      const Component& c = expected[i];
      unsigned parts = 0;
      for (bool next = scan_.begin_object(); next; next = scan_.next_member()) {
        const std::string_view name = scan_.name().bytes;
        bool equal = true;
        if (name == "metric")
          equal = text_is(c.metric, parts, 0);
        else if (name == "count")
          equal = number_is(static_cast<double>(c.count), parts, 1);
        else if (name == "mean")
          equal = number_is(c.mean, parts, 2);
        else if (name == "variance")
          equal = number_is(c.variance, parts, 3);
        else if (name == "min")
          equal = number_is(c.min, parts, 4);
        else if (name == "max")
          equal = number_is(c.max, parts, 5);
        else if (name == "normalized")
          equal = number_is(c.normalized, parts, 6);
        else if (name == "weight")
          equal = number_is(c.weight, parts, 7);
        else if (name == "contribution")
          equal = number_is(c.contribution, parts, 8);
        else
          scan_.skip();
        if (!equal) return false;
      }
      if (parts != (1u << 9) - 1) return false;
    }
    return i == expected.size();
  }

  JsonScanner scan_;
  int64_t last_time_[2] = {0, 0};
  std::string last_text_[2];
};

std::string numbered(size_t i, const std::string& what) { return "record " + std::to_string(i + 1) + " (" + what + ")"; }

template <class Expected, class Name>
Difference count_differs(std::span<const Expected> expected, size_t actual, const char* what, const Name& name) {
  if (expected.size() == actual) return std::nullopt;
  std::string text = std::to_string(expected.size()) + " " + what + " expected, " + std::to_string(actual) + " found";
  if (expected.size() > actual) text += "; the first that is missing: " + name(expected[actual]);
  return text;
}

std::string name_of(const Promotion& p) { return p.action + " of " + p.entity + " at " + time_of(p.ts_ms); }

schemas::Result<Json> read_object(std::string_view value) {
  auto document = schemas::parse_json(value);
  if (document && !document->is_object()) return schemas::Error{schemas::Errc::kCorrupt, "no object"};
  return document;
}

}  // namespace

Difference compare_scores(std::span<const Score> expected, std::span<const std::string_view> values) {
  QuickLook quick;
  for (size_t i = 0; i < std::min(expected.size(), values.size()); ++i) {
    if (quick.same(expected[i], values[i])) continue;
    const std::string where = numbered(i, name_of(expected[i]));
    const auto document = read_object(values[i]);
    if (!document) return where + ": cannot be read: " + document.error().message;
    if (auto difference = compare_score(expected[i], *document, where)) return difference;
  }
  if (values.size() > expected.size())
    return std::to_string(expected.size()) + " scores expected, " + std::to_string(values.size()) +
           " found; the first too many: " + std::string(values[expected.size()].substr(0, 300));
  return count_differs(expected, values.size(), "scores", [](const Score& s) { return name_of(s); });
}

Difference compare_open(std::span<const Score> expected, const Json& rows) {
  if (!rows.is_array()) return "the scores are " + canonical(rows) + ", no array";
  for (size_t i = 0; i < std::min(expected.size(), rows.as_array().size()); ++i)
    if (auto difference = compare_score(expected[i], rows.as_array()[i], numbered(i, "open " + name_of(expected[i]))))
      return difference;
  return count_differs(expected, rows.as_array().size(), "open scores", [](const Score& s) { return name_of(s); });
}

Difference compare_promotions(std::span<const Promotion> expected, std::span<const std::string_view> values) {
  for (size_t i = 0; i < std::min(expected.size(), values.size()); ++i) {
    const Promotion& e = expected[i];
    const std::string where = numbered(i, name_of(e));
    const auto document = read_object(values[i]);
    if (!document) return where + ": cannot be read: " + document.error().message;
    Members members(where, *document);
    members.text("entityId", e.entity);
    members.time("ts", e.ts_ms);
    members.text("action", e.action);
    members.text("status", e.status);
    members.text("divisionId", e.division);
    members.number("score", e.score);
    members.number("confidence", e.confidence);
    if (e.action == "hold") {
      const Json* evidence = members.member("evidence");
      if (evidence == nullptr || evidence->string_or("wanted", "") != e.wanted)
        members.found("evidence.wanted", e.wanted, evidence);
      if (evidence == nullptr || evidence->string_or("stoppedBy", "") != e.stopped_by)
        members.found("evidence.stoppedBy", e.stopped_by, evidence);
    }
    if (members.first()) return members.first();
  }
  if (values.size() > expected.size())
    return std::to_string(expected.size()) + " promotions expected, " + std::to_string(values.size()) +
           " found; the first too many: " + std::string(values[expected.size()].substr(0, 300));
  return count_differs(expected, values.size(), "promotions", [](const Promotion& p) { return name_of(p); });
}

Difference compare_dead_letters(const Scored& expected, int32_t partition, std::span<const ReportRecord> records,
                                std::span<const DeadLetterRecord> actual) {
  std::map<int64_t, const ReportRecord*> by_offset;
  for (const ReportRecord& record : records) by_offset[record.offset] = &record;
  for (size_t i = 0; i < std::min(expected.dead_letters.size(), actual.size()); ++i) {
    const DeadLetter& e = expected.dead_letters[i];
    const DeadLetterRecord& a = actual[i];
    const std::string source = "eval.reports.v1/" + std::to_string(partition) + "/" + std::to_string(e.offset);
    const std::string where = "dead letter " + std::to_string(i + 1) + " (" + source + ")";
    if (a.source != source) return differ(where, "source", source, std::string(a.source));
    if (a.reason != e.reason) return differ(where, "reason", std::string(e.reason), std::string(a.reason));
    if (a.key != by_offset[e.offset]->key) return where + ": its key is not that of the report";
    if (a.value != by_offset[e.offset]->value) return where + ": its value is not that of the report";
  }
  return count_differs(std::span(expected.dead_letters), actual.size(), "dead letters",
                       [](const DeadLetter& e) { return std::string(e.reason) + " at offset " + std::to_string(e.offset); });
}

Difference compare_counts(const Scored& expected, uint64_t delivered, uint64_t accepted,
                          const std::map<std::string, uint64_t>& reasons) {
  auto check = [](const std::string& what, uint64_t wanted, uint64_t found) -> Difference {
    if (wanted == found) return std::nullopt;
    return differ("counts", what, std::to_string(wanted), std::to_string(found));
  };
  if (auto difference = check("delivered", expected.delivered, delivered)) return difference;
  if (auto difference = check("accepted", expected.accepted, accepted)) return difference;
  std::set<std::string> names;
  for (const auto& [reason, count] : expected.refused) names.emplace(reason);
  for (const auto& [reason, count] : reasons) names.insert(reason);
  for (const std::string& reason : names) {
    const auto e = expected.refused.find(reason);
    const auto a = reasons.find(reason);
    if (auto difference = check(reason, e == expected.refused.end() ? 0 : e->second, a == reasons.end() ? 0 : a->second))
      return difference;
  }
  return std::nullopt;
}

PromotionRecord read_promotion(int64_t offset, std::string_view value) {
  const Json document = std::move(schemas::parse_json(value)).value();
  PromotionRecord out{offset, std::string(document.string_or("id", "")), {}};
  Promotion& event = out.event;
  event.entity = document.string_or("entityId", "");
  event.division = document.string_or("divisionId", "");
  event.action = document.string_or("action", "");
  event.status = document.string_or("status", "");
  const Json* confidence = document.find("confidence");
  if (confidence != nullptr && confidence->is_number()) event.confidence = confidence->as_number();
  event.ts_ms = schemas::parse_rfc3339_ms(document.string_or("ts", "")).value_or(0);
  return out;
}

Difference compare_allocations(const Allocated& expected, std::span<const std::vector<std::string_view>> partitions) {
  std::map<std::string, std::vector<const Allocation*>> by_pool;
  for (const Allocation& event : expected.events) by_pool[event.pool].push_back(&event);
  std::map<std::string, size_t> next;
  std::map<size_t, std::string> id_of;
  std::map<std::string, size_t> request_of;
  for (const auto& values : partitions)
    for (std::string_view value : values) {
      const auto document = read_object(value);
      if (!document) return "an allocation event cannot be read: " + document.error().message;
      const std::string pool(document->string_or("pool", ""));
      const size_t i = next[pool]++;
      if (i >= by_pool[pool].size())
        return "an allocation event too many for pool " + pool + ": " + std::string(value.substr(0, 300));
      const Allocation& e = *by_pool[pool][i];
      Members members(numbered(i, e.state + " of " + e.entity + " in pool " + pool), *document);
      members.text("entityId", e.entity);
      members.text("state", e.state);
      members.text("divisionId", e.division);
      members.number("cpu", static_cast<double>(e.cpu));
      members.number("gpu", static_cast<double>(e.gpu));
      members.number("memoryMB", static_cast<double>(e.memory_mb));
      members.time("ts", e.ts_ms);
      if (!e.cause.empty()) members.text("cause", e.cause);
      const std::string id(document->string_or("allocationId", ""));
      const std::string& known = id_of.try_emplace(e.request, id).first->second;
      if (known != id || request_of.try_emplace(id, e.request).first->second != e.request)
        members.found("allocationId", text_of(known), members.member("allocationId"));
      if (members.first()) return members.first();
    }
  for (const auto& [pool, events] : by_pool)
    if (next[pool] < events.size()) {
      const Allocation& missing = *events[next[pool]];
      return std::to_string(events.size()) + " allocation events expected in pool " + pool + ", " + std::to_string(next[pool]) +
             " found; the first that is missing: " + missing.state + " of " + missing.entity;
    }
  return std::nullopt;
}

Difference compare_pools(std::span<const PoolFigures> expected, const Json& rows) {
  if (!rows.is_array()) return "the pools are " + canonical(rows) + ", no array";
  for (size_t i = 0; i < std::min(expected.size(), rows.as_array().size()); ++i) {
    const PoolFigures& e = expected[i];
    Members members("pool " + e.pool, rows.as_array()[i]);
    members.text("pool", e.pool);
    members.text("unit", e.unit);
    members.number("capacity", static_cast<double>(e.capacity));
    members.number("used", static_cast<double>(e.used));
    members.number("reserved", static_cast<double>(e.reserved));
    members.number("available", static_cast<double>(e.capacity - e.used - e.reserved));
    if (members.first()) return members.first();
    std::map<std::string, std::pair<int64_t, int64_t>> quotas, found;
    for (const auto& [division, quota] : e.quotas) quotas[division] = {quota.quota, quota.used};
    if (const Json* list = members.member("quotas"); list != nullptr && list->is_array())
      for (const Json& quota : list->as_array())
        found[std::string(quota.string_or("divisionId", ""))] = {static_cast<int64_t>(quota.number_or("quota", -1)),
                                                                 static_cast<int64_t>(quota.number_or("used", -1))};
    for (const auto& [division, quota] : quotas)
      if (found[division] != quota)
        return differ("pool " + e.pool, "quota and use of " + division,
                      std::to_string(quota.first) + " and " + std::to_string(quota.second), text_of(members.member("quotas")));
    if (found.size() != quotas.size())
      return differ("pool " + e.pool, "quotas", std::to_string(quotas.size()) + " of them", text_of(members.member("quotas")));
  }
  return count_differs(expected, rows.as_array().size(), "pools", [](const PoolFigures& f) { return f.pool; });
}

Difference check_allocations(const Timeline& timeline, std::span<const std::vector<PromotionRecord>> promotions,
                             std::span<const std::vector<std::string_view>> partitions) {
  // The greatest that the rules ever allowed, by pool; a pool that changed its unit is not counted here.
  struct Limit {
    std::string unit;
    bool one_unit = true;
    int64_t capacity = 0;
    std::map<std::string, std::optional<int64_t>> quotas;  // nothing: some rules had no quota
  };
  std::map<std::string, Limit> limits;
  std::vector<const std::vector<Pool>*> versions = {&timeline.start.pools};
  for (const RuleChange& change : timeline.changes)
    if (change.section == Section::kAllocation) versions.push_back(&change.rules.pools);
  for (const auto* pools : versions)
    for (const Pool& pool : *pools) {
      Limit& limit = limits[pool.name];
      if (!limit.unit.empty() && limit.unit != pool.unit) limit.one_unit = false;
      limit.unit = pool.unit;
      limit.capacity = std::max(limit.capacity, pool.capacity);
      for (const auto& [division, quota] : pool.quotas) {
        auto [it, first] = limit.quotas.try_emplace(division, quota);
        if (!first && it->second) it->second = std::max(*it->second, quota);
      }
    }
  for (const auto* pools : versions)
    for (const Pool& pool : *pools)
      for (auto& [division, quota] : limits[pool.name].quotas)
        if (!pool.quotas.contains(division)) quota.reset();

  struct Promoted {
    const PromotionRecord* record;
    std::string allocation;
    bool demoted_later = false;
  };
  std::map<std::string, Promoted> promoted;  // by id
  for (const auto& partition : promotions) {
    std::map<std::string, std::vector<std::string>> of_entity;
    for (const PromotionRecord& record : partition) {
      if (record.event.status != "applied") continue;
      if (record.event.action == "promote") {
        promoted.try_emplace(record.id, Promoted{&record, {}});
        of_entity[record.event.entity].push_back(record.id);
      } else if (record.event.action == "demote") {
        for (const std::string& id : of_entity[record.event.entity]) promoted[id].demoted_later = true;
      }
    }
  }

  struct Chain {
    std::string state;
    std::string promotion;
    int64_t amount = 0;
  };
  std::map<std::string, Chain> chains;  // by allocation id
  std::map<std::string, int64_t> used;
  std::map<std::pair<std::string, std::string>, int64_t> used_of;
  static const std::set<std::string> kSteps = {">rejected",        ">gated",         ">reserved",      "reserved>applied",
                                               "applied>released", "gated>released", "gated>rejected", "gated>reserved"};
  for (const auto& values : partitions)
    for (std::string_view value : values) {
      const auto document = read_object(value);
      if (!document) return "an allocation event cannot be read: " + document.error().message;
      const std::string id(document->string_or("allocationId", "")), state(document->string_or("state", ""));
      const std::string pool(document->string_or("pool", "")), division(document->string_or("divisionId", ""));
      const std::string entity(document->string_or("entityId", ""));
      Chain& chain = chains[id];
      if (!kSteps.contains(chain.state + ">" + state))
        return "allocation " + id + " of " + entity + " steps from \"" + chain.state + "\" to \"" + state + "\"";
      if (chain.state.empty()) {
        chain.promotion = document->string_or("cause", "");
        const auto cause = promoted.find(chain.promotion);
        if (cause == promoted.end()) return "allocation " + id + " of " + entity + " has no applied promotion for its cause";
        if (!cause->second.allocation.empty())
          return "the promotion " + chain.promotion + " of " + entity + " has two allocations: " + cause->second.allocation +
                 " and " + id;
        if (cause->second.record->event.entity != entity) return "allocation " + id + " is not of the entity that was promoted";
        cause->second.allocation = id;
      }
      const Limit& limit = limits[pool];
      const bool held_before = chain.state == "reserved" || chain.state == "applied";
      chain.state = state;
      const bool held_now = state == "reserved" || state == "applied";
      const std::string_view unit = limit.unit;
      chain.amount = static_cast<int64_t>(document->number_or(unit, 0));
      if (!limit.one_unit || held_before == held_now) continue;
      const int64_t change = held_now ? chain.amount : -chain.amount;
      used[pool] += change;
      used_of[{pool, division}] += change;
      if (!held_now) continue;
      if (used[pool] > limit.capacity)
        return "pool " + pool + " holds " + std::to_string(used[pool]) + " of " + std::to_string(limit.capacity) +
               " after allocation " + id;
      const auto quota = limit.quotas.find(division);
      if (quota != limit.quotas.end() && quota->second && used_of[{pool, division}] > *quota->second)
        return "division " + division + " holds " + std::to_string(used_of[{pool, division}]) + " of its quota of " +
               std::to_string(*quota->second) + " in pool " + pool + " after allocation " + id;
    }
  for (const auto& [id, p] : promoted) {
    const std::string what = "the promotion " + id + " of " + p.record->event.entity;
    if (p.allocation.empty()) return what + " has no allocation";
    const std::string& state = chains[p.allocation].state;
    if (state == "reserved") return what + " was reserved and never applied";
    if (p.demoted_later && state != "released" && state != "rejected") return what + " was demoted and is still " + state;
    if (!p.demoted_later && state == "released") return what + " was never demoted and is released";
  }
  return std::nullopt;
}

}  // namespace assay::simulation
