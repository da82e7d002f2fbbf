// The HTTP server against a client of its own made of plain sockets, and the unix-socket client against the server.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <mutex>
#include <random>
#include <thread>

#include "schemas/json_parse.h"
#include "streams/http_server.h"
#include "streams/http_text.h"

namespace assay::streams {
namespace {

using namespace std::chrono_literals;
using testing::HasSubstr;
using testing::StartsWith;

// One TCP connection, bytes in and bytes out.
class Wire {
 public:
  explicit Wire(uint16_t port) : fd_(::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) {
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(port);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    timeval limit{10, 0};  // a server that never answers fails the test, not the machine
    ::setsockopt(fd_, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof limit);
    connected_ = ::connect(fd_, reinterpret_cast<sockaddr*>(&to), sizeof to) == 0;
  }
  ~Wire() { ::close(fd_); }
  bool connected() const { return connected_; }
  bool send(std::string_view bytes) {
    while (!bytes.empty()) {
      ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
      if (n <= 0) return false;
      bytes.remove_prefix(static_cast<size_t>(n));
    }
    return true;
  }
  // One response: head and body as Content-Length says. Empty when the server closed without one.
  std::string response(bool head_only = false) {
    size_t end;
    while ((end = in_.find("\r\n\r\n")) == std::string::npos)
      if (!fill()) return "";
    size_t length = 0;
    if (size_t at = in_.find("Content-Length: "); at < end && !head_only) length = std::stoul(in_.substr(at + 16));
    while (in_.size() < end + 4 + length)
      if (!fill()) return "cut: " + in_;
    std::string out = in_.substr(0, end + 4 + length);
    in_.erase(0, end + 4 + length);
    return out;
  }
  bool closed() { return in_.empty() && !fill(); }

 private:
  bool fill() {
    char buffer[65536];
    ssize_t n = ::recv(fd_, buffer, sizeof buffer, 0);
    if (n <= 0) return false;
    in_.append(buffer, static_cast<size_t>(n));
    return true;
  }
  int fd_;
  bool connected_ = false;
  std::string in_;
};

std::string get(std::string_view target, std::string_view more = "") {
  return "GET " + std::string(target) + " HTTP/1.1\r\nHost: x\r\n" + std::string(more) + "\r\n";
}

class HttpTest : public testing::Test {
 protected:
  void open(HttpOptions options = {}) {
    if (options.tcp_address.empty()) options.tcp_address = "127.0.0.1:0";
    options.on_refused = [this](std::string_view why) {
      std::lock_guard lock(mutex_);
      refused_.emplace_back(why);
    };
    auto server = HttpServer::open(std::move(options));
    ASSERT_TRUE(server) << server.error().message;
    server_ = std::move(*server);
    server_->route("GET", "/echo", [](const HttpRequest& r) {
      Json query = Json::object();
      for (const auto& [name, value] : r.query) query.set(name, value);
      return json_response(Json::object().set("path", r.path).set("query", query).set("host", r.header("host").value_or("")));
    });
    server_->route("POST", "/echo", [](const HttpRequest& r) { return HttpResponse{200, "text/plain", r.body, {}}; });
    server_->route("GET", "/agent/{id}/score", [](const HttpRequest& r) {
      return HttpResponse{200, "text/plain", std::string(r.param("id")), {}};
    });
    server_->route("GET", "/agent/me/score", [](const HttpRequest&) { return HttpResponse{200, "text/plain", "me!", {}}; });
    server_->route("GET", "/throw", [](const HttpRequest&) -> HttpResponse { throw std::runtime_error("no \xFF luck"); });
    server_->route("GET", "/split", [](const HttpRequest&) {
      return HttpResponse{200, "text/plain\r\nX-Bad: 1", "", {{"X-A", "b\r\nX-Bad: 2"}}};
    });
    server_->route("GET", "/slow", [this](const HttpRequest&) {
      ++running_;
      std::this_thread::sleep_for(300ms);
      return HttpResponse{200, "text/plain", "slept", {}};
    });
    server_->start();
  }
  std::vector<std::string> refused() {
    std::lock_guard lock(mutex_);
    return refused_;
  }
  void await_refused(const std::string& why) {
    for (int i = 0; i < 500 && !testing::Value(refused(), testing::Contains(why)); ++i) std::this_thread::sleep_for(10ms);
    EXPECT_THAT(refused(), testing::Contains(why));
  }

  std::mutex mutex_;
  std::vector<std::string> refused_;
  std::atomic<int> running_{0};
  std::unique_ptr<HttpServer> server_;
};

TEST_F(HttpTest, AnswersOneRequestAfterTheOtherOnOneConnection) {
  open();
  Wire wire(server_->port());
  for (int i = 0; i < 3; ++i) {
    ASSERT_TRUE(wire.send(get("/echo?a=1&b=x%20y+z&a%26=%3D")));
    std::string response = wire.response();
    EXPECT_THAT(response, StartsWith("HTTP/1.1 200 OK\r\n"));
    EXPECT_THAT(response, HasSubstr("\r\nX-Content-Type-Options: nosniff\r\n"));
    EXPECT_THAT(response,
                testing::EndsWith("{\"host\":\"x\",\"path\":\"/echo\",\"query\":{\"a\":\"1\",\"a&\":\"=\",\"b\":\"x y z\"}}\n"));
  }
}

TEST_F(HttpTest, AnswersPipelinedRequestsInOrder) {
  open();
  Wire wire(server_->port());
  ASSERT_TRUE(wire.send(get("/agent/a/score") + get("/slow") + get("/agent/b/score", "Connection: close\r\n")));
  EXPECT_THAT(wire.response(), testing::EndsWith("\r\n\r\na"));
  EXPECT_THAT(wire.response(), testing::EndsWith("slept"));
  EXPECT_THAT(wire.response(), testing::EndsWith("\r\n\r\nb"));
  EXPECT_TRUE(wire.closed());
}

TEST_F(HttpTest, TakesARequestThatComesByteByByte) {
  open();
  Wire wire(server_->port());
  for (char c : std::string("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")) ASSERT_TRUE(wire.send({&c, 1}));
  EXPECT_THAT(wire.response(), testing::EndsWith("\r\n\r\nhello"));
}

TEST_F(HttpTest, TakesChunkedBodiesAndSays100Continue) {
  open();
  Wire wire(server_->port());
  ASSERT_TRUE(wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n4\r\ndefg\r\n0\r\n\r\n"));
  EXPECT_THAT(wire.response(), testing::EndsWith("\r\n\r\nabcdefg"));
  ASSERT_TRUE(wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"));
  EXPECT_THAT(wire.response(), StartsWith("HTTP/1.1 100 Continue\r\n"));
  ASSERT_TRUE(wire.send("ok"));
  EXPECT_THAT(wire.response(), testing::EndsWith("\r\n\r\nok"));
}

TEST_F(HttpTest, PrefersTheExactRouteAndDecodesSegments) {
  open();
  Wire wire(server_->port());
  ASSERT_TRUE(wire.send(get("/agent/me/score") + get("/agent/a%2Fb/score") + get("/agent//score")));
  EXPECT_THAT(wire.response(), testing::EndsWith("me!"));
  EXPECT_THAT(wire.response(), testing::EndsWith("\r\n\r\na/b"));
  EXPECT_THAT(wire.response(), StartsWith("HTTP/1.1 404 "));
}

TEST_F(HttpTest, AnswersHeadWithTheLengthAlone) {
  open();
  Wire wire(server_->port());
  ASSERT_TRUE(wire.send("HEAD /agent/abc/score HTTP/1.1\r\nHost: x\r\n\r\n" + get("/agent/d/score")));
  EXPECT_THAT(wire.response(true), HasSubstr("Content-Length: 3\r\n"));
  EXPECT_THAT(wire.response(), testing::EndsWith("\r\n\r\nd"));
}

TEST_F(HttpTest, PutsEveryErrorIntoOneEnvelope) {
  open();
  Wire wire(server_->port());
  auto expect_error = [&](const std::string& request, int status, const char* code) {
    ASSERT_TRUE(wire.send(request));
    std::string response = wire.response();
    EXPECT_THAT(response, StartsWith("HTTP/1.1 " + std::to_string(status) + " "));
    auto document = parse_json(response.substr(response.find("\r\n\r\n") + 4));
    ASSERT_TRUE(document) << response;
    EXPECT_FALSE(document->bool_or("ok", true));
    ASSERT_NE(document->find("error"), nullptr);
    EXPECT_EQ(document->find("error")->string_or("code", ""), code);
    EXPECT_NE(document->find("error")->string_or("message", ""), "");
    EXPECT_TRUE(document->find("error")->find("details")->is_object());
  };
  expect_error(get("/nothing"), 404, "NOT_FOUND");
  expect_error("DELETE /echo HTTP/1.1\r\nHost: x\r\n\r\n", 405, "METHOD_NOT_ALLOWED");
  expect_error(get("/throw"), 500, "INTERNAL");
  expect_error(get("/a%zz"), 400, "BAD_REQUEST");
  expect_error(get("/a%ff"), 400, "BAD_REQUEST");
  expect_error(get("/echo?x=%00"), 400, "BAD_REQUEST");
}

TEST_F(HttpTest, LetsNoHandlerBeginAHeaderLine) {
  open();
  Wire wire(server_->port());
  ASSERT_TRUE(wire.send(get("/split")));
  std::string response = wire.response();
  EXPECT_THAT(response, StartsWith("HTTP/1.1 200 "));
  EXPECT_THAT(response, testing::Not(HasSubstr("\nX-Bad")));
}

TEST_F(HttpTest, RefusesTooMuchAndGoesOnForOthers) {
  HttpOptions options;
  options.max_header_bytes = 2048;
  options.max_body_bytes = 1000;
  open(options);
  {
    Wire wire(server_->port());
    ASSERT_TRUE(wire.send(get("/echo", "X-Long: " + std::string(5000, 'a') + "\r\n")));
    EXPECT_THAT(wire.response(), StartsWith("HTTP/1.1 431 "));
    EXPECT_TRUE(wire.closed());
  }
  {
    Wire wire(server_->port());  // announced
    ASSERT_TRUE(wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 300000\r\n\r\n"));
    wire.send(std::string(300000, 'b'));
    EXPECT_THAT(wire.response(), StartsWith("HTTP/1.1 413 "));
  }
  {
    Wire wire(server_->port());  // found out underway
    ASSERT_TRUE(wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + std::string(1001, 'c') +
                          "\r\n0\r\n\r\n"));
    EXPECT_THAT(wire.response(), StartsWith("HTTP/1.1 413 "));
  }
  {
    Wire wire(server_->port());
    ASSERT_TRUE(wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + std::string(1000, 'd')));
    EXPECT_THAT(wire.response(), StartsWith("HTTP/1.1 200 "));
  }
  EXPECT_THAT(refused(), testing::ElementsAre("too_large", "too_large", "too_large"));
}

TEST_F(HttpTest, AnswersMalformedRequestsWith400AndCloses) {
  open();
  for (const char* bytes :
       {"\x16\x03\x01\x02\x01\x01\x01\xfc\x03\x03 hello tls\r\n\r\n", "GET /echo\r\n\r\n", "GET /echo HTTP/9.9\r\n\r\n",
        "GET /echo HTTP/1.1\r\nBad Name: x\r\n\r\n", "GET /echo HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        "GET /echo HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", "GET http://x/ HTTP/1.1\r\n\r\n "}) {
    Wire wire(server_->port());
    ASSERT_TRUE(wire.send(bytes));
    EXPECT_THAT(wire.response(), StartsWith("HTTP/1.1 400 ")) << bytes;
    EXPECT_TRUE(wire.closed() || std::string_view(bytes).starts_with("GET http")) << bytes;
  }
}

TEST_F(HttpTest, SurvivesRandomBytes) {
  open();
  std::mt19937 random(11);
  const std::string sound = "POST /echo?a=1 HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello";
  for (int round = 0; round < 300; ++round) {
    std::string bytes = sound;
    for (size_t i = 1 + random() % 6; i > 0; --i) bytes[random() % bytes.size()] = static_cast<char>(random() % 256);
    bytes.resize(random() % (bytes.size() + 1));
    Wire wire(server_->port());
    ASSERT_TRUE(wire.connected());
    wire.send(bytes);
  }
  Wire wire(server_->port());
  ASSERT_TRUE(wire.send(get("/agent/alive/score")));
  EXPECT_THAT(wire.response(), testing::EndsWith("alive"));
}

TEST_F(HttpTest, EndsRequestsThatDribble) {
  HttpOptions options;
  options.request_timeout_ms = 200;
  open(options);
  Wire wire(server_->port());
  auto begin = std::chrono::steady_clock::now();
  for (char c : get("/echo", "X-Long: " + std::string(200, 'a') + "\r\n")) {  // 12 s at this pace
    if (!wire.send({&c, 1})) break;
    if (std::chrono::steady_clock::now() - begin > 5s) break;
    std::this_thread::sleep_for(50ms);
  }
  EXPECT_TRUE(wire.closed());
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 5s);
  await_refused("timeout");
}

TEST_F(HttpTest, EndsIdleConnections) {
  HttpOptions options;
  options.idle_timeout_ms = 100;
  open(options);
  Wire silent(server_->port()), once(server_->port());
  ASSERT_TRUE(once.send(get("/agent/a/score")));
  EXPECT_THAT(once.response(), testing::Not(HasSubstr("Connection: close")));
  EXPECT_TRUE(once.closed());
  EXPECT_TRUE(silent.closed());
}

TEST_F(HttpTest, HoldsItsNumberOfConnectionsAndServesAllWhoWait) {
  HttpOptions options;
  options.max_connections = 4;
  options.idle_timeout_ms = 500;
  open(options);
  std::atomic<int> answered{0};
  std::vector<std::thread> clients;
  for (int i = 0; i < 40; ++i)
    clients.emplace_back([&, i] {
      Wire wire(server_->port());
      std::string id = std::to_string(i);
      if (wire.send(get("/agent/" + id + "/score")) && wire.response().ends_with("\r\n\r\n" + id)) ++answered;
    });
  for (auto& client : clients) client.join();
  EXPECT_EQ(answered, 40);
}

TEST_F(HttpTest, AnswersManyClientsAtOnce) {
  open();
  std::atomic<int> answered{0};
  std::vector<std::thread> clients;
  for (int c = 0; c < 16; ++c)
    clients.emplace_back([&, c] {
      Wire wire(server_->port());
      for (int i = 0; i < 100; ++i) {
        std::string id = std::to_string(c * 1000 + i);
        if (!wire.send(get("/agent/" + id + "/score"))) break;
        if (wire.response().ends_with("\r\n\r\n" + id)) ++answered;
      }
    });
  for (auto& client : clients) client.join();
  EXPECT_EQ(answered, 1600);
}

TEST_F(HttpTest, StopLetsRunningRequestsEndAndTakesNoMore) {
  open();
  uint16_t port = server_->port();
  Wire idle(port), busy(port);
  ASSERT_TRUE(idle.send(get("/agent/a/score")));
  idle.response();
  ASSERT_TRUE(busy.send(get("/slow")));
  while (running_ == 0) std::this_thread::sleep_for(1ms);
  auto begin = std::chrono::steady_clock::now();
  server_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
  std::string response = busy.response();
  EXPECT_THAT(response, testing::EndsWith("slept"));
  EXPECT_THAT(response, HasSubstr("Connection: close"));
  EXPECT_TRUE(idle.closed());
  EXPECT_FALSE(Wire(port).connected());
}

TEST_F(HttpTest, StopDoesNotWaitForAClientThatDoesNotRead) {
  HttpOptions options;
  options.stop_timeout_ms = 200;
  open(options);
  Wire wire(server_->port());
  ASSERT_TRUE(wire.send("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf"));
  std::this_thread::sleep_for(50ms);
  auto begin = std::chrono::steady_clock::now();
  server_->stop();
  EXPECT_LT(std::chrono::steady_clock::now() - begin, 2s);
}

TEST_F(HttpTest, RefusesAnAddressInUseAndOneThatIsNone) {
  open();
  auto second = HttpServer::open({.tcp_address = "127.0.0.1:" + std::to_string(server_->port())});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kRefused);
  for (const char* address : {"8050", "no.such.host.invalid:1", "127.0.0.1:seven"}) {
    auto bad = HttpServer::open({.tcp_address = address});
    ASSERT_FALSE(bad) << address;
    EXPECT_EQ(bad.error().code, Errc::kUsage);
    EXPECT_THAT(bad.error().message, HasSubstr(address));
  }
}

class UnixTest : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = testing::TempDir() + "assay_http_" + std::to_string(::getpid());
    std::filesystem::create_directories(dir_);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  static std::unique_ptr<HttpServer> serve(const std::string& path) {
    auto server = HttpServer::open({.unix_path = path});
    EXPECT_TRUE(server) << server.error().message;
    (*server)->route("GET", "/big", [](const HttpRequest&) {
      return HttpResponse{200, "text/plain", std::string(20 << 20, 'x'), {}};
    });
    (*server)->route("POST", "/echo", [](const HttpRequest& r) { return HttpResponse{200, "text/plain", r.body, {}}; });
    (*server)->route("GET", "/gone", [](const HttpRequest&) {
      return error_response(Error{Errc::kIncomplete, "partition 3 cannot be had"});
    });
    (*server)->start();
    return std::move(*server);
  }
  std::string dir_;
};

TEST_F(UnixTest, AsksTheProcessBehindTheSocket) {
  const std::string path = dir_ + "/assay.sock";
  auto server = serve(path);
  struct stat st;
  ASSERT_EQ(::lstat(path.c_str(), &st), 0);
  EXPECT_EQ(st.st_mode & 07777, 0600u);
  auto big = http_unix_get(path, "/big");
  ASSERT_TRUE(big) << big.error().message;
  EXPECT_EQ(big->body.size(), size_t{20} << 20);
  auto echo = http_unix_post(path, "/echo", "{\"a\":1}");
  ASSERT_TRUE(echo);
  EXPECT_EQ(echo->body, "{\"a\":1}");
  auto gone = http_unix_get(path, "/gone");
  ASSERT_TRUE(gone);
  EXPECT_EQ(gone->status, 503);
  EXPECT_EQ(error_of(*gone).code, Errc::kIncomplete);
  EXPECT_EQ(error_of(*gone).message, "partition 3 cannot be had");
  server->stop();
  EXPECT_FALSE(std::filesystem::exists(path));
  auto nobody = http_unix_get(path, "/big");
  ASSERT_FALSE(nobody);
  EXPECT_EQ(nobody.error().code, Errc::kUnreachable);
}

TEST_F(UnixTest, TakesPathsLongerThanTheKernelDoes) {
  std::string deep = dir_ + "/" + std::string(100, 'd') + "/" + std::string(100, 'e');
  std::filesystem::create_directories(deep);
  auto server = serve(deep + "/assay.sock");
  auto echo = http_unix_post(deep + "/assay.sock", "/echo", "far down");
  ASSERT_TRUE(echo) << echo.error().message;
  EXPECT_EQ(echo->body, "far down");
  server.reset();
  EXPECT_FALSE(std::filesystem::exists(deep + "/assay.sock"));
}

TEST_F(UnixTest, ReplacesADeadSocketAndRefusesALiveOneAndAFile) {
  const std::string path = dir_ + "/assay.sock";
  {
    int fd = ::socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof address.sun_path - 1);
    ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), sizeof address), 0);
    ::close(fd);  // as kill -9 leaves it
  }
  auto server = serve(path);
  EXPECT_TRUE(http_unix_post(path, "/echo", "x"));
  auto second = HttpServer::open({.unix_path = path});
  ASSERT_FALSE(second);
  EXPECT_EQ(second.error().code, Errc::kRefused);
  EXPECT_TRUE(http_unix_post(path, "/echo", "still there"));
  {
    std::FILE* file = std::fopen((dir_ + "/file").c_str(), "w");
    std::fclose(file);
  }
  auto over_file = HttpServer::open({.unix_path = dir_ + "/file"});
  ASSERT_FALSE(over_file);
  EXPECT_EQ(over_file.error().code, Errc::kRefused);
  EXPECT_TRUE(std::filesystem::exists(dir_ + "/file"));
}

TEST_F(UnixTest, SaysWhenWhatAnswersIsNotHttpAndWhenNothingAnswers) {
  int fd = ::socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof address;
  ASSERT_EQ(::bind(fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  ASSERT_EQ(::listen(fd, 4), 0);
  ::getsockname(fd, reinterpret_cast<sockaddr*>(&address), &size);
  std::string where = "127.0.0.1:" + std::to_string(ntohs(address.sin_port));
  auto silent = http_get(where, "/", 100);
  ASSERT_FALSE(silent);
  EXPECT_EQ(silent.error().code, Errc::kUnreachable);
  std::thread liar([fd] {
    for (int i = 0; i < 2; ++i) {  // the first is the one that gave up
      int client = ::accept(fd, nullptr, nullptr);
      char buffer[1000];
      (void)!::recv(client, buffer, sizeof buffer, 0);
      (void)!::send(client, "SSH-2.0-OpenSSH\r\n\r\n", 19, MSG_NOSIGNAL);
      ::close(client);
    }
  });
  auto lied = http_get(where, "/", 5000);
  liar.join();
  ::close(fd);
  ASSERT_FALSE(lied);
  EXPECT_EQ(lied.error().code, Errc::kCorrupt);
}

TEST(Operations, AreAnsweredByTheOwner) {
  auto server = HttpServer::open({.tcp_address = "127.0.0.1:0"});
  ASSERT_TRUE(server);
  std::atomic<bool> ready{false};
  OperationsEndpoints endpoints;
  endpoints.health = [] { return Json::object().set("status", "ok").set("kernelConfigured", false); };
  endpoints.ready = [&] { return Readiness{ready, Json::object().set("status", ready ? "ready" : "starting")}; };
  endpoints.metrics = [] { return std::string("a_total 1\n"); };
  endpoints.status_page = "<!doctype html>";
  route_operations(**server, std::move(endpoints));
  (*server)->start();
  std::string where = "127.0.0.1:" + std::to_string((*server)->port());
  EXPECT_EQ(http_get(where, "/health")->body, "{\"kernelConfigured\":false,\"status\":\"ok\"}\n");
  EXPECT_EQ(http_get(where, "/ready")->status, 503);
  ready = true;
  EXPECT_EQ(http_get(where, "/ready")->status, 200);
  auto metrics = http_get(where, "/metrics");
  EXPECT_EQ(metrics->body, "a_total 1\n");
  EXPECT_EQ(metrics->content_type, "text/plain; version=0.0.4; charset=utf-8");
  auto page = http_get(where, "/?x=1");
  EXPECT_EQ(page->body, "<!doctype html>");
  EXPECT_THAT(page->headers, testing::Contains(testing::Pair("Content-Security-Policy", HasSubstr("default-src 'none'"))));
}

TEST(ErrorEnvelope, CarriesEveryErrorThereAndBack) {
  for (int i = 0; i <= static_cast<int>(Errc::kOutOfRange); ++i) {
    Error error{static_cast<Errc>(i), "read shard 7: \"gone\""};
    HttpResponse response = error_response(error);
    EXPECT_GE(response.status, 400);
    EXPECT_EQ(error_of(response).code, error.code) << i;
    EXPECT_EQ(error_of(response).message, error.message);
  }
  EXPECT_EQ(error_of({502, "text/html", "<h1>", {}}).code, Errc::kUnexpected);
}

TEST(ParseTarget, DecodesOnceAndRefusesWhatIsBroken) {
  auto target = parse_target("/a%252F/b?c=%2541&&d&e=f=g#h");
  ASSERT_TRUE(target);
  EXPECT_EQ(target->segments, (std::vector<std::string>{"a%2F", "b"}));
  EXPECT_EQ(target->query, (HttpFields{{"c", "%41"}, {"d", ""}, {"e", "f=g"}}));
  for (const char* bad : {"", "a", "*", "http://x/", "/%", "/%4", "/%4g", "/?%", "/%00", "/%c0%af"})
    EXPECT_FALSE(parse_target(bad)) << bad;
}

}  // namespace
}  // namespace assay::streams
