// assay replay backfill: closed scores made again after a rule was mended, as new events that name what they correct.
#include <cstdlib>

#include "replay/backfill.h"
#include "schemas/time.h"
#include "streams/logging.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/progress.h"
#include "tools/replay_source.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

struct Flags {
  std::string from, signers, agents = "*", since, until, with, reason, by;
  bool dry_run = false;
  int64_t limit = 20;
};

Json row_of(const replay::Correction& c) {
  auto score = [](const std::optional<double>& value) { return value ? Json(*value) : Json(); };
  return Json::object()
      .set("agentId", c.agent)
      .set("window", c.window)
      .set("windowEnd", format_rfc3339_ms(c.end_ms))
      .set("change", c.change)
      .set("was", score(c.was))
      .set("is", score(c.is))
      .set("corrects", c.corrects.empty() ? Json() : Json(c.corrects))
      .set("id", c.id);
}

std::string actor(const Flags& flags) {
  const char* user = std::getenv("USER");
  return "user:" + (!flags.by.empty() ? flags.by : std::string(user == nullptr || *user == '\0' ? "unknown" : user));
}

Result<int> backfill(Context& context, const Flags& flags) {
  TRY(streams::configure_logging({.level = streams::LogLevel::kWarning}));
  if (flags.reason.empty() && !flags.dry_run)
    return Error{Errc::kUsage,
                 "replay backfill: --reason says in the audit rows why scores are corrected; --dry-run only shows them"};
  if (flags.limit < 0) return Error{Errc::kUsage, "--limit " + std::to_string(flags.limit) + ": a count, 0 for all"};
  replay::BackfillOptions options;
  options.names = topic_names(context.settings);
  options.agents = flags.agents;
  options.reason = flags.reason;
  options.actor = actor(flags);
  options.now = wall_now();
  if (!flags.since.empty()) {
    TRY_ASSIGN(options.since_ms, instant_of("--since", flags.since));
  }
  if (!flags.until.empty()) {
    TRY_ASSIGN(options.until_ms, instant_of("--until", flags.until));
  }
  if (!flags.with.empty()) {
    Layers layers;
    layers.config_file = flags.with;
    TRY_ASSIGN(const Settings other, load_settings(layers));
    options.rules = other.rules;
  }

  TRY_ASSIGN(const std::string from, source_or_default(context.settings, flags.from));
  if (!flags.dry_run && !reaches_the_end(from))
    return Error{Errc::kUsage, "replay backfill --from " + from +
                                   ": an archive is behind the log, so what was corrected last may not be in it; take log, "
                                   "log+archive:PLACE, or --dry-run"};
  std::shared_ptr<streams::Log> into, source;
  if (flags.dry_run) {
    TRY_ASSIGN(source, open_replay_source(context.settings, from, flags.signers));
  } else {
    TRY_ASSIGN(into, open_log(context.settings, LogAccess::kReadWrite));
    TRY(check_partitions(context.settings, *into));
    TRY_ASSIGN(source, join_replay_source(context.settings, from, flags.signers, into));
  }
  Json rows = Json::array();
  options.each = [&](const replay::Correction& correction) {
    if (flags.limit == 0 || static_cast<int64_t>(rows.as_array().size()) < flags.limit) rows.push_back(row_of(correction));
  };
  Progress progress("backfill", "reports", context);
  options.progress = [&](int64_t done, int64_t total) {
    progress.update(static_cast<uint64_t>(done), total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1.0);
  };
  TRY_ASSIGN(const replay::Backfilled done, replay::backfill(*source, into.get(), options));
  progress.finish();

  const int64_t all = done.changed + done.added + done.withdrawn;
  if (context.format == Format::kJson) {
    context.out << render_object(Json::object()
                                     .set("from", from)
                                     .set("dryRun", flags.dry_run)
                                     .set("reports", done.reports)
                                     .set("scores", done.scores)
                                     .set("corrections", all)
                                     .set("changed", done.changed)
                                     .set("added", done.added)
                                     .set("withdrawn", done.withdrawn)
                                     .set("auditRows", done.audit_rows)
                                     .set("rows", std::move(rows)),
                                 context.format);
    return 0;
  }
  context.out << render_rows(rows.as_array(), context.format,
                             {"agentId", "window", "windowEnd", "change", "was", "is", "corrects", "id"});
  if (!context.quiet)
    context.err << done.scores << " scores of " << done.reports << " reports compared; " << all << " corrections (" << done.changed
                << " changed, " << done.added << " added, " << done.withdrawn << " withdrawn) "
                << (flags.dry_run ? "would be written" : "written in " + std::to_string(done.audit_rows) + " audited steps")
                << ".\n";
  return 0;
}

}  // namespace

void register_replay_backfill(Command& replay) {
  auto flags = std::make_shared<Flags>();
  Command command = replay.command(
      "backfill",
      "Score again what was closed, with the code as it is now, and write each score that comes out otherwise as a new event that "
      "names what it corrects; run twice, it finds nothing");
  command.example("assay replay backfill --dry-run")
      .example("assay replay backfill --reason 'variance of single reports' --since 2026-01-01T00:00:00Z")
      .example("assay replay backfill --with mended.toml --agent 'vm-*' --reason 'latency limits were of another unit'")
      .option("--from", flags->from, kFromOrDefaultHelp)
      .option("--signers", flags->signers, kSignersHelp)
      .option("--agent", flags->agents, "Only these agents (a glob)")
      .option("--since", flags->since, "Only windows that end at or after this time (RFC 3339)")
      .option("--until", flags->until, "Only windows that end before this time")
      .option(
          "--with", flags->with,
          "By the [scoring] rules of this configuration throughout, instead of those that were in force when each window closed")
      .option("--reason", flags->reason, "Why, for the audit rows")
      .option("--by", flags->by, "Who, for the audit rows ($USER)")
      .option("--limit", flags->limit, "Corrections that are told one by one (20); 0: all")
      .flag("--dry-run", flags->dry_run, "Show what would be corrected and write nothing");
  command.run([flags](Context& context) { return backfill(context, *flags); });
}

}  // namespace assay::tools
