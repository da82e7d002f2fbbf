// The tamper matrix: what somebody changes, what the verifier then says of which row, and what the original's rules would have
// said.
#include <algorithm>
#include <cstdio>

#include "streams/audit_verify.h"
#include "streams/checkpointer.h"
#include "streams/witness.h"
#include "tests/unit/audit_export.h"

namespace assay::testing {
namespace {

namespace fs = std::filesystem;

constexpr int kRows = 8, kFirstCheckpoint = 5;

/// An export of eight rows with two witnessed checkpoints, a retired and a revoked key beside the one in use.
class Tamper : public ::testing::Test {
 protected:
  void SetUp() override {
    signer_ = test_signer(dir_, "signer");
    retired_ = test_signer(dir_, "retired");
    revoked_ = test_signer(dir_, "revoked");
    rows_ = make_rows(records(), *signer_, head_);
    CHECK(keys_.add({signer_->key(), {}, {}, false}).has_value());
    CHECK(keys_.add({retired_->key(), {}, 2, false}).has_value());
    CHECK(keys_.add({revoked_->key(), {}, {}, true, "stolen"}).has_value());
    write_text(dir_ / "pinned.json", keys_.to_json());

    witness_ = Witness::open({dir_ / "witness", {note_signer("log", NoteKeyType::kLog)->key()}, false},
                             note_signer("w1", NoteKeyType::kCosignature))
                   .value();
    CheckpointerOptions options;
    options.dir = dir_ / "tlog";
    options.policy = NotePolicy::all_of({{"w1", witness_->key(), ""}});
    options.ask = [this](const NotePolicy::Witness&, const std::string& body) -> Result<std::pair<int, std::string>> {
      const WitnessAnswer answer = witness_->add_checkpoint(body, 1777636900);
      return std::pair(answer.status, answer.body);
    };
    auto checkpointer = Checkpointer::open(options, note_signer("log", NoteKeyType::kLog)).value();
    for (int rows : {kFirstCheckpoint, kRows})
      CHECK(checkpointer->make([&](int64_t after) -> Result<StoredChain> {
        StoredChain chain;
        std::vector<StoredLine> lines;
        for (int64_t i = after; i < rows; ++i) lines.push_back({audit_line(rows_[static_cast<size_t>(i)]), "row", 0});
        chain.lines = [lines]() mutable -> Result<std::vector<StoredLine>> { return std::exchange(lines, {}); };
        return chain;
      }));
    policy_ = checkpointer->policy();
    last_note_ = read_text(dir_ / "tlog/checkpoint");
    write_export(rows_);
    file_ = files_of(out_ + "/audit-events").front();
    options_.threads = 1;
    options_.pinned = keys_;
    options_.policy = policy_;
  }

  static std::vector<Record> records() {
    std::vector<Record> out;
    for (int i = 0; i < kRows; ++i) out.push_back({i, kNoonMs + i, event_value(static_cast<uint64_t>(i), "grüße"), std::nullopt});
    return out;
  }

  std::unique_ptr<NoteSigner> note_signer(const std::string& name, NoteKeyType type) {
    return open_note_signer({dir_ / (name + ".key"), name, type, true}).value();
  }

  /// An export made by whoever holds the signing key.
  void write_export(const std::vector<SignedRow>& rows, const std::string& checkpoint_dir = "tlog") {
    fs::remove_all(out_);
    std::vector<StoredLine> lines;
    for (const SignedRow& row : rows) lines.push_back({audit_line(row), "row", 0});
    StoredChain chain;
    chain.complete = false;
    chain.signers = keys_;
    chain.lines = [lines]() mutable -> Result<std::vector<StoredLine>> { return std::exchange(lines, {}); };
    CHECK(export_archive(std::move(chain), out_, *signer_, {}, checkpoint_dir.empty() ? "" : dir_ / checkpoint_dir).has_value());
  }

  std::vector<std::string> lines() const {
    std::vector<std::string> out;
    for (const SignedRow& row : rows_) out.push_back(audit_line(row));
    return out;
  }

  /// Puts lines in the place of the export's, as one does who can write the file and holds no key.
  void overwrite(const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    write_text(out_ + "/audit-events/" + file_, gzip(text));
  }

  VerifyReport verify() { return verify_archive(out_, options_).value(); }

  /// The rows as a database gives them.
  VerifyReport verify_as_database(const std::vector<std::string>& lines) {
    StoredChain chain;
    chain.head = head_;
    std::vector<StoredLine> stored;
    for (size_t i = 0; i < lines.size(); ++i)
      stored.push_back({lines[i], "audit_events sequence " + std::to_string(i + 1), static_cast<int64_t>(i) + 1});
    chain.lines = [stored]() mutable -> Result<std::vector<StoredLine>> { return std::exchange(stored, {}); };
    return verify_chain(chain, options_).value();
  }

  /// The first of the original's rules that the exported rows break; 0: none; -1: it could not read them.
  int original(const std::string& dir) {
    std::string command = "python3 -B " + std::string(ASSAY_SOURCE_DIR) + "/tests/oracle/audit_compat.py --signers " +
                          dir_ / "pinned.json" + " --rows";
    for (const std::string& name : files_of(dir + "/audit-events")) command += " " + dir + "/audit-events/" + name;
    FILE* pipe = ::popen((command + " 2>&1").c_str(), "r");
    CHECK(pipe != nullptr);
    std::string output;
    char buffer[4096];
    for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, n);
    const int status = ::pclose(pipe);
    if (status == 0) return 0;
    const size_t violated = output.find("  violated");
    if (violated == output.npos) return -1;
    const size_t line = output.rfind('\n', violated) + 1;
    return std::atoi(output.c_str() + line);
  }

  /// Changes row `n` (from 1), hashes and links it and all that follow again, and signs those with `by`.
  std::vector<SignedRow> forged(int n, Signer* by) {
    std::vector<SignedRow> rows = rows_;
    std::string& payload = rows[static_cast<size_t>(n) - 1].row.payload;
    payload.replace(payload.find("agent-"), 6, "Agent-");
    for (size_t i = static_cast<size_t>(n) - 1; i < rows.size(); ++i) {
      if (i > 0) rows[i].row.prev_hash = rows[i - 1].row.hash;
      rows[i].row.hash = processors::chain_hash(rows[i].row.payload, rows[i].row.prev_hash);
      if (by != nullptr) rows[i].signature = to_base64(by->sign(rows[i].row.hash).value());
      if (by != nullptr) rows[i].signer_kid = by->key().signer_id;
    }
    return rows;
  }

  TempDir dir_;
  const std::string out_ = dir_ / "export";
  std::string file_, last_note_;
  std::shared_ptr<Signer> signer_, retired_, revoked_;
  SignerRegistry keys_;
  ChainState head_;
  std::vector<SignedRow> rows_;
  std::unique_ptr<Witness> witness_;
  NotePolicy policy_;
  VerifyOptions options_;
};

/// Replaces the first `from` in the text.
std::string with(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  CHECK(at != text.npos);
  return text.replace(at, from.size(), to);
}

/// Another base64 or hex digit at a place of the member's value.
std::string spoiled(std::string line, const std::string& member, size_t at) {
  const size_t begin = line.find("\"" + member + "\":\"") + member.size() + 4 + at;
  line[begin] = line[begin] == 'a' ? 'b' : 'a';
  return line;
}

TEST_F(Tamper, ASoundExportIsWitnessed) {
  const VerifyReport report = verify();
  ASSERT_TRUE(report.verified()) << to_text(report);
  EXPECT_EQ(report.checkpoints, 2);
  EXPECT_EQ(report.witnessed_rows, kRows);
  EXPECT_EQ(sentence(report),
            "Rows 1 to 8 are whole and signed; that row 8 was then the last was witnessed by w1 at 2026-05-01T12:01:40.000Z.");
  EXPECT_EQ(original(out_), 0);
}

TEST_F(Tamper, AnExportWhoseFileIsChanged) {
  using Lines = std::vector<std::string>;
  struct Case {
    const char* what;
    std::function<void(Lines&)> change;
    const char* check;  // of the first finding
    int64_t row;
    int original;             // rule that the original's verifier finds broken; 0: it sees nothing
    bool equivalent = false;  // in a database, which keeps values, it means the same
  };
  const Case cases[] = {
      {"payload", [](Lines& l) { l[3] = with(l[3], "agent-", "Agent-"); }, "hash", 4, 7},
      {"key order",
       [](Lines& l) {
         l[3] = with(with(l[3], "\"actor\":\"assay\",", ""), "\"eventType\":", "\"actor\":\"assay\",\"eventType\":");
       },
       "form", 4, 0, true},
      {"number form", [](Lines& l) { l[3] = with(l[3], "\"score\":0.8761", "\"score\":8.761e-1"); }, "form", 4, 0, true},
      {"unicode form", [](Lines& l) { l[3] = with(l[3], "gr\u00fc", "gr\\u00fc"); }, "form", 4, 0, true},
      {"blank between tokens", [](Lines& l) { l[3] = with(l[3], "\"data\":{", "\"data\": {"); }, "form", 4, 0, true},
      {"prev_hash", [](Lines& l) { l[3] = spoiled(l[3], "prev_hash", 5); }, "hash", 4, 4},
      {"hash", [](Lines& l) { l[3] = spoiled(l[3], "hash", 5); }, "hash", 4, 4},
      {"signature", [](Lines& l) { l[3] = spoiled(l[3], "signature", 9); }, "signature", 4, 8},
      {"signature of another row", [this](Lines& l) { l[3] = with(l[3], rows_[3].signature, rows_[4].signature); }, "signature", 4,
       8},
      {"signer unknown", [](Lines& l) { l[3] = with(l[3], "\"signer_kid\":\"", "\"signer_kid\":\"x"); }, "signature", 4, 13},
      {"signer another", [this](Lines& l) { l[3] = with(l[3], signer_->key().signer_id, revoked_->key().signer_id); }, "signature",
       4, 8},
      {"time", [](Lines& l) { l[3] = with(l[3], ".003000Z", ".003001Z"); }, "created_at", 4, 0},
      {"time, before the row before", [](Lines& l) { l[3] = with(l[3], ".003000Z", ".001500Z"); }, "created_at", 4, 2},
      {"id beside the payload", [](Lines& l) { l[3] = spoiled(l[3], "id", 7); }, "metadata", 4, 0},
      {"event_type beside the payload", [](Lines& l) { l[3] = with(l[3], "promotion.applied", "promotion.revoked"); }, "metadata",
       4, 0},
      {"signature taken away", [this](Lines& l) { l[3] = with(l[3], rows_[3].signature, ""); }, "signature", 4, 5},
      {"row taken out", [](Lines& l) { l.erase(l.begin() + 3); }, "link", 4, 4},
      {"row of another place put in", [](Lines& l) { l.insert(l.begin() + 3, l[6]); }, "link", 4, 2},
      {"row doubled", [](Lines& l) { l.insert(l.begin() + 3, l[3]); }, "link", 5, 2},
      {"two rows swapped", [](Lines& l) { std::swap(l[3], l[4]); }, "link", 4, 2},
      {"order turned round", [](Lines& l) { std::reverse(l.begin(), l.end()); }, "link", 1, 2},
      {"head cut off", [](Lines& l) { l.erase(l.begin(), l.begin() + 2); }, "link", 1, 4},
      {"tail cut off", [](Lines& l) { l.resize(6); }, "checkpoint", 0, 0},
      {"all rows taken away", [](Lines& l) { l.clear(); }, "checkpoint", 0, 1},
      {"forged row at the end, without key",
       [this](Lines& l) {
         SignedRow row = rows_.back();
         row.row.prev_hash = rows_.back().row.hash;
         row.row.hash = processors::chain_hash(row.row.payload, row.row.prev_hash);
         l.push_back(audit_line(row));
       },
       "signature", 9, 2},
      {"chained anew from row 4 by the owner of the database",
       [this](Lines& l) {
         l.clear();
         for (const SignedRow& row : forged(4, nullptr)) l.push_back(audit_line(row));
       },
       "signature", 4, 8},
  };
  for (const Case& one : cases) {
    std::vector<std::string> changed = lines();
    one.change(changed);
    overwrite(changed);
    const VerifyReport report = verify();
    ASSERT_EQ(report.exit_code(), 4) << one.what;
    EXPECT_EQ(report.findings.front().check, one.check) << one.what << "\n" << to_text(report);
    EXPECT_EQ(report.findings.front().sequence, one.row) << one.what << "\n" << to_text(report);
    EXPECT_TRUE(
        std::ranges::any_of(report.findings, [&](const Finding& f) { return f.check == "sha256" && f.place.ends_with(file_); }))
        << one.what << ": the file altered is named too";
    EXPECT_EQ(original(out_), one.original) << one.what;
    const VerifyReport stored = verify_as_database(changed);
    EXPECT_EQ(stored.exit_code(), one.equivalent ? 0 : 4) << one.what << " in a database\n" << to_text(stored);
    EXPECT_EQ(stored.equivalent_rows, one.equivalent ? 1 : 0) << one.what;
    std::printf("  %-55s %-11s row %lld   original: %s\n", one.what, one.check, static_cast<long long>(one.row),
                one.original == 0 ? "sees nothing" : ("rule " + std::to_string(one.original)).c_str());
  }
}

TEST_F(Tamper, AForgerWithAKey) {
  struct Case {
    const char* what;
    std::function<void()> change;
    const char* check;
    int64_t row;
    int original;
  };
  const Case cases[] = {
      {"re-signed by a retired key", [this] { write_export(forged(4, retired_.get())); }, "signature", 4, 0},
      {"re-signed by a revoked key", [this] { write_export(forged(4, revoked_.get())); }, "signature", 4, 0},
      {"re-signed by a key of his own",
       [this] {
         auto stranger = test_signer(dir_, "stranger");
         write_export(forged(4, stranger.get()));
       },
       "signature", 4, 13},
      {"chained and signed anew from row 4, checkpoints kept", [this] { write_export(forged(4, signer_.get())); }, "checkpoint", 5,
       0},
      {"chained and signed anew from row 7, checkpoints kept", [this] { write_export(forged(7, signer_.get())); }, "checkpoint", 8,
       0},
      {"the same, checkpoints thrown away; one is known from elsewhere",
       [this] {
         write_export(forged(7, signer_.get()), "");
         options_.checkpoints = {{"mail from the witness", last_note_}};
       },
       "checkpoint", 8, 0},
      {"an older export in its place; a checkpoint is known from elsewhere",
       [this] {
         write_export({rows_.begin(), rows_.begin() + 6});
       },
       "checkpoint", 0, 0},
      {"an older export in its place; an earlier head is known",
       [this] {
         write_export({rows_.begin(), rows_.begin() + 6});
         options_.checkpoints.clear();
         options_.earlier_head = EarlierHead{kRows, to_hex(as_bytes(head_.head_hash))};
       },
       "earlier head", 0, 0},
      {"the log's key too, but not the witness's: checkpoints of his own",
       [this] {
         write_export(forged(4, signer_.get()), "");
         options_.earlier_head.reset();
         Note note = Note::parse(last_note_).value();
         Checkpoint checkpoint = Checkpoint::parse(note.text).value();
         checkpoint.root = sha256("another tree");
         note.text = checkpoint.to_text();
         note.signatures[0] = note_signer("log", NoteKeyType::kLog)->sign(note.text);
         options_.checkpoints = {{"his own", note.to_text()}};
       },
       "checkpoint", 0, 0},
  };
  for (const Case& one : cases) {
    one.change();
    const VerifyReport report = verify();
    ASSERT_EQ(report.exit_code(), 4) << one.what << "\n" << to_text(report);
    EXPECT_EQ(report.findings.front().check, one.check) << one.what << "\n" << to_text(report);
    EXPECT_EQ(report.findings.front().sequence, one.row) << one.what << "\n" << to_text(report);
    EXPECT_EQ(original(out_), one.original) << one.what;
    std::printf("  %-70s %-12s row %lld   original: %s\n", one.what, one.check, static_cast<long long>(one.row),
                one.original == 0 ? "sees nothing" : ("rule " + std::to_string(one.original)).c_str());
  }
}

TEST_F(Tamper, WhoeverHoldsEveryKeyButTheWitnessesIsNotBelieved) {
  write_export(forged(4, signer_.get()), "");
  const VerifyReport report = verify();
  EXPECT_TRUE(report.verified()) << "nothing in the directory contradicts it";
  EXPECT_EQ(report.witnessed_rows, 0);
  EXPECT_NE(sentence(report).find("not proven: no checkpoint after it"), std::string::npos)
      << "and the verdict says what that is worth";
}

TEST_F(Tamper, TenThousandRandomEditsAreAllFound) {
  const std::string path = out_ + "/audit-events/" + file_, sound = gunzipped(path), packed = read_text(path);
  std::vector<size_t> row_ends;
  for (size_t at = sound.find('\n'); at != sound.npos; at = sound.find('\n', at + 1)) row_ends.push_back(at);
  std::mt19937_64 random(11);
  const std::vector<std::string> others = [&] {
    std::vector<std::string> names = files_of(out_);
    std::erase_if(names, [&](const std::string& name) { return name.ends_with(file_); });
    return names;
  }();
  int edits = 0;
  while (edits < 10000) {
    const bool in_rows = random() % 4 != 0;
    const std::string& other = others[random() % others.size()];
    const std::string place = in_rows ? path : out_ + "/" + other;
    const std::string before = in_rows ? sound : read_text(place);
    std::string text = before;
    const size_t at = random() % text.size();
    switch (random() % 4) {
      case 0:
        text[at] = static_cast<char>(random());
        break;
      case 1:
        text.insert(at, 1, static_cast<char>(random()));
        break;
      case 2:
        text.erase(at, 1 + random() % 3);
        break;
      default:
        text[at] = "0123456789abcdef\"{}[],: "[random() % 24];
    }
    if (text == before) continue;
    ++edits;
    write_text(place, in_rows ? gzip(text) : text);
    const VerifyReport report = verify();
    ASSERT_EQ(report.exit_code(), 4) << "byte " << at << " of " << place << "\n" << text;
    if (in_rows) {
      const int64_t row = 1 + (std::ranges::lower_bound(row_ends, at) - row_ends.begin());
      // What is put in where two rows meet may count to either.
      ASSERT_LE(std::abs(report.findings.front().sequence - row), at == 0 || sound[at - 1] == '\n' ? 1 : 0) << "byte " << at << "\n"
                                                                                                            << to_text(report);
    } else {
      ASSERT_TRUE(std::ranges::any_of(report.findings, [&](const Finding& f) { return f.place == other; })) << other << "\n"
                                                                                                            << to_text(report);
    }
    write_text(place, in_rows ? packed : before);
  }
  EXPECT_TRUE(verify().verified());
}

}  // namespace
}  // namespace assay::testing
