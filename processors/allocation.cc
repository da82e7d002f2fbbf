#include "processors/allocation.h"

#include <algorithm>
#include <cstdio>
#include <limits>
#include <set>

#include "processors/intake.h"
#include "schemas/planted.h"
#include "schemas/time.h"

namespace assay::processors {
namespace {

constexpr std::string_view kActor = "service:resource-allocator";
constexpr std::string_view kSequenceRow = "sequence";
constexpr std::string_view kAllocationPrefix = "allocation/";
constexpr std::string_view kEntityPrefix = "entity/";
constexpr std::string_view kPoolPrefix = "pool/";
constexpr std::string_view kWaitingPrefix = "waiting/";
constexpr std::string_view kDemotionPrefix = "demotion/";
constexpr ConfigKind kKinds[] = {ConfigKind::kPolicy, ConfigKind::kAllocation};

std::string row_key(std::string_view prefix, std::string_view id) { return std::string(prefix) + std::string(id); }

std::string hex16(uint64_t value) {
  char text[17];
  std::snprintf(text, sizeof text, "%016llx", static_cast<unsigned long long>(value));
  return text;
}

/// The length keeps pools apart of which one's name begins with the other's, whatever bytes a name has.
std::string waiting_key(std::string_view pool) {
  return row_key(kWaitingPrefix, std::to_string(pool.size()) + ":" + std::string(pool));
}
std::string waiting_key(std::string_view pool, std::string_view division) {
  return waiting_key(pool) + std::string(division) + '\0';
}

}  // namespace

/// An applied promotion or demotion.
struct Allocation::Decided {
  Id id;
  std::string entity_id;
  std::string division_id;
  std::optional<double> confidence;
  std::string ts;
};

struct Allocation::Request {
  std::string id;  // 32 hex
  std::string entity_id;
  std::string division_id;
  Grant grant;
  std::optional<double> confidence;
  std::string ts;  // of its promotion
  int64_t sequence = 0;
  std::string state;  // of the last event
  Json event;         // the last one

  bool before(const Request& other) const {
    return grant.priority != other.grant.priority ? grant.priority > other.grant.priority : sequence < other.sequence;
  }
  std::string queue_key() const {
    // Higher priority first in rising byte order.
    uint64_t inverted = static_cast<uint64_t>(std::numeric_limits<int64_t>::max()) - static_cast<uint64_t>(grant.priority);
    return waiting_key(grant.pool, division_id) + hex16(inverted) + hex16(static_cast<uint64_t>(sequence));
  }

  static Request from_row(std::string_view id, std::string_view text) {
    Json row = parse_row(text);
    const Json& g = *row.find("grant");
    Request request;
    request.id = id;
    request.entity_id = row.string_or("entityId", "");
    request.division_id = row.string_or("divisionId", "");
    request.grant = {std::string(g.string_or("pool", "")), integer_of(g, "cpu"), integer_of(g, "gpu"), integer_of(g, "memoryMB"),
                     integer_of(g, "priority")};
    request.confidence = optional_number(row, "confidence");
    request.ts = row.string_or("ts", "");
    request.sequence = integer_of(row, "sequence");
    request.state = row.string_or("state", "");
    request.event = *row.find("event");
    return request;
  }
};

struct Allocation::PoolUse {
  struct Division {
    int64_t held = 0;     // units, used and reserved
    int64_t grants = 0;   // that hold them: a grant may be worth nothing in the pool's unit of today and something in tomorrow's
    int64_t waiting = 0;  // requests
  };
  std::string unit;
  int64_t used = 0;
  int64_t reserved = 0;
  std::map<std::string, Division> divisions;

  int64_t amount(const Request& request) const { return grant_amount(request.grant, unit).value_or(0); }
  int64_t held(const std::string& division) const {
    auto it = divisions.find(division);
    return it == divisions.end() ? 0 : it->second.held;
  }
  bool over_quota(const Pool& pool, const Request& request) const {
    auto quota = pool.quotas.find(request.division_id);
    return quota != pool.quotas.end() && held(request.division_id) + amount(request) > quota->second;
  }
  bool over_capacity(const Pool& pool, const Request& request) const {
    return used + reserved + (planted(Bug::kPoolOvercommitted) ? 0 : amount(request)) > pool.capacity;
  }

  static PoolUse from_json(const Json& row) {
    PoolUse use{std::string(row.string_or("unit", "")), integer_of(row, "used"), integer_of(row, "reserved"), {}};
    for (const auto& [division, part] : row.find("divisions")->as_object())
      use.divisions[division] = {integer_of(part, "held"), integer_of(part, "grants"), integer_of(part, "waiting")};
    return use;
  }
  void reserve(const Request& request) {
    Division& division = divisions[request.division_id];
    reserved += amount(request);
    division.held += amount(request);
    ++division.grants;
  }
  void apply(const Request& request) {
    reserved -= amount(request);
    used += amount(request);
  }
  void release(const Request& request) {
    Division& division = divisions[request.division_id];
    used -= amount(request);
    division.held -= amount(request);
    --division.grants;
    CHECK(used >= 0 && division.held >= 0 && division.grants >= 0);
  }
};

Allocation::Allocation(Rows& rows) : rows_(rows), rules_(rows, {std::begin(kKinds), std::end(kKinds)}), ids_("allocation") {}

void Allocation::process(const Input& input, Outputs& outputs) {
  ids_.start(input.cause);
  source_ = input.topic;
  if (input.topic == Topic::kConfig) {
    if (rules_.fold(input, outputs) == ConfigKind::kAllocation) pools_changed(outputs);
    return;
  }
  CHECK(input.topic == Topic::kPromotions);
  fold_promotion(input, outputs);
}

void Allocation::fold_promotion(const Input& input, Outputs& outputs) {
  MemberReader read(*input.record);
  Decided decided;
  decided.id = read.record_id("id");
  decided.entity_id = read.id("entityId");
  decided.division_id = read.id("divisionId");
  decided.confidence = read.share("confidence");
  std::string_view action = read.text("action"), status = read.text("status");
  int64_t ts_ms = read.time_ms("ts");
  read.require_key(decided.entity_id);
  if (action != "promote" && action != "demote" && action != "hold")
    read.refuse(Reason::kWrongType, "\"action\" is none of promote, demote, hold");
  if (!read.good()) return dead_letter(input, read.reject(), outputs);
  decided.ts = format_rfc3339_ms(ts_ms);
  if (status != "applied" || action == "hold") return accepted(outputs);  // nothing was decided, or not yet

  if (action == "promote") {
    // One allocation per promotion, however often its event is delivered.
    Id allocation_id = derived_id(decided.id, "allocation-of-promotion", 0);
    if (rows_.get(row_key(kAllocationPrefix, allocation_id.hex()))) return filtered(Reason::kDuplicate, outputs);
    accepted(outputs);
    ask(decided, allocation_id, outputs);
  } else {
    std::string folded = row_key(kDemotionPrefix, decided.id.hex());
    if (rows_.get(folded)) return filtered(Reason::kDuplicate, outputs);
    rows_.put(folded, "{}");
    accepted(outputs);
    give_back(decided, outputs);
  }
}

void Allocation::ask(const Decided& promotion, const Id& allocation_id, Outputs& outputs) {
  Request request{allocation_id.hex(),      promotion.entity_id,  promotion.division_id,
                  rules_->allocation.grant, promotion.confidence, promotion.ts,
                  next_sequence(),          "requested",          nullptr};
  if (!gate_allows(request, promotion.ts, outputs)) return;
  if (auto why = hopeless(request)) return reject(request, *why, promotion.ts, outputs);
  // Even a request that fits stands in line for a moment: whether it may be served now is the queue's rule alone.
  store(request);
  enqueue(request);
  serve(request.grant.pool, promotion.ts, request.id, outputs);
  request = load(request.id);
  if (request.state == "requested") emit(request, "gated", why_it_waits(request), promotion.ts, outputs);
}

void Allocation::give_back(const Decided& demotion, Outputs& outputs) {
  std::set<std::string> pools;
  for (const std::string& id : entity_allocations(demotion.entity_id)) {
    Request request = load(id);
    pools.insert(request.grant.pool);
    if (request.state == "gated") {
      leave_queue(request);
      emit(request, "released", "demoted while it waited", demotion.ts, outputs);
      continue;
    }
    PoolUse use = load_pool(request.grant.pool);
    use.release(request);
    store_pool(request.grant.pool, use);
    emit(request, "released", "demoted", demotion.ts, outputs);
  }
  store_entity(demotion.entity_id, {});
  for (const std::string& pool : pools) serve(pool, demotion.ts, {}, outputs);
}

void Allocation::pools_changed(Outputs& outputs) {
  std::map<std::string, std::string> units;  // of the pools with use or waiting requests
  rows_.scan(kPoolPrefix, [&](std::string_view key, std::string_view value) {
    units.emplace(key.substr(kPoolPrefix.size()), PoolUse::from_json(parse_row(value)).unit);
    return true;
  });
  for (const auto& [name, unit] : units) {
    const Pool* pool = find_pool(rules_->allocation, name);
    if (pool && pool->unit != unit) recount(name, pool->unit);
    reject_hopeless(name, outputs);
    serve(name, {}, {}, outputs);
  }
}

/// A pool that counts in another unit from now on: what is held is held still, only counted anew.
void Allocation::recount(const std::string& pool, const std::string& unit) {
  PoolUse use = load_pool(pool);
  use.unit = unit;
  use.used = use.reserved = 0;
  for (auto& [name, division] : use.divisions) division.held = 0;
  rows_.scan(kAllocationPrefix, [&](std::string_view key, std::string_view row) {
    Request request = Request::from_row(key.substr(kAllocationPrefix.size()), row);
    if (request.grant.pool != pool || request.state != "applied") return true;
    use.used += use.amount(request);
    use.divisions[request.division_id].held += use.amount(request);
    return true;
  });
  store_pool(pool, use);
}

void Allocation::reject_hopeless(const std::string& pool, Outputs& outputs) {
  std::vector<std::string> ids;
  rows_.scan(waiting_key(pool), [&](std::string_view, std::string_view id) {
    ids.emplace_back(id);
    return true;
  });
  std::vector<Request> waiting;
  for (const std::string& id : ids) waiting.push_back(load(id));
  std::sort(waiting.begin(), waiting.end(), [](const Request& a, const Request& b) { return a.before(b); });
  for (Request& request : waiting) {
    auto why = hopeless(request);
    if (!why) continue;
    leave_queue(request);
    reject(request, *why, request.ts, outputs);
  }
}

void Allocation::serve(const std::string& pool_name, std::string_view ts, std::string_view asked, Outputs& outputs) {
  const Pool* pool = find_pool(rules_->allocation, pool_name);
  if (!pool) return;
  while (true) {
    PoolUse use = load_pool(pool_name);
    std::optional<Request> next;
    for (const auto& [division, part] : use.divisions) {
      if (part.waiting == 0) continue;
      std::string head_id;
      rows_.scan(waiting_key(pool_name, division), [&](std::string_view, std::string_view id) {
        head_id = id;
        return false;
      });
      Request head = load(head_id);
      if (!use.over_quota(*pool, head) && (!next || head.before(*next))) next = std::move(head);
    }
    if (!next || use.over_capacity(*pool, *next)) return;

    Request& request = *next;
    const std::string at(ts.empty() ? std::string_view(request.ts) : ts);
    leave_queue(request);
    const bool waited = request.id != asked;
    if (waited && !gate_allows(request, at, outputs)) continue;
    use = load_pool(pool_name);
    const std::string measured = std::to_string(use.amount(request)) + " " + pool->unit + " of pool " + pool_name;
    use.reserve(request);
    CHECK(use.used + use.reserved <= pool->capacity);
    emit(request, "reserved", "reserves " + measured + (waited ? " after a wait" : ""), at, outputs);
    use.apply(request);
    store_pool(pool_name, use);
    emit(request, "applied", "holds " + measured + ", nobody else has to confirm", at, outputs);
  }
}

bool Allocation::gate_allows(Request& request, std::string_view ts, Outputs& outputs) {
  PolicyDecision decision = check_policy(*rules_, {request.grant, request.confidence});
  Json asked =
      Json::object().set("requestId", request.id).set("entityId", request.entity_id).set("divisionId", request.division_id);
  asked.set("action", "allocate").set("policy", decision.to_json());
  Json source = Json::object().set("topic", topic_spec(source_).name).set("id", ids_.cause().hex());
  outputs.records.push_back(
      audit_output(ids_.next(), ids_.cause(), "policy.decision", kActor, ts, std::move(source), std::move(asked)));
  if (decision.verdict == Verdict::kAllow) return true;
  reject(request,
         "policy " + decision.policy_id + " says " + std::string(verdict_name(decision.verdict)) + ": " +
             std::string(decision.explanation()),
         ts, outputs);
  return false;
}

void Allocation::reject(Request& request, std::string reason, std::string_view ts, Outputs& outputs) {
  auto ids = entity_allocations(request.entity_id);
  std::erase(ids, request.id);
  store_entity(request.entity_id, ids);
  emit(request, "rejected", std::move(reason), ts, outputs);
}

void Allocation::emit(Request& request, std::string_view state, std::string reason, std::string_view ts, Outputs& outputs) {
  const Id id = ids_.next();
  Json event = Json::object().set("id", id.hex()).set("allocationId", request.id).set("entityId", request.entity_id);
  event.set("divisionId", request.division_id)
      .set("pool", request.grant.pool)
      .set("cpu", request.grant.cpu)
      .set("gpu", request.grant.gpu);
  event.set("memoryMB", request.grant.memory_mb)
      .set("state", state)
      .set("reason", std::move(reason))
      .set("cause", ids_.cause().hex())
      .set("ts", ts);
  request.state = state;
  request.event = event;
  store(request);
  outputs.records.push_back({Topic::kAllocations, request.grant.pool, canonical(event), id, ids_.cause()});
  Json source = Json::object().set("topic", topic_spec(source_).name).set("id", ids_.cause().hex());
  outputs.records.push_back(
      audit_output(ids_.next(), ids_.cause(), "allocation." + std::string(state), kActor, ts, std::move(source), std::move(event)));
}

/// Why the request cannot be served under these rules however much is given back, or nothing.
std::optional<std::string> Allocation::hopeless(const Request& request) const {
  const Pool* pool = find_pool(rules_->allocation, request.grant.pool);
  if (!pool) return "pool " + request.grant.pool + " does not exist";
  auto amount = grant_amount(request.grant, pool->unit);
  if (!amount) return "pool " + pool->name + " counts in " + pool->unit + ", which a grant does not have";
  const std::string measured = std::to_string(*amount) + " " + pool->unit;
  if (*amount > pool->capacity)
    return measured + " can never fit pool " + pool->name + " with a capacity of " + std::to_string(pool->capacity);
  auto quota = pool->quotas.find(request.division_id);
  if (quota != pool->quotas.end() && *amount > quota->second)
    return measured + " can never fit the quota of " + std::to_string(quota->second) + " that division " + request.division_id +
           " has in pool " + pool->name;
  return std::nullopt;
}

std::string Allocation::why_it_waits(const Request& request) const {
  const Pool* pool = find_pool(rules_->allocation, request.grant.pool);
  const PoolUse use = load_pool(request.grant.pool);
  const std::string asked = std::to_string(use.amount(request)) + " " + use.unit + " asked for";
  if (use.over_quota(*pool, request))
    return "quota: division " + request.division_id + " holds " + std::to_string(use.held(request.division_id)) + " of " +
           std::to_string(pool->quotas.at(request.division_id)) + " " + use.unit + " in pool " + pool->name + ", " + asked;
  if (use.over_capacity(*pool, request))
    return "pool full: " + std::to_string(use.used + use.reserved) + " of " + std::to_string(pool->capacity) + " " + use.unit +
           " of pool " + pool->name + " are in use, " + asked;
  return "pool full: requests that come first wait for pool " + pool->name + ", " + asked;
}

void Allocation::enqueue(const Request& request) {
  rows_.put(request.queue_key(), request.id);
  PoolUse use = load_pool(request.grant.pool);
  ++use.divisions[request.division_id].waiting;
  store_pool(request.grant.pool, use);
  auto ids = entity_allocations(request.entity_id);
  ids.push_back(request.id);
  store_entity(request.entity_id, ids);
}

void Allocation::leave_queue(const Request& request) {
  rows_.erase(request.queue_key());
  PoolUse use = load_pool(request.grant.pool);
  --use.divisions[request.division_id].waiting;
  CHECK(use.divisions[request.division_id].waiting >= 0);
  store_pool(request.grant.pool, use);
}

int64_t Allocation::next_sequence() {
  auto row = rows_.get(kSequenceRow);
  int64_t sequence = row ? std::stoll(*row) : 0;
  rows_.put(kSequenceRow, std::to_string(sequence + 1));
  return sequence;
}

Allocation::Request Allocation::load(std::string_view allocation_id) const {
  auto row = rows_.get(row_key(kAllocationPrefix, allocation_id));
  CHECK(row.has_value());
  return Request::from_row(allocation_id, *row);
}

void Allocation::store(const Request& request) {
  const Grant& g = request.grant;
  Json grant = Json::object()
                   .set("pool", g.pool)
                   .set("cpu", g.cpu)
                   .set("gpu", g.gpu)
                   .set("memoryMB", g.memory_mb)
                   .set("priority", g.priority);
  Json row =
      Json::object().set("entityId", request.entity_id).set("divisionId", request.division_id).set("grant", std::move(grant));
  row.set("confidence", optional_number(request.confidence)).set("ts", request.ts).set("sequence", request.sequence);
  row.set("state", request.state).set("event", request.event);
  rows_.put(row_key(kAllocationPrefix, request.id), canonical(row));
}

Allocation::PoolUse Allocation::load_pool(const std::string& name) const {
  if (auto row = rows_.get(row_key(kPoolPrefix, name))) return PoolUse::from_json(parse_row(*row));
  const Pool* pool = find_pool(rules_->allocation, name);
  PoolUse use;
  if (pool) use.unit = pool->unit;
  return use;
}

void Allocation::store_pool(const std::string& name, const PoolUse& use) {
  Json divisions = Json::object();
  for (const auto& [division, part] : use.divisions)
    if (part.grants != 0 || part.waiting != 0)
      divisions.set(division, Json::object().set("held", part.held).set("grants", part.grants).set("waiting", part.waiting));
  // What is not in use leaves no trace: equal use is equal state, whatever happened before.
  if (divisions.as_object().empty()) return rows_.erase(row_key(kPoolPrefix, name));
  rows_.put(row_key(kPoolPrefix, name), canonical(Json::object()
                                                      .set("unit", use.unit)
                                                      .set("used", use.used)
                                                      .set("reserved", use.reserved)
                                                      .set("divisions", std::move(divisions))));
}

std::vector<std::string> Allocation::entity_allocations(std::string_view entity_id) const {
  std::vector<std::string> ids;
  auto row = rows_.get(row_key(kEntityPrefix, entity_id));
  if (!row) return ids;
  const Json stored = parse_row(*row);
  for (const Json& id : stored.as_array()) ids.push_back(id.as_string());
  return ids;
}

void Allocation::store_entity(std::string_view entity_id, const std::vector<std::string>& allocation_ids) {
  if (allocation_ids.empty()) return rows_.erase(row_key(kEntityPrefix, entity_id));
  Json ids = Json::array();
  for (const std::string& id : allocation_ids) ids.push_back(id);
  rows_.put(row_key(kEntityPrefix, entity_id), canonical(ids));
}

Result<Json> allocations_json(const state::Reader& reader) {
  std::map<int64_t, Json> in_order;
  TRY(scan_json(reader, kAllocationPrefix,
                [&](std::string_view, Json row) { in_order[integer_of(row, "sequence")] = *row.find("event"); }));
  Json events = Json::array();
  for (auto& [sequence, event] : in_order) events.push_back(std::move(event));
  return events;
}

Result<Json> pools_json(const state::Reader& reader) {
  TRY_ASSIGN(Rules rules, FoldedRules::read(reader, kKinds));
  struct Shown {
    Pool pool;
    Json use;
  };
  std::map<std::string, Shown> pools;
  for (const Pool& pool : rules.allocation.pools) pools[pool.name].pool = pool;
  TRY(scan_json(reader, kPoolPrefix, [&](std::string_view name, Json use) {
    auto [it, removed] = pools.try_emplace(std::string(name));
    if (removed) it->second.pool.unit = use.string_or("unit", "");
    it->second.use = std::move(use);
  }));
  Json shown = Json::array();
  for (const auto& [name, entry] : pools) {
    const Json* divisions = entry.use.find("divisions");
    auto held = [&](std::string_view division) {
      const Json* part = divisions ? divisions->find(division) : nullptr;
      return part ? integer_of(*part, "held") : 0;
    };
    const int64_t used = integer_of(entry.use, "used"), reserved = integer_of(entry.use, "reserved");
    const int64_t capacity = std::max(entry.pool.capacity, used + reserved);
    Json quotas = Json::array();
    for (const auto& [division, quota] : entry.pool.quotas)
      quotas.push_back(
          Json::object().set("divisionId", division).set("quota", std::max(quota, held(division))).set("used", held(division)));
    int64_t waiting = 0;
    if (divisions != nullptr)
      for (const auto& [division, part] : divisions->as_object()) waiting += integer_of(part, "waiting");
    Json row = Json::object().set("pool", name).set("unit", entry.pool.unit).set("capacity", capacity).set("used", used);
    row.set("reserved", reserved)
        .set("available", capacity - used - reserved)
        .set("waiting", waiting)
        .set("quotas", std::move(quotas));
    shown.push_back(std::move(row));
  }
  return shown;
}

}  // namespace assay::processors
