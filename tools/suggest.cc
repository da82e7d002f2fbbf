#include "tools/suggest.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "schemas/eval_report.h"
#include "tools/byte_source.h"
#include "tools/progress.h"

namespace assay::tools {
namespace {

// Words of which less is better; a unit of time at the end says the same, unless "per" makes it a rate.
constexpr std::array<std::string_view, 27> kLowerWords = {
    "latency",  "error",   "errors", "cost", "costs", "duration", "time",      "delay",   "failure",
    "failures", "fail",    "loss",   "lag",  "wait",  "timeout",  "timeouts",  "retries", "retry",
    "drops",    "dropped", "jitter", "age",  "price", "usage",    "incidents", "regret",  "stddev"};
constexpr std::array<std::string_view, 4> kTurningWords = {"efficiency", "saved", "savings", "reduction"};
constexpr std::array<std::string_view, 7> kTimeUnits = {"ms", "us", "ns", "sec", "secs", "seconds", "minutes"};

std::vector<std::string> words_of(std::string_view metric) {
  std::vector<std::string> words(1);
  char before = '\0';
  for (char c : metric) {
    const bool upper = c >= 'A' && c <= 'Z', letter = upper || (c >= 'a' && c <= 'z');
    const bool camel = upper && before >= 'a' && before <= 'z';
    if ((!letter || camel) && !words.back().empty()) words.emplace_back();
    if (letter) words.back().push_back(upper ? static_cast<char>(c - 'A' + 'a') : c);
    before = c;
  }
  if (words.back().empty()) words.pop_back();
  return words;
}

bool contains(std::span<const std::string_view> list, std::string_view word) {
  return std::find(list.begin(), list.end(), word) != list.end();
}

std::string toml_string(std::string_view text) {
  std::string json, out;
  append_string(text, json);  // TOML's basic strings take JSON's escapes
  for (char c : json)
    if (c == '\x7f')
      out += "\\u007f";
    else
      out += c;
  return out;
}

std::string toml_number(double value) {
  std::string text;
  append_number(value, text);
  return text.find_first_of(".e") == std::string::npos ? text + ".0" : text;
}

}  // namespace

double percentile(std::vector<double>& values, int percent) {
  CHECK(!values.empty() && percent > 0 && percent <= 100);
  std::sort(values.begin(), values.end());
  // ceil(percent/100 · n) in whole numbers, so that no rounding moves the rank.
  const size_t rank = (values.size() * static_cast<size_t>(percent) + 99) / 100;
  return values[rank - 1];
}

bool lower_is_better(std::string_view metric) {
  const std::vector<std::string> words = words_of(metric);
  // What is saved or spent well turns the meaning of the word beside it around: cost_efficiency, time_saved.
  for (const std::string& word : words)
    if (contains(kTurningWords, word)) return false;
  for (const std::string& word : words)
    if (contains(kLowerWords, word)) return true;
  const bool rate = words.size() >= 2 && words[words.size() - 2] == "per";
  return !words.empty() && !rate && contains(kTimeUnits, words.back());
}

std::vector<MetricRule> suggest_rules(std::map<std::string, std::vector<double>>& values_by_metric) {
  std::vector<MetricRule> rules;
  for (auto& [metric, values] : values_by_metric) {
    MetricRule rule;
    rule.metric = metric;
    rule.up = !lower_is_better(metric);
    rule.low = percentile(values, 5);
    rule.high = percentile(values, 95);
    constexpr double kResolution = 1e-6;  // values nearer than that are one value to the scoring
    if (rule.high - rule.low < kResolution) {
      // One value says nothing about the scale: take half of it to each side, and a whole unit around zero.
      const double reach = std::abs(rule.low) < kResolution ? 1 : std::abs(rule.low) / 2;
      rule.low = std::max(rule.low - reach, -kMaxMetricValue);
      rule.high = std::min(rule.high + reach, kMaxMetricValue);
    }
    rules.push_back(std::move(rule));
  }
  return rules;
}

std::string rules_to_toml(const std::vector<MetricRule>& rules) {
  std::string out;
  for (const MetricRule& rule : rules)
    out += "[[scoring.metric]]\nmetric = " + toml_string(rule.metric) + "\ndirection = \"" + (rule.up ? "up" : "down") +
           "\"\nlow = " + toml_number(rule.low) + "\nhigh = " + toml_number(rule.high) + "\nweight = " + toml_number(rule.weight) +
           "\n\n";
  return out;
}

Result<int> suggest(Context& context, const std::string& input) {
  TRY_ASSIGN(auto source, open_input(input));
  LineReader lines(std::move(source));
  EvalReportDecoder decoder;
  Progress progress("suggest", "reports", context);
  std::map<std::string, std::vector<double>> values;
  uint64_t read = 0, refused = 0;
  for (;;) {
    TRY_ASSIGN(std::optional<Line> line, lines.next());
    if (!line) break;
    RecordView record;
    record.value = line->text;
    Reject reject;
    const EvalReport* report = line->truncated ? nullptr : decoder.decode(record, &reject);
    if (report == nullptr) {
      ++refused;
      continue;
    }
    for (const MetricValue& metric : report->metrics) {
      auto it = values.find(std::string(metric.name));
      if (it == values.end()) it = values.emplace(metric.name, std::vector<double>()).first;
      it->second.push_back(metric.value);
    }
    progress.update(++read, lines.share());
  }
  progress.finish();
  if (refused > 0) context.err << "assay: " << grouped(refused) << " lines are no reports and were left out\n";
  if (values.empty()) return Error{Errc::kUsage, "suggest from " + input + ": no line of it is a report"};
  const std::vector<MetricRule> rules = suggest_rules(values);
  if (context.format == Format::kTable) {
    context.out << "# Proposed from " << grouped(read)
                << " reports: low and high are the 5th and 95th percentile of each metric.\n\n"
                << rules_to_toml(rules);
    return 0;
  }
  Rules whole;
  whole.scoring.metrics = rules;
  Json body = rules_to_json(whole, ConfigKind::kScoring);
  context.out << render_rows(body.find("metric")->as_array(), context.format);
  return 0;
}

}  // namespace assay::tools
