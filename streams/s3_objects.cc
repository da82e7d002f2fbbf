#include "streams/s3_objects.h"

#include <algorithm>
#include <charconv>
#include <optional>

#include "schemas/time.h"

namespace assay::streams {
namespace {

constexpr size_t kObjectBytesMax = size_t{1} << 30;
constexpr std::string_view kKeep = "application/octet-stream";

/// What stands between <tag> and </tag>, from `at` on, which moves behind it.
std::optional<std::string_view> element(std::string_view xml, std::string_view tag, size_t& at) {
  const std::string open = "<" + std::string(tag) + ">", close = "</" + std::string(tag) + ">";
  const size_t from = xml.find(open, at);
  if (from == xml.npos) return std::nullopt;
  const size_t to = xml.find(close, from);
  if (to == xml.npos) return std::nullopt;
  at = to + close.size();
  return xml.substr(from + open.size(), to - from - open.size());
}
std::string element(std::string_view xml, std::string_view tag) {
  size_t at = 0;
  return std::string(element(xml, tag, at).value_or(""));
}

/// Text of an element: the five entities of XML.
std::string unescaped(std::string_view text) {
  static constexpr std::pair<std::string_view, char> kEntities[] = {
      {"&amp;", '&'}, {"&lt;", '<'}, {"&gt;", '>'}, {"&quot;", '"'}, {"&apos;", '\''}};
  std::string out;
  while (!text.empty()) {
    size_t used = 1;
    char c = text[0];
    for (const auto& [entity, plain] : kEntities)
      if (text.starts_with(entity)) {
        used = entity.size();
        c = plain;
      }
    out.push_back(c);
    text.remove_prefix(used);
  }
  return out;
}

/// Text that the server sent percent-encoded.
std::string decoded(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    int byte = 0;
    if (text[i] == '%' && i + 2 < text.size() &&
        std::from_chars(text.data() + i + 1, text.data() + i + 3, byte, 16).ptr == text.data() + i + 3) {
      out.push_back(static_cast<char>(byte));
      i += 2;
    } else {
      out.push_back(text[i] == '+' ? ' ' : text[i]);
    }
  }
  return out;
}

class S3Objects : public ObjectStore {
 public:
  S3Objects(S3Options options, std::unique_ptr<HttpsClient> client, Runtime& runtime)
      : options_(std::move(options)), client_(std::move(client)), runtime_(runtime) {
    host_ = options_.endpoint.substr(options_.endpoint.find("://") + 3);
  }

  std::string describe() const override {
    return "s3://" + options_.bucket + (options_.prefix.empty() ? "" : "/" + options_.prefix);
  }

  Result<bool> put_new(const std::string& name, std::string_view content) override {
    // Asked first as well: there are servers that store over what is there, whatever the condition says.
    TRY_ASSIGN(const HttpsResponse there, call("looking for", name, {.method = "HEAD"}));
    if (there.status == 200) return false;
    if (there.status != 404) return refused("looking for", name, there);
    return content.size() > options_.part_bytes ? put_in_parts(name, content) : put_whole(name, content);
  }

  Result<std::string> get(const std::string& name) override {
    TRY_ASSIGN(HttpsResponse answer, call("reading", name, {}));
    if (answer.status == 200) return std::move(answer.body);
    return refused("reading", name, answer);
  }

  Result<std::string> get_range(const std::string& name, uint64_t from, uint64_t size) override {
    if (size == 0) return std::string();
    const std::string range = std::to_string(from) + "-" + std::to_string(from + size - 1);
    TRY_ASSIGN(HttpsResponse answer, call("reading", name, {.headers = {{"Range", "bytes=" + range}}}));
    if (answer.status == 200 && answer.body.size() >= from)
      answer.body.erase(0, from);  // it gave all of it
    else if (answer.status != 206 && answer.status != 416)
      return refused("reading", name, answer);
    if (answer.status == 416 || answer.body.size() < size)
      return Error{Errc::kCorrupt, attempt("reading", name) + "it does not have the bytes " + range};
    answer.body.resize(size);
    return std::move(answer.body);
  }

  Result<std::vector<std::string>> list(const std::string& prefix) override {
    const std::string before = options_.prefix.empty() ? "" : options_.prefix + "/";
    std::vector<std::string> out;
    std::string token;
    do {
      Call page{.bucket = true, .query = {{"list-type", "2"}, {"encoding-type", "url"}, {"prefix", before + prefix}}};
      if (!token.empty()) page.query.emplace_back("continuation-token", token);
      TRY_ASSIGN(const HttpsResponse answer, call("listing", prefix, page));
      if (answer.status != 200) return refused("listing", prefix, answer);
      if (answer.body.find("<ListBucketResult") == std::string::npos)
        return Error{Errc::kUnreachable, attempt("listing", prefix) + "the answer is no list: " + answer.body.substr(0, 200)};
      size_t at = 0;
      while (auto key = element(answer.body, "Key", at)) {
        std::string name = decoded(unescaped(*key));
        if (name.starts_with(before)) out.push_back(name.substr(before.size()));
      }
      const bool more = element(answer.body, "IsTruncated") == "true";
      token = more ? unescaped(element(answer.body, "NextContinuationToken")) : "";
      if (more && token.empty())
        return Error{Errc::kUnreachable, attempt("listing", prefix) + "the list goes on and does not say where"};
    } while (!token.empty());
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  using Fields = std::vector<std::pair<std::string, std::string>>;
  struct Call {
    std::string method = "GET";
    bool bucket = false;  // of the bucket, not of an object
    Fields query = {};
    Fields headers = {};
    std::string_view body = {};
  };

  std::string attempt(const std::string& what, const std::string& name) const {
    return what + " " + name + " in " + describe() + " at " + host_ + ": ";
  }

  /// One request, tried again when it may help. Any status below 500 but 429 is an answer.
  Result<HttpsResponse> call(const std::string& what, const std::string& name, const Call& call) {
    Milliseconds wait = options_.retry_min;
    for (int attempts = 1;; ++attempts) {
      Result<HttpsResponse> answer = once(name, call);
      const bool passing = answer ? answer->status == 429 || answer->status >= 500 : answer.error().code == Errc::kUnreachable;
      if (!passing) return answer;
      if (attempts >= options_.attempts_max)
        return Error{Errc::kUnreachable, attempt(what, name) + std::to_string(attempts) +
                                             " attempts, the last: " + (answer ? said(*answer) : answer.error().message)};
      runtime_.sleep(wait);
      wait = std::min(wait * 2, options_.retry_max);
    }
  }

  Result<HttpsResponse> once(const std::string& name, const Call& call) {
    TRY_ASSIGN(const AwsCredentials credentials, options_.credentials());
    AwsRequest request;
    request.method = call.method;
    request.host = host_;
    request.path = "/" + options_.bucket;
    if (!call.bucket) request.path += "/" + (options_.prefix.empty() ? "" : options_.prefix + "/") + name;
    request.query = call.query;
    request.headers = call.headers;
    request.payload_sha256 = to_hex(as_bytes(sha256(call.body)));
    HttpsRequest out{call.method, options_.endpoint + aws_target(request), call.headers, std::string(call.body)};
    for (auto& header : sign_aws_request(request, AwsScope::s3(options_.region), credentials, runtime_.now()))
      out.headers.push_back(std::move(header));
    return client_->call(out);
  }

  /// What kind of "no" it is.
  Error refused(const std::string& what, const std::string& name, const HttpsResponse& answer) const {
    const std::string code = element(answer.body, "Code");
    const bool missing = answer.status == 404 && code != "NoSuchBucket";
    return {missing ? Errc::kNotFound : Errc::kRefused, attempt(what, name) + said(answer)};
  }

  static std::string said(const HttpsResponse& answer) {
    const std::string code = element(answer.body, "Code"), message = unescaped(element(answer.body, "Message"));
    std::string out = std::to_string(answer.status);
    if (!code.empty()) out += " " + code;
    if (!message.empty()) out += ": " + message;
    return out;
  }

  /// Headers of an object that is stored.
  Fields object_headers() const {
    Fields out = {{"Content-Type", std::string(kKeep)}};
    if (options_.lock_mode.empty()) return out;
    out.emplace_back("X-Amz-Object-Lock-Mode", options_.lock_mode);
    out.emplace_back("X-Amz-Object-Lock-Retain-Until-Date", format_rfc3339_ms((runtime_.now() + options_.lock_for.count()).value));
    return out;
  }
  static std::pair<std::string, std::string> checksum_header(std::string_view body) {
    return {"X-Amz-Checksum-Sha256", to_base64(as_bytes(sha256(body)))};
  }

  /// Whether it was stored; nothing when somebody else was storing it at the same time, so that asking again tells.
  Result<std::optional<bool>> stored(const std::string& name, const HttpsResponse& answer) const {
    // A multipart upload may fail under a 200.
    if (answer.status == 200 && answer.body.find("<Error>") == std::string::npos) return std::optional(true);
    if (answer.status == 412) return std::optional(false);
    if (answer.status == 409 && element(answer.body, "Code") == "ConditionalRequestConflict") return std::optional<bool>();
    return refused("storing", name, answer);
  }

  Result<bool> put_whole(const std::string& name, std::string_view content) {
    Call put{.method = "PUT", .headers = object_headers(), .body = content};
    put.headers.push_back(checksum_header(content));
    put.headers.emplace_back("X-Amz-Sdk-Checksum-Algorithm", "SHA256");  // an object under lock must say so
    put.headers.emplace_back("If-None-Match", "*");
    for (int conflicts = 0; conflicts < options_.attempts_max; ++conflicts) {
      TRY_ASSIGN(const HttpsResponse answer, call("storing", name, put));
      TRY_ASSIGN(const auto done, stored(name, answer));
      if (done) return *done;
    }
    return Error{Errc::kUnreachable, attempt("storing", name) + "others are storing it all the time"};
  }

  Result<bool> put_in_parts(const std::string& name, std::string_view content) {
    Call begin{.method = "POST", .query = {{"uploads", ""}}, .headers = object_headers()};
    begin.headers.emplace_back("X-Amz-Checksum-Algorithm", "SHA256");
    TRY_ASSIGN(const HttpsResponse begun, call("storing", name, begin));
    if (begun.status != 200) return refused("storing", name, begun);
    const std::string upload = unescaped(element(begun.body, "UploadId"));
    if (upload.empty()) return Error{Errc::kUnreachable, attempt("storing", name) + "the answer names no upload"};
    Result<bool> result = put_parts(name, upload, content);
    // What is left of an upload that came to nothing costs money until it is taken away.
    if (!result || !*result) (void)once(name, {.method = "DELETE", .query = {{"uploadId", upload}}});
    return result;
  }

  Result<bool> put_parts(const std::string& name, const std::string& upload, std::string_view content) {
    std::string list = "<CompleteMultipartUpload xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">";
    for (size_t from = 0, number = 1; from < content.size(); from += options_.part_bytes, ++number) {
      Call part{.method = "PUT",
                .query = {{"partNumber", std::to_string(number)}, {"uploadId", upload}},
                .body = content.substr(from, options_.part_bytes)};
      const auto checksum = checksum_header(part.body);
      part.headers = {{"Content-Type", std::string(kKeep)}, checksum};
      TRY_ASSIGN(const HttpsResponse answer, call("storing", name, part));
      if (answer.status != 200) return refused("storing", name, answer);
      std::string etag;
      for (const auto& [header, value] : answer.headers)
        if (header == "etag") etag = value;
      list += "<Part><ChecksumSHA256>" + checksum.second + "</ChecksumSHA256><ETag>" + etag + "</ETag><PartNumber>" +
              std::to_string(number) + "</PartNumber></Part>";
    }
    list += "</CompleteMultipartUpload>";
    const Call end{.method = "POST",
                   .query = {{"uploadId", upload}},
                   .headers = {{"Content-Type", "application/xml"}, {"If-None-Match", "*"}},
                   .body = list};
    for (int conflicts = 0; conflicts < options_.attempts_max; ++conflicts) {
      TRY_ASSIGN(const HttpsResponse answer, call("storing", name, end));
      if (answer.status == 404) {  // the upload is over: an earlier try whose answer was lost may have ended it
        TRY_ASSIGN(const HttpsResponse there, call("looking for", name, {.method = "HEAD"}));
        if (there.status == 200) return false;
      }
      TRY_ASSIGN(const auto done, stored(name, answer));
      if (done) return *done;
    }
    return Error{Errc::kUnreachable, attempt("storing", name) + "others are storing it all the time"};
  }

  S3Options options_;
  std::string host_;
  std::unique_ptr<HttpsClient> client_;
  Runtime& runtime_;
};

}  // namespace

Result<std::unique_ptr<ObjectStore>> open_s3_objects(S3Options options, Runtime& runtime) {
  const std::string attempt = "opening s3://" + options.bucket + "/" + options.prefix + ": ";
  if (options.bucket.empty() || options.region.empty()) return Error{Errc::kUsage, attempt + "it needs a bucket and a region"};
  if (!options.credentials) return Error{Errc::kUsage, attempt + "it needs an access key and its secret"};
  if (options.endpoint.empty()) options.endpoint = "https://s3." + options.region + ".amazonaws.com";
  while (options.endpoint.ends_with('/')) options.endpoint.pop_back();
  if (!options.endpoint.starts_with("https://") && !(options.https.plain_http && options.endpoint.starts_with("http://")))
    return Error{Errc::kUsage, attempt + "its endpoint must be https://HOST[:PORT], is " + options.endpoint};
  options.https.timeout = options.timeout;
  options.https.body_bytes_max = kObjectBytesMax;
  TRY_ASSIGN(auto client, HttpsClient::open(options.https));
  return std::unique_ptr<ObjectStore>(std::make_unique<S3Objects>(std::move(options), std::move(client), runtime));
}

}  // namespace assay::streams
