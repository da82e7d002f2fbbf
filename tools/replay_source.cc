#include "tools/replay_source.h"

#include "schemas/time.h"
#include "streams/config_feed.h"
#include "tools/open_log.h"

namespace assay::tools {

Result<std::unique_ptr<streams::Log>> open_replay_source(const Settings& settings, const std::string& from) {
  if (from != "log") return Error{Errc::kUsage, "--from " + from + ": this version replays from the log"};
  TRY_ASSIGN(auto log, open_log(settings, LogAccess::kRead));
  TRY(check_partitions(settings, *log));
  return log;
}

Result<Rules> present_rules(streams::Log& log, const Settings& settings) {
  auto feed = streams::read_rules(log, settings.topics.prefix);
  if (!feed && feed.error().code == Errc::kNotFound) return settings.rules;
  if (!feed) return feed.error();
  for (ConfigKind kind : kConfigKinds)
    if (!feed->kinds.contains(kind)) TRY(apply_json(rules_to_json(settings.rules, kind), kind, feed->rules));
  return std::move(feed->rules);
}

Result<int64_t> instant_of(const std::string& flag, const std::string& text) {
  if (auto ms = parse_rfc3339_ms(text)) return *ms;
  return Error{Errc::kUsage, flag + " " + text + ": not an RFC 3339 time with a zone, like 2026-05-01T12:00:00Z"};
}

}  // namespace assay::tools
