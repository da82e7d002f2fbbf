// Why one set of rules decided something that the other did not: what the other side knew and did at that moment.
#pragma once

#include <array>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replay/base.h"
#include "schemas/config.h"
#include "schemas/json.h"

namespace assay::replay {

/// What a run knew of an agent when something was decided.
struct AgentSeen {
  struct Hour {
    int64_t end_ms = 0;
    std::optional<double> score;
    int64_t samples = 0;
  };
  std::vector<Hour> hours;  // the last three closed 1h windows
  int64_t day_end_ms = 0;   // of the last closed 24h window
  std::optional<double> day_lower;
  bool promoted = false;
  int64_t decided_ms = 0;  // when it was promoted or demoted last
};

/// An event as it is compared.
struct Decision {
  std::string kind;  // promotion, demotion, denial, hold; reservation, grant, wait, rejection, release
  std::string entity, division;
  int64_t ts_ms = 0;
  std::string what;  // wanted and stopped by; allocation, pool and amounts
  bool promotion = false;
  Json event;
  AgentSeen there;  // what the other run knew then

  std::string identity() const { return kind + "\n" + entity + "\n" + std::to_string(ts_ms) + "\n" + what; }
};

/// Follows the closed scores and decisions of one run.
class AgentsSeen {
 public:
  void score(std::string_view agent_score);
  void decided(const Decision& decision);
  AgentSeen of(const std::string& agent) const;

 private:
  std::map<std::string, AgentSeen, std::less<>> agents_;
};

/// All decisions of both runs must outlive it.
class Causes {
 public:
  Causes(const std::vector<Decision>& present, const std::vector<Decision>& other, const Rules& present_rules,
         const Rules& other_rules);
  /// One sentence for a decision that only one side has: 0 present, 1 other.
  std::string why(const Decision& decision, size_t side) const;

 private:
  std::string why_not_decided(const Decision& decision, size_t there) const;
  std::string why_not_granted(const Decision& decision, size_t there) const;

  std::array<std::map<std::string, std::vector<const Decision*>>, 2> by_entity_;
  std::array<const Rules*, 2> rules_;
};

}  // namespace assay::replay
