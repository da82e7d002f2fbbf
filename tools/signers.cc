#include "tools/signers.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <mutex>
#include <thread>

#include "streams/signer_guard.h"
#include "streams/signer_kms.h"
#include "streams/signer_pkcs11.h"
#include "streams/signer_proxy.h"

namespace assay::tools {
namespace {

constexpr size_t kFileDigestsPerThread = 64;  // fewer are signed faster than a thread starts

std::string variable(const char* name) {
  const char* value = std::getenv(name);
  return value == nullptr ? "" : value;
}

/// The part of a file like ~/.aws/credentials that AWS_PROFILE names, read again at each call: whoever renews it replaces the file.
Result<streams::AwsCredentials> credentials_of(const std::string& path) {
  std::ifstream in(path);
  if (!in) return Error{Errc::kRefused, "reading AWS credentials from " + path + ": it cannot be opened"};
  const std::string profile = variable("AWS_PROFILE").empty() ? "default" : variable("AWS_PROFILE");
  auto trimmed = [](std::string_view text) {
    while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
    while (!text.empty() && (text.back() == ' ' || text.back() == '\t' || text.back() == '\r')) text.remove_suffix(1);
    return std::string(text);
  };
  streams::AwsCredentials out;
  bool ours = false;
  for (std::string line; std::getline(in, line);) {
    line = trimmed(line);
    if (line.starts_with('[')) ours = line == "[" + profile + "]";
    const size_t equals = line.find('=');
    if (!ours || equals == line.npos) continue;
    const std::string name = trimmed(line.substr(0, equals)), value = trimmed(line.substr(equals + 1));
    if (name == "aws_access_key_id") out.access_key = value;
    if (name == "aws_secret_access_key") out.secret = value;
    if (name == "aws_session_token") out.session_token = value;
  }
  if (out.access_key.empty() || out.secret.empty())
    return Error{Errc::kRefused, "reading AWS credentials from " + path + ": the profile " + profile + " has no key and secret"};
  return out;
}

Result<streams::AwsCredentials> credentials_of_environment() {
  streams::AwsCredentials out{variable("AWS_ACCESS_KEY_ID"), variable("AWS_SECRET_ACCESS_KEY"), variable("AWS_SESSION_TOKEN")};
  if (out.access_key.empty() || out.secret.empty())
    return Error{Errc::kRefused,
                 "asking KMS: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY are not set, nor is audit.kms.credentials"};
  return out;
}

std::string key_file(const Settings& settings, const KeyPlace& place) {
  if (!place.place.empty()) return place.place;
  const std::filesystem::path usual = settings.audit.signer_key.empty()
                                          ? std::filesystem::path(settings.data_dir) / "audit-signer.key"
                                          : std::filesystem::path(settings.audit.signer_key);
  if (place.signer_id == settings.audit.signer_id) return usual.string();
  return (usual.parent_path() / (usual.stem().string() + "." + place.signer_id + usual.extension().string())).string();
}

Result<std::unique_ptr<streams::Signer>> open_bare(const Settings& settings, const KeyPlace& place) {
  const AuditSettings& audit = settings.audit;
  const bool production = settings.profile == Profile::kProduction;
  if (place.kind == "pkcs11") {
    const std::string label = !place.place.empty() ? place.place : place.signer_id == audit.signer_id ? audit.pkcs11.key : "";
    return streams::open_pkcs11_signer(
        {audit.pkcs11.module, audit.pkcs11.token, label, audit.pkcs11.pin, place.signer_id, place.create, audit.pkcs11.algorithm});
  }
  streams::HttpsOptions https;
  https.timeout = streams::Milliseconds(audit.sign_timeout_ms);
  https.connect_timeout = std::min(https.connect_timeout, https.timeout);
  if (place.kind == "proxy") {
    https.ca_file = audit.proxy.ca;
    https.client_cert = audit.proxy.cert;
    https.client_key = audit.proxy.key;
    return streams::open_proxy_signer({audit.proxy.url, place.signer_id, https});
  }
  if (place.kind == "kms") {
    https.plain_http = !production;
    streams::KmsOptions options;
    options.key_id = place.place.empty() ? audit.kms.key_id : place.place;
    options.region = audit.kms.region;
    options.endpoint = audit.kms.endpoint;
    options.signer_id = place.signer_id;
    options.https = https;
    options.now = [] { return streams::machine_runtime().now(); };
    options.credentials = [path = audit.kms.credentials] {
      return path.empty() ? credentials_of_environment() : credentials_of(path);
    };
    return streams::open_kms_signer(std::move(options));
  }
  streams::FileSignerOptions options;
  options.path = key_file(settings, place);
  options.signer_id = place.signer_id;
  options.create = place.create;
  options.production = production && audit.kms_waiver_by.empty();
  std::error_code failed;
  std::filesystem::create_directories(std::filesystem::path(options.path).parent_path(), failed);
  return streams::open_file_signer(options);
}

class LateSigner : public streams::Signer {
 public:
  LateSigner(SignerKey key, std::function<Result<std::shared_ptr<streams::Signer>>()> open)
      : key_(std::move(key)), open_(std::move(open)) {}

  Result<std::string> sign(const Sha256Digest& digest) override {
    TRY_ASSIGN(auto signer, opened());
    return signer->sign(digest);
  }
  Result<std::vector<std::string>> sign_all(std::span<const Sha256Digest> digests) override {
    TRY_ASSIGN(auto signer, opened());
    return signer->sign_all(digests);
  }
  const SignerKey& key() const override { return key_; }

 private:
  Result<std::shared_ptr<streams::Signer>> opened() {
    std::lock_guard lock(mutex_);
    if (signer_) return signer_;
    TRY_ASSIGN(auto signer, open_());
    if (signer->key() != key_)
      return Error{Errc::kRefused, "opening the signer " + key_.signer_id + ": its key is not the one that the chain knows"};
    return signer_ = std::move(signer);
  }

  const SignerKey key_;
  const std::function<Result<std::shared_ptr<streams::Signer>>()> open_;
  std::mutex mutex_;
  std::shared_ptr<streams::Signer> signer_;  // under mutex_
};

}  // namespace

std::shared_ptr<streams::Signer> late_signer(SignerKey key, std::function<Result<std::shared_ptr<streams::Signer>>()> open) {
  return std::make_shared<LateSigner>(std::move(key), std::move(open));
}

KeyPlace configured_key(const AuditSettings& audit) {
  return {audit.signer, audit.signer_id, "", audit.signer == "file" || (audit.signer == "pkcs11" && audit.pkcs11.create)};
}

Result<std::shared_ptr<streams::Signer>> open_key(const Settings& settings, const KeyPlace& place,
                                                  const SignerFailure& on_failure) {
  AuditSettings described = settings.audit;
  described.signer = place.kind;
  if (!place.place.empty()) described.kms.key_id = place.place;
  if (const auto problems = signer_problems(described, settings.profile == Profile::kProduction); !problems.empty()) {
    std::string message = "opening the signer " + place.signer_id;
    for (const std::string& problem : problems) message += "\n" + problem;
    return Error{Errc::kUsage, message};
  }
  TRY_ASSIGN(auto bare, open_bare(settings, place));
  std::shared_ptr<streams::Signer> signer = std::move(bare);
  if (place.kind == "file")  // nothing of it can be away
    return streams::spread_signer(std::move(signer), std::max(1u, std::thread::hardware_concurrency()), kFileDigestsPerThread);
  streams::GuardOptions guard;
  guard.attempts = static_cast<int>(settings.audit.sign_attempts);
  guard.on_failure = on_failure;
  signer = streams::guard_signer(std::move(signer), guard);
  const size_t batch = signer->batch_max();
  return streams::spread_signer(std::move(signer), static_cast<size_t>(settings.audit.sign_threads), batch);
}

Result<std::shared_ptr<streams::Signer>> open_signer(const Settings& settings, const SignerFailure& on_failure) {
  return open_key(settings, configured_key(settings.audit), on_failure);
}

Result<std::unique_ptr<streams::NoteSigner>> open_checkpoint_signer(const Settings& settings, const std::string& origin) {
  const AuditSettings& audit = settings.audit;
  const std::string& name = origin.empty() ? audit.checkpoint_origin : origin;
  if (audit.checkpoint_signer == "pkcs11") {
    AuditSettings described = audit;
    described.signer = "pkcs11";
    for (const std::string& problem : signer_problems(described, false))
      return Error{Errc::kUsage, "opening the key of checkpoints, audit.checkpoint_signer: " + problem};
    const std::string label = audit.checkpoint_key.empty() ? "assay-checkpoint" : audit.checkpoint_key;
    TRY_ASSIGN(auto signer, streams::open_pkcs11_signer({audit.pkcs11.module, audit.pkcs11.token, label, audit.pkcs11.pin, name,
                                                         audit.pkcs11.create, std::string(streams::kEd25519)}));
    return streams::NoteSigner::open(std::move(signer), name, streams::NoteKeyType::kLog);
  }
  std::filesystem::path file = audit.checkpoint_key;
  if (file.empty())
    file = std::filesystem::path(key_file(settings, {"file", audit.signer_id, "", true})).replace_filename("checkpoint-signer.key");
  return streams::open_note_signer({file.string(), name, streams::NoteKeyType::kLog, true});
}

Result<void> probe_signer(streams::Signer& signer) {
  const Sha256Digest digest = sha256("assay signer probe\n", signer.key().signer_id);
  TRY_ASSIGN(std::string signature, signer.sign(digest));
  streams::SignerRegistry registry;
  TRY(registry.add({signer.key(), {}, {}, false}));
  if (auto fault = registry.check(signer.key().signer_id, 1, digest, to_base64(signature)))
    return Error{Errc::kRefused, "trying the signer " + signer.key().signer_id + ": " + *fault};
  return {};
}

}  // namespace assay::tools
