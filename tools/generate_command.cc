// assay generate: a fleet's reports as JSON lines.
#include <fstream>

#include "tools/commands.h"
#include "tools/fleet.h"
#include "tools/progress.h"

namespace assay::tools {
namespace {

struct Flags {
  FleetOptions fleet;
  int64_t seed = 1;
  std::string out;
};

Result<void> check(const FleetOptions& fleet) {
  auto refuse = [](const std::string& text) { return Error{Errc::kUsage, text}; };
  if (fleet.agents < 1 || fleet.agents > 1000000) return refuse("--agents must lie within 1 and 1000000");
  if (fleet.reports < 0) return refuse("--reports must not be negative");
  if (!(fleet.late >= 0 && fleet.late <= 1)) return refuse("--late must lie within 0 and 1: it is a share");
  if (!(fleet.bad >= 0 && fleet.bad <= 1)) return refuse("--bad must lie within 0 and 1: it is a share");
  return {};
}

Result<int> generate(Context& context, Flags flags) {
  flags.fleet.seed = static_cast<uint64_t>(flags.seed);
  TRY(check(flags.fleet));
  std::ofstream file;
  if (!flags.out.empty() && flags.out != "-") {
    file.open(flags.out, std::ios::binary | std::ios::trunc);
    if (!file) return Error{Errc::kUsage, "create " + flags.out + ": it cannot be written"};
  }
  std::ostream& out = file.is_open() ? file : context.out;
  Progress progress("generate", "reports", context);
  Fleet fleet(flags.fleet);
  std::string line;
  uint64_t made = 0;
  while (fleet.next(line)) {
    line.push_back('\n');
    out.write(line.data(), static_cast<std::streamsize>(line.size()));
    if (!out)
      return Error{Errc::kUnexpected, "write " + (flags.out.empty() ? "standard output" : flags.out) + ": it takes no more"};
    ++made;
    progress.update(made, static_cast<double>(made) / static_cast<double>(flags.fleet.reports));
  }
  out.flush();
  if (!out) return Error{Errc::kUnexpected, "write " + (flags.out.empty() ? "standard output" : flags.out) + ": it takes no more"};
  if (file.is_open()) progress.finish();
  return 0;
}

}  // namespace

void register_generate(Command& root) {
  auto flags = std::make_shared<Flags>();
  Command command = root.command("generate", "Make the reports of a realistic fleet, the same bytes for the same seed");
  command.example("assay generate --agents 50 --reports 20000 --seed 1 --out fleet.jsonl")
      .example("assay generate --reports 5000 --late 0.1 --bad 0.02 | assay produce --raw")
      .option("--agents", flags->fleet.agents, "Agents of the fleet (50)")
      .option("--reports", flags->fleet.reports, "Lines in all (20000)")
      .option("--seed", flags->seed, "Another seed, another fleet (1)")
      .option("--late", flags->fleet.late, "Share of reports that arrive behind their time (0.05)")
      .option("--bad", flags->fleet.bad, "Share of lines that must be refused, each reason in turn (0)")
      .option("--out", flags->out, "File to write; without it standard output")
      .unguarded();
  command.run([flags](Context& context) { return generate(context, *flags); });
}

}  // namespace assay::tools
