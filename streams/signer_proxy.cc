#include "streams/signer_proxy.h"

#include "schemas/json_parse.h"

namespace assay::streams {
namespace {

constexpr size_t kDigestsMax = 256;

class ProxySigner : public Signer {
 public:
  ProxySigner(ProxyOptions options, std::unique_ptr<HttpsClient> client)
      : options_(std::move(options)), client_(std::move(client)) {}

  Result<void> open() {
    TRY_ASSIGN(Json answer, call("GET", "/keys/" + options_.signer_id, ""));
    key_ = {std::string(answer.string_or("signerId", "")), std::string(answer.string_or("publicKey", "")),
            std::string(answer.string_or("algorithm", ""))};
    if (key_.signer_id != options_.signer_id)
      return Error{Errc::kUsage, "asking the signing proxy " + options_.url + " for the key " + options_.signer_id +
                                     ": it answers with the key \"" + key_.signer_id + "\""};
    SignerRegistry registry;
    if (Result<void> added = registry.add({key_, {}, {}, false}); !added)
      return Error{Errc::kUsage, "asking the signing proxy " + options_.url + " for the key " + options_.signer_id + ": " +
                                     added.error().message};
    key_ = registry.find(options_.signer_id)->key;
    return {};
  }

  Result<std::string> sign(const Sha256Digest& digest) override {
    TRY_ASSIGN(std::vector<std::string> signatures, sign_all(std::span(&digest, 1)));
    return std::move(signatures.front());
  }

  Result<std::vector<std::string>> sign_all(std::span<const Sha256Digest> digests) override {
    std::vector<std::string> out;
    for (size_t done = 0; done < digests.size(); done += kDigestsMax)
      TRY(sign_part(digests.subspan(done, std::min(kDigestsMax, digests.size() - done)), out));
    return out;
  }

  size_t batch_max() const override { return kDigestsMax; }
  const SignerKey& key() const override { return key_; }

 private:
  Result<void> sign_part(std::span<const Sha256Digest> digests, std::vector<std::string>& out) {
    Json list = Json::array();
    for (const Sha256Digest& digest : digests) list.push_back(to_hex(as_bytes(digest)));
    TRY_ASSIGN(Json answer, call("POST", "/sign",
                                 canonical(Json::object().set("signerId", options_.signer_id).set("digests", std::move(list)))));
    const Json* signatures = answer.find("signatures");
    if (signatures == nullptr || !signatures->is_array() || signatures->as_array().size() != digests.size())
      return Error{Errc::kUnreachable, "asking the signing proxy " + options_.url + " to sign " + std::to_string(digests.size()) +
                                           " digests: the answer does not hold as many signatures"};
    for (const Json& one : signatures->as_array()) {
      Result<std::string> signature = one.is_string() ? from_base64(one.as_string()) : Error{Errc::kCorrupt, "it is no text"};
      if (!signature) return Error{Errc::kUnreachable, "asking the signing proxy " + options_.url + ": a signature is not base64"};
      out.push_back(std::move(signature).value());
    }
    return {};
  }

  Result<Json> call(const std::string& method, const std::string& path, std::string body) {
    const std::string attempt = "asking the signing proxy, " + method + " " + options_.url + path + ": ";
    HttpsRequest request{method, options_.url + path, {{"Accept", "application/json"}}, std::move(body)};
    if (!request.body.empty()) request.headers.emplace_back("Content-Type", "application/json");
    TRY_ASSIGN(HttpsResponse response, client_->call(request));
    Result<Json> answer = response.body.empty() ? Result<Json>(Error{Errc::kCorrupt, "it is empty"}) : parse_json(response.body);
    if (response.status == 200) {
      if (!answer) return Error{Errc::kUnreachable, attempt + "the answer is no JSON: " + answer.error().message};
      return answer;
    }
    const Json* error = answer ? answer->find("error") : nullptr;
    const std::string said = error == nullptr ? response.body.substr(0, 200) : std::string(error->string_or("message", ""));
    const bool again = response.status == 429 || response.status >= 500;
    return Error{again ? Errc::kUnreachable : Errc::kRefused,
                 attempt + std::to_string(response.status) + (said.empty() ? "" : ": " + said)};
  }

  ProxyOptions options_;
  std::unique_ptr<HttpsClient> client_;
  SignerKey key_;
};

}  // namespace

Result<std::unique_ptr<Signer>> open_proxy_signer(ProxyOptions options) {
  if (options.signer_id.empty() || options.signer_id.find_first_of("/?#% ") != options.signer_id.npos)
    return Error{Errc::kUsage, "opening a signing proxy: the signer id \"" + options.signer_id + "\" cannot stand in a URL"};
  while (options.url.ends_with('/')) options.url.pop_back();
  if (options.https.client_cert.empty() && !options.https.plain_http)
    return Error{Errc::kUsage, "opening the signing proxy " + options.url + ": it wants a client certificate and its key"};
  TRY_ASSIGN(auto client, HttpsClient::open(options.https));
  auto signer = std::make_unique<ProxySigner>(std::move(options), std::move(client));
  TRY(signer->open());
  return std::unique_ptr<Signer>(std::move(signer));
}

}  // namespace assay::streams
