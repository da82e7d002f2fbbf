#include "replay/scenario.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "processors/allocation.h"
#include "processors/intake.h"
#include "replay/course.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"

namespace assay::replay {
namespace {

constexpr int64_t kRecordsMax = 1'000'000;
constexpr size_t kAround = 2;  // lines shown beside a difference

std::string_view trimmed(std::string_view text) {
  while (!text.empty() && (text.back() == ' ' || text.back() == '\r' || text.back() == '\t')) text.remove_suffix(1);
  while (!text.empty() && (text.front() == ' ' || text.front() == '\t')) text.remove_prefix(1);
  return text;
}

/// Takes the next word off the front.
std::string_view word(std::string_view& rest) {
  rest = trimmed(rest);
  const std::string_view out = rest.substr(0, rest.find_first_of(" \t"));
  rest = trimmed(rest.substr(out.size()));
  return out;
}

bool is_dashes(std::string_view line) { return line.size() >= 3 && line.find_first_not_of('-') == std::string_view::npos; }
bool says_nothing(std::string_view line) { return line.empty() || line.front() == '#'; }

std::string number(const Json* value) { return value == nullptr || value->is_null() ? "none" : canonical(*value); }

/// The pipeline of one partition, and what it prints.
class Player {
 public:
  Player(const Rules& rules, bool crash_each) : rules_(rules), crash_each_(crash_each), stages_(streams::TopicNames("", 1)) {}

  Rules& rules() { return rules_; }
  void show(std::set<std::string, std::less<>> what) { show_ = std::move(what); }

  void follow() {
    stages_.scoring.follow(rules_);
    stages_.promotion.follow(rules_);
    for (const processors::Output& made : stages_.allocation.follow(rules_)) print(made);
    settle();
  }

  void record(std::string_view key, bool keyed, std::string_view value, int64_t record_ms) {
    if (!followed_) follow();
    followed_ = true;
    RecordView record;
    record.offset = next_;
    next_ = next_ + 1;
    record.timestamp = WallTime(record_ms);
    if (keyed) record.key = key;
    record.value = value;
    // Copies: a stage's outputs last until it folds again, and a crash takes them with it.
    std::vector<processors::Output> scores;
    for (const processors::Output& made : stages_.scoring.fold(Topic::kReports, 0, record))
      if (made.topic == Topic::kScores) scores.push_back(made);
    refused(stages_.scoring.last(), keyed ? key : "-");
    for (const processors::Output& score : scores) {
      print(score);
      std::vector<processors::Output> decided;
      for (const processors::Output& made : stages_.promotion.fold(score, 0, record.timestamp))
        if (made.topic == Topic::kPromotions) decided.push_back(made);
      for (const processors::Output& promotion : decided) {
        print(promotion);
        for (const processors::Output& made : stages_.allocation.fold(promotion, 0, record.timestamp)) print(made);
      }
    }
    settle();
  }

  Result<std::vector<std::string>> end() {
    if (!followed_) follow();
    if (show_.contains("pools")) {
      stages_.allocation.commit();
      TRY_ASSIGN(const Json pools, processors::pools_json(stages_.allocation.state()));
      for (const Json& pool : pools.as_array()) {
        std::string line = "pool " + std::string(pool.string_or("pool", ""));
        for (const char* member : {"capacity", "used", "reserved", "waiting"})
          line += std::string(" ") + member + "=" + number(pool.find(member));
        for (const Json& quota : pool.find("quotas")->as_array())
          line += " " + std::string(quota.string_or("divisionId", "")) + "=" + number(quota.find("used")) + "/" +
                  number(quota.find("quota"));
        lines_.push_back(std::move(line));
      }
    }
    return std::move(lines_);
  }

 private:
  void settle() {
    if (!crash_each_) return;
    for (Stage* stage : {&stages_.scoring, &stages_.promotion, &stages_.allocation}) {
      stage->commit();
      stage->crash();
    }
  }

  void refused(const processors::Outputs& outputs, std::string_view key) {
    if (!show_.contains("refused")) return;
    for (size_t r = 0; r < kReasonCount; ++r)
      if (const auto reason = static_cast<Reason>(r); outputs.tally.refused[r] > 0 && is_filtered(reason))
        lines_.push_back("filtered " + std::string(key) + " " + std::string(reason_code(reason)));
    for (const processors::DeadLetter& letter : outputs.dead_letters)
      lines_.push_back("dead letter " + std::string(key) + " " + std::string(reason_code(letter.reason)) + ": " + letter.detail);
  }

  void print(const processors::Output& made) {
    const bool score = made.topic == Topic::kScores;
    if (!score && made.topic != Topic::kPromotions && made.topic != Topic::kAllocations) return;
    if (!show_.contains(score ? "scores" : "decisions")) return;
    const auto parsed = parse_json(made.value);
    CHECK(parsed.has_value());
    const Json& v = *parsed;
    std::string line(v.string_or(score ? "windowEnd" : "ts", ""));
    if (score) {
      line += " score " + std::string(v.string_or("agentId", "")) + " " + std::string(v.string_or("window", ""));
      for (const char* member : {"score", "lower", "upper", "samples"})
        line += std::string(" ") + member + "=" + number(v.find(member));
    } else if (made.topic == Topic::kPromotions) {
      line += " " + std::string(v.string_or("action", "")) + " " + std::string(v.string_or("entityId", ""));
      if (const Json* evidence = v.find("evidence"); evidence != nullptr && evidence->find("stoppedBy") != nullptr)
        line += " wanted=" + std::string(evidence->string_or("wanted", "")) +
                " stoppedBy=" + std::string(evidence->string_or("stoppedBy", ""));
      line += " score=" + number(v.find("score")) + " confidence=" + number(v.find("confidence"));
    } else {
      line += " " + std::string(v.string_or("state", "")) + " " + std::string(v.string_or("entityId", "")) +
              " pool=" + std::string(v.string_or("pool", "")) + ": " + std::string(v.string_or("reason", ""));
    }
    lines_.push_back(std::move(line));
  }

  Rules rules_;
  bool crash_each_;
  Stages stages_;
  std::set<std::string, std::less<>> show_ = {"decisions", "refused"};
  std::vector<std::string> lines_;
  bool followed_ = false;
  Offset next_;
};

/// Reads the inputs line by line.
class Script {
 public:
  Script(Player& player, const LayOver& lay_over) : player_(player), lay_over_(lay_over) {}

  Result<void> line(std::string_view text, int at) {
    at_ = at;
    text = trimmed(text);
    if (says_nothing(text)) return {};
    std::string_view rest = text;
    const std::string_view verb = word(rest);
    if (verb == "config") {
      config_ += std::string(rest) + "\n";
      if (config_at_ == 0) config_at_ = at;
      return {};
    }
    TRY(configure());
    if (verb == "show") return show(rest);
    if (verb == "at") return one(rest);
    if (verb == "every") return many(rest);
    if (verb == "raw") return raw(rest);
    return wrong(quoted(verb) + " is none of config, show, at, every, raw");
  }
  Result<void> configure() {
    if (config_.empty()) return {};
    auto laid = lay_over_(config_, player_.rules());
    if (!laid) return Error{Errc::kUsage, "line " + std::to_string(config_at_) + ": " + laid.error().message};
    config_.clear();
    config_at_ = 0;
    if (count_ > 0) player_.follow();
    return {};
  }

 private:
  static std::string quoted(std::string_view text) { return "\"" + std::string(text) + "\""; }
  Error wrong(const std::string& what) const { return {Errc::kUsage, "line " + std::to_string(at_) + ": " + what}; }

  Result<int64_t> time(std::string_view text) const {
    if (auto ms = parse_rfc3339_ms(text)) return *ms;
    return wrong(quoted(text) + " is no time like 2026-01-05T12:00:00Z");
  }

  Result<void> show(std::string_view rest) {
    std::set<std::string, std::less<>> what;
    while (!rest.empty()) {
      const std::string_view one = word(rest);
      if (one != "scores" && one != "decisions" && one != "refused" && one != "pools")
        return wrong("show " + quoted(one) + ": want scores, decisions, refused, pools");
      what.emplace(one);
    }
    player_.show(std::move(what));
    return {};
  }

  Result<void> one(std::string_view rest) {
    TRY_ASSIGN(const int64_t ms, time(word(rest)));
    return report(ms, rest);
  }

  Result<void> many(std::string_view rest) {
    const std::string_view step = word(rest), from_word = word(rest);
    const auto step_ms = parse_duration_ms(step);
    if (!step_ms || *step_ms <= 0) return wrong(quoted(step) + " is no duration like 15m");
    TRY_ASSIGN(const int64_t from, time(word(rest)));
    const std::string_view to_word = word(rest);
    TRY_ASSIGN(const int64_t to, time(word(rest)));
    if (from_word != "from" || to_word != "to") return wrong("want: every STEP from TIME to TIME AGENT METRIC=VALUE…");
    for (int64_t ms = from; ms < to; ms += *step_ms) TRY(report(ms, rest));
    return {};
  }

  Result<void> report(int64_t ms, std::string_view rest) {
    const std::string agent(word(rest));
    if (agent.empty()) return wrong("a report needs an agent");
    Json metrics = Json::object(), document = Json::object();
    document.set("agentId", agent).set("timestamp", format_rfc3339_ms(ms));
    int64_t arrived = ms;
    while (!rest.empty()) {
      const std::string_view part = word(rest);
      const size_t cut = part.find_first_of("=:");
      if (cut == std::string_view::npos || cut == 0)
        return wrong(quoted(part) + " is neither METRIC=VALUE nor id:, division:, arrived:");
      const std::string_view name = part.substr(0, cut), value = part.substr(cut + 1);
      if (part[cut] == '=') {
        double v = 0;
        auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), v);
        if (error != std::errc() || end != value.data() + value.size() || !(v - v == 0))
          return wrong(quoted(part) + ": the value is no number");
        metrics.set(name, v);
      } else if (name == "id") {
        document.set("id", value);
      } else if (name == "division") {
        document.set("divisionId", value);
      } else if (name == "arrived") {
        TRY_ASSIGN(arrived, time(value));
      } else {
        return wrong(quoted(part) + " is neither METRIC=VALUE nor id:, division:, arrived:");
      }
    }
    document.set("metricSet", std::move(metrics));
    if (++count_ > kRecordsMax) return wrong("more than " + std::to_string(kRecordsMax) + " records");
    player_.record(agent, true, canonical(document), arrived);
    return {};
  }

  Result<void> raw(std::string_view rest) {
    TRY_ASSIGN(const int64_t ms, time(word(rest)));
    const std::string_view key = word(rest);
    if (key.empty()) return wrong("want: raw TIME KEY VALUE, KEY - for none");
    ++count_;
    player_.record(key, key != "-", rest, ms);
    return {};
  }

  Player& player_;
  const LayOver& lay_over_;
  std::string config_;
  int config_at_ = 0, at_ = 0;
  int64_t count_ = 0;
};

template <class Each>
Result<void> each_line(std::string_view text, const Each& each) {
  int at = 0;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    TRY(each(text.substr(0, end), ++at));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  return {};
}

}  // namespace

Result<Scenario> read_scenario(std::string_view text) {
  Scenario out;
  bool dashes = false;
  TRY(each_line(text, [&](std::string_view line, int) -> Result<void> {
    const std::string_view plain = trimmed(line);
    if (!dashes) {
      out.inputs += std::string(line) + "\n";
      dashes = is_dashes(plain);
    } else if (!says_nothing(plain)) {
      out.expected.emplace_back(plain);
    }
    return {};
  }));
  if (!dashes) return Error{Errc::kUsage, "it has no line of dashes; what is expected stands below one"};
  return out;
}

Result<std::vector<std::string>> play(const Scenario& scenario, const Rules& rules, const LayOver& lay_over, bool crash_each) {
  Player player(rules, crash_each);
  Script script(player, lay_over);
  TRY(each_line(scenario.inputs, [&](std::string_view line, int at) -> Result<void> {
    return is_dashes(trimmed(line)) ? Result<void>() : script.line(line, at);
  }));
  TRY(script.configure());
  return player.end();
}

std::vector<std::string> line_difference(const std::vector<std::string>& expected, const std::vector<std::string>& made) {
  if (expected == made) return {};
  size_t head = 0, tail = 0;
  while (head < std::min(expected.size(), made.size()) && expected[head] == made[head]) ++head;
  while (tail < std::min(expected.size(), made.size()) - head &&
         expected[expected.size() - 1 - tail] == made[made.size() - 1 - tail])
    ++tail;
  const size_t rows = expected.size() - head - tail, columns = made.size() - head - tail;
  std::vector<std::string> out;
  for (size_t n = head - std::min(head, kAround); n < head; ++n) out.push_back("  " + expected[n]);
  constexpr size_t kTableMax = 4'000'000;
  if (rows * columns > kTableMax) {  // too much for an alignment
    for (size_t r = 0; r < rows; ++r) out.push_back("- " + expected[head + r]);
    for (size_t c = 0; c < columns; ++c) out.push_back("+ " + made[head + c]);
  } else {
    // Longest common subsequence, from the ends.
    std::vector<std::vector<uint32_t>> longest(rows + 1, std::vector<uint32_t>(columns + 1, 0));
    for (size_t r = rows; r-- > 0;)
      for (size_t c = columns; c-- > 0;)
        longest[r][c] =
            expected[head + r] == made[head + c] ? longest[r + 1][c + 1] + 1 : std::max(longest[r + 1][c], longest[r][c + 1]);
    for (size_t r = 0, c = 0; r < rows || c < columns;) {
      if (r < rows && c < columns && expected[head + r] == made[head + c]) {
        out.push_back("  " + expected[head + r]);
        ++r;
        ++c;
      } else if (r < rows && (c == columns || longest[r + 1][c] >= longest[r][c + 1])) {
        out.push_back("- " + expected[head + r++]);
      } else {
        out.push_back("+ " + made[head + c++]);
      }
    }
  }
  for (size_t n = 0; n < std::min(tail, kAround); ++n) out.push_back("  " + expected[expected.size() - tail + n]);
  return out;
}

}  // namespace assay::replay
