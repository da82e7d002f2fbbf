// Segments of archives: what went in comes out, by offset and by key; no byte can be changed unseen.
#include "replay/segment.h"

#include <gtest/gtest.h>

#include <random>

namespace assay::replay {
namespace {

struct Owned {
  int64_t offset, timestamp;
  std::optional<std::string> key, value;
  std::vector<Header> headers;
  RecordView view() const {
    RecordView out;
    out.offset = Offset(offset);
    out.timestamp = WallTime(timestamp);
    if (key) out.key = *key;
    if (value) out.value = *value;
    for (const Header& h : headers) {
      HeaderView header{h.name, std::nullopt};
      if (h.value) header.value = *h.value;
      out.headers.push_back(header);
    }
    return out;
  }
};

std::string text(const RecordView& r) {
  auto quoted = [](const std::optional<std::string_view>& s) { return s ? "'" + std::string(*s) + "'" : "null"; };
  std::string out =
      std::to_string(r.offset.value) + "@" + std::to_string(r.timestamp.value) + " " + quoted(r.key) + "=" + quoted(r.value);
  for (const HeaderView& h : r.headers) out += " " + std::string(h.name) + ":" + quoted(h.value);
  return out;
}

std::vector<Owned> some_records(uint64_t seed, int count) {
  std::mt19937_64 random(seed);
  std::vector<Owned> out;
  int64_t offset = 100, timestamp = 1700000000000;
  for (int n = 0; n < count; ++n) {
    offset += 1 + static_cast<int64_t>(random() % 20 == 0 ? random() % 50 : 0);
    timestamp += static_cast<int64_t>(random() % 2000) - 500;
    Owned r{offset, timestamp, {}, {}, {}};
    if (random() % 10 != 0) r.key = random() % 15 == 0 ? "" : "agent-" + std::to_string(random() % 12);
    if (random() % 10 != 0) r.value = std::string(random() % 300, static_cast<char>('a' + random() % 26));
    for (uint64_t h = random() % 3; h > 0; --h)
      r.headers.push_back(
          {"h" + std::to_string(h), random() % 4 == 0 ? std::nullopt : std::optional<std::string>(std::to_string(random()))});
    out.push_back(std::move(r));
  }
  return out;
}

std::pair<std::string, SegmentInfo> pack(const std::vector<Owned>& records) {
  SegmentWriter writer("eval.reports.v1", 3, Offset(90));
  for (const Owned& r : records) writer.add(r.view());
  writer.advance(Offset(records.empty() ? 95 : records.back().offset + 7));
  return writer.finish(3);
}

ReadAt in_memory(const std::string& file) {
  return [&file](uint64_t from, uint64_t size) -> Result<std::string> {
    if (from > file.size() || size > file.size() - from) return Error{Errc::kCorrupt, "the file ends before"};
    return file.substr(from, size);
  };
}

TEST(Segment, GivesBackWhatWentIn) {
  for (int count : {0, 1, 2, 50, 5000}) {
    const std::vector<Owned> records = some_records(static_cast<uint64_t>(count), count);
    const auto [file, info] = pack(records);
    auto reader = SegmentReader::open(file.size(), in_memory(file));
    ASSERT_TRUE(reader) << reader.error().message;
    EXPECT_EQ(reader->info(), info);
    EXPECT_EQ(info.first, Offset(90));
    EXPECT_EQ(info.next, Offset(records.empty() ? 95 : records.back().offset + 7));
    EXPECT_EQ(info.records, count);
    auto all = reader->all();
    ASSERT_TRUE(all) << all.error().message;
    ASSERT_EQ(all->records.size(), records.size());
    for (size_t i = 0; i < records.size(); ++i) EXPECT_EQ(text(all->records[i]), text(records[i].view()));
  }
}

TEST(Segment, FindsTheRecordsOfAKeyInOrder) {
  const std::vector<Owned> records = some_records(7, 4000);
  const auto [file, info] = pack(records);
  auto reader = SegmentReader::open(file.size(), in_memory(file));
  ASSERT_TRUE(reader);
  for (std::string key : {"agent-0", "agent-7", "agent-11", "", "nobody"}) {
    auto some = reader->of_key(key);
    ASSERT_TRUE(some) << some.error().message;
    std::string got, expected;
    for (const RecordView& r : some->records) got += text(r) + "\n";
    for (const Owned& r : records)
      if (r.key == key) expected += text(r.view()) + "\n";
    EXPECT_EQ(got, expected) << key;
  }
}

// A key that stands for few records must not cost the whole file.
TEST(Segment, ReadsFewBlocksForOneKey) {
  SegmentWriter writer("eval.reports.v1", 0, Offset(0));
  std::mt19937_64 random(1);
  for (int64_t n = 0; n < 20000; ++n) {
    Owned r{n, n, "agent-" + std::to_string(n % 500), std::string(200, static_cast<char>('a' + random() % 26)), {}};
    writer.add(r.view());
  }
  const std::string file = writer.finish(3).first;
  uint64_t asked = 0;
  auto reader = SegmentReader::open(file.size(), [&](uint64_t from, uint64_t size) -> Result<std::string> {
    asked += size;
    return file.substr(from, size);
  });
  ASSERT_TRUE(reader);
  asked = 0;
  auto some = reader->of_key("agent-123");
  ASSERT_TRUE(some);
  EXPECT_EQ(some->records.size(), 40u);
  EXPECT_LT(asked, file.size() / 4);
}

TEST(Segment, GoesOnWhereTheLastOneEnded) {
  const std::vector<Owned> records = some_records(3, 100);
  SegmentWriter writer("t", 0, Offset(100));
  for (int n = 0; n < 60; ++n) writer.add(records[static_cast<size_t>(n)].view());
  const SegmentInfo first = writer.finish(3).second;
  for (int n = 60; n < 100; ++n) writer.add(records[static_cast<size_t>(n)].view());
  const auto [file, second] = writer.finish(3);
  EXPECT_EQ(first.next, second.first);
  EXPECT_EQ(second.records, 40);
  auto reader = SegmentReader::open(file.size(), in_memory(file));
  ASSERT_TRUE(reader);
  auto all = reader->all();
  ASSERT_TRUE(all);
  EXPECT_EQ(text(all->records.front()), text(records[60].view()));
}

TEST(Segment, NoticesEveryChangedByteAndEveryCut) {
  const std::vector<Owned> records = some_records(11, 300);
  const auto [file, info] = pack(records);
  auto readable = [](const std::string& bytes) {
    auto reader = SegmentReader::open(bytes.size(), in_memory(bytes));
    return reader && reader->all();
  };
  ASSERT_TRUE(readable(file));
  for (size_t at = 0; at < file.size(); ++at) {
    std::string changed = file;
    changed[at] = static_cast<char>(changed[at] ^ (1 << (at % 8)));
    EXPECT_FALSE(readable(changed)) << "byte " << at;
  }
  for (size_t size = 0; size < file.size(); size += 7) EXPECT_FALSE(readable(file.substr(0, size))) << size;
  EXPECT_FALSE(readable(file + file));
}

TEST(Segment, RefusesANewerFormatByName) {
  auto [file, info] = pack(some_records(1, 5));
  file[8] = 2;
  auto reader = SegmentReader::open(file.size(), in_memory(file));
  ASSERT_FALSE(reader);
  EXPECT_EQ(reader.error().code, Errc::kRefused);
}

}  // namespace
}  // namespace assay::replay
