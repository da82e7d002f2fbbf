// assay config: check, show and publish the rules.
#include <algorithm>

#include "streams/config_feed.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/suggest.h"

namespace assay::tools {
namespace {

void flatten(const Json& value, const std::string& path, const Settings& settings, std::vector<Json>& rows) {
  if (value.is_object() && !value.as_object().empty()) {
    for (const auto& [name, child] : value.as_object()) flatten(child, path.empty() ? name : path + "." + name, settings, rows);
  } else if (value.is_array() && !value.as_array().empty() && value.as_array()[0].is_object()) {
    for (size_t i = 0; i < value.as_array().size(); ++i)
      flatten(value.as_array()[i], path + "[" + std::to_string(i) + "]", settings, rows);
  } else if (!value.is_object()) {
    auto origin = settings.origins.find(path);
    rows.push_back(Json::object()
                       .set("key", path)
                       .set("value", value)
                       .set("from", origin == settings.origins.end() ? "default" : origin->second));
  }
}

int show(Context& context) {
  std::vector<Json> rows;
  flatten(settings_to_json(context.settings), "", context.settings, rows);
  // Not keys: what follows from one. They stand behind it.
  const auto memory = std::ranges::find_if(rows, [](const Json& row) { return row.string_or("key", "") == "memory"; });
  std::vector<Json> shares;
  for (const auto& [part, bytes] : share_memory(context.settings.memory_bytes, memory_needs(context.settings)).parts())
    shares.push_back(Json::object()
                         .set("key", "memory." + std::string(part))
                         .set("value", format_size_bytes(bytes >> 20 << 20))
                         .set("from", "share of memory"));
  rows.insert(std::next(memory), shares.begin(), shares.end());
  context.out << render_rows(rows, context.format);
  return 0;
}

Result<int> check(Context& context, const std::string& file) {
  Settings settings = context.settings;
  if (!file.empty()) {
    TRY_ASSIGN(settings, load_settings({.config_file = file, .environment = {}, .sets = {}, .flags = {}}));
  }
  std::vector<Json> rows;
  for (ConfigKind kind : kConfigKinds)
    rows.push_back(Json::object()
                       .set("kind", config_kind_name(kind))
                       .set("version", rules_version(settings.rules, kind))
                       .set("status", rules_version(settings.rules, kind) == rules_version(default_rules(), kind)
                                          ? "ok, as by default"
                                          : "ok"));
  context.out << render_rows(rows, context.format);
  for (const std::string& name : settings.unused)
    context.err << "assay: note: " << name << " is set, and this version does not act on it\n";
  return 0;
}

Result<int> apply(Context& context) {
  TRY_ASSIGN(auto log, open_log(context.settings, LogAccess::kReadWrite));
  TRY(ensure_topics(context.settings, *log));
  TRY_ASSIGN(auto published, streams::publish_rules(*log, context.settings.topics.prefix, context.settings.rules, wall_now()));
  std::vector<Json> rows;
  for (const auto& one : published)
    rows.push_back(Json::object()
                       .set("kind", config_kind_name(one.kind))
                       .set("version", one.version)
                       .set("status", one.changed ? "published" : "unchanged"));
  context.out << render_rows(rows, context.format);
  return 0;
}

}  // namespace

void register_config(Command& root) {
  Command config = root.command("config", "Check, show, publish and propose the configuration");

  Command checking = config.command("check", "Check the configuration: every problem at once, exit 2 when there is one");
  auto file = std::make_shared<std::string>();
  checking.example("assay config check deploy/assay.toml").example("assay --config my.toml --set scoring.grace=10m config check");
  checking.argument("FILE", *file, "File to check instead of the one in --config").unguarded();
  checking.run([file](Context& context) { return check(context, *file); });

  Command showing = config.command("show", "Show every key, its value and where it comes from");
  showing.example("assay --config my.toml config show").unguarded();
  showing.run(show);

  Command applying = config.command("apply", "Publish the rules that differ from the last ones as config.v1 events");
  applying.example("assay --config my.toml config apply");
  applying.run(apply);

  Command suggesting = config.command("suggest", "Propose a rule for each metric of some reports");
  auto input = std::make_shared<std::string>("-");
  suggesting.example("assay config suggest --input reports.jsonl.zst > rules.toml").example("assay --config rules.toml run");
  suggesting.option("--input", *input, "Reports, one JSON object a line; .zst and .gz are recognised; - is standard input")
      .unguarded();
  suggesting.run([input](Context& context) { return suggest(context, *input); });
}

}  // namespace assay::tools
