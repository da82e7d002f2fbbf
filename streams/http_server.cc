#include "streams/http_server.h"

#include <netinet/in.h>
#include <sys/stat.h>
#include <unistd.h>

#include <atomic>
#include <boost/asio/generic/stream_protocol.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/local/stream_protocol.hpp>
#include <boost/asio/steady_timer.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/beast/core.hpp>
#include <boost/beast/http.hpp>
#include <cerrno>
#include <cstring>
#include <thread>
#include <unordered_set>

#include "streams/http_text.h"

namespace assay::streams {

namespace {

namespace asio = boost::asio;
namespace beast = boost::beast;
namespace http = beast::http;
using AnySocket = asio::generic::stream_protocol::socket;
using AnyStream = beast::basic_stream<asio::generic::stream_protocol>;
using ErrorCode = boost::system::error_code;
using std::chrono::milliseconds;

constexpr size_t kDrainBytes = 4 << 20;  // of a refused body, read so that the client comes to read the answer
constexpr milliseconds kDrainTime(2000);
constexpr milliseconds kAcceptPause(100);  // after accept() failed: out of descriptors, most likely

// A header that came from a handler must not begin a line of its own.
std::string one_line(std::string text) {
  for (char& c : text)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7F) c = ' ';
  return text;
}

class Session;

// What the sessions of one server share; everything but the pool is touched by the I/O thread alone.
struct Shared {
  explicit Shared(HttpOptions o) : options(std::move(o)), pool(static_cast<size_t>(std::max(1, options.handler_threads))) {}
  HttpOptions options;
  Router router;
  std::unordered_set<Session*> sessions;
  bool stopping = false;
  std::function<void()> on_session_end;  // set while stopping
  asio::io_context io{1};
  asio::thread_pool pool;

  void refused(std::string_view why) {
    if (options.on_refused) options.on_refused(why);
  }
};

// Accepts up to a number of connections; the rest waits in the kernel's queue.
struct Gate {
  size_t open = 0;
  bool waiting = false;
  std::function<void()> accept;
};

class Session : public std::enable_shared_from_this<Session> {
 public:
  Session(Shared& shared, Gate& gate, AnySocket socket) : shared_(shared), gate_(gate), stream_(std::move(socket)) {
    shared_.sessions.insert(this);
    ++gate_.open;
  }

  ~Session() {
    shared_.sessions.erase(this);
    --gate_.open;
    if (shared_.stopping) {
      if (shared_.sessions.empty() && shared_.on_session_end) shared_.on_session_end();
    } else if (gate_.waiting) {
      gate_.waiting = false;
      gate_.accept();
    }
  }

  void start() { await_request(); }
  void stop() {
    if (idle_) close();
  }
  void close() { stream_.close(); }

 private:
  void await_request() {
    if (shared_.stopping) return close();
    if (buffer_.size() > 0) return read_header();  // pipelined behind the last one
    idle_ = true;
    stream_.expires_after(milliseconds(shared_.options.idle_timeout_ms));
    stream_.async_read_some(buffer_.prepare(4096), [self = shared_from_this()](ErrorCode error, size_t n) {
      self->idle_ = false;
      if (error) return;  // left, or stayed silent too long: nobody waits for an answer
      self->buffer_.commit(n);
      self->read_header();
    });
  }

  void read_header() {
    parser_.emplace();
    parser_->header_limit(static_cast<uint32_t>(shared_.options.max_header_bytes));
    parser_->body_limit(shared_.options.max_body_bytes);
    stream_.expires_after(milliseconds(shared_.options.request_timeout_ms));  // one deadline: a byte now and then does not move it
    http::async_read_header(stream_, buffer_, *parser_, [self = shared_from_this()](ErrorCode error, size_t) {
      if (error) return self->refuse(error);
      if (beast::iequals(self->parser_->get()[http::field::expect], "100-continue")) return self->send_continue();
      self->read_body();
    });
  }

  void send_continue() {
    continue_ = {http::status::continue_, parser_->get().version()};
    http::async_write(stream_, continue_, [self = shared_from_this()](ErrorCode error, size_t) {
      if (!error) self->read_body();
    });
  }

  void read_body() {
    http::async_read(stream_, buffer_, *parser_, [self = shared_from_this()](ErrorCode error, size_t) {
      if (error) return self->refuse(error);
      self->handle();
    });
  }

  // The request cannot be read: says why where the client can still hear it, and ends the connection.
  void refuse(ErrorCode error) {
    if (error == http::error::end_of_stream || error == asio::error::operation_aborted) return;
    if (error == beast::error::timeout) return shared_.refused("timeout");
    if (error == http::error::header_limit || error == http::error::buffer_overflow) {
      shared_.refused("too_large");
      return respond(
          error_response(431, "HEADERS_TOO_LARGE",
                         "the request's headers are longer than " + std::to_string(shared_.options.max_header_bytes) + " bytes"));
    }
    if (error == http::error::body_limit) {
      shared_.refused("too_large");
      return respond(error_response(
          413, "BODY_TOO_LARGE", "the request's body is longer than " + std::to_string(shared_.options.max_body_bytes) + " bytes"));
    }
    if (error.category() != http::make_error_code(http::error::bad_method).category()) return;  // the connection broke
    shared_.refused("malformed");
    if (error == http::error::partial_message) return;
    respond(error_response(400, "BAD_REQUEST", "the request is not HTTP/1.1: " + error.message()));
  }

  void handle() {
    auto& message = parser_->get();
    keep_alive_ = message.keep_alive();
    head_ = message.method() == http::verb::head;
    auto request = std::make_shared<HttpRequest>();
    request->method = std::string(message.method_string());
    request->target = std::string(message.target());
    request->body = std::move(message.body());
    for (const auto& field : message) {
      std::string name(field.name_string());
      for (char& c : name)
        if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
      request->headers.emplace_back(std::move(name), std::string(field.value()));
    }
    auto target = parse_target(request->target);
    if (!target) {
      readable_ = true;
      return respond(error_response(400, "BAD_REQUEST", target.error().message));
    }
    request->path = target->path;
    request->query = target->query;
    stream_.expires_never();  // a query may take its time; the write has its own deadline
    // The guard keeps the I/O thread alive until the answer is back.
    asio::post(shared_.pool, [self = shared_from_this(), request, target = std::move(*target),
                              guard = asio::make_work_guard(shared_.io)]() mutable {
      auto response = std::make_shared<HttpResponse>(self->shared_.router.answer(std::move(*request), target));
      asio::io_context& io = self->shared_.io;
      // The session must end on the I/O thread: this lambda gives its share away.
      asio::post(io, [self = std::move(self), response] {
        self->readable_ = true;
        self->respond(std::move(*response));
      });
    });
  }

  void respond(HttpResponse response) {
    if (shared_.options.on_response) shared_.options.on_response(response.status);
    // A full house keeps nobody: whoever waits in the kernel's queue comes in.
    bool keep = readable_ && keep_alive_ && !shared_.stopping && gate_.open < shared_.options.max_connections;
    readable_ = false;
    bool drain = !parser_->is_done();
    response_ = {};
    response_.version(11);
    response_.result(static_cast<unsigned>(response.status));
    response_.set(http::field::content_type, one_line(std::move(response.content_type)));
    response_.set(http::field::cache_control, "no-store");
    response_.set("X-Content-Type-Options", "nosniff");
    for (auto& [name, value] : response.headers) response_.set(one_line(name), one_line(std::move(value)));
    response_.keep_alive(keep);
    response_.content_length(response.body.size());
    if (!head_) response_.body() = std::move(response.body);
    head_ = false;
    stream_.expires_after(milliseconds(shared_.options.write_timeout_ms));
    auto written = [self = shared_from_this(), keep, drain](ErrorCode error, size_t) {
      if (error) return;
      if (keep) return self->await_request();
      ErrorCode ignored;
      self->stream_.socket().shutdown(AnySocket::shutdown_send, ignored);
      if (drain) self->drain_rest(0);
    };
    if (response_.body().empty()) {
      // HEAD: the length is announced and nothing follows.
      empty_.emplace(response_.base());
      http::async_write(stream_, *empty_, std::move(written));
    } else {
      http::async_write(stream_, response_, std::move(written));
    }
  }

  // Closing with unread bytes resets the connection, and the client loses the answer with it.
  void drain_rest(size_t drained) {
    if (drained == 0) stream_.expires_after(kDrainTime);
    buffer_.consume(buffer_.size());
    stream_.async_read_some(buffer_.prepare(65536), [self = shared_from_this(), drained](ErrorCode error, size_t n) {
      if (!error && drained + n < kDrainBytes) self->drain_rest(drained + n);
    });
  }

  Shared& shared_;
  Gate& gate_;
  AnyStream stream_;
  beast::flat_buffer buffer_;
  std::optional<http::request_parser<http::string_body>> parser_;
  http::response<http::string_body> response_;
  std::optional<http::response<http::empty_body>> empty_;
  http::response<http::empty_body> continue_;
  bool idle_ = false;
  bool head_ = false;
  bool keep_alive_ = false;
  bool readable_ = false;  // the request was read to its end, so another may follow
};

template <class Protocol>
class Listener {
 public:
  Listener(Shared& shared, typename Protocol::acceptor acceptor)
      : shared_(shared), acceptor_(std::move(acceptor)), retry_(shared.io) {
    gate_.accept = [this] { accept(); };
  }

  void accept() {
    if (shared_.stopping) return;
    if (gate_.open >= shared_.options.max_connections) {
      gate_.waiting = true;
      return shared_.refused("limit");
    }
    acceptor_.async_accept(shared_.io, [this](ErrorCode error, typename Protocol::socket socket) {
      if (shared_.stopping) return;
      if (error) {
        retry_.expires_after(kAcceptPause);
        retry_.async_wait([this](ErrorCode stopped) {
          if (!stopped) accept();
        });
        return;
      }
      if constexpr (std::is_same_v<Protocol, asio::ip::tcp>) {
        ErrorCode ignored;
        socket.set_option(asio::ip::tcp::no_delay(true), ignored);
      }
      std::make_shared<Session>(shared_, gate_, AnySocket(std::move(socket)))->start();
      accept();
    });
  }

  void close() {
    ErrorCode ignored;
    acceptor_.close(ignored);
    retry_.cancel();
  }

 private:
  Shared& shared_;
  typename Protocol::acceptor acceptor_;
  asio::steady_timer retry_;
  Gate gate_;
};

using TcpListener = Listener<asio::ip::tcp>;
using UnixListener = Listener<asio::local::stream_protocol>;

class Server final : public HttpServer {
 public:
  explicit Server(HttpOptions options) : shared_(std::move(options)) {}
  ~Server() override {
    stop();
    shared_.pool.join();
  }

  Result<void> bind() {
    if (!shared_.options.tcp_address.empty()) TRY(bind_tcp(shared_.options.tcp_address));
    if (!shared_.options.unix_path.empty()) TRY(bind_unix(shared_.options.unix_path));
    if (tcp_ == nullptr && unix_ == nullptr)
      return Error{Errc::kUsage, "open the HTTP server: neither a TCP address nor a socket path"};
    return {};
  }

  void route(std::string_view method, std::string_view path, HttpHandler handler) override {
    CHECK(!thread_.joinable());
    shared_.router.add(method, path, std::move(handler));
  }

  void start() override {
    CHECK(!thread_.joinable());
    if (tcp_) tcp_->accept();
    if (unix_) unix_->accept();
    thread_ = std::thread([this] { shared_.io.run(); });
  }

  void stop() override {
    if (stopped_.exchange(true)) return;
    asio::post(shared_.io, [this] {
      shared_.stopping = true;
      if (tcp_) tcp_->close();
      if (unix_) unix_->close();
      auto timer = std::make_shared<asio::steady_timer>(shared_.io, milliseconds(shared_.options.stop_timeout_ms));
      shared_.on_session_end = [timer] { timer->cancel(); };
      if (!shared_.sessions.empty())
        timer->async_wait([this](ErrorCode cancelled) {
          if (cancelled) return;
          for (Session* session : shared_.sessions) session->close();
        });
      for (Session* session : shared_.sessions) session->stop();
    });
    if (thread_.joinable()) {
      thread_.join();
    } else {
      shared_.io.run();  // never started: what was posted must still be done
    }
    shared_.on_session_end = nullptr;
    shared_.pool.join();
    // Only the socket that this server made: another one may have been bound in its place.
    struct stat now;
    if (unix_made_ && ::lstat(shared_.options.unix_path.c_str(), &now) == 0 && now.st_ino == unix_stat_.st_ino &&
        now.st_dev == unix_stat_.st_dev)
      ::unlink(shared_.options.unix_path.c_str());
  }

  uint16_t port() const override { return port_; }

 private:
  Result<void> bind_tcp(const std::string& address) {
    const std::string attempt = "listen on " + address + ": ";
    size_t colon = address.rfind(':');
    if (colon == std::string::npos) return Error{Errc::kUsage, attempt + "not of the form HOST:PORT"};
    std::string host = address.substr(0, colon), port = address.substr(colon + 1);
    if (host.size() > 1 && host.front() == '[' && host.back() == ']') host = host.substr(1, host.size() - 2);
    if (host.empty()) host = "0.0.0.0";
    ErrorCode error;
    auto found = asio::ip::tcp::resolver(shared_.io).resolve(host, port, asio::ip::tcp::resolver::passive, error);
    if (error || found.empty()) return Error{Errc::kUsage, attempt + "no such address: " + error.message()};
    asio::ip::tcp::endpoint endpoint = found.begin()->endpoint();
    asio::ip::tcp::acceptor acceptor(shared_.io);
    acceptor.open(endpoint.protocol(), error);
    if (!error) acceptor.set_option(asio::socket_base::reuse_address(true), error);
    if (!error) acceptor.bind(endpoint, error);
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) return Error{error == asio::error::address_in_use ? Errc::kRefused : Errc::kUsage, attempt + error.message()};
    port_ = acceptor.local_endpoint(error).port();
    tcp_ = std::make_unique<TcpListener>(shared_, std::move(acceptor));
    return {};
  }

  Result<void> bind_unix(const std::string& path) {
    const std::string attempt = "listen on socket " + path + ": ";
    struct stat old;
    if (::lstat(path.c_str(), &old) == 0) {
      if (!S_ISSOCK(old.st_mode)) return Error{Errc::kRefused, attempt + "a file that is no socket is in its place"};
      // Left by a process that was killed, or held by one that lives: only the latter answers.
      TRY_ASSIGN(UnixSocketPath place, UnixSocketPath::open(path));
      asio::local::stream_protocol::socket probe(shared_.io);
      ErrorCode error;
      probe.connect(asio::local::stream_protocol::endpoint(place.text()), error);
      if (!error) return Error{Errc::kRefused, attempt + "another process answers there"};
      ::unlink(path.c_str());
    }
    TRY_ASSIGN(UnixSocketPath place, UnixSocketPath::open(path));
    ErrorCode error;
    asio::local::stream_protocol::acceptor acceptor(shared_.io);
    acceptor.open(asio::local::stream_protocol(), error);
    // Before bind(): the file has this mode from its first instant, so nobody slips in before a chmod.
    if (!error && ::fchmod(acceptor.native_handle(), 0600) != 0) error = ErrorCode(errno, boost::system::system_category());
    if (!error) acceptor.bind(asio::local::stream_protocol::endpoint(place.text()), error);
    if (!error && ::chmod(path.c_str(), 0600) != 0) error = ErrorCode(errno, boost::system::system_category());
    if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
    if (error) return Error{error == asio::error::address_in_use ? Errc::kRefused : Errc::kUnexpected, attempt + error.message()};
    unix_made_ = ::lstat(path.c_str(), &unix_stat_) == 0;
    unix_ = std::make_unique<UnixListener>(shared_, std::move(acceptor));
    return {};
  }

  Shared shared_;
  std::unique_ptr<TcpListener> tcp_;
  std::unique_ptr<UnixListener> unix_;
  std::thread thread_;
  uint16_t port_ = 0;
  std::atomic<bool> stopped_ = false;
  bool unix_made_ = false;
  struct stat unix_stat_ = {};
};

}  // namespace

Result<std::unique_ptr<HttpServer>> HttpServer::open(HttpOptions options) {
  auto server = std::make_unique<Server>(std::move(options));
  TRY(server->bind());
  return std::unique_ptr<HttpServer>(std::move(server));
}

}  // namespace assay::streams
