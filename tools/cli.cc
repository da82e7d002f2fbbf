#include "tools/cli.h"

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <chrono>
#include <map>

#include "schemas/nearest.h"

namespace assay::tools {
namespace {

constexpr const char* kVersion = ASSAY_VERSION;

}  // namespace

/// A command of CLI11 with what CLI11 does not know about it.
struct Command::Node {
  CLI::App* app = nullptr;
  CLI::Option* last = nullptr;
  std::vector<std::string> examples;
  std::vector<std::unique_ptr<Node>> children;
  Handler handler;
  bool guarded = true;

  /// The command that the arguments named, itself when none below it was.
  Node& chosen() {
    for (auto& child : children)
      if (child->app->parsed()) return child->chosen();
    return *this;
  }
  const Node* find(const CLI::App* wanted) const {
    if (app == wanted) return this;
    for (const auto& child : children)
      if (const Node* found = child->find(wanted)) return found;
    return nullptr;
  }
};

namespace {

/// Help that begins with what one can copy.
class ExamplesFirst : public CLI::Formatter {
 public:
  explicit ExamplesFirst(const Command::Node& root) : root_(root) {}
  std::string make_usage(const CLI::App* app, std::string name) const override {
    std::string text;
    if (const Command::Node* node = root_.find(app); node != nullptr && !node->examples.empty()) {
      text = "Examples:\n";
      for (const std::string& line : node->examples) text += "  " + line + "\n";
      text += "\n";
    }
    return text + CLI::Formatter::make_usage(app, name);
  }

 private:
  const Command::Node& root_;
};

std::vector<std::string> option_names(const CLI::App* app) {
  std::vector<std::string> names;
  for (; app != nullptr; app = app->get_parent())
    for (const CLI::Option* option : app->get_options())
      for (const std::string& name : option->get_lnames()) names.push_back(name);
  return names;
}

/// What the argument that nobody took was perhaps meant to be.
std::string unknown_argument(Command::Node& at, const std::string& word) {
  if (word.starts_with('-')) {
    std::vector<std::string> names = option_names(at.app);
    std::vector<std::string_view> views(names.begin(), names.end());
    // Without the dashes: they are alike in every flag and would make any two of them look related.
    const std::string bare = word.substr(0, word.find('=')).substr(std::min(word.find_first_not_of('-'), word.size()));
    const std::string_view near = nearest_word(bare, views);
    return "unknown flag " + word + (near.empty() ? "" : "; did you mean --" + std::string(near) + "?");
  }
  if (at.children.empty()) return "unexpected argument \"" + word + "\"";
  std::vector<std::string> names;
  for (const auto& child : at.children) names.push_back(child->app->get_name());
  std::vector<std::string_view> views(names.begin(), names.end());
  return "unknown command \"" + word + "\"" + nearest_hint(word, views);
}

std::string command_path(const CLI::App* app) {
  std::string path;
  for (; app != nullptr; app = app->get_parent()) path = app->get_name() + (path.empty() ? "" : " " + path);
  return path;
}

}  // namespace

Command Command::command(const std::string& name, const std::string& summary) {
  auto child = std::make_unique<Node>();
  child->app = node_.app->add_subcommand(name, summary);
  node_.children.push_back(std::move(child));
  return Command(*node_.children.back());
}

Command& Command::example(const std::string& line) {
  node_.examples.push_back(line);
  return *this;
}

Command& Command::option(const std::string& names, std::string& target, const std::string& help) {
  node_.last = node_.app->add_option(names, target, help);
  return *this;
}
Command& Command::option(const std::string& names, std::optional<std::string>& target, const std::string& help) {
  node_.last = node_.app->add_option_function<std::string>(
      names, [&target](const std::string& value) { target = value; }, help);
  return *this;
}
Command& Command::option(const std::string& names, std::vector<std::string>& target, const std::string& help) {
  node_.last = node_.app->add_option(names, target, help)->take_all()->allow_extra_args(false);
  return *this;
}
Command& Command::option(const std::string& names, int64_t& target, const std::string& help) {
  node_.last = node_.app->add_option(names, target, help);
  return *this;
}
Command& Command::option(const std::string& names, std::optional<int64_t>& target, const std::string& help) {
  node_.last = node_.app->add_option_function<int64_t>(
      names, [&target](const int64_t& value) { target = value; }, help);
  return *this;
}
Command& Command::option(const std::string& names, double& target, const std::string& help) {
  node_.last = node_.app->add_option(names, target, help);
  return *this;
}
Command& Command::choice(const std::string& names, std::string& target, const std::vector<std::string>& choices,
                         const std::string& help) {
  node_.last = node_.app->add_option(names, target, help)->check(CLI::IsMember(choices));
  return *this;
}
Command& Command::flag(const std::string& names, bool& target, const std::string& help) {
  node_.last = node_.app->add_flag(names, target, help);
  return *this;
}
Command& Command::argument(const std::string& name, std::string& target, const std::string& help) {
  return option(name, target, help);
}
Command& Command::argument(const std::string& name, std::vector<std::string>& target, const std::string& help) {
  node_.last = node_.app->add_option(name, target, help);
  return *this;
}
Command& Command::required() {
  CHECK(node_.last != nullptr);
  node_.last->required();
  return *this;
}
Command& Command::unguarded() {
  node_.guarded = false;
  return *this;
}
void Command::run(Handler handler) { node_.handler = std::move(handler); }

int run_cli(const std::vector<std::string>& arguments, const Environment& environment, const std::vector<Registration>& groups,
            std::ostream& out, std::ostream& err) {
  CLI::App app("assay: an event-sourced pipeline that scores, promotes and grants, and can prove it", "assay");
  Command::Node root;
  root.app = &app;
  app.formatter(std::make_shared<ExamplesFirst>(root));
  app.fallthrough();  // global flags may stand after the command
  app.set_help_flag("-h,--help", "This help");
  app.set_version_flag("--version", std::string("assay ") + kVersion);
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::Throw);

  Layers layers;
  layers.environment = environment;
  std::optional<std::string> data_dir, brokers, database_url;
  std::string format = "table";
  bool quiet = false;
  Command global(root);
  global.option("--config", layers.config_file, "Configuration file (deploy/assay.toml explains every key)")
      .option("--set", layers.sets, "KEY=VALUE over file and environment; may be given often")
      .option("--data-dir", data_dir, "Directory of log, stores and keys")
      .option("--brokers", brokers, "Kafka at HOST:PORT,…; without it the embedded log in the data directory")
      .option("-d,--database-url", database_url, "PostgreSQL of the audit chain; without it archive files in the data directory")
      .choice("-o,--output", format, {"table", "json", "csv"}, "Form of the results on stdout")
      .flag("-q,--quiet", quiet, "No progress, and only warnings in the log");
  global.example("assay generate --agents 50 --reports 20000 --seed 1 --out fleet.jsonl");
  global.example("assay produce --input fleet.jsonl");
  global.example("assay run --until-end");
  global.example("assay scoreboard -o json");
  for (Registration group : groups) group(global);

  auto complain = [&](const std::string& text, const CLI::App* where) {
    err << "assay: " << text << "\n"
        << "See: " << command_path(where) << " --help\n";
    return exit_code(Errc::kUsage);
  };
  try {
    std::vector<std::string> reversed(arguments.rbegin(), arguments.rend());  // CLI11 takes them from the back
    app.parse(std::move(reversed));
  } catch (const CLI::CallForHelp&) {
    out << root.chosen().app->help(command_path(root.chosen().app->get_parent()));
    return 0;
  } catch (const CLI::CallForVersion& version) {
    out << version.what() << "\n";
    return 0;
  } catch (const CLI::ExtrasError&) {
    Command::Node& at = root.chosen();
    const std::vector<std::string> extras = app.remaining(true);
    return complain(extras.empty() ? "unexpected arguments" : unknown_argument(at, extras.front()), at.app);
  } catch (const CLI::ParseError& error) {
    return complain(error.what(), root.chosen().app);
  }
  Command::Node& chosen = root.chosen();
  if (!chosen.handler) {
    err << chosen.app->help(chosen.app->get_parent() == nullptr ? "" : command_path(chosen.app->get_parent()));
    return exit_code(Errc::kUsage);
  }

  auto fail = [&](const Error& error) {
    err << "assay: " << error.message << "\n";
    return exit_code(error.code);
  };
  if (data_dir) layers.flags.emplace_back("data_dir", *data_dir);
  if (brokers) layers.flags.emplace_back("kafka.brokers", *brokers);
  if (database_url) layers.flags.emplace_back("database.url", *database_url);
  auto settings = load_settings(layers);
  if (!settings) return fail(settings.error());
  if (chosen.guarded) {
    const auto now = std::chrono::system_clock::now().time_since_epoch();
    auto guards = check_production_guards(*settings, std::chrono::duration_cast<std::chrono::milliseconds>(now).count());
    if (!guards) return fail(guards.error());
  }
  Context context{std::move(*settings),
                  format == "json"  ? Format::kJson
                  : format == "csv" ? Format::kCsv
                                    : Format::kTable,
                  quiet, out, err};
  auto code = chosen.handler(context);
  out.flush();
  if (!code) return fail(code.error());
  if (!out) return fail({Errc::kUnexpected, "stdout: the results could not be written"});
  return *code;
}

}  // namespace assay::tools
