// Rows outside an archive: whatever the parts in which the bytes come, the same rows or the same refusal.
#include <algorithm>

#include "streams/audit_dump.h"

namespace {

using namespace assay::streams;

struct Read {
  std::vector<std::string> rows;
  std::string fault;
  bool operator==(const Read&) const = default;
};

Read read(std::string_view text, size_t part) {
  Read out;
  const auto again = [text, part]() -> Result<ByteReader> {
    return ByteReader([rest = text, part](char* into, size_t size) mutable -> Result<size_t> {
      const size_t count = std::min({size, part, rest.size()});
      std::copy_n(rest.data(), count, into);
      rest.remove_prefix(count);
      return count;
    });
  };
  LooseReader reader(
      "input",
      [&](RowBlock block) {
        for (size_t i = 0; i < block.rows(); ++i) out.rows.push_back(block.place(i) + " " + std::string(block.row(i)));
      },
      again);
  Result<void> done;
  for (size_t at = 0; done && at < text.size(); at += part) done = reader.add(text.substr(at, part));
  if (done) done = reader.finish();
  if (!done) out = {{}, done.error().message};  // which blocks were given before it depends on the parts
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  CHECK(read(text, size + 1) == read(text, 7));
  return 0;
}
