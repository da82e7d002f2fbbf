// Hashes, text codings, ids and Kafka's partitioner against vectors that others published.
#include <gtest/gtest.h>

#include <random>

#include "schemas/hash.h"
#include "schemas/topics.h"

namespace assay::schemas {
namespace {

std::string hex(const Sha256Digest& digest) { return to_hex(as_bytes(digest)); }

TEST(Sha256, KnownVectors) {  // FIPS 180-4 examples
  EXPECT_EQ(hex(sha256("")), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(hex(sha256("abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(hex(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq")),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
}

TEST(Sha256, PartsAreOneMessage) {
  EXPECT_EQ(sha256("ab", "", "c"), sha256("abc"));
  EXPECT_EQ(sha256("", "abc"), sha256("abc"));
  EXPECT_NE(sha256("ab", "d"), sha256("abc"));
}

TEST(Xxh3, KnownVectors) {  // of the empty input, from xxHash's own sanity checks
  EXPECT_EQ(xxh3_64(""), 0x2D06800538D394C2u);
  EXPECT_EQ(static_cast<uint64_t>(xxh3_128("")), 0x6001C324468D497Fu);
  EXPECT_EQ(static_cast<uint64_t>(xxh3_128("") >> 64), 0x99AA06D3014798D8u);
}

TEST(Base64, Rfc4648Vectors) {
  const std::pair<std::string, std::string> vectors[] = {{"", ""},
                                                         {"f", "Zg=="},
                                                         {"fo", "Zm8="},
                                                         {"foo", "Zm9v"},
                                                         {"foob", "Zm9vYg=="},
                                                         {"fooba", "Zm9vYmE="},
                                                         {"foobar", "Zm9vYmFy"}};
  for (const auto& [plain, coded] : vectors) {
    EXPECT_EQ(to_base64(plain), coded);
    auto back = from_base64(coded);
    ASSERT_TRUE(back) << coded;
    EXPECT_EQ(*back, plain);
  }
}

TEST(Base64, TakesNothingButWhatItWouldWrite) {
  for (std::string_view text : {"Z", "Zg", "Zg=", "Zh==", "Zm9=", "Zg==\n", " Zg==", "Zg== ", "Z===", "====", "=", "Zm-_",
                                "Zm9v====", "Zg==Zg==", "Zm9vYg==\n\n\n\n"})
    EXPECT_FALSE(from_base64(text)) << text;
  std::mt19937_64 random(20);
  constexpr std::string_view kAlphabet = "ABab01+/=";
  for (int i = 0; i < 20000; ++i) {
    std::string text;
    for (size_t n = random() % 13; n > 0; --n) text.push_back(kAlphabet[random() % kAlphabet.size()]);
    if (auto plain = from_base64(text)) {
      EXPECT_EQ(to_base64(*plain), text);
    }
  }
}

TEST(Hex, OnlyLowerCaseAndWholeBytes) {
  EXPECT_EQ(to_hex(std::string_view("\x00\xff\x7f", 3)), "00ff7f");
  EXPECT_EQ(from_hex("00ff7f").value_or("?"), std::string("\x00\xff\x7f", 3));
  for (std::string_view text : {"0", "0G", "FF", " f", "0x"}) EXPECT_FALSE(from_hex(text)) << text;
}

TEST(Codings, RoundTripRandomBytes) {
  std::mt19937_64 random(1);
  for (int i = 0; i < 2000; ++i) {
    std::string bytes;
    for (size_t n = random() % 70; n > 0; --n) bytes.push_back(static_cast<char>(random()));
    EXPECT_EQ(from_hex(to_hex(bytes)).value_or("?"), bytes);
    EXPECT_EQ(from_base64(to_base64(bytes)).value_or("?"), bytes);
  }
}

TEST(Ids, AreDerivedFromEveryPartOfTheirCause) {
  const Id place = place_id("eval.reports.v1", 3, Offset(42));
  // SHA-256 of "eval.reports.v1" NUL "3" NUL "42", its first half.
  EXPECT_EQ(place.hex(), hex(sha256(std::string_view("eval.reports.v1\0"
                                                     "3\0"
                                                     "42",
                                                     20)))
                             .substr(0, 32));
  EXPECT_NE(place, place_id("eval.reports.v1", 34, Offset(2)));
  EXPECT_NE(place, place_id("eval.reports.v2", 3, Offset(42)));
  EXPECT_NE(derived_id(place, "scoring", 0), derived_id(place, "scoring", 1));
  EXPECT_NE(derived_id(place, "scoring", 0), derived_id(place, "promotion", 0));
  EXPECT_NE(derived_id(place, "scoring", 0), derived_id(derived_id(place, "scoring", 0), "scoring", 0));
  auto parsed = Id::parse(place.hex());
  ASSERT_TRUE(parsed);
  EXPECT_EQ(*parsed, place);
  EXPECT_FALSE(Id::parse(place.hex().substr(2)));
  EXPECT_FALSE(Id::parse(place.hex() + "00"));
}

TEST(Partitioner, MurmurIsKafkas) {  // vectors of Kafka's own unit test of Utils.murmur2
  const std::pair<std::string_view, int32_t> vectors[] = {
      {"21", -973932308},
      {"foobar", -790332482},
      {"a-little-bit-long-string", -985981536},
      {"a-little-bit-longer-string", -1486304829},
      {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
      {"abc", 479470107},
  };
  for (const auto& [key, hash] : vectors) EXPECT_EQ(murmur2(key), hash) << key;
}

TEST(Partitioner, ClearsTheSignAndStaysInRange) {
  EXPECT_EQ(partition_of("21", 4), static_cast<int32_t>((static_cast<uint32_t>(-973932308) & 0x7fffffffu) % 4));
  EXPECT_EQ(partition_of("anything", 1), 0);
  int hits[7] = {};
  for (int i = 0; i < 7000; ++i) ++hits[partition_of("agent-" + std::to_string(i), 7)];
  for (int count : hits) EXPECT_NEAR(count, 1000, 200);
}

TEST(Topics, CatalogueAnswersByTopic) {
  for (const TopicSpec& spec : topic_catalogue()) EXPECT_EQ(&topic_spec(spec.topic), &spec);
  EXPECT_EQ(dlq_of("eval.reports.v1"), "eval.reports.v1.dlq");
}

}  // namespace
}  // namespace assay::schemas
