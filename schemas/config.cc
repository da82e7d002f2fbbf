#include "schemas/config.h"

#include <algorithm>
#include <cmath>
#include <mutex>
#include <set>

#include "schemas/hash.h"
#include "schemas/json_parse.h"
#include "schemas/members.h"
#include "schemas/nearest.h"
#include "schemas/time.h"

namespace assay::schemas {
namespace {

constexpr double kMaxBound = 1e12;  // the largest metric value there is
constexpr size_t kMaxNameBytes = 256;
constexpr size_t kKnownEventsMax = 32;  // there are five kinds, and rules change rarely

void read_scoring(Members& body, ScoringRules& scoring) {
  body.duration("grace", scoring.grace_ms);
  body.duration("dedupe", scoring.dedupe_ms);
  if (body.has("metric")) scoring.metrics.clear();
  body.tables("metric", [&](Members& table) {
    MetricRule rule;
    table.text("division", rule.division);
    table.text("window", rule.window);
    table.text("metric", rule.metric);
    std::string direction = "up";
    table.choice("direction", direction, {"up", "down"});
    rule.up = direction == "up";
    table.number("low", rule.low);
    table.number("high", rule.high);
    table.number("weight", rule.weight);
    scoring.metrics.push_back(std::move(rule));
  });
}

void read_promotion(Members& body, PromotionRules& promotion) {
  body.number("enter", promotion.enter);
  body.number("leave", promotion.leave);
  body.count("min_samples", promotion.min_samples);
  body.duration("cooldown", promotion.cooldown_ms);
  body.count("max_per_week", promotion.max_per_week);
}

void read_policy(Members& body, PolicyRules& policy) {
  if (const Json* globs = body.take("deny_pools"); globs != nullptr) {
    policy.deny_pools.clear();
    if (!globs->is_array()) {
      body.mistyped("deny_pools", "an array of strings", *globs);
    } else {
      for (const Json& glob : globs->as_array()) {
        if (glob.is_string())
          policy.deny_pools.push_back(glob.as_string());
        else
          body.mistyped("deny_pools", "an array of strings; one of them", glob);
      }
    }
  }
  body.number("max_delta", policy.max_delta);
  body.number("min_confidence", policy.min_confidence);
}

void read_allocation(Members& body, AllocationRules& allocation) {
  body.table("grant", [&](Members& grant) {
    grant.text("pool", allocation.grant.pool);
    grant.count("cpu", allocation.grant.cpu);
    grant.count("gpu", allocation.grant.gpu);
    grant.count("memoryMB", allocation.grant.memory_mb);
    grant.count("priority", allocation.grant.priority);
  });
  if (body.has("pool")) allocation.pools.clear();
  body.tables("pool", [&](Members& table) {
    Pool pool;
    table.text("name", pool.name);
    table.text("unit", pool.unit);
    table.count("capacity", pool.capacity);
    if (const Json* quotas = table.take("quotas"); quotas != nullptr) {
      Members divisions(*quotas, table.key("quotas"), table.problems());
      if (quotas->is_object())
        for (const auto& [division, quota] : quotas->as_object()) divisions.count_of(division, quota, pool.quotas[division]);
    }
    allocation.pools.push_back(std::move(pool));
  });
}

void read_keys(Members& body, KeyRules& keys) {
  if (body.has("signer")) keys.signers.clear();
  body.tables("signer", [&](Members& table) {
    SignerKey key;
    table.text("signer_id", key.signer_id);
    table.text("public_key", key.public_key);
    table.text("algorithm", key.algorithm);
    keys.signers.push_back(std::move(key));
  });
}

Json scoring_json(const ScoringRules& scoring) {
  Json metrics = Json::array();
  for (const MetricRule& rule : scoring.metrics)
    metrics.push_back(Json::object()
                          .set("division", rule.division)
                          .set("window", rule.window)
                          .set("metric", rule.metric)
                          .set("direction", rule.up ? "up" : "down")
                          .set("low", rule.low)
                          .set("high", rule.high)
                          .set("weight", rule.weight));
  return Json::object()
      .set("grace", format_duration_ms(scoring.grace_ms))
      .set("dedupe", format_duration_ms(scoring.dedupe_ms))
      .set("metric", std::move(metrics));
}

Json promotion_json(const PromotionRules& promotion) {
  return Json::object()
      .set("enter", promotion.enter)
      .set("leave", promotion.leave)
      .set("min_samples", promotion.min_samples)
      .set("cooldown", format_duration_ms(promotion.cooldown_ms))
      .set("max_per_week", promotion.max_per_week);
}

Json policy_json(const PolicyRules& policy) {
  Json globs = Json::array();
  for (const std::string& glob : policy.deny_pools) globs.push_back(glob);
  return Json::object()
      .set("deny_pools", std::move(globs))
      .set("max_delta", policy.max_delta)
      .set("min_confidence", policy.min_confidence);
}

Json allocation_json(const AllocationRules& allocation) {
  Json pools = Json::array();
  for (const Pool& pool : allocation.pools) {
    Json quotas = Json::object();
    for (const auto& [division, quota] : pool.quotas) quotas.set(division, quota);
    pools.push_back(Json::object()
                        .set("name", pool.name)
                        .set("unit", pool.unit)
                        .set("capacity", pool.capacity)
                        .set("quotas", std::move(quotas)));
  }
  const Grant& grant = allocation.grant;
  return Json::object()
      .set("grant", Json::object()
                        .set("pool", grant.pool)
                        .set("cpu", grant.cpu)
                        .set("gpu", grant.gpu)
                        .set("memoryMB", grant.memory_mb)
                        .set("priority", grant.priority))
      .set("pool", std::move(pools));
}

Json keys_json(const KeyRules& keys) {
  Json signers = Json::array();
  for (const SignerKey& key : keys.signers)
    signers.push_back(
        Json::object().set("signer_id", key.signer_id).set("public_key", key.public_key).set("algorithm", key.algorithm));
  return Json::object().set("signer", std::move(signers));
}

/// Collects the sentences about one set of rules.
class Problems {
 public:
  void require(bool holds, std::string key, std::string reason) {
    if (!holds) list_.push_back({std::move(key), std::move(reason)});
  }
  void at_least(int64_t value, int64_t least, std::string key) {
    require(value >= least && value <= kMaxCount, std::move(key),
            "must be between " + std::to_string(least) + " and 2^53, is " + std::to_string(value));
  }
  void share(double value, std::string key) {
    require(value >= 0 && value <= 1, std::move(key), "must lie within 0 and 1, is " + number_text(value));
  }
  void name(const std::string& value, std::string key) {
    require(!value.empty() && value.size() <= kMaxNameBytes, std::move(key),
            "must have 1 to 256 bytes, has " + std::to_string(value.size()));
  }
  std::vector<ConfigProblem> take() { return std::move(list_); }

 private:
  std::vector<ConfigProblem> list_;
};

std::string element(std::string_view array, size_t index, std::string_view member) {
  return std::string(array) + "[" + std::to_string(index) + "]." + std::string(member);
}

void check_scoring(const ScoringRules& scoring, Problems& problems) {
  problems.at_least(scoring.grace_ms, 0, "scoring.grace");
  problems.require(scoring.dedupe_ms >= scoring.grace_ms, "scoring.dedupe",
                   "must not be less than scoring.grace (" + format_duration_ms(scoring.grace_ms) + "), is " +
                       format_duration_ms(scoring.dedupe_ms));
  for (size_t i = 0; i < scoring.metrics.size(); ++i) {
    const MetricRule& rule = scoring.metrics[i];
    auto at = [&](std::string_view member) { return element("scoring.metric", i, member); };
    problems.name(rule.division, at("division"));
    problems.name(rule.metric, at("metric"));
    problems.require(
        std::any_of(std::begin(kWindows), std::end(kWindows), [&](Window w) { return glob_match(rule.window, window_name(w)); }),
        at("window"), "must match one of 1h, 24h and 7d, is " + quoted(rule.window));
    problems.require(std::abs(rule.low) <= kMaxBound, at("low"), "must lie within ±10^12, is " + number_text(rule.low));
    problems.require(std::abs(rule.high) <= kMaxBound, at("high"), "must lie within ±10^12, is " + number_text(rule.high));
    problems.require(!(rule.high <= rule.low), at("high"),
                     "must be greater than low (" + number_text(rule.low) + "), is " + number_text(rule.high) +
                         "; direction = \"down\" turns the scale around");
    problems.require(rule.weight >= 0 && rule.weight <= kMaxBound, at("weight"),
                     "must lie within 0 and 10^12, is " + number_text(rule.weight));
  }
}

void check_promotion(const PromotionRules& promotion, Problems& problems) {
  problems.share(promotion.enter, "promotion.enter");
  problems.share(promotion.leave, "promotion.leave");
  problems.require(
      !(promotion.leave > promotion.enter), "promotion.leave",
      "must not be greater than promotion.enter (" + number_text(promotion.enter) + "), is " + number_text(promotion.leave));
  problems.at_least(promotion.min_samples, 1, "promotion.min_samples");
  problems.at_least(promotion.cooldown_ms, 0, "promotion.cooldown");
  problems.at_least(promotion.max_per_week, 0, "promotion.max_per_week");
}

void check_policy(const PolicyRules& policy, Problems& problems) {
  for (const std::string& glob : policy.deny_pools) problems.name(glob, "policy.deny_pools");
  problems.require(policy.max_delta >= 0 && std::isfinite(policy.max_delta), "policy.max_delta",
                   "must be 0 or more, is " + number_text(policy.max_delta));
  problems.share(policy.min_confidence, "policy.min_confidence");
}

void check_allocation(const AllocationRules& allocation, Problems& problems) {
  const Grant& grant = allocation.grant;
  problems.name(grant.pool, "allocation.grant.pool");
  problems.at_least(grant.cpu, 0, "allocation.grant.cpu");
  problems.at_least(grant.gpu, 0, "allocation.grant.gpu");
  problems.at_least(grant.memory_mb, 0, "allocation.grant.memoryMB");
  problems.at_least(grant.priority, -kMaxCount, "allocation.grant.priority");
  std::vector<std::string_view> names;
  for (size_t i = 0; i < allocation.pools.size(); ++i) {
    const Pool& pool = allocation.pools[i];
    auto at = [&](std::string_view member) { return element("allocation.pool", i, member); };
    problems.name(pool.name, at("name"));
    problems.require(std::find(names.begin(), names.end(), pool.name) == names.end(), at("name"),
                     "must be unique, " + quoted(pool.name) + " stands twice");
    names.push_back(pool.name);
    const bool unit_known = pool.unit == "gpu" || pool.unit == "cpu" || pool.unit == "memoryMB";
    problems.require(unit_known, at("unit"), "must be \"gpu\", \"cpu\" or \"memoryMB\", is " + quoted(pool.unit));
    problems.at_least(pool.capacity, 0, at("capacity"));
    for (const auto& [division, quota] : pool.quotas) {
      problems.name(division, at("quotas"));
      problems.at_least(quota, 0, at("quotas") + "." + division);
    }
    if (pool.name == grant.pool && unit_known) {
      const int64_t amount = pool.unit == "gpu" ? grant.gpu : pool.unit == "cpu" ? grant.cpu : grant.memory_mb;
      problems.require(
          amount != 0, "allocation.grant." + pool.unit,
          "must be 1 or more: the pool " + quoted(pool.name) + " counts " + pool.unit + ", and nothing of it is granted");
    }
  }
  if (!names.empty() && std::find(names.begin(), names.end(), grant.pool) == names.end())
    problems.require(false, "allocation.grant.pool", "there is no pool " + quoted(grant.pool) + nearest_hint(grant.pool, names));
}

void check_keys(const KeyRules& keys, Problems& problems) {
  std::set<std::string_view> ids;
  for (size_t i = 0; i < keys.signers.size(); ++i) {
    const SignerKey& key = keys.signers[i];
    auto at = [&](std::string_view member) { return element("keys.signer", i, member); };
    problems.name(key.signer_id, at("signer_id"));
    problems.require(ids.insert(key.signer_id).second, at("signer_id"),
                     "must be unique for ever, " + quoted(key.signer_id) + " stands twice");
    problems.require(key.algorithm == "ed25519", at("algorithm"), "must be \"ed25519\", is " + quoted(key.algorithm));
    auto raw = from_base64(key.public_key);
    problems.require(raw && raw->size() == 32, at("public_key"), "must be the base64 of 32 bytes, is " + quoted(key.public_key));
  }
}

std::string joined(const std::vector<ConfigProblem>& problems) {
  std::string text;
  for (const ConfigProblem& problem : problems) text += (text.empty() ? "" : "\n") + problem.text();
  return text;
}

Result<ConfigKind> parse_kind(std::string_view name) {
  for (ConfigKind kind : kConfigKinds)
    if (config_kind_name(kind) == name) return kind;
  return Error{Errc::kCorrupt, "config event: no kind " + quoted(name)};
}

std::string version_of(const Json& body) { return to_hex(as_bytes(sha256(canonical(body)))).substr(0, 12); }

Result<ConfigEvent> parse_event(std::string_view value) {
  TRY_ASSIGN(Json event, parse_json(value));
  ConfigEvent out;
  TRY_ASSIGN(out.kind, parse_kind(event.string_or("kind", "")));
  const std::string attempt = "config event " + std::string(config_kind_name(out.kind)) + ": ";
  const Json* body = event.find("body");
  if (body == nullptr) return Error{Errc::kCorrupt, attempt + "it has no body"};
  // The version vouches for the body: an event that somebody edited must not become a rule under the old name.
  if (std::string version = version_of(*body); event.string_or("version", "") != version)
    return Error{Errc::kCorrupt,
                 attempt + "the body's version is " + version + ", the event says " + quoted(event.string_or("version", ""))};
  // An event is the whole of its kind, so what it leaves out is the default and not what stood before.
  if (auto problems = apply_members(*body, out.kind, out.rules); !problems.empty())
    return Error{Errc::kCorrupt, attempt + joined(problems)};
  if (auto problems = find_problems(out.rules); !problems.empty()) return Error{Errc::kCorrupt, attempt + joined(problems)};
  out.version = rules_version(out.rules, out.kind);
  out.text = encode_config_event(out.rules, out.kind);
  return out;
}

}  // namespace

std::string_view window_name(Window w) { return w == Window::k1h ? "1h" : w == Window::k24h ? "24h" : "7d"; }

std::optional<Window> parse_window(std::string_view text) {
  for (Window w : kWindows)
    if (window_name(w) == text) return w;
  return std::nullopt;
}

Rules default_rules() {
  Rules rules;
  rules.allocation.pools = {Pool{"gpus-us-east", "gpu", 10, {}}, Pool{"cpu-highmem", "cpu", 256, {}}};
  return rules;
}

std::string_view config_kind_name(ConfigKind kind) {
  switch (kind) {
    case ConfigKind::kScoring:
      return "scoring";
    case ConfigKind::kPromotion:
      return "promotion";
    case ConfigKind::kPolicy:
      return "policy";
    case ConfigKind::kAllocation:
      return "allocation";
    case ConfigKind::kKeys:
      return "keys";
  }
  CHECK(false);
}

Json rules_to_json(const Rules& rules, ConfigKind kind) {
  switch (kind) {
    case ConfigKind::kScoring:
      return scoring_json(rules.scoring);
    case ConfigKind::kPromotion:
      return promotion_json(rules.promotion);
    case ConfigKind::kPolicy:
      return policy_json(rules.policy);
    case ConfigKind::kAllocation:
      return allocation_json(rules.allocation);
    case ConfigKind::kKeys:
      return keys_json(rules.keys);
  }
  CHECK(false);
}

std::vector<ConfigProblem> read_members(const Json& body, ConfigKind kind, Rules& changed) {
  std::vector<ConfigProblem> problems;
  Members members(body, std::string(config_kind_name(kind)), problems);
  switch (kind) {
    case ConfigKind::kScoring:
      read_scoring(members, changed.scoring);
      break;
    case ConfigKind::kPromotion:
      read_promotion(members, changed.promotion);
      break;
    case ConfigKind::kPolicy:
      read_policy(members, changed.policy);
      break;
    case ConfigKind::kAllocation:
      read_allocation(members, changed.allocation);
      break;
    case ConfigKind::kKeys:
      read_keys(members, changed.keys);
      break;
  }
  members.done();
  return problems;
}

std::vector<ConfigProblem> apply_members(const Json& body, ConfigKind kind, Rules& rules) {
  Rules changed = rules;
  auto problems = read_members(body, kind, changed);
  if (problems.empty()) rules = std::move(changed);
  return problems;
}

Result<void> apply_json(const Json& body, ConfigKind kind, Rules& rules) {
  auto problems = apply_members(body, kind, rules);
  if (!problems.empty()) return Error{Errc::kUsage, joined(problems)};
  return {};
}

std::string rules_version(const Rules& rules, ConfigKind kind) { return version_of(rules_to_json(rules, kind)); }

std::string encode_config_event(const Rules& rules, ConfigKind kind) {
  Json body = rules_to_json(rules, kind);
  std::string version = version_of(body);
  return canonical(
      Json::object().set("kind", config_kind_name(kind)).set("version", std::move(version)).set("body", std::move(body)));
}

void set_rules(const Rules& from, ConfigKind kind, Rules& rules) {
  switch (kind) {
    case ConfigKind::kScoring:
      rules.scoring = from.scoring;
      break;
    case ConfigKind::kPromotion:
      rules.promotion = from.promotion;
      break;
    case ConfigKind::kPolicy:
      rules.policy = from.policy;
      break;
    case ConfigKind::kAllocation:
      rules.allocation = from.allocation;
      break;
    case ConfigKind::kKeys:
      rules.keys = from.keys;
      break;
  }
}

Result<std::shared_ptr<const ConfigEvent>> read_config_event(std::string_view value) {
  static std::mutex mutex;
  static std::map<std::string, std::shared_ptr<const ConfigEvent>, std::less<>> known;
  {
    std::lock_guard lock(mutex);
    if (auto found = known.find(value); found != known.end()) return found->second;
  }
  TRY_ASSIGN(ConfigEvent event, parse_event(value));
  auto read = std::make_shared<const ConfigEvent>(std::move(event));
  std::lock_guard lock(mutex);
  if (known.size() >= kKnownEventsMax) known.clear();
  known.emplace(value, read);
  return read;
}

Result<ConfigKind> fold_config_event(std::string_view value, Rules& rules) {
  TRY_ASSIGN(const auto event, read_config_event(value));
  set_rules(event->rules, event->kind, rules);
  return event->kind;
}

std::vector<ConfigProblem> find_problems(const Rules& rules) {
  Problems problems;
  check_scoring(rules.scoring, problems);
  check_promotion(rules.promotion, problems);
  check_policy(rules.policy, problems);
  check_allocation(rules.allocation, problems);
  check_keys(rules.keys, problems);
  return problems.take();
}

std::vector<std::string> validate(const Rules& rules) {
  std::vector<std::string> sentences;
  for (const ConfigProblem& problem : find_problems(rules)) sentences.push_back(problem.text());
  return sentences;
}

bool glob_match(std::string_view pattern, std::string_view text) {
  // On a mismatch only the last '*' needs to take one byte more: linear in practice, no recursion.
  size_t p = 0, t = 0;
  std::optional<size_t> star;
  size_t star_text = 0;
  while (t < text.size()) {
    if (p < pattern.size() && pattern[p] == '*') {
      star = p++;
      star_text = t;
    } else if (p < pattern.size() && (pattern[p] == '?' || pattern[p] == text[t])) {
      ++p;
      ++t;
    } else if (star) {
      p = *star + 1;
      t = ++star_text;
    } else {
      return false;
    }
  }
  while (p < pattern.size() && pattern[p] == '*') ++p;
  return p == pattern.size();
}

}  // namespace assay::schemas
