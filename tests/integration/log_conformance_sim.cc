// The conformance suite over the simulated log, without faults, on the machine's clock.
#include "streams/sim_log.h"
#include "tests/integration/log_conformance.h"

namespace assay::streams {
namespace {

class SimLogWorld final : public LogWorld {
 public:
  SimLogWorld() : clock_(machine_sim_clock()), cluster_(*clock_, {}) {}
  std::unique_ptr<Log> open() override { return cluster_.client(host_); }

 private:
  std::unique_ptr<SimClock> clock_;
  SimHost host_;
  SimCluster cluster_;
};

INSTANTIATE_TEST_SUITE_P(Simulated, LogConformance,
                         testing::Values(LogKind{"default", [] { return std::make_unique<SimLogWorld>(); }}),
                         [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace assay::streams
