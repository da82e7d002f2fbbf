#include "streams/aws_sigv4.h"

#include <algorithm>
#include <map>

#include "schemas/time.h"

namespace assay::streams {
namespace {

/// RFC 3986: all but the unreserved characters as %XX; `keep` besides.
std::string encode(std::string_view text, std::string_view keep = {}) {
  static constexpr char kHex[] = "0123456789ABCDEF";
  std::string out;
  for (unsigned char c : text) {
    const bool plain = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '-' || c == '.' ||
                       c == '_' || c == '~' || keep.find(static_cast<char>(c)) != keep.npos;
    if (plain) {
      out += static_cast<char>(c);
    } else {
      out += '%';
      out += kHex[c >> 4];
      out += kHex[c & 15];
    }
  }
  return out;
}

std::string canonical_query(const AwsRequest& request) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const auto& [name, value] : request.query) pairs.emplace_back(encode(name), encode(value));
  std::sort(pairs.begin(), pairs.end());
  std::string out;
  for (const auto& [name, value] : pairs) out += (out.empty() ? "" : "&") + name + "=" + value;
  return out;
}

/// Blanks at the ends go, several in a row become one.
std::string trimmed(std::string_view value) {
  std::string out;
  for (char c : value) {
    const bool blank = c == ' ' || c == '\t' || c == '\n';
    if (!blank)
      out += c;
    else if (!out.empty() && out.back() != ' ')
      out += ' ';
  }
  if (!out.empty() && out.back() == ' ') out.pop_back();
  return out;
}

/// "20150830T123600Z"
std::string basic_time(WallTime now) {
  std::string text = format_rfc3339_ms(now.value).substr(0, 19);
  std::erase(text, '-');
  std::erase(text, ':');
  return text + "Z";
}

}  // namespace

Sha256Digest hmac_sha256_digest(std::string_view key, std::string_view message) {
  constexpr size_t kBlockBytes = 64;
  std::string block(key.size() > kBlockBytes ? as_bytes(sha256(key)) : key);
  block.resize(kBlockBytes, '\0');
  std::string inner = block, outer = block;
  for (char& c : inner) c = static_cast<char>(c ^ 0x36);
  for (char& c : outer) c = static_cast<char>(c ^ 0x5c);
  return sha256(outer, as_bytes(sha256(inner, message)));
}

std::string aws_target(const AwsRequest& request) {
  const std::string query = canonical_query(request);
  return encode(request.path, "/") + (query.empty() ? "" : "?" + query);
}

std::vector<std::pair<std::string, std::string>> sign_aws_request(const AwsRequest& request, const AwsScope& scope,
                                                                  const AwsCredentials& credentials, WallTime now) {
  const std::string time = basic_time(now), day = time.substr(0, 8);
  std::vector<std::pair<std::string, std::string>> added = {{"X-Amz-Date", time}};
  if (!credentials.session_token.empty()) added.emplace_back("X-Amz-Security-Token", credentials.session_token);
  if (scope.payload_header) added.emplace_back("X-Amz-Content-Sha256", request.payload_sha256);

  std::map<std::string, std::string> headers;
  auto take = [&](std::string name, std::string_view value) {
    std::ranges::transform(name, name.begin(), [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    auto [it, fresh] = headers.emplace(std::move(name), trimmed(value));
    if (!fresh) it->second += "," + trimmed(value);
  };
  take("host", request.host);
  for (const auto& [name, value] : request.headers) take(name, value);
  for (const auto& [name, value] : added) take(name, value);
  std::string lines, names;
  for (const auto& [name, value] : headers) {
    lines += name + ":" + value + "\n";
    names += (names.empty() ? "" : ";") + name;
  }

  const std::string once = encode(request.path, "/");
  const std::string path = scope.path_encoded_twice ? encode(once, "/") : once;
  const std::string canonical =
      request.method + "\n" + path + "\n" + canonical_query(request) + "\n" + lines + "\n" + names + "\n" + request.payload_sha256;
  const std::string place = day + "/" + scope.region + "/" + scope.service + "/aws4_request";
  const std::string to_sign = "AWS4-HMAC-SHA256\n" + time + "\n" + place + "\n" + to_hex(as_bytes(sha256(canonical)));
  Sha256Digest key = hmac_sha256_digest("AWS4" + credentials.secret, day);
  for (std::string_view part : {std::string_view(scope.region), std::string_view(scope.service), std::string_view("aws4_request")})
    key = hmac_sha256_digest(as_bytes(key), part);
  added.emplace_back("Authorization", "AWS4-HMAC-SHA256 Credential=" + credentials.access_key + "/" + place + ", SignedHeaders=" +
                                          names + ", Signature=" + to_hex(as_bytes(hmac_sha256_digest(as_bytes(key), to_sign))));
  return added;
}

}  // namespace assay::streams
