#include "streams/https_client.h"

#include <curl/curl.h>
#include <unistd.h>

#include <mutex>

namespace assay::streams {
namespace {

constexpr size_t kHeaderBytesMax = 64 << 10;

struct HeaderList {
  curl_slist* first = nullptr;
  ~HeaderList() { curl_slist_free_all(first); }
  void add(const std::string& line) { first = curl_slist_append(first, line.c_str()); }
};

/// What comes back while a call runs.
struct Answer {
  HttpsResponse response;
  size_t header_bytes = 0, body_bytes_max = 0;
};

size_t take_body(char* data, size_t, size_t size, void* to) {
  auto& answer = *static_cast<Answer*>(to);
  if (answer.response.body.size() + size > answer.body_bytes_max) return 0;
  answer.response.body.append(data, size);
  return size;
}

size_t take_header(char* data, size_t, size_t size, void* to) {
  auto& answer = *static_cast<Answer*>(to);
  answer.header_bytes += size;
  if (answer.header_bytes > kHeaderBytesMax) return 0;
  std::string_view line(data, size);
  while (!line.empty() && (line.back() == '\r' || line.back() == '\n')) line.remove_suffix(1);
  if (line.starts_with("HTTP/")) answer.response.headers.clear();  // an answer of the proxy stood before it
  const size_t colon = line.find(':');
  if (colon == line.npos) return size;
  std::string name(line.substr(0, colon));
  for (char& c : name) c = c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c;
  const size_t start = line.find_first_not_of(" \t", colon + 1);
  answer.response.headers.emplace_back(std::move(name), start == line.npos ? std::string() : std::string(line.substr(start)));
  return size;
}

class CurlClient : public HttpsClient {
 public:
  explicit CurlClient(HttpsOptions options) : options_(std::move(options)) {}
  ~CurlClient() override {
    for (CURL* handle : idle_) curl_easy_cleanup(handle);
  }
  CurlClient(const CurlClient&) = delete;
  CurlClient& operator=(const CurlClient&) = delete;

  Result<HttpsResponse> call(const HttpsRequest& request) override {
    CURL* handle = borrow();
    if (handle == nullptr) return Error{Errc::kUnexpected, "calling " + request.url + ": libcurl gives no handle"};
    Answer answer;
    answer.body_bytes_max = options_.body_bytes_max;
    char reason[CURL_ERROR_SIZE] = "";
    HeaderList headers;
    for (const auto& [name, value] : request.headers) headers.add(name + (value.empty() ? ";" : ": " + value));
    headers.add("Expect:");  // a body goes at once
    const bool head = request.method == "HEAD";
    curl_easy_setopt(handle, CURLOPT_URL, request.url.c_str());
    curl_easy_setopt(handle, CURLOPT_PROTOCOLS_STR, options_.plain_http ? "https,http" : "https");
    curl_easy_setopt(handle, CURLOPT_PATH_AS_IS, 1L);
    curl_easy_setopt(handle, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(handle, CURLOPT_CUSTOMREQUEST, request.method.c_str());
    curl_easy_setopt(handle, CURLOPT_NOBODY, head ? 1L : 0L);
    if (!head && (!request.body.empty() || request.method == "POST" || request.method == "PUT")) {
      curl_easy_setopt(handle, CURLOPT_POSTFIELDS, request.body.data());
      curl_easy_setopt(handle, CURLOPT_POSTFIELDSIZE_LARGE, static_cast<curl_off_t>(request.body.size()));
    }
    curl_easy_setopt(handle, CURLOPT_HTTPHEADER, headers.first);
    curl_easy_setopt(handle, CURLOPT_CONNECTTIMEOUT_MS, static_cast<long>(options_.connect_timeout.count()));
    curl_easy_setopt(handle, CURLOPT_TIMEOUT_MS, static_cast<long>(options_.timeout.count()));
    curl_easy_setopt(handle, CURLOPT_SSLVERSION, static_cast<long>(CURL_SSLVERSION_TLSv1_2));
    if (!options_.ca_file.empty()) curl_easy_setopt(handle, CURLOPT_CAINFO, options_.ca_file.c_str());
    if (!options_.client_cert.empty()) {
      curl_easy_setopt(handle, CURLOPT_SSLCERT, options_.client_cert.c_str());
      curl_easy_setopt(handle, CURLOPT_SSLKEY, options_.client_key.c_str());
    }
    curl_easy_setopt(handle, CURLOPT_ERRORBUFFER, reason);
    curl_easy_setopt(handle, CURLOPT_WRITEFUNCTION, &take_body);
    curl_easy_setopt(handle, CURLOPT_WRITEDATA, &answer);
    curl_easy_setopt(handle, CURLOPT_HEADERFUNCTION, &take_header);
    curl_easy_setopt(handle, CURLOPT_HEADERDATA, &answer);
    const CURLcode code = curl_easy_perform(handle);
    long status = 0;
    curl_easy_getinfo(handle, CURLINFO_RESPONSE_CODE, &status);
    give_back(handle);
    if (code != CURLE_OK) {
      const bool wrong = code == CURLE_URL_MALFORMAT || code == CURLE_UNSUPPORTED_PROTOCOL;
      return Error{wrong ? Errc::kUsage : Errc::kUnreachable,
                   "calling " + request.url + ": " + (reason[0] != '\0' ? reason : curl_easy_strerror(code))};
    }
    answer.response.status = static_cast<int>(status);
    return std::move(answer.response);
  }

 private:
  CURL* borrow() {
    std::lock_guard lock(mutex_);
    if (idle_.empty()) return curl_easy_init();
    CURL* handle = idle_.back();
    idle_.pop_back();
    return handle;
  }
  void give_back(CURL* handle) {
    curl_easy_reset(handle);  // the connection stays
    std::lock_guard lock(mutex_);
    idle_.push_back(handle);
  }

  HttpsOptions options_;
  std::mutex mutex_;
  std::vector<CURL*> idle_;  // under mutex_
};

}  // namespace

Result<std::unique_ptr<HttpsClient>> HttpsClient::open(const HttpsOptions& options) {
  static const CURLcode started = curl_global_init(CURL_GLOBAL_DEFAULT);
  if (started != CURLE_OK) return Error{Errc::kUnexpected, "starting libcurl: " + std::string(curl_easy_strerror(started))};
  for (const std::string& file : {options.ca_file, options.client_cert, options.client_key})
    if (!file.empty() && ::access(file.c_str(), R_OK) != 0)
      return Error{Errc::kUsage, "opening a client for HTTPS: " + file + " cannot be read"};
  if (options.client_cert.empty() != options.client_key.empty())
    return Error{Errc::kUsage, "opening a client for HTTPS: a client certificate needs its key, and the key its certificate"};
  return std::unique_ptr<HttpsClient>(std::make_unique<CurlClient>(options));
}

}  // namespace assay::streams
