#include "replay/simulator.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <set>
#include <utility>

#include "replay/sim_check.h"
#include "replay/sim_disk.h"
#include "streams/audit_projector.h"
#include "streams/config_feed.h"
#include "streams/logging.h"
#include "streams/topic_admin.h"

namespace assay::replay {
namespace {

using streams::SimRequest;

constexpr WallTime kEpoch{1767700000000};  // when virtual time begins, by every clock that is right
constexpr Milliseconds kSession{500};
constexpr Milliseconds kFaultsEnd{2000};
constexpr Milliseconds kSettleBy{60000};
constexpr Milliseconds kQuiet{2500};  // a run with a halt is over when nothing has moved for so long

class World {
 public:
  World(const SimOptions& options, const SimWork& work, streams::Metrics& metrics, const SimJudge& judge)
      : options_(options),
        work_(work),
        metrics_(metrics),
        judge_(judge),
        dice_(options.seed ^ 0x5eed),
        network_dice_(options.seed ^ 0x7e7),
        scheduler_(options.seed),
        referee_(scheduler_, kEpoch),
        cluster_(scheduler_, log_options()),
        admin_log_(cluster_.client(admin_)),
        names_("", static_cast<int32_t>(pick({1, 1, 1, 2, 2, 3}))) {
    const auto nodes = static_cast<size_t>(pick({1, 1, 2, 2, 2, 3}));
    pipeline_.names = names_;
    pipeline_.task.commit_interval = Milliseconds(pick({5, 20, 50, 150}));
    pipeline_.task.max_commit_records = static_cast<size_t>(pick({1, 3, 10, 50000}));
    pipeline_.task.poll_records = static_cast<size_t>(pick({1, 4, 5000}));
    pipeline_.task.checkpoint_interval = Milliseconds(pick({0, 100, 400, 1500}));
    pipeline_.scoring.audit_each = dice_.chance(250);
    pipeline_.retry_min = Milliseconds(50);
    pipeline_.retry_max = Milliseconds(600);
    static_members_ = dice_.chance(500);
    SimDice warm(options.seed ^ 0x57a2d);  // dice of their own: where there are none, all is as it would be without
    const int copies = nodes == 1 || warm.chance(500) ? 0 : warm.chance(800) ? 1 : 2;
    pipeline_.standbys = options.standbys.value_or(copies);
    pipeline_.standby_look = Milliseconds(warm.between(1, 8) * 40);
    pipeline_.task.follow_interval = Milliseconds(warm.between(1, 6) * 40);
    plan_ = FaultPlan::make(options.seed, options.faults, nodes, kFaultsEnd);
    for (size_t n = 0; n < nodes; ++n) nodes_.push_back(std::make_unique<Node>(options.seed * 8 + n));
  }
  ~World() {
    for (auto& node : nodes_)
      if (node->life != nullptr) end(*node);
    referee_.kill();
  }

  SimOutcome run() {
    const uint64_t errors_before = streams::errors_logged();
    const double takeovers_before = counted(streams::Metric::kStandbyTakeovers);
    told_otherwise_before_ = counted(streams::Metric::kToldOtherwise);
    bool finished = false;
    referee_.spawn([&] {
      referee();
      finished = true;
    });
    if (!scheduler_.run([&] { return finished; })) fail("the run stands still: somebody spins, or everybody waits for nobody");
    if (outcome_.struck.empty() && streams::errors_logged() != errors_before) fail("an error was logged though nothing went wrong");
    if (const double n = counted(streams::Metric::kStandbyTakeovers) - takeovers_before; n > 0)
      outcome_.reached["takeover of a copy"] = static_cast<int64_t>(n);
    outcome_.took = scheduler_.uptime();
    outcome_.steps = scheduler_.steps();
    return std::move(outcome_);
  }

  void note(std::string_view text) {
    outcome_.trace += std::to_string(scheduler_.time().count());
    outcome_.trace += ' ';
    outcome_.trace += text;
    outcome_.trace += '\n';
  }

 private:
  /// One start of the service on a machine.
  struct Life final : streams::SimHost {
    Life(World& world_in, size_t node_in) : world(world_in), node(node_in), process(world_in.scheduler_, kEpoch) {}
    bool alive() const override { return process.alive(); }
    bool there(SimRequest what) override { return world.there(*this, what); }
    bool back(SimRequest what) override { return world.back(*this, what); }
    std::optional<Milliseconds> end_again(bool noticed) override { return world.end_again(*this, noticed); }
    size_t pass_over(size_t partitions) override { return world.pass_over(partitions); }

    World& world;
    size_t node;
    SimProcess process;
    std::unique_ptr<streams::Log> log;
    std::unique_ptr<streams::AuditSink> sink;
    std::shared_ptr<streams::Signer> signer;
    std::unique_ptr<streams::AuditProjector> projector;
    std::unique_ptr<streams::Pipeline> pipeline;
    std::atomic<bool> stop{false};
    bool ended = false;
    std::optional<Milliseconds> copy_later;  // of the EndTxn whose answer was lost just now
  };
  struct Node {
    explicit Node(uint64_t seed) : disk(seed) {}
    SimDisk disk;
    std::unique_ptr<Life> life;
    Milliseconds unreachable_until{0};
    Milliseconds skew{0};
    bool wanted = true;  // to be started when it is down
  };

  int64_t pick(std::initializer_list<int64_t> of) { return *(of.begin() + dice_.below(std::ssize(of))); }
  void fail(std::string what) {
    if (!outcome_.failure) outcome_.failure = std::move(what);
  }
  void reach(std::string_view what) { ++outcome_.reached[std::string(what)]; }
  bool stormy() const { return scheduler_.time() < kFaultsEnd; }
  /// Whether a fault that happens to requests happens to this one, and the dice for what it has to choose. What one chance came to
  /// does not change what another comes to.
  std::optional<SimDice> strikes(Fault fault) {
    const auto i = static_cast<size_t>(fault);
    if (plan_.permille[i] == 0 || !stormy()) return std::nullopt;
    const uint32_t n = ++chances_[i];
    SimDice dice((options_.seed * kFaultCount + i) ^ (uint64_t{n} << 40));
    if (!dice.chance(plan_.permille[i]) || !allowed({fault, n})) return std::nullopt;
    struck({fault, n});
    if (options_.trace) note(to_string(FaultEvent{fault, n}));
    return dice;
  }
  bool allowed(const FaultEvent& event) const { return !options_.only || options_.only->contains(event); }
  void struck(const FaultEvent& event) {
    reach(fault_name(event.fault));
    outcome_.struck.push_back(event);
  }

  streams::SimLogOptions log_options() {
    streams::SimLogOptions o;
    o.session_timeout = kSession;
    o.rebalance_timeout = Milliseconds(1500);
    o.transaction_timeout = Milliseconds(1000);
    o.marker_delay = [this](const TopicPartition&) {
      auto dice = strikes(Fault::kSlowMarkers);
      return Milliseconds(dice ? dice->between(1, 80) : 0);
    };
    o.torn = [this](const std::string& id, bool commit) {
      torn_.insert(id);
      reach("torn");
      tearing_ = SimDice(options_.seed ^ scheduler_.steps()).chance(500);
      if (options_.trace) note("torn " + id + (commit ? " commit" : " abort"));
    };
    return o;
  }

  // ------------------------------------------------------------------------------------------------------------- the edges

  bool there(Life& life, SimRequest what) {
    if (!life.alive()) return false;
    int64_t us = network_dice_.between(20, 300);
    if (auto dice = strikes(Fault::kSlowNetwork)) us += dice->between(1000, 200000);
    life.process.sleep_for(Microseconds(us));
    Node& node = *nodes_[life.node];
    const bool coordinated = what == SimRequest::kInitWriter || what == SimRequest::kTxnOffsets || what == SimRequest::kEndTxn ||
                             what == SimRequest::kCommitted || what == SimRequest::kGroup;
    while (coordinated && scheduler_.uptime() < coordinator_back_) life.process.sleep(coordinator_back_ - scheduler_.uptime());
    if (scheduler_.uptime() >= node.unreachable_until) return true;
    if (network_dice_.chance(200)) {
      life.process.sleep(Milliseconds(network_dice_.between(1, 300)));
      return scheduler_.uptime() >= node.unreachable_until;
    }
    while (scheduler_.uptime() < node.unreachable_until) life.process.sleep(node.unreachable_until - scheduler_.uptime());
    return true;
  }

  bool back(Life& life, SimRequest what) {
    if (!life.alive()) return false;
    if (network_dice_.chance(300)) life.process.sleep_for(Microseconds(network_dice_.between(1, 200)));
    const bool ends = what == SimRequest::kEndTxn || what == SimRequest::kTxnOffsets;
    if (scheduler_.uptime() < nodes_[life.node]->unreachable_until && network_dice_.chance(500)) return false;
    if (what == SimRequest::kEndTxn) life.copy_later.reset();
    // What was torn shows only when the rest of it does not come through as well.
    bool lost = ends || what == SimRequest::kWrite ? std::exchange(tearing_, false) : false;
    if (what == SimRequest::kEndTxn)
      if (auto dice = strikes(Fault::kLateEnd)) {
        life.copy_later = Milliseconds(dice->between(1, 300));
        lost = true;
      }
    if (strikes(Fault::kLostAnswer)) lost = true;
    if (lost && ends) reach("ambiguous");
    return !lost;
  }

  std::optional<Milliseconds> end_again(Life& life, bool noticed) {
    if (auto later = std::exchange(life.copy_later, std::nullopt)) return later;
    if (noticed) return std::nullopt;
    auto dice = strikes(Fault::kTornTransaction);
    if (!dice) return std::nullopt;
    return Milliseconds(dice->chance(700) ? 0 : dice->between(1, 100));
  }

  size_t pass_over(size_t partitions) {
    auto dice = strikes(Fault::kReordered);
    return dice ? static_cast<size_t>(dice->below(static_cast<int64_t>(partitions))) : 0;
  }

  SimConnection connection(Life& life) {
    return {[this, &life] {
              life.process.sleep_for(Microseconds(network_dice_.between(50, 2000)));
              return scheduler_.uptime() >= database_back_;
            },
            [this, &life] {
              life.process.sleep_for(Microseconds(network_dice_.between(1, 200)));
              return scheduler_.uptime() >= database_back_ && !strikes(Fault::kLostCommit);
            }};
  }

  std::function<void()> disk_wait(Life& life) {
    return [this, &life] {
      auto dice = strikes(Fault::kSlowDisk);
      life.process.sleep_for(Microseconds(dice ? dice->between(1000, 400000) : network_dice_.between(1, 60)));
    };
  }

  // ----------------------------------------------------------------------------------------------------------- the machines

  void start(size_t n) {
    Node& node = *nodes_[n];
    if (node.life != nullptr) return;
    if (options_.trace) note("start " + std::to_string(n));
    node.life = std::make_unique<Life>(*this, n);
    Life& life = *node.life;
    life.process.jump_clock(node.skew);
    life.log = cluster_.client(life);
    life.sink = open_sim_sink(database_, connection(life));
    life.signer = make_sim_signer([this] { return scheduler_.uptime() >= signer_back_; });
    streams::PipelineOptions options = pipeline_;
    if (static_members_) options.instance_id = "machine-" + std::to_string(n);
    streams::Projection projection;
    projection.run = [this, &life](const streams::Membership* member, const std::atomic<bool>& stop) {
      streams::AuditProjectorOptions o;
      o.topic = names_.full(Topic::kAudit);
      o.group = streams::audit_group(names_);
      o.member = member;
      o.batch_rows_max = 8;
      o.linger = Milliseconds(5);
      o.retry_min = Milliseconds(20);
      o.retry_max = Milliseconds(300);
      o.dead_letter = [this](const RecordView&, Reason, std::string_view detail) -> Result<void> {
        fail("the chain refuses a record of ours: " + std::string(detail));
        return {};
      };
      o.writer_of = [](const RecordView& record) -> std::optional<processors::WriterStamp> {
        auto text = record.header(kHeaderWriter);
        auto stamp = text ? streams::WriterStamp::parse(*text) : std::nullopt;
        if (!stamp) return std::nullopt;
        return processors::WriterStamp{std::string(stamp->writer), static_cast<uint64_t>(stamp->n)};
      };
      life.projector = std::make_unique<streams::AuditProjector>(*life.log, *life.sink, life.signer, std::move(o), life.process);
      return life.projector->run(stop);
    };
    projection.position = [&life] { return life.projector ? life.projector->position() : Offset(-1); };
    life.pipeline = std::make_unique<streams::Pipeline>(
        *life.log, options, [this, &life, n](const std::string& task) { return nodes_[n]->disk.open(task, disk_wait(life)); },
        std::move(projection), metrics_, life.process);
    life.process.spawn([&life] {
      (void)life.pipeline->run(life.stop);
      life.ended = true;
    });
  }

  /// The process is gone; what the group knows of it is not.
  void end(Node& node) {
    node.life->process.kill();
    node.life->projector.reset();
    node.life->pipeline.reset();
    dead_.push_back(std::move(node.life));
  }

  void crash(size_t n, Milliseconds away) {
    Node& node = *nodes_[n];
    if (node.life == nullptr) return;
    if (options_.trace) note("crash " + std::to_string(n));
    Life* life = node.life.get();
    end(node);
    scheduler_.at(scheduler_.uptime() + kSession, [this, life] { cluster_.expire(*life); });
    start_later(n, away);
  }

  void start_later(size_t n, Milliseconds away) {
    if (!nodes_[n]->wanted) return;
    scheduler_.at(scheduler_.uptime() + away, [this, n] {
      if (nodes_[n]->wanted) start(n);
    });
  }

  void strike(const PlannedFault& f) {
    const FaultEvent event{f.fault, f.n};
    if (!allowed(event)) return;
    Node& node = *nodes_[f.node];
    SimDice dice(f.pick);
    auto struck = [&] {
      this->struck(event);
      if (options_.trace)
        note(to_string(event) + " node " + std::to_string(f.node) + " for " + std::to_string(f.lasts.count()) + " ms");
    };
    switch (f.fault) {
      case Fault::kCrash:
      case Fault::kPowerLoss:
      case Fault::kLostStore: {
        if (node.life == nullptr) return;
        struck();
        crash(f.node, f.lasts);
        if (f.fault == Fault::kPowerLoss && node.disk.lose_power() > 0) reach("power_loss_lost_batches");
        if (f.fault == Fault::kLostStore) {
          const auto tasks = node.disk.tasks();
          if (!tasks.empty()) node.disk.remove(tasks[static_cast<size_t>(dice.below(std::ssize(tasks)))]);
        }
        return;
      }
      case Fault::kPause:
      case Fault::kZombie: {
        if (node.life == nullptr || node.life->process.paused()) return;
        struck();
        Life* life = node.life.get();
        life->process.pause();
        scheduler_.at(scheduler_.uptime() + f.lasts, [life] {
          if (life->alive()) life->process.resume();
        });
        if (f.lasts >= kSession)
          scheduler_.at(scheduler_.uptime() + kSession, [this, life] {
            if (life->process.paused()) cluster_.expire(*life);
          });
        return;
      }
      case Fault::kRestart: {
        if (node.life == nullptr || node.life->process.paused() || node.life->stop) return;
        struck();
        node.life->stop = true;
        watch_stop(f.node, node.life.get(), f.lasts);
        return;
      }
      case Fault::kUnreachable: {
        struck();
        node.unreachable_until = std::max(node.unreachable_until, scheduler_.uptime() + f.lasts);
        if (f.lasts >= kSession && node.life != nullptr)
          scheduler_.at(scheduler_.uptime() + kSession, [this, life = node.life.get()] { cluster_.expire(*life); });
        return;
      }
      case Fault::kFence: {
        const auto plans = streams::topology(names_, pipeline_.scoring);
        const auto& plan = plans[static_cast<size_t>(dice.below(std::ssize(plans)))];
        const auto partition = static_cast<int32_t>(dice.below(plan.task_count(names_)));
        struck();
        referee_.spawn([this, id = plan.task(partition).transactional_id] { (void)admin_log_->open_writer(id); });
        return;
      }
      case Fault::kRebalance: {
        const auto plans = streams::topology(names_, pipeline_.scoring);
        const auto& plan = plans[static_cast<size_t>(dice.below(std::ssize(plans)))];
        struck();
        ++strangers_;
        referee_.spawn([this, group = plan.group, topics = plan.topics, until = scheduler_.uptime() + f.lasts] {
          auto member = admin_log_->join(group, topics, "");
          CHECK(member.has_value());
          while (scheduler_.uptime() < until) (void)(*member)->poll(Milliseconds(20));
          (*member)->leave();
          --strangers_;
        });
        return;
      }
      case Fault::kCoordinatorMove:
        struck();
        coordinator_back_ = std::max(coordinator_back_, scheduler_.uptime() + f.lasts);
        return;
      case Fault::kRetention: {
        const TopicPartition tp{names_.full(Topic::kReports), static_cast<int32_t>(dice.below(names_.partitions()))};
        const int64_t end = cluster_.written(tp).value;
        if (end == 0) return;
        struck();
        retained_.insert(tp);
        (void)admin_log_->delete_before(tp, Offset(dice.below(end + 1)));
        return;
      }
      case Fault::kTruncation: {
        static constexpr Topic kTopics[] = {Topic::kReports, Topic::kScores, Topic::kPromotions, Topic::kAudit, Topic::kManifests};
        const Topic topic = kTopics[dice.below(std::ssize(kTopics))];
        const TopicPartition tp{names_.full(topic), static_cast<int32_t>(dice.below(names_.partitions(topic)))};
        const Offset end = cluster_.written(tp);
        if (dice.chance(400)) {
          if (end == Offset(0)) return;
          struck();
          truncated_.insert(tp);
          cluster_.truncate(tp, Offset(std::max<int64_t>(0, end.value - dice.between(1, 6))));
          return;
        }
        // Just after something was written, and mostly before anybody read it.
        struck();
        referee_.spawn([this, tp, end, until = scheduler_.uptime() + f.lasts] {
          for (; scheduler_.uptime() < until; referee_.sleep_for(Microseconds(100))) {
            if (cluster_.written(tp) == end) continue;
            truncated_.insert(tp);
            return cluster_.truncate(tp, end);
          }
        });
        return;
      }
      case Fault::kDiskFull:
        struck();
        node.disk.full = true;
        scheduler_.at(scheduler_.uptime() + f.lasts, [&node] { node.disk.full = false; });
        return;
      case Fault::kBitFlip:
        if (!node.disk.flip_bit()) return;
        struck();
        crash(f.node, f.lasts);  // rows in memory hide it until somebody reads
        return;
      case Fault::kClockJump: {
        struck();
        const Milliseconds by(dice.between(-1, 1) == 0 ? dice.between(-20, 20) * 3'600'000 : dice.between(-30000, 30000));
        node.skew += by;
        if (node.life != nullptr) node.life->process.jump_clock(by);
        return;
      }
      case Fault::kDatabaseDown:
        struck();
        database_back_ = std::max(database_back_, scheduler_.uptime() + f.lasts);
        return;
      case Fault::kSignerDown:
        struck();
        signer_back_ = std::max(signer_back_, scheduler_.uptime() + f.lasts);
        return;
      default:
        return;  // those of requests
    }
  }

  /// Starts the node again when its process has stopped in order.
  void watch_stop(size_t n, Life* life, Milliseconds away) {
    scheduler_.at(scheduler_.uptime() + Milliseconds(10), [this, n, life, away] {
      if (nodes_[n]->life.get() != life) return;  // it crashed on the way
      if (!life->ended) return watch_stop(n, life, away);
      end(*nodes_[n]);
      start_later(n, away);
    });
  }

  // ------------------------------------------------------------------------------------------------------------ the referee

  void referee() {
    prepare();
    for (const PlannedFault& f : plan_.faults) scheduler_.at(f.at, [this, f] { strike(f); });
    for (size_t n = 0; n < nodes_.size(); ++n)
      scheduler_.at(Milliseconds(n == 0 ? 0 : dice_.chance(700) ? 0 : dice_.between(1, 1500)), [this, n] { start(n); });
    auto sender = referee_.spawn([this] { send(); });
    sender->join();
    if (scheduler_.uptime() < kFaultsEnd) referee_.sleep(kFaultsEnd - scheduler_.uptime());
    if (options_.trace) note("the faults are over");
    const bool settled = settle();
    if (!settled) return;
    finish();
  }

  void prepare() {
    auto made = admin_log_->create_topics(streams::wanted_topics({names_.prefix(), names_.partitions(), -1}));
    CHECK(made.has_value());
    auto published = streams::publish_rules(*admin_log_, names_.prefix(), work_.rules, kEpoch);
    CHECK(published.has_value());
  }

  void send() {
    auto producer = admin_log_->open_producer();
    CHECK(producer.has_value());
    SimDice dice(options_.seed ^ 0x9e90);
    size_t change = 0;
    auto change_rules = [&](size_t sent) {
      for (; change < work_.changes.size() && work_.changes[change].after_reports <= sent; ++change) {
        const SimRules& rules = work_.changes[change];
        CHECK((*producer)
                  ->send({{names_.full(Topic::kConfig), 0},
                          kEpoch + scheduler_.uptime().count(),
                          std::string(config_kind_name(rules.kind)),
                          encode_config_event(rules.rules, rules.kind),
                          {}})
                  .has_value());
      }
    };
    const auto every = Microseconds(kFaultsEnd) / static_cast<int64_t>(work_.reports.size() + 1);
    for (size_t i = 0; i < work_.reports.size(); ++i) {
      change_rules(i);
      const SimReport& report = work_.reports[i];
      CHECK((*producer)->send({{names_.full(Topic::kReports), -1}, report.timestamp, report.key, report.value, {}}).has_value());
      if (!dice.chance(400)) continue;  // several in one request
      CHECK((*producer)->flush().has_value());
      referee_.sleep_for(Microseconds(dice.below(4 * every.count())));
    }
    change_rules(work_.reports.size());
    CHECK((*producer)->flush().has_value());
  }

  /// Waits until everything is folded and stored, or until a halt is all that is left.
  bool settle() {
    std::map<std::string, int64_t> seen;
    Milliseconds moved_at = scheduler_.uptime();
    for (int calm = 0;;) {
      referee_.sleep(Milliseconds(150));
      std::map<std::string, int64_t> places;
      const bool done = everything_folded(places);
      if (places != seen) moved_at = scheduler_.uptime();
      seen = places;
      calm = done ? calm + 1 : 0;
      if (calm == 3) return true;  // whoever was away has found out what became of its tasks
      const bool halted = !halts().empty();
      if (halted && scheduler_.uptime() - moved_at >= kQuiet) return true;
      if (scheduler_.uptime() < kFaultsEnd + kSettleBy) continue;
      std::string where;
      for (const auto& [place, behind] : places)
        if (behind != 0) where += " " + place + " is " + std::to_string(behind) + " behind;";
      for (const auto& node : nodes_)
        if (node->life != nullptr)
          for (const streams::TaskView& task : node->life->pipeline->tasks())
            if (task.state != streams::TaskState::kRunning)
              where += " " + task.name + " is " + std::string(task_state_name(task.state)) + " (" + task.detail + ");";
      fail("no end " + std::to_string(kSettleBy.count()) + " ms after the last fault:" + where);
      return false;
    }
  }

  /// Whether every task has an owner at work, every input is committed to its end, and the chain stands at the end of its topic.
  bool everything_folded(std::map<std::string, int64_t>& behind) {
    bool done = strangers_ == 0;
    std::set<std::string> owned;
    for (const auto& node : nodes_) {
      done = done && scheduler_.uptime() >= node->unreachable_until && node->life != nullptr && !node->life->stop &&
             !node->life->process.paused() && node->life->pipeline->ready();
      if (node->life != nullptr)
        for (const streams::TaskView& task : node->life->pipeline->tasks()) owned.insert(task.name);
    }
    done = copies_are_warm() && done;
    // What a member of before holds that the group has not given up yet, whoever is there cannot have.
    size_t unowned = 1 - owned.erase("audit-0");
    auto ask = [&](const TopicPartition& tp, Offset at) {
      auto range = admin_log_->range(tp);
      const Offset written = cluster_.written(tp);
      behind[to_string(tp)] = written - at;
      done = done && (at >= written || (written == Offset(0))) && range->end == written;
    };
    for (const streams::ProcessorPlan& plan : streams::topology(names_, pipeline_.scoring)) {
      for (int32_t p = 0; p < plan.task_count(names_); ++p) unowned += owned.contains(plan.task(p).name) ? 0 : 1;
      const auto inputs = plan.input_partitions(names_);
      auto committed = admin_log_->committed(plan.group, inputs);
      if (!committed) return false;
      for (const TopicPartition& tp : inputs) {
        auto at = committed->find(tp);
        ask(tp, at == committed->end() ? Offset(0) : at->second.offset);
      }
    }
    const TopicPartition audit{names_.full(Topic::kAudit), 0};
    Offset stored = database_.head.next_offset;
    for (const auto& node : nodes_)
      if (node->life != nullptr && node->life->projector != nullptr) stored = std::max(stored, node->life->projector->position());
    ask(audit, stored);
    return done && unowned == 0 && !database_.signed_state;
  }

  /// Whether each task has as many copies as members of its group can keep, all of them where its last commit is. Where something
  /// is gone for good, a copy may have no way to get there.
  bool copies_are_warm() {
    if (pipeline_.standbys == 0 || !torn_.empty() || !truncated_.empty() || !retained_.empty()) return true;
    std::map<std::string, std::vector<int64_t>> standing;  // by task
    for (const auto& node : nodes_)
      if (node->life != nullptr)
        for (const streams::StandbyView& copy : node->life->pipeline->standbys()) standing[copy.task].push_back(copy.sequence);
    for (const streams::ProcessorPlan& plan : streams::topology(names_, pipeline_.scoring)) {
      const auto members = admin_log_->members(plan.group);
      CHECK(members.has_value());
      const auto inputs = plan.input_partitions(names_);
      const auto committed = admin_log_->committed(plan.group, inputs);
      if (!committed) return false;
      for (int32_t p = 0; p < plan.task_count(names_); ++p) {
        const streams::TaskSpec task = plan.task(p);
        const auto [topic, partition] = task.inputs.front();
        auto commit = committed->find({names_.full(topic), partition});
        int64_t last = -1;  // manifest that is committed
        if (commit != committed->end())
          if (auto mark = streams::CommitMark::decode(commit->second.metadata)) last = mark->sequence;
        const auto& copies = standing[task.name];
        if (copies.size() != streams::standbys_of(*members, p, plan.task_count(names_), pipeline_.standbys).size()) return false;
        if (last >= 0 && std::ranges::count(copies, last) != std::ssize(copies)) return false;
      }
    }
    return true;
  }

  /// Of all tasks, in all runs so far.
  double counted(streams::Metric counter) const {
    double n = 0;
    for (const streams::ProcessorPlan& plan : streams::topology(names_, pipeline_.scoring))
      for (int32_t p = 0; p < plan.task_count(names_); ++p) n += metrics_.value(counter, {plan.task(p).name});
    return n;
  }

  std::vector<streams::TaskView> halts() const {
    std::vector<streams::TaskView> out;
    for (const auto& node : nodes_)
      if (node->life != nullptr)
        for (streams::TaskView& task : node->life->pipeline->tasks())
          if (task.state == streams::TaskState::kHalted) out.push_back(std::move(task));
    return out;
  }

  void finish() {
    for (const streams::TaskView& task : halts()) {
      outcome_.halted = true;
      // A place that retention or truncation took is a halt by the pipeline's own word.
      const std::string name = task.detail.starts_with("reading ") ? "INPUT_GAP" : task.detail.substr(0, task.detail.find(':'));
      reach("halt " + name);
      if (!has_cause(task.name, name)) fail(task.name + " halted though nothing was done to it: " + task.detail);
    }
    std::map<std::string, std::shared_ptr<state::Store>> stores;
    for (const auto& node : nodes_)
      for (streams::TaskView& task : node->life != nullptr ? node->life->pipeline->tasks() : std::vector<streams::TaskView>())
        if (task.store != nullptr && !stores.emplace(task.name, task.store).second) fail(task.name + " has two owners");
    stop_all([&] {
      for (const TopicPartition& tp : retained_) cluster_.undelete(tp);
      std::vector<std::pair<std::string, std::shared_ptr<state::Store>>> others;
      for (const auto& node : nodes_)
        for (const std::string& task : node->disk.tasks())
          if (auto store = node->disk.open(task, [] {}); store) others.emplace_back(task, std::move(*store));
      const bool told_otherwise = counted(streams::Metric::kToldOtherwise) > told_otherwise_before_;
      if (told_otherwise) reach("told otherwise");
      if (told_otherwise && torn_.empty()) fail("a task found that something was told otherwise, and nothing was torn");
      const bool damaged = outcome_.halted || !truncated_.empty();
      const SimRemains remains{*admin_log_, names_, stores, others, database_, !torn_.empty(), told_otherwise, damaged};
      if (auto wrong = check_remains(remains, pipeline_.scoring)) return fail(*wrong);
      if (judge_)
        if (auto wrong = judge_(remains)) fail(*wrong);
    });
  }

  /// Whether something was done that this halt of this task may come of.
  bool has_cause(const std::string& task, const std::string& halt) const {
    std::set<TopicPartition> inputs;
    TopicPartition manifests;
    std::string writer;
    if (task.starts_with("audit")) inputs.insert({names_.full(Topic::kAudit), 0});
    for (const streams::ProcessorPlan& plan : streams::topology(names_, pipeline_.scoring))
      for (int32_t p = 0; p < plan.task_count(names_); ++p)
        if (const streams::TaskSpec spec = plan.task(p); spec.name == task) {
          for (auto [topic, partition] : spec.inputs) inputs.insert({names_.full(topic), partition});
          manifests = {names_.full(Topic::kManifests), spec.manifest_partition};
          writer = spec.transactional_id;
        }
    auto any_of = [&](const std::set<TopicPartition>& hit) {
      return std::ranges::any_of(inputs, [&](const TopicPartition& tp) { return hit.contains(tp); });
    };
    // Somebody else's torn transaction may have left a hole in what this task reads.
    const bool torn_before = std::ranges::any_of(torn_, [&](const std::string& id) { return id != writer; });
    if (halt == "INPUT_GAP") return any_of(retained_) || any_of(truncated_) || torn_before;
    if (halt == "LOG_DIVERGED") return any_of(truncated_) || truncated_.contains(manifests);
    if (halt == "TORN_TXN") return torn_.contains(writer) || truncated_.contains(manifests);
    return false;
  }

  /// Stops every process in order, looks at what is left, and lets go of it.
  void stop_all(const std::function<void()>& look) {
    for (const auto& node : nodes_) {
      node->wanted = false;
      if (node->life != nullptr) node->life->stop = true;
    }
    const Milliseconds until = scheduler_.uptime() + Milliseconds(20000);
    for (const auto& node : nodes_)
      while (node->life != nullptr && !node->life->ended) {
        if (scheduler_.uptime() >= until) return fail("a process does not stop");
        referee_.sleep(Milliseconds(20));
      }
    for (const auto& node : nodes_) node->disk.unspoil();
    if (look) look();
  }

  const SimOptions& options_;
  const SimWork& work_;
  streams::Metrics& metrics_;
  const SimJudge& judge_;
  SimDice dice_;          // of the world
  SimDice network_dice_;  // of what happens to requests
  SimScheduler scheduler_;
  SimProcess referee_;
  FaultPlan plan_;
  SimOutcome outcome_;
  streams::SimHost admin_;
  streams::SimCluster cluster_;
  std::unique_ptr<streams::Log> admin_log_;
  streams::TopicNames names_;
  streams::PipelineOptions pipeline_;
  SimDatabase database_;
  bool static_members_ = false;
  std::vector<std::unique_ptr<Node>> nodes_;
  std::vector<std::unique_ptr<Life>> dead_;
  Milliseconds coordinator_back_{0}, database_back_{0}, signer_back_{0};
  std::set<TopicPartition> retained_, truncated_;
  std::set<std::string> torn_;  // transactional ids
  int strangers_ = 0;           // in groups
  bool tearing_ = false;        // the next request of a writer gets no answer
  double told_otherwise_before_ = 0;
  std::array<uint32_t, kFaultCount> chances_{};
};

}  // namespace

SimOutcome simulate(const SimOptions& options, const SimWork& work, streams::Metrics& metrics, const SimJudge& judge) {
  World world(options, work, metrics, judge);
  streams::LogOptions log;
  log.level = options.trace ? streams::LogLevel::kDebug : streams::LogLevel::kError;
  if (options.trace)
    log.sink = [&world](streams::LogLevel, std::string_view line) { world.note(line.substr(line.find(' ') + 1)); };
  else
    log.sink = [](streams::LogLevel, std::string_view) {};
  CHECK(streams::configure_logging(std::move(log)).has_value());
  SimOutcome outcome = world.run();
  log = {};
  log.sink = [](streams::LogLevel, std::string_view) {};
  CHECK(streams::configure_logging(std::move(log)).has_value());
  return outcome;
}

}  // namespace assay::replay
