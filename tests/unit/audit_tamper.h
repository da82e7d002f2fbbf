// What the tamper matrix is made of: a witnessed chain, every way to change it, and the verdict that each medium must give.
#pragma once

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "streams/audit_verify.h"
#include "streams/checkpointer.h"
#include "streams/witness.h"
#include "tests/unit/audit_export.h"

namespace assay::testing {

namespace fs = std::filesystem;

/// Replaces the first `from` in the text.
inline std::string with(std::string text, const std::string& from, const std::string& to) {
  const size_t at = text.find(from);
  CHECK(at != text.npos);
  return text.replace(at, from.size(), to);
}

/// Another base64 or hex digit at a place of the member's value.
inline std::string spoiled(std::string line, const std::string& member, size_t at) {
  const size_t begin = line.find("\"" + member + "\":\"") + member.size() + 4 + at;
  line[begin] = line[begin] == 'a' ? 'b' : 'a';
  return line;
}

/// What the first finding says, and what the original's verifier would have said.
struct TamperVerdict {
  std::string check;  // empty: the rows mean the same (`equivalent`), which is no tampering
  int64_t row = 0;    // 0: no row in particular
  int original = 0;   // the rule that it finds broken; 0: it sees nothing
};

struct TamperCase {
  const char* what;
  std::function<void(std::vector<std::string>& lines)> change;
  TamperVerdict exported, stored;
  bool with_key = false;  // whoever does it signs what stands around the rows as well
};

constexpr int kTamperRows = 8, kFirstCheckpoint = 5;

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
    for (int rows : {kFirstCheckpoint, kTamperRows})
      CHECK(checkpointer->make([&](int64_t after) -> Result<StoredChain> {
        StoredChain chain;
        std::vector<StoredLine> lines;
        for (int64_t i = after; i < rows; ++i) lines.push_back({audit_line(rows_[static_cast<size_t>(i)]), "row", 0});
        chain.lines = [lines]() mutable -> Result<std::vector<StoredLine>> { return std::exchange(lines, {}); };
        return chain;
      }));
    policy_ = checkpointer->policy();
    write_text(dir_ / "policy", policy_.to_text());
    last_note_ = read_text(dir_ / "tlog/checkpoint");
    write_export(rows_);
    file_ = files_of(out_ + "/audit-events").front();
    options_.threads = 1;
    options_.pinned = keys_;
    options_.policy = policy_;
  }

  static std::vector<Record> records() {
    std::vector<Record> out;
    for (int i = 0; i < kTamperRows; ++i)
      out.push_back({i, kNoonMs + i, event_value(static_cast<uint64_t>(i), "grüße"), std::nullopt});
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

  static std::vector<std::string> lines_of(const std::vector<SignedRow>& rows) {
    std::vector<std::string> out;
    for (const SignedRow& row : rows) out.push_back(audit_line(row));
    return out;
  }
  std::vector<std::string> lines() const { return lines_of(rows_); }

  /// Puts lines in the place of the export's, as one does who can write the file and holds no key.
  void overwrite(const std::vector<std::string>& lines) {
    std::string text;
    for (const std::string& line : lines) text += line + "\n";
    write_text(out_ + "/audit-events/" + file_, gzip(text));
  }

  VerifyReport verify() { return verify_archive(out_, options_).value(); }

  /// The first of the original's rules that the rows break; 0: none; -1: it could not read them.
  int original_of(const std::string& words) const {
    const std::string command = "python3 -B " + std::string(ASSAY_SOURCE_DIR) + "/tests/oracle/audit_compat.py --signers " +
                                dir_ / "pinned.json" + " " + words + " 2>&1";
    FILE* pipe = ::popen(command.c_str(), "r");
    CHECK(pipe != nullptr);
    std::string output;
    char buffer[4096];
    for (size_t n; (n = std::fread(buffer, 1, sizeof buffer, pipe)) > 0;) output.append(buffer, n);
    const int status = ::pclose(pipe);
    if (status == 0) return 0;
    const size_t violated = output.find("  violated");
    if (violated == output.npos) return -1;
    return std::atoi(output.c_str() + output.rfind('\n', violated) + 1);
  }
  int original(const std::string& dir) const {
    std::string words = "--rows";
    for (const std::string& name : files_of(dir + "/audit-events")) words += " " + dir + "/audit-events/" + name;
    return original_of(words);
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

  /// Every way to change the rows, and what is then said of which row: of an export, where each byte counts, and of the relation in
  /// a database or a dump of it, which keep values, their rows numbered as they come.
  std::vector<TamperCase> cases() {
    using Lines = std::vector<std::string>;
    return {
        {"payload", [](Lines& l) { l[3] = with(l[3], "agent-", "Agent-"); }, {"hash", 4, 7}, {"hash", 4, 7}},
        {"key order",
         [](Lines& l) {
           l[3] = with(with(l[3], "\"actor\":\"assay\",", ""), "\"eventType\":", "\"actor\":\"assay\",\"eventType\":");
         },
         {"form", 4, 0},
         {"", 0, 0}},
        {"number form", [](Lines& l) { l[3] = with(l[3], "\"score\":0.8761", "\"score\":8.761e-1"); }, {"form", 4, 0}, {"", 0, 0}},
        {"unicode form", [](Lines& l) { l[3] = with(l[3], "gr\u00fc", "gr\\u00fc"); }, {"form", 4, 0}, {"", 0, 0}},
        {"blank between tokens", [](Lines& l) { l[3] = with(l[3], "\"data\":{", "\"data\": {"); }, {"form", 4, 0}, {"", 0, 0}},
        {"prev_hash", [](Lines& l) { l[3] = spoiled(l[3], "prev_hash", 5); }, {"hash", 4, 4}, {"hash", 4, 4}},
        {"hash", [](Lines& l) { l[3] = spoiled(l[3], "hash", 5); }, {"hash", 4, 4}, {"hash", 4, 4}},
        {"signature", [](Lines& l) { l[3] = spoiled(l[3], "signature", 9); }, {"signature", 4, 8}, {"signature", 4, 8}},
        {"signature of another row",
         [this](Lines& l) { l[3] = with(l[3], rows_[3].signature, rows_[4].signature); },
         {"signature", 4, 8},
         {"signature", 4, 8}},
        {"signer unknown",
         [](Lines& l) { l[3] = with(l[3], "\"signer_kid\":\"", "\"signer_kid\":\"x"); },
         {"signature", 4, 13},
         {"signature", 4, 13}},
        {"signer another",
         [this](Lines& l) { l[3] = with(l[3], signer_->key().signer_id, revoked_->key().signer_id); },
         {"signature", 4, 8},
         {"signature", 4, 8}},
        {"time", [](Lines& l) { l[3] = with(l[3], ".003000Z", ".003001Z"); }, {"created_at", 4, 0}, {"created_at", 4, 0}},
        {"time, before the row before",
         [](Lines& l) { l[3] = with(l[3], ".003000Z", ".001500Z"); },
         {"created_at", 4, 2},
         {"created_at", 4, 4}},
        {"id beside the payload", [](Lines& l) { l[3] = spoiled(l[3], "id", 7); }, {"metadata", 4, 0}, {"metadata", 4, 0}},
        {"event_type beside the payload",
         [](Lines& l) { l[3] = with(l[3], "promotion.applied", "promotion.revoked"); },
         {"metadata", 4, 0},
         {"metadata", 4, 0}},
        {"signature taken away",
         [this](Lines& l) { l[3] = with(l[3], rows_[3].signature, ""); },
         {"signature", 4, 5},
         {"rows", 0, 0}},
        {"row taken out", [](Lines& l) { l.erase(l.begin() + 3); }, {"link", 4, 4}, {"link", 4, 4}},
        {"row of another place put in", [](Lines& l) { l.insert(l.begin() + 3, l[6]); }, {"link", 4, 2}, {"link", 4, 2}},
        {"row doubled", [](Lines& l) { l.insert(l.begin() + 3, l[3]); }, {"link", 5, 2}, {"link", 5, 2}},
        {"two rows swapped", [](Lines& l) { std::swap(l[3], l[4]); }, {"link", 4, 2}, {"link", 4, 0}},
        {"order turned round", [](Lines& l) { std::reverse(l.begin(), l.end()); }, {"link", 1, 2}, {"link", 1, 0}},
        {"head cut off", [](Lines& l) { l.erase(l.begin(), l.begin() + 2); }, {"link", 1, 4}, {"link", 1, 4}},
        {"tail cut off", [](Lines& l) { l.resize(6); }, {"checkpoint", 0, 0}, {"rows", 0, 0}},
        {"all rows taken away", [](Lines& l) { l.clear(); }, {"checkpoint", 0, 1}, {"rows", 0, 1}},
        {"forged row at the end, without key",
         [this](Lines& l) {
           SignedRow row = rows_.back();
           row.row.prev_hash = rows_.back().row.hash;
           row.row.hash = processors::chain_hash(row.row.payload, row.row.prev_hash);
           l.push_back(audit_line(row));
         },
         {"signature", 9, 2},
         {"signature", 9, 2}},
        {"chained anew from row 4 by the owner of the database",
         [this](Lines& l) { l = lines_of(forged(4, nullptr)); },
         {"signature", 4, 8},
         {"signature", 4, 8}},
        {"re-signed by a retired key",
         [this](Lines& l) { l = lines_of(forged(4, retired_.get())); },
         {"signature", 4, 0},
         {"signature", 4, 0},
         true},
        {"re-signed by a revoked key",
         [this](Lines& l) { l = lines_of(forged(4, revoked_.get())); },
         {"signature", 4, 0},
         {"signature", 4, 0},
         true},
        {"re-signed by a key of his own",
         [this](Lines& l) {
           auto stranger = test_signer(dir_, "stranger");
           l = lines_of(forged(4, stranger.get()));
         },
         {"signature", 4, 13},
         {"signature", 4, 13},
         true},
        {"chained and signed anew from row 4, checkpoints kept",
         [this](Lines& l) { l = lines_of(forged(4, signer_.get())); },
         {"checkpoint", 5, 0},
         {"checkpoint", 5, 0},
         true},
        {"chained and signed anew from row 7, checkpoints kept",
         [this](Lines& l) { l = lines_of(forged(7, signer_.get())); },
         {"checkpoint", 8, 0},
         {"checkpoint", 8, 0},
         true},
    };
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

}  // namespace assay::testing
