// assay replay: rebuild every store and audit row from the log, and prove that they come out the same.
#include <algorithm>
#include <charconv>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "processors/audit_chain.h"
#include "replay/agent_replay.h"
#include "replay/audit_parity.h"
#include "replay/replayer.h"
#include "schemas/time.h"
#include "streams/archive_files.h"
#include "streams/logging.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/progress.h"
#include "tools/projection.h"
#include "tools/replay_source.h"
#include "tools/restore.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

struct Flags {
  std::string from = "log", into, until, signers, rebuilt_database;
  std::vector<std::string> only;
  int64_t rate = 0, threads = 0, lineage = 0;
  bool into_log = false;
};

Json task_rows(const std::vector<replay::ReplayedTask>& tasks) {
  Json rows = Json::array();
  for (const replay::ReplayedTask& task : tasks) {
    Json row = Json::object()
                   .set("task", task.task)
                   .set("manifests", task.manifests)
                   .set("records", task.delivered)
                   .set("outputs", task.outputs)
                   .set("digest", task.digest.hex());
    if (task.expected) row.set("expectedDifference", *task.expected);
    rows.push_back(std::move(row));
  }
  return rows;
}

/// "TOPIC/PARTITION=OFFSET,…", topics without prefix.
Result<std::map<TopicPartition, Offset>> parse_offsets(const std::string& text, const streams::TopicNames& names) {
  std::map<TopicPartition, Offset> out;
  std::istringstream in(text);
  for (std::string part; std::getline(in, part, ',');) {
    const size_t slash = part.find('/'), equals = part.find('=');
    auto number = [&](size_t from, size_t to) -> std::optional<int64_t> {
      int64_t n = 0;
      auto [end, error] = std::from_chars(part.data() + from, part.data() + to, n);
      if (from >= to || error != std::errc() || end != part.data() + to || n < 0) return std::nullopt;
      return n;
    };
    std::optional<int64_t> partition, offset;
    if (slash != std::string::npos && equals != std::string::npos && slash < equals) {
      partition = number(slash + 1, equals);
      offset = number(equals + 1, part.size());
    }
    if (!partition || !offset)
      return Error{Errc::kUsage, "--until " + text + ": neither an RFC 3339 time with a zone nor TOPIC/PARTITION=OFFSET,…"};
    const std::string topic = part.substr(0, slash);
    const auto spec = std::ranges::find(topic_catalogue(), topic, &TopicSpec::name);
    if (spec == topic_catalogue().end() || *partition >= names.partitions(spec->topic))
      return Error{Errc::kUsage, "--until " + text + ": there is no " + topic + "/" + std::to_string(*partition)};
    out[{names.full(topic), static_cast<int32_t>(*partition)}] = Offset(*offset);
  }
  return out;
}

Result<replay::ReplayOptions> replay_options(Context& context, const Flags& flags, Progress& progress) {
  replay::ReplayOptions options;
  options.names = topic_names(context.settings);
  if (flags.rate < 0 || flags.threads < 0 || flags.threads > 1024)
    return Error{Errc::kUsage, "--rate and --threads: counts, 0 for no limit and for one thread a core"};
  options.rate = flags.rate;
  options.threads = static_cast<unsigned>(flags.threads);
  options.scoring.audit_each = context.settings.audit.eval_submit == "each";
  options.only = flags.only;
  if (auto ms = parse_rfc3339_ms(flags.until)) {
    options.until = WallTime(*ms);
  } else if (!flags.until.empty()) {
    TRY_ASSIGN(options.until_offsets, parse_offsets(flags.until, options.names));
  }
  auto mutex = std::make_shared<std::mutex>();
  options.progress = [&progress, mutex](int64_t done, int64_t total) {
    std::lock_guard lock(*mutex);
    progress.update(static_cast<uint64_t>(done), total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1.0);
  };
  return options;
}

/// A chain that has rows is gone on with only when this directory's replay began it (taking over a running one would fence its
/// projector) and its rows are the beginning of what the log makes.
Result<void> check_begun(const Settings& settings, streams::Log& log, const streams::TopicNames& names, const std::string& into) {
  constexpr const char* kMark = "audit-begun";
  const std::filesystem::path mark = std::filesystem::path(into) / kMark;
  const std::string where = settings.database.url.empty() ? "audit" : without_password(settings.database.url);
  bool has_rows = false;
  if (auto chain = open_stored_chain(settings, into)) {
    TRY_ASSIGN(const auto first, chain->lines());
    has_rows = !first.empty();
  } else if (chain.error().code != Errc::kIncomplete && chain.error().code != Errc::kNotFound) {
    return chain.error();
  }
  std::string marked;
  if (std::ifstream file(mark); file) std::getline(file, marked);
  if (!has_rows) return streams::replace_file(into, kMark, where + "\n", true);
  if (marked != where)
    return Error{Errc::kRefused, "rebuilding the audit chain into " + where + ": it already holds rows, and not of this replay"};
  TRY_ASSIGN(const auto begun, open_stored_chain(settings, into));
  if (auto same = replay::compare_chain(log, names, begun); !same)
    return Error{same.error().code == Errc::kParity ? Errc::kRefused : same.error().code,
                 "rebuilding the audit chain, which is begun: " + same.error().message};
  return {};
}

/// Projects audit-events into a fresh chain, or one that an earlier replay began, up to `end`.
Result<void> rebuild_audit(const Settings& settings, streams::Log& log, const std::string& into, Offset end) {
  const streams::TopicNames names = topic_names(settings);
  TRY(check_begun(settings, log, names, into));
  TRY_ASSIGN(auto signer, open_signer(settings));
  TRY_ASSIGN(auto sink, open_audit_sink(settings, into, signer));
  streams::Metrics metrics;
  // A group of its own name is never committed to: a replay leaves no trace on the live system.
  AuditProjection audit(settings, log, std::move(sink), signer, std::string(), metrics);
  std::atomic<bool> stop{false}, ended{false};
  Result<void> result;
  std::thread thread([&] {
    result = audit.run(nullptr, stop, end);
    ended = true;
  });
  while (!ended && audit.position() < end) std::this_thread::sleep_for(std::chrono::milliseconds(20));
  const Offset reached = audit.position();
  stop = true;
  thread.join();
  if (result && reached > end)
    return Error{Errc::kRefused, "rebuilding the audit chain: it goes up to offset " + std::to_string(reached.value) +
                                     " of audit-events already, and --until ends it at " + std::to_string(end.value)};
  return result;
}

/// The agent that --only means, "agent=ID"; empty: none.
Result<std::string> only_agent(const Flags& flags) {
  constexpr std::string_view kAgent = "agent=";
  const bool any = std::ranges::any_of(flags.only, [&](const std::string& one) { return one.starts_with(kAgent); });
  if (!any) return std::string();
  if (flags.only.size() > 1 || flags.only[0].size() == kAgent.size() || !flags.until.empty())
    return Error{Errc::kUsage,
                 "--only " + flags.only[0] + ": one agent is rebuilt by itself, whole; no other --only and no --until"};
  return flags.only[0].substr(kAgent.size());
}

Result<int> run(Context& context, const Flags& flags) {
  TRY(streams::configure_logging({.level = streams::LogLevel::kWarning}));
  auto lock = streams::DirectoryLock::take(flags.into);
  if (!lock) return Error{Errc::kRefused, "replaying into " + flags.into + ": " + lock.error().message};
  std::optional<replay::Restored> restored;
  std::unique_ptr<streams::Log> log;
  if (flags.into_log) {
    TRY_ASSIGN(restored, restore_into_log(context, {flags.from, flags.signers, flags.lineage, flags.threads}));
    // What was restored is what is folded: it comes to the same digests, or this fails.
    TRY_ASSIGN(log, open_log(context.settings, LogAccess::kRead));
  } else {
    TRY_ASSIGN(log, open_replay_source(context.settings, flags.from, flags.signers));
  }
  Progress progress("replay", "records", context);
  TRY_ASSIGN(auto options, replay_options(context, flags, progress));
  auto stores = [&](const std::string& task) -> Result<std::shared_ptr<state::Store>> {
    TRY_ASSIGN(auto store, state::open_rocksdb_store((std::filesystem::path(flags.into) / "state" / task).string(), {}));
    return std::shared_ptr<state::Store>(std::move(store));
  };
  TRY_ASSIGN(const std::string agent, only_agent(flags));
  TRY_ASSIGN(auto tasks,
             agent.empty() ? replay::replay_tasks(*log, stores, options) : replay::replay_agent(*log, stores, options, agent));
  progress.finish();
  if (flags.only.empty()) {
    TRY_ASSIGN(const Offset end, replay::chain_end(*log, options, tasks));
    TRY(rebuild_audit(context.settings, *log, flags.into, end));
  }
  if (restored)
    print_restored(context, *restored, task_rows(tasks));
  else
    context.out << render_rows(task_rows(tasks).as_array(), context.format);
  return 0;
}

/// Compares each stored chain that is meant with the log; returns how many rows the last one has.
Result<int64_t> compare_audit(Context& context, const Flags& flags, streams::Log& log) {
  const streams::TopicNames names = topic_names(context.settings);
  int64_t rows = 0;
  if (auto chain = open_stored_chain(context.settings, context.settings.data_dir)) {
    TRY_ASSIGN(rows, replay::compare_chain(log, names, *chain, !reaches_the_end(flags.from)));
  } else if (chain.error().code != Errc::kIncomplete && chain.error().code != Errc::kNotFound) {
    return chain.error();
  }
  if (!flags.into.empty() && std::filesystem::exists(std::filesystem::path(flags.into) / "audit")) {
    Settings other = context.settings;
    other.database.url.clear();
    TRY_ASSIGN(auto chain, open_stored_chain(other, flags.into));
    TRY_ASSIGN(rows, replay::compare_chain(log, names, chain));
  }
  if (!flags.rebuilt_database.empty()) {
    Settings other = context.settings;
    other.database.url = flags.rebuilt_database;
    TRY_ASSIGN(auto chain, open_stored_chain(other, context.settings.data_dir));
    TRY_ASSIGN(const int64_t rebuilt_rows, replay::compare_chain(log, names, chain));
    if (rebuilt_rows < rows)
      return Error{Errc::kIncomplete, "comparing the rebuilt database with the running one: it has " +
                                          std::to_string(rebuilt_rows) + " of " + std::to_string(rows) + " audit rows"};
  }
  return rows;
}

Result<int> verify(Context& context, const Flags& flags) {
  TRY(streams::configure_logging({.level = streams::LogLevel::kWarning}));
  TRY_ASSIGN(const auto log, open_replay_source(context.settings, flags.from, flags.signers));
  Progress progress("verify", "records", context);
  TRY_ASSIGN(auto options, replay_options(context, flags, progress));
  std::mutex mutex;
  streams::Stores rebuilt;
  auto stores = [&](const std::string& task) -> Result<std::shared_ptr<state::Store>> {
    std::shared_ptr<state::Store> store = state::open_memory_store();
    std::lock_guard guard(mutex);
    rebuilt[task] = store;
    return store;
  };
  options.running = [&](const std::string& task) -> std::shared_ptr<const state::Reader> {
    auto store = state::open_rocksdb_store(state_dir(context.settings, task), {.read_only = true});
    return store ? std::shared_ptr<const state::Reader>(std::move(*store)) : nullptr;
  };
  TRY_ASSIGN(const std::string agent, only_agent(flags));
  TRY_ASSIGN(auto tasks,
             agent.empty() ? replay::replay_tasks(*log, stores, options) : replay::replay_agent(*log, stores, options, agent));
  progress.finish();
  const auto plans = streams::topology(options.names, options.scoring);

  // The stores beside the log, and those of an earlier replay: every row of the same commit must be the same.
  std::vector<std::string> directories = {context.settings.data_dir};
  if (!flags.into.empty()) directories.push_back(flags.into);
  for (const std::string& directory : directories) {
    for (const replay::ReplayedTask& task : tasks) {
      if (task.expected) continue;  // other code made other state: that is told, and nothing more can be compared
      const std::string dir = (std::filesystem::path(directory) / "state" / task.task).string();
      auto store = state::open_rocksdb_store(dir, {.read_only = true});
      if (!store && store.error().code == Errc::kNotFound && (task.manifests == 0 || directory == context.settings.data_dir))
        continue;
      if (!store) return store.error();
      if ((!reaches_the_end(flags.from) || !flags.until.empty() || !agent.empty()) && directory == context.settings.data_dir) {
        // A running system goes on; its state at another commit is another one.
        TRY_ASSIGN(const streams::TaskMeta meta, streams::read_meta(**store));
        if (meta.sequence != task.manifests) {
          context.err << task.task << ": the store beside the log stands at manifest " << meta.sequence << ", " << log->describe()
                      << " ends at " << task.manifests << "; they are not compared\n";
          continue;
        }
      }
      if (agent.empty()) {
        TRY(replay::compare_stores(task.task, *rebuilt.at(task.task), **store));
      } else {
        TRY_ASSIGN(const streams::TaskSpec spec, streams::find_task(plans, options.names, task.task));
        TRY(replay::compare_agent(spec, agent, *rebuilt.at(task.task), **store));
      }
    }
  }
  int64_t rows = 0;
  if (agent.empty()) {
    TRY_ASSIGN(rows, compare_audit(context, flags, *log));
  }
  context.out << render_rows(task_rows(tasks).as_array(), context.format);
  int64_t expected = 0;
  for (const replay::ReplayedTask& task : tasks) expected += task.expected ? 1 : 0;
  if (expected > 0)
    context.err << expected << " tasks differ as expected, because other code made them; everything else agrees. " << rows
                << " audit rows compared.\n";
  else
    context.err << "Replay verified: every manifest, output and store agrees; " << rows << " audit rows compared.\n";
  return 0;
}

/// What the chain says is missing for good: a replay of the rest does not make it whole.
Result<int> told_of_gaps(Context& context, Result<int> result) {
  const auto standing = read_chain_standing(context.settings, context.settings.data_dir);
  if (!standing) return result;
  for (const processors::Reconciled& one : standing->state.control.corrections.reconciled)
    context.err << "Reconciled, not whole: offsets " << one.from << " to " << one.to - 1 << " of " << one.topic << '/'
                << one.partition << " are missing for good, says event " << one.event_id << ": " << one.reason << '\n';
  return result;
}

}  // namespace

constexpr const char* kUntilHelp =
    "Only commits up to this instant (RFC 3339), or that folded no input past TOPIC/PARTITION=OFFSET,…; and the audit rows before "
    "the first of a later one";

void register_replay(Command& root) {
  auto flags = std::make_shared<Flags>();
  Command replay = root.command("replay", "Rebuild stores, decisions and audit rows from the log, and prove them");

  Command running =
      replay.command("run", "Rebuild into a fresh directory (and database); run again, it goes on where it was killed");
  running.example("assay replay run --from log --into rebuilt")
      .example("assay replay run --from archive:/var/lib/assay/archive --into rebuilt")
      .example("assay replay run --from archive --only agent=vm-17 --into vm-17")
      .example("assay --brokers NEW replay run --from archive:/mnt/archive --into-log --into /var/lib/assay")
      .option("--from", flags->from, kFromHelp)
      .option("--signers", flags->signers, kSignersHelp)
      .option("--into", flags->into, "Fresh directory for stores and audit files")
      .required()
      .flag("--into-log", flags->into_log, "First restore the archive's topics into the log of the settings, which must be empty")
      .option("--lineage", flags->lineage, "Number of the lineage that --into-log opens; 0: the one after the archive's")
      .option("--only", flags->only,
              "Only this task (scoring-3), processor (scoring) or agent (agent=ID), and no audit rows; may be given often")
      .option("--until", flags->until, kUntilHelp)
      .option("--rate", flags->rate, "At most so many records a second, to spare a live cluster")
      .option("--threads", flags->threads, "Tasks side by side; 0: one per core");
  running.run([flags](Context& context) { return told_of_gaps(context, run(context, *flags)); });

  Command verifying = replay.command("verify", "Fold everything again and compare with manifests, outputs, stores and audit rows");
  verifying.example("assay replay verify")
      .example("assay replay verify --into rebuilt")
      .option("--from", flags->from, kFromHelp)
      .option("--signers", flags->signers, kSignersHelp)
      .option("--into", flags->into, "Also compare what `replay run` has built there")
      .option("--rebuilt-database-url", flags->rebuilt_database,
              "Also compare the audit rows that `replay run --database-url` has built in this database")
      .option("--only", flags->only, "Only this task (scoring-3), processor (scoring) or agent (agent=ID); may be given often")
      .option("--until", flags->until, kUntilHelp)
      .option("--rate", flags->rate, "At most so many records a second, to spare a live cluster")
      .option("--threads", flags->threads, "Tasks side by side; 0: one per core");
  verifying.run([flags](Context& context) { return told_of_gaps(context, verify(context, *flags)); });

  register_replay_plan(replay);
  register_replay_promote(replay);
  register_replay_score(replay);
  register_replay_explain(replay);
  register_replay_what_if(replay);
  register_replay_backfill(replay);
}

}  // namespace assay::tools
