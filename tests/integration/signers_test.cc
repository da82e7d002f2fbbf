// Signers against what they are made for: SoftHSM, a signing proxy behind mutual TLS, AWS KMS as moto has it. Run by
// signers/world.py.
#include <cstdlib>
#include <filesystem>
#include <thread>

#include "schemas/json_parse.h"
#include "streams/note.h"
#include "streams/signer_guard.h"
#include "streams/signer_kms.h"
#include "streams/signer_pkcs11.h"
#include "streams/signer_proxy.h"
#include "tests/unit/audit_support.h"

namespace assay::testing {
namespace {

std::string needed(const char* name) {
  const char* value = std::getenv(name);
  EXPECT_NE(value, nullptr) << name << " is not set: run this by tests/integration/signers/world.py";
  return value == nullptr ? "" : value;
}

std::vector<Sha256Digest> digests(size_t count) {
  std::vector<Sha256Digest> out;
  for (size_t i = 0; i < count; ++i) out.push_back(sha256("digest " + std::to_string(i)));
  return out;
}

/// Whether the registry, which knows only what stands in its file, takes every signature.
void expect_holds(Signer& signer, size_t count) {
  SignerRegistry before;
  ASSERT_TRUE(before.add({signer.key(), {}, {}, false}));
  const SignerRegistry registry = SignerRegistry::parse(before.to_json()).value();
  const std::vector<Sha256Digest> all = digests(count);
  Result<std::vector<std::string>> signatures = signer.sign_all(all);
  ASSERT_TRUE(signatures) << signatures.error().message;
  ASSERT_EQ(signatures->size(), count);
  for (size_t i = 0; i < count; ++i) {
    EXPECT_EQ(registry.check(signer.key().signer_id, 1, all[i], to_base64((*signatures)[i])), std::nullopt) << i;
    EXPECT_NE(registry.check(signer.key().signer_id, 1, all[i], to_base64((*signatures)[(i + 1) % count])), std::nullopt) << i;
  }
}

Pkcs11Options token(const std::string& id, const std::string& algorithm, bool create = true) {
  return {needed("ASSAY_TEST_PKCS11_MODULE"),
          needed("ASSAY_TEST_PKCS11_TOKEN"),
          "",
          needed("ASSAY_TEST_PKCS11_PIN"),
          id,
          create,
          algorithm};
}

TEST(Pkcs11Signer, SignsWithKeysThatStayInTheToken) {
  for (const char* algorithm : {"ed25519", "rsa-sha256"}) {
    const std::string id = std::string("hsm-") + algorithm;
    EXPECT_EQ(open_pkcs11_signer(token(id, algorithm, false)).error().code, Errc::kNotFound);
    Result<std::unique_ptr<Signer>> made = open_pkcs11_signer(token(id, algorithm));
    ASSERT_TRUE(made) << made.error().message;
    EXPECT_EQ((*made)->key().algorithm, algorithm);
    expect_holds(**made, 20);
    Result<std::unique_ptr<Signer>> again = open_pkcs11_signer(token(id, algorithm, false));
    ASSERT_TRUE(again) << again.error().message;
    EXPECT_EQ((*again)->key(), (*made)->key()) << "found, not made anew";
  }
}

TEST(Pkcs11Signer, SignsCheckpointsWithEd25519Alone) {
  std::shared_ptr<Signer> key = open_pkcs11_signer(token("hsm-checkpoint", "ed25519")).value();
  const auto log = NoteSigner::open(key, "example.org/log", NoteKeyType::kLog).value();
  const std::string text = Checkpoint{"example.org/log", 812, sha256("root"), {}}.to_text();
  EXPECT_EQ(signed_by(Note{text, {log->sign(text).value()}}, log->key()), Signed::kHolds);
  std::shared_ptr<Signer> rsa = open_pkcs11_signer(token("hsm-checkpoint-rsa", "rsa-sha256")).value();
  EXPECT_EQ(rsa->sign_message(text).error().code, Errc::kRefused);
  EXPECT_EQ(NoteSigner::open(rsa, "example.org/log", NoteKeyType::kLog).error().code, Errc::kRefused);
}

TEST(Pkcs11Signer, ManyThreadsShareAToken) {
  std::shared_ptr<Signer> signer = open_pkcs11_signer(token("hsm-threads", "ed25519")).value();
  expect_holds(*spread_signer(guard_signer(signer, {}), 8, 1), 200);
}

TEST(Pkcs11Signer, FindsATokenAgainThatWasAway) {
  // As the module's configuration names it: "directories.tokendir = PATH".
  const std::string conf = read_text(needed("SOFTHSM2_CONF")), name = "directories.tokendir = ";
  const size_t begin = conf.find(name) + name.size();
  const std::string tokens = conf.substr(begin, conf.find('\n', begin) - begin), away = tokens + ".away";
  std::unique_ptr<Signer> one = open_pkcs11_signer(token("hsm-away", "ed25519")).value();
  std::unique_ptr<Signer> other = open_pkcs11_signer(token("hsm-away-rsa", "rsa-sha256")).value();
  expect_holds(*one, 2);
  std::filesystem::rename(tokens, away);
  const Sha256Digest digest = sha256("away");
  EXPECT_EQ(one->sign(digest).error().code, Errc::kUnreachable);
  EXPECT_EQ(open_pkcs11_signer(token("hsm-away", "ed25519", false)).error().code, Errc::kUnreachable);
  std::filesystem::rename(away, tokens);
  expect_holds(*one, 2);
  expect_holds(*other, 2);
  expect_holds(*open_pkcs11_signer(token("hsm-away", "ed25519", false)).value(), 2);
}

TEST(Pkcs11Signer, SaysWhatIsWrong) {
  Pkcs11Options options = token("hsm-wrong", "ed25519");
  options.pin = "0000";
  // A process logs in once for all its sessions; a token of its own shows what a wrong PIN does.
  options.token = "no such token";
  Result<std::unique_ptr<Signer>> absent = open_pkcs11_signer(options);
  EXPECT_EQ(absent.error().code, Errc::kUnreachable);
  EXPECT_NE(absent.error().message.find("no such token"), std::string::npos) << absent.error().message;
  options = token("hsm-wrong", "ed25519");
  options.module = "/usr/lib/no-such-module.so";
  EXPECT_EQ(open_pkcs11_signer(options).error().code, Errc::kUsage);
  EXPECT_EQ(open_pkcs11_signer(token("hsm-wrong", "dsa")).error().code, Errc::kUsage);
  EXPECT_EQ(open_pkcs11_signer(token("", "ed25519")).error().code, Errc::kUsage);
}

class ProxyTest : public ::testing::Test {
 protected:
  void TearDown() override { fault(""); }
  void fault(const std::string& what) { write_text(dir_ + "/fault", what); }
  ProxyOptions options(const std::string& id, const std::string& who = "client") {
    ProxyOptions out;
    out.url = needed("ASSAY_TEST_PROXY_URL");
    out.signer_id = id;
    out.https.ca_file = dir_ + "/ca.pem";
    out.https.client_cert = dir_ + "/" + who + ".pem";
    out.https.client_key = dir_ + "/" + who + ".key";
    out.https.timeout = Milliseconds(1500);
    return out;
  }
  std::string dir_ = needed("ASSAY_TEST_PROXY_DIR");
};

TEST_F(ProxyTest, SignsInBatches) {
  for (const char* id : {"proxy-v1", "proxy-rsa"}) {
    Result<std::unique_ptr<Signer>> signer = open_proxy_signer(options(id));
    ASSERT_TRUE(signer) << signer.error().message;
    write_text(dir_ + "/calls", "");
    expect_holds(**signer, 600);
    EXPECT_EQ(read_text(dir_ + "/calls"), "256\n256\n88\n");
  }
}

TEST_F(ProxyTest, NeedsBothCertificates) {
  Result<std::unique_ptr<Signer>> stranger = open_proxy_signer(options("proxy-v1", "stranger"));
  EXPECT_EQ(stranger.error().code, Errc::kUnreachable) << stranger.error().message;
  ProxyOptions distrusted = options("proxy-v1");
  distrusted.https.ca_file = dir_ + "/stranger.pem";
  Result<std::unique_ptr<Signer>> unknown = open_proxy_signer(distrusted);
  EXPECT_EQ(unknown.error().code, Errc::kUnreachable);
  EXPECT_NE(unknown.error().message.find("certificate"), std::string::npos) << unknown.error().message;
  ProxyOptions naked = options("proxy-v1");
  naked.https.client_cert = naked.https.client_key = "";
  EXPECT_EQ(open_proxy_signer(naked).error().code, Errc::kUsage);
  ProxyOptions plain = options("proxy-v1");
  plain.url.replace(0, 5, "http");
  EXPECT_EQ(open_proxy_signer(plain).error().code, Errc::kUsage) << "no plain HTTP";
}

TEST_F(ProxyTest, TellsWhatPassesFromWhatStays) {
  Result<std::unique_ptr<Signer>> signer = open_proxy_signer(options("proxy-v1"));
  ASSERT_TRUE(signer) << signer.error().message;
  const std::vector<Sha256Digest> some = digests(3);
  for (const auto& [what, code] : std::vector<std::pair<std::string, Errc>>{{"503", Errc::kUnreachable},
                                                                            {"429", Errc::kUnreachable},
                                                                            {"403", Errc::kRefused},
                                                                            {"short", Errc::kUnreachable},
                                                                            {"slow", Errc::kUnreachable}}) {
    fault(what);
    Result<std::vector<std::string>> signatures = (*signer)->sign_all(some);
    ASSERT_FALSE(signatures) << what;
    EXPECT_EQ(signatures.error().code, code) << what << ": " << signatures.error().message;
  }
  EXPECT_EQ(open_proxy_signer(options("nobody")).error().code, Errc::kRefused);
  EXPECT_EQ(open_proxy_signer(options("a/b")).error().code, Errc::kUsage);

  fault("forge");
  std::shared_ptr<Signer> guarded = guard_signer(std::move(signer).value(), {});
  Result<std::vector<std::string>> forged = guarded->sign_all(some);
  ASSERT_FALSE(forged);
  EXPECT_EQ(forged.error().code, Errc::kRefused) << "a signature is checked before it is believed";
  fault("");
  expect_holds(*guarded, 3);
}

class KmsTest : public ::testing::Test {
 protected:
  KmsOptions options(const std::string& key, const std::string& who = "") {
    KmsOptions out;
    out.key_id = std::string(keys_.string_or(key, ""));
    out.region = "eu-central-1";
    out.endpoint = needed("ASSAY_TEST_KMS_ENDPOINT");
    out.signer_id = "kms-v1";
    out.https.plain_http = true;
    AwsCredentials credentials{std::string(keys_.string_or(who.empty() ? "access" : who + "Access", "")),
                               std::string(keys_.string_or(who.empty() ? "secret" : who + "Secret", "")), ""};
    out.credentials = [credentials]() -> Result<AwsCredentials> { return credentials; };
    out.now = [] { return machine_runtime().now(); };
    return out;
  }
  Json keys_ = parse_json(needed("ASSAY_TEST_KMS_KEYS")).value();
};

TEST_F(KmsTest, SignsDigests) {
  Result<std::unique_ptr<Signer>> signer = open_kms_signer(options("rsa"));
  ASSERT_TRUE(signer) << signer.error().message;
  EXPECT_EQ((*signer)->key().algorithm, "rsa-sha256");
  expect_holds(*spread_signer(guard_signer(std::move(signer).value(), {}), 4, 1), 12);
}

TEST_F(KmsTest, SaysWhatIsWrong) {
  Result<std::unique_ptr<Signer>> cipher = open_kms_signer(options("other"));
  ASSERT_FALSE(cipher);
  EXPECT_NE(cipher.error().code, Errc::kUnreachable) << cipher.error().message;
  Result<std::unique_ptr<Signer>> stranger = open_kms_signer(options("rsa", "stranger"));
  EXPECT_EQ(stranger.error().code, Errc::kRefused) << "who may not: " << stranger.error().message;
  KmsOptions forged = options("rsa");
  AwsCredentials wrong = forged.credentials().value();
  wrong.secret += "x";
  forged.credentials = [wrong]() -> Result<AwsCredentials> { return wrong; };
  EXPECT_EQ(open_kms_signer(forged).error().code, Errc::kRefused) << "a request that another secret signed";
  KmsOptions nowhere = options("rsa");
  nowhere.endpoint = "http://127.0.0.1:1";
  EXPECT_EQ(open_kms_signer(nowhere).error().code, Errc::kUnreachable);
  KmsOptions unknown = options("rsa");
  unknown.key_id = "00000000-0000-0000-0000-000000000000";
  EXPECT_EQ(open_kms_signer(unknown).error().code, Errc::kUsage);
}

}  // namespace
}  // namespace assay::testing
