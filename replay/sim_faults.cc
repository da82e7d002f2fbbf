#include "replay/sim_faults.h"

#include <algorithm>

namespace assay::replay {
namespace {

constexpr std::string_view kNames[kFaultCount] = {
    "crash",     "power_loss", "pause",        "zombie",     "restart",          "slow_network", "unreachable", "lost_answer",
    "late_end",  "torn_txn",   "slow_markers", "fence",      "coordinator_move", "retention",    "truncation",  "disk_full",
    "slow_disk", "bit_flip",   "lost_store",   "clock_jump", "database_down",    "lost_commit",  "signer_down"};

/// Faults that happen to requests with some probability, and its bounds in permille.
bool of_requests(Fault fault) {
  return fault == Fault::kSlowNetwork || fault == Fault::kLostAnswer || fault == Fault::kLateEnd ||
         fault == Fault::kTornTransaction || fault == Fault::kSlowMarkers || fault == Fault::kSlowDisk ||
         fault == Fault::kLostCommit;
}

Milliseconds duration(Fault fault, SimDice& dice) {
  switch (fault) {
    case Fault::kPause:
      return Milliseconds(dice.between(20, 700));
    case Fault::kZombie:
      return Milliseconds(dice.between(1200, 3000));
    case Fault::kUnreachable:
    case Fault::kDatabaseDown:
    case Fault::kSignerDown:
      return Milliseconds(dice.between(50, 2000));
    case Fault::kCoordinatorMove:
      return Milliseconds(dice.between(50, 600));
    default:
      return Milliseconds(dice.between(1, 1500));
  }
}

}  // namespace

std::string_view fault_name(Fault fault) { return kNames[static_cast<size_t>(fault)]; }

std::optional<Fault> parse_fault(std::string_view name) {
  for (size_t i = 0; i < kFaultCount; ++i)
    if (kNames[i] == name) return static_cast<Fault>(i);
  return std::nullopt;
}

FaultPlan FaultPlan::make(uint64_t seed, FaultMask mask, size_t nodes, Milliseconds until) {
  FaultPlan plan;
  if (SimDice(seed ^ 0xfa017).chance(80)) return plan;  // a run in which nothing goes wrong
  for (size_t i = 0; i < kFaultCount; ++i) {
    SimDice dice(seed * kFaultCount + i);
    const auto fault = static_cast<Fault>(i);
    const bool chosen = dice.chance((fault_bit(fault) & kDestructive) != 0 ? 30 : 180);
    if (!chosen || (mask & fault_bit(fault)) == 0) continue;
    plan.chosen |= fault_bit(fault);
    if (of_requests(fault)) {
      plan.permille[i] = dice.between(1, 12) * dice.between(1, 12);
      continue;
    }
    const int64_t count = (fault_bit(fault) & kDestructive) != 0 ? 1 : dice.between(1, 3);
    for (int64_t n = 0; n < count; ++n)
      plan.faults.push_back({fault, Milliseconds(dice.between(50, until.count())), duration(fault, dice),
                             static_cast<size_t>(dice.below(static_cast<int64_t>(nodes))), dice.next()});
  }
  std::ranges::stable_sort(plan.faults, {}, &PlannedFault::at);
  return plan;
}

}  // namespace assay::replay
