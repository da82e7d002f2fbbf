// The parts of HTTP that need no library: targets, routes, and paths of sockets longer than the kernel takes.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "streams/http_server.h"

namespace assay::streams {

/// %41 -> 'A'; nothing for a broken escape or an encoded NUL. In a query '+' is a space.
std::optional<std::string> percent_decode(std::string_view text, bool in_query);

/// Splits "/a/b%2Fc?x=1" into decoded segments, path and query. Errors: kUsage with what is wrong.
struct Target {
  std::vector<std::string> segments;
  std::string path;
  HttpFields query;
};
Result<Target> parse_target(std::string_view target);

/// Routes by method and path.
class Router {
 public:
  void add(std::string_view method, std::string_view path, HttpHandler handler);
  /// Answers the request: the route's handler, 404, 405 with Allow, or 500 when the handler threw.
  HttpResponse answer(HttpRequest request, const Target& target) const;

 private:
  struct Route {
    std::string method;
    std::vector<std::string> segments;  // "{name}" matches any one
    HttpHandler handler;
  };
  std::vector<Route> routes_;
};

/// A socket's path in a form that fits into sockaddr_un (108 bytes), whatever its length: through the directory's descriptor.
class UnixSocketPath {
 public:
  /// Errors: kUnreachable when the directory cannot be opened.
  static Result<UnixSocketPath> open(const std::string& path);
  UnixSocketPath(UnixSocketPath&& other) noexcept;
  UnixSocketPath(const UnixSocketPath&) = delete;
  ~UnixSocketPath();
  const std::string& text() const { return text_; }  // lives as long as this object

 private:
  UnixSocketPath(int fd, std::string text) : fd_(fd), text_(std::move(text)) {}
  int fd_;
  std::string text_;
};

}  // namespace assay::streams
