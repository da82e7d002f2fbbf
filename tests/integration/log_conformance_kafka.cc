// The conformance suite over a real broker, which must be there: ASSAY_TEST_BROKERS names it (deploy/with --broker).
#include <cstdlib>

#include "streams/kafka_log.h"
#include "tests/integration/log_conformance.h"

namespace assay::streams {
namespace {

class KafkaWorld final : public LogWorld {
 public:
  std::unique_ptr<Log> open() override {
    const char* brokers = std::getenv("ASSAY_TEST_BROKERS");
    if (!brokers) {
      ADD_FAILURE() << "ASSAY_TEST_BROKERS is not set; run this through deploy/with --broker -- ...";
      return nullptr;
    }
    KafkaLogOptions options;
    options.brokers = brokers;
    options.client_id = "assay-test";
    auto log = open_kafka_log(options);
    EXPECT_TRUE(log.has_value()) << log.error().message;
    return log ? std::move(*log) : nullptr;
  }
};

INSTANTIATE_TEST_SUITE_P(Kafka, LogConformance, testing::Values(LogKind{"kafka", [] { return std::make_unique<KafkaWorld>(); }}),
                         [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace assay::streams
