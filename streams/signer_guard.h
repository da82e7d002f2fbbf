// What stands around a signer that can fail: checked signatures, new attempts, a circuit breaker, and many calls at once.
#pragma once

#include <functional>
#include <memory>

#include "streams/runtime.h"
#include "streams/signer.h"

namespace assay::streams {

struct GuardOptions {
  int attempts = 3;                              // behaviour: of one call that finds its signer unreachable
  Milliseconds wait_min{50}, wait_max{1000};     // behaviour: between them, doubling
  int failures_to_open = 3;                      // behaviour: calls that fail in a row, attempts and all, open the circuit
  Milliseconds open_for{5000};                   // behaviour: then a single call is let through, and its end decides
  std::function<void(const Error&)> on_failure;  // told of each attempt that failed; from several threads
};

/// Checks every signature under the signer's key before it is believed, tries again, and while the circuit is open refuses at
/// once, so that a signer that is away costs no time.
/// Errors of the calls: kUnreachable (also while the circuit is open), kRefused (also a signature that does not hold).
std::shared_ptr<Signer> guard_signer(std::shared_ptr<Signer> signer, const GuardOptions& options,
                                     Runtime& runtime = machine_runtime());

/// Spreads the digests of sign_all() over up to `threads` calls at once, at least `digests_min` in each.
std::shared_ptr<Signer> spread_signer(std::shared_ptr<Signer> signer, size_t threads, size_t digests_min);

}  // namespace assay::streams
