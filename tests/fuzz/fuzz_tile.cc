// Names and bytes of tiles and of segments of ids: a name is read only as it is written, and any bytes give a tree, an index or an
// error.
#include "streams/id_index.h"
#include "streams/tile_tree.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace assay::streams;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const std::string_view name = text.substr(0, text.find('\n'));
  if (const auto place = parse_tile_name(name)) CHECK(tile_name(place->level, place->index, place->width) == name);
  if (const auto segment = parse_id_segment_name(name)) CHECK(id_segment_name(segment->last, segment->first) == name);
  if (name.size() == text.size()) return 0;
  const std::string bytes(text.substr(name.size() + 1));
  // The bytes as every tile of a tree whose size they say.
  uint64_t leaves = 0;
  for (char c : name.substr(0, 4)) leaves = leaves << 8 | static_cast<unsigned char>(c);
  TileTree tree([&](const std::string&) -> Result<std::string> { return bytes; }, leaves + 1);
  (void)tree.root();
  (void)tree.leaf(leaves / 2);
  (void)tree.hashes_of(assay::processors::inclusion_ranges(leaves / 3, leaves + 1));
  (void)tree.hashes_of(assay::processors::consistency_ranges(leaves / 3 + 1, leaves + 1));
  auto builder = TileBuilder::resume(
      leaves, [&](const std::string&) -> Result<std::string> { return bytes; },
      [](const std::string&, std::string_view) -> Result<void> { return {}; });
  if (builder) (void)builder->root();
  std::string again;
  auto index = IdIndexBuilder::resume(
      bytes.size() / 8 % kIdSegmentRows, [&](const std::string&) -> Result<std::string> { return bytes; },
      [&](const std::string&, std::string_view segment) -> Result<void> {
        again = segment;
        return {};
      });
  if (index) {
    CHECK(index->write_partial() && again.size() == index->size() % kIdSegmentRows * 8);
  }
  return 0;
}
