// Rules for metrics that nobody has described yet, from what they look like.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "tools/cli.h"

namespace assay::tools {

/// The value at the given share of the sorted values (nearest rank: the smallest that share·n values do not exceed).
/// Requires: not empty, 0 < percent <= 100. Sorts `values`.
double percentile(std::vector<double>& values, int percent);

/// Whether less of it is better, by the words in its name: latency, errors, cost, durations …
bool lower_is_better(std::string_view metric);

/// One rule a metric, by name: the 5th percentile is the worst that counts, the 95th the best (or the reverse).
std::vector<MetricRule> suggest_rules(std::map<std::string, std::vector<double>>& values_by_metric);

/// The rules as a configuration file.
std::string rules_to_toml(const std::vector<MetricRule>& rules);

/// `config suggest`: reads reports, prints the rules. Errors: kUsage when no line of the input is a report.
Result<int> suggest(Context& context, const std::string& input);

}  // namespace assay::tools
