// The conformance suite over a real broker.
#include "tests/integration/kafka_world.h"

namespace assay::streams {
namespace {

INSTANTIATE_TEST_SUITE_P(Kafka, LogConformance, testing::Values(kafka_kind()),
                         [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace assay::streams
