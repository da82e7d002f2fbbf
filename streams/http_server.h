// A small HTTP/1.1 server on a TCP address and a unix-domain socket, and the client for the latter.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "schemas/json.h"
#include "streams/base.h"

namespace assay::streams {

using HttpFields = std::vector<std::pair<std::string, std::string>>;

struct HttpRequest {
  std::string method;  // "GET"
  std::string target;  // as sent: "/api/scores?window=1h"
  std::string path;    // decoded, without the query
  HttpFields query;    // decoded, in order
  HttpFields params;   // what the {names} of the route matched, decoded
  HttpFields headers;  // names in lower case
  std::string body;

  std::optional<std::string_view> query_value(std::string_view name) const;
  std::optional<std::string_view> header(std::string_view lower_case_name) const;
  std::string_view param(std::string_view name) const;  // Requires: the route has it
};

struct HttpResponse {
  int status = 200;
  std::string content_type = "application/json";
  std::string body;
  HttpFields headers;
};

/// Canonical text of the document and a newline.
HttpResponse json_response(const Json& document, int status = 200);
/// {"ok":false,"error":{"code","message","details"}}
HttpResponse error_response(int status, std::string_view code, std::string_view message, Json details = Json::object());
/// The envelope for an Error of a handler: kNotFound 404, kUsage 400, kRefused 409, kUnreachable 503, kIncomplete 503, others 500.
/// `details.exitCode` carries its exit code, so that a command that asked ends as if it had failed itself.
HttpResponse error_response(const Error& error);
/// The Error in an answer that is no 2xx, as the command that asked reports it.
Error error_of(const HttpResponse& response);

/// Runs on one of the handler threads; may block. An exception becomes a 500.
using HttpHandler = std::function<HttpResponse(const HttpRequest&)>;

struct HttpOptions {
  std::string tcp_address = {};        // behaviour: "127.0.0.1:8050", "[::1]:0" (port 0: any free one); empty: none
  std::string unix_path = {};          // behaviour: socket with mode 0600; empty: none
  size_t max_connections = 256;        // behaviour: of each listener; further clients wait in the kernel's queue
  size_t max_header_bytes = 16 << 10;  // behaviour: 431 above
  size_t max_body_bytes = 1 << 20;     // behaviour: 413 above
  int64_t request_timeout_ms = 10000;  // behaviour: from the first byte of a request to its last
  int64_t idle_timeout_ms = 60000;     // behaviour: between requests
  int64_t write_timeout_ms = 30000;    // behaviour: of one response
  int64_t stop_timeout_ms = 3000;      // behaviour: what stop() gives to requests that are being answered
  int handler_threads = 4;             // performance
  std::function<void(std::string_view why)> on_refused =
      {};                                            // "limit" | "timeout" | "too_large" | "malformed": no handler saw the request
  std::function<void(int status)> on_response = {};  // every answer that was made
};

class HttpServer {
 public:
  /// Binds the listeners. Errors: kUsage (address), kRefused (port or socket in use), kUnexpected.
  static Result<std::unique_ptr<HttpServer>> open(HttpOptions options);
  virtual ~HttpServer() = default;  // stops

  /// Answers that method and path; "{name}" stands for one segment. HEAD is answered by GET's handler.
  /// Requires: before start(), each pair once.
  virtual void route(std::string_view method, std::string_view path, HttpHandler handler) = 0;
  /// Starts answering. Unknown paths: 404 NOT_FOUND; known ones with another method: 405 METHOD_NOT_ALLOWED.
  virtual void start() = 0;
  /// Takes no more connections, lets running requests end, closes. Waits for handlers that still run: they use the owner's things.
  virtual void stop() = 0;
  /// TCP port that was bound; 0 without a TCP address.
  virtual uint16_t port() const = 0;
};

struct Readiness {
  bool ready = false;
  Json document;  // at least {"status":…}
};

/// What the owner answers at the fixed places; each is called on a handler thread.
struct OperationsEndpoints {
  std::function<Json()> health;          // GET /health: {"status":"ok",…}; 503 when status is not "ok"
  std::function<Readiness()> ready;      // GET /ready: 503 until ready
  std::function<std::string()> metrics;  // GET /metrics: exposition text
  std::string_view status_page;          // GET /: HTML; lives as long as the server
};
void route_operations(HttpServer& server, OperationsEndpoints endpoints);

/// Asks the process behind a unix-domain socket. Any status is a response; see error_of().
/// Errors: kUnreachable (nobody there, or no answer in time), kCorrupt (no HTTP came back).
Result<HttpResponse> http_unix_get(const std::string& socket_path, std::string_view target, int64_t timeout_ms = 60000);
Result<HttpResponse> http_unix_post(const std::string& socket_path, std::string_view target, std::string_view json_body,
                                    int64_t timeout_ms = 60000);
/// The same over TCP, for peers. `address` = "host:port".
Result<HttpResponse> http_get(const std::string& address, std::string_view target, int64_t timeout_ms = 60000);

}  // namespace assay::streams
