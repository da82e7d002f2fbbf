// A client for services over HTTPS: libcurl behind it, connections kept, mutual TLS where certificates are given.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "streams/base.h"
#include "streams/log.h"

namespace assay::streams {

struct HttpsOptions {
  std::string ca_file;                  // PEM of those to trust; empty: the system's
  std::string client_cert, client_key;  // PEM files: who we are, for mutual TLS
  bool plain_http = false;              // behaviour: also take http:// (a service on this machine, in development)
  Milliseconds connect_timeout{3000};   // behaviour
  Milliseconds timeout{10000};          // behaviour: of a whole call
  size_t body_bytes_max = 16 << 20;     // behaviour: of an answer
};

struct HttpsRequest {
  std::string method = "GET";
  std::string url;
  std::vector<std::pair<std::string, std::string>> headers;
  std::string body;
};

struct HttpsResponse {
  int status = 0;
  std::vector<std::pair<std::string, std::string>> headers;  // names in lower case
  std::string body;
};

/// Thread-safe; each thread that calls has a connection for itself.
class HttpsClient {
 public:
  /// Errors: kUsage (a certificate that cannot be read).
  static Result<std::unique_ptr<HttpsClient>> open(const HttpsOptions& options);
  virtual ~HttpsClient() = default;
  /// Any status is an answer. Redirects are not followed.
  /// Errors: kUnreachable (no answer in time, or none that can be trusted), kUsage (URL).
  virtual Result<HttpsResponse> call(const HttpsRequest& request) = 0;
};

}  // namespace assay::streams
