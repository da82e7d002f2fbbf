// The hot path of ingest takes nothing from the heap once its buffers have grown.
#include <gtest/gtest.h>

#include <cstdlib>
#include <new>

#include "schemas/eval_report.h"
#include "tests/unit/report_maker.h"

namespace {
thread_local size_t allocation_count = 0;
}

void* operator new(size_t size) {
  ++allocation_count;
  if (void* p = std::malloc(size)) return p;
  throw std::bad_alloc();
}
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, size_t) noexcept { std::free(p); }

namespace assay::schemas {
namespace {

TEST(EvalReportDecoder, AllocatesNothingWhenWarm) {
  ReportMaker maker(1);
  std::vector<std::string> records;
  for (int i = 0; i < 300; ++i) {
    const Json report = maker.report();
    auto proto = eval_report_to_protobuf(canonical(report), i % 2 == 0);
    ASSERT_TRUE(proto);
    records.push_back(*proto);
    records.push_back(maker.write(report));
    records.push_back(R"({"specversion":"1.0","data":)" + maker.write(report) + "}");
  }
  EvalReportDecoder decoder;
  Reject reject;
  size_t taken = 0;
  auto decode_all = [&] {
    for (const std::string& bytes : records) {
      RecordView record;
      record.value = bytes;
      taken += decoder.decode(record, &reject) != nullptr;
    }
  };
  decode_all();
  ASSERT_EQ(taken, records.size());
  const size_t before = allocation_count;
  EXPECT_GT(before, 0u);
  decode_all();
  EXPECT_EQ(allocation_count - before, 0u);
  EXPECT_EQ(taken, 2 * records.size());
}

}  // namespace
}  // namespace assay::schemas
