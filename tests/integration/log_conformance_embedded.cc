// The conformance suite over the embedded log. Segments are small, so that the tests cross their borders.
#include <filesystem>

#include "streams/embedded_log.h"
#include "tests/integration/log_conformance.h"

namespace assay::streams {
namespace {

class EmbeddedWorld final : public LogWorld {
 public:
  explicit EmbeddedWorld(uint64_t segment_bytes) : segment_bytes_(segment_bytes) {
    std::string pattern = testing::TempDir() + "/assay-embedded-log-XXXXXX";
    CHECK(::mkdtemp(pattern.data()) != nullptr);
    dir_ = pattern;
  }
  ~EmbeddedWorld() override { std::filesystem::remove_all(dir_); }

  std::unique_ptr<Log> open() override {
    EmbeddedLogOptions options;
    options.segment_bytes = segment_bytes_;
    options.clean_interval_ms = 50;
    options.clean_dead_share = 0;
    auto log = open_embedded_log(dir_, options);
    EXPECT_TRUE(log.has_value()) << log.error().message;
    return log ? std::move(*log) : nullptr;
  }

 private:
  const uint64_t segment_bytes_;
  std::string dir_;
};

INSTANTIATE_TEST_SUITE_P(Embedded, LogConformance,
                         testing::Values(LogKind{"default", [] { return std::make_unique<EmbeddedWorld>(64 << 20); }},
                                         LogKind{"tiny_segments", [] { return std::make_unique<EmbeddedWorld>(700); }}),
                         [](const auto& parameter) { return parameter.param.name; });

}  // namespace
}  // namespace assay::streams
