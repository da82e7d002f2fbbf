// assay replay plan: what can be rebuilt from an archive, a log or both, how large it is and how long it takes.
#include "replay/plan.h"
#include "schemas/time.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/replay_source.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

struct Flags {
  std::string from, signers;
};

Json row_of(const replay::PlannedPartition& partition) {
  const bool archived = partition.archived.end > partition.archived.start, live = partition.live.end > partition.live.start;
  auto offset = [](bool there, Offset at) { return there ? Json(std::to_string(at.value)) : Json(); };
  auto time = [&](WallTime at) { return partition.records > 0 ? Json(format_rfc3339_ms(at.value)) : Json(); };
  return Json::object()
      .set("topic", partition.tp.topic)
      .set("partition", partition.tp.partition)
      .set("archivedFrom", offset(archived, partition.archived.start))
      .set("archivedTo", offset(archived, partition.archived.end))
      .set("logFrom", offset(live, partition.live.start))
      .set("logTo", offset(live, partition.live.end))
      .set("segments", partition.segments)
      .set("records", partition.records)
      .set("bytes", partition.bytes)
      .set("rawBytes", partition.raw_bytes)
      .set("oldest", time(partition.oldest))
      .set("newest", time(partition.newest))
      .set("problem", partition.problem ? partition.problem->message : "");
}

Json row_of(const replay::PlannedTask& task) {
  return Json::object()
      .set("task", task.task)
      .set("manifests", task.manifests)
      .set("rebuildable", task.rebuildable)
      .set("records", task.records)
      .set("problem", task.problem ? task.problem->message : "");
}

Result<int> plan(Context& context, const Flags& flags) {
  std::unique_ptr<streams::Log> log;
  std::unique_ptr<replay::Archive> archive;
  TRY_ASSIGN(const std::string from, source_or_default(context.settings, flags.from));
  TRY(check_source(from));
  if (from.starts_with("log")) {
    TRY_ASSIGN(log, open_log(context.settings, LogAccess::kRead));
    TRY(check_partitions(context.settings, *log));
  }
  if (from != "log") {
    TRY_ASSIGN(archive, open_archive(context.settings, from));
  }
  replay::PlanOptions options;
  options.names = topic_names(context.settings);
  streams::SignerRegistry pinned;
  if (!flags.signers.empty()) {
    TRY_ASSIGN(pinned, streams::SignerRegistry::load(flags.signers));
    options.pinned = &pinned;
  }
  TRY_ASSIGN(const replay::ReplayPlan plan, replay::plan_replay(archive.get(), log.get(), options));
  const std::optional<Error> problem = plan.problem();
  Json partitions = Json::array(), tasks = Json::array();
  int64_t records = 0, bytes = 0, raw_bytes = 0;
  for (const replay::PlannedPartition& partition : plan.partitions) {
    partitions.push_back(row_of(partition));
    records += partition.records;
    bytes += partition.bytes;
    raw_bytes += partition.raw_bytes;
  }
  for (const replay::PlannedTask& task : plan.tasks) tasks.push_back(row_of(task));
  Json whole = Json::object()
                   .set("from", from)
                   .set("whole", !problem)
                   .set("records", records)
                   .set("bytes", bytes)
                   .set("rawBytes", raw_bytes)
                   .set("estimatedMs", plan.estimated_ms);
  if (context.format == Format::kJson) {
    context.out << render_object(whole.set("partitions", std::move(partitions)).set("tasks", std::move(tasks)), context.format);
  } else {
    context.out << render_rows(partitions.as_array(), context.format) << "\n" << render_rows(tasks.as_array(), context.format);
    if (context.format == Format::kTable) context.out << "\n" << render_object(whole, context.format);
  }
  if (!problem) return 0;
  context.err << problem->message << "\n";
  return problem->code == Errc::kTampered ? 4 : 8;
}

}  // namespace

void register_replay_plan(Command& replay) {
  auto flags = std::make_shared<Flags>();
  Command command = replay.command("plan", "What can be rebuilt and what cannot, with sizes and an estimated time");
  command.example("assay replay plan --from archive:/var/lib/assay/archive")
      .option("--from", flags->from, kFromOrDefaultHelp)
      .option("--signers", flags->signers, kSignersHelp);
  command.run([flags](Context& context) { return plan(context, *flags); });
}

}  // namespace assay::tools
