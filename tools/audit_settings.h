// The [audit] table of the configuration: who signs the chain, by which service, under which name.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "schemas/members.h"
#include "tools/base.h"

namespace assay::tools {

struct Pkcs11Settings {
  std::string module;  // shared library of the vendor
  std::string token;   // its label
  std::string key;     // label of the key pair; empty: the signer's id
  std::string pin;
  bool create = false;                // make the pair in the token when there is none
  std::string algorithm = "ed25519";  // of a pair that is made: "ed25519" | "rsa-sha256"
};

struct ProxySettings {
  std::string url;
  std::string ca;         // PEM of those to trust; empty: the system's
  std::string cert, key;  // PEM files: who we are
};

struct KmsSettings {
  std::string key_id;  // key id, ARN or alias
  std::string region;
  std::string endpoint;     // empty: that of the region
  std::string credentials;  // file in the form of ~/.aws/credentials; empty: AWS_ACCESS_KEY_ID and its sisters
};

/// The key that stands in while the usual signer cannot be had; the services' own settings are those above.
struct EmergencySettings {
  std::string signer;  // "file" | "pkcs11" | "proxy" | "kms"; empty: there is none
  std::string signer_id = "eval-audit-emergency-v1";
  std::string place;  // file, label of the pair or KMS key; empty: the usual one of that id
};

struct RotationSettings {
  int64_t every_ms = 0;           // how long a key signs at most; 0: nobody watches
  int64_t overlap_ms = 86400000;  // both keys are accepted for at least so long before the new one signs
};

struct AuditSettings {
  std::string signer = "file";  // "file" | "pkcs11" | "proxy" | "kms"
  std::string signer_id = "eval-audit-signer-v1";
  std::string signer_key;  // file; empty: DIR/audit-signer.key, made on first use
  Pkcs11Settings pkcs11;
  ProxySettings proxy;
  KmsSettings kms;
  EmergencySettings emergency;
  RotationSettings rotation;
  int64_t sign_timeout_ms = 10000;
  int64_t sign_attempts = 3;
  int64_t sign_threads = 4;                  // calls of a remote signer at once
  std::string eval_submit = "range";         // "range" | "each"
  std::vector<std::string> personal_fields;  // of events that people send: on the chain as commitments alone
  int64_t checkpoint_interval_ms = 600'000;  // 0: none are made
  std::string checkpoint_origin = "assay.local/audit";
  std::string checkpoint_signer = "file";  // "file" | "pkcs11"
  std::string checkpoint_key;              // file (empty: one beside signer_key), or label of the pair (empty: assay-checkpoint)
  std::string checkpoint_policy;           // file with the witnesses; empty: there are none
  /// Who allows a key file to sign in production, and until when (ms since the epoch): an emergency, itself audited.
  std::string kms_waiver_by;
  std::optional<int64_t> kms_waiver_until_ms;
};

void read_audit(Members& table, AuditSettings& audit);
/// With the names of the file; what is secret is left out.
Json audit_settings_to_json(const AuditSettings& audit);
/// What is wrong with a kind of signer that is chosen but not described: one line each, key and cure.
std::vector<std::string> signer_problems(const AuditSettings& audit, bool production);

}  // namespace assay::tools
