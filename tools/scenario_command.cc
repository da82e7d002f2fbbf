// assay scenario: plain-text scenarios against a configuration, so that a policy can be tested before it is shipped.
#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>

#include "replay/scenario.h"
#include "tools/commands.h"
#include "tools/toml_text.h"

namespace assay::tools {
namespace {

struct Flags {
  std::vector<std::string> files;
  bool update = false;
};

Result<void> lay_over(std::string_view toml, Rules& rules) {
  TRY_ASSIGN(const TomlDocument document, parse_toml(toml));
  if (!document.problems.empty()) return Error{Errc::kUsage, document.problems.front().text()};
  for (const auto& [name, body] : document.root.as_object()) {
    std::optional<ConfigKind> kind;
    for (ConfigKind one : kConfigKinds)
      if (config_kind_name(one) == name) kind = one;
    if (!kind) return Error{Errc::kUsage, name + ": a scenario sets rules: scoring, promotion, policy, allocation"};
    TRY(apply_json(body, *kind, rules));
  }
  for (const std::string& problem : validate(rules)) return Error{Errc::kUsage, problem};
  return {};
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  if (!file || file.bad()) return Error{Errc::kUsage, "reading " + path + ": " + std::strerror(errno)};
  return text.str();
}

Result<void> rewrite(const std::string& path, const replay::Scenario& scenario, const std::vector<std::string>& made) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << scenario.inputs;
  for (const std::string& line : made) file << line << "\n";
  file.flush();
  if (!file) return Error{Errc::kUnexpected, "writing " + path + ": " + std::strerror(errno)};
  return {};
}

Result<int> scenarios(Context& context, const Flags& flags) {
  Json rows = Json::array();
  int64_t failed = 0;
  for (const std::string& path : flags.files) {
    auto in_file = [&](const Error& e) { return Error{e.code, path + ": " + e.message}; };
    TRY_ASSIGN(const std::string text, read_file(path));
    auto scenario = replay::read_scenario(text);
    if (!scenario) return in_file(scenario.error());
    auto made = replay::play(*scenario, context.settings.rules, lay_over, false);
    if (!made) return in_file(made.error());
    auto again = replay::play(*scenario, context.settings.rules, lay_over, true);
    if (!again) return in_file(again.error());
    const std::vector<std::string> crashed = replay::line_difference(*made, *again);
    const std::vector<std::string> differs = crashed.empty() ? replay::line_difference(scenario->expected, *made) : crashed;
    const bool update = flags.update && crashed.empty() && !differs.empty();
    if (update) TRY(rewrite(path, *scenario, *made));
    if (!differs.empty() && !update) ++failed;
    Json lines = Json::array();
    for (const std::string& line : differs) lines.push_back(line);
    if (!differs.empty() && !update && context.format == Format::kTable) {
      context.out << path << (crashed.empty() ? " (- expected, + made)\n" : " (+ with a crash after each record)\n");
      for (const std::string& line : differs) context.out << line << "\n";
    }
    rows.push_back(Json::object()
                       .set("file", path)
                       .set("result", update             ? "updated"
                                      : !crashed.empty() ? "a crash shows"
                                      : differs.empty()  ? "agrees"
                                                         : "differs")
                       .set("lines", static_cast<int64_t>(made->size()))
                       .set("difference", std::move(lines)));
  }
  context.out << render_rows(rows.as_array(), context.format, {"file", "result", "lines"});
  if (failed == 0) return 0;
  return Error{Errc::kParity, std::to_string(failed) + " of " + std::to_string(flags.files.size()) +
                                  " scenarios come out otherwise than they say; --update writes what they make"};
}

}  // namespace

void register_scenario(Command& root) {
  auto flags = std::make_shared<Flags>();
  Command command =
      root.command("scenario", "Play plain-text scenarios against a configuration: reports with times, expected decisions");
  command.example("assay --config policy.toml scenario tests/scenarios/*.scenario")
      .argument("FILE", flags->files, "Scenario files; tests/scenarios/README.md says how they are written")
      .required()
      .flag("--update", flags->update, "Write what they make into the files instead of failing");
  command.unguarded();
  command.run([flags](Context& context) { return scenarios(context, *flags); });
}

}  // namespace assay::tools
