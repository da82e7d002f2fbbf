// assay audit reconcile, hold, release, holds, erase: what is missing for good, what must stay, and what is deleted.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <filesystem>
#include <set>
#include <thread>

#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/audit_archive.h"
#include "streams/postgres_sink.h"
#include "streams/topic_admin.h"
#include "tools/audit_control.h"
#include "tools/checkpoint_commands.h"
#include "tools/checkpointing.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/projection.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

using processors::AuditControl;
using processors::AuditCorrections;

constexpr size_t kErasedByOneEventMax = 8000;  // of commitments, far from what a record may hold

struct Flags {
  std::string reason, by, approved_by, ticket, remedy;
  std::string topic, hold, agent, subject, event, rows;
  std::optional<int64_t> partition, from, to;
  bool everything = false;
  int64_t wait_s = 10;
};

Error refused(const std::string& what) { return {Errc::kRefused, what}; }

Result<ChainStanding> standing_of(Context& context) {
  Result<ChainStanding> standing = read_chain_standing(context.settings, context.settings.data_dir);
  if (!standing && (standing.error().code == Errc::kIncomplete || standing.error().code == Errc::kNotFound)) return ChainStanding{};
  return standing;
}

Json reasoned(const Flags& flags) {
  Json data = Json::object().set("reason", flags.reason);
  if (!flags.approved_by.empty()) data.set("approvedBy", "user:" + flags.approved_by);
  if (!flags.ticket.empty()) data.set("ticket", flags.ticket);
  if (!flags.remedy.empty()) data.set("remedy", flags.remedy);
  return data;
}

/// What makes evidence disappear, or its absence accepted, takes two.
Result<void> wants_two(const Flags& flags, const std::string& attempt) {
  if ("user:" + flags.approved_by == acting(flags.by))
    return refused(attempt + ": --approved-by names " + flags.approved_by + ", who asks for it; it takes another person");
  return {};
}

std::string event(const Flags& flags, std::string_view type, Json data) {
  return control_event(type, acting(flags.by), wall_now(), std::move(data));
}

std::string id_of(const std::string& event) {
  const Result<Json> parsed = parse_json(event);
  return std::string(parsed->string_or("id", ""));
}

/// Sends the events and waits until the chain has folded them; whether it has.
Result<bool> send_and_see(Context& context, const Flags& flags, const std::vector<std::string>& events,
                          const std::function<bool(const AuditCorrections&)>& there) {
  TRY(send_control_events(context, events));
  const auto until = std::chrono::steady_clock::now() + std::chrono::seconds(flags.wait_s);
  for (;;) {
    TRY_ASSIGN(const ChainStanding standing, standing_of(context));
    if (there(standing.state.control.corrections)) return true;
    if (std::chrono::steady_clock::now() >= until) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
  }
}

int not_folded(Context& context, const Flags& flags, const std::string& then) {
  context.err << "assay: the event is on the log; the chain has not folded it within " << flags.wait_s
              << " s: does `assay run` run?" << then << '\n';
  return exit_code(Errc::kIncomplete);
}

/// Refuses what is not missing: each offset must lie in a hole, and a hole that the log still holds must hold a record there.
Result<void> prove_missing(Context& context, const Flags& flags, const std::string& attempt) {
  TRY_ASSIGN(const Json found, ask_for_gaps(context));
  auto number = [](const Json& row, std::string_view name) {
    return std::strtoll(std::string(row.string_or(name, "")).c_str(), nullptr, 10);
  };
  int64_t next = *flags.from;
  for (bool moved = true; moved && next < *flags.to;) {
    moved = false;
    for (const Json& row : found.find("gaps")->as_array()) {
      const std::string_view problem = row.string_or("problem", "");
      if (problem != "missing" && problem != "gone") continue;
      if (row.number_or("partition", -1) != static_cast<double>(*flags.partition)) continue;
      if (number(row, "from") > next || number(row, "to") <= next) continue;
      next = number(row, "to");
      moved = true;
    }
  }
  if (next >= *flags.to) return {};
  return refused(
      attempt + ": offset " + std::to_string(next) +
      " is not missing: an audit event covers it, or no record was ever committed there; `assay audit gap` lists what is");
}

Result<int> reconcile(Context& context, const Flags& flags) {
  const std::string reports(topic_spec(Topic::kReports).name);
  if (flags.topic != reports)
    return Error{Errc::kUsage,
                 "audit reconcile --topic " + flags.topic + ": audit events cover the records of " + reports + " alone"};
  if (*flags.partition < 0 || *flags.from < 0 || *flags.from >= *flags.to)
    return Error{Errc::kUsage, "audit reconcile: --from and --to are offsets, the second behind the last that is missing"};
  const std::string attempt = "reconciling offsets " + std::to_string(*flags.from) + " to " + std::to_string(*flags.to - 1) +
                              " of " + flags.topic + "/" + std::to_string(*flags.partition);
  TRY(wants_two(flags, attempt));
  TRY_ASSIGN(const ChainStanding standing, standing_of(context));
  const auto partition = static_cast<int32_t>(*flags.partition);
  if (const processors::Reconciled* before =
          find_reconciled(standing.state.control.corrections, flags.topic, partition, *flags.from, *flags.to))
    return refused(attempt + ": offsets " + std::to_string(before->from) + " to " + std::to_string(before->to - 1) +
                   " were reconciled by event " + before->event_id);
  TRY(prove_missing(context, flags, attempt));
  Json data = reasoned(flags).set("topic", flags.topic).set("partition", int64_t{partition});
  data.set("from", std::to_string(*flags.from)).set("to", std::to_string(*flags.to));
  const std::string made = event(flags, "audit.reconciliation", std::move(data));
  TRY_ASSIGN(const bool seen, send_and_see(context, flags, {made}, [&](const AuditCorrections& now) {
               return std::ranges::any_of(now.reconciled, [&](const auto& one) { return one.event_id == id_of(made); });
             }));
  context.out << render_object(Json::object().set("eventId", id_of(made)).set("folded", seen), context.format);
  return seen ? 0 : not_folded(context, flags, "");
}

/// "812-900", both included, as a half-open range of decimal strings.
Result<Json> parse_rows(const std::string& text) {
  const size_t dash = text.find('-');
  int64_t first = 0, last = 0;
  const char *begin = text.data(), *end = begin + text.size();
  if (dash != text.npos && std::from_chars(begin, begin + dash, first).ptr == begin + dash &&
      std::from_chars(begin + dash + 1, end, last).ptr == end && first >= 1 && first <= last && last < INT64_MAX)
    return Json::object().set("from", std::to_string(first)).set("to", std::to_string(last + 1));
  return Error{Errc::kUsage, "--rows " + text + ": the first and the last row of the chain, such as 812-900"};
}

Result<Json> scope_of(const Flags& flags) {
  const int given = (flags.everything ? 1 : 0) + (flags.subject.empty() ? 0 : 1) + (flags.agent.empty() ? 0 : 1) +
                    (flags.topic.empty() ? 0 : 1) + (flags.rows.empty() ? 0 : 1);
  if (given != 1)
    return Error{Errc::kUsage, "audit hold: give one of --everything, --subject, --agent, --topic and --rows: what must stay"};
  Json scope = Json::object();
  if (flags.everything) return scope.set("everything", true);
  if (!flags.subject.empty()) return scope.set("subject", flags.subject);
  if (!flags.agent.empty()) return scope.set("agent", flags.agent);
  if (!flags.rows.empty()) {
    TRY_ASSIGN(Json rows, parse_rows(flags.rows));
    return scope.set("rows", std::move(rows));
  }
  const std::string_view name =
      std::string_view(flags.topic).substr(0, flags.topic.size() - (flags.topic.ends_with(kDlqSuffix) ? 4 : 0));
  if (std::ranges::find(topic_catalogue(), name, &TopicSpec::name) == topic_catalogue().end())
    return Error{Errc::kUsage, "audit hold --topic " + flags.topic + ": there is no such topic"};
  scope.set("topic", flags.topic);
  if (flags.from.has_value() != flags.to.has_value() || (flags.from && !flags.partition) ||
      (flags.from && (*flags.from < 0 || *flags.from >= *flags.to)) ||
      (flags.partition && (*flags.partition < 0 || *flags.partition > INT32_MAX)))
    return Error{Errc::kUsage,
                 "audit hold: --from and --to are offsets of one --partition, the second behind the last that is held"};
  if (flags.partition) scope.set("partition", *flags.partition);
  if (flags.from) scope.set("from", std::to_string(*flags.from)).set("to", std::to_string(*flags.to));
  return scope;
}

/// Retention of a broker is not ours to stop: says what stops it. Returns how many topics that concerns.
Result<int> warn_of_retention(Context& context) {
  if (context.settings.kafka.brokers.empty()) return 0;  // our own log asks the chain before it deletes
  TRY_ASSIGN(auto log, open_log(context.settings, LogAccess::kRead));
  TRY_ASSIGN(const std::vector<streams::TopicConfig> topics, log->topics());
  int at_risk = 0;
  for (const streams::TopicConfig& wanted : configured_topics(context.settings))
    for (const streams::TopicConfig& topic : topics) {
      if (topic.name != wanted.name || topic.compacted || topic.retention_ms < 0) continue;
      ++at_risk;
      context.err << "assay: the broker deletes records of " << topic.name << " after " << format_duration_ms(topic.retention_ms)
                  << ", hold or no hold: kafka-configs.sh --alter --entity-type topics --entity-name " << topic.name
                  << " --add-config retention.ms=-1\n";
    }
  return at_risk;
}

Result<int> hold(Context& context, const Flags& flags) {
  TRY_ASSIGN(Json scope, scope_of(flags));
  TRY_ASSIGN(const ChainStanding standing, standing_of(context));
  const AuditCorrections& now = standing.state.control.corrections;
  if (auto known = now.holds.find(flags.hold); known != now.holds.end())
    return refused("placing hold " + flags.hold + ": it is in force already, by event " + known->second.event_id);
  if (now.released.contains(flags.hold))
    return refused("placing hold " + flags.hold + ": there was one of that id, which was released; ids are never reused");
  if (!is_plain_id(flags.hold)) return Error{Errc::kUsage, "audit hold: the id of a hold has letters, digits, dots and dashes"};
  const std::string made =
      event(flags, "audit.hold_placed", reasoned(flags).set("hold", flags.hold).set("scope", std::move(scope)));
  TRY_ASSIGN(const bool seen,
             send_and_see(context, flags, {made}, [&](const AuditCorrections& then) { return then.holds.contains(flags.hold); }));
  context.out << render_object(Json::object().set("hold", flags.hold).set("eventId", id_of(made)).set("inForce", seen),
                               context.format);
  if (!seen) return not_folded(context, flags, " Until it is folded, nothing is held.");
  TRY_ASSIGN(const ChainStanding after, standing_of(context));
  if (processors::hold_on_records(after.state.control.corrections) == nullptr) return 0;
  TRY_ASSIGN(const int at_risk, warn_of_retention(context));
  return at_risk == 0 ? 0 : exit_code(Errc::kUnhealthy);
}

Result<int> release(Context& context, const Flags& flags) {
  TRY(wants_two(flags, "releasing hold " + flags.hold));
  TRY_ASSIGN(const ChainStanding standing, standing_of(context));
  if (!standing.state.control.corrections.holds.contains(flags.hold))
    return refused("releasing hold " + flags.hold + ": there is none");
  const std::string made = event(flags, "audit.hold_released", reasoned(flags).set("hold", flags.hold));
  TRY_ASSIGN(const bool seen,
             send_and_see(context, flags, {made}, [&](const AuditCorrections& now) { return !now.holds.contains(flags.hold); }));
  context.out << render_object(Json::object().set("hold", flags.hold).set("eventId", id_of(made)).set("inForce", !seen),
                               context.format);
  return seen ? 0 : not_folded(context, flags, "");
}

Result<int> holds(Context& context) {
  TRY_ASSIGN(const ChainStanding standing, standing_of(context));
  std::vector<Json> rows;
  for (const auto& [id, one] : standing.state.control.corrections.holds)
    rows.push_back(Json::object()
                       .set("hold", id)
                       .set("scope", processors::scope_text(one.scope))
                       .set("reason", one.reason)
                       .set("eventId", one.event_id));
  context.out << render_rows(rows, context.format, {"hold", "scope", "reason", "eventId"});
  return 0;
}

/// What is to be erased, and what holds have to know of it.
struct Erasure {
  processors::ErasureRequest request;
  std::vector<std::string> references;
};

Result<Erasure> erasure_of(Context& context, const Flags& flags, const AuditCorrections& corrections) {
  Erasure out;
  TRY_ASSIGN(const std::vector<streams::PersonalKey> keys, open_personal(context.settings)->keys());
  std::set<std::string, std::less<>> subjects, events;
  for (const streams::PersonalKey& key : keys) {
    out.request.known.insert(key.reference);
    if (flags.event.empty() ? key.subject != flags.subject : key.event_id != flags.event) continue;
    out.references.push_back(key.reference);
    subjects.insert(key.subject);
    events.insert(key.event_id);
  }
  for (const streams::PersonalKey& key : keys)
    if (subjects.contains(key.subject)) out.request.references.insert(key.reference);
  const bool by_rows =
      std::ranges::any_of(corrections.holds, [](const auto& one) { return one.second.scope.find("rows") != nullptr; });
  if (!by_rows) return out;
  const Settings& settings = context.settings;
  for (const std::string& id : events) {
    auto find = [&]() -> Result<int64_t> {
      if (!settings.database.url.empty()) return streams::find_database_row(settings.database.url, id);
      TRY_ASSIGN(const streams::FoundRow found,
                 streams::find_archive_row(audit_dir(settings.data_dir), id, checkpoints_of(settings)));
      return found.sequence;
    };
    const Result<int64_t> row = find();
    if (!row && row.error().code != Errc::kNotFound) return row.error();
    if (row) out.request.rows.push_back(*row);
  }
  return out;
}

Result<int> erase(Context& context, const Flags& flags) {
  if (flags.subject.empty() == flags.event.empty())
    return Error{Errc::kUsage, "audit erase: give --subject, as `actor` has it (user:ada), or --event"};
  // The subject's name must not stand in what is kept for good, the log of errors included.
  const std::string attempt = "erasing the personal data of " + (flags.event.empty() ? "that subject" : "event " + flags.event);
  TRY(wants_two(flags, attempt));
  TRY_ASSIGN(const ChainStanding standing, standing_of(context));
  const AuditCorrections& corrections = standing.state.control.corrections;
  TRY_ASSIGN(const Erasure wanted, erasure_of(context, flags, corrections));
  if (wanted.references.empty())
    return Error{Errc::kIncomplete, attempt + ": there is none in " + open_personal(context.settings)->describe()};
  if (const processors::Hold* held = hold_against(corrections, wanted.request)) {
    Json data = reasoned(flags).set("hold", held->id).set("commitments", static_cast<int64_t>(wanted.references.size()));
    if (!flags.event.empty()) data.set("event", flags.event);
    const std::string made = event(flags, "audit.erasure_refused", std::move(data));
    TRY(send_control_events(context, std::vector{made}));
    return refused(attempt + ": legal hold " + held->id + " (" + processors::scope_text(held->scope) + ") covers it; event " +
                   id_of(made) + " says that this was refused");
  }
  Json clear_of = Json::array();
  for (const auto& [id, one] : corrections.holds) clear_of.push_back(id);
  std::vector<std::string> events;
  for (size_t from = 0; from < wanted.references.size(); from += kErasedByOneEventMax) {
    Json part = Json::array();
    for (size_t i = from; i < std::min(from + kErasedByOneEventMax, wanted.references.size()); ++i)
      part.push_back(wanted.references[i]);
    events.push_back(event(flags, "audit.erasure", reasoned(flags).set("commitments", std::move(part)).set("clearOf", clear_of)));
  }
  TRY_ASSIGN(const bool seen, send_and_see(context, flags, events,
                                           [&](const AuditCorrections& now) { return now.last_erasure == id_of(events.back()); }));
  if (!seen) return not_folded(context, flags, " Or a hold came in between. Nothing was deleted; run this again.");
  TRY_ASSIGN(const int64_t erased,
             open_personal(context.settings)
                 ->erase(std::set<std::string, std::less<>>(wanted.references.begin(), wanted.references.end())));
  context.out << render_object(Json::object().set("erased", erased).set("eventId", id_of(events.back())), context.format);
  return 0;
}

void say_why(Command& command, const std::shared_ptr<Flags>& flags) {
  command.option("--reason", flags->reason, "Why; it stands in the audit event").required();
  command.option("--ticket", flags->ticket, "Where it is written down");
  command.option("--by", flags->by, "Who; without it $USER");
  command.option("--wait", flags->wait_s, "Seconds to wait until the chain has folded it");
}

void take_two(Command& command, const std::shared_ptr<Flags>& flags) {
  command.option("--approved-by", flags->approved_by, "Who else agreed").required();
}

}  // namespace

void register_corrections(Command& audit) {
  auto flags = std::make_shared<Flags>();

  Command reconciling = audit.command("reconcile", "Say in the chain that a range which `audit gap` lists is missing for good");
  reconciling
      .example(
          "assay audit reconcile --topic eval.reports.v1 --partition 0 --from 5 --to 9 --reason 'disk of broker 2 lost' "
          "--approved-by bob")
      .option("--topic", flags->topic, "The topic, without prefix")
      .required()
      .option("--partition", flags->partition, "Its partition")
      .required()
      .option("--from", flags->from, "First offset that is missing")
      .required()
      .option("--to", flags->to, "The offset behind the last that is missing")
      .required()
      .option("--remedy", flags->remedy, "What was done about it");
  say_why(reconciling, flags);
  take_two(reconciling, flags);
  reconciling.run([flags](Context& context) { return reconcile(context, *flags); });

  Command holding = audit.command("hold", "Legal hold: nothing that it covers is deleted until it is released");
  holding.example("assay audit hold CASE-7 --subject user:ada --reason 'litigation'")
      .example("assay audit hold CASE-8 --topic eval.reports.v1 --reason 'subpoena'")
      .argument("HOLD", flags->hold, "Id of the hold")
      .required()
      .flag("--everything", flags->everything, "All that could be deleted")
      .option("--subject", flags->subject, "Personal data of that person, as `actor` has it; kept as a commitment")
      .option("--agent", flags->agent, "Records of that agent: retention of the log rests")
      .option("--topic", flags->topic, "Records of that topic, without prefix: retention of the log rests")
      .option("--partition", flags->partition, "Of that topic")
      .option("--from", flags->from, "First offset of that partition")
      .option("--to", flags->to, "The offset behind the last")
      .option("--rows", flags->rows, "Personal data of these rows of the chain, FIRST-LAST");
  say_why(holding, flags);
  holding.run([flags](Context& context) { return hold(context, *flags); });

  Command releasing = audit.command("release", "End a legal hold");
  releasing.example("assay audit release CASE-7 --reason 'settled' --approved-by bob")
      .argument("HOLD", flags->hold, "Id of the hold")
      .required();
  say_why(releasing, flags);
  take_two(releasing, flags);
  releasing.run([flags](Context& context) { return release(context, *flags); });

  audit.command("holds", "The legal holds in force").run([](Context& context) { return holds(context); });

  Command erasing = audit.command("erase", "Delete personal data beside the chain, which stands; refused under a legal hold");
  erasing.example("assay audit erase --subject user:ada --reason 'request of 3 May' --approved-by bob")
      .option("--subject", flags->subject, "Whose, as `actor` has it")
      .option("--event", flags->event, "Of one event");
  say_why(erasing, flags);
  take_two(erasing, flags);
  erasing.run([flags](Context& context) { return erase(context, *flags); });
}

}  // namespace assay::tools
