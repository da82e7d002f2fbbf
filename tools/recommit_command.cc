// assay state recommit: gives a group the offsets back that it lost, from the task's last manifest.
#include "streams/archive_files.h"
#include "streams/recommit.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

Result<int> run(Context& context, const std::string& task) {
  const Settings& settings = context.settings;
  auto lock = streams::DirectoryLock::take(settings.data_dir);
  if (!lock) return Error{Errc::kRefused, "committing the offsets of " + task + " again: " + lock.error().message};
  const streams::TopicNames names = topic_names(settings);
  const std::vector<streams::ProcessorPlan> plans = streams::topology(names, {});
  auto spec = streams::find_task(plans, names, task);
  if (!spec) return Error{Errc::kUsage, "state recommit " + task + ": " + spec.error().message};
  TRY_ASSIGN(auto log, open_log(settings, LogAccess::kReadWrite));
  TRY(check_partitions(settings, *log));
  auto store = state::open_rocksdb_store(state_dir(settings, task), {.read_only = true});
  if (!store && store.error().code != Errc::kNotFound) return store.error();
  for (const streams::ProcessorPlan& plan : plans) {
    if (plan.name != spec->processor) continue;
    TRY_ASSIGN(const auto done, streams::recommit(*log, names, plan, *spec, store ? store->get() : nullptr));
    Json rows = Json::array();
    for (const auto& [tp, offset] : done.offsets) {
      const auto were = done.were.find(tp);
      rows.push_back(Json::object()
                         .set("topic", tp.topic)
                         .set("partition", tp.partition)
                         .set("offset", offset.value)
                         .set("was", were == done.were.end() ? Json() : Json(were->second.offset.value)));
    }
    context.out << render_object(Json::object()
                                     .set("task", task)
                                     .set("written", done.needed)
                                     .set("sequence", done.mark.sequence)
                                     .set("metadata", done.mark.encode())
                                     .set("offsets", std::move(rows)),
                                 context.format);
  }
  return 0;
}

}  // namespace

void register_recommit(Command& state) {
  auto task = std::make_shared<std::string>();
  Command command =
      state.command("recommit", "Commit a task's offsets again, as its last manifest has them, where its group lost them");
  command.example("assay state recommit scoring-3").option("TASK", *task, "Which task (scoring-3); no process may own it");
  command.run([task](Context& context) -> Result<int> {
    if (task->empty()) return Error{Errc::kUsage, "state recommit: name the task, such as scoring-3"};
    return run(context, *task);
  });
}

}  // namespace assay::tools
