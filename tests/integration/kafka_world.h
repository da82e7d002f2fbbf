// A real broker as the place of a log under test: ASSAY_TEST_BROKERS names it (deploy/with --broker).
#pragma once

#include <cstdlib>

#include "streams/kafka_log.h"
#include "tests/integration/log_conformance.h"

namespace assay::streams {

class KafkaWorld final : public LogWorld {
 public:
  static const char* brokers() { return std::getenv("ASSAY_TEST_BROKERS"); }

  std::unique_ptr<Log> open() override {
    if (!brokers()) {
      ADD_FAILURE() << "ASSAY_TEST_BROKERS is not set; run this through deploy/with --broker -- ...";
      return nullptr;
    }
    KafkaLogOptions options;
    options.brokers = brokers();
    options.client_id = "assay-test";
    auto log = open_kafka_log(options);
    EXPECT_TRUE(log.has_value()) << log.error().message;
    return log ? std::move(*log) : nullptr;
  }
};

inline LogKind kafka_kind() {
  return LogKind{"kafka", [] { return std::make_unique<KafkaWorld>(); }};
}

}  // namespace assay::streams
