#include "processors/promotion.h"

#include <algorithm>

#include "processors/intake.h"
#include "schemas/time.h"

namespace assay::processors {
namespace {

constexpr int64_t kWeekMs = 7 * kDayMs;
constexpr int64_t kSustainedWindows = 3;  // E, E-1h, E-2h
constexpr std::string_view kRequestedBy = "service:eval-engine";
constexpr std::string_view kAgentPrefix = "agent/";
constexpr std::string_view kEventPrefix = "event/";

std::string row_key(std::string_view prefix, std::string_view id) { return std::string(prefix) + std::string(id); }

std::string number_text(double value) {
  std::string out;
  append_number(value, out);
  return out;
}

/// A closed 1h window as the agent's row remembers it. Scores stay the doubles that the records carry: they are compared, never
/// added, and canonical JSON gives a double back bit for bit.
struct Hour {
  int64_t end_ms = 0;
  std::optional<double> score;
  int64_t samples = 0;
  std::string id;  // of the score record
};

struct Lower24h {
  int64_t end_ms = 0;
  std::optional<double> lower;
  std::string id;
};

struct Hold {
  std::string action;
  std::string reason;
  bool operator==(const Hold&) const = default;
};

}  // namespace

/// The record that was delivered.
struct Promotion::Score {
  Id id;
  std::string agent_id;
  std::string division_id;
  std::string window;
  int64_t end_ms = 0;
  std::optional<double> score;
  std::optional<double> lower;
  std::optional<double> confidence;
  int64_t samples = 0;
};

struct Promotion::Agent {
  bool promoted = false;
  std::vector<Hour> hours;            // the closed 1h windows in (E-3h, E], rising
  std::optional<Lower24h> lower_24h;  // the last one
  std::optional<int64_t> applied_ms;  // E of the last applied decision
  std::vector<int64_t> week_ms;       // E of the applied decisions in (E-7d, E], rising
  std::optional<Hold> hold;           // told already

  const Hour* hour(int64_t end_ms) const {
    for (const Hour& h : hours)
      if (h.end_ms == end_ms) return &h;
    return nullptr;
  }
  bool sustained(int64_t end_ms, auto satisfies) const {
    for (int64_t back = 0; back < kSustainedWindows; ++back) {
      const Hour* h = hour(end_ms - back * kHourMs);
      if (!h || !h->score || !satisfies(*h)) return false;  // a score that is null satisfies nothing
    }
    return true;
  }
  std::optional<double> lower_at(int64_t end_ms) const {
    return lower_24h && lower_24h->end_ms == end_ms ? lower_24h->lower : std::nullopt;
  }
};

/// What is done about a rule that fired.
struct Promotion::Choice {
  std::string wanted;      // "promote" | "demote"
  std::string stopped_by;  // empty: applied; else why it is held
  std::string why;         // the sentence for people
  PolicyDecision policy;
};

Promotion::Promotion(Rows& rows)
    : rows_(rows), rules_(rows, {ConfigKind::kPromotion, ConfigKind::kPolicy, ConfigKind::kAllocation}), ids_("promotion") {}

void Promotion::process(const Input& input, Outputs& outputs) {
  if (input.topic == Topic::kConfig) {
    rules_.fold(input, outputs);  // nothing is decided here: a new rule speaks at the next closed hour
    return;
  }
  CHECK(input.topic == Topic::kScores);
  ids_.start(input.cause);
  fold_score(input, outputs);
}

void Promotion::fold_score(const Input& input, Outputs& outputs) {
  MemberReader read(*input.record);
  Score now;
  now.id = input.cause;
  now.agent_id = read.id("agentId");
  now.division_id = read.id("divisionId");
  now.window = read.text("window");
  now.end_ms = read.time_ms("windowEnd");
  now.score = read.share("score");
  now.lower = read.share("lower");
  now.confidence = read.share("confidence");
  now.samples = read.count("samples");
  const bool corrects = read.has("corrects");
  const std::optional<std::string> corrected = corrects ? read.text_or_null("corrects") : std::nullopt;
  read.require_key(now.agent_id);
  if (now.window != "1h" && now.window != "24h" && now.window != "7d")
    read.refuse(Reason::kWrongType, "\"window\" is none of 1h, 24h, 7d");
  if (floor_to(now.end_ms, kHourMs) != now.end_ms) read.refuse(Reason::kBadTimestamp, "\"windowEnd\" is not on the hour");
  if (!read.good()) return dead_letter(input, read.reject(), outputs);
  if (now.window == "7d") return accepted(outputs);  // decides nothing
  if (corrects) return fold_correction(now, corrected, outputs);

  Agent agent = load(now.agent_id);
  // A window closes once. One that comes again, or after a later one, must not be decided a second time.
  std::optional<int64_t> last;
  if (now.window == "24h" && agent.lower_24h) last = agent.lower_24h->end_ms;
  if (now.window == "1h" && !agent.hours.empty()) last = agent.hours.back().end_ms;
  if (last && now.end_ms <= *last) return filtered(now.end_ms == *last ? Reason::kDuplicate : Reason::kLate, outputs);

  accepted(outputs);
  if (now.window == "24h") {
    agent.lower_24h = Lower24h{now.end_ms, now.lower, now.id.hex()};
  } else {
    agent.hours.push_back({now.end_ms, now.score, now.samples, now.id.hex()});
    std::erase_if(agent.hours, [&](const Hour& h) { return h.end_ms <= now.end_ms - kSustainedWindows * kHourMs; });
    std::erase_if(agent.week_ms, [&](int64_t applied) { return applied <= now.end_ms - kWeekMs; });
    decide(now, agent, outputs);
  }
  store(now.agent_id, agent);
}

void Promotion::fold_correction(const Score& now, const std::optional<std::string>& corrects, Outputs& outputs) {
  Agent agent = load(now.agent_id);
  bool remembered = false;
  if (now.window == "24h") {
    remembered = agent.lower_24h && agent.lower_24h->end_ms == now.end_ms && agent.lower_24h->id == corrects;
    if (remembered) agent.lower_24h = Lower24h{now.end_ms, now.lower, now.id.hex()};
  } else {
    for (Hour& h : agent.hours) {
      if (h.end_ms != now.end_ms || h.id != corrects) continue;
      h = {now.end_ms, now.score, now.samples, now.id.hex()};
      remembered = true;
    }
  }
  if (!remembered) return filtered(Reason::kLate, outputs);
  accepted(outputs);
  store(now.agent_id, agent);
}

void Promotion::decide(const Score& now, Agent& agent, Outputs& outputs) {
  const PromotionRules& rules = rules_->promotion;
  bool fires;
  if (agent.promoted) {
    fires = agent.sustained(now.end_ms, [&](const Hour& h) { return *h.score < rules.leave; });
  } else {
    std::optional<double> lower = agent.lower_at(now.end_ms);
    fires = lower && *lower >= rules.enter &&
            agent.sustained(now.end_ms, [&](const Hour& h) { return h.samples >= rules.min_samples && *h.score >= rules.enter; });
  }
  if (!fires) {
    agent.hold.reset();
    return;
  }

  Choice choice;
  PolicyQuestion question;
  if (agent.promoted) {
    choice.wanted = "demote";
  } else {
    choice.wanted = "promote";
    question.grant = rules_->allocation.grant;
    question.confidence = now.confidence;
  }
  choice.policy = check_policy(*rules_, question);
  if (choice.policy.verdict != Verdict::kAllow) {
    choice.stopped_by = choice.policy.policy_id;
    choice.why = "policy " + choice.policy.policy_id + " says " + std::string(verdict_name(choice.policy.verdict)) + ": " +
                 std::string(choice.policy.explanation());
  } else if (agent.applied_ms && now.end_ms - *agent.applied_ms < rules.cooldown_ms) {
    choice.stopped_by = "cooldown";
    choice.why = "the decision of " + format_rfc3339_ms(*agent.applied_ms) + " is less than " +
                 format_duration_ms(rules.cooldown_ms) + " old";
  } else if (static_cast<int64_t>(agent.week_ms.size()) >= rules.max_per_week) {
    choice.stopped_by = "rate-limit";
    choice.why = std::to_string(agent.week_ms.size()) + " requests in 7 days are as many as max_per_week allows";
  }

  if (choice.stopped_by.empty()) {
    agent.promoted = !agent.promoted;
    agent.applied_ms = now.end_ms;
    agent.week_ms.push_back(now.end_ms);
    agent.hold.reset();
  } else {
    Hold hold{choice.wanted, choice.stopped_by};
    if (agent.hold == hold) return;
    agent.hold = std::move(hold);
  }
  emit(now, agent, choice, outputs);
}

void Promotion::emit(const Score& now, const Agent& agent, const Choice& choice, Outputs& outputs) {
  const bool applied = choice.stopped_by.empty();
  const PromotionRules& rules = rules_->promotion;
  Json scores = Json::array();
  for (const Hour& h : agent.hours)
    scores.push_back(Json::object()
                         .set("id", h.id)
                         .set("windowEnd", format_rfc3339_ms(h.end_ms))
                         .set("score", optional_number(h.score))
                         .set("samples", h.samples));
  Json evidence = Json::object().set("scores", std::move(scores)).set("lower24h", optional_number(agent.lower_at(now.end_ms)));
  if (agent.lower_24h && agent.lower_24h->end_ms == now.end_ms) evidence.set("lower24hId", agent.lower_24h->id);
  if (!applied) evidence.set("wanted", choice.wanted).set("stoppedBy", choice.stopped_by);

  std::string rule = choice.wanted == "promote"
                         ? "the scores of three closed hours and the 24h lower bound are at least " + number_text(rules.enter)
                         : "the scores of three closed hours are below " + number_text(rules.leave);
  std::string rationale = applied ? (choice.wanted == "promote" ? "Promoted: " : "Demoted: ") + rule + "."
                                  : "Held: " + rule + ", but " + choice.why + ".";
  const std::string ts = format_rfc3339_ms(now.end_ms);
  const Id id = ids_.next();
  const Json policy = choice.policy.to_json();
  Json event = Json::object();
  event.set("id", id.hex()).set("entityId", now.agent_id).set("divisionId", now.division_id);
  // A hold is a request that was refused, and final: what may be done later is asked for anew, under an id of its own. "pending"
  // would promise that this very request might still be applied.
  event.set("action", applied ? choice.wanted : "hold").set("status", applied ? "applied" : "rejected");
  event.set("score", optional_number(now.score)).set("confidence", optional_number(now.confidence));
  event.set("rationale", rationale).set("requestedBy", kRequestedBy);
  event.set("policy", policy).set("evidence", std::move(evidence)).set("ts", ts);
  std::string text = canonical(event);
  rows_.put(row_key(kEventPrefix, now.agent_id), text);
  outputs.records.push_back({Topic::kPromotions, now.agent_id, std::move(text), id, now.id});

  const Json source = Json::object().set("topic", topic_spec(Topic::kScores).name).set("id", now.id.hex());
  Json asked = Json::object().set("requestId", id.hex()).set("entityId", now.agent_id).set("divisionId", now.division_id);
  asked.set("action", choice.wanted).set("policy", policy);
  outputs.records.push_back(audit_output(ids_.next(), now.id, "policy.decision", kRequestedBy, ts, source, std::move(asked)));
  outputs.records.push_back(audit_output(ids_.next(), now.id, applied ? "promotion.applied" : "promotion.hold", kRequestedBy, ts,
                                         source, std::move(event)));
}

Promotion::Agent Promotion::load(std::string_view agent_id) const {
  Agent agent;
  auto text = rows_.get(row_key(kAgentPrefix, agent_id));
  if (!text) return agent;
  Json row = parse_row(*text);
  agent.promoted = row.bool_or("promoted", false);
  for (const Json& h : row.find("hours")->as_array())
    agent.hours.push_back(
        {integer_of(h, "end"), optional_number(h, "score"), integer_of(h, "samples"), std::string(h.string_or("id", ""))});
  if (const Json* day = row.find("day"))
    agent.lower_24h = Lower24h{integer_of(*day, "end"), optional_number(*day, "lower"), std::string(day->string_or("id", ""))};
  if (row.find("applied")) agent.applied_ms = integer_of(row, "applied");
  for (const Json& applied : row.find("week")->as_array()) agent.week_ms.push_back(static_cast<int64_t>(applied.as_number()));
  if (const Json* hold = row.find("hold"))
    agent.hold = Hold{std::string(hold->string_or("action", "")), std::string(hold->string_or("reason", ""))};
  return agent;
}

void Promotion::store(std::string_view agent_id, const Agent& agent) {
  Json hours = Json::array(), week = Json::array();
  for (const Hour& h : agent.hours)
    hours.push_back(
        Json::object().set("end", h.end_ms).set("score", optional_number(h.score)).set("samples", h.samples).set("id", h.id));
  for (int64_t applied : agent.week_ms) week.as_array().emplace_back(applied);
  Json row = Json::object().set("promoted", agent.promoted).set("hours", std::move(hours)).set("week", std::move(week));
  if (agent.lower_24h)
    row.set("day", Json::object()
                       .set("end", agent.lower_24h->end_ms)
                       .set("lower", optional_number(agent.lower_24h->lower))
                       .set("id", agent.lower_24h->id));
  if (agent.applied_ms) row.set("applied", *agent.applied_ms);
  if (agent.hold) row.set("hold", Json::object().set("action", agent.hold->action).set("reason", agent.hold->reason));
  rows_.put(row_key(kAgentPrefix, agent_id), canonical(row));
}

Result<Json> promotions_json(const state::Reader& reader) {
  Json events = Json::array();
  TRY(scan_json(reader, kEventPrefix, [&](std::string_view, Json event) { events.push_back(std::move(event)); }));
  return events;
}

}  // namespace assay::processors
