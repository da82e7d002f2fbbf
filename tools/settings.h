// The whole configuration: file, environment, --set and flags, one over the other, checked at once.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "tools/audit_settings.h"
#include "tools/memory_shares.h"

namespace assay::tools {

struct TopicSettings {
  std::string prefix;
  int64_t partitions = 4;
  bool manage = true;         // create topics that are missing
  int64_t retention_ms = -1;  // -1: for ever; topics that a replay needs whole are always kept for ever
};

struct KafkaSettings {
  std::string brokers;  // empty: the embedded log
  std::map<std::string, std::string> properties;
};

struct DatabaseSettings {
  std::string url;  // empty: the audit chain is written as archive files
};

struct CommitSettings {
  int64_t interval_ms = 100;
  int64_t max_records = 20000;
};

struct RunSettings {
  int64_t standbys = 1;         // copies of each store in other processes of the group
  int64_t patience_ms = 60000;  // --until-end: a log that gives no answer for so long is an error
};

struct PeerSettings {
  std::string listen = "127.0.0.1:0";  // where other processes of the group ask for this one's tasks; empty: nowhere
  std::string advertise;               // how they reach it; empty: the address listened on
  std::string secret;                  // shared by the processes of a group; questions and answers carry its MAC
};

struct StateSettings {
  int64_t checkpoint_interval_ms = 600'000;
  int64_t checkpoints_kept = 2;
};

struct ArchiveSettings {
  std::string url;        // empty: nothing is archived
  std::string audit_url;  // of the signed audit chain; empty: audit below url
  int64_t segment_age_ms = 300'000;
  std::string lock = "none";  // "none" | "governance" | "compliance": Object Lock of what is stored in S3
  int64_t lock_for_ms = 365 * kDayMs;
};

/// The S3 that archives may lie in.
struct S3Settings {
  std::string endpoint;  // empty: AWS's own of the region
  std::string region = "us-east-1";
  std::string access_key, secret;
};

enum class Profile { kDevelopment, kProduction };

struct Settings {
  Profile profile = Profile::kDevelopment;
  std::string data_dir = "assay-data";
  int64_t memory_bytes = int64_t{1} << 30;
  Rules rules = default_rules();
  TopicSettings topics;
  KafkaSettings kafka;
  DatabaseSettings database;
  AuditSettings audit;
  CommitSettings commit;
  RunSettings run;
  PeerSettings peers;
  StateSettings state;
  ArchiveSettings archive;
  S3Settings s3;
  std::string http_addr = "127.0.0.1:8050";
  std::string log_level = "info";  // "debug" | "info" | "warn" | "error"

  // From the environment alone: a file must not switch safety off unseen.
  bool read_only = false;                 // MODE=read-only or DEV_READ_ONLY
  std::optional<bool> require_kms;        // REQUIRE_KMS
  std::optional<bool> require_mtls;       // REQUIRE_MTLS
  std::vector<std::string> dev_switches;  // DEV_* that are on, DEV_READ_ONLY apart
  std::vector<std::string> unused;        // variables of the contract that this version does not act on, and are set

  std::map<std::string, std::string> origins;  // key -> where its value comes from; keys at their default are absent
};

/// Whether only this machine can reach an address. Pure.
bool is_local_address(std::string_view address);

/// What shares the memory: the tasks that this configuration makes.
MemoryNeeds memory_needs(const Settings& settings);

using Environment = std::map<std::string, std::string>;
Environment process_environment();

/// Where settings come from, weakest first.
struct Layers {
  std::string config_file;  // empty: none
  Environment environment;
  std::vector<std::string> sets;                           // "KEY=VALUE"
  std::vector<std::pair<std::string, std::string>> flags;  // key, value; named --brokers and the like
};

/// Reads and checks all layers. Errors: kUsage, one line for each problem: "FILE:LINE: key: reason".
Result<Settings> load_settings(const Layers& layers);

/// The settings as one document in the order and with the names of the file; the password of a URL is left out.
Json settings_to_json(const Settings& settings);

/// Whether only a KMS, an HSM or a signing proxy may sign: REQUIRE_KMS, and production unless that says false.
bool requires_kms(const Settings& settings);

/// Refuses to work in production with what is for development only. `signer_fault`: what happened when the signer was tried.
/// Errors: kRefused naming every guard that failed.
Result<void> check_production_guards(const Settings& settings, int64_t now_ms, const std::string& signer_fault = {});

/// "512MiB" and back; K, M, G with iB or without.
std::optional<int64_t> parse_size_bytes(std::string_view text);
std::string format_size_bytes(int64_t bytes);

/// postgresql://user:secret@host -> postgresql://user:***@host, also in key=value form.
std::string without_password(std::string_view url);

}  // namespace assay::tools
