#include "streams/peers.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <future>
#include <set>
#include <thread>

#include "schemas/json_parse.h"

namespace assay::streams {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::string_view kClientPrefix = "assay@";
constexpr int64_t kSignatureMs = 60000;  // clocks of a group may differ by less than this
constexpr std::string_view kMacHeader = "assay-mac";

/// In a time that does not depend on where they differ.
bool same(std::string_view a, std::string_view b) {
  unsigned char differs = a.size() != b.size();
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) differs |= static_cast<unsigned char>(a[i] ^ b[i]);
  return differs == 0;
}

/// The MAC of an answer covers the question, so that no answer serves for another.
std::string answer_mac(std::string_view secret, std::string_view target, std::string_view body) {
  return hmac_sha256(secret, std::string(target) + "\n" + std::string(body));
}

}  // namespace

std::string peer_client_id(std::string_view address) {
  return address.empty() ? std::string("assay") : std::string(kClientPrefix) + std::string(address);
}

std::optional<std::string> peer_address(std::string_view client_id) {
  if (!client_id.starts_with(kClientPrefix) || client_id.size() == kClientPrefix.size()) return std::nullopt;
  return std::string(client_id.substr(kClientPrefix.size()));
}

std::string hmac_sha256(std::string_view key, std::string_view text) {
  constexpr size_t kBlock = 64;
  std::string block(key.size() > kBlock ? std::string(as_bytes(sha256(key))) : std::string(key));
  block.resize(kBlock, '\0');
  std::string inner = block, outer = block;
  for (char& c : inner) c = static_cast<char>(c ^ 0x36);
  for (char& c : outer) c = static_cast<char>(c ^ 0x5c);
  const Sha256Digest first = sha256(inner, text);
  return to_hex(as_bytes(sha256(outer, as_bytes(first))));
}

std::string sign_target(std::string_view secret, std::string_view target, WallTime now) {
  std::string out(target);
  if (secret.empty()) return out;
  out += (out.find('?') == std::string::npos ? "?until=" : "&until=") + std::to_string(now.value + kSignatureMs);
  return out + "&mac=" + hmac_sha256(secret, out);
}

bool is_signed(std::string_view secret, std::string_view target, WallTime now) {
  const size_t mac = target.rfind("&mac=");
  if (mac == std::string_view::npos) return false;
  const std::string_view text = target.substr(0, mac);
  if (!same(target.substr(mac + 5), hmac_sha256(secret, text))) return false;
  const size_t word = text.rfind("until=");
  if (word == std::string_view::npos) return false;
  int64_t until = 0;
  const auto [end, error] = std::from_chars(text.data() + word + 6, text.data() + text.size(), until);
  return error == std::errc() && end == text.data() + text.size() && now.value <= until && until <= now.value + 2 * kSignatureMs;
}

std::string http_target(std::string_view path, const QueryParams& params) {
  auto encode = [](std::string_view text) {
    static constexpr char kDigits[] = "0123456789ABCDEF";
    std::string out;
    for (const char c : text) {
      if ((c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '.' || c == '_' ||
          c == '~') {
        out.push_back(c);
      } else {
        out.push_back('%');
        out.push_back(kDigits[static_cast<unsigned char>(c) >> 4]);
        out.push_back(kDigits[static_cast<unsigned char>(c) & 15]);
      }
    }
    return out;
  };
  std::string out(path);
  char separator = '?';
  for (const auto& [key, value] : params) {
    out += separator + encode(key) + "=" + encode(value);
    separator = '&';
  }
  return out;
}

/// One task of a question on its way to its part.
struct Peers::Asked {
  TaskSpec spec;
  int64_t committed = 0;  // sequence of its last manifest when the question came
  std::optional<Json> part;
  std::optional<Error> failed;         // asking again would not help
  std::string why = "nobody runs it";  // what came back last
  bool hopeless = false;               // nobody is there who could come to have it
};

Peers::Peers(Log& log, TopicNames names, LocalTasks local, PeerOptions options)
    : log_(log), names_(std::move(names)), local_(std::move(local)), options_(std::move(options)), plans_(topology(names_, {})) {}

Result<void> Peers::read_marks(std::vector<Asked>& asked) const {
  for (const ProcessorPlan& plan : plans_) {
    std::vector<TopicPartition> inputs;
    for (const Asked& a : asked)
      if (a.spec.processor == plan.name)
        for (auto [topic, partition] : a.spec.inputs) inputs.push_back({names_.full(topic), partition});
    if (inputs.empty()) continue;
    TRY_ASSIGN(auto committed, log_.committed(plan.group, inputs));
    for (Asked& a : asked) {
      if (a.spec.processor != plan.name) continue;
      for (auto [topic, partition] : a.spec.inputs) {
        const auto commit = committed.find({names_.full(topic), partition});
        if (commit == committed.end()) continue;
        TRY_ASSIGN(CommitMark mark, CommitMark::decode(commit->second.metadata));
        a.committed = std::max(a.committed, mark.sequence);
      }
    }
  }
  return {};
}

void Peers::take_local(Asked& asked, const Question& question) const {
  auto local = local_(asked.spec.name);
  if (!local) {
    asked.why = local.error().message;
    return;
  }
  if (!*local) return;
  auto meta = read_meta(*(*local)->rows);
  if (!meta) {
    asked.failed = meta.error();
    return;
  }
  if (!may_speak((*local)->running, meta->sequence, asked.committed)) {
    asked.why =
        "here it stands at manifest " + std::to_string(meta->sequence) + ", committed is " + std::to_string(asked.committed);
    return;
  }
  auto part = part_of({asked.spec, *(*local)->rows, log_, names_}, question);
  if (part)
    asked.part = std::move(*part);
  else
    asked.failed = part.error();
}

Result<Json> Peers::call(const std::string& address, const std::string& target, Milliseconds timeout) const {
  const std::string asked = sign_target(options_.secret, target, options_.now());
  // On a thread of its own, which is left behind when the process is to end: a frozen peer answers when it likes.
  auto answer = std::make_shared<std::promise<Result<HttpResponse>>>();
  auto answered = answer->get_future();
  std::thread([answer, address, asked, timeout] { answer->set_value(http_get(address, asked, timeout.count())); }).detach();
  while (answered.wait_for(Milliseconds(50)) != std::future_status::ready)
    if (stopping()) return Error{Errc::kUnreachable, "asking " + address + ": this process is to end"};
  TRY_ASSIGN(HttpResponse response, answered.get());
  if (!options_.secret.empty()) {
    const auto mac = std::ranges::find_if(response.headers, [](const auto& h) {
      return std::ranges::equal(h.first, kMacHeader, {},
                                [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    });
    if (mac == response.headers.end() || !same(mac->second, answer_mac(options_.secret, asked, response.body)))
      return Error{Errc::kRefused, "asking " + address + ": its answer has not the MAC of peers.secret (status " +
                                       std::to_string(response.status) + ")"};
  }
  if (response.status / 100 != 2) return error_of(response);
  return parse_json(response.body);
}

/// Looks for the owners among the members of the groups, and asks each for all that it owns of what is missing.
void Peers::take_remote(std::vector<Asked*>& missing, const Question& question) const {
  std::set<std::string> addresses;
  for (const ProcessorPlan& plan : plans_) {
    if (std::ranges::none_of(missing, [&](const Asked* a) { return a->spec.processor == plan.name; })) continue;
    auto view = log_.members(plan.group);
    for (Asked* a : missing) {
      if (a->spec.processor != plan.name) continue;
      if (!view) {
        a->why = view.error().message;
        continue;
      }
      a->hopeless = view->settled && view->members.empty();
      if (!view->settled) a->why = "the group " + plan.group + " is changing";
      const int32_t partition = plan.single_task ? 0 : a->spec.inputs.front().second;
      for (const GroupMember& member : view->members)
        for (const TopicPartition& tp : member.partitions)
          if (tp.partition == partition) a->why = "its owner " + member.client_id + " gives no current answer";
    }
    if (!view) continue;
    for (const GroupMember& member : view->members)
      if (auto address = peer_address(member.client_id); address && member.client_id != options_.client_id)
        addresses.insert(*address);
  }

  struct Claim {
    int64_t sequence = 0;
    bool running = false;
  };
  std::vector<std::pair<std::string, std::future<Result<Json>>>> probes;
  for (const std::string& address : addresses)
    probes.emplace_back(address,
                        std::async(std::launch::async, [this, address] { return call(address, "/peer/tasks", options_.probe); }));
  std::map<std::string, std::pair<std::string, Claim>> best;  // task -> who should be asked
  for (auto& [address, probe] : probes) {
    auto said = probe.get();
    for (Asked* a : missing) {
      if (!said) {
        if (a->why.find(address) != std::string::npos)
          a->why = "its owner " + peer_client_id(address) + ": " + said.error().message;
        continue;
      }
      const Json* tasks = said->find("tasks");
      const Json* claimed = tasks ? tasks->find(a->spec.name) : nullptr;
      if (claimed == nullptr) continue;
      const Claim claim{static_cast<int64_t>(claimed->number_or("sequence", 0)), claimed->bool_or("running", false)};
      if (!may_speak(claim.running, claim.sequence, a->committed)) {
        a->why = peer_client_id(address) + " stands at manifest " + std::to_string(claim.sequence) + ", committed is " +
                 std::to_string(a->committed);
        continue;
      }
      // Two that claim it: one of them does not know yet that it lost it. Both know all that was committed when we were asked.
      auto [place, fresh] = best.try_emplace(a->spec.name, address, claim);
      if (!fresh && claim.sequence > place->second.second.sequence) place->second = {address, claim};
    }
  }

  std::map<std::string, std::vector<Asked*>> by_address;
  for (Asked* a : missing)
    if (auto place = best.find(a->spec.name); place != best.end()) by_address[place->second.first].push_back(a);
  std::vector<std::pair<std::string, std::future<Result<Json>>>> calls;
  for (const auto& [address, tasks] : by_address) {
    QueryParams params = question.params;
    for (const Asked* a : tasks) params.emplace_back("task", a->spec.name);
    const std::string target = http_target("/peer/parts/" + question.name, params);
    calls.emplace_back(
        address, std::async(std::launch::async, [this, address, target] { return call(address, target, options_.question); }));
  }
  for (auto& [address, pending] : calls) {
    auto said = pending.get();
    for (Asked* a : by_address[address]) {
      if (!said) {
        a->why = "its owner " + peer_client_id(address) + ": " + said.error().message;
        if (said.error().code == Errc::kUsage) a->failed = said.error();
        continue;
      }
      const Json* tasks = said->find("tasks");
      const Json* given = tasks ? tasks->find(a->spec.name) : nullptr;
      const Json* part = given ? given->find("part") : nullptr;
      if (part != nullptr &&
          may_speak(given->bool_or("running", false), static_cast<int64_t>(given->number_or("sequence", 0)), a->committed)) {
        a->part = *part;
      } else if (const Json* failed = given ? given->find("error") : nullptr) {
        a->why = peer_client_id(address) + ": " + std::string(failed->string_or("message", ""));
        const auto code = static_cast<int>(failed->number_or("code", 0));
        a->failed = Error{code > 0 && code <= static_cast<int>(Errc::kOutOfRange) ? static_cast<Errc>(code) : Errc::kUnexpected,
                          std::string(failed->string_or("message", ""))};
      } else {
        a->why = peer_client_id(address) + " gave it away meanwhile";
      }
    }
  }
}

Result<std::vector<Json>> Peers::gather(const std::vector<std::string>& tasks, const Question& question) const {
  std::vector<Asked> asked;
  for (const std::string& task : tasks) {
    TRY_ASSIGN(TaskSpec spec, find_task(plans_, names_, task));
    asked.push_back({.spec = std::move(spec), .committed = 0, .part = {}, .failed = {}});
  }
  const auto until = Clock::now() + options_.patience;
  TRY(read_marks(asked));
  for (Milliseconds pause(25);; pause = std::min(pause * 2, Milliseconds(400))) {
    std::vector<Asked*> missing;
    for (Asked& a : asked) {
      if (!a.part && !a.failed) take_local(a, question);
      if (!a.part && !a.failed) missing.push_back(&a);
    }
    if (!missing.empty()) take_remote(missing, question);
    std::erase_if(missing, [](const Asked* a) { return a->part.has_value() || a->failed.has_value(); });
    for (const Asked& a : asked)
      if (a.failed) return *a.failed;
    if (missing.empty()) break;
    const bool hopeless = !options_.live && std::ranges::any_of(missing, [](const Asked* a) { return a->hopeless; });
    if (hopeless || stopping() || Clock::now() >= until)
      return Error{Errc::kIncomplete, "the state of " + missing.front()->spec.name + " cannot be had: " + missing.front()->why};
    std::this_thread::sleep_for(pause);
  }
  std::vector<Json> parts;
  for (Asked& a : asked) parts.push_back(std::move(*a.part));
  return parts;
}

HttpResponse Peers::reply(const HttpRequest& request, const std::function<Json()>& make) const {
  if (options_.secret.empty()) return json_response(make());
  if (!is_signed(options_.secret, request.target, options_.now()))
    return error_response(403, "FORBIDDEN", "the question has not the MAC of peers.secret, or clocks differ by more than a minute");
  HttpResponse response = json_response(make());
  response.headers.emplace_back(kMacHeader, answer_mac(options_.secret, request.target, response.body));
  return response;
}

void Peers::serve(HttpServer& server) const {
  /// Answers in process, by the task's name; what is not here is left out.
  auto each = [this](const std::vector<std::string>& tasks,
                     const std::function<void(const TaskSpec&, const LocalTask&, Json&)>& more) {
    Json out = Json::object();
    for (const std::string& task : tasks) {
      auto spec = find_task(plans_, names_, task);
      auto local = local_(task);
      if (!spec || !local || !*local) continue;
      auto meta = read_meta(*(*local)->rows);
      if (!meta) continue;
      Json row = Json::object().set("sequence", meta->sequence).set("running", (*local)->running);
      more(*spec, **local, row);
      out.set(task, std::move(row));
    }
    return Json::object().set("tasks", std::move(out));
  };
  server.route("GET", "/peer/tasks", [this, each](const HttpRequest& request) {
    std::vector<std::string> all;
    for (const ProcessorPlan& plan : plans_)
      for (int32_t p = 0; p < plan.task_count(names_); ++p) all.push_back(plan.task(p).name);
    return reply(request, [&] { return each(all, [](const TaskSpec&, const LocalTask&, Json&) {}); });
  });
  server.route("GET", "/peer/parts/{name}", [this, each](const HttpRequest& request) {
    return reply(request, [&] {
      const Question question{std::string(request.param("name")), request.query};
      std::vector<std::string> tasks;
      for (const auto& [key, value] : request.query)
        if (key == "task") tasks.push_back(value);
      return each(tasks, [&](const TaskSpec& spec, const LocalTask& local, Json& row) {
        auto part = part_of({spec, *local.rows, log_, names_}, question);
        if (part)
          row.set("part", std::move(*part));
        else
          row.set("error", Json::object().set("code", static_cast<int>(part.error().code)).set("message", part.error().message));
      });
    });
  });
}

}  // namespace assay::streams
