// assay replay explain: from a decision, an audit row or a score back to the reports that caused it.
#include "replay/explain.h"
#include "streams/logging.h"
#include "tools/commands.h"
#include "tools/replay_source.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

struct Flags {
  std::string from = "log", signers, id;
  int64_t reports = 5;
};

std::string text_of(const Json& value) { return value.is_string() ? value.as_string() : canonical(value); }

std::string headline(const Json& node) {
  const Json* agrees = node.find("agrees");
  std::string out = std::string(node.string_or("kind", "")) + " " + std::string(node.string_or("id", ""));
  out += "  (" + std::string(node.string_or("topic", "")) + "-" + canonical(*node.find("partition")) + " offset " +
         std::string(node.string_or("offset", "")) + ")";
  if (agrees != nullptr && agrees->is_bool()) out += agrees->as_bool() ? "  recomputed: agrees" : "  recomputed: DIFFERS";
  return out;
}

/// A tree of lines: the node, what it says, what it rests on.
void print(const Json& node, const std::string& indent, int64_t reports_max, std::ostream& out) {
  std::vector<std::string> lines;
  for (const auto& [name, value] : node.as_object()) {
    static constexpr std::string_view kElsewhere[] = {"kind", "id", "topic", "partition", "offset", "agrees", "causes", "reports"};
    if (std::find(std::begin(kElsewhere), std::end(kElsewhere), name) != std::end(kElsewhere) || value.is_null()) continue;
    lines.push_back(name + ": " + text_of(value));
  }
  static const Json kNone = Json::array();
  const Json* causes = node.find("causes");
  const Json* reports = node.find("reports");
  if (causes == nullptr) causes = &kNone;
  if (reports == nullptr) reports = &kNone;
  const bool below = !causes->as_array().empty() || !reports->as_array().empty();
  for (const std::string& line : lines) out << indent << (below ? "│  " : "   ") << line << "\n";
  int64_t shown = 0;
  const auto count = static_cast<int64_t>(reports->as_array().size());
  for (const Json& report : reports->as_array()) {
    if (shown == reports_max) break;
    ++shown;
    const bool last = shown == count && causes->as_array().empty();
    out << indent << (last ? "└─ " : "├─ ") << "report " << report.string_or("id", "") << "  " << report.string_or("timestamp", "")
        << "  (" << report.string_or("topic", "") << "-" << canonical(*report.find("partition")) << " offset "
        << report.string_or("offset", "") << ")\n";
  }
  if (shown < count)
    out << indent << (causes->as_array().empty() ? "└─ " : "├─ ") << "and " << count - shown
        << " reports more (--reports, or -o json)\n";
  for (size_t n = 0; n < causes->as_array().size(); ++n) {
    const bool last = n + 1 == causes->as_array().size();
    const Json& cause = causes->as_array()[n];
    out << indent << (last ? "└─ " : "├─ ") << headline(cause) << "\n";
    print(cause, indent + (last ? "   " : "│  "), reports_max, out);
  }
}

Result<int> explain(Context& context, const Flags& flags) {
  TRY(streams::configure_logging({.level = streams::LogLevel::kWarning}));
  TRY_ASSIGN(auto log, open_replay_source(context.settings, flags.from, flags.signers));
  processors::ScoringOptions scoring;
  scoring.audit_each = context.settings.audit.eval_submit == "each";
  TRY_ASSIGN(const Json tree, replay::explain(*log, topic_names(context.settings), scoring, flags.id));
  if (context.format == Format::kTable) {
    context.out << headline(tree) << "\n";
    print(tree, "", flags.reports, context.out);
  } else {
    context.out << render_object(tree, context.format);
  }
  if (replay::agrees(tree)) return 0;
  return Error{Errc::kParity,
               "explaining " + flags.id + ": folding again what caused it does not come out the same; the tree says where"};
}

}  // namespace

void register_replay_explain(Command& replay) {
  auto flags = std::make_shared<Flags>();
  Command command = replay.command(
      "explain",
      "From a promotion, an allocation, an audit row or a score back to the reports that caused it, each step made again");
  command.example("assay replay explain 2f1c0a…")
      .example("assay replay explain vm-17/24h/2026-01-05T12:00:00Z -o json")
      .option("--from", flags->from, kFromHelp)
      .option("--signers", flags->signers, kSignersHelp)
      .argument(
          "ID", flags->id,
          "Id of a promotion or allocation event, of an allocation, of an audit row (av-…) or of a score; or AGENT/WINDOW/END")
      .required()
      .option("--reports", flags->reports, "Reports of a score that the tree shows (5); JSON has all");
  command.run([flags](Context& context) { return explain(context, *flags); });
}

}  // namespace assay::tools
