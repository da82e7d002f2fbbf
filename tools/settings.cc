#include "tools/settings.h"

#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iterator>
#include <limits>
#include <set>

#include "schemas/members.h"
#include "schemas/time.h"
#include "tools/environment.h"
#include "tools/toml_text.h"

extern char** environ;

namespace assay::tools {
namespace {

constexpr int64_t kMaxPartitions = 1000;

bool is_address(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos || colon == 0) return false;
  int port = 0;
  const auto [end, error] = std::from_chars(text.data() + colon + 1, text.data() + text.size(), port);
  return error == std::errc() && end == text.data() + text.size() && port >= 0 && port <= 65535;
}

bool are_addresses(std::string_view list) {
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (!is_address(list.substr(0, comma))) return false;
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return true;
}

void within(Members& table, std::string_view name, int64_t value, int64_t least, int64_t most) {
  if (value < least || value > most)
    table.refuse(name,
                 "must lie within " + std::to_string(least) + " and " + std::to_string(most) + ", is " + std::to_string(value));
}

/// TOML reads `security.protocol = "SSL"` as a table in a table; a property's name has dots.
void take_properties(Members& table, const Json& value, const std::string& name, std::map<std::string, std::string>& out) {
  for (const auto& [member, child] : value.as_object()) {
    const std::string full = name.empty() ? member : name + "." + member;
    if (child.is_object()) {
      take_properties(table, child, full, out);
    } else if (child.is_array() || child.is_null()) {
      table.mistyped("properties." + full, "a string, a number or a boolean", child);
    } else {
      out[full] = child.is_string() ? child.as_string() : canonical(child);
    }
  }
}

void read_topics(Members& table, TopicSettings& topics) {
  table.text("prefix", topics.prefix);
  const bool legal = std::all_of(topics.prefix.begin(), topics.prefix.end(), [](unsigned char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
  if (!legal || topics.prefix.size() > 100)
    table.refuse("prefix", "must be at most 100 of the letters a-z, A-Z, 0-9, '.', '_' and '-', is " + quoted(topics.prefix));
  table.count("partitions", topics.partitions);
  within(table, "partitions", topics.partitions, 1, kMaxPartitions);
  table.flag("manage", topics.manage);
  std::string retention = "forever";
  table.text("retention", retention);
  if (retention == "forever") {
    topics.retention_ms = -1;
  } else if (auto ms = parse_duration_ms(retention); ms && *ms > 0) {
    topics.retention_ms = *ms;
  } else {
    table.refuse("retention", "must be \"forever\" or a duration such as \"30d\", is " + quoted(retention));
  }
}

void read_kafka(Members& table, KafkaSettings& kafka) {
  table.text("brokers", kafka.brokers);
  if (!are_addresses(kafka.brokers)) table.refuse("brokers", "must be HOST:PORT,HOST:PORT…, is " + quoted(kafka.brokers));
  const Json* properties = table.take("properties");
  if (properties == nullptr) return;
  if (!properties->is_object()) return table.mistyped("properties", "a table of librdkafka's properties", *properties);
  take_properties(table, *properties, "", kafka.properties);
}

void read_database(Members& table, DatabaseSettings& database) {
  table.text("url", database.url);
  const bool known = database.url.empty() || database.url.starts_with("postgresql://") || database.url.starts_with("postgres://") ||
                     database.url.find('=') != std::string::npos;
  if (!known)
    table.refuse("url", "must be postgresql://USER@HOST:PORT/NAME or empty, is " + quoted(without_password(database.url)));
}

void read_run(Members& table, RunSettings& run) {
  table.count("standbys", run.standbys);
  within(table, "standbys", run.standbys, 0, 8);
  std::string patience = format_duration_ms(run.patience_ms);
  table.text("patience", patience);
  if (auto ms = parse_duration_ms(patience); ms && *ms > 0) {
    run.patience_ms = *ms;
  } else {
    table.refuse("patience", "must be a duration such as \"1m\", is " + quoted(patience));
  }
}

void read_peers(Members& table, PeerSettings& peers) {
  table.text("listen", peers.listen);
  table.text("advertise", peers.advertise);
  table.text("secret", peers.secret);
  if (!peers.listen.empty() && !is_address(peers.listen))
    return table.refuse("listen", "must be HOST:PORT, or empty for none; is " + quoted(peers.listen));
  if (!peers.advertise.empty() && !is_address(peers.advertise))
    return table.refuse("advertise", "must be HOST:PORT, or empty for the address of peers.listen; is " + quoted(peers.advertise));
  if (peers.listen.empty() || is_local_address(peers.listen)) return;
  if (peers.secret.size() < 16)
    table.refuse("secret", "must have at least 16 characters, the same in every process, because peers.listen = " +
                               quoted(peers.listen) + " can be reached from other machines; ASSAY_PEERS_SECRET sets it");
  const std::string_view host = std::string_view(peers.listen).substr(0, peers.listen.rfind(':'));
  if ((host == "0.0.0.0" || host == "[::]" || host == "::") && peers.advertise.empty())
    table.refuse("advertise", "must say how others reach this process, because " + quoted(peers.listen) + " is no address to ask");
}

void read_archive(Members& table, ArchiveSettings& archive) {
  for (auto [key, url] : {std::pair{"url", &archive.url}, {"audit_url", &archive.audit_url}}) {
    table.text(key, *url);
    if (!url->empty() && !url->starts_with("file:///") && !url->starts_with("s3://"))
      table.refuse(key, "must be \"file:///DIR\", \"s3://BUCKET/PREFIX\", or empty for no archive; is " + quoted(*url));
  }
  std::string age = format_duration_ms(archive.segment_age_ms);
  table.text("segment_age", age);
  if (auto ms = parse_duration_ms(age); ms && *ms >= kSecondMs)
    archive.segment_age_ms = *ms;
  else
    table.refuse("segment_age", "must be a duration of at least 1s, such as \"5m\", is " + quoted(age));
  table.choice("lock", archive.lock, {"none", "governance", "compliance"});
  std::string lock_for = format_duration_ms(archive.lock_for_ms);
  table.text("lock_for", lock_for);
  if (auto ms = parse_duration_ms(lock_for); ms && *ms >= kSecondMs)
    archive.lock_for_ms = *ms;
  else
    table.refuse("lock_for", "must be a duration of at least 1s, such as \"365d\", is " + quoted(lock_for));
}

void read_s3(Members& table, S3Settings& s3) {
  table.text("endpoint", s3.endpoint);
  table.text("region", s3.region);
  table.text("access_key", s3.access_key);
  table.text("secret", s3.secret);
  if (!s3.endpoint.empty() && !s3.endpoint.starts_with("https://") && !s3.endpoint.starts_with("http://"))
    table.refuse("endpoint", "must be https://HOST[:PORT], or empty for AWS; is " + quoted(s3.endpoint));
  if (s3.region.empty()) table.refuse("region", "must name a region, such as \"eu-central-1\"");
}

void read_settings(const Json& root, Settings& settings, std::vector<ConfigProblem>& problems) {
  Members top(root, "", problems);
  std::string profile = "development";
  top.choice("profile", profile, {"development", "production"});
  settings.profile = profile == "production" ? Profile::kProduction : Profile::kDevelopment;
  top.text("data_dir", settings.data_dir);
  if (settings.data_dir.empty()) top.refuse("data_dir", "must name a directory, is empty");
  std::string memory = format_size_bytes(settings.memory_bytes);
  top.text("memory", memory);
  const std::optional<int64_t> memory_bytes = parse_size_bytes(memory);
  if (!memory_bytes) top.refuse("memory", "must be a size such as \"1GiB\", is " + quoted(memory));
  for (ConfigKind kind : kConfigKinds) {
    const Json* body = top.take(config_kind_name(kind));
    if (body == nullptr) continue;
    for (ConfigProblem& problem : read_members(*body, kind, settings.rules)) problems.push_back(std::move(problem));
  }
  // A member that could not be read stands at its default, so nothing more is said about it.
  const std::vector<ConfigProblem> unread = problems;
  for (ConfigProblem& problem : find_problems(settings.rules))
    if (std::ranges::find(unread, problem.key, &ConfigProblem::key) == unread.end()) problems.push_back(std::move(problem));
  top.table("topics", [&](Members& table) { read_topics(table, settings.topics); });
  top.table("kafka", [&](Members& table) { read_kafka(table, settings.kafka); });
  top.table("database", [&](Members& table) { read_database(table, settings.database); });
  top.table("audit", [&](Members& table) { read_audit(table, settings.audit); });
  top.table("commit", [&](Members& table) {
    table.count("interval_ms", settings.commit.interval_ms);
    within(table, "interval_ms", settings.commit.interval_ms, 1, 60000);
    table.count("max_records", settings.commit.max_records);
    within(table, "max_records", settings.commit.max_records, 1, 1000000);
  });
  top.table("run", [&](Members& table) { read_run(table, settings.run); });
  top.table("peers", [&](Members& table) { read_peers(table, settings.peers); });
  top.table("state", [&](Members& table) {
    std::string interval = format_duration_ms(settings.state.checkpoint_interval_ms);
    table.text("checkpoint_interval", interval);
    if (auto ms = parse_duration_ms(interval); ms && *ms >= kSecondMs)
      settings.state.checkpoint_interval_ms = *ms;
    else
      table.refuse("checkpoint_interval", "must be a duration of at least 1s, such as \"10m\", is " + quoted(interval));
    table.count("checkpoints_kept", settings.state.checkpoints_kept);
    within(table, "checkpoints_kept", settings.state.checkpoints_kept, 1, 100);
  });
  top.table("archive", [&](Members& table) { read_archive(table, settings.archive); });
  top.table("s3", [&](Members& table) { read_s3(table, settings.s3); });
  for (auto [key, url] : {std::pair{"archive.url", &settings.archive.url}, {"archive.audit_url", &settings.archive.audit_url}})
    if (url->starts_with("s3://") && (settings.s3.access_key.empty() || settings.s3.secret.empty()))
      problems.push_back({key, "needs s3.access_key and s3.secret (S3_ACCESS_KEY, S3_SECRET)"});
  top.table("http", [&](Members& table) {
    table.text("addr", settings.http_addr);
    if (!settings.http_addr.empty() && !is_address(settings.http_addr))
      table.refuse("addr", "must be HOST:PORT, or empty for no HTTP; is " + quoted(settings.http_addr));
  });
  if (memory_bytes) {
    settings.memory_bytes = *memory_bytes;
    const MemoryNeeds needs = memory_needs(settings);
    const int64_t least = needs.partitions >= 1 && needs.partitions <= kMaxPartitions ? least_memory(needs) : 0;
    if (*memory_bytes < least)
      top.refuse("memory", "must be at least " + format_size_bytes(least) + " for the " + std::to_string(needs.tasks()) +
                               " tasks that topics.partitions = " + std::to_string(needs.partitions) + " makes, is " +
                               quoted(memory));
  }
  top.table("log", [&](Members& table) { table.choice("level", settings.log_level, {"debug", "info", "warn", "error"}); });
  top.done();
}

/// Where a value was set: "FILE" with a line, or "environment PORT", "--set KEY" without.
struct Place {
  std::string source;
  int line = 0;
  std::string text() const { return line == 0 ? source : source + ":" + std::to_string(line); }
};
using PlaceOf = std::function<Place(const std::string& key)>;

/// Documents laid one over the other, and where each key's value came from.
class Layered {
 public:
  void lay(const Json& over, const PlaceOf& place_of) { lay(root_, over, "", place_of); }

  const Json& root() const { return root_; }
  const std::map<std::string, Place>& places() const { return places_; }

  /// Where the key, or else the table around it, was set.
  Place place(std::string key) const {
    while (!key.empty()) {
      if (auto it = places_.find(key); it != places_.end()) return it->second;
      const size_t cut = key.find_last_of(".[");
      key.resize(cut == std::string::npos ? 0 : cut);
    }
    return {"defaults", 0};
  }

 private:
  void lay(Json& base, const Json& over, const std::string& path, const PlaceOf& place_of) {
    if (!path.empty()) {
      if (!over.is_object() || !base.is_object()) forget_below(path);
      places_[path] = place_of(path);
    }
    if (over.is_object()) {
      if (!base.is_object()) base = Json::object();
      for (const auto& [name, child] : over.as_object()) {
        if (base.find(name) == nullptr) base.set(name, Json());
        for (auto& [known, value] : base.as_object())
          if (known == name) lay(value, child, path.empty() ? name : path + "." + name, place_of);
      }
      return;
    }
    base = over;
    if (over.is_array()) note_elements(over, path, place_of);
  }

  /// An array is laid whole; its elements' keys have places of their own all the same.
  void note_elements(const Json& value, const std::string& path, const PlaceOf& place_of) {
    places_[path] = place_of(path);
    if (value.is_array())
      for (size_t i = 0; i < value.as_array().size(); ++i)
        note_elements(value.as_array()[i], path + "[" + std::to_string(i) + "]", place_of);
    if (value.is_object())
      for (const auto& [name, child] : value.as_object()) note_elements(child, path + "." + name, place_of);
  }

  void forget_below(const std::string& path) {
    std::erase_if(places_, [&](const auto& entry) {
      return entry.first.size() > path.size() && entry.first.starts_with(path) &&
             (entry.first[path.size()] == '.' || entry.first[path.size()] == '[');
    });
  }

  Json root_ = Json::object();
  std::map<std::string, Place> places_;
};

/// The problems of all layers: those of the file by line, then the others as they were found.
class ProblemList {
 public:
  void add(const Place& place, const ConfigProblem& problem) {
    if (!unreadable_.contains(problem.key)) add_line(place.line, place.text() + ": " + problem.text());
  }
  /// A value that is no value at all; what else is said about its key would only repeat it.
  void add_unreadable(const Place& place, const ConfigProblem& problem) {
    add(place, problem);
    unreadable_.insert(problem.key);
  }
  void add_text(std::string text) { add_line(0, std::move(text)); }

  bool empty() const { return lines_.empty(); }
  std::string message() {
    std::stable_sort(lines_.begin(), lines_.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
    std::string text = std::to_string(lines_.size()) + (lines_.size() == 1 ? " problem" : " problems") + " in the configuration";
    for (const auto& [line, problem] : lines_) text += "\n" + problem;
    return text;
  }

 private:
  void add_line(int line, std::string text) {
    lines_.emplace_back(line == 0 ? std::numeric_limits<int>::max() : line, std::move(text));
  }

  std::vector<std::pair<int, std::string>> lines_;
  std::set<std::string> unreadable_;
};

/// {"a":{"b":value}} for "a.b".
Json nested(std::string_view key, Json value) {
  const size_t dot = key.find('.');
  if (dot == std::string_view::npos) return Json::object().set(key, std::move(value));
  return Json::object().set(key.substr(0, dot), nested(key.substr(dot + 1), std::move(value)));
}

Result<std::string> read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string text{std::istreambuf_iterator<char>(file), {}};
  if (!file.is_open() || file.bad()) return Error{Errc::kUsage, path + ": cannot be read"};
  return text;
}

Result<void> lay_file(const std::string& file, Layered& layered, ProblemList& problems) {
  TRY_ASSIGN(std::string text, read_file(file));
  auto document = parse_toml(text);
  if (!document) return Error{Errc::kUsage, file + ":" + document.error().message};
  for (const ConfigProblem& problem : document->problems) problems.add_unreadable({file, document->lines[problem.key]}, problem);
  layered.lay(document->root, [&](const std::string& key) { return Place{file, document->lines[key]}; });
  return {};
}

void lay_environment(const Environment& environment, Layered& layered, Settings& settings, ProblemList& problems) {
  const Json* http = layered.root().find("http");
  const std::string addr(http == nullptr ? "" : http->string_or("addr", ""));
  for (EnvironmentValue& value : read_environment(environment, addr, settings)) {
    const std::string origin = "environment " + value.variable;
    if (!value.problem.empty()) {
      problems.add_text(origin + ": " + value.problem);
    } else {
      layered.lay(nested(value.key, std::move(value.value)), [&](const std::string&) { return Place{origin, 0}; });
    }
  }
}

void lay_set(const std::string& set, Layered& layered, ProblemList& problems) {
  const size_t equals = set.find('=');
  const std::string key = set.substr(0, equals);
  if (equals == std::string::npos || key.empty() || key.front() == '.' || key.back() == '.' || key.find("..") != std::string::npos)
    return problems.add_text("--set " + set + ": must be KEY=VALUE, such as --set scoring.grace=10m");
  const std::string text = set.substr(equals + 1);
  auto value = parse_toml_value(text);  // what TOML does not know as a value is text: nobody quotes twice on a command line
  layered.lay(nested(key, value ? *value : Json(text)), [&](const std::string&) { return Place{"--set " + key, 0}; });
}

std::string flag_of(std::string key) {
  if (key == "kafka.brokers") return "--brokers";
  if (key == "database.url") return "--database-url";
  if (key == "http.addr") return "--http";
  std::replace(key.begin(), key.end(), '_', '-');
  return "--" + key;
}

}  // namespace

bool is_local_address(std::string_view address) {
  const std::string_view host = address.substr(0, address.rfind(':'));
  return host == "localhost" || host.starts_with("127.") || host == "[::1]" || host == "::1";
}

MemoryNeeds memory_needs(const Settings& settings) {
  const bool kafka = !settings.kafka.brokers.empty();
  return {.partitions = settings.topics.partitions,
          .kafka = kafka,
          .follows = kafka && settings.run.standbys > 0,
          .archive = !settings.archive.url.empty()};
}

Environment process_environment() {
  Environment variables;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text(*entry);
    if (const size_t equals = text.find('='); equals != std::string_view::npos)
      variables[std::string(text.substr(0, equals))] = std::string(text.substr(equals + 1));
  }
  return variables;
}

Result<Settings> load_settings(const Layers& layers) {
  Layered layered;
  ProblemList problems;
  std::string file = layers.config_file;
  if (auto it = layers.environment.find("ASSAY_CONFIG"); file.empty() && it != layers.environment.end()) file = it->second;
  if (!file.empty()) TRY(lay_file(file, layered, problems));
  Settings settings;
  lay_environment(layers.environment, layered, settings, problems);
  for (const std::string& set : layers.sets) lay_set(set, layered, problems);
  for (const auto& [key, value] : layers.flags) {
    const std::string origin = flag_of(key);
    layered.lay(nested(key, Json(value)), [&](const std::string&) { return Place{origin, 0}; });
  }
  std::vector<ConfigProblem> found;
  read_settings(layered.root(), settings, found);
  for (const ConfigProblem& problem : found) problems.add(layered.place(problem.key), problem);
  if (!problems.empty()) return Error{Errc::kUsage, problems.message()};
  for (const auto& [key, place] : layered.places()) settings.origins[key] = place.text();
  return settings;
}

Json settings_to_json(const Settings& settings) {
  Json root = Json::object();
  root.set("profile", settings.profile == Profile::kProduction ? "production" : "development");
  root.set("data_dir", settings.data_dir);
  root.set("memory", format_size_bytes(settings.memory_bytes));
  for (ConfigKind kind : kConfigKinds) root.set(config_kind_name(kind), rules_to_json(settings.rules, kind));
  root.set("topics",
           Json::object()
               .set("prefix", settings.topics.prefix)
               .set("partitions", settings.topics.partitions)
               .set("manage", settings.topics.manage)
               .set("retention", settings.topics.retention_ms < 0 ? "forever" : format_duration_ms(settings.topics.retention_ms)));
  Json properties = Json::object();
  for (const auto& [name, value] : settings.kafka.properties)
    properties.set(name, name.find("password") != std::string::npos || name.find("secret") != std::string::npos ||
                                 name.find("key.pem") != std::string::npos || name == "sasl.oauthbearer.config"
                             ? std::string("***")
                             : value);
  root.set("kafka", Json::object().set("brokers", settings.kafka.brokers).set("properties", std::move(properties)));
  root.set("database", Json::object().set("url", without_password(settings.database.url)));
  root.set("audit", audit_settings_to_json(settings.audit));
  root.set("commit",
           Json::object().set("interval_ms", settings.commit.interval_ms).set("max_records", settings.commit.max_records));
  root.set("run",
           Json::object().set("standbys", settings.run.standbys).set("patience", format_duration_ms(settings.run.patience_ms)));
  root.set("peers", Json::object()
                        .set("listen", settings.peers.listen)
                        .set("advertise", settings.peers.advertise)
                        .set("secret", settings.peers.secret.empty() ? "" : "***"));
  root.set("state", Json::object()
                        .set("checkpoint_interval", format_duration_ms(settings.state.checkpoint_interval_ms))
                        .set("checkpoints_kept", settings.state.checkpoints_kept));
  root.set("archive", Json::object()
                          .set("url", settings.archive.url)
                          .set("audit_url", settings.archive.audit_url)
                          .set("segment_age", format_duration_ms(settings.archive.segment_age_ms))
                          .set("lock", settings.archive.lock)
                          .set("lock_for", format_duration_ms(settings.archive.lock_for_ms)));
  root.set("s3", Json::object()
                     .set("endpoint", settings.s3.endpoint)
                     .set("region", settings.s3.region)
                     .set("access_key", settings.s3.access_key)
                     .set("secret", settings.s3.secret.empty() ? "" : "***"));
  root.set("http", Json::object().set("addr", settings.http_addr));
  root.set("log", Json::object().set("level", settings.log_level));
  return root;
}

bool requires_kms(const Settings& settings) { return settings.require_kms.value_or(settings.profile == Profile::kProduction); }

Result<void> check_production_guards(const Settings& settings, int64_t now_ms, const std::string& signer_fault) {
  std::vector<std::string> failed;
  const bool production = settings.profile == Profile::kProduction;
  if (production)
    for (const std::string& name : settings.dev_switches)
      failed.push_back(name + ": a development override has no place in production; unset it");
  const AuditSettings& audit = settings.audit;
  const std::string kms =
      std::string("REQUIRE_KMS") + (settings.require_kms ? "=true" : " (true in production unless it says false)");
  if (audit.signer != "file") {
    if (production || requires_kms(settings))
      for (std::string& problem : signer_problems(audit, production)) failed.push_back(std::move(problem));
    if (requires_kms(settings) && !signer_fault.empty())
      failed.push_back(kms + ": the signer " + audit.signer_id + " (audit.signer = \"" + audit.signer +
                       "\") does not work: " + signer_fault);
  } else if (requires_kms(settings)) {
    failed.push_back(kms + ": no KMS, HSM or signing proxy is configured as signer; set audit.signer to kms, pkcs11 or proxy");
  } else if (production && (audit.kms_waiver_by.empty() || !audit.kms_waiver_until_ms)) {
    failed.push_back(
        "REQUIRE_KMS=false: in production this needs a named, time-limited authorisation;"
        " set audit.kms_waiver_by and audit.kms_waiver_until");
  } else if (production && *audit.kms_waiver_until_ms <= now_ms) {
    failed.push_back("REQUIRE_KMS=false: the authorisation by " + audit.kms_waiver_by + " ended at " +
                     format_rfc3339_ms(*audit.kms_waiver_until_ms));
  }
  if (settings.require_mtls.value_or(false))
    failed.push_back("REQUIRE_MTLS=true: mTLS is not configured; this version ends no TLS of its own");
  if (production)
    for (const std::string& name : settings.unused)
      if (name == "KERNEL_API_URL" || name == "SENTINELNET_URL" || name == "FINANCE_API_URL")
        failed.push_back(name + ": it is set, and this version does not ask it: decisions would pass without that check; unset it");
  if (failed.empty()) return {};
  std::string message =
      "refused to start: " + std::to_string(failed.size()) + (failed.size() == 1 ? " guard" : " guards") + " failed";
  for (const std::string& line : failed) message += "\n" + line;
  return Error{Errc::kRefused, std::move(message)};
}

std::optional<int64_t> parse_size_bytes(std::string_view text) {
  int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (error != std::errc() || count < 0) return std::nullopt;
  std::string_view unit(end, static_cast<size_t>(text.data() + text.size() - end));
  int shift = -1;
  if (unit.empty() || unit == "B") shift = 0;
  for (auto [letter, bits] : {std::pair{'K', 10}, {'M', 20}, {'G', 30}, {'T', 40}})
    if (!unit.empty() && unit[0] == letter && (unit.size() == 1 || unit.substr(1) == "iB")) shift = bits;
  if (shift < 0 || count > (kMaxCount >> shift)) return std::nullopt;
  return count << shift;
}

std::string format_size_bytes(int64_t bytes) {
  for (auto [unit, bits] : {std::pair{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}})
    if (bytes != 0 && bytes % (int64_t{1} << bits) == 0) return std::to_string(bytes >> bits) + unit;
  return std::to_string(bytes) + "B";
}

std::string without_password(std::string_view url) {
  std::string text(url);
  if (const size_t scheme = text.find("://"); scheme != std::string::npos) {
    const size_t host = text.find('@', scheme), colon = text.find(':', scheme + 3);
    if (host != std::string::npos && colon != std::string::npos && colon < host) text.replace(colon + 1, host - colon - 1, "***");
  }
  if (const size_t word = text.find("password="); word != std::string::npos) {
    const size_t from = word + 9;
    text.replace(from,
                 text.find_first_of(" &", from) == std::string::npos ? std::string::npos : text.find_first_of(" &", from) - from,
                 "***");
  }
  return text;
}

}  // namespace assay::tools
