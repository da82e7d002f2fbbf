// What can go wrong in a simulated run, and which of it a seed chooses.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "replay/sim_runtime.h"

namespace assay::replay {

enum class Fault : uint8_t {
  kCrash,            // kill -9, and a start some time later
  kPowerLoss,        // the machine stops: unsynced batches of its stores are lost from some place on
  kPause,            // the process stands still for less than its session
  kZombie,           // for longer: it comes back to find others at its work
  kRestart,          // stopped in order, started again later
  kSlowNetwork,      // requests and answers take long
  kUnreachable,      // the log cannot be reached from one process
  kLostAnswer,       // answers of the log are lost
  kLateEnd,          // the answer of an EndTxn is lost, and a copy of it arrives later
  kTornTransaction,  // an EndTxn that was answered arrives a second time, later: the next transaction is torn
  kSlowMarkers,      // a commit shows later on some partitions than on others
  kReordered,        // partitions are read in another order than in turn
  kFence,            // somebody else opens a task's writer
  kRebalance,        // a stranger joins a group for a while, and does none of its work
  kCoordinatorMove,  // no coordinator answers for a while
  kRetention,        // the oldest reports are deleted
  kTruncation,       // an unclean election loses the end of a partition
  kDiskFull,
  kSlowDisk,
  kBitFlip,
  kLostStore,     // somebody removes a store while its process is down
  kClockJump,     // of one machine, either way
  kDatabaseDown,  // not reachable for a while
  kLostCommit,    // answers of the database are lost
  kSignerDown,
};
inline constexpr size_t kFaultCount = static_cast<size_t>(Fault::kSignerDown) + 1;
std::string_view fault_name(Fault fault);  // "crash" "power_loss" …
std::optional<Fault> parse_fault(std::string_view name);

/// A set of faults.
using FaultMask = uint32_t;
constexpr FaultMask fault_bit(Fault fault) { return FaultMask{1} << static_cast<unsigned>(fault); }
inline constexpr FaultMask kAllFaults = (FaultMask{1} << kFaultCount) - 1;

/// Faults after which what was promised is gone, so that a halt by name is an outcome.
inline constexpr FaultMask kDestructive =
    fault_bit(Fault::kTornTransaction) | fault_bit(Fault::kRetention) | fault_bit(Fault::kTruncation);

/// One strike: the n-th chance that faults of this kind had to strike. Written "lost_answer@17".
struct FaultEvent {
  Fault fault;
  uint32_t n;
  auto operator<=>(const FaultEvent&) const = default;
};
std::string to_string(const FaultEvent& event);
std::optional<FaultEvent> parse_fault_event(std::string_view text);

struct PlannedFault {
  Fault fault;
  uint32_t n;  // of its kind
  Milliseconds at;
  Milliseconds lasts;
  size_t node = 0;
  uint64_t pick = 0;  // for what the fault has to choose
};

/// The faults of a seed that the mask leaves. Taking one kind away does not change the others.
struct FaultPlan {
  FaultMask chosen = 0;
  std::vector<PlannedFault> faults;             // by time
  std::array<int64_t, kFaultCount> permille{};  // how often, for those that happen to requests

  static FaultPlan make(uint64_t seed, FaultMask mask, size_t nodes, Milliseconds until);
};

}  // namespace assay::replay
