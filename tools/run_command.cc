// assay run: the pipeline, until it is stopped or until everything is folded.
#include <chrono>
#include <csignal>
#include <filesystem>
#include <sstream>
#include <thread>

#include "replay/audit_parity.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/archive_files.h"
#include "streams/config_feed.h"
#include "streams/http_server.h"
#include "streams/logging.h"
#include "streams/pipeline.h"
#include "tools/archiving.h"
#include "tools/audit_control.h"
#include "tools/audit_uploading.h"
#include "tools/checkpoint_commands.h"
#include "tools/checkpointing.h"
#include "tools/commands.h"
#include "tools/console/console.h"
#include "tools/debug_state.h"
#include "tools/open_log.h"
#include "tools/peer_door.h"
#include "tools/progress.h"
#include "tools/projection.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

std::atomic<bool> stop_requested{false};

void request_stop(int) { stop_requested = true; }

struct Flags {
  bool until_end = false;
  std::string only;
  std::string http;
};

Result<std::set<std::string>> parse_only(const std::string& text) {
  std::set<std::string> only;
  std::istringstream in(text);
  for (std::string name; std::getline(in, name, ',');) {
    if (name != "scoring" && name != "promotion" && name != "allocation" && name != "audit" && name != "archive")
      return Error{Errc::kUsage, "--only " + name + ": one of scoring, promotion, allocation, audit, archive"};
    only.insert(name);
  }
  return only;
}

/// Publishes the rules that this process was given, when they differ; without any, the defaults, when none were ever published.
Result<void> publish(Context& context, streams::Log& log) {
  const Settings& settings = context.settings;
  bool given = false;
  for (const auto& [key, origin] : settings.origins)
    for (const char* table : {"scoring", "promotion", "policy", "allocation"}) given = given || key.starts_with(table);
  TRY_ASSIGN(streams::RuleFeed feed, streams::read_rules(log, settings.topics.prefix));
  if (!given && !feed.kinds.empty()) return {};
  TRY_ASSIGN(auto published, streams::publish_rules(log, settings.topics.prefix, settings.rules, wall_now()));
  for (const streams::PublishedRules& one : published)
    if (one.changed) streams::log_info("rules.published", {{"kind", config_kind_name(one.kind)}, {"version", one.version}});
  return {};
}

/// The log with its topics and rules. A service waits for brokers that are not there yet, as it does for those that go away.
Result<std::unique_ptr<streams::Log>> start_log(Context& context, const MemoryShares& shares, const std::string& client_id,
                                                bool service) {
  auto once = [&]() -> Result<std::unique_ptr<streams::Log>> {
    TRY_ASSIGN(auto log, open_log(context.settings, LogAccess::kReadWrite, &stop_requested, &shares, client_id));
    TRY(ensure_topics(context.settings, *log));
    TRY(publish(context, *log));
    return log;
  };
  for (;;) {
    auto log = once();
    if (log || !service || stop_requested || log.error().code != Errc::kUnreachable) return log;
    streams::log_warning("log.unreachable", {{"detail", log.error().message}});
  }
}

/// Serves queries, health and metrics while the pipeline runs.
class FrontDoor {
 public:
  FrontDoor(const Settings& settings, streams::Log& log, streams::Pipeline& pipeline, AuditProjection& audit,
            streams::Metrics& metrics, PeerDoor& peer_door, Archiving* archiving, const AuditUploading* uploading,
            Checkpointing* checkpointing, const MemoryShares& shares, const state::StoreMemory& store_memory)
      : settings_(settings),
        log_(log),
        pipeline_(pipeline),
        audit_(audit),
        metrics_(metrics),
        peer_door_(peer_door),
        archiving_(archiving),
        uploading_(uploading),
        checkpointing_(checkpointing),
        shares_(shares),
        store_memory_(store_memory),
        peers_(log, topic_names(settings), [this](const std::string& task) { return Result(local(task)); },
               {.client_id = peer_door.client_id(),
                .live = true,
                .secret = settings.peers.secret,
                .now = wall_now,
                .stopping = &closing_}) {}
  ~FrontDoor() { close(); }

  Result<void> open(const std::string& tcp_address) {
    std::filesystem::remove(socket_path(settings_));  // left by a process that was killed: the directory's lock is ours
    streams::HttpOptions options;
    options.tcp_address = tcp_address;
    options.unix_path = socket_path(settings_);
    options.on_response = [this](int status) { metrics_.increment(streams::Metric::kHttpRequests, {std::to_string(status)}); };
    options.on_refused = [this](std::string_view why) { metrics_.increment(streams::Metric::kHttpRefused, {why}); };
    TRY_ASSIGN(server_, streams::HttpServer::open(options));
    server_->route("GET", "/query/{name}", [this](const streams::HttpRequest& request) {
      return respond(std::string(request.param("name")), request.query);
    });
    for (const char* name : {"scoreboard", "promotions", "allocations", "pools", "lag", "scores"})
      server_->route("GET", std::string("/api/") + name,
                     [this, name](const streams::HttpRequest& request) { return respond(name, request.query); });
    streams::OperationsEndpoints endpoints;
    endpoints.health = [] { return Json::object().set("status", "ok").set("kernelConfigured", false); };
    endpoints.ready = [this] { return ready(); };
    endpoints.metrics = [this] { return metrics_.exposition(); };
    endpoints.status_page = console_page();
    streams::route_operations(*server_, std::move(endpoints));
    const bool local_only = tcp_address.empty() || is_local_address(tcp_address);
    server_->route("GET", "/debug/state", [this, local_only](const streams::HttpRequest&) {
      if (local_only) return debug();
      return streams::error_response(
          403, "FORBIDDEN", "the state of this process is told on this machine alone: ask " + control_socket_path(settings_));
    });
    server_->start();
    std::filesystem::remove(control_socket_path(settings_));
    TRY_ASSIGN(control_, streams::HttpServer::open({.unix_path = control_socket_path(settings_)}));
    control_->route("POST", "/audit/control", [this](const streams::HttpRequest& request) { return control(request); });
    control_->route("POST", "/audit/compare", [this](const streams::HttpRequest&) { return compare(); });
    control_->route("POST", "/audit/gap", [this](const streams::HttpRequest&) {
      const Result<Json> gaps = find_gaps(settings_, log_);
      return gaps ? streams::json_response(*gaps) : streams::error_response(gaps.error());
    });
    control_->route("POST", "/audit/checkpoint", [this](const streams::HttpRequest&) { return checkpoint(); });
    control_->route("GET", "/debug/state", [this](const streams::HttpRequest&) { return debug(); });
    control_->start();
    if (streams::HttpServer* server = peer_door_.server()) {
      peers_.serve(*server);
      server->start();
    }
    sampler_ = std::thread([this] { sample(); });
    return {};
  }

  void close() {
    closing_ = true;
    if (sampler_.joinable()) sampler_.join();
    if (server_ != nullptr) server_->stop();
    if (control_ != nullptr) control_->stop();
    if (streams::HttpServer* server = peer_door_.server()) server->stop();
    server_.reset();
    control_.reset();
  }

  uint16_t port() const { return server_->port(); }

 private:
  /// The store of a task that this process has, as it stands now.
  std::optional<streams::LocalTask> local(const std::string& name) {
    for (const streams::TaskView& task : pipeline_.tasks())
      if (task.name == name && task.store != nullptr)
        return streams::LocalTask{task.store->snapshot(), task.state == streams::TaskState::kRunning};
    return std::nullopt;
  }

  QueryTarget target() {
    QueryTarget out;
    out.names = topic_names(settings_);
    out.log = &log_;
    out.parts = peers_.parts();
    for (const streams::TaskView& task : pipeline_.tasks()) out.running.insert(task.name);
    if (const Offset position = audit_.position(); position >= Offset(0)) out.audit_position = position;
    if (!settings_.archive.url.empty()) out.archive = {settings_.archive.segment_age_ms, std::nullopt};
    if (archiving_ != nullptr) out.archive->places = archiving_->places();
    if (const processors::AuditControl control = audit_.control(); control.paused)
      out.audit_paused = "audit pause" + (control.paused_why.empty() ? "" : ", " + control.paused_why);
    return out;
  }

  streams::HttpResponse respond(const std::string& name, const streams::HttpFields& params) {
    Result<Json> rows = Json();
    if (name == "lag") {
      std::lock_guard lock(lag_mutex_);
      QueryTarget asked = target();
      asked.lag = &lag_;
      rows = answer(asked, name, params);
    } else {
      rows = answer(target(), name, params);
    }
    return rows ? streams::json_response(*rows) : streams::error_response(rows.error());
  }

  /// Control events of a person who may open the socket, whose place in the log is ours alone to write while it is embedded.
  streams::HttpResponse control(const streams::HttpRequest& request) {
    std::vector<std::string> events;
    if (auto body = parse_json(request.body))
      if (const Json* list = body->find("events"); list != nullptr && list->is_array())
        for (const Json& event : list->as_array())
          if (event.is_string()) events.push_back(event.as_string());
    auto done = append_control_events(log_, topic_names(settings_).full(Topic::kAudit), events);
    return done ? streams::json_response(Json::object().set("appended", static_cast<int64_t>(events.size())))
                : streams::error_response(done.error());
  }

  streams::HttpResponse debug() {
    return streams::json_response(
        debug_state(ready().document, answer(target(), "promotions", {}), answer(target(), "allocations", {})));
  }

  /// Whether the stored rows are those that the log makes, for whoever cannot read the log beside us.
  streams::HttpResponse compare() {
    auto compared = [this]() -> Result<int64_t> {
      TRY_ASSIGN(const streams::StoredChain chain, open_stored_chain(settings_, settings_.data_dir));
      return replay::compare_chain(log_, topic_names(settings_), chain, false, &closing_);
    }();
    return compared ? streams::json_response(Json::object().set("rows", *compared)) : streams::error_response(compared.error());
  }

  streams::HttpResponse checkpoint() {
    auto made = checkpointing_ != nullptr
                    ? checkpointing_->make_now()
                    : Error{Errc::kRefused, "making a checkpoint: this process makes none, audit.checkpoint_interval is 0s"};
    return made ? streams::json_response(*made) : streams::error_response(made.error());
  }

  streams::Readiness ready() {
    Json tasks = Json::array();
    for (const streams::TaskView& task : pipeline_.tasks())
      tasks.push_back(Json::object()
                          .set("task", task.name)
                          .set("state", streams::task_state_name(task.state))
                          .set("detail", task.detail)
                          .set("sequence", task.sequence));
    Json members = Json::array();
    for (const streams::MemberView& member : pipeline_.members())
      members.push_back(Json::object().set("processor", member.processor).set("joined", member.joined));
    Json standbys = Json::array();
    for (const streams::StandbyView& one : pipeline_.standbys())
      standbys.push_back(Json::object()
                             .set("task", one.task)
                             .set("sequence", one.sequence)
                             .set("committed", one.committed)
                             .set("detail", one.trouble));
    const bool ready = pipeline_.ready();  // whatever becomes of the copies
    Json body = Json::object()
                    .set("status", ready ? "ready" : "not ready")
                    .set("members", std::move(members))
                    .set("tasks", std::move(tasks))
                    .set("standbys", std::move(standbys));
    if (archiving_ != nullptr) body.set("archive", archiving_->describe());  // readiness does not wait for it
    if (uploading_ != nullptr) body.set("auditArchive", uploading_->describe());
    return {ready, std::move(body)};
  }

  void sample() {
    while (!closing_) {
      {
        std::lock_guard lock(lag_mutex_);
        QueryTarget asked = target();
        asked.lag = &lag_;
        if (auto rows = measure_lag(asked, false)) streams::export_lag(metrics_, *rows);
        export_pools();
        export_memory();
        audit_.export_metrics();
        if (archiving_ != nullptr) archiving_->export_metrics();
      }
      for (int tick = 0; tick < 50 && !closing_; ++tick) std::this_thread::sleep_for(std::chrono::milliseconds(100));
    }
  }

  void export_memory() {
    const state::StoreMemory::Use stores = store_memory_.use();
    MemoryUse use;
    use.stores = static_cast<int64_t>(stores.blocks + stores.memtables);
    use.memtables = static_cast<int64_t>(stores.memtables);
    for (const streams::TaskView& task : pipeline_.tasks()) {
      use.commits += static_cast<int64_t>(task.staged_bytes);
      use.agents += static_cast<int64_t>(task.cache_bytes);
    }
    const streams::LogMemory log = log_.memory();
    use.reading = log.reading;
    use.writing = log.writing;
    use.resident = resident_bytes().value_or(0);
    tools::export_memory(metrics_, shares_, use);
  }

  void export_pools() {
    streams::Stores stores;
    if (auto task = local("allocation-0")) stores["allocation-0"] = task->rows;
    const streams::TopicNames names = topic_names(settings_);
    auto pools = streams::answer_from(streams::parts_of(stores, log_, names), names, {"pools", {{"waiting", "1"}}});
    // Another process owns them, maybe since a moment ago: what it says now must not stand here as well.
    static const Json kNone = Json::array();
    const Json& rows = pools ? *pools : kNone;
    for (auto [metric, member] :
         {std::pair{streams::Metric::kPoolCapacity, "capacity"}, std::pair{streams::Metric::kPoolUsed, "used"},
          std::pair{streams::Metric::kPoolReserved, "reserved"}, std::pair{streams::Metric::kPoolWaiting, "waiting"}}) {
      std::vector<streams::GaugeSeries> series;
      for (const Json& pool : rows.as_array())
        series.push_back({{std::string(pool.string_or("pool", ""))}, pool.number_or(member, 0)});
      metrics_.replace(metric, series);
    }
  }

  const Settings& settings_;
  streams::Log& log_;
  streams::Pipeline& pipeline_;
  AuditProjection& audit_;
  streams::Metrics& metrics_;
  PeerDoor& peer_door_;
  Archiving* archiving_;
  const AuditUploading* uploading_;
  Checkpointing* checkpointing_;
  const MemoryShares& shares_;
  const state::StoreMemory& store_memory_;
  std::atomic<bool> closing_{false};
  streams::Peers peers_;
  std::unique_ptr<streams::HttpServer> server_, control_;
  std::mutex lag_mutex_;
  streams::LagMonitor lag_;
  std::thread sampler_;
};

streams::LogLevel parse_level(const std::string& level) {
  return level == "debug"   ? streams::LogLevel::kDebug
         : level == "warn"  ? streams::LogLevel::kWarning
         : level == "error" ? streams::LogLevel::kError
                            : streams::LogLevel::kInfo;
}

/// Reports in = accepted + filtered + dead letters, from the tallies that stand in the stores of this directory; what other
/// processes own, they account for.
Result<Json> account(const Settings& settings, streams::Log& log) {
  const streams::TopicNames names = topic_names(settings);
  processors::Tally sum;
  int64_t dead_written = 0;
  for (const streams::ProcessorPlan& plan : streams::topology(names, {})) {
    if (plan.name != "scoring") continue;
    for (int32_t p = 0; p < plan.task_count(names); ++p) {
      auto store = open_store(settings, plan.task(p), log);
      if (!store && store.error().code == Errc::kIncomplete) continue;
      if (!store) return store.error();
      TRY_ASSIGN(streams::TaskMeta meta, streams::read_meta(**store));
      sum.delivered += meta.tally.delivered;
      sum.accepted += meta.tally.accepted;
      for (size_t r = 0; r < kReasonCount; ++r) sum.refused[r] += meta.tally.refused[r];
      for (const auto* written : {&meta.written, &meta.earlier})
        for (const auto& [tp, n] : *written)
          if (tp.topic == dlq_of(topic_spec(Topic::kReports).name)) dead_written += n;
    }
  }
  uint64_t filtered = 0, dead = 0;
  Json by_reason = Json::object();
  for (size_t r = 0; r < kReasonCount; ++r) {
    (is_filtered(static_cast<Reason>(r)) ? filtered : dead) += sum.refused[r];
    if (sum.refused[r] > 0) by_reason.set(reason_code(static_cast<Reason>(r)), sum.refused[r]);
  }
  if (sum.delivered != sum.accepted + filtered + dead || dead != static_cast<uint64_t>(dead_written))
    return Error{Errc::kUnexpected, "accounting for the reports: " + std::to_string(sum.delivered) + " in, " +
                                        std::to_string(sum.accepted) + " accepted + " + std::to_string(filtered) + " filtered + " +
                                        std::to_string(dead) + " dead letters (" + std::to_string(dead_written) + " written)"};
  return Json::object()
      .set("delivered", sum.delivered)
      .set("accepted", sum.accepted)
      .set("filtered", filtered)
      .set("deadLetters", dead)
      .set("byReason", std::move(by_reason));
}

using OpenSigner = std::function<Result<std::shared_ptr<streams::Signer>>()>;

/// The usual signer although it is away, while an emergency key signs in its stead: that one has to sign something now.
/// Errors: kRefused (none does), and those of the chain and of that key.
Result<std::shared_ptr<streams::Signer>> stood_in_for(const Settings& settings, const OpenSigner& open) {
  TRY_ASSIGN(const ChainStanding standing, read_chain_standing(settings, settings.data_dir));
  const processors::AuditControl& control = standing.state.control;
  const streams::SignerEntry* usual = standing.signers.find(settings.audit.signer_id);
  if (control.emergency.empty() || usual == nullptr)
    return Error{Errc::kRefused, "starting without the signer " + settings.audit.signer_id + ": no emergency key signs"};
  TRY_ASSIGN(const auto emergency, open_key(settings, place_of(settings, control.keys.at(control.emergency))));
  TRY(probe_signer(*emergency));
  return late_signer(usual->key, open);
}

/// Checks every guard, the signer among them: where a KMS, an HSM or a proxy must sign, it has to sign something first. A key
/// file is opened later, when the directory is ours.
Result<std::shared_ptr<streams::Signer>> checked_signer(const Settings& settings, streams::Metrics& metrics) {
  if (settings.audit.signer == "file") {
    TRY(check_production_guards(settings, wall_now().value));
    return std::shared_ptr<streams::Signer>();
  }
  const OpenSigner open = [&settings, &metrics] {
    return open_signer(settings, [&metrics, id = settings.audit.signer_id](const Error&) {
      metrics.increment(streams::Metric::kSignerFailures, {id});
    });
  };
  Result<std::shared_ptr<streams::Signer>> signer = open();
  Result<void> tried = signer ? probe_signer(**signer) : Result<void>(signer.error());
  if (!tried) {
    if (auto away = stood_in_for(settings, open)) {
      signer = std::move(away);
      tried = {};
    }
  }
  TRY(check_production_guards(settings, wall_now().value, tried ? std::string() : tried.error().message));
  TRY(std::move(tried));
  return signer;
}

Result<int> run(Context& context, const Flags& flags) {
  const Settings& settings = context.settings;
  TRY_ASSIGN(auto only, parse_only(flags.only));
  stop_requested = false;
  std::signal(SIGTERM, request_stop);
  std::signal(SIGINT, request_stop);
  std::signal(SIGPIPE, SIG_IGN);
  streams::Metrics metrics;
  TRY_ASSIGN(std::shared_ptr<streams::Signer> signer, checked_signer(settings, metrics));
  TRY(streams::configure_logging({.level = context.quiet ? streams::LogLevel::kWarning : parse_level(settings.log_level)}));
  auto lock = streams::DirectoryLock::take(settings.data_dir);
  if (!lock) return Error{Errc::kRefused, "running on " + settings.data_dir + ": " + lock.error().message};
  TRY_ASSIGN(auto peer_door, PeerDoor::open(settings));
  const MemoryNeeds needs = memory_needs(settings);
  const MemoryShares shares = share_memory(settings.memory_bytes, needs);
  auto started = start_log(context, shares, peer_door->client_id(), !flags.until_end);
  if (!started && stop_requested) return 0;
  TRY_ASSIGN(auto log, std::move(started));
  if (!signer) {
    TRY_ASSIGN(signer, open_signer(settings));
  }
  if (settings.profile == Profile::kProduction && settings.audit.signer == "file") {
    // The guards let this pass only by somebody's leave, for a time.
    Json leave = Json::object().set("by", settings.audit.kms_waiver_by);
    leave.set("until", format_rfc3339_ms(settings.audit.kms_waiver_until_ms.value_or(0)));
    const std::string event =
        control_event("audit.kms_waiver", "user:" + settings.audit.kms_waiver_by, wall_now(), std::move(leave));
    TRY_ASSIGN(const std::vector<std::string> sealed, seal_events(settings, std::span(&event, 1)));
    TRY(append_control_events(*log, topic_names(settings).full(Topic::kAudit), sealed));
  }
  TRY_ASSIGN(auto sink, open_audit_sink(settings, settings.data_dir, signer));
  const streams::TopicNames names = topic_names(settings);
  AuditProjection audit(settings, *log, std::move(sink), signer, streams::audit_group(names), metrics);

  streams::PipelineOptions options;
  options.names = names;
  options.only = only;
  options.until_end = flags.until_end;
  options.patience = streams::Milliseconds(settings.run.patience_ms);
  options.gave_up = [] { stop_requested = true; };  // nobody waits on for a log that does not answer
  options.standbys = static_cast<int>(settings.run.standbys);
  // A service keeps its name over a quick restart, so that nothing moves.
  if (!flags.until_end && !settings.kafka.brokers.empty()) options.instance_id = peer_door->instance_id();
  options.task.commit_interval = streams::Milliseconds(settings.commit.interval_ms);
  options.task.max_commit_records = static_cast<size_t>(settings.commit.max_records);
  options.task.checkpoint_interval = streams::Milliseconds(settings.state.checkpoint_interval_ms);
  options.task.checkpoints_kept = static_cast<size_t>(settings.state.checkpoints_kept);
  options.scoring.audit_each = settings.audit.eval_submit == "each";
  options.scoring.cache_bytes = static_cast<size_t>(shares.agents / needs.scoring_tasks());
  options.task.max_commit_bytes = static_cast<size_t>(shares.commits / needs.tasks());
  const auto store_memory = state::make_store_memory(static_cast<size_t>(shares.stores), static_cast<size_t>(shares.memtables()));
  auto open_store = [&](const std::string& task) -> Result<std::shared_ptr<state::Store>> {
    TRY_ASSIGN(auto store, state::open_rocksdb_store(state_dir(settings, task), {.memory = store_memory}));
    return std::shared_ptr<state::Store>(std::move(store));
  };
  std::unique_ptr<Checkpointing> checkpointing;
  if (settings.audit.checkpoint_interval_ms > 0 && (only.empty() || only.contains("audit"))) {
    TRY_ASSIGN(checkpointing, Checkpointing::open(settings, *log, metrics));
  }
  streams::Pipeline pipeline(*log, options, open_store,
                             checkpointing ? checkpointing->watch(audit.projection()) : audit.projection(), metrics);

  std::optional<Archiving> archiving;
  if (!settings.archive.url.empty() && (only.empty() || only.contains("archive")))
    archiving.emplace(settings, *log, signer, options.instance_id, shares, metrics);
  std::optional<AuditUploading> uploading;
  if (!audit_archive_place(settings).empty() && (only.empty() || only.contains("audit")))
    uploading.emplace(settings, audit, metrics);
  FrontDoor door(settings, *log, pipeline, audit, metrics, *peer_door, archiving ? &*archiving : nullptr,
                 uploading ? &*uploading : nullptr, checkpointing.get(), shares, *store_memory);
  const bool serve = !flags.http.empty() || (!flags.until_end && settings.origins.contains("http.addr"));
  TRY(door.open(serve ? (flags.http.empty() ? settings.http_addr : flags.http) : std::string()));
  if (!peer_door->address().empty()) streams::log_info("peers.listening", {{"address", peer_door->address()}});
  if (serve) streams::log_info("http.listening", {{"port", int64_t{door.port()}}});

  std::atomic<bool> done{false};
  std::thread watcher;
  if (flags.until_end) {
    watcher = std::thread([&] {
      Progress progress("run", "offsets", context);
      int64_t most = 0, last = 0;
      while (!done) {
        if (auto behind = pipeline.offsets_behind()) {
          most = std::max(most, *behind);
          last = std::max(last, most - *behind);
          if (most > 0) progress.update(static_cast<uint64_t>(last), static_cast<double>(last) / static_cast<double>(most));
        }
        for (int tick = 0; tick < 10 && !done; ++tick) std::this_thread::sleep_for(std::chrono::milliseconds(50));
      }
      if (most > 0) progress.finish();
    });
  }
  Result<void> result = pipeline.run(stop_requested);
  if (checkpointing && flags.until_end && result && !stop_requested) result = checkpointing->finish();
  if (archiving && flags.until_end && result && !stop_requested) result = archiving->finish(stop_requested);
  if (uploading && flags.until_end && result && !stop_requested) result = uploading->finish(stop_requested);
  done = true;
  if (watcher.joinable()) watcher.join();
  door.close();
  archiving.reset();
  uploading.reset();
  checkpointing.reset();
  std::filesystem::remove(socket_path(settings));
  std::filesystem::remove(control_socket_path(settings));
  TRY(std::move(result));
  if (flags.until_end && !stop_requested) {
    TRY_ASSIGN(Json accounts, account(settings, *log));
    context.out << render_object(accounts, context.format);
  }
  return 0;
}

}  // namespace

void register_run(Command& root) {
  auto flags = std::make_shared<Flags>();
  Command command = root.command("run", "Run the pipeline: reports in, scores, decisions, grants and audit rows out");
  command.example("assay run --until-end")
      .example("assay --brokers 127.0.0.1:9092 --database-url postgresql://… run --http 127.0.0.1:8050")
      .flag("--until-end", flags->until_end, "End when every partition is folded and committed and nothing more follows")
      .option("--only", flags->only, "Only these: scoring,promotion,allocation,audit,archive")
      .option("--http", flags->http, "Serve HTTP there (host:port)")
      .unguarded();  // it checks the guards itself, the signer among them
  command.run([flags](Context& context) { return run(context, *flags); });
}

}  // namespace assay::tools
