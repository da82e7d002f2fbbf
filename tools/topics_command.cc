// assay topics: what the log has, what the configuration asks for, and creating what is missing.
#include <algorithm>

#include "tools/commands.h"
#include "tools/open_log.h"

namespace assay::tools {
namespace {

void print(Context& context, const std::vector<streams::TopicDifference>& plan) {
  std::vector<Json> rows;
  for (const auto& one : plan)
    rows.push_back(Json::object().set("topic", one.topic).set("action", one.action).set("detail", one.detail));
  context.out << render_rows(rows, context.format);
}

Result<int> plan(Context& context) {
  const auto wanted = configured_topics(context.settings);
  auto log = open_log(context.settings, LogAccess::kRead);
  if (!log && log.error().code == Errc::kIncomplete) log = open_log(context.settings, LogAccess::kReadWrite);  // nothing there yet
  if (!log) return std::move(log.error());
  TRY_ASSIGN(auto differences, streams::plan_topics(**log, wanted));
  print(context, differences);
  return 0;
}

Result<int> apply(Context& context) {
  const auto wanted = configured_topics(context.settings);
  TRY_ASSIGN(auto log, open_log(context.settings, LogAccess::kReadWrite));
  TRY_ASSIGN(auto before, streams::plan_topics(*log, wanted));
  TRY(log->create_topics(wanted));
  bool differs = false;
  for (auto& one : before) {
    if (one.action == "create") one.action = "created";
    differs |= one.action == "differs";
  }
  print(context, before);
  if (!differs) return 0;
  context.err << "assay: topics that differ were left as they are; their records would move or be lost\n";
  return exit_code(Errc::kUnhealthy);
}

}  // namespace

void register_topics(Command& root) {
  Command topics = root.command("topics", "Compare the log's topics with the configuration, and create what is missing");
  Command planning = topics.command("plan", "Show what apply would do");
  planning.example("assay --brokers 127.0.0.1:9092 topics plan");
  planning.run(plan);
  Command applying = topics.command("apply", "Create the topics that are missing; exit 3 when one differs, it is left as it is");
  applying.example("assay --brokers 127.0.0.1:9092 --set topics.partitions=8 topics apply");
  applying.run(apply);
}

}  // namespace assay::tools
