// assay replay what-if: what other rules would have decided over the same reports.
#include <algorithm>
#include <fstream>

#include "replay/what_if.h"
#include "streams/logging.h"
#include "tools/commands.h"
#include "tools/progress.h"
#include "tools/replay_source.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

struct Flags {
  std::string from = "log", signers, with, since, until, html;
  std::vector<std::string> prices;
  int64_t examples = 20;
};

Result<std::map<std::string, double>> prices_of(const std::vector<std::string>& words) {
  std::map<std::string, double> out;
  for (const std::string& word : words) {
    const size_t equals = word.find('=');
    const std::string unit = word.substr(0, equals);
    char* end = nullptr;
    const double price = equals == std::string::npos ? -1 : std::strtod(word.c_str() + equals + 1, &end);
    if ((unit != "gpu" && unit != "cpu" && unit != "memoryMB") || end == nullptr || *end != '\0' ||
        end == word.c_str() + equals + 1 || !(price >= 0 && price < 1e12))
      return Error{Errc::kUsage, "--price " + word + ": want UNIT=AMOUNT with a unit of gpu, cpu, memoryMB, like gpu=2.40"};
    out[unit] = price;
  }
  return out;
}

Json rows_by(const Json& counts, const char* name) {
  Json rows = Json::array();
  std::vector<std::pair<int64_t, Json>> sorted;
  for (const auto& [key, kinds] : counts.as_object()) {
    int64_t all = 0;
    std::string text;
    for (const auto& [kind, n] : kinds.as_object()) {
      all += static_cast<int64_t>(n.as_number());
      text += (text.empty() ? "" : ", ") + canonical(n) + " " + kind;
    }
    sorted.emplace_back(all, Json::object().set(name, key).set("differences", all).set("of", text));
  }
  std::ranges::stable_sort(sorted, std::greater<>(), [](const auto& row) { return row.first; });
  for (auto& [all, row] : sorted) rows.push_back(std::move(row));
  return rows;
}

void print(const Json& found, std::ostream& out, std::ostream& err) {
  Json kinds = Json::array();
  for (const auto& [kind, counts] : found.find("totals")->as_object()) {
    Json row = Json::object().set("decided", kind);
    for (const char* member : {"present", "other", "onlyPresent", "onlyOther"}) row.set(member, *counts.find(member));
    kinds.push_back(std::move(row));
  }
  if (!kinds.as_array().empty()) out << render_rows(kinds.as_array(), Format::kTable) << "\n";
  Json pools = Json::array();
  for (const Json& pool : found.find("pools")->as_array())
    for (const char* side : {"present", "other"}) {
      const Json& use = *pool.find(side);
      pools.push_back(Json::object()
                          .set("pool", pool.string_or("pool", ""))
                          .set("rules", side)
                          .set("unit", pool.string_or("unit", ""))
                          .set("capacity", *use.find("capacity"))
                          .set("peakUsed", *use.find("peakUsed"))
                          .set("unitHours", *use.find("unitHours"))
                          .set("waits", *use.find("waits"))
                          .set("waitHours", *use.find("waitHours")));
    }
  if (!pools.as_array().empty()) out << render_rows(pools.as_array(), Format::kTable) << "\n";
  if (const Json* money = found.find("money"); money->is_object())
    out << "money: " << canonical(*money->find("present")) << " by the present rules, " << canonical(*money->find("other"))
        << " by the other ones, " << canonical(*money->find("difference")) << " difference\n\n";
  for (const auto& [member, name] : {std::pair("byDivision", "division"), std::pair("byEntity", "entity")}) {
    Json rows = rows_by(*found.find(member), name);
    if (rows.as_array().empty()) continue;
    if (rows.as_array().size() > 10) rows.as_array().resize(10);
    out << render_rows(rows.as_array(), Format::kTable) << "\n";
  }
  for (const Json& example : found.find("examples")->as_array())
    out << example.string_or("ts", "") << "  " << example.string_or("entityId", "") << "  " << example.string_or("kind", "")
        << " only by the " << example.string_or("only", "") << " rules; " << example.string_or("cause", "") << "\n";
  err << canonical(*found.find("differences")) << " differences over " << canonical(*found.find("reports")) << " reports.\n";
}

Result<int> what_if(Context& context, const Flags& flags) {
  TRY(streams::configure_logging({.level = streams::LogLevel::kWarning}));
  replay::WhatIfOptions options;
  options.names = topic_names(context.settings);
  if (!flags.since.empty()) {
    TRY_ASSIGN(options.since_ms, instant_of("--since", flags.since));
  }
  if (!flags.until.empty()) {
    TRY_ASSIGN(options.until_ms, instant_of("--until", flags.until));
  }
  if (flags.examples < 0) return Error{Errc::kUsage, "--examples " + std::to_string(flags.examples) + ": a count, 0 for all"};
  options.examples = static_cast<size_t>(flags.examples);
  TRY_ASSIGN(options.price_per_hour, prices_of(flags.prices));
  Layers layers;
  layers.config_file = flags.with;
  TRY_ASSIGN(const Settings other, load_settings(layers));
  TRY_ASSIGN(auto log, open_replay_source(context.settings, flags.from, flags.signers));
  TRY_ASSIGN(const Rules present, present_rules(*log, context.settings));
  Progress progress("what-if", "reports", context);
  std::mutex mutex;
  options.progress = [&](int64_t done, int64_t total) {
    std::lock_guard lock(mutex);
    progress.update(static_cast<uint64_t>(done), total > 0 ? static_cast<double>(done) / static_cast<double>(total) : 1.0);
  };
  TRY_ASSIGN(const replay::WhatIf found, replay::what_if(*log, present, other.rules, options));
  progress.finish();
  if (!flags.html.empty()) {
    std::ofstream file(flags.html, std::ios::binary | std::ios::trunc);
    file << replay::what_if_page(found);
    file.flush();
    if (!file) return Error{Errc::kUnexpected, "writing " + flags.html + ": it cannot be written"};
  }
  if (context.format == Format::kTable)
    print(found.document, context.out, context.err);
  else if (context.format == Format::kCsv)
    context.out << render_rows(found.document.find("examples")->as_array(), context.format,
                               {"ts", "kind", "only", "entityId", "divisionId", "cause"});
  else
    context.out << render_object(found.document, context.format);
  return 0;
}

}  // namespace

void register_replay_what_if(Command& replay) {
  auto flags = std::make_shared<Flags>();
  Command command = replay.command(
      "what-if",
      "What other rules would have decided: the rules in force now (the last on config.v1) and those of OTHER.toml both fold every "
      "report, from the first on; nothing is written");
  command.example("assay replay what-if --with stricter.toml --html stricter.html")
      .example("assay replay what-if --with pools.toml --since 2026-01-01T00:00:00Z --price gpu=2.40 -o json")
      .option("--from", flags->from, kFromHelp)
      .option("--signers", flags->signers, kSignersHelp)
      .option("--with", flags->with, "The other configuration; what it leaves out is at its default")
      .required()
      .option("--since", flags->since, "Only decisions from this event time on (RFC 3339); what came before is folded all the same")
      .option("--until", flags->until, "Only decisions before this event time")
      .option("--examples", flags->examples, "Differences that are told one by one (20); 0: all")
      .option("--price", flags->prices,
              "UNIT=AMOUNT for an hour of one unit (gpu=2.40): what the grants would cost; may be given often")
      .option("--html", flags->html, "Also write one page with tables and plots, which needs no other file");
  command.run([flags](Context& context) { return what_if(context, *flags); });
}

}  // namespace assay::tools
