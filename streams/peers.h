// Asking the other processes of a group for the tasks that they own, so that any of them answers for all partitions.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "streams/http_server.h"
#include "streams/queries.h"

namespace assay::streams {

/// A process is found by the client id of its memberships, which its groups' coordinator knows: "assay@HOST:PORT".
std::string peer_client_id(std::string_view address);  // "assay" for none
std::optional<std::string> peer_address(std::string_view client_id);

/// HMAC-SHA256 (RFC 2104), hex.
std::string hmac_sha256(std::string_view key, std::string_view text);
/// The target with the end of its validity and a MAC over both; unchanged without a secret.
std::string sign_target(std::string_view secret, std::string_view target, WallTime now);
/// Whether the target was signed with this secret and still holds. Pure.
bool is_signed(std::string_view secret, std::string_view target, WallTime now);

/// A task's rows in this process, and whether it is the task's live owner or only has its store.
struct LocalTask {
  std::shared_ptr<const state::Reader> rows;  // a snapshot
  bool running = false;
};
/// Nothing: not here. Errors: why what should be here cannot be read.
using LocalTasks = std::function<Result<std::optional<LocalTask>>(const std::string& task)>;

/// A store may speak for its task when nothing is committed that it does not know. Only a live owner's may know more: its commit
/// was acknowledged after the mark was read.
constexpr bool may_speak(bool running, int64_t sequence, int64_t committed) {
  return running ? sequence >= committed : sequence == committed;
}

struct PeerOptions {
  std::string client_id;                        // of this process; it does not ask itself
  bool live = false;                            // behaviour: tasks of this process may come up while a question waits
  std::string secret;                           // behaviour: shared by the group; empty: none
  Milliseconds patience{6000};                  // behaviour: a part that nobody gives for so long cannot be had
  Milliseconds probe{2000};                     // behaviour: a process that does not say for so long what it owns is frozen
  Milliseconds question{50000};                 // behaviour: of one question to a live process
  std::function<WallTime()> now;                // for MACs
  const std::atomic<bool>* stopping = nullptr;  // set when the process is to end: nobody is waited for then
};

class Peers {
 public:
  Peers(Log& log, TopicNames names, LocalTasks local, PeerOptions options);

  /// One part for each of the tasks, each at least as new as what was committed when the question came: from here, or from the
  /// process that owns the task. Whose owner changes meanwhile is asked for again.
  /// Errors: kIncomplete naming the task, its owner and what came back; kUnreachable (the log); those of the parts.
  Result<std::vector<Json>> gather(const std::vector<std::string>& tasks, const Question& question) const;
  Parts parts() const {
    return [this](const auto& tasks, const auto& question) { return gather(tasks, question); };
  }

  /// Answers the other processes: what is owned here, and parts of it. Requires: before start().
  void serve(HttpServer& server) const;

 private:
  struct Asked;
  Result<void> read_marks(std::vector<Asked>& asked) const;
  void take_local(Asked& asked, const Question& question) const;
  void take_remote(std::vector<Asked*>& missing, const Question& question) const;
  Result<Json> call(const std::string& address, const std::string& target, Milliseconds timeout) const;
  bool stopping() const { return options_.stopping != nullptr && *options_.stopping; }
  HttpResponse reply(const HttpRequest& request, const std::function<Json()>& make) const;

  Log& log_;
  TopicNames names_;
  LocalTasks local_;
  PeerOptions options_;
  std::vector<ProcessorPlan> plans_;
};

/// A target of path and parameters, percent-encoded.
std::string http_target(std::string_view path, const QueryParams& params);

}  // namespace assay::streams
