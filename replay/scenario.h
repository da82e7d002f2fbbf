// Plain-text scenarios: reports with their times, and what the pipeline decides about them under a configuration.
//
//   # promoted after three good hours                     comments, and empty lines, say nothing
//   config promotion.min_samples = 2                       TOML over the configuration; lines that follow each other are one change
//   show scores decisions refused pools                    what is printed (decisions refused, unless said)
//   at 2026-01-05T00:10:00Z a win=0.9 division:ops         one report: time, agent, metrics; id: and arrived: (its record's time)
//   every 15m from 2026-01-05T01:00:00Z to 2026-01-05T04:00:00Z a win=0.9
//   raw 2026-01-05T05:00:00Z a {broken                     record time, key (- for none) and value as they are
//   ----
//   2026-01-05T03:00:00.000Z promote a …                   what is expected, line by line
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "replay/base.h"
#include "schemas/config.h"

namespace assay::replay {

/// Lays TOML text over rules. Errors: kUsage naming the key.
using LayOver = std::function<Result<void>(std::string_view toml, Rules& rules)>;

struct Scenario {
  std::string inputs;                 // everything up to the line of dashes, which ends it
  std::vector<std::string> expected;  // without comments and empty lines
};

/// Cuts a file in two. Errors: kUsage when it has no line of dashes.
Result<Scenario> read_scenario(std::string_view text);

/// The lines that the inputs make. With `crash_each`, the pipeline is stored, forgotten and read back after each record, which
/// must not show. Errors: kUsage naming the line that cannot be read.
Result<std::vector<std::string>> play(const Scenario& scenario, const Rules& rules, const LayOver& lay_over, bool crash_each);

/// Lines of a diff: "-" only expected, "+" only made, " " both, with some lines around what differs. Empty: they are equal.
std::vector<std::string> line_difference(const std::vector<std::string>& expected, const std::vector<std::string>& made);

}  // namespace assay::replay
