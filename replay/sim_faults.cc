#include "replay/sim_faults.h"

#include <algorithm>
#include <charconv>

namespace assay::replay {
namespace {

constexpr std::string_view kNames[kFaultCount] = {"crash",        "power_loss",  "pause",         "zombie",      "restart",
                                                  "slow_network", "unreachable", "lost_answer",   "late_end",    "torn_txn",
                                                  "slow_markers", "reordered",   "fence",         "rebalance",   "coordinator_move",
                                                  "retention",    "truncation",  "disk_full",     "slow_disk",   "bit_flip",
                                                  "lost_store",   "clock_jump",  "database_down", "lost_commit", "signer_down"};

/// Faults that happen to requests with some probability, and its bounds in permille.
bool of_requests(Fault fault) {
  return fault == Fault::kSlowNetwork || fault == Fault::kLostAnswer || fault == Fault::kLateEnd ||
         fault == Fault::kTornTransaction || fault == Fault::kSlowMarkers || fault == Fault::kReordered ||
         fault == Fault::kSlowDisk || fault == Fault::kLostCommit;
}

Milliseconds duration(Fault fault, SimDice& dice) {
  switch (fault) {
    case Fault::kPause:
      return Milliseconds(dice.between(10, 350));
    case Fault::kZombie:
      return Milliseconds(dice.between(600, 1500));
    case Fault::kUnreachable:
    case Fault::kDatabaseDown:
    case Fault::kSignerDown:
      return Milliseconds(dice.between(30, 1000));
    case Fault::kCoordinatorMove:
      return Milliseconds(dice.between(30, 300));
    default:
      return Milliseconds(dice.between(1, 800));
  }
}

}  // namespace

std::string_view fault_name(Fault fault) { return kNames[static_cast<size_t>(fault)]; }

std::optional<Fault> parse_fault(std::string_view name) {
  for (size_t i = 0; i < kFaultCount; ++i)
    if (kNames[i] == name) return static_cast<Fault>(i);
  return std::nullopt;
}

std::string to_string(const FaultEvent& event) { return std::string(fault_name(event.fault)) + "@" + std::to_string(event.n); }

std::optional<FaultEvent> parse_fault_event(std::string_view text) {
  const size_t at = std::min(text.find('@'), text.size());
  const auto fault = parse_fault(text.substr(0, at));
  uint32_t n = 0;
  auto [end, error] = std::from_chars(text.data() + std::min(at + 1, text.size()), text.data() + text.size(), n);
  if (!fault || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return FaultEvent{*fault, n};
}

FaultPlan FaultPlan::make(uint64_t seed, FaultMask mask, size_t nodes, Milliseconds until) {
  FaultPlan plan;
  if (SimDice(seed ^ 0xfa017).chance(80)) return plan;  // a run in which nothing goes wrong
  for (size_t i = 0; i < kFaultCount; ++i) {
    SimDice dice(seed * kFaultCount + i);
    const auto fault = static_cast<Fault>(i);
    const bool chosen = dice.chance((fault_bit(fault) & kDestructive) != 0 ? 40 : 180);
    if (!chosen || (mask & fault_bit(fault)) == 0) continue;
    plan.chosen |= fault_bit(fault);
    if (of_requests(fault)) {
      plan.permille[i] = dice.between(1, 12) * dice.between(1, 12);
      if (fault == Fault::kReordered) plan.permille[i] *= 4;
      continue;
    }
    const int64_t count = (fault_bit(fault) & kDestructive) != 0 ? 1 : dice.between(1, 3);
    for (int64_t n = 0; n < count; ++n)
      plan.faults.push_back({fault, static_cast<uint32_t>(n + 1), Milliseconds(dice.between(50, until.count())),
                             duration(fault, dice), static_cast<size_t>(dice.below(static_cast<int64_t>(nodes))), dice.next()});
  }
  std::ranges::stable_sort(plan.faults, {}, &PlannedFault::at);
  return plan;
}

}  // namespace assay::replay
