// Which reports count, and which windows they close.
#include <algorithm>
#include <cmath>
#include <deque>

#include "schemas/hash.h"
#include "schemas/json_parse.h"
#include "schemas/json_scan.h"
#include "schemas/time.h"
#include "tests/simulation/oracle_parts.h"

namespace assay::simulation {
namespace {

using schemas::JsonScanner;
using Kind = JsonScanner::Kind;

constexpr int64_t kFutureTolerance = 5 * kMinute;
constexpr std::string_view kReportsTopic = "eval.reports.v1";

struct Report {
  std::string agent, id, division;
  bool has_id = false, has_division = false;
  int64_t timestamp = 0;
  std::vector<std::pair<std::string, double>> metrics;
};

bool good_name(const JsonScanner::String& text) {
  if (text.bytes.empty() || text.bytes.size() > 256 || !text.clean()) return false;
  for (size_t i = 0; i < text.bytes.size(); ++i) {
    const auto c = static_cast<unsigned char>(text.bytes[i]);
    if (c < 0x20 || c == 0x7F) return false;
    if (c == 0xC2 && i + 1 < text.bytes.size() && static_cast<unsigned char>(text.bytes[i + 1]) < 0xA0) return false;
  }
  return true;
}

/// Fields in the order in which they are judged.
enum Field { kAgent, kId, kDivision, kTimestamp, kMetrics, kComputedScore, kSource, kWindow, kMetadata, kFields };
constexpr std::pair<std::string_view, std::string_view> kNames[kFields] = {
    {"agentId", "agent_id"},       {"id", "id"},
    {"divisionId", "division_id"}, {"timestamp", "timestamp"},
    {"metricSet", "metric_set"},   {"computedScore", "computed_score"},
    {"source", "source"},          {"window", "window"},
    {"metadata", "metadata"}};

Field field_of(std::string_view name) {
  for (int f = 0; f < kFields; ++f)
    if (name == kNames[f].first || name == kNames[f].second) return static_cast<Field>(f);
  return kFields;
}

/// Reads a report, or says why it is none.
std::string_view decode(std::string_view value, JsonScanner& scan, Report& report) {
  std::string_view wrong[kFields];
  bool given[kFields] = {};
  scan.start(value, 64);
  if (scan.kind() != Kind::kObject) {
    scan.skip();
    return scan.finish() ? "WRONG_TYPE" : "NOT_JSON";
  }
  auto text = [&](Field field, std::string* out) {
    JsonScanner::String read;
    if (!scan.read_string(&read)) return;
    if (field <= kDivision && !good_name(read)) wrong[field] = "BAD_ID";
    if (out != nullptr) *out = read.bytes;
  };
  for (bool more = scan.begin_object(); more; more = scan.next_member()) {
    const Field field = field_of(scan.name().bytes);
    const Kind kind = scan.kind();
    if (field == kFields || kind == Kind::kNull) {
      scan.skip();
      continue;
    }
    given[field] = true;
    const Kind wanted = field == kMetrics || field == kMetadata ? Kind::kObject
                        : field == kComputedScore               ? Kind::kNumber
                                                                : Kind::kString;
    if (kind != wanted) {
      wrong[field] = "WRONG_TYPE";
      scan.skip();
      continue;
    }
    switch (field) {
      case kAgent:
        text(field, &report.agent);
        break;
      case kId:
        text(field, &report.id);
        report.has_id = true;
        break;
      case kDivision:
        text(field, &report.division);
        report.has_division = true;
        break;
      case kTimestamp: {
        std::string timestamp;
        text(field, &timestamp);
        const auto ms = schemas::parse_rfc3339_ms(timestamp);
        if (!ms || *ms < 0) wrong[field] = "BAD_TIMESTAMP";
        report.timestamp = ms.value_or(0);
        break;
      }
      case kMetrics:
        for (bool next = scan.begin_object(); next; next = scan.next_member()) {
          auto blame = [&](std::string_view reason) {
            if (wrong[kMetrics].empty()) wrong[kMetrics] = reason;
          };
          if (!good_name(scan.name())) blame("BAD_METRICS");
          std::string name(scan.name().bytes);
          double number = 0;
          if (scan.kind() != Kind::kNumber) {
            blame("WRONG_TYPE");
            scan.skip();
            continue;
          }
          scan.read_number(&number);
          if (!std::isfinite(number))
            blame("VALUE_NOT_FINITE");
          else if (std::fabs(number) > 1e12)
            blame("VALUE_OUT_OF_RANGE");
          report.metrics.emplace_back(std::move(name), number);
        }
        if ((report.metrics.empty() || report.metrics.size() > 256) && wrong[kMetrics].empty()) wrong[kMetrics] = "BAD_METRICS";
        break;
      case kComputedScore: {
        double number = 0;
        scan.read_number(&number);
        if (!std::isfinite(number)) wrong[field] = "VALUE_NOT_FINITE";
        break;
      }
      default:
        scan.skip();
    }
  }
  if (!scan.finish()) return scan.fault() == JsonScanner::Fault::kTooDeep ? "TOO_DEEP" : "NOT_JSON";
  for (Field field : {kAgent, kTimestamp, kMetrics})
    if (!given[field]) wrong[field] = "MISSING_FIELD";
  for (std::string_view reason : wrong)
    if (!reason.empty()) return reason;
  return {};
}

/// What two deliveries of the same report share, whatever their spelling: known fields under one name, the instant as a number.
std::string content(std::string_view value) {
  Json document = std::move(schemas::parse_json(value)).value(), plain = Json::object();
  for (auto& [name, member] : document.as_object()) {
    const Field field = field_of(name);
    if (field == kFields || member.is_null()) continue;
    if (field == kTimestamp)
      plain.set("timestamp", *schemas::parse_rfc3339_ms(member.as_string()));
    else
      plain.set(kNames[field].first, std::move(member));
  }
  return canonical(plain);
}

struct Remembered {
  int64_t timestamp = 0;
  std::string_view value;
};

struct Agent {
  AgentReports reports;
  int64_t clock = 0;
  int64_t closed_to = 0;  // windows that end at or before it are closed
  int64_t forgotten = 0;  // ids of reports before it are forgotten
  std::map<std::string, Remembered, std::less<>> ids;
};

class Fold {
 public:
  Fold(const Rules& rules, int32_t partition, Arithmetic arithmetic)
      : rules_(rules), partition_(partition), arithmetic_(arithmetic) {}

  void change(const RuleChange& change) { apply(change, rules_); }

  void record(const ReportRecord& record) {
    ++out_.delivered;
    const std::string_view reason = judge(record);
    if (reason.empty()) {
      ++out_.accepted;
      return;
    }
    ++out_.refused[reason];
    if (reason != "DUPLICATE" && reason != "LATE") out_.dead_letters.push_back({record.offset, reason});
  }

  Scored finish() {
    for (const auto& [id, agent] : agents_)
      for (const WindowKind& window : {kHourWindow, kDayWindow, kWeekWindow}) {
        const int64_t end = agent.clock / window.pane * window.pane + window.pane;
        out_.open.push_back(*score_window(agent.reports, names_, window, end, rules_, arithmetic_));
      }
    return std::move(out_);
  }

 private:
  /// Decode, validate, future, duplicate, late; and what counts is listed.
  std::string_view judge(const ReportRecord& record) {
    if (!record.value || record.value->empty()) return "EMPTY";
    Report report;
    if (const std::string_view reason = decode(*record.value, scan_, report); !reason.empty()) return reason;
    if (record.key != report.agent) return "KEY_MISMATCH";
    if (report.timestamp > record.timestamp_ms + kFutureTolerance) return "TIMESTAMP_IN_FUTURE";

    const auto known = agents_.find(report.agent);
    if (known != agents_.end()) {
      Agent& agent = known->second;
      agent.forgotten = std::max(agent.forgotten, agent.clock - rules_.dedupe_ms);
      if (const auto seen = agent.ids.find(report.id);
          report.has_id && seen != agent.ids.end() && seen->second.timestamp >= agent.forgotten)
        return content(seen->second.value) == content(*record.value) ? "DUPLICATE" : "CONFLICTING_DUPLICATE";
      // What is closed stays closed when the grace becomes longer.
      if (report.timestamp < std::max(agent.closed_to, agent.clock - rules_.grace_ms)) return "LATE";
    }
    accept(record, std::move(report));
    return {};
  }

  void accept(const ReportRecord& record, Report report) {
    const auto [it, first] = agents_.try_emplace(report.agent);
    Agent& agent = it->second;
    const std::string id =
        report.has_id ? report.id : schemas::place_id(kReportsTopic, partition_, schemas::Offset(record.offset)).hex();
    if (report.has_id) agent.ids[id] = {report.timestamp, *record.value};
    if (first) {
      agent.reports.agent = report.agent;
      agent.clock = report.timestamp;
      agent.closed_to = report.timestamp - rules_.grace_ms;
    } else if (report.timestamp > agent.clock) {
      close(agent, report.timestamp);
    }
    Accepted accepted{report.timestamp, id, report.has_division ? report.division : "default", {}};
    for (const auto& [name, value] : report.metrics) accepted.values.push_back({index_of(name), micro_of(value)});
    auto& list = agent.reports.list;
    auto earlier = [](const Accepted& a, const Accepted& b) { return std::tie(a.timestamp, a.id) < std::tie(b.timestamp, b.id); };
    list.insert(std::upper_bound(list.begin(), list.end(), accepted, earlier), std::move(accepted));
  }

  /// The clock goes to `time`: every window that ends at least the grace before it is closed now, in rising order of its end.
  void close(Agent& agent, int64_t time) {
    const int64_t to = std::max(agent.closed_to, time - rules_.grace_ms);
    // No window that ends later than a week after the old clock holds a report.
    const int64_t last = std::min(to, agent.clock + 7 * kDay);
    auto floor = [](int64_t t, int64_t step) { return (t >= 0 ? t : t - step + 1) / step * step; };
    for (int64_t end = floor(agent.closed_to, kHour) + kHour; end <= last; end += kHour)
      for (const WindowKind& window : {kWeekWindow, kDayWindow, kHourWindow})
        if (end % window.emit == 0)
          if (auto score = score_window(agent.reports, names_, window, end, rules_, arithmetic_))
            out_.closed.push_back(std::move(*score));
    agent.closed_to = to;
    agent.clock = time;
    agent.forgotten = std::max(agent.forgotten, time - rules_.dedupe_ms);
  }

  uint32_t index_of(const std::string& name) {
    for (uint32_t i = 0; i < names_.size(); ++i)
      if (names_[i] == name) return i;
    names_.push_back(name);
    return static_cast<uint32_t>(names_.size() - 1);
  }

  Rules rules_;
  int32_t partition_;
  Arithmetic arithmetic_;
  JsonScanner scan_;
  std::vector<std::string> names_;
  std::map<std::string, Agent, std::less<>> agents_;
  Scored out_;
};

}  // namespace

void apply(const RuleChange& change, Rules& rules) {
  const Rules& to = change.rules;
  switch (change.section) {
    case Section::kScoring:
      rules.grace_ms = to.grace_ms;
      rules.dedupe_ms = to.dedupe_ms;
      rules.metrics = to.metrics;
      break;
    case Section::kPromotion:
      rules.enter = to.enter;
      rules.leave = to.leave;
      rules.min_samples = to.min_samples;
      rules.cooldown_ms = to.cooldown_ms;
      rules.max_per_week = to.max_per_week;
      break;
    case Section::kPolicy:
      rules.deny_pools = to.deny_pools;
      rules.max_delta = to.max_delta;
      rules.min_confidence = to.min_confidence;
      break;
    case Section::kAllocation:
      rules.grant = to.grant;
      rules.pools = to.pools;
      break;
  }
}

Scored expect_scores(const Timeline& timeline, int32_t partition, std::span<const ReportRecord> records,
                     std::span<const Turn> order, Arithmetic arithmetic) {
  Fold fold(timeline.start, partition, arithmetic);
  walk(
      timeline.changes, {{partition, records.size()}}, order, [&](int32_t, size_t i) { return records[i].offset; },
      [&](const RuleChange& change) { fold.change(change); }, [&](int32_t, size_t i) { fold.record(records[i]); });
  return fold.finish();
}

}  // namespace assay::simulation
