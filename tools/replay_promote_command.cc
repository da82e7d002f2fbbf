// assay replay promote: the stores that a replay has rebuilt take the place of the running system's.
#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>

#include "streams/archive_files.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

namespace fs = std::filesystem;

struct Flags {
  std::string into;
};

Error refused(const std::string& dir, const std::string& why) { return {Errc::kRefused, "promoting " + dir + ": " + why}; }

/// The rebuilt store stands exactly where the log says that its task committed last, and its rows make up its digest.
Result<Json> check_task(streams::Log& log, const streams::TopicNames& names, const streams::TaskSpec& spec,
                        const std::string& dir) {
  std::vector<TopicPartition> inputs;
  for (auto [topic, partition] : spec.inputs) inputs.push_back({names.full(topic), partition});
  TRY_ASSIGN(const auto committed, log.committed(spec.group, inputs));
  streams::CommitMark last;
  for (const auto& [tp, commit] : committed) {
    TRY_ASSIGN(auto mark, streams::CommitMark::decode(commit.metadata));
    if (mark.sequence > last.sequence) last = mark;
  }
  auto store = state::open_rocksdb_store((fs::path(dir) / "state" / spec.name).string(), {.read_only = true});
  if (!store) return refused(dir, spec.name + " was not rebuilt there: " + store.error().message);
  TRY_ASSIGN(const streams::TaskMeta meta, streams::read_meta(**store));
  if (meta.sequence != last.sequence)
    return refused(dir, spec.name + " is rebuilt up to manifest " + std::to_string(meta.sequence) + ", committed is " +
                            std::to_string(last.sequence) + "; `assay replay run --into` the same directory folds the rest");
  if (meta.manifest_hash != last.manifest_hash) return refused(dir, spec.name + " is rebuilt from another history than the log's");
  TRY_ASSIGN(const state::Digest digest, streams::recompute_digest(**store, spec));
  if (digest != meta.digest)
    return Error{Errc::kParity, "promoting " + dir + ": the rows of " + spec.name + " make up digest " + digest.hex() + ", not " +
                                    meta.digest.hex()};
  return Json::object().set("task", spec.name).set("sequence", std::to_string(meta.sequence)).set("digest", digest.hex());
}

/// Puts what stands at `from` in the place of `to` in one step; what stood there stands at `from` then.
Result<void> exchange(const fs::path& from, const fs::path& to, const std::string& dir) {
  const bool there = fs::exists(to);
  if (::renameat2(AT_FDCWD, from.c_str(), AT_FDCWD, to.c_str(), there ? RENAME_EXCHANGE : RENAME_NOREPLACE) == 0) {
    for (const fs::path& folder : {from.parent_path(), to.parent_path()}) {
      const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
      if (fd >= 0) {
        ::fsync(fd);
        ::close(fd);
      }
    }
    return {};
  }
  if (errno == EXDEV) return refused(dir, "it lies on another file system than " + to.string() + "; rebuild --into one beside it");
  return Error{Errc::kUnexpected, "exchanging " + from.string() + " and " + to.string() + ": " + std::strerror(errno)};
}

Result<int> promote(Context& context, const Flags& flags) {
  const Settings& settings = context.settings;
  auto lock = streams::DirectoryLock::take(settings.data_dir);
  if (!lock) return refused(flags.into, "a process runs on " + settings.data_dir + ", stop it first: " + lock.error().message);
  if (!fs::exists(fs::path(flags.into) / "state")) return refused(flags.into, "no replay has rebuilt anything there");
  auto rebuilt_lock = streams::DirectoryLock::take(flags.into);
  if (!rebuilt_lock) return refused(flags.into, rebuilt_lock.error().message);
  TRY_ASSIGN(auto log, open_log(settings, LogAccess::kRead));
  TRY(check_partitions(settings, *log));
  const streams::TopicNames names = topic_names(settings);
  Json rows = Json::array();
  for (const streams::ProcessorPlan& plan : streams::topology(names, {}))
    for (int32_t p = 0; p < plan.task_count(names); ++p) {
      TRY_ASSIGN(Json row, check_task(*log, names, plan.task(p), flags.into));
      rows.push_back(std::move(row));
    }
  const fs::path data(settings.data_dir), into(flags.into);
  // A chain that is there is the running one; a lost one is taken over before the stores, so that a crash in between loses nothing.
  if (settings.database.url.empty() && fs::exists(into / "audit") && !fs::exists(data / "audit"))
    TRY(exchange(into / "audit", data / "audit", flags.into));
  TRY(exchange(into / "state", data / "state", flags.into));
  context.out << render_rows(rows.as_array(), context.format);
  if (!context.quiet)
    context.err << "Promoted. What stood in " << (data / "state").string() << " is now in " << into.string() << ".\n";
  return 0;
}

}  // namespace

void register_replay_promote(Command& replay) {
  auto flags = std::make_shared<Flags>();
  Command command =
      replay.command("promote", "Put the stores that `replay run` has rebuilt in the place of the running system's, in one step");
  command.example("assay replay promote --into rebuilt")
      .option("--into", flags->into, "The directory that `replay run` has rebuilt")
      .required();
  command.run([flags](Context& context) { return promote(context, *flags); });
}

}  // namespace assay::tools
