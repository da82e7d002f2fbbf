// The memory of ids against a plain map, with restarts from its own rows in between.
#include "processors/dedupe.h"

#include <gtest/gtest.h>

#include <map>
#include <random>

namespace assay::processors {
namespace {

constexpr std::string_view kAgent = "agent-1";

class DedupeTest : public ::testing::TestWithParam<uint64_t> {};

TEST_P(DedupeTest, RemembersExactlyWhatIsYoungEnough) {
  std::mt19937_64 random(GetParam());
  Dedupe dedupe;
  std::map<UInt128, Dedupe::Entry> seen;                     // everything ever remembered
  std::map<std::pair<int64_t, uint64_t>, std::string> rows;  // the store
  state::Digest digest;
  const int64_t grace = 45 * kMinuteMs;
  int64_t memory = kDayMs, clock = 1767225600000, forgotten_to = 0;
  std::vector<UInt128> ids;
  for (int i = 0; i < 6000; ++i) {
    clock += static_cast<int64_t>(random() % static_cast<uint64_t>(random() % 500 == 0 ? 5 * kHourMs : kMinuteMs / 2));
    if (random() % 500 == 0) memory = static_cast<int64_t>(1 + random() % 30) * kHourMs;  // a new rule brings nothing back
    const int64_t oldest = clock - memory;
    dedupe.forget_before(oldest);
    forgotten_to = std::max(forgotten_to, floor_to(oldest, Dedupe::kBucketMs));
    // Few distinct low bits, so that probes run into each other; old ids come again.
    const UInt128 id =
        !ids.empty() && random() % 5 == 0 ? ids[random() % ids.size()] : (static_cast<UInt128>(random()) << 64 | (random() % 97));
    const Dedupe::Entry* found = dedupe.find(id, oldest);
    auto it = seen.find(id);
    const bool remembered = it != seen.end() && it->second.timestamp >= std::max(oldest, forgotten_to);
    ASSERT_EQ(found != nullptr, remembered) << "id after " << i << " of seed " << GetParam();
    if (found != nullptr) {
      ASSERT_EQ(found->content_hash, it->second.content_hash);
      ASSERT_EQ(found->timestamp, it->second.timestamp);
    } else {
      const Dedupe::Entry entry{id, random(), clock - static_cast<int64_t>(random() % static_cast<uint64_t>(grace))};
      dedupe.remember(kAgent, entry);
      seen[id] = entry;
      ids.push_back(id);
    }
    if (random() % 300 != 0) continue;
    for (Dedupe::Row& row : dedupe.take_rows()) {
      if (row.value.empty())
        rows.erase({row.bucket, row.chunk});
      else
        rows[{row.bucket, row.chunk}] = row.value;
    }
    digest += dedupe.take_change();
    state::Digest recomputed;
    for (const auto& [place, value] : rows) {
      std::vector<Dedupe::Entry> entries;
      ASSERT_TRUE(Dedupe::decode(place.first, value, entries));
      for (const Dedupe::Entry& entry : entries) recomputed += Dedupe::entry_digest(kAgent, entry);
    }
    ASSERT_EQ(digest.hex(), recomputed.hex()) << "after " << i << " of seed " << GetParam();
    if (random() % 3 != 0) continue;
    dedupe = Dedupe();
    for (const auto& [place, value] : rows) ASSERT_TRUE(dedupe.load(kAgent, place.first, place.second, value));
  }
}

INSTANTIATE_TEST_SUITE_P(Seeds, DedupeTest, ::testing::Range<uint64_t>(1, 9));

}  // namespace
}  // namespace assay::processors
