// What commits leave behind: manifests, marks and the meta row come back as they were, and nothing else is taken for one.
#include "streams/manifest.h"

#include <gtest/gtest.h>

#include <random>

#include "streams/fold.h"

namespace assay::streams {
namespace {

Manifest random_manifest(std::mt19937_64& random) {
  auto number = [&] { return static_cast<int64_t>(random() >> 2); };
  Manifest m;
  m.task = "scoring-" + std::to_string(random() % 9);
  m.lineage = std::to_string(random() % 3);
  m.sequence = number();
  for (uint64_t i = random() % 4; i > 0; --i)
    m.ranges.push_back({{"eval.reports.v1", static_cast<int32_t>(random() % 99)}, Offset(number()), Offset(number())});
  m.delivered = number();
  m.instant = WallTime(static_cast<int64_t>(random() % 4'000'000'000'000));
  for (uint64_t i = random() % 4; i > 0; --i)
    m.outputs.push_back({{"eval.scores.v1", static_cast<int32_t>(i)}, number(), number()});
  m.output_hash = Manifest::hash(std::to_string(random()));
  m.state_digest = state::Digest::of_row("k", std::to_string(random()));
  m.previous = random() % 2 ? Manifest::hash("p") : "";
  m.code_version = "1";
  return m;
}

TEST(Manifest, ComesBackAsItWas) {
  std::mt19937_64 random(1);
  for (int round = 0; round < 300; ++round) {
    const Manifest m = random_manifest(random);
    const std::string text = m.encode();
    auto back = Manifest::decode(text);
    ASSERT_TRUE(back.has_value()) << text;
    EXPECT_EQ(back->encode(), text);
    EXPECT_EQ(back->sequence, m.sequence);
    EXPECT_EQ(back->ranges, m.ranges);
    EXPECT_EQ(back->outputs, m.outputs);
    EXPECT_EQ(back->instant, m.instant);
    EXPECT_EQ(back->state_digest, m.state_digest);
  }
}

/// A damaged text is refused, or it is another sound manifest: it never crashes and never comes back as the first one.
TEST(Manifest, IsNotTakenFromDamagedText) {
  std::mt19937_64 random(2);
  for (int round = 0; round < 3000; ++round) {
    const std::string text = random_manifest(random).encode();
    std::string damaged = text;
    if (round % 3 == 0)
      damaged.resize(random() % text.size());
    else
      damaged[random() % text.size()] ^= static_cast<char>(1 + random() % 127);
    if (auto back = Manifest::decode(damaged); back && damaged != text) {
      EXPECT_NE(back->encode(), text) << damaged;
    }
    if (round % 3 == 0) {
      EXPECT_FALSE(Manifest::decode(damaged).has_value()) << damaged;
    }
  }
  EXPECT_FALSE(Manifest::decode("{}").has_value());
  EXPECT_FALSE(Manifest::decode("[]").has_value());
}

TEST(CommitMark, ComesBackAsItWas) {
  const CommitMark mark{7, Offset(12345678901), "ab12"};
  EXPECT_EQ(mark.encode(), "7:12345678901:ab12");
  auto back = CommitMark::decode(mark.encode());
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(*back, mark);
}

TEST(CommitMark, RefusesWhatIsNone) {
  for (const char* text : {"", ":", "::", "1:2", "1", "x:2:h", "1:x:h", "1:2x:h", " 1:2:h", "1::h", "99999999999999999999:1:h"})
    EXPECT_FALSE(CommitMark::decode(text).has_value()) << text;
}

TEST(TaskMeta, ComesBackAsItWas) {
  TaskMeta m;
  m.lineage = "3";
  m.sequence = 12;
  m.manifest_offset = Offset(99);
  m.manifest_hash = "cafe";
  m.instant = WallTime(1750000000123);
  m.digest = state::Digest::of_row("a", "b");
  m.positions[{"eval.reports.v1", 0}] = Offset(int64_t{1} << 60);
  m.positions[{"config.v1", 0}] = Offset(4);
  m.began[{"eval.scores.v1", 2}] = Offset(40);
  m.anchors[{"eval.reports.v1", 0}] = {Offset(1234), "00ff"};
  m.written[{"eval.scores.v1", 3}] = 17;
  m.upstream["eval.scores.v1/3|scoring-3/0"] = 41;
  m.tally.delivered = 1000;
  m.tally.accepted = 900;
  m.tally.unknown_fields = 5;
  for (size_t r = 0; r < kReasonCount; ++r) m.tally.refused[r] = r;
  auto back = TaskMeta::decode(m.encode());
  ASSERT_TRUE(back.has_value());
  EXPECT_EQ(back->encode(), m.encode());
  EXPECT_EQ(back->positions, m.positions);
  EXPECT_EQ(back->began, m.began);
  EXPECT_EQ(back->anchors, m.anchors);
  EXPECT_EQ(back->written, m.written);
  EXPECT_EQ(back->upstream, m.upstream);
  EXPECT_EQ(back->tally, m.tally);
  EXPECT_EQ(back->digest, m.digest);
}

TEST(TaskMeta, RefusesDamage) {
  TaskMeta m;
  m.positions[{"eval.reports.v1", 0}] = Offset(5);
  const std::string text = m.encode();
  for (size_t cut = 0; cut < text.size(); ++cut) EXPECT_FALSE(TaskMeta::decode(text.substr(0, cut)).has_value());
  std::string letters = text;
  letters.replace(letters.find("\"5\""), 3, "\"x\"");
  EXPECT_FALSE(TaskMeta::decode(letters).has_value());
}

TEST(WriterStamp, IsReadFromTheRight) {
  auto stamp = WriterStamp::parse("scoring-3/0/17");
  ASSERT_TRUE(stamp.has_value());
  EXPECT_EQ(stamp->writer, "scoring-3/0");
  EXPECT_EQ(stamp->n, 17);
  for (const char* text : {"", "x", "x/", "x/-1", "x/1y", "x/ 1", "x/99999999999999999999"})
    EXPECT_FALSE(WriterStamp::parse(text).has_value()) << text;
}

}  // namespace
}  // namespace assay::streams
