#include "streams/signer_kms.h"

#include <algorithm>

#include "schemas/json_parse.h"

namespace assay::streams {
namespace {

constexpr std::string_view kAlgorithm = "RSASSA_PKCS1_V1_5_SHA_256";

/// The host and port of "https://host:port/".
std::string host_of(std::string_view url) {
  url.remove_prefix(std::min(url.size(), url.find("://") == url.npos ? 0 : url.find("://") + 3));
  return std::string(url.substr(0, url.find('/')));
}

class KmsSigner : public Signer {
 public:
  KmsSigner(KmsOptions options, std::unique_ptr<HttpsClient> client)
      : options_(std::move(options)), host_(host_of(options_.endpoint)), client_(std::move(client)) {}

  Result<void> open() {
    TRY_ASSIGN(Json answer, call("GetPublicKey", Json::object().set("KeyId", options_.key_id)));
    const Json* algorithms = answer.find("SigningAlgorithms");
    const bool signs = answer.string_or("KeyUsage", "") == "SIGN_VERIFY" && algorithms != nullptr && algorithms->is_array() &&
                       std::ranges::any_of(algorithms->as_array(),
                                           [](const Json& one) { return one.is_string() && one.as_string() == kAlgorithm; });
    if (!signs)
      return Error{Errc::kUsage, "opening the KMS key " + options_.key_id + ": it is " +
                                     std::string(answer.string_or("KeySpec", "?")) + " for " +
                                     std::string(answer.string_or("KeyUsage", "?")) + "; make an RSA key for SIGN_VERIFY"};
    TRY_ASSIGN(std::string der, from_base64(answer.string_or("PublicKey", "")));
    TRY_ASSIGN(RsaPublicKey key, RsaPublicKey::parse(der));
    key_ = {options_.signer_id, key.pem(), std::string(kRsaSha256)};
    return {};
  }

  Result<std::string> sign(const Sha256Digest& digest) override {
    TRY_ASSIGN(Json answer, call("Sign", Json::object()
                                             .set("KeyId", options_.key_id)
                                             .set("Message", to_base64(as_bytes(digest)))
                                             .set("MessageType", "DIGEST")
                                             .set("SigningAlgorithm", kAlgorithm)));
    Result<std::string> signature = from_base64(answer.string_or("Signature", ""));
    if (!signature || signature->empty())
      return Error{Errc::kUnreachable, "asking KMS to Sign with " + options_.key_id + ": the answer holds no signature"};
    return signature;
  }

  const SignerKey& key() const override { return key_; }

 private:
  Result<Json> call(const std::string& action, const Json& document) {
    const std::string attempt = "asking KMS at " + host_ + " to " + action + " with " + options_.key_id + ": ";
    TRY_ASSIGN(AwsCredentials credentials, options_.credentials());
    HttpsRequest request{"POST", options_.endpoint + "/", {}, canonical(document)};
    AwsRequest signed_part{"POST", host_, "/", {}, {}, to_hex(as_bytes(sha256(request.body)))};
    signed_part.headers = {{"Content-Type", "application/x-amz-json-1.1"}, {"X-Amz-Target", "TrentService." + action}};
    request.headers = signed_part.headers;
    for (auto& header : sign_aws_request(signed_part, {options_.region, "kms"}, credentials, options_.now()))
      request.headers.push_back(std::move(header));
    TRY_ASSIGN(HttpsResponse response, client_->call(request));
    Result<Json> answer = response.body.empty() ? Result<Json>(Error{Errc::kCorrupt, "it is empty"}) : parse_json(response.body);
    if (response.status == 200) {
      if (!answer) return Error{Errc::kUnreachable, attempt + "the answer is no JSON: " + answer.error().message};
      return answer;
    }
    std::string type(answer ? answer->string_or("__type", "") : "");
    type = type.substr(type.find('#') == type.npos ? 0 : type.find('#') + 1);
    const std::string said =
        answer ? std::string(answer->string_or("message", answer->string_or("Message", ""))) : response.body.substr(0, 200);
    return Error{code_of(response.status, type),
                 attempt + std::to_string(response.status) + " " + type + (said.empty() ? "" : ": " + said)};
  }

  static Errc code_of(int status, std::string_view type) {
    if (type == "NotFoundException" || type == "InvalidKeyUsageException" || type == "ValidationException") return Errc::kUsage;
    for (std::string_view again : {"ThrottlingException", "LimitExceededException", "KeyUnavailableException", "RequestExpired"})
      if (type == again) return Errc::kUnreachable;
    return status == 429 || status >= 500 ? Errc::kUnreachable : Errc::kRefused;
  }

  KmsOptions options_;
  std::string host_;
  std::unique_ptr<HttpsClient> client_;
  SignerKey key_;
};

}  // namespace

Result<std::unique_ptr<Signer>> open_kms_signer(KmsOptions options) {
  if (options.key_id.empty() || options.region.empty() || options.signer_id.empty())
    return Error{Errc::kUsage, "opening a KMS signer: it needs a key, a region and a signer id"};
  if (options.endpoint.empty()) options.endpoint = "https://kms." + options.region + ".amazonaws.com";
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  TRY_ASSIGN(auto client, HttpsClient::open(options.https));
  auto signer = std::make_unique<KmsSigner>(std::move(options), std::move(client));
  TRY(signer->open());
  return std::unique_ptr<Signer>(std::move(signer));
}

}  // namespace assay::streams
