// Checkpoints over a growing chain: cosigned, provable, refused when the chain was written anew; and the witness that sees to it.
#include "streams/checkpointer.h"

#include "processors/merkle_proof.h"
#include "streams/archive_files.h"
#include "streams/audit_proof.h"
#include "streams/id_index.h"
#include "streams/witness.h"
#include "tests/unit/audit_export.h"

namespace assay::testing {
namespace {

class Checkpoints : public ::testing::Test {
 protected:
  static constexpr int kRows = 900;  // more than three tiles

  void SetUp() override {
    signer_ = test_signer(dir_);
    rows_ = make_rows(make_records(kRows, 5, 400), *signer_, head_);
    log_key_ = note_signer("log", NoteKeyType::kLog)->key();
    witness_ = open_witness();
    CheckpointerOptions options;
    options.dir = dir_ / "tlog";
    options.policy = NotePolicy::all_of({{"w1", witness_->key(), "http://w1"}});
    options.ask = [this](const NotePolicy::Witness&, const std::string& body) -> Result<std::pair<int, std::string>> {
      if (witness_ == nullptr) return Error{Errc::kUnreachable, "nobody there"};
      const WitnessAnswer answer = witness_->add_checkpoint(body, ++now_s_);
      return std::pair(answer.status, answer.body);
    };
    options.on_absent = [this](const NotePolicy::Witness& witness, const std::string& what) {
      troubles_.push_back(witness.name + ": " + what);
    };
    for (auto* published : {&published_, &published_besides_})
      options.places.push_back([this, published](const Checkpoint& checkpoint, const std::string& note) -> Result<void> {
        if (published == &published_ && archive_down_) return Error{Errc::kUnreachable, "the archive is down"};
        EXPECT_NE((*published)[checkpoint.size], note) << "told twice";
        (*published)[checkpoint.size] = note;
        return {};
      });
    options_ = options;
    checkpointer_ = open_checkpointer();
  }

  std::unique_ptr<NoteSigner> note_signer(const std::string& name, NoteKeyType type) {
    return open_note_signer({dir_ / (name + ".key"), name, type, true}).value();
  }
  std::unique_ptr<Witness> open_witness() {
    return Witness::open({dir_ / "witness", {log_key_}, false}, note_signer("w1", NoteKeyType::kCosignature)).value();
  }
  std::unique_ptr<Checkpointer> open_checkpointer() {
    return Checkpointer::open(options_, note_signer("log", NoteKeyType::kLog)).value();
  }

  /// The first `count` rows, as any source gives those after a sequence.
  Checkpointer::OpenChain chain(size_t count) {
    return [this, count](int64_t after) -> Result<StoredChain> {
      asked_after_ = after;
      StoredChain out;
      std::vector<StoredLine> lines;
      for (size_t i = static_cast<size_t>(after); i < count; ++i)
        lines.push_back({audit_line(rows_[i]), "row " + std::to_string(i + 1), 0});
      out.lines = [lines]() mutable -> Result<std::vector<StoredLine>> { return std::exchange(lines, {}); };
      return out;
    };
  }

  /// The log's memory is gone, as if its directory were new.
  void forget() {
    checkpointer_.reset();
    std::filesystem::remove_all(dir_ / "tlog");
    published_.clear();
    published_besides_.clear();
    checkpointer_ = open_checkpointer();
  }

  Result<std::optional<MadeCheckpoint>> make(size_t count) { return checkpointer_->make(chain(count)); }

  TempDir dir_;
  std::shared_ptr<Signer> signer_;
  ChainState head_;
  std::vector<SignedRow> rows_;
  NoteKey log_key_;
  std::unique_ptr<Witness> witness_;
  CheckpointerOptions options_;
  std::unique_ptr<Checkpointer> checkpointer_;
  std::vector<std::string> troubles_;
  std::map<uint64_t, std::string> published_, published_besides_;
  bool archive_down_ = false;
  int64_t now_s_ = 1777636800, asked_after_ = -1;
};

TEST_F(Checkpoints, GrowWithTheChainAndAreCosigned) {
  EXPECT_FALSE(make(0)->has_value());
  const MadeCheckpoint first = *make(300).value();
  EXPECT_EQ(first.checkpoint.size, 300u);
  EXPECT_EQ(first.cosignatures, 1u);
  EXPECT_FALSE(make(300)->has_value()) << "nothing is new";
  const MadeCheckpoint second = *make(kRows).value();
  EXPECT_EQ(asked_after_, 299) << "only the last known row and the new ones are read";
  const NotePolicy policy = NotePolicy::parse(read_text(dir_ / "tlog/policy")).value();
  for (const MadeCheckpoint& made : {first, second}) {
    EXPECT_TRUE(policy.judge(Note::parse(made.note).value(), true).fault.empty());
    EXPECT_EQ(read_text(dir_ / "tlog/" + checkpoint_file(made.checkpoint.size)), made.note);
    EXPECT_EQ(published_.at(made.checkpoint.size), made.note);
  }
  EXPECT_EQ(read_text(dir_ / "tlog/checkpoint"), second.note);
  checkpointer_.reset();
  for (auto* published : {&published_, &published_besides_}) published->clear();
  checkpointer_ = open_checkpointer();
  EXPECT_FALSE(make(kRows)->has_value()) << "a new process takes it up";
  EXPECT_EQ(published_.at(kRows), second.note) << "whether the one before got to it is not known";
}

TEST_F(Checkpoints, TilesThatAreLostAreMadeAgain) {
  ASSERT_TRUE(make(600)->has_value());
  for (const char* damage : {"tile/0/002.p/88", "tile/1/000.p/2"}) {
    std::string bytes = read_text(dir_ / (std::string("tlog/") + damage));
    bytes[5] ^= 1;
    write_text(dir_ / (std::string("tlog/") + damage), bytes);
    EXPECT_FALSE(make(600)->has_value());
    EXPECT_EQ(asked_after_, 0);
    std::filesystem::remove(dir_ / (std::string("tlog/") + damage));
    EXPECT_FALSE(make(600)->has_value());
  }
  EXPECT_EQ(make(kRows).value()->checkpoint.size, static_cast<uint64_t>(kRows));
}

TEST_F(Checkpoints, AChainWrittenAnewIsRefused) {
  ASSERT_TRUE(make(600)->has_value());
  const std::vector<SignedRow> good = rows_;
  EXPECT_EQ(make(500).error().code, Errc::kTampered) << "rows are gone";
  ChainState state;
  std::vector<Record> records = make_records(kRows, 5, 400);
  records[590].value = event_value(5000);
  rows_ = make_rows(records, *signer_, state);  // by one who holds the signing key
  EXPECT_EQ(make(kRows).error().code, Errc::kTampered) << "the new rows do not follow the last one";
  std::filesystem::remove_all(dir_ / "tlog/tile");
  EXPECT_EQ(make(kRows).error().code, Errc::kTampered) << "the old ones are not those that were signed";
  forget();  // and now he holds the log's key and directory as well
  auto refused = make(kRows);
  ASSERT_FALSE(refused) << (*refused ? (*refused)->note : "nothing made");
  EXPECT_NE(refused.error().message.find("witness w1 refused"), std::string::npos) << refused.error().message;
  forget();
  rows_.resize(400);
  EXPECT_NE(make(400).error().message.find("cosigned another chain, of 600 rows"), std::string::npos);
  rows_ = good;
  forget();
  EXPECT_TRUE(make(kRows)->has_value());
}

TEST_F(Checkpoints, AWitnessThatDoesNotAnswerIsAskedAgain) {
  witness_.reset();
  EXPECT_EQ(make(300).value()->cosignatures, 0u);
  EXPECT_EQ(troubles_.size(), 1u);
  EXPECT_FALSE(make(300)->has_value());
  witness_ = open_witness();
  EXPECT_EQ(make(300).value()->cosignatures, 1u) << "the same checkpoint, cosigned later";
  // An answer that was lost: the witness is ahead of what the log knows.
  std::filesystem::copy(dir_ / "tlog", dir_ / "before", std::filesystem::copy_options::recursive);
  ASSERT_TRUE(make(500)->has_value());
  checkpointer_.reset();
  std::filesystem::remove_all(dir_ / "tlog");
  std::filesystem::rename(dir_ / "before", dir_ / "tlog");
  checkpointer_ = open_checkpointer();
  EXPECT_EQ(make(700).value()->cosignatures, 1u);
}

TEST_F(Checkpoints, WhatCouldNotBePublishedIsPublishedLater) {
  archive_down_ = true;
  EXPECT_EQ(make(300).error().code, Errc::kUnreachable);
  EXPECT_EQ(published_besides_.size(), 1u) << "one place waits for no other";
  EXPECT_EQ(checkpointer_->newest()->checkpoint.size, 300u) << "it was made";
  archive_down_ = false;
  EXPECT_FALSE(make(300)->has_value());
  EXPECT_EQ(published_, published_besides_);
}

TEST_F(Checkpoints, OnesThatOthersMadeAreContinued) {
  const std::string mine = make(300).value()->note, later = make(600).value()->note;
  forget();
  ASSERT_TRUE(checkpointer_->hear(mine));
  ASSERT_TRUE(checkpointer_->hear(later));
  ASSERT_TRUE(checkpointer_->hear(mine)) << "an older one says nothing new";
  EXPECT_EQ(checkpointer_->newest()->note, later);
  EXPECT_EQ(read_text(dir_ / "tlog/" + checkpoint_file(600)), later);
  std::vector<SignedRow> good = rows_;
  rows_.resize(400);
  EXPECT_EQ(make(400).error().code, Errc::kTampered) << "the owner of the rows cannot make the others forgotten";
  rows_ = good;
  EXPECT_EQ(make(kRows).value()->cosignatures, 1u) << "its tiles are made again";
  EXPECT_EQ(asked_after_, 0);
  // Another chain under this log's key, another key in this log's name, and another log, which is none of our business.
  const auto log = note_signer("log", NoteKeyType::kLog);
  Checkpoint fork{"log", kRows, sha256("another tree"), {}};
  EXPECT_EQ(checkpointer_->hear(Note{fork.to_text(), {log->sign(fork.to_text()).value()}}.to_text()).error().code, Errc::kTampered);
  auto other_key = NoteSigner::open(test_signer(dir_, "other"), "log", NoteKeyType::kLog).value();
  EXPECT_EQ(checkpointer_->hear(Note{fork.to_text(), {other_key->sign(fork.to_text()).value()}}.to_text()).error().code,
            Errc::kRefused);
  fork.origin = "elsewhere";
  EXPECT_TRUE(checkpointer_->hear(Note{fork.to_text(), {other_key->sign(fork.to_text()).value()}}.to_text()));
  // What strangers wrote below a note does not stay there.
  forget();
  Note decorated = Note::parse(later).value();
  decorated.signatures.insert(decorated.signatures.begin(), NoteSignature{"stranger", 7, std::string(64, 'x')});
  ASSERT_TRUE(checkpointer_->hear(decorated.to_text()));
  EXPECT_EQ(checkpointer_->newest()->note, later);
}

TEST_F(Checkpoints, ACrashAtAnyStepLeavesATreeThatIsWhole) {
  constexpr size_t kGrowth[] = {200, 300, 600, 600, kRows};
  // What must be there in the end, and of which every file on the way is the beginning.
  std::map<std::string, std::string> tiles;
  std::map<uint64_t, Sha256Digest> roots;
  TileBuilder reference([&](const std::string& name, std::string_view bytes) -> Result<void> {
    tiles[name] = bytes;
    return {};
  });
  for (const SignedRow& row : rows_) {
    ASSERT_TRUE(reference.add(processors::merkle_leaf(as_bytes(row.row.hash))));
    roots[reference.size()] = reference.root();
  }
  ASSERT_TRUE(reference.write_partial());
  checkpointer_.reset();
  options_.policy = {};
  options_.places.clear();
  int crash = 0;
  for (bool crashed = true; crashed; ++crash) {
    std::filesystem::remove_all(dir_ / "tlog");
    std::string at;
    std::vector<std::string> unsynced;
    int steps = 0;
    bool syncing = false;
    CheckpointerOptions options = options_;
    options.before_step = [&](const std::string& step) -> Result<void> {
      if (std::exchange(syncing, false)) unsynced.clear();
      if (steps++ == crash) {
        at = step;
        return Error{Errc::kUnexpected, "crash"};
      }
      if (step.starts_with("write ")) unsynced.push_back(step.substr(6));
      syncing = step == "sync";
      return {};
    };
    auto checkpointer = Checkpointer::open(options, note_signer("log", NoteKeyType::kLog));
    for (size_t count : kGrowth)
      if (at.empty()) (void)(*checkpointer)->make(chain(count));
    crashed = !at.empty();
    // The power is gone: what was not synced is torn, and so is what was being written.
    if (at.starts_with("write ")) unsynced.push_back(at.substr(6));
    for (const std::string& name : unsynced) {
      const std::string path = dir_ / ("tlog/" + name);
      std::string bytes = std::filesystem::exists(path) ? read_text(path) : std::string("\0torn", 5);
      bytes.resize(bytes.size() / 2);
      std::filesystem::create_directories(std::filesystem::path(path).parent_path());
      write_text(path, bytes);
    }
    if (at == "newest") write_text(dir_ / "tlog/checkpoint.tmp", "torn");
    std::filesystem::create_directories(dir_ / "tlog/checkpoints");
    if (at == "list") write_text(dir_ / ("tlog/" + checkpoint_file(200) + ".tmp"), "torn");

    if (checkpointer) checkpointer->reset();
    auto again = Checkpointer::open(options_, note_signer("log", NoteKeyType::kLog));
    ASSERT_TRUE(again) << at << ": " << again.error().message;
    for (size_t count : {size_t{600}, rows_.size()}) {
      auto made = (*again)->make(chain(count));
      const bool behind = (*again)->newest() && (*again)->newest()->checkpoint.size > count;
      ASSERT_TRUE(made || behind) << "before step " << crash << ", " << at << ": " << made.error().message;
    }
    size_t unfinished = 0;
    for (const std::string& name : files_of(dir_ / "tlog")) {
      const std::string bytes = read_text(dir_ / ("tlog/" + name));
      if (auto place = parse_tile_name(name)) {
        const uint64_t width = tile_width(rows_.size(), place->level, place->index);
        const std::string& whole = tiles.at(tile_name(place->level, place->index, width));
        EXPECT_EQ(bytes, whole.substr(0, place->width * 32)) << name << " after a crash before " << at;
        unfinished += place->width != kTileWidth;
      } else if (name.ends_with(".note")) {
        const Checkpoint head = Checkpoint::parse(Note::parse(bytes).value().text).value();
        EXPECT_EQ(head.root, roots.at(head.size)) << name << " after a crash before " << at;
      }
    }
    for (const auto& [name, bytes] : tiles) EXPECT_EQ(read_text(dir_ / ("tlog/" + name)), bytes) << name << ", " << at;
    EXPECT_LE(unfinished, 4u) << "those of two checkpoints stay, after a crash before " << at;
    EXPECT_EQ(read_text(dir_ / "tlog/checkpoint"), read_text(dir_ / ("tlog/" + checkpoint_file(rows_.size()))));
    for (size_t sequence : {1, 256, 300, 600, 900})
      EXPECT_EQ(find_in_id_index(dir_ / "tlog", rows_[sequence - 1].row.id), std::vector{static_cast<int64_t>(sequence)}) << at;
  }
  EXPECT_GT(crash, 30);
}

TEST(IdIndex, KnowsEveryRowAndIsTakenUpAnywhere) {
  TempDir dir;
  const TileWriter write = [&](const std::string& name, std::string_view bytes) {
    return write_file(dir.path(), name, bytes, false);
  };
  auto id = [](uint64_t sequence) { return "av-" + place_id("t", 0, Offset(static_cast<int64_t>(sequence))).hex(); };
  constexpr uint64_t kSize = kIdSegmentRows * 2 + 500;
  IdIndexBuilder whole(write);
  for (uint64_t sequence = 1; sequence <= kSize; ++sequence) ASSERT_TRUE(whole.add(id(sequence)));
  ASSERT_TRUE(whole.write_partial());
  for (uint64_t sequence : {uint64_t{1}, uint64_t{2}, kIdSegmentRows, kIdSegmentRows + 1, kIdSegmentRows * 2 + 1, kSize})
    EXPECT_EQ(find_in_id_index(dir.path(), id(sequence)), std::vector{static_cast<int64_t>(sequence)});
  EXPECT_TRUE(find_in_id_index(dir.path(), id(kSize + 1)).empty());
  EXPECT_TRUE(find_in_id_index(dir / "nowhere", id(1)).empty());
  // Left at any size and taken up again, it is the same.
  std::map<std::string, std::string> parts;
  const TileWriter collect = [&](const std::string& name, std::string_view bytes) -> Result<void> {
    parts[name] = bytes;
    return {};
  };
  const TileReader read = [&](const std::string& name) -> Result<std::string> { return parts.at(name); };
  IdIndexBuilder part(collect);
  for (uint64_t sequence = 1; sequence <= kSize; ++sequence) {
    ASSERT_TRUE(part.add(id(sequence)));
    if (sequence % 50'001 != 0 && sequence != kIdSegmentRows) continue;
    ASSERT_TRUE(part.write_partial());
    part = IdIndexBuilder::resume(sequence, read, collect).value();
    EXPECT_EQ(part.size(), sequence);
  }
  ASSERT_TRUE(part.write_partial());
  for (const std::string& name : files_of(dir.path())) EXPECT_EQ(parts.at(name), read_text(dir / name)) << name;
  std::string& last = parts.at(id_segment_name(kSize, kSize));
  last[7] = static_cast<char>(last[7] ^ 1);
  EXPECT_EQ(IdIndexBuilder::resume(kSize, read, collect).error().code, Errc::kCorrupt) << "two entries for one row";
  for (const char* name : {"ids/000000000001-000000065537", "ids/000000000002-000000000003", "ids/1-2", "ids/000000000001", "ids/"})
    EXPECT_FALSE(parse_id_segment_name(name)) << name;
}

TEST_F(Checkpoints, ProofsHoldAndChangedOnesDoNot) {
  const std::string first = make(300).value()->note, second = make(kRows).value()->note;
  const NotePolicy policy = checkpointer_->policy();
  SignerRegistry keys;
  ASSERT_TRUE(keys.add({signer_->key(), {}, {}, false}));
  const TileReader tiles = directory_tiles(dir_ / "tlog");
  for (int64_t sequence : {1, 255, 256, 257, 300, 900}) {
    const std::string line = audit_line(rows_[static_cast<size_t>(sequence) - 1]);
    const std::string proof = canonical(prove_inclusion(tiles, kRows, sequence, line, sequence <= 300 ? first : second).value());
    const ProofVerdict verdict = check_proof(proof, policy, &keys);
    EXPECT_EQ(verdict.fault, "") << sequence;
    EXPECT_NE(verdict.sentence.find("cosigned by w1"), std::string::npos) << verdict.sentence;
    EXPECT_NE(check_proof(proof, policy, nullptr).sentence.find("not checked"), std::string::npos);
  }
  EXPECT_EQ(prove_inclusion(tiles, kRows, 301, audit_line(rows_[300]), first).error().code, Errc::kUsage);
  const std::string wrong_row = canonical(prove_inclusion(tiles, kRows, 17, audit_line(rows_[17]), second).value());
  EXPECT_EQ(check_proof(wrong_row, policy, &keys).exit_code(), 4) << "another row's path";
  const std::string consistency = canonical(prove_consistency(tiles, kRows, first, second).value());
  EXPECT_EQ(check_proof(consistency, policy, nullptr).fault, "");
  EXPECT_EQ(prove_consistency(tiles, kRows, second, first).error().code, Errc::kUsage);
  const std::string inclusion = canonical(prove_inclusion(tiles, kRows, 17, audit_line(rows_[16]), second).value());
  for (const std::string& proof : {inclusion, consistency})
    for (size_t i = 0; i < proof.size(); ++i) {
      std::string changed = proof;
      changed[i] = static_cast<char>(changed[i] ^ (1 << (i % 7)));
      ASSERT_NE(check_proof(changed, policy, &keys).fault, "") << "byte " << i << " of " << proof;
    }
  NotePolicy strangers = NotePolicy().with_log(note_signer("other", NoteKeyType::kLog)->key());
  EXPECT_EQ(check_proof(inclusion, strangers, &keys).exit_code(), 4);
}

TEST_F(Checkpoints, TheWitnessAnswersAsTheProtocolSays) {
  const auto log = note_signer("log", NoteKeyType::kLog);
  std::vector<Sha256Digest> leaves;
  for (int i = 0; i < 20; ++i) leaves.push_back(processors::merkle_leaf(std::to_string(i)));
  std::map<std::string, std::string> files;
  TileBuilder builder([&](const std::string& name, std::string_view bytes) -> Result<void> {
    files[name] = bytes;
    return {};
  });
  std::map<uint64_t, Checkpoint> at;
  for (const Sha256Digest& leaf : leaves) {
    ASSERT_TRUE(builder.add(leaf));
    ASSERT_TRUE(builder.write_partial());
    at[builder.size()] = {"log", builder.size(), builder.root(), {}};
  }
  auto body = [&](uint64_t old_size, uint64_t size, const NoteSigner& by) {
    AddCheckpoint request{old_size, {}, {}};
    if (old_size > 0 && old_size <= size) {
      TileTree tree([&](const std::string& name) -> Result<std::string> { return files.at(name); }, size);
      request.proof = tree.hashes_of(processors::consistency_ranges(old_size, size)).value();
    }
    const std::string text = at.at(size).to_text();
    request.note = Note{text, {by.sign(text).value()}}.to_text();
    return request.to_text();
  };
  EXPECT_EQ(AddCheckpoint::parse(body(0, 5, *log))->to_text(), body(0, 5, *log));
  WitnessAnswer answer = witness_->add_checkpoint(body(3, 5, *log), 1);
  EXPECT_EQ(answer.status, 409);
  EXPECT_EQ(answer.body, "0\n");
  EXPECT_EQ(answer.content_type, "text/x.tlog.size");
  answer = witness_->add_checkpoint(body(0, 5, *log), 1777636800);
  ASSERT_EQ(answer.status, 200) << answer.body;
  Note cosigned = Note::parse(Note{at[5].to_text(), {log->sign(at[5].to_text()).value()}}.to_text() + answer.body).value();
  int64_t time_s = 0;
  EXPECT_EQ(signed_by(cosigned, witness_->key(), &time_s), Signed::kHolds);
  EXPECT_EQ(time_s, 1777636800);
  EXPECT_EQ(witness_->add_checkpoint(body(5, 5, *log), 2).status, 200) << "the same again";
  EXPECT_EQ(witness_->add_checkpoint(body(0, 9, *log), 2).body, "5\n") << "it remembers";
  EXPECT_EQ(witness_->add_checkpoint(body(9, 5, *log), 2).status, 400);
  EXPECT_EQ(witness_->add_checkpoint("hello", 2).status, 400);
  EXPECT_EQ(witness_->add_checkpoint("old 05\n\n" + cosigned.to_text(), 2).status, 400);
  const auto stranger = note_signer("stranger", NoteKeyType::kLog);
  EXPECT_EQ(witness_->add_checkpoint(body(5, 9, *stranger), 2).status, 403);
  Checkpoint other = at[9];
  other.origin = "stranger";
  const std::string text = other.to_text();
  EXPECT_EQ(
      witness_->add_checkpoint(AddCheckpoint{0, {}, Note{text, {stranger->sign(text).value()}}.to_text()}.to_text(), 2).status,
      404);
  witness_.reset();
  witness_ = open_witness();
  EXPECT_EQ(witness_->add_checkpoint(body(0, 9, *log), 2).body, "5\n") << "after a restart as well";
  // A fork: the log's key signs another tree.
  at[9].root = sha256("another tree");
  EXPECT_EQ(witness_->add_checkpoint(body(5, 9, *log), 2).status, 422);
  at[5].root = sha256("another tree");
  answer = witness_->add_checkpoint(body(5, 5, *log), 2);
  EXPECT_EQ(answer.status, 409);
  EXPECT_EQ(answer.body, "5\n");
  EXPECT_EQ(witness_->add_checkpoint(body(5, 20, *log), 2).status, 200);
  EXPECT_EQ(Witness::open({dir_ / "witness", {log_key_}, false}, note_signer("w1", NoteKeyType::kCosignature)).error().code,
            Errc::kRefused)
      << "one process at a time";
}

}  // namespace
}  // namespace assay::testing
