#include "tools/net_probe.h"

#include <netdb.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>

namespace assay::tools {
namespace {

constexpr char kSslRequest[] = "\x00\x00\x00\x08\x04\xd2\x16\x2f";  // length 8, request code 80877103

/// A file descriptor that closes itself.
class Socket {
 public:
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() {
    if (fd_ >= 0) close(fd_);
  }
  Socket(const Socket&) = delete;
  int fd() const { return fd_; }

 private:
  int fd_;
};

bool wait_for(int fd, short events, int timeout_ms) {
  pollfd waiting{fd, events, 0};
  return poll(&waiting, 1, timeout_ms) == 1;
}

Result<void> ask(int fd, const std::string& where, int timeout_ms) {
  auto failed = [&](const std::string& step) { return Error{Errc::kUnreachable, "PostgreSQL at " + where + ": " + step}; };
  if (!wait_for(fd, POLLOUT, timeout_ms)) return failed("no connection within " + std::to_string(timeout_ms) + " ms");
  int error = 0;
  socklen_t size = sizeof error;
  getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &size);
  if (error != 0) return failed(std::strerror(error));
  if (send(fd, kSslRequest, 8, MSG_NOSIGNAL) != 8) return failed(std::string("send: ") + std::strerror(errno));
  char answer = 0;
  if (!wait_for(fd, POLLIN, timeout_ms)) return failed("it does not answer");
  const ssize_t got = recv(fd, &answer, 1, 0);
  if (got != 1) return failed("it closed the connection");
  if (answer != 'S' && answer != 'N' && answer != 'E') return failed("what answers there is no PostgreSQL");
  return {};
}

Result<void> probe_unix(const HostPort& address, int timeout_ms) {
  sockaddr_un local{};
  local.sun_family = AF_UNIX;
  const std::string path = address.host + "/.s.PGSQL." + address.port;
  if (path.size() >= sizeof local.sun_path)
    return Error{Errc::kUsage, "PostgreSQL at " + path + ": the path is too long for a socket"};
  std::memcpy(local.sun_path, path.data(), path.size());
  Socket socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
  if (connect(socket.fd(), reinterpret_cast<sockaddr*>(&local), sizeof local) != 0)
    return Error{Errc::kUnreachable, "PostgreSQL at " + path + ": " + std::strerror(errno)};
  return ask(socket.fd(), path, timeout_ms);
}

std::string word_after(std::string_view text, std::string_view name) {
  const size_t at = text.find(name);
  if (at == std::string_view::npos || (at > 0 && text[at - 1] != ' ')) return "";
  text.remove_prefix(at + name.size());
  return std::string(text.substr(0, text.find(' ')));
}

}  // namespace

HostPort database_address(std::string_view url) {
  HostPort address{"localhost", "5432"};
  const size_t scheme = url.find("://");
  if (scheme == std::string_view::npos) {
    if (std::string host = word_after(url, "host="); !host.empty()) address.host = host;
    if (std::string port = word_after(url, "port="); !port.empty()) address.port = port;
    return address;
  }
  const std::string_view whole = url.substr(scheme + 3);
  std::string_view authority = whole.substr(0, whole.find_first_of("/?"));
  if (const size_t at = authority.rfind('@'); at != std::string_view::npos) authority.remove_prefix(at + 1);
  const size_t bracket = authority.rfind(']'), colon = authority.rfind(':');
  if (colon != std::string_view::npos && (bracket == std::string_view::npos || colon > bracket)) {
    address.port = authority.substr(colon + 1);
    authority = authority.substr(0, colon);
  }
  if (authority.starts_with('[') && authority.ends_with(']')) authority = authority.substr(1, authority.size() - 2);
  if (!authority.empty()) address.host = authority;
  // A socket's directory stands in the query: postgresql:///name?host=/run/postgresql
  if (const size_t query = whole.find('?'); query != std::string_view::npos)
    for (std::string_view rest = whole.substr(query + 1); !rest.empty();) {
      const std::string_view part = rest.substr(0, rest.find('&'));
      if (part.starts_with("host=")) address.host = part.substr(5);
      if (part.starts_with("port=")) address.port = part.substr(5);
      rest.remove_prefix(std::min(part.size() + 1, rest.size()));
    }
  return address;
}

Result<void> probe_postgres(const HostPort& address, int timeout_ms) {
  if (address.host.starts_with('/')) return probe_unix(address, timeout_ms);
  const std::string where = address.host + ":" + address.port;
  addrinfo hints{}, *list = nullptr;
  hints.ai_socktype = SOCK_STREAM;
  if (const int code = getaddrinfo(address.host.c_str(), address.port.c_str(), &hints, &list); code != 0)
    return Error{Errc::kUnreachable, "PostgreSQL at " + where + ": " + gai_strerror(code)};
  const std::unique_ptr<addrinfo, decltype(&freeaddrinfo)> owned(list, freeaddrinfo);
  Result<void> last = Error{Errc::kUnreachable, "PostgreSQL at " + where + ": no address"};
  for (const addrinfo* one = list; one != nullptr; one = one->ai_next) {
    Socket socket(::socket(one->ai_family, one->ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, one->ai_protocol));
    if (connect(socket.fd(), one->ai_addr, one->ai_addrlen) != 0 && errno != EINPROGRESS) {
      last = Error{Errc::kUnreachable, "PostgreSQL at " + where + ": " + std::strerror(errno)};
      continue;
    }
    last = ask(socket.fd(), where, timeout_ms);
    if (last) return last;
  }
  return last;
}

}  // namespace assay::tools
