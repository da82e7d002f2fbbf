// assay replay score: an agent's scores at any past instant, with what is known now or with what was known then.
#include "replay/score_at.h"
#include "schemas/json_parse.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/replay_source.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

struct Flags {
  std::string from = "log", signers, agent, at, known_by;
};

Result<int> score(Context& context, const Flags& flags) {
  replay::ScoreQuestion question{flags.agent, 0, {}};
  TRY_ASSIGN(question.at_ms, instant_of("--at", flags.at));
  if (!flags.known_by.empty()) {
    TRY_ASSIGN(const int64_t known_by_ms, instant_of("--known-by", flags.known_by));
    question.known_by = WallTime(known_by_ms);
  }
  TRY_ASSIGN(auto log, open_replay_source(context.settings, flags.from, flags.signers));
  const streams::TopicNames names = topic_names(context.settings);
  TRY_ASSIGN(const Rules rules, present_rules(*log, context.settings));
  TRY_ASSIGN(const auto scores, replay::score_at(*log, names, rules, question));
  const std::string version = rules_version(rules, ConfigKind::kScoring);
  Json::Array rows;
  for (const processors::AgentScore& one : scores) {
    TRY_ASSIGN(Json row, parse_json(one.to_json(version, question.known_by.value_or(wall_now()))));
    rows.push_back(std::move(row));
  }
  if (rows.empty() && context.format == Format::kTable && !context.quiet)
    context.err << "no report of " << flags.agent << " lies in a window that ends there\n";
  context.out << render_rows(rows, context.format,
                             {"agentId", "divisionId", "window", "windowEnd", "score", "lower", "upper", "confidence", "samples"});
  return 0;
}

}  // namespace

void register_replay_score(Command& replay) {
  auto flags = std::make_shared<Flags>();
  Command command = replay.command("score",
                                   "AgentScore rows of one agent at any past instant, by the rules in force now (the last on "
                                   "config.v1): other records, same judge");
  command.example("assay replay score --agent vm-17 --at 2026-01-05T12:00:00Z")
      .example("assay replay score --agent vm-17 --at 2026-01-05T12:00:00Z --known-by 2026-01-05T12:10:00Z -o json")
      .option("--from", flags->from, kFromHelp)
      .option("--signers", flags->signers, kSignersHelp)
      .option("--agent", flags->agent, "The agent's id")
      .required()
      .option("--at", flags->at, "Windows that end at the last boundary not after this time (RFC 3339)")
      .required()
      .option("--known-by", flags->known_by,
              "With what had arrived by then: the records of the agent's partition before the first whose own timestamp is later");
  command.run([flags](Context& context) { return score(context, *flags); });
}

}  // namespace assay::tools
