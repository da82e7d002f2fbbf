#include "tools/fleet.h"

#include <algorithm>
#include <queue>
#include <string_view>
#include <vector>

#include "schemas/json.h"
#include "schemas/result.h"
#include "schemas/time.h"
#include "schemas/topics.h"

namespace assay::tools {
namespace {

using schemas::kDayMs;
using schemas::kHourMs;
using schemas::kMinuteMs;
using schemas::kSecondMs;

constexpr int64_t kEpochMs = 1767225600000;  // 2026-01-01T00:00:00Z: reports must not depend on the day they were made
constexpr int64_t kShiftHours = 5;
constexpr int64_t kReportsPerHour = 8;  // a closed hour needs five for a promotion
constexpr int64_t kDaysMax = 10;
constexpr const char* kDivisions[] = {"research", "operations", "finance", "support"};

/// splitmix64: one word of state, every seed good.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed) {}
  uint64_t next() {
    uint64_t z = (state_ += 0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
    z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
    return z ^ (z >> 31);
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  int64_t between(int64_t low, int64_t high) { return low + below(high - low + 1); }
  /// A bell around zero, never beyond ±3·spread: the sum of three even draws.
  int64_t bell(int64_t spread) { return between(-spread, spread) + between(-spread, spread) + between(-spread, spread); }
  bool chance(int64_t millionths) { return below(1000000) < millionths; }

 private:
  uint64_t state_;
};

/// An agent's success rate in 1/10,000 over the share of its life that has passed (in thousandths).
enum class Character { kGood, kRegresses, kMediocre, kImproves, kBorderline };
// Every small fleet has one that is promoted and demoted again; over twenty agents the mix is that of a fleet.
constexpr Character kCharacters[] = {Character::kGood,       Character::kRegresses, Character::kMediocre, Character::kImproves,
                                     Character::kBorderline, Character::kGood,      Character::kMediocre, Character::kGood,
                                     Character::kMediocre,   Character::kRegresses, Character::kGood,     Character::kMediocre,
                                     Character::kImproves,   Character::kGood,      Character::kMediocre, Character::kBorderline,
                                     Character::kGood,       Character::kRegresses, Character::kMediocre, Character::kGood};

struct Agent {
  std::string name;
  std::string_view division;
  Character character = Character::kGood;
  int64_t level = 0;     // 1/10,000
  int64_t turn = 0;      // thousandths of its life after which it regresses or improves
  int64_t shift_ms = 0;  // start of its shift in the day
  int64_t latency = 0;   // 0.1 ms
  int64_t reports = 0;   // in its life
  int64_t sent = 0;
  Random random{0};

  int64_t quality(int64_t life) const {
    const int64_t ramp = std::clamp<int64_t>((life - turn) * 10, 0, 1000);  // a tenth of a life from one level to the other
    switch (character) {
      case Character::kRegresses:
        return level - 2600 * ramp / 1000;
      case Character::kImproves:
        return level - 2300 * (1000 - ramp) / 1000;
      default:
        return level;
    }
  }
};

struct Arrival {
  int64_t arrived_ms;
  uint64_t order;  // ties keep the order in which they were made
  std::string line;
  bool operator>(const Arrival& other) const { return std::tie(arrived_ms, order) > std::tie(other.arrived_ms, other.order); }
};

struct Turn {
  int64_t at_ms;
  size_t agent;
  bool operator>(const Turn& other) const { return std::tie(at_ms, agent) > std::tie(other.at_ms, other.agent); }
};

template <class T>
using Soonest = std::priority_queue<T, std::vector<T>, std::greater<T>>;

/// 9312 -> "0.9312"; digits after the point as many as the scale has zeros, trailing zeros kept.
std::string decimal(int64_t value, int digits) {
  int64_t scale = 1;
  for (int i = 0; i < digits; ++i) scale *= 10;
  std::string fraction = std::to_string(value % scale);
  return std::to_string(value / scale) + "." + std::string(static_cast<size_t>(digits) - fraction.size(), '0') + fraction;
}

std::string hex(uint64_t value) {
  std::string text(16, '0');
  for (size_t i = 16; i-- > 0; value >>= 4) text[i] = "0123456789abcdef"[value & 15];
  return text;
}

struct Report {
  std::string id, agent, division, metrics, timestamp, arrived;
  std::string line() const {
    return "{\"id\":\"" + id + "\",\"agentId\":\"" + agent + "\",\"divisionId\":\"" + division + "\",\"metricSet\":{" + metrics +
           "},\"timestamp\":\"" + timestamp + "\",\"source\":\"agent-manager\",\"metadata\":{\"arrivedAt\":\"" + arrived + "\"}}";
  }
};

constexpr int kBadKinds = 19;

/// Turns a sound report into a line of the kind; `before` is an earlier line of the same agent.
std::string spoil(int kind, Report report, const Report& before) {
  std::string line = report.line();
  switch (kind) {
    case 0:
      return line.substr(0, line.size() * 2 / 3);  // NOT_JSON
    case 1:
      report.metrics = "\"success_rate\":\"high\"";
      return report.line();  // WRONG_TYPE
    case 2:
      return "{\"id\":\"" + report.id + "\"," + line.substr(line.find("\"divisionId\""));  // MISSING_FIELD
    case 3:
      report.agent = std::string("agent\\u0000");
      return report.line();  // BAD_ID
    case 4:
      report.agent.clear();
      return report.line();  // BAD_ID
    case 5:
      report.agent = std::string(257, 'a');
      return report.line();  // BAD_ID
    case 6:
      report.metrics.clear();
      return report.line();  // BAD_METRICS
    case 7:                  // BAD_METRICS
      report.metrics.clear();
      for (int i = 0; i < 257; ++i) report.metrics += (i == 0 ? "\"m" : ",\"m") + std::to_string(i) + "\":1";
      return report.line();
    case 8:
      report.metrics = "\"success_rate\":1e400";
      return report.line();  // VALUE_NOT_FINITE
    case 9:
      report.metrics = "\"success_rate\":2000000000000";
      return report.line();  // VALUE_OUT_OF_RANGE
    case 10:
      report.timestamp = "yesterday";
      return report.line();  // BAD_TIMESTAMP
    case 11:
      report.timestamp.pop_back();
      return report.line();  // BAD_TIMESTAMP: no zone
    case 12:
      report.timestamp = "2126" + report.timestamp.substr(4);
      return report.line();  // TIMESTAMP_IN_FUTURE
    case 13:
      report.id = before.id;
      return report.line();  // CONFLICTING_DUPLICATE
    case 14:
      return before.line();  // DUPLICATE
    case 15:
      return "";  // EMPTY
    case 16:
      return std::string(5000, '[') + std::string(5000, ']');  // TOO_DEEP
    case 17:
      return line.substr(0, line.size() - 1) + ",\"timestamp\":7}";  // a member twice
    default:
      return "null";  // no object at all
  }
}

}  // namespace

struct Fleet::Impl {
  FleetOptions options;
  std::vector<Agent> agents;
  std::vector<Report> last;  // of each agent
  Soonest<Turn> turns;
  Soonest<Arrival> arrivals;
  Random random{0};
  uint64_t made = 0;
  int64_t late_millionths = 0, bad_millionths = 0;
  int next_bad = 0;
  bool too_large_made = false;

  /// When an agent's next report is due: evenly spread over its shifts, with some jitter.
  int64_t due_ms(const Agent& agent, int64_t index, Random& jitter) const {
    const int64_t days =
        std::clamp<int64_t>((agent.reports + kShiftHours * kReportsPerHour - 1) / (kShiftHours * kReportsPerHour), 1, kDaysMax);
    const int64_t a_day = (agent.reports + days - 1) / days;
    const int64_t slot_ms = std::max<int64_t>(std::min(kShiftHours * kHourMs / a_day, kHourMs / kReportsPerHour), 1);
    return kEpochMs + index / a_day * kDayMs + agent.shift_ms + index % a_day * slot_ms + jitter.below(slot_ms * 3 / 4 + 1);
  }

  void schedule(size_t index) {
    Agent& agent = agents[index];
    if (agent.sent < agent.reports) turns.push({due_ms(agent, agent.sent, agent.random), index});
  }

  void report(const Turn& turn) {
    Agent& agent = agents[turn.agent];
    const int64_t life = agent.sent++ * 1000 / agent.reports;
    Random& draw = agent.random;
    const int64_t quality = agent.quality(life);
    auto share = [&](int64_t around, int64_t spread) { return std::clamp<int64_t>(around + draw.bell(spread), 0, 10000); };
    int64_t success = share(quality, 120), answer = share(quality - 50, 150), efficiency = share(quality - 100, 200);
    int64_t latency = std::max<int64_t>(agent.latency * (20000 - quality) / 10000 + draw.bell(agent.latency / 10), 1);

    int64_t delay_ms = draw.between(kSecondMs, 20 * kSecondMs);
    if (draw.chance(late_millionths))
      delay_ms = draw.below(5) != 0 ? draw.between(2 * kMinuteMs, 40 * kMinuteMs) : draw.between(60 * kMinuteMs, 180 * kMinuteMs);
    Report sound;
    sound.id = "eval-" + hex(draw.next());
    sound.agent = agent.name;
    sound.division = agent.division;
    sound.metrics = "\"success_rate\":" + decimal(success, 4) + ",\"answer_quality\":" + decimal(answer, 4) +
                    ",\"cost_efficiency\":" + decimal(efficiency, 4) + ",\"latency_ms\":" + decimal(latency, 1);
    sound.timestamp = schemas::format_rfc3339_ms(turn.at_ms);
    sound.arrived = schemas::format_rfc3339_ms(turn.at_ms + delay_ms);
    Report& before = last[turn.agent];
    std::string line;
    if (random.chance(bad_millionths) && !before.id.empty()) {
      // One line that no log takes is enough: it is a mebibyte.
      if (!too_large_made && next_bad == kBadKinds) {
        too_large_made = true;
        sound.metrics += ",\"" + std::string(static_cast<size_t>(schemas::kMaxRecordBytes), 'x') + "\":1";
        line = sound.line();
        next_bad = 0;
      } else {
        if (next_bad == kBadKinds) next_bad = 0;
        line = spoil(next_bad++, std::move(sound), before);
      }
    } else {
      line = sound.line();
      before = std::move(sound);
    }
    arrivals.push({turn.at_ms + delay_ms, made++, std::move(line)});
    schedule(turn.agent);
  }
};

Fleet::Fleet(const FleetOptions& options) : impl_(std::make_unique<Impl>()) {
  CHECK(options.agents >= 1 && options.agents <= 1000000 && options.reports >= 0);
  CHECK(options.late >= 0 && options.late <= 1 && options.bad >= 0 && options.bad <= 1);
  impl_->options = options;
  impl_->late_millionths = static_cast<int64_t>(options.late * 1e6);
  impl_->bad_millionths = static_cast<int64_t>(options.bad * 1e6);
  impl_->random = Random(options.seed ^ 0xa55a);
  const size_t digits = std::max<size_t>(std::to_string(options.agents - 1).size(), 4);
  for (int64_t i = 0; i < options.agents; ++i) {
    Agent& agent = impl_->agents.emplace_back();
    Random seeds(options.seed * 0x2545f4914f6cdd1d + static_cast<uint64_t>(i));
    agent.random = Random(seeds.next());
    Random& draw = agent.random;
    std::string number = std::to_string(i);
    agent.name = "agent-" + std::string(digits - number.size(), '0') + number;
    agent.division = kDivisions[static_cast<size_t>(i) % std::size(kDivisions)];
    agent.character = kCharacters[static_cast<size_t>(i) % std::size(kCharacters)];
    switch (agent.character) {
      case Character::kMediocre:
        agent.level = draw.between(6500, 7900);
        break;
      case Character::kBorderline:
        agent.level = draw.between(8450, 8650);
        break;
      default:
        agent.level = draw.between(9150, 9600);
    }
    agent.turn = draw.between(350, 600);
    agent.shift_ms = draw.below(19) * kHourMs + draw.below(60) * kMinuteMs;
    agent.latency = draw.between(2000, 20000);
    agent.reports = options.reports / options.agents + (i < options.reports % options.agents ? 1 : 0);
    impl_->schedule(static_cast<size_t>(i));
  }
  impl_->last.resize(static_cast<size_t>(options.agents));
}

Fleet::~Fleet() = default;

bool Fleet::next(std::string& line) {
  Impl& fleet = *impl_;
  // Nothing that is made from now on can arrive before the turn that is due next.
  while (!fleet.turns.empty() && (fleet.arrivals.empty() || fleet.arrivals.top().arrived_ms > fleet.turns.top().at_ms)) {
    const Turn turn = fleet.turns.top();
    fleet.turns.pop();
    fleet.report(turn);
  }
  if (fleet.arrivals.empty()) return false;
  line = fleet.arrivals.top().line;
  fleet.arrivals.pop();
  return true;
}

}  // namespace assay::tools
