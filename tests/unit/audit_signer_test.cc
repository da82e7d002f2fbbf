#include <sys/stat.h>

#include "streams/signer.h"
#include "tests/unit/audit_support.h"

namespace assay::testing {
namespace {

TEST(AuditSigner, MakesAKeyFileOnceAndOnlyForItsOwner) {
  TempDir dir;
  auto first = test_signer(dir), again = test_signer(dir), other = test_signer(dir, "other");
  EXPECT_EQ(first->key(), again->key());
  EXPECT_NE(first->key().signer_id, other->key().signer_id);
  struct stat status {};
  ASSERT_EQ(::stat((dir / "key").c_str(), &status), 0);
  EXPECT_EQ(status.st_mode & 0777, 0600u);
  ASSERT_EQ(::chmod((dir / "key").c_str(), 0640), 0);
  EXPECT_EQ(open_file_signer({dir / "key", "", true, false}).error().code, Errc::kRefused);
  ASSERT_EQ(::chmod((dir / "key").c_str(), 0600), 0);
  EXPECT_EQ(open_file_signer({dir / "key", "", true, true}).error().code, Errc::kRefused) << "production";
  EXPECT_EQ(open_file_signer({dir / "none", "", false, false}).error().code, Errc::kNotFound);
  write_text(dir / "key", "ed25519-seed:AAAA\n");
  EXPECT_EQ(open_file_signer({dir / "key", "", true, false}).error().code, Errc::kCorrupt);
}

TEST(AuditSigner, KnownKeyKnownSignature) {
  // RFC 8032, 7.1, test 1 (empty message) and test SHA(abc)'s manner: a 32-byte message under a known seed.
  TempDir dir;
  const std::string seed = from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").value();
  write_text(dir / "key", "ed25519-seed:" + to_base64(seed) + "\n");
  ASSERT_EQ(::chmod((dir / "key").c_str(), 0600), 0);
  auto signer = test_signer(dir);
  EXPECT_EQ(to_hex(from_base64(signer->key().public_key).value()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
  EXPECT_TRUE(
      ed25519_verify(from_base64(signer->key().public_key).value(), "",
                     from_hex("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46b"
                              "d25bf5f0595bbe24655141438e7a100b")
                         .value()));
  const Sha256Digest digest = sha256("abc");
  const std::string signature = signer->sign(digest).value();
  EXPECT_TRUE(ed25519_verify(from_base64(signer->key().public_key).value(), as_bytes(digest), signature));
  EXPECT_FALSE(ed25519_verify(from_base64(signer->key().public_key).value(), to_hex(as_bytes(digest)), signature))
      << "the bytes, not their hex";
  for (size_t bit = 0; bit < signature.size() * 8; ++bit) {
    std::string changed = signature;
    changed[bit / 8] = static_cast<char>(changed[bit / 8] ^ (1 << (bit % 8)));
    EXPECT_FALSE(ed25519_verify(from_base64(signer->key().public_key).value(), as_bytes(digest), changed)) << "bit " << bit;
  }
}

TEST(AuditSigner, RegistryReadsEveryFormInUse) {
  TempDir dir;
  auto signer = test_signer(dir);
  const std::string key = signer->key().public_key, raw = from_base64(key).value();
  const std::string der = std::string("\x30\x2a\x30\x05\x06\x03\x2b\x65\x70\x03\x21\x00", 12) + raw;
  const std::string pem = "-----BEGIN PUBLIC KEY-----\\n" + to_base64(der) + "\\n-----END PUBLIC KEY-----\\n";
  for (const std::string id : {"signerId", "signer_kid", "id"})
    for (const std::string alg : {"algorithm", "alg"})
      for (const auto& [name, value] :
           std::map<std::string, std::string>{{"publicKey", key}, {"key", key}, {"public_key_pem", pem}}) {
        const std::string text =
            R"({"signers":[{")" + id + R"(":"k1",")" + name + R"(":")" + value + R"(",")" + alg + R"(":"ed25519","x":1}]})";
        Result<SignerRegistry> registry = SignerRegistry::parse(text);
        ASSERT_TRUE(registry) << registry.error().message << text;
        EXPECT_EQ(registry->find("k1")->key.public_key, key);
      }
  for (const char* bad : {"", "{}", "[]", R"({"signers":[{}]})", R"({"signers":[{"id":"a","key":"AAAA","alg":"ed25519"}]})"})
    EXPECT_EQ(SignerRegistry::parse(bad).error().code, Errc::kCorrupt) << bad;
  EXPECT_EQ(SignerRegistry::load(dir / "none").error().code, Errc::kIncomplete);
}

// RSASSA-PKCS1-v1_5 with SHA-256 over "abc" under a key of 2048 bits, both made by `openssl genrsa` and `openssl dgst -sign`.
constexpr const char* kRsaPem =
    "-----BEGIN PUBLIC KEY-----\n"
    "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAnJEh79OluRY2kkIDXkoc\n"
    "jlgYEc9hoCBNSm6zcKgl6Qk665J3FmJ3Dzlnex/dVqhmzq6JNXdIX46eVbdHirig\n"
    "B6YCu9SODTNGiUGvDkFjG5+fgVTiL4YIF2ErZrv0SaJJfa6K4kVBafZ4O21YepTY\n"
    "QxCH0t0j0aRMr/pjd1t3loA9/54XbZtdwpq5z/qzzEXRgMKg1oiUw7AA3xHPJqgs\n"
    "M1y2HaNoiEcVN0Nodm0sAJSxGEGpxp5FBaQNC8yfdHaLecUdFsgr55FU8Z1FhaAH\n"
    "qBJHxeEUO1sLQQnp8K909GkYtM2LuDIX3ZjtPJdMc9TCqc3yCKNN9Lfnc3TDDpvd\n"
    "SQIDAQAB\n"
    "-----END PUBLIC KEY-----\n";
constexpr const char* kRsaSignature =
    "NTf41zhRc1xhFYPHaOfvOaogfuoH0YccUmSpx7tOX4BmGtjPlEoENbUG7y3Z7RBbPBrMKDXRF1rUua6Kv1VjjD56H7kQf8PaaJUi"
    "3FfQd/SjaKD68yGpXw1iXyGD0Md7UvuBLwDrhlnoqX70BD3NYKwvOzZmEhXiEOK3Hz0lBRxpVCdhfJa8pACqYGo8kgUtW+UDz1fs"
    "eGfobq5sQBsLIT/MV1Kq7YVEALL+f2jA2thFEO9hIqFJKpN+HXINY49aivHPsk476zjqRM2oafpBdxf5sngtb+NELmsz68iyGApv"
    "bueuh6WV+uLf1i1G0ZH8N2MkVh2w9+NgyfeXVqKYHw==";

TEST(AuditSigner, RegistryChecksRsaOverTheDigest) {
  SignerRegistry registry;
  ASSERT_TRUE(registry.add({{"rsa", kRsaPem, "rsa-sha256"}, {}, {}, false}));
  EXPECT_EQ(registry.check("rsa", 1, sha256("abc"), kRsaSignature), std::nullopt)
      << "a verifier hashes the preimage, which is \"abc\"";
  EXPECT_NE(registry.check("rsa", 1, sha256("abd"), kRsaSignature), std::nullopt);
  std::string raw = from_base64(kRsaSignature).value();
  raw[100] = static_cast<char>(raw[100] ^ 1);
  EXPECT_NE(registry.check("rsa", 1, sha256("abc"), to_base64(raw)), std::nullopt);
  const SignerRegistry again = SignerRegistry::parse(registry.to_json()).value();
  EXPECT_EQ(again.entries(), registry.entries());
  EXPECT_EQ(again.check("rsa", 1, sha256("abc"), kRsaSignature), std::nullopt);
  EXPECT_EQ(registry.add({{"other", std::string("\n") + kRsaPem, "rsa-sha256"}, {}, {}, false}).error().code, Errc::kCorrupt);
  std::string wide = kRsaPem;
  wide.insert(wide.find("\n") + 1, "\n");
  EXPECT_FALSE(registry.add({{"other", wide, "rsa-sha256"}, {}, {}, false})) << "the same key in another dress";
  for (const std::string& bad : {std::string("x"), std::string(), to_base64(std::string(32, 'k'))})
    EXPECT_EQ(SignerRegistry().add({{"r", bad, "rsa-sha256"}, {}, {}, false}).error().code, Errc::kCorrupt);
}

TEST(AuditSigner, RegistryNeverReusesAnIdOrAKey) {
  TempDir dir;
  const SignerKey one = test_signer(dir)->key(), two = test_signer(dir, "two")->key();
  SignerRegistry registry;
  ASSERT_TRUE(registry.add({one, {}, {}, false}));
  EXPECT_TRUE(registry.add({one, {}, {}, false})) << "the same again is no change";
  EXPECT_EQ(registry.add({{one.signer_id, two.public_key, "ed25519"}, {}, {}, false}).error().code, Errc::kRefused);
  EXPECT_EQ(registry.add({{"other", one.public_key, "ed25519"}, {}, {}, false}).error().code, Errc::kRefused);
  ASSERT_TRUE(registry.add({two, 5, 9, true}));
  EXPECT_EQ(SignerRegistry::parse(registry.to_json())->entries(), registry.entries());
}

TEST(AuditSigner, RegistryKnowsWhenAKeyStands) {
  TempDir dir;
  auto signer = test_signer(dir);
  const Sha256Digest digest = sha256("x");
  const std::string signature = to_base64(signer->sign(digest).value());
  const std::string id = signer->key().signer_id;
  SignerRegistry registry;
  ASSERT_TRUE(registry.add({signer->key(), 5, 9, false}));
  for (int64_t sequence : {5, 9}) EXPECT_EQ(registry.check(id, sequence, digest, signature), std::nullopt);
  for (int64_t sequence : {4, 10}) EXPECT_NE(registry.check(id, sequence, digest, signature), std::nullopt);
  EXPECT_NE(registry.check("nobody", 5, digest, signature), std::nullopt);
  EXPECT_NE(registry.check(id, 5, sha256("y"), signature), std::nullopt);
  SignerRegistry revoked;
  SignerEntry entry{signer->key(), {}, {}, true, "seen in a log"};
  ASSERT_TRUE(revoked.add(entry));
  EXPECT_EQ(revoked.check(id, 5, digest, signature), "the signer " + id + " is revoked (seen in a log)");
  // A row behind bears witness to those up to 7.
  entry.attested_through = 7;
  entry.attested_by = 12;
  EXPECT_EQ(revoked.add(entry).error().code, Errc::kRefused) << "a standing does not change by chance";
  ASSERT_TRUE(revoked.put(entry));
  EXPECT_EQ(revoked.check(id, 7, digest, signature), std::nullopt);
  EXPECT_NE(revoked.check(id, 8, digest, signature), std::nullopt);
  EXPECT_NE(revoked.check(id, 7, sha256("y"), signature), std::nullopt) << "its signature must hold all the same";
  EXPECT_EQ(SignerRegistry::parse(revoked.to_json())->entries(), revoked.entries());
  entry.key.public_key = test_signer(dir, "other")->key().public_key;
  EXPECT_EQ(revoked.put(entry).error().code, Errc::kRefused) << "an id is never reused";
}

}  // namespace
}  // namespace assay::testing
