#include "tools/environment.h"

#include <charconv>

#include "schemas/members.h"

namespace assay::tools {
namespace {

// Names of the contract whose services this version does not have; setting them must not pass unnoticed.
constexpr std::string_view kUnused[] = {"KERNEL_API_URL",
                                        "SENTINELNET_URL",
                                        "FINANCE_API_URL",
                                        "ALLOC_DATABASE_URL",
                                        "OTEL_COLLECTOR_URL",
                                        "PROM_ENDPOINT",
                                        "SENTRY_DSN",
                                        "MODEL_REGISTRY_DATABASE_URL",
                                        "MODEL_REGISTRY_S3_BUCKET",
                                        "DRIFT_S3_BUCKET"};

std::optional<bool> parse_switch(std::string_view text) {
  if (text == "true" || text == "1" || text == "yes" || text == "on") return true;
  if (text == "false" || text == "0" || text == "no" || text == "off" || text.empty()) return false;
  return std::nullopt;
}

std::optional<int64_t> parse_count(std::string_view text) {
  int64_t count = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), count);
  if (text.empty() || error != std::errc() || end != text.data() + text.size() || count < 0 || count > kMaxCount)
    return std::nullopt;
  return count;
}

std::vector<std::string_view> split(std::string_view list) {
  std::vector<std::string_view> parts;
  while (!list.empty()) {
    const size_t comma = std::min(list.find(','), list.size());
    if (comma > 0) parts.push_back(list.substr(0, comma));
    list.remove_prefix(std::min(comma + 1, list.size()));
  }
  return parts;
}

/// "gpus-us-east:10,cpu-highmem:64" with the unit that the pool's name begins with.
std::optional<Json> parse_pools(std::string_view list) {
  Json pools = Json::array();
  for (std::string_view part : split(list)) {
    const size_t colon = part.rfind(':');
    if (colon == std::string_view::npos || colon == 0) return std::nullopt;
    auto capacity = parse_count(part.substr(colon + 1));
    if (!capacity) return std::nullopt;
    const std::string_view name = part.substr(0, colon);
    pools.push_back(Json::object()
                        .set("name", name)
                        .set("unit", name.starts_with("cpu")   ? "cpu"
                                     : name.starts_with("mem") ? "memoryMB"
                                                               : "gpu")
                        .set("capacity", *capacity));
  }
  return pools;
}

}  // namespace

std::vector<EnvironmentValue> read_environment(const Environment& environment, const std::string& http_addr, Settings& settings) {
  std::vector<EnvironmentValue> values;
  auto variable = [&](const char* name) -> const std::string* {
    auto it = environment.find(name);
    return it == environment.end() || it->second.empty() ? nullptr : &it->second;
  };
  auto refuse = [&](const char* name, std::string problem) { values.push_back({name, "", Json(), std::move(problem)}); };
  auto text = [&](const char* name, const char* key) {
    if (const std::string* value = variable(name)) values.push_back({name, key, Json(*value), ""});
  };
  auto choose = [&](const char* name, std::optional<bool>& field) {
    const std::string* value = variable(name);
    if (value == nullptr) return;
    field = parse_switch(*value);
    if (!field) refuse(name, "must be true or false, is " + quoted(*value));
  };

  text("ASSAY_DATA_DIR", "data_dir");
  text("ASSAY_BROKERS", "kafka.brokers");
  text("EVAL_DATABASE_URL", "database.url");
  text("AUDIT_SIGNER_KID", "audit.signer_id");
  text("ASSAY_PEERS_SECRET", "peers.secret");
  text("AUDIT_SIGNER_PIN", "audit.pkcs11.pin");
  text("AWS_DEFAULT_REGION", "audit.kms.region");
  text("AWS_REGION", "audit.kms.region");
  text("AWS_ENDPOINT_URL_KMS", "audit.kms.endpoint");
  text("SIGNING_PROXY_URL", "audit.proxy.url");
  text("AUDIT_SIGNING_KMS_KEY_ID", "audit.kms.key_id");
  // Naming a service chooses it; a KMS goes before the proxy that stands in for it.
  if (const char* kind = variable("AUDIT_SIGNING_KMS_KEY_ID") ? "kms" : variable("SIGNING_PROXY_URL") ? "proxy" : nullptr)
    values.push_back(
        {variable("AUDIT_SIGNING_KMS_KEY_ID") ? "AUDIT_SIGNING_KMS_KEY_ID" : "SIGNING_PROXY_URL", "audit.signer", Json(kind), ""});
  text("S3_ENDPOINT", "s3.endpoint");
  text("S3_REGION", "s3.region");
  text("S3_ACCESS_KEY", "s3.access_key");
  text("S3_SECRET", "s3.secret");
  if (const std::string* port = variable("PORT")) {
    auto number = parse_count(*port);
    const size_t colon = http_addr.rfind(':');
    const std::string host = colon == std::string::npos ? "127.0.0.1" : http_addr.substr(0, colon);
    if (number && *number <= 65535)
      values.push_back({"PORT", "http.addr", Json(host + ":" + *port), ""});
    else
      refuse("PORT", "must be a port, 0 to 65535, is " + quoted(*port));
  }
  if (const std::string* mode = variable("NODE_ENV"); mode != nullptr && *mode == "production")
    values.push_back({"NODE_ENV", "profile", Json("production"), ""});
  if (const std::string* list = variable("RESOURCE_ALLOCATOR_POOLS")) {
    if (auto pools = parse_pools(*list))
      values.push_back({"RESOURCE_ALLOCATOR_POOLS", "allocation.pool", std::move(*pools), ""});
    else
      refuse("RESOURCE_ALLOCATOR_POOLS", "must be POOL:CAPACITY,POOL:CAPACITY…, is " + quoted(*list));
  }
  if (const std::string* list = variable("RESOURCE_ALLOCATOR_DENY_POOLS")) {
    Json globs = Json::array();
    for (std::string_view glob : split(*list)) globs.push_back(glob);
    values.push_back({"RESOURCE_ALLOCATOR_DENY_POOLS", "policy.deny_pools", std::move(globs), ""});
  }
  if (const std::string* delta = variable("RESOURCE_ALLOCATOR_MAX_DELTA")) {
    if (auto number = parse_count(*delta))
      values.push_back({"RESOURCE_ALLOCATOR_MAX_DELTA", "policy.max_delta", Json(*number), ""});
    else
      refuse("RESOURCE_ALLOCATOR_MAX_DELTA", "must be a count, is " + quoted(*delta));
  }

  choose("REQUIRE_KMS", settings.require_kms);
  choose("REQUIRE_MTLS", settings.require_mtls);
  std::optional<bool> read_only;
  choose("DEV_READ_ONLY", read_only);
  settings.read_only = read_only.value_or(false);
  if (const std::string* mode = variable("MODE"); mode != nullptr && *mode == "read-only") settings.read_only = true;
  for (const auto& [name, value] : environment)
    if (name.starts_with("DEV_") && name != "DEV_READ_ONLY" && parse_switch(value) != std::optional(false))
      settings.dev_switches.push_back(name + "=" + value.substr(0, 32));
  for (std::string_view name : kUnused)
    if (environment.contains(std::string(name)) && !environment.at(std::string(name)).empty()) settings.unused.emplace_back(name);
  return values;
}

}  // namespace assay::tools
