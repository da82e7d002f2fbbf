// Settings: the commented file is the defaults, layers lie in order, and everything wrong is named with its place.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "tools/settings.h"

namespace assay::tools {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

class SettingsTest : public ::testing::Test {
 protected:
  SettingsTest() : file_(std::filesystem::temp_directory_path() / ("assay-settings-" + std::to_string(getpid()) + ".toml")) {}
  ~SettingsTest() override { std::filesystem::remove(file_); }

  Layers with(const std::string& toml) {
    std::ofstream(file_) << toml;
    return {.config_file = file_.string(), .environment = {}, .sets = {}, .flags = {}};
  }
  Settings loaded(const Layers& layers) {
    auto settings = load_settings(layers);
    EXPECT_TRUE(settings) << settings.error().message;
    return settings ? *settings : Settings();
  }
  /// The problem lines, the file's path shortened to F.
  std::vector<std::string> problems(const Layers& layers) {
    auto settings = load_settings(layers);
    if (settings) return {};
    EXPECT_EQ(settings.error().code, Errc::kUsage);
    std::vector<std::string> lines;
    std::istringstream text(settings.error().message);
    for (std::string line; std::getline(text, line);) {
      if (const size_t at = line.find(file_.string()); at != std::string::npos) line.replace(at, file_.string().size(), "F");
      lines.push_back(line);
    }
    return lines;
  }

  std::filesystem::path file_;
};

TEST_F(SettingsTest, TheCommentedFileSaysTheDefaultsAndEveryOne) {
  const Settings file = loaded({.config_file = ASSAY_SOURCE_DIR "/deploy/assay.toml", .environment = {}, .sets = {}, .flags = {}});
  const Settings none = loaded({});
  EXPECT_EQ(file.rules, default_rules());
  EXPECT_EQ(none.rules, default_rules());
  EXPECT_EQ(settings_to_json(file), settings_to_json(none));
  // Every key that can be shown stands in the file: a key added to the program and not to the file fails here.
  std::vector<std::string> absent;
  auto visit = [&](auto& self, const Json& value, const std::string& path) -> void {
    if (value.is_object()) {
      for (const auto& [name, child] : value.as_object()) self(self, child, path.empty() ? name : path + "." + name);
      if (value.as_object().empty() && !file.origins.contains(path)) absent.push_back(path);
    } else if (!file.origins.contains(path)) {
      absent.push_back(path);
    }
  };
  visit(visit, settings_to_json(none), "");
  EXPECT_THAT(absent, ElementsAre("scoring.metric", "keys.signer")) << "these two stand there as comments";
}

TEST_F(SettingsTest, TheCommentedExamplesOfTheFileWorkToo) {
  std::ifstream file(ASSAY_SOURCE_DIR "/deploy/assay.toml");
  std::string text, line;
  bool example = false;
  while (std::getline(file, line)) {
    if (line.starts_with("# [[")) example = true;
    if (line.find("[[") == std::string::npos && !line.starts_with("# ")) example = false;
    text += (example && line.starts_with("# ") && line != "#" ? line.substr(2) : line) + "\n";
  }
  text.replace(text.find("base64 of 32 bytes"), 18, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=");
  const Settings settings = loaded(with(text));
  EXPECT_EQ(settings.rules.scoring.metrics, (std::vector<MetricRule>{{"*", "*", "*_latency_ms", false, 0, 5, 1}}));
  EXPECT_EQ(settings.rules.keys.signers.size(), 1u);
}

TEST_F(SettingsTest, EveryProblemIsNamedAtOnceWithLineAndNearestKey) {
  const auto lines =
      problems(with("profile = \"prod\"\n"
                    "memory = \"12 bytes\"\n"
                    "[scorign]\n"
                    "grace = \"1h\"\n"
                    "[scoring]\n"
                    "dedupe = \"10m\"\n"
                    "[[scoring.metric]]\n"
                    "metric = \"a\"\n"
                    "low = 3\n"
                    "high = 1.5\n"
                    "[promotion]\n"
                    "min_sample = 4\n"
                    "[topics]\n"
                    "partitions = 0\n"
                    "prefix = \"a b\"\n"
                    "retention = \"long\"\n"
                    "[kafka]\n"
                    "brokers = \"localhost\"\n"
                    "propertys = {}\n"
                    "[database]\n"
                    "url = \"mysql://u:secret@h/x\"\n"
                    "[audit]\n"
                    "eval_submit = \"all\"\n"
                    "kms_waiver_until = \"tomorrow\"\n"
                    "[commit]\n"
                    "interval_ms = 0\n"
                    "[http]\n"
                    "addr = \"8050\"\n"
                    "[log]\n"
                    "level = 1979-05-27\n"));
  EXPECT_THAT(
      lines,
      ElementsAre("17 problems in the configuration", "F:1: profile: must be \"development\" or \"production\", is \"prod\"",
                  "F:2: memory: must be a size such as \"1GiB\", is \"12 bytes\"",
                  "F:3: scorign: there is no such key; did you mean \"scoring\"?",
                  "F:6: scoring.dedupe: must not be less than scoring.grace (45m), is 10m",
                  "F:10: scoring.metric[0].high: must be greater than low (3), is 1.5; direction = \"down\" turns the scale around",
                  "F:12: promotion.min_sample: there is no such key; did you mean \"min_samples\"?",
                  "F:14: topics.partitions: must lie within 1 and 1000, is 0",
                  "F:15: topics.prefix: must be at most 100 of the letters a-z, A-Z, 0-9, '.', '_' and '-', is \"a b\"",
                  "F:16: topics.retention: must be \"forever\" or a duration such as \"30d\", is \"long\"",
                  "F:18: kafka.brokers: must be HOST:PORT,HOST:PORT…, is \"localhost\"",
                  "F:19: kafka.propertys: there is no such key; did you mean \"properties\"?",
                  "F:21: database.url: must be postgresql://USER@HOST:PORT/NAME or empty, is \"mysql://u:***@h/x\"",
                  "F:23: audit.eval_submit: must be \"range\" or \"each\", is \"all\"",
                  "F:24: audit.kms_waiver_until: must be a time such as \"2026-05-01T12:00:00Z\", is \"tomorrow\"",
                  "F:26: commit.interval_ms: must lie within 1 and 60000, is 0",
                  "F:28: http.addr: must be HOST:PORT, or empty for no HTTP; is \"8050\"",
                  "F:30: log.level: must be a string, a number, a boolean, an array or a table; dates are written in quotes"));
}

TEST_F(SettingsTest, ASyntaxErrorHasItsLine) {
  EXPECT_THAT(problems(with("[scoring]\ngrace = \n")), ElementsAre(HasSubstr("F:2: ")));
  EXPECT_THAT(problems(with("a = 1\na = 2\n")), ElementsAre(HasSubstr("F:2: ")));
  EXPECT_THAT(problems({.config_file = "/nowhere/x.toml", .environment = {}, .sets = {}, .flags = {}}),
              ElementsAre("/nowhere/x.toml: cannot be read"));
}

TEST_F(SettingsTest, NumbersThatNoRuleCanHoldAreRefused) {
  EXPECT_THAT(problems(with("[[scoring.metric]]\nhigh = inf\nlow = nan\nweight = 99999999999999999\n")),
              AllOf(::testing::Contains("F:2: scoring.metric[0].high: must be a finite number"),
                    ::testing::Contains("F:3: scoring.metric[0].low: must be a finite number"),
                    ::testing::Contains("F:4: scoring.metric[0].weight: must lie within ±2^53")));
}

TEST_F(SettingsTest, LayersLieFileEnvironmentSetFlag) {
  Layers layers =
      with("data_dir = \"file\"\n[kafka]\nbrokers = \"file:1\"\n[http]\naddr = \"0.0.0.0:1\"\n[promotion]\nenter = 0.9\n");
  EXPECT_EQ(loaded(layers).data_dir, "file");
  layers.environment = {{"ASSAY_DATA_DIR", "env"}, {"PORT", "9000"}, {"ASSAY_BROKERS", "env:1"}};
  EXPECT_EQ(loaded(layers).data_dir, "env");
  EXPECT_EQ(loaded(layers).http_addr, "0.0.0.0:9000");
  layers.sets = {"data_dir=set", "promotion.enter=0.91", "scoring.grace=10m"};
  EXPECT_EQ(loaded(layers).data_dir, "set");
  layers.flags = {{"data_dir", "flag"}};
  const Settings all = loaded(layers);
  EXPECT_EQ(all.data_dir, "flag");
  EXPECT_EQ(all.kafka.brokers, "env:1");
  EXPECT_EQ(all.rules.promotion.enter, 0.91);
  EXPECT_EQ(all.rules.promotion.leave, 0.8);
  EXPECT_EQ(all.rules.scoring.grace_ms, 10 * kMinuteMs);
  EXPECT_EQ(all.origins.at("data_dir"), "--data-dir");
  EXPECT_EQ(all.origins.at("kafka.brokers"), "environment ASSAY_BROKERS");
  EXPECT_EQ(all.origins.at("promotion.enter"), "--set promotion.enter");
}

TEST_F(SettingsTest, ASetValueIsTomlOrElseText) {
  Layers layers;
  layers.sets = {"topics.partitions=7",
                 "topics.manage=false",
                 "log.level=warn",
                 "database.url=postgresql://h/x",
                 "policy.deny_pools=[\"a*\", \"b\"]",
                 "allocation.pool=[{name=\"p\", capacity=3, quotas={ops=2}}]",
                 "allocation.grant.pool=p",
                 "kafka.properties.security.protocol=ssl",
                 "kafka.properties.batch.size=10"};
  const Settings settings = loaded(layers);
  EXPECT_EQ(settings.topics.partitions, 7);
  EXPECT_FALSE(settings.topics.manage);
  EXPECT_EQ(settings.log_level, "warn");
  EXPECT_EQ(settings.database.url, "postgresql://h/x");
  EXPECT_THAT(settings.rules.policy.deny_pools, ElementsAre("a*", "b"));
  EXPECT_EQ(settings.rules.allocation.pools, (std::vector<Pool>{{"p", "gpu", 3, {{"ops", 2}}}}));
  EXPECT_EQ(settings.kafka.properties, (std::map<std::string, std::string>{{"security.protocol", "ssl"}, {"batch.size", "10"}}));
}

TEST_F(SettingsTest, ALayerThatReplacesAnArrayLeavesNoPlaceOfTheOldOne) {
  Layers layers = with("[[allocation.pool]]\nname = \"gpus-us-east\"\ncapacity = 3\n[allocation.pool.quotas]\nops = 1\n");
  layers.sets = {"allocation.pool=[{capacity=1}]"};
  EXPECT_THAT(problems(layers),
              ::testing::Contains(HasSubstr("--set allocation.pool: allocation.pool[0].name: must have 1 to 256 bytes")));
  layers.sets = {"allocation.pool=[{name=\"gpus-us-east\", capacity=1}]"};
  EXPECT_FALSE(loaded(layers).origins.contains("allocation.pool[0].quotas.ops"));
}

TEST_F(SettingsTest, ABadSetIsNamed) {
  Layers layers;
  layers.sets = {"promotion.entre=1", "nonsense", "=1", "a..b=2", "topics.partitions=many", "scoring.grace=1\nx=2"};
  EXPECT_THAT(problems(layers),
              ElementsAre("6 problems in the configuration", "--set nonsense: must be KEY=VALUE, such as --set scoring.grace=10m",
                          "--set =1: must be KEY=VALUE, such as --set scoring.grace=10m",
                          "--set a..b=2: must be KEY=VALUE, such as --set scoring.grace=10m",
                          HasSubstr("--set scoring.grace: scoring.grace:"), "x=2\"",
                          "--set promotion.entre: promotion.entre: there is no such key; did you mean \"enter\"?",
                          "--set topics.partitions: topics.partitions: must be a whole number, is a string"));
}

TEST_F(SettingsTest, TheEnvironmentOfTheOriginalsDeploymentsIsUnderstood) {
  Layers layers;
  layers.environment = {{"EVAL_DATABASE_URL", "postgresql://u@h/eval"},
                        {"AUDIT_SIGNER_KID", "kid-7"},
                        {"AUDIT_SIGNING_KMS_KEY_ID", "alias/audit"},
                        {"SIGNING_PROXY_URL", "https://signer:8443"},
                        {"AWS_REGION", "eu-central-1"},
                        {"AUDIT_SIGNER_PIN", "1234"},
                        {"RESOURCE_ALLOCATOR_POOLS", "gpus-us-east:3,cpu-highmem:64,memory-big:4096"},
                        {"RESOURCE_ALLOCATOR_DENY_POOLS", "spot-*,cpu-highmem"},
                        {"RESOURCE_ALLOCATOR_MAX_DELTA", "2"},
                        {"MODE", "read-only"},
                        {"SENTINELNET_URL", "https://s"},
                        {"PORT", ""}};
  const Settings settings = loaded(layers);
  EXPECT_EQ(settings.database.url, "postgresql://u@h/eval");
  EXPECT_EQ(settings.audit.signer_id, "kid-7");
  EXPECT_EQ(settings.audit.signer, "kms") << "a KMS goes before the proxy that stands in for it";
  EXPECT_EQ(settings.audit.kms.key_id, "alias/audit");
  EXPECT_EQ(settings.audit.kms.region, "eu-central-1");
  EXPECT_EQ(settings.audit.proxy.url, "https://signer:8443");
  EXPECT_THAT(canonical(settings_to_json(settings)), AllOf(HasSubstr("\"pin\":\"***\""), Not(HasSubstr("1234"))));
  layers.environment.erase("AUDIT_SIGNING_KMS_KEY_ID");
  EXPECT_EQ(loaded(layers).audit.signer, "proxy");
  EXPECT_EQ(
      settings.rules.allocation.pools,
      (std::vector<Pool>{{"gpus-us-east", "gpu", 3, {}}, {"cpu-highmem", "cpu", 64, {}}, {"memory-big", "memoryMB", 4096, {}}}));
  EXPECT_THAT(settings.rules.policy.deny_pools, ElementsAre("spot-*", "cpu-highmem"));
  EXPECT_EQ(settings.rules.policy.max_delta, 2);
  EXPECT_TRUE(settings.read_only);
  EXPECT_EQ(settings.http_addr, "127.0.0.1:8050");
  EXPECT_THAT(settings.unused, ElementsAre("SENTINELNET_URL"));
}

TEST_F(SettingsTest, ABadVariableIsNamed) {
  Layers layers;
  layers.environment = {
      {"PORT", "http"}, {"REQUIRE_KMS", "maybe"}, {"RESOURCE_ALLOCATOR_POOLS", "gpus"}, {"EVAL_DATABASE_URL", "x"}};
  EXPECT_THAT(problems(layers),
              ElementsAre("4 problems in the configuration", "environment PORT: must be a port, 0 to 65535, is \"http\"",
                          HasSubstr("environment RESOURCE_ALLOCATOR_POOLS: must be POOL:CAPACITY"),
                          "environment REQUIRE_KMS: must be true or false, is \"maybe\"",
                          HasSubstr("environment EVAL_DATABASE_URL: database.url: must be postgresql://")));
}

TEST_F(SettingsTest, ProductionNamesEveryGuardThatFails) {
  Layers layers;
  layers.environment = {{"NODE_ENV", "production"}, {"DEV_SKIP_MTLS", "true"}, {"DEV_ALLOW_EPHEMERAL", "1"},
                        {"DEV_UNUSED", "false"},    {"DEV_READ_ONLY", "true"}, {"REQUIRE_KMS", "true"},
                        {"REQUIRE_MTLS", "true"},   {"SENTINELNET_URL", "x"}};
  const Settings settings = loaded(layers);
  EXPECT_TRUE(settings.read_only);
  auto guards = check_production_guards(settings, 0);
  ASSERT_FALSE(guards);
  EXPECT_EQ(exit_code(guards.error().code), 5);
  EXPECT_THAT(guards.error().message,
              AllOf(HasSubstr("5 guards failed"), HasSubstr("DEV_SKIP_MTLS"), HasSubstr("DEV_ALLOW_EPHEMERAL"),
                    HasSubstr("REQUIRE_KMS=true"), HasSubstr("REQUIRE_MTLS=true"), HasSubstr("SENTINELNET_URL"),
                    Not(HasSubstr("DEV_READ_ONLY")), Not(HasSubstr("DEV_UNUSED"))));
}

TEST_F(SettingsTest, TheProfileOfTheFileGuardsAsTheEnvironmentDoes) {
  Layers layers = with("profile = \"production\"\n");
  layers.environment = {{"DEV_SKIP_MTLS", "true"}, {"REQUIRE_KMS", "false"}, {"NODE_ENV", "development"}};
  auto guards = check_production_guards(loaded(layers), 0);
  ASSERT_FALSE(guards);
  EXPECT_THAT(guards.error().message, AllOf(HasSubstr("2 guards failed"), HasSubstr("DEV_SKIP_MTLS"), HasSubstr("time-limited")));
}

TEST_F(SettingsTest, AKeyFileInProductionNeedsAWaiverThatStillHolds) {
  Layers layers = with("profile = \"production\"\n[audit]\nkms_waiver_by = \"ada\"\nkms_waiver_until = \"1970-01-01T00:00:10Z\"\n");
  layers.environment = {{"REQUIRE_KMS", "false"}};
  const Settings settings = loaded(layers);
  EXPECT_TRUE(check_production_guards(settings, 9999));
  auto late = check_production_guards(settings, 10000);
  ASSERT_FALSE(late);
  EXPECT_THAT(late.error().message, HasSubstr("authorisation by ada ended at 1970-01-01T00:00:10.000Z"));
  layers.environment.clear();  // a waiver alone does not switch KMS off
  EXPECT_FALSE(check_production_guards(loaded(layers), 0));
}

TEST_F(SettingsTest, DevelopmentStartsUnlessSomethingIsRequired) {
  Layers layers;
  layers.environment = {{"DEV_SKIP_MTLS", "true"}};
  EXPECT_TRUE(check_production_guards(loaded(layers), 0));
  layers.environment["REQUIRE_KMS"] = "true";
  EXPECT_FALSE(check_production_guards(loaded(layers), 0));
}

TEST_F(SettingsTest, ASignerIsDescribedWholeAndWorks) {
  for (const auto& [kind, keys] : std::vector<std::pair<std::string, std::vector<std::string>>>{
           {"pkcs11", {"audit.pkcs11.module", "audit.pkcs11.token", "audit.pkcs11.pin"}},
           {"proxy", {"audit.proxy.url", "audit.proxy.cert", "audit.proxy.key"}},
           {"kms", {"audit.kms.key_id", "audit.kms.region"}}}) {
    Layers layers = with("[audit]\nsigner = \"" + kind + "\"\n");
    EXPECT_TRUE(check_production_guards(loaded(layers), 0)) << "nothing requires it";
    layers.environment["REQUIRE_KMS"] = "true";
    auto guards = check_production_guards(loaded(layers), 0);
    ASSERT_FALSE(guards) << kind;
    for (const std::string& key : keys) EXPECT_THAT(guards.error().message, HasSubstr(key + ":"));
  }
  Layers layers = with("[audit]\nsigner = \"kms\"\n[audit.kms]\nkey_id = \"k\"\nregion = \"r\"\nendpoint = \"http://h\"\n");
  layers.environment["REQUIRE_KMS"] = "true";
  EXPECT_TRUE(check_production_guards(loaded(layers), 0));
  auto silent = check_production_guards(loaded(layers), 0, "nobody answers");
  ASSERT_FALSE(silent);
  EXPECT_THAT(silent.error().message,
              AllOf(HasSubstr("1 guard failed"), HasSubstr("REQUIRE_KMS=true"), HasSubstr("nobody answers")));
  layers.environment["NODE_ENV"] = "production";
  EXPECT_THAT(check_production_guards(loaded(layers), 0).error().message, HasSubstr("audit.kms.endpoint"));
}

TEST_F(SettingsTest, MemoryThatIsTooSmallForTheTasksIsRefusedWithTheLeast) {
  EXPECT_THAT(problems(with("memory = \"64MiB\"\n[topics]\npartitions = 16\n")),
              ElementsAre("1 problem in the configuration",
                          AllOf(HasSubstr("F:1: memory: must be at least "),
                                HasSubstr(" for the 33 tasks that topics.partitions = 16 makes, is \"64MiB\""))));
  const int64_t least = least_memory({.partitions = 16, .kafka = false});
  EXPECT_EQ(loaded(with("memory = \"" + format_size_bytes(least) + "\"\n[topics]\npartitions = 16\n")).memory_bytes, least);
  EXPECT_THAT(problems(with("memory = \"" + format_size_bytes(least - 1) + "\"\n[topics]\npartitions = 16\n")),
              ElementsAre("1 problem in the configuration", HasSubstr(format_size_bytes(least))));
  EXPECT_THAT(problems(with("[topics]\npartitions = 1000\n")), ElementsAre("1 problem in the configuration", HasSubstr("memory")));
}

TEST(Sizes, RoundTripAndRefuse) {
  EXPECT_EQ(parse_size_bytes("512MiB"), int64_t{512} << 20);
  EXPECT_EQ(parse_size_bytes("3G"), int64_t{3} << 30);
  EXPECT_EQ(parse_size_bytes("7"), 7);
  for (const char* bad : {"", "MiB", "1.5G", "-1M", "5MB", "5 M", "99999999T"})
    EXPECT_EQ(parse_size_bytes(bad), std::nullopt) << bad;
  for (int64_t bytes : {int64_t{0}, int64_t{1}, int64_t{1536}, int64_t{1} << 20, int64_t{5} << 30})
    EXPECT_EQ(parse_size_bytes(format_size_bytes(bytes)), bytes);
}

TEST(Passwords, AreNotShown) {
  EXPECT_EQ(without_password("postgresql://u:p%40ss@h:1/x"), "postgresql://u:***@h:1/x");
  EXPECT_EQ(without_password("postgresql://u@h:1/x"), "postgresql://u@h:1/x");
  EXPECT_EQ(without_password("postgresql://h/x?user=u&password=secret&port=1"), "postgresql://h/x?user=u&password=***&port=1");
  EXPECT_EQ(without_password("host=h password=secret"), "host=h password=***");
}

}  // namespace
}  // namespace assay::tools
