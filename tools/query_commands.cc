// assay scores, scoreboard, promotions, allocations, pools, state, lag: what the system knows.
// Columns are named here and not taken from the rows: a running process answers in canonical JSON, which orders by name.
#include <chrono>
#include <csignal>
#include <thread>

#include "tools/commands.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

struct Flags {
  std::string agent, division, window, at, history;
  int64_t top = 10;
  bool recompute = false, watch = false;
};

void add(QueryParams& params, const std::string& name, const std::string& value) {
  if (!value.empty()) params.emplace_back(name, value);
}

Result<int> show(Context& context, std::string_view query, const QueryParams& params, std::vector<std::string> columns) {
  TRY_ASSIGN(Json rows, ask(context, query, params));
  if (rows.as_array().empty() && context.format == Format::kTable && !context.quiet) context.err << "nothing to show\n";
  context.out << render_rows(rows.as_array(), context.format, std::move(columns));
  return 0;
}

Result<int> show_lag(Context& context, bool watch) {
  for (;;) {
    TRY_ASSIGN(Json rows, ask(context, "lag", {}));
    context.out << render_rows(rows.as_array(), context.format,
                               {"topic", "partition", "group", "endOffset", "committedOffset", "recordsBehind", "timeBehindMs",
                                "state", "rule"})
                << std::flush;
    bool unhealthy = false;
    for (const Json& row : rows.as_array()) {
      const std::string_view state = row.string_or("state", "");
      unhealthy = unhealthy || (state != "ok" && state != "catching up");
    }
    if (!watch) return unhealthy ? exit_code(Errc::kUnhealthy) : 0;
    context.out << "\n";
    std::this_thread::sleep_for(std::chrono::seconds(2));
  }
}

}  // namespace

void register_queries(Command& root) {
  auto flags = std::make_shared<Flags>();

  Command scores = root.command("scores", "AgentScore of each agent and window, now or at any instant");
  scores.example("assay scores --agent 'vm-*' --window 24h")
      .example("assay scores --at 2026-01-05T12:00:00Z -o json")
      .option("--agent", flags->agent, "Only agents that match this glob")
      .option("--division", flags->division, "Only divisions that match this glob")
      .choice("--window", flags->window, {"1h", "24h", "7d"}, "Only this window")
      .option("--at", flags->at, "Windows that end at the last boundary not after this time (RFC 3339)");
  scores.run([flags](Context& context) {
    QueryParams params;
    add(params, "agent", flags->agent);
    add(params, "division", flags->division);
    add(params, "window", flags->window);
    add(params, "at", flags->at);
    return show(context, "scores", params,
                {"agentId", "divisionId", "window", "windowEnd", "score", "lower", "upper", "confidence", "samples"});
  });

  Command board = root.command("scoreboard", "The leaderboard, best first");
  board.example("assay scoreboard --window 24h --top 20")
      .option("--division", flags->division, "Only this division")
      .choice("--window", flags->window, {"1h", "24h", "7d"}, "Window (24h)")
      .option("--top", flags->top, "Rows (10)")
      .option("--at", flags->at, "The board as it stood at this time (RFC 3339)");
  board.run([flags](Context& context) -> Result<int> {
    if (flags->top < 1) return Error{Errc::kUsage, "--top " + std::to_string(flags->top) + ": at least 1"};
    QueryParams params;
    add(params, "division", flags->division);
    add(params, "window", flags->window);
    add(params, "at", flags->at);
    add(params, "top", std::to_string(flags->top));
    return show(context, "scoreboard", params,
                {"rank", "agentId", "divisionId", "window", "windowEnd", "score", "lower", "upper", "samples", "movement"});
  });

  Command promotions = root.command("promotions", "The last decision on each entity, or all of one");
  promotions.example("assay promotions")
      .example("assay promotions --history agent-0007 -o json")
      .option("--history", flags->history, "Every event of this entity or id");
  promotions.run([flags](Context& context) {
    QueryParams params;
    add(params, "history", flags->history);
    return show(context, "promotions", params,
                {"ts", "entityId", "divisionId", "action", "status", "score", "confidence", "rationale"});
  });

  Command allocations = root.command("allocations", "The last event of each allocation, or all of one");
  allocations.example("assay allocations")
      .example("assay allocations --history agent-0007")
      .option("--history", flags->history, "Every event of this allocation or entity");
  allocations.run([flags](Context& context) {
    QueryParams params;
    add(params, "history", flags->history);
    return show(context, "allocations", params,
                {"ts", "allocationId", "entityId", "divisionId", "pool", "gpu", "cpu", "memoryMB", "state", "reason"});
  });

  Command pools = root.command("pools", "Pools with capacity, use and quotas");
  pools.example("assay pools -o json");
  pools.run([](Context& context) {
    return show(context, "pools", {}, {"pool", "unit", "capacity", "used", "reserved", "available", "quotas"});
  });

  Command state = root.command("state", "The state of the tasks");
  Command digest = state.command("digest", "Sequence, position and digest of each task");
  digest.example("assay state digest --recompute")
      .flag("--recompute", flags->recompute, "Make the digests from every row again, and compare");
  digest.run([flags](Context& context) -> Result<int> {
    QueryParams params;
    if (flags->recompute) params.emplace_back("recompute", "1");
    TRY_ASSIGN(Json rows, ask(context, "digest", params));
    context.out << render_rows(rows.as_array(), context.format, {"task", "sequence", "position", "digest"});
    for (const Json& row : rows.as_array())
      if (row.find("stored") != nullptr)
        return Error{Errc::kParity,
                     "the rows of " + std::string(row.string_or("task", "")) + " have another digest than the one kept with them"};
    return 0;
  });

  register_recommit(state);

  Command lag = root.command("lag", "How far each group is behind, in records and in time");
  lag.example("assay lag --watch").flag("--watch", flags->watch, "Look again every 2 s");
  lag.run([flags](Context& context) { return show_lag(context, flags->watch); });
}

}  // namespace assay::tools
