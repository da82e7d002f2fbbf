#include "streams/http_text.h"

#include <fcntl.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "schemas/json_parse.h"
#include "schemas/utf8.h"

namespace assay::streams {

namespace {

int hex_digit(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  if (c >= 'a' && c <= 'f') return c - 'a' + 10;
  if (c >= 'A' && c <= 'F') return c - 'A' + 10;
  return -1;
}

std::vector<std::string_view> split(std::string_view text, char separator) {
  std::vector<std::string_view> parts;
  while (true) {
    size_t at = text.find(separator);
    parts.push_back(text.substr(0, at));
    if (at == std::string_view::npos) return parts;
    text.remove_prefix(at + 1);
  }
}

bool is_placeholder(std::string_view segment) { return segment.size() > 2 && segment.front() == '{' && segment.back() == '}'; }

std::string_view error_word(Errc code) {
  switch (code) {
    case Errc::kUsage:
      return "BAD_REQUEST";
    case Errc::kUnhealthy:
      return "UNHEALTHY";
    case Errc::kTampered:
      return "TAMPERED";
    case Errc::kRefused:
      return "REFUSED";
    case Errc::kUnreachable:
      return "UNREACHABLE";
    case Errc::kParity:
      return "PARITY_MISMATCH";
    case Errc::kIncomplete:
      return "EVIDENCE_INCOMPLETE";
    case Errc::kFenced:
      return "FENCED";
    case Errc::kAborted:
      return "ABORTED";
    case Errc::kAmbiguous:
      return "AMBIGUOUS";
    case Errc::kCorrupt:
      return "CORRUPT";
    case Errc::kTooLarge:
      return "TOO_LARGE";
    case Errc::kNotFound:
      return "NOT_FOUND";
    case Errc::kOutOfRange:
      return "OUT_OF_RANGE";
    case Errc::kUnexpected:
      break;
  }
  return "INTERNAL";
}

int error_status(Errc code) {
  switch (code) {
    case Errc::kUsage:
      return 400;
    case Errc::kNotFound:
      return 404;
    case Errc::kRefused:
    case Errc::kFenced:
      return 409;
    case Errc::kTooLarge:
      return 413;
    case Errc::kUnreachable:
    case Errc::kIncomplete:
      return 503;
    default:
      return 500;
  }
}

}  // namespace

std::optional<std::string_view> HttpRequest::query_value(std::string_view name) const {
  for (const auto& [n, value] : query)
    if (n == name) return value;
  return std::nullopt;
}

std::optional<std::string_view> HttpRequest::header(std::string_view lower_case_name) const {
  for (const auto& [n, value] : headers)
    if (n == lower_case_name) return value;
  return std::nullopt;
}

std::string_view HttpRequest::param(std::string_view name) const {
  for (const auto& [n, value] : params)
    if (n == name) return value;
  CHECK(false && "a parameter that the route does not have");
}

HttpResponse json_response(const Json& document, int status) {
  HttpResponse response;
  response.status = status;
  response.body = canonical(document);
  response.body.push_back('\n');
  return response;
}

HttpResponse error_response(int status, std::string_view code, std::string_view message, Json details) {
  Json error = Json::object();
  // The canonical form takes valid UTF-8 alone, and a message may quote what somebody sent.
  error.set("code", code)
      .set("message", valid_utf8(message) ? std::string(message) : printable(message, 1000))
      .set("details", std::move(details));
  return json_response(Json::object().set("ok", false).set("error", std::move(error)), status);
}

HttpResponse error_response(const Error& error) {
  return error_response(error_status(error.code), error_word(error.code), error.message,
                        Json::object().set("exitCode", exit_code(error.code)));
}

Error error_of(const HttpResponse& response) {
  auto document = parse_json(response.body);
  const Json* error = document ? document->find("error") : nullptr;
  if (error == nullptr)
    return {Errc::kUnexpected, "the process answered " + std::to_string(response.status) + ": " + response.body.substr(0, 200)};
  // The word tells more than the exit code does: several errors share one.
  std::string_view word = error->string_or("code", "");
  Errc code = Errc::kUnexpected;
  for (int i = 0; i <= static_cast<int>(Errc::kOutOfRange); ++i)
    if (error_word(static_cast<Errc>(i)) == word) code = static_cast<Errc>(i);
  return {code, std::string(error->string_or("message", word))};
}

void route_operations(HttpServer& server, OperationsEndpoints endpoints) {
  server.route("GET", "/health", [health = std::move(endpoints.health)](const HttpRequest&) {
    Json document = health();
    return json_response(document, document.string_or("status", "") == "ok" ? 200 : 503);
  });
  server.route("GET", "/ready", [ready = std::move(endpoints.ready)](const HttpRequest&) {
    Readiness r = ready();
    return json_response(r.document, r.ready ? 200 : 503);
  });
  server.route("GET", "/metrics", [metrics = std::move(endpoints.metrics)](const HttpRequest&) {
    return HttpResponse{200, "text/plain; version=0.0.4; charset=utf-8", metrics(), {}};
  });
  server.route("GET", "/", [page = endpoints.status_page](const HttpRequest&) {
    // The page loads nothing from elsewhere, and may not: its script and style stand in it.
    return HttpResponse{200,
                        "text/html; charset=utf-8",
                        std::string(page),
                        {{"Content-Security-Policy",
                          "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; "
                          "img-src data:; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"}}};
  });
}

std::optional<std::string> percent_decode(std::string_view text, bool in_query) {
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '+' && in_query) {
      out.push_back(' ');
    } else if (text[i] != '%') {
      out.push_back(text[i]);
    } else {
      if (text.size() - i < 3) return std::nullopt;
      int high = hex_digit(text[i + 1]), low = hex_digit(text[i + 2]);
      if (high < 0 || low < 0 || high + low == 0) return std::nullopt;
      out.push_back(static_cast<char>(high * 16 + low));
      i += 2;
    }
  }
  return out;
}

Result<Target> parse_target(std::string_view target) {
  auto bad = [](std::string_view what) { return Error{Errc::kUsage, "the request's target " + std::string(what)}; };
  if (target.empty() || target.front() != '/') return bad("does not begin with '/'");
  target = target.substr(0, target.find('#'));
  size_t question = target.find('?');
  Target out;
  for (std::string_view segment : split(target.substr(1, question == std::string_view::npos ? question : question - 1), '/')) {
    auto text = percent_decode(segment, false);
    if (!text || !valid_utf8(*text)) return bad("has a broken %-escape in its path");
    out.path += "/" + *text;
    out.segments.push_back(std::move(*text));
  }
  if (question == std::string_view::npos) return out;
  for (std::string_view pair : split(target.substr(question + 1), '&')) {
    if (pair.empty()) continue;
    size_t equals = pair.find('=');
    auto name = percent_decode(pair.substr(0, equals), true);
    auto value = percent_decode(equals == std::string_view::npos ? std::string_view() : pair.substr(equals + 1), true);
    if (!name || !value || !valid_utf8(*name) || !valid_utf8(*value)) return bad("has a broken %-escape in its query");
    out.query.emplace_back(std::move(*name), std::move(*value));
  }
  return out;
}

void Router::add(std::string_view method, std::string_view path, HttpHandler handler) {
  CHECK(!path.empty() && path.front() == '/');
  Route route;
  route.method = method;
  for (std::string_view segment : split(path.substr(1), '/')) route.segments.emplace_back(segment);
  for (const Route& other : routes_) CHECK(other.method != route.method || other.segments != route.segments);
  route.handler = std::move(handler);
  routes_.push_back(std::move(route));
}

HttpResponse Router::answer(HttpRequest request, const Target& target) const {
  const std::string method = request.method == "HEAD" ? "GET" : request.method;
  std::string allowed;
  const Route* found = nullptr;
  size_t found_placeholders = 0;
  for (const Route& route : routes_) {
    if (route.segments.size() != target.segments.size()) continue;
    size_t placeholders = 0;
    bool match = true;
    for (size_t i = 0; match && i < route.segments.size(); ++i) {
      if (is_placeholder(route.segments[i]) && !target.segments[i].empty()) {
        ++placeholders;
      } else {
        match = route.segments[i] == target.segments[i];
      }
    }
    if (!match) continue;
    if (route.method != method) {
      if (!allowed.empty()) allowed += ", ";
      allowed += route.method == "GET" ? "GET, HEAD" : route.method;
    } else if (found == nullptr || placeholders < found_placeholders) {  // the more exact route wins
      found = &route;
      found_placeholders = placeholders;
    }
  }
  if (found == nullptr) {
    if (allowed.empty()) return error_response(404, "NOT_FOUND", "nothing is at " + printable(target.path));
    HttpResponse response = error_response(405, "METHOD_NOT_ALLOWED", printable(target.path) + " takes " + allowed);
    response.headers.emplace_back("Allow", allowed);
    return response;
  }
  for (size_t i = 0; i < found->segments.size(); ++i)
    if (const std::string& s = found->segments[i]; is_placeholder(s))
      request.params.emplace_back(s.substr(1, s.size() - 2), target.segments[i]);
  try {
    return found->handler(request);
  } catch (const std::exception& e) {
    return error_response(500, "INTERNAL", std::string("the handler failed: ") + e.what());
  }
}

Result<UnixSocketPath> UnixSocketPath::open(const std::string& path) {
  if (path.size() < sizeof(sockaddr_un::sun_path)) return UnixSocketPath(-1, path);
  size_t slash = path.rfind('/');
  std::string dir = slash == std::string::npos ? "." : path.substr(0, slash);
  int fd = ::open(dir.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  if (fd < 0) return Error{Errc::kUnreachable, "open directory " + dir + ": " + std::strerror(errno)};
  return UnixSocketPath(fd, "/proc/self/fd/" + std::to_string(fd) + "/" + path.substr(slash == std::string::npos ? 0 : slash + 1));
}

UnixSocketPath::UnixSocketPath(UnixSocketPath&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), text_(std::move(other.text_)) {}

UnixSocketPath::~UnixSocketPath() {
  if (fd_ >= 0) ::close(fd_);
}

}  // namespace assay::streams
