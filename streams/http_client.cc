#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>

#include "streams/http_text.h"

namespace assay::streams {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using AnyStream = beast::basic_stream<asio::generic::stream_protocol>;
using ErrorCode = boost::system::error_code;

constexpr uint64_t kMaxResponseBytes = uint64_t{1} << 30;

// One request, one response, one connection. Beast's deadlines hold for asynchronous calls alone, so these are, each run to its
// end.
Result<HttpResponse> call(const asio::generic::stream_protocol::endpoint& endpoint, const std::string& where, std::string_view host,
                          http::verb method, std::string_view target, std::string_view body, int64_t timeout_ms) {
  const std::string attempt = "ask " + where + " for " + std::string(target) + ": ";
  asio::io_context io(1);
  AnyStream stream(io);
  stream.expires_after(std::chrono::milliseconds(timeout_ms));
  ErrorCode error;
  auto finish = [&](ErrorCode e, size_t = 0) { error = e; };
  auto run = [&] {
    io.restart();
    io.run();
  };

  stream.async_connect(endpoint, finish);
  run();
  if (error) return Error{Errc::kUnreachable, attempt + "connect: " + error.message()};

  http::request<http::string_body> request(method, {target.data(), target.size()}, 11);
  request.set(http::field::host, beast::string_view(host.data(), host.size()));
  request.keep_alive(false);
  if (!body.empty()) {
    request.set(http::field::content_type, "application/json");
    request.body() = body;
  }
  request.prepare_payload();
  http::async_write(stream, request, finish);
  run();
  // A server that refuses may close before it has read everything: its answer counts, not the broken write.
  const ErrorCode write_error = error;

  beast::flat_buffer buffer;
  http::response_parser<http::string_body> parser;
  parser.body_limit(kMaxResponseBytes);
  http::async_read(stream, buffer, parser, finish);
  run();
  if (error) {
    const bool not_http = error.category() == http::make_error_code(http::error::bad_method).category() &&
                          error != http::error::end_of_stream && error != http::error::partial_message;
    return Error{not_http ? Errc::kCorrupt : Errc::kUnreachable, attempt + (write_error ? write_error.message() : error.message())};
  }

  auto& message = parser.get();
  HttpResponse response;
  response.status = static_cast<int>(message.result_int());
  response.content_type = std::string(message[http::field::content_type]);
  response.body = std::move(message.body());
  for (const auto& field : message) response.headers.emplace_back(std::string(field.name_string()), std::string(field.value()));
  return response;
}

Result<HttpResponse> call_unix(const std::string& socket_path, http::verb method, std::string_view target, std::string_view body,
                               int64_t timeout_ms) {
  TRY_ASSIGN(UnixSocketPath place, UnixSocketPath::open(socket_path));
  return call(asio::local::stream_protocol::endpoint(place.text()), socket_path, "localhost", method, target, body, timeout_ms);
}

}  // namespace

Result<HttpResponse> http_unix_get(const std::string& socket_path, std::string_view target, int64_t timeout_ms) {
  return call_unix(socket_path, http::verb::get, target, {}, timeout_ms);
}

Result<HttpResponse> http_unix_post(const std::string& socket_path, std::string_view target, std::string_view json_body,
                                    int64_t timeout_ms) {
  return call_unix(socket_path, http::verb::post, target, json_body, timeout_ms);
}

Result<HttpResponse> http_get(const std::string& address, std::string_view target, int64_t timeout_ms) {
  size_t colon = address.rfind(':');
  if (colon == std::string::npos) return Error{Errc::kUsage, "ask " + address + ": not of the form HOST:PORT"};
  std::string host = address.substr(0, colon);
  if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
  asio::io_context io(1);
  ErrorCode error;
  auto found = asio::ip::tcp::resolver(io).resolve(host, address.substr(colon + 1), error);
  if (error || found.empty()) return Error{Errc::kUnreachable, "ask " + address + ": " + error.message()};
  return call(found.begin()->endpoint(), address, address, http::verb::get, target, {}, timeout_ms);
}

}  // namespace assay::streams
