// Signed notes, checkpoints, cosignatures and policies, with the vectors that are published for them.
#include "streams/note.h"

#include "streams/note_policy.h"
#include "tests/unit/audit_support.h"

namespace assay::testing {
namespace {

// Source: golang.org/x/mod/sumdb/note.
constexpr const char* kKey = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
constexpr const char* kNote =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n\n"
    "\u2014 PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";
// Source: the examples of C2SP tlog-cosignature and tlog-checkpoint.
constexpr const char* kCosigned =
    "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n\n"
    "\u2014 example.com/behind-the-sofa "
    "Az3grlgtzPICa5OS8npVmf1Myq/5IZniMp+ZJurmRDeOoRDe4URYN7u5/Zhcyv2q1gGzGku9nTo+zyWE+xeMcTOAYQ8=\n"
    "\u2014 witness.example.com/w1 "
    "jWbPPwAAAABkGFDLEZMHwSRaJNiIDoe9DYn/zXcrtPHeolMI5OWXEhZCB9dlrDJsX3b2oyin1nPZqhf5nNo0xUe+mbIUBkBIfZ+qnA==\n";

TEST(Note, ThePublishedVectorHolds) {
  const NoteKey key = NoteKey::parse(kKey).value();
  EXPECT_EQ(key.id(), 0xc74f20a3u);
  EXPECT_EQ(key.to_text(), kKey);
  const Note note = Note::parse(kNote).value();
  EXPECT_EQ(signed_by(note, key), Signed::kHolds);
  EXPECT_EQ(note.to_text(), kNote);
  Note changed = note;
  changed.text[0] = 'i';
  EXPECT_EQ(signed_by(changed, key), Signed::kBroken);
  changed = note;
  changed.signatures[0].name = "PeterNeuman";
  EXPECT_EQ(signed_by(changed, key), Signed::kAbsent) << "a key is name and id";
}

TEST(Note, TheExamplesOfTheSpecificationAreRead) {
  const Note note = Note::parse(kCosigned).value();
  EXPECT_EQ(note.to_text(), kCosigned);
  const Checkpoint checkpoint = Checkpoint::parse(note.text).value();
  EXPECT_EQ(checkpoint.origin, "example.com/behind-the-sofa");
  EXPECT_EQ(checkpoint.size, 20852163u);
  EXPECT_EQ(to_base64(as_bytes(checkpoint.root)), "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=");
  EXPECT_EQ(checkpoint.to_text(), note.text);
  ASSERT_EQ(note.signatures.size(), 2u);
  EXPECT_EQ(note.signatures[1].bytes.size(), 72u);
  EXPECT_EQ(to_hex(note.signatures[1].bytes.substr(0, 8)), "00000000641850cb") << "time 1679315147";
  EXPECT_EQ(cosigned_text(note.text, 1679315147).substr(0, 31), "cosignature/v1\ntime 1679315147\n");
}

TEST(Note, WhatIsNoNoteIsRefused) {
  const std::string good = kNote;
  const size_t dash = good.find("\u2014");
  for (const std::string& bad :
       {std::string(), good.substr(0, dash), good.substr(0, good.size() - 1),
        good.substr(0, good.find("\n\n") + 1) + good.substr(dash), good + "x\n", good + "\n", "a\tb" + good, "\xff" + good,
        good.substr(0, dash) + "- PeterNeumann AAAAAAAA\n", good.substr(0, dash) + "\u2014 Peter+Neumann AAAAAAAA\n",
        good.substr(0, dash) + "\u2014 A AAAA\n", good.substr(0, dash) + "\u2014 A AAAAAAB=\n"})
    EXPECT_FALSE(Note::parse(bad)) << bad;
  const std::string root = to_base64(std::string(32, 'r'));
  EXPECT_TRUE(Checkpoint::parse("o\n0\n" + root + "\n"));
  EXPECT_EQ(Checkpoint::parse("o\n7\n" + root + "\nmore\n")->extensions, "more\n");
  for (const std::string& bad :
       std::vector<std::string>{"o\n7\n" + root, "\n7\n" + root + "\n", "o\n07\n" + root + "\n", "o\n-1\n" + root + "\n",
                                "o\n18446744073709551616\n" + root + "\n", "o\n7\nAAAA\n", "o\n7\n" + root + "\n\nx\n", "o\n7\n"})
    EXPECT_FALSE(Checkpoint::parse(bad)) << bad;
  for (const char* bad : {"", "a", "a+b", "PeterNeumann+c74f20a4+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW",
                          "a b+c74f20a3+AA==", "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10==",
                          "+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW"})
    EXPECT_FALSE(NoteKey::parse(bad)) << bad;
}

class NoteSigning : public ::testing::Test {
 protected:
  std::unique_ptr<NoteSigner> signer(const std::string& name, NoteKeyType type) {
    return open_note_signer({dir_ / (name + ".key"), name, type, true}).value();
  }
  TempDir dir_;
};

TEST_F(NoteSigning, ASignatureIsOfOneKeyOneTextAndOneInstant) {
  const auto log = signer("log", NoteKeyType::kLog), witness = signer("w1", NoteKeyType::kCosignature);
  EXPECT_EQ(NoteKey::parse(witness->key().to_text()).value(), witness->key());
  Note note{Checkpoint{"log", 5, sha256("x"), {}}.to_text(), {}};
  note.signatures = {log->sign(note.text).value(), witness->sign(note.text, 1777636800).value()};
  note = Note::parse(note.to_text()).value();
  int64_t time_s = 0;
  EXPECT_EQ(signed_by(note, log->key()), Signed::kHolds);
  EXPECT_EQ(signed_by(note, witness->key(), &time_s), Signed::kHolds);
  EXPECT_EQ(time_s, 1777636800);
  for (size_t i = 0; i < note.signatures[1].bytes.size(); ++i) {
    Note changed = note;
    changed.signatures[1].bytes[i] ^= 1;
    ASSERT_EQ(signed_by(changed, witness->key()), Signed::kBroken) << "byte " << i << ", the instant's eight included";
  }
  NoteKey other = log->key();
  other.type = NoteKeyType::kCosignature;
  EXPECT_EQ(signed_by(note, other), Signed::kAbsent) << "the type is part of the id";
  EXPECT_EQ(open_note_signer({dir_ / "x.key", "two words", NoteKeyType::kLog, true}).error().code, Errc::kUsage);
  EXPECT_EQ(open_note_signer({dir_ / "log.key", "log", NoteKeyType::kLog, false}).value()->key(), log->key()) << "the key stays";
}

TEST_F(NoteSigning, APolicyCountsWitnesses) {
  const auto log = signer("log", NoteKeyType::kLog);
  std::vector<std::unique_ptr<NoteSigner>> w;
  std::string text = "# who is trusted\n log " + log->key().to_text() + " https://log.example\n\n";
  for (const char* name : {"X1", "X2", "X3", "Y1"}) {
    w.push_back(signer(name, NoteKeyType::kCosignature));
    text += "witness " + std::string(name) + "\t" + w.back()->key().to_text() + "\n";
  }
  text += "group X 2 X1 X2 X3\ngroup both all X Y1\nquorum both\n";
  const NotePolicy policy = NotePolicy::parse(text).value();
  EXPECT_EQ(NotePolicy::parse(policy.to_text())->to_text(), policy.to_text());
  EXPECT_EQ(policy.logs()[0].url, "https://log.example");
  const std::string body = Checkpoint{"log", 5, sha256("x"), {}}.to_text();
  auto note = [&](std::vector<size_t> cosigners) {
    Note out{body, {log->sign(body).value()}};
    for (size_t i : cosigners) out.signatures.push_back(w[i]->sign(body, 1000 + static_cast<int64_t>(i)).value());
    return out;
  };
  for (const auto& [cosigners, counts] : std::vector<std::pair<std::vector<size_t>, bool>>{
           {{}, false}, {{0, 1}, false}, {{0, 3}, false}, {{0, 2, 3}, true}, {{0, 1, 2, 3}, true}, {{3}, false}})
    EXPECT_EQ(policy.judge(note(cosigners)).fault.empty(), counts) << cosigners.size();
  EXPECT_FALSE(policy.judge(note({0})).tampered) << "too few witnesses is no forgery";
  EXPECT_EQ(policy.judge(note({0, 2, 3})).witnessed_s, 1003);
  Note broken = note({0, 1, 3});
  broken.signatures[1].bytes[20] ^= 1;
  EXPECT_TRUE(policy.judge(broken).tampered);
  Note unsigned_by_log = note({0, 1, 3});
  unsigned_by_log.signatures.erase(unsigned_by_log.signatures.begin());
  EXPECT_TRUE(policy.judge(unsigned_by_log).tampered);
  Note stranger = note({0, 1, 3});
  stranger.signatures.push_back(signer("Z", NoteKeyType::kCosignature)->sign(body, 1).value());
  EXPECT_TRUE(policy.judge(stranger).fault.empty()) << "unknown keys are ignored";
  EXPECT_TRUE(policy.judge(stranger, true).tampered) << "unless only known ones may stand there";
  const std::string k = w[0]->key().to_text();
  for (const std::string& bad : std::vector<std::string>{
           "", "quorum none", "quorum a\n", "witness none " + k + "\nquorum none\n", "log " + k + "\nquorum none\n",
           "witness a " + k + "\nwitness b " + k + "\nquorum a\n", "witness a " + k + "\ngroup g 2 a\nquorum g\n",
           "witness a " + k + "\ngroup g any a\ngroup h any a\nquorum h\n", "witness a " + k + "\ngroup g some a\nquorum g\n",
           "quorum none\nquorum none\n", "hello\nquorum none\n", "witness a " + log->key().to_text() + "\nquorum a\n",
           "quorum none\n\x01\n"})
    EXPECT_FALSE(NotePolicy::parse(bad)) << bad;
}

}  // namespace
}  // namespace assay::testing
