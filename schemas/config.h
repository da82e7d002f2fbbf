// The rules a fleet is run by: typed, with every default, and as events on config.v1. Reading TOML is tools/'s business.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/json.h"
#include "schemas/types.h"

namespace assay::schemas {

enum class Window : uint8_t { k1h, k24h, k7d };
constexpr Window kWindows[] = {Window::k1h, Window::k24h, Window::k7d};
std::string_view window_name(Window w);  // "1h" "24h" "7d"
std::optional<Window> parse_window(std::string_view text);
constexpr int64_t window_size_ms(Window w) { return w == Window::k1h ? kHourMs : w == Window::k24h ? kDayMs : 7 * kDayMs; }
constexpr int64_t pane_size_ms(Window w) { return w == Window::k1h ? kMinuteMs : w == Window::k24h ? 15 * kMinuteMs : kHourMs; }

/// One [[scoring.metric]]; the first rule whose three globs match applies.
struct MetricRule {
  std::string division = "*";
  std::string window = "*";
  std::string metric = "*";
  bool up = true;  // direction: "up" maps low -> 0 and high -> 1, "down" the reverse
  double low = 0;
  double high = 1;    // high > low
  double weight = 1;  // >= 0, finite
  bool operator==(const MetricRule&) const = default;
};

struct ScoringRules {
  int64_t grace_ms = 45 * kMinuteMs;
  int64_t dedupe_ms = 24 * kHourMs;  // >= grace_ms
  std::vector<MetricRule> metrics;
  bool operator==(const ScoringRules&) const = default;
};

struct PromotionRules {
  double enter = 0.85;
  double leave = 0.80;  // <= enter
  int64_t min_samples = 5;
  int64_t cooldown_ms = 24 * kHourMs;
  int64_t max_per_week = 2;
  bool operator==(const PromotionRules&) const = default;
};

/// Local policy gate; ids are the ones outside harnesses know: sentinel-deny-pool, sentinel-max-delta, sentinel-min-confidence,
/// sentinel-allow.
struct PolicyRules {
  std::vector<std::string> deny_pools;  // globs; a grant from such a pool is denied
  double max_delta = 5;                 // a grant of more units of its pool is denied
  double min_confidence = 0;            // a promotion below it is quarantined
  bool operator==(const PolicyRules&) const = default;
};

struct Grant {
  std::string pool = "gpus-us-east";
  int64_t cpu = 0;
  int64_t gpu = 1;
  int64_t memory_mb = 0;
  int64_t priority = 0;  // higher is served first
  bool operator==(const Grant&) const = default;
};

struct Pool {
  std::string name;
  std::string unit = "gpu";  // "gpu" | "cpu" | "memoryMB": what capacity, use and quotas count
  int64_t capacity = 0;
  std::map<std::string, int64_t> quotas;  // per division; a division without one is bounded by the capacity alone
  bool operator==(const Pool&) const = default;
};

struct AllocationRules {
  Grant grant;
  std::vector<Pool> pools;  // names unique
  bool operator==(const AllocationRules&) const = default;
};

/// A public key that rows are signed with.
struct SignerKey {
  std::string signer_id;
  std::string public_key;  // base64 of 32 bytes
  std::string algorithm = "ed25519";
  bool operator==(const SignerKey&) const = default;
};

struct KeyRules {
  std::vector<SignerKey> signers;
  bool operator==(const KeyRules&) const = default;
};

/// Everything a fold depends on. Defaults are those of deploy/assay.toml.
struct Rules {
  ScoringRules scoring;
  PromotionRules promotion;
  PolicyRules policy;
  AllocationRules allocation;
  KeyRules keys;
  bool operator==(const Rules&) const = default;
};

/// What a fleet runs by when nobody configured anything: the defaults above, and two pools so that promotions are granted.
/// deploy/assay.toml says the same.
Rules default_rules();

/// Something wrong with one key: "scoring.metric[0].high" and what to do about it.
struct ConfigProblem {
  std::string key;
  std::string reason;
  std::string text() const { return key + ": " + reason; }
};

/// Kinds of config.v1 events, which are also their keys.
enum class ConfigKind : uint8_t { kScoring, kPromotion, kPolicy, kAllocation, kKeys };
constexpr ConfigKind kConfigKinds[] = {ConfigKind::kScoring, ConfigKind::kPromotion, ConfigKind::kPolicy, ConfigKind::kAllocation,
                                       ConfigKind::kKeys};
std::string_view config_kind_name(ConfigKind kind);  // "scoring" ...

/// Body of one kind as JSON (the names of the TOML keys), and back. Unknown members and bad values are errors (kUsage),
/// every one of them named in the message.
Json rules_to_json(const Rules& rules, ConfigKind kind);
/// Sets the members that the body has and leaves the others; an array replaces the whole array. Nothing is set when there are
/// problems.
std::vector<ConfigProblem> apply_members(const Json& body, ConfigKind kind, Rules& rules);
/// The same, but what can be read is set beside what cannot: for finding further problems, not for use.
std::vector<ConfigProblem> read_members(const Json& body, ConfigKind kind, Rules& rules);
Result<void> apply_json(const Json& body, ConfigKind kind, Rules& rules);

/// First 12 hex digits of SHA-256 of the canonical body: equal rules have equal versions on every log.
std::string rules_version(const Rules& rules, ConfigKind kind);

/// A config.v1 value: {"kind","version","body"} in canonical form.
std::string encode_config_event(const Rules& rules, ConfigKind kind);
/// A config.v1 value as it is understood.
struct ConfigEvent {
  ConfigKind kind = ConfigKind::kScoring;
  Rules rules;          // of that kind; the others are the struct's defaults
  std::string version;  // of the rules
  std::string text;     // the event as encode_config_event() writes it: equal rules are equal texts, however they were spelled
};
/// Reads a config.v1 value. What was read last is kept, for every task of a process folds the same events at its start.
/// Thread-safe. Errors: kCorrupt.
Result<std::shared_ptr<const ConfigEvent>> read_config_event(std::string_view value);
/// Sets the rules of one kind.
void set_rules(const Rules& from, ConfigKind kind, Rules& rules);
/// Folds one config.v1 value into `rules` and says which kind it was. Errors: kCorrupt; `rules` is then unchanged.
Result<ConfigKind> fold_config_event(std::string_view value, Rules& rules);

/// The problems of a set of rules, one sentence each naming the key and the cure; empty when it is sound.
std::vector<ConfigProblem> find_problems(const Rules& rules);
/// The same as text, "key: reason".
std::vector<std::string> validate(const Rules& rules);

/// Shell-like match: '*' any run, '?' one byte, everything else itself.
bool glob_match(std::string_view pattern, std::string_view text);

}  // namespace assay::schemas
