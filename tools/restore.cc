#include "tools/restore.h"

#include <algorithm>
#include <memory>
#include <mutex>

#include "processors/processor.h"
#include "schemas/hash.h"
#include "schemas/time.h"
#include "tools/open_log.h"
#include "tools/output.h"
#include "tools/progress.h"
#include "tools/replay_source.h"
#include "tools/session.h"
#include "tools/signers.h"

namespace assay::tools {
namespace {

/// A restore has no record that caused it: its event's id is that of what it says.
Id event_id(const Json& data) {
  const Sha256Digest digest = sha256(canonical(data));
  Id id;
  std::copy_n(digest.begin(), id.bytes.size(), id.bytes.begin());
  return id;
}

}  // namespace

Result<replay::Restored> restore_into_log(Context& context, const RestoreFlags& flags) {
  const Settings& settings = context.settings;
  if (!flags.from.starts_with("archive"))
    return Error{Errc::kUsage, "--into-log: it restores from an archive alone; name it, --from archive:PLACE"};
  if (flags.lineage < 0 || flags.lineage >= 1 << 13) return Error{Errc::kUsage, "--lineage: a number from 1 to 8191"};
  TRY_ASSIGN(const auto source, open_replay_source(settings, flags.from, flags.signers));
  TRY_ASSIGN(std::shared_ptr<streams::Log> target, open_plain_log(settings, LogAccess::kReadWrite));
  TRY_ASSIGN(const auto signer, open_signer(settings));
  Progress progress("restore", "records", context);
  std::mutex mutex;
  replay::RestoreOptions options;
  options.names = topic_names(settings);
  options.topics = configured_topics(settings);
  options.lineage = flags.lineage;
  options.threads = static_cast<unsigned>(flags.threads);
  options.event = [](Json data) {
    const Id id = event_id(data);
    return processors::audit_output(id, id, "lineage.opened", "system:assay", format_rfc3339_ms(wall_now().value),
                                    Json::object().set("command", "assay replay run --into-log"), std::move(data))
        .value;
  };
  options.progress = [&](int64_t records, double share) {
    std::lock_guard lock(mutex);
    progress.update(static_cast<uint64_t>(records), share);
  };
  TRY_ASSIGN(auto restored, replay::restore_log(*source, target, *signer, options, wall_now()));
  progress.finish();
  return restored;
}

void print_restored(Context& context, const replay::Restored& restored, Json tasks) {
  Json partitions = Json::array(), left_out = Json::array();
  for (const replay::RestoredPartition& one : restored.partitions)
    partitions.push_back(Json::object()
                             .set("topic", one.tp.topic)
                             .set("partition", one.tp.partition)
                             .set("first", std::to_string(one.first.start.value))
                             .set("next", std::to_string(one.first.end.value))
                             .set("records", one.records)
                             .set("leftOut", one.left_out)
                             .set("newOffset", std::to_string(one.next.value))
                             .set("last", one.last ? Json(format_rfc3339_ms(one.last->value)) : Json()));
  for (const replay::RestoredTask& one : restored.tasks)
    if (one.left_out > 0)
      left_out.push_back(
          Json::object().set("task", one.task).set("sequence", std::to_string(one.sequence)).set("leftOut", one.left_out));
  if (context.format == Format::kJson) {
    context.out << render_object(Json::object()
                                     .set("lineage", std::to_string(restored.lineage))
                                     .set("wasOpen", restored.was_open)
                                     .set("partitions", std::move(partitions))
                                     .set("tornTasks", std::move(left_out))
                                     .set("tasks", std::move(tasks)),
                                 context.format);
    return;
  }
  context.out << render_rows(partitions.as_array(), context.format) << "\n" << render_rows(tasks.as_array(), context.format);
  if (context.quiet) return;
  for (const Json& torn : left_out.as_array())
    context.err << torn.string_or("task", "") << ": commits after manifest " << torn.string_or("sequence", "")
                << " were archived in part and are left out; their reports are folded again\n";
  context.err << (restored.was_open ? "Lineage " : "Opened lineage ") << restored.lineage
              << ". The topics keep everything until their retention is set.\n";
}

}  // namespace assay::tools
