// assay doctor: one line for each thing that must be well, with the cure where it is not.
#include <sys/statvfs.h>
#include <sys/timex.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>

#include "schemas/time.h"
#include "schemas/topics.h"
#include "streams/config_feed.h"
#include "tools/commands.h"
#include "tools/net_probe.h"
#include "tools/open_log.h"

namespace assay::tools {
namespace {

constexpr int64_t kFreeBytesMin = int64_t{1} << 30;
constexpr int64_t kBuiltAfterMs = 1767225600000;  // 2026-01-01: this program did not exist before
constexpr int kProbeTimeoutMs = 3000;

class Findings {
 public:
  void ok(std::string_view check, std::string detail) { add(check, "ok", std::move(detail), ""); }
  void warn(std::string_view check, std::string detail, std::string cure) {
    add(check, "warn", std::move(detail), std::move(cure));
  }
  void fail(std::string_view check, std::string detail, std::string cure) {
    add(check, "fail", std::move(detail), std::move(cure));
    healthy_ = false;
  }
  bool healthy() const { return healthy_; }
  const std::vector<Json>& rows() const { return rows_; }

 private:
  void add(std::string_view check, std::string_view status, std::string detail, std::string cure) {
    // A message of several lines would tear the table.
    std::replace(detail.begin(), detail.end(), '\n', ';');
    rows_.push_back(
        Json::object().set("check", check).set("status", status).set("detail", std::move(detail)).set("cure", std::move(cure)));
  }

  std::vector<Json> rows_;
  bool healthy_ = true;
};

void check_configuration(const Settings& settings, Findings& findings) {
  // Settings that could not be read never come here: they ended the command with exit 2.
  findings.ok("configuration", std::to_string(settings.origins.size()) + " keys set, rules " +
                                   rules_version(settings.rules, ConfigKind::kScoring) + " for scoring");
  if (auto guards = check_production_guards(settings, wall_now().value); !guards)
    findings.fail("guards", guards.error().message, "unset or configure what is named; run refuses to start");
  else
    findings.ok("guards", settings.profile == Profile::kProduction ? "production, none failed" : "development");
  for (const std::string& name : settings.unused)
    findings.warn("environment", name + " is set, and this version does not act on it", "unset it, or do not rely on it");
}

void check_log(const Settings& settings, Findings& findings) {
  auto log = open_log(settings, LogAccess::kRead);
  if (!log && log.error().code == Errc::kIncomplete && settings.kafka.brokers.empty()) {
    findings.warn("log", "nothing in " + settings.data_dir + " yet", "assay produce or assay run makes it");
    return;
  }
  if (!log) {
    findings.fail("log", log.error().message,
                  settings.kafka.brokers.empty() ? "end the process that holds the directory, or choose another --data-dir"
                                                 : "start the broker, or correct kafka.brokers");
    return;
  }
  auto differences = streams::plan_topics(**log, configured_topics(settings));
  if (!differences) {
    findings.fail("log", differences.error().message, "start the broker, or correct kafka.brokers");
    return;
  }
  findings.ok("log", (*log)->describe());
  std::string missing, differing;
  for (const auto& one : *differences) {
    if (one.action == "create") missing += (missing.empty() ? "" : ", ") + one.topic;
    if (one.action == "differs") differing += (differing.empty() ? "" : "; ") + one.topic + ": " + one.detail;
  }
  if (!missing.empty() && !settings.topics.manage)
    findings.fail("topics", "missing: " + missing, "assay topics apply");
  else if (!missing.empty())
    findings.warn("topics", "missing: " + missing, "they are made on first use; or assay topics apply");
  if (!differing.empty()) findings.warn("topics", differing, "change the configuration or the topic, whichever is wrong");
  if (missing.empty() && differing.empty()) findings.ok("topics", std::to_string(differences->size()) + " as configured");
  if (missing.find(topic_spec(Topic::kConfig).name) != std::string::npos) return;
  auto feed = streams::read_rules(**log, settings.topics.prefix);
  if (!feed) {
    findings.fail("rules", feed.error().message, "restore the record from the archive; no task starts on rules it cannot read");
    return;
  }
  size_t differ = 0;
  for (ConfigKind kind : kConfigKinds)
    differ += !feed->kinds.contains(kind) || rules_version(feed->rules, kind) != rules_version(settings.rules, kind);
  if (differ == 0)
    findings.ok("rules", "those on the log are those of the configuration");
  else
    findings.warn("rules", std::to_string(differ) + " kinds on the log differ from the configuration",
                  "assay config apply publishes them");
}

void check_database(const Settings& settings, Findings& findings) {
  if (settings.database.url.empty()) {
    findings.ok("database", "none configured: the audit chain is written to " + settings.data_dir + "/audit");
    return;
  }
  const HostPort address = database_address(settings.database.url);
  if (auto reached = probe_postgres(address, kProbeTimeoutMs); reached)
    findings.ok("database", "PostgreSQL answers at " + address.host + ":" + address.port + " (without logging in)");
  else
    findings.fail("database", reached.error().message, "start PostgreSQL, or correct database.url");
}

void check_disk(const Settings& settings, Findings& findings) {
  std::filesystem::path place = std::filesystem::absolute(settings.data_dir);
  std::error_code ignored;
  while (!std::filesystem::exists(place, ignored) && place.has_relative_path()) place = place.parent_path();
  struct statvfs disk {};
  if (statvfs(place.c_str(), &disk) != 0) {
    findings.fail("disk", place.string() + " cannot be looked at", "check the path and its permissions");
    return;
  }
  const int64_t free_bytes = static_cast<int64_t>(disk.f_bavail) * static_cast<int64_t>(disk.f_frsize);
  const std::string detail = std::to_string(free_bytes >> 20) + " MiB free at " + place.string();
  if (access(place.c_str(), W_OK) != 0)
    findings.fail("disk", place.string() + " cannot be written", "give this user the right to write there");
  else if (free_bytes < kFreeBytesMin)
    findings.fail("disk", detail, "free at least 1 GiB, or move data_dir");
  else
    findings.ok("disk", detail);
}

void check_clock(Findings& findings) {
  const int64_t now_ms = wall_now().value;
  if (now_ms < kBuiltAfterMs) {
    findings.fail("clock", "it says " + format_rfc3339_ms(now_ms), "set the clock; record timestamps come from it");
    return;
  }
  struct timex status {};
  if (const int state = adjtimex(&status); state == TIME_ERROR || (status.status & STA_UNSYNC) != 0)
    findings.warn("clock", format_rfc3339_ms(now_ms) + ", and the kernel says that nothing keeps it right",
                  "run an NTP client on this machine");
  else
    findings.ok("clock", format_rfc3339_ms(now_ms) + ", kept right");
}

int doctor(Context& context) {
  Findings findings;
  check_configuration(context.settings, findings);
  check_log(context.settings, findings);
  check_database(context.settings, findings);
  check_disk(context.settings, findings);
  check_clock(findings);
  context.out << render_rows(findings.rows(), context.format, {"check", "status", "detail", "cure"});
  return findings.healthy() ? 0 : exit_code(Errc::kUnhealthy);
}

}  // namespace

void register_doctor(Command& root) {
  Command command =
      root.command("doctor", "Check configuration, log, topics, database, disk and clock; exit 3 when one is not well");
  command.example("assay doctor").example("assay --brokers 127.0.0.1:9092 doctor -o json").unguarded();
  command.run(doctor);
}

}  // namespace assay::tools
