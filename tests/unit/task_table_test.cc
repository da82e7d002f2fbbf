// The start-up decision table on a store and a log that came into the state of each row.
#include <cctype>

#include "tests/unit/task_support.h"

namespace assay::streams {
namespace {

class TableOnAStore : public TaskTest, public testing::WithParamInterface<int> {
 protected:
  /// Commits 30 records in three manifests, of one input or of two.
  void three_manifests(bool second_input = false) {
    if (second_input) add_input();
    produce(30);
    ASSERT_TRUE(run().has_value());
    ASSERT_EQ(mark().sequence, 3);
  }
  void add_input() { spec_.inputs.emplace_back(Topic::kAllocations, 0); }
  CommitMark mark() { return *CommitMark::decode(log_->committed(spec_.group, std::span(&input_, 1))->at(input_).metadata); }
  /// The group's offset of the input as a commit of that mark leaves it.
  void commit(const CommitMark& of, Offset at) {
    auto writer = log_->open_writer(spec_.transactional_id);
    Transaction transaction;
    transaction.offsets = OffsetCommit{spec_.group, {{input_, at}}};
    transaction.metadata = [text = of.encode()](std::span<const Offset>) { return text; };
    ASSERT_TRUE((*writer)->prepare(std::move(transaction)).has_value());
    ASSERT_TRUE((*writer)->commit().has_value());
  }
  void change_meta(const std::function<void(TaskMeta&)>& change) {
    TaskMeta meta = *read_meta(*store_);
    change(meta);
    state::WriteBatch batch;
    batch.put(std::string(kMetaKey), meta.encode());
    ASSERT_TRUE(store_->write(batch).has_value());
  }
  void other_anchor() {
    change_meta([&](TaskMeta& meta) { meta.anchors[input_].hash.front() ^= 1; });
  }
  void checkpoint() {
    const TaskMeta meta = *read_meta(*store_);
    ASSERT_TRUE(store_->checkpoint({meta.sequence, meta.encode()}, 2).has_value());
  }
  /// The log loses the fourth manifest, which the store has. A checkpoint, if any, is of the third.
  void ahead(bool with_checkpoint) {
    three_manifests();
    if (with_checkpoint) checkpoint();
    produce(10);
    ASSERT_TRUE(run().has_value());
    watched_.reset();
    log_.reset();
    fs::copy(dir_ / "log", dir_ / "older", fs::copy_options::recursive);
    open_log("log");
    produce(10);
    ASSERT_TRUE(run().has_value());
    open_log("older");
    ASSERT_EQ(mark().sequence + 1, read_meta(*store_)->sequence);
  }
  std::string written() {
    std::string out;
    for (Topic topic : {Topic::kScores, Topic::kManifests})
      out += std::to_string(log_->range({kNames.full(topic), 0})->end.value) + " ";
    const auto committed = log_->committed(spec_.group, std::span(&input_, 1));
    for (const auto& [tp, at] : *committed) out += to_string(tp) + " " + std::to_string(at.offset.value) + " " + at.metadata;
    return out;
  }

  /// Brings about what the row is about. Returns the outcomes that it leads to, the last of which may be a halt.
  std::vector<std::string> bring_about(int row) {
    switch (row) {
      case 1:
        three_manifests(true);
        spec_.inputs.pop_back();
        return {"TOPOLOGY_CHANGED"};
      case 2:
        three_manifests();
        spec_.group = "assay.renamed";
        other_anchor();
        return {"LOG_DIVERGED"};
      case 3:
        three_manifests();
        spec_.group = "assay.renamed";
        return {"OFFSETS_LOST"};
      case 4:
        three_manifests();
        lose_store();
        EXPECT_TRUE(log_->commit_offsets({spec_.group, {{input_, Offset(2)}}}, nullptr).has_value());
        return {"OFFSETS_LOST"};
      case 5:
        three_manifests();
        lose_store();
        spec_.group = "assay.renamed";
        return {"OFFSETS_LOST"};
      case 6:
        produce(5);
        return {"fresh"};
      case 7:
        three_manifests();
        commit({4, log_->range({kNames.full(Topic::kManifests), 0})->end, mark().manifest_hash}, Offset(30));
        return {"TORN_TXN"};
      case 8:
        three_manifests();
        commit({3, mark().manifest_offset, std::string(64, 'a')}, Offset(30));
        return {"LOG_DIVERGED"};
      case 9: {
        three_manifests();
        ManifestReader reader(*log_, kNames, spec_, 1, *log_->range({kNames.full(Topic::kManifests), 0}));
        const auto second = reader.next();
        commit({2, (*second)->at, (*second)->hash}, Offset(20));
        return {"TORN_TXN"};
      }
      case 10:
        three_manifests();
        add_input();
        return {"TOPOLOGY_CHANGED"};
      case 11: {
        three_manifests(true);
        const CommitMark last = mark();
        spec_.group = "assay.renamed";
        commit(last, Offset(30));
        return {"OFFSETS_LOST"};
      }
      case 12:
        three_manifests();
        produce(5);
        EXPECT_TRUE(log_->delete_before(input_, Offset(32)).has_value());
        return {"INPUT_GAP"};
      case 13:
        three_manifests();
        commit(mark(), Offset(31));
        return {"LOG_DIVERGED"};
      case 14:
        ahead(false);
        return {"STATE_AHEAD"};
      case 15:
        ahead(true);
        EXPECT_TRUE(log_->delete_before(input_, Offset(31)).has_value());
        return {"INPUT_GAP"};
      case 16:
        ahead(true);
        return {"restore", "catch up"};
      case 17:
        three_manifests();
        change_meta([](TaskMeta& meta) { meta.manifest_hash = std::string(64, 'a'); });
        return {"LOG_DIVERGED"};
      case 18:
        three_manifests();
        other_anchor();
        return {"LOG_DIVERGED"};
      case 19:
        three_manifests();
        return {"clean"};
      case 20:
        three_manifests();
        lose_store();
        EXPECT_TRUE(log_->delete_before(input_, Offset(1)).has_value());
        return {"INPUT_GAP"};
      case 21:
        three_manifests();
        checkpoint();
        lose_store();
        EXPECT_TRUE(log_->delete_before(input_, Offset(30)).has_value());
        return {"restore", "clean"};
      case 22:
        three_manifests();
        lose_store();
        return {"catch up"};
      default:
        ADD_FAILURE() << "no row " << row;
        return {};
    }
  }
};

TEST_P(TableOnAStore, Row) {
  const std::vector<std::string> expected = bring_about(GetParam());
  const std::string before = written();
  const auto result = run();
  EXPECT_EQ(outcomes_, expected);
  const std::string& last = expected.back();
  if (std::isupper(static_cast<unsigned char>(last.front()))) {
    ASSERT_FALSE(result.has_value());
    EXPECT_EQ(result.error().code, Errc::kIncomplete);
    EXPECT_THAT(result.error().message, testing::StartsWith(last + ": starting counter-0: "));
    EXPECT_EQ(written(), before) << "a halt writes nothing";
    EXPECT_TRUE(restores_.empty()) << "nor does it touch the store";
    return;
  }
  ASSERT_TRUE(result.has_value()) << result.error().message;
  if (last != "fresh") {
    EXPECT_EQ(written(), before) << "nothing that was committed is committed again";
  }
  EXPECT_EQ(read_meta(*store_)->sequence, mark().sequence);
  EXPECT_EQ(recompute_digest(*store_, spec_)->hex(), read_meta(*store_)->digest.hex());
  EXPECT_EQ(read_meta(*store_)->tally.delivered, static_cast<uint64_t>(outputs()));
}

INSTANTIATE_TEST_SUITE_P(Rows, TableOnAStore, testing::Range(1, 23),
                         [](const auto& row) { return "row_" + std::to_string(row.param); });

}  // namespace
}  // namespace assay::streams
