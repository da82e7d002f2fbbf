// The command line: commands, their flags and help, and the way from arguments to an exit code. CLI11 stays behind it.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <ostream>
#include <string>
#include <string_view>
#include <vector>

#include "tools/output.h"
#include "tools/settings.h"

namespace assay::tools {

/// What a command gets besides its own flags.
struct Context {
  Settings settings;
  Format format = Format::kTable;
  bool quiet = false;
  std::ostream& out;  // results, and nothing else
  std::ostream& err;  // progress, notes, problems
};

using Handler = std::function<Result<int>(Context&)>;  // the exit code, or what went wrong

/// A command being declared; a handle. Targets of options must outlive the run: a handler shares them (std::shared_ptr).
class Command {
 public:
  struct Node;
  explicit Command(Node& node) : node_(node) {}

  /// A command below this one.
  Command command(const std::string& name, const std::string& summary);
  /// A line of the help that can be copied; examples come first there.
  Command& example(const std::string& line);

  Command& option(const std::string& names, std::string& target, const std::string& help);
  Command& option(const std::string& names, std::optional<std::string>& target, const std::string& help);
  Command& option(const std::string& names, std::vector<std::string>& target, const std::string& help);  // may be given often
  Command& option(const std::string& names, int64_t& target, const std::string& help);
  Command& option(const std::string& names, std::optional<int64_t>& target, const std::string& help);
  Command& option(const std::string& names, double& target, const std::string& help);
  Command& choice(const std::string& names, std::string& target, const std::vector<std::string>& choices, const std::string& help);
  Command& flag(const std::string& names, bool& target, const std::string& help);
  Command& argument(const std::string& name, std::string& target, const std::string& help);
  Command& argument(const std::string& name, std::vector<std::string>& target, const std::string& help);
  /// The option or argument declared last must be given.
  Command& required();

  /// Commands that only read files or explain run even where a production guard fails.
  Command& unguarded();
  void run(Handler handler);

 private:
  Node& node_;
};

/// One group of commands adds itself to the root.
using Registration = void (*)(Command& root);

/// Parses, loads the settings, checks the guards, runs the command. Returns the exit code; problems go to `err`.
int run_cli(const std::vector<std::string>& arguments, const Environment& environment, const std::vector<Registration>& groups,
            std::ostream& out, std::ostream& err);

}  // namespace assay::tools
