// Objects in S3 as moto has it, which checks every signature, and behind a proxy that fails as told. Run by s3/world.py.
#include <gtest/gtest.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <random>

#include "streams/s3_objects.h"

namespace assay::streams {
namespace {

std::string needed(const char* name) {
  const char* value = std::getenv(name);
  EXPECT_NE(value, nullptr) << name << " is not set: run this by tests/integration/s3/world.py";
  return value == nullptr ? "" : value;
}

S3Options options(const std::string& prefix) {
  S3Options out;
  out.endpoint = needed("ASSAY_TEST_S3_ENDPOINT");
  out.region = "eu-central-1";
  out.bucket = "plain";
  out.prefix = prefix;
  out.credentials = [] { return Result(AwsCredentials{needed("ASSAY_TEST_S3_ACCESS_KEY"), needed("ASSAY_TEST_S3_SECRET"), ""}); };
  out.https.plain_http = true;
  out.retry_min = Milliseconds(1);
  out.retry_max = Milliseconds(2);
  return out;
}

std::unique_ptr<ObjectStore> opened(const S3Options& o) {
  auto store = open_s3_objects(o);
  EXPECT_TRUE(store) << store.error().message;
  return std::move(*store);
}

/// What the object holds; the error's message when it cannot be read.
std::string text(ObjectStore& store, const std::string& name) {
  auto content = store.get(name);
  return content ? *content : content.error().message;
}

std::string noise(size_t bytes) {
  std::mt19937_64 random(7);
  std::string out(bytes, '\0');
  for (char& c : out) c = static_cast<char>(random());
  return out;
}

bool put(ObjectStore& store, const std::string& name, std::string_view content) {
  auto stored = store.put_new(name, content);
  EXPECT_TRUE(stored) << stored.error().message;
  return stored && *stored;
}

TEST(S3, StoresOnceAndReadsBack) {
  auto store = opened(options("once"));
  EXPECT_TRUE(put(*store, "a/b.json", "first"));
  EXPECT_FALSE(put(*store, "a/b.json", "second"));
  EXPECT_EQ(text(*store, "a/b.json"), "first");
  EXPECT_TRUE(put(*store, "empty", ""));
  EXPECT_EQ(text(*store, "empty"), "");
  EXPECT_EQ(store->get("a/c").error().code, Errc::kNotFound);
  EXPECT_EQ(store->get_range("a/b.json", 1, 3).value(), "irs");
  EXPECT_EQ(store->get_range("a/b.json", 3, 3).error().code, Errc::kCorrupt) << "it ends before";
  EXPECT_EQ(store->get_range("a/b.json", 30, 3).error().code, Errc::kCorrupt);
  EXPECT_EQ(store->get_range("none", 0, 3).error().code, Errc::kNotFound);
}

TEST(S3, ListsPageByPageInOrder) {
  auto store = opened(options("list"));
  std::vector<std::string> expected;
  for (int n = 0; n < 30; ++n) {
    expected.push_back("entries/t/" + std::to_string(n) + ".json");
    EXPECT_TRUE(put(*store, expected.back(), "x"));
  }
  for (const char* odd : {"odd/a b+c&d<e>.json", "odd/\xc3\xa9%41"}) EXPECT_TRUE(put(*store, odd, odd));
  std::sort(expected.begin(), expected.end());
  EXPECT_EQ(store->list("entries/").value(), expected);
  EXPECT_EQ(store->list("odd/").value(), (std::vector<std::string>{"odd/a b+c&d<e>.json", "odd/\xc3\xa9%41"}));
  EXPECT_EQ(text(*store, "odd/a b+c&d<e>.json"), "odd/a b+c&d<e>.json");
  EXPECT_TRUE(store->list("nothing/").value().empty());
  EXPECT_TRUE(opened(options("lis"))->list("").value().empty()) << "a prefix ends at its '/'";
}

TEST(S3, StoresWhatIsLargeInParts) {
  S3Options o = options("parts");
  o.part_bytes = 5 << 20;
  auto store = opened(o);
  const std::string large = noise((12 << 20) + 3);
  EXPECT_TRUE(put(*store, "large", large));
  EXPECT_FALSE(put(*store, "large", large.substr(1)));
  EXPECT_TRUE(text(*store, "large") == large);
  EXPECT_TRUE(store->get_range("large", 7 << 20, 1000).value() == large.substr(7 << 20, 1000));
}

// The lock is looked at with AWS's own client; moto keeps none of an upload in parts, so there the request is looked at.
TEST(S3, LocksWhatItStores) {
  S3Options o = options("lock");
  o.bucket = "locked";
  o.lock_mode = "COMPLIANCE";
  o.lock_for = Milliseconds(int64_t{40} * 24 * 3600 * 1000);
  o.part_bytes = 5 << 20;
  EXPECT_TRUE(put(*opened(o), "small", "text"));
  const std::string script =
      "import boto3, datetime; s3 = boto3.client('s3', endpoint_url='" + o.endpoint +
      "', region_name='eu-central-1', aws_access_key_id='" + needed("ASSAY_TEST_S3_ACCESS_KEY") + "', aws_secret_access_key='" +
      needed("ASSAY_TEST_S3_SECRET") +
      "'); h = s3.head_object(Bucket='locked', Key='lock/small'); left = h['ObjectLockRetainUntilDate'] - "
      "datetime.datetime.now(datetime.timezone.utc); print(h['ObjectLockMode'], round(left.total_seconds() / 86400))";
  FILE* out = ::popen((needed("ASSAY_TEST_AWS_PYTHON") + " -c \"" + script + "\" 2>&1").c_str(), "r");
  std::string said;
  std::array<char, 500> buffer{};
  while (std::fgets(buffer.data(), buffer.size(), out) != nullptr) said += buffer.data();
  ::pclose(out);
  EXPECT_EQ(said, "COMPLIANCE 40\n");

  o.endpoint = needed("ASSAY_TEST_S3_FAULTY");
  EXPECT_TRUE(put(*opened(o), "large", noise(6 << 20)));
  std::ifstream seen(needed("ASSAY_TEST_S3_SEEN"));
  std::string line, begun;
  while (std::getline(seen, line))
    if (line.starts_with("POST /locked/lock/large?uploads")) begun = line;
  EXPECT_TRUE(begun.ends_with(" COMPLIANCE")) << begun;
}

TEST(S3, SaysWhatIsNotAllowed) {
  S3Options o = options("x");
  o.credentials = [] { return Result(AwsCredentials{needed("ASSAY_TEST_S3_ACCESS_KEY"), "not the secret", ""}); };
  auto forged = opened(o)->get("a");
  ASSERT_FALSE(forged);
  EXPECT_EQ(forged.error().code, Errc::kRefused) << forged.error().message;
  EXPECT_NE(forged.error().message.find("SignatureDoesNotMatch"), std::string::npos) << forged.error().message;
  o = options("x");
  o.bucket = "nobodys";
  auto nowhere = opened(o)->list("");
  ASSERT_FALSE(nowhere);
  EXPECT_EQ(nowhere.error().code, Errc::kRefused) << nowhere.error().message;
  EXPECT_NE(nowhere.error().message.find("NoSuchBucket"), std::string::npos) << nowhere.error().message;
  o = options("x");
  o.https.plain_http = false;
  EXPECT_EQ(open_s3_objects(o).error().code, Errc::kUsage) << "keys are not sent in the clear unless asked to";
  o.endpoint.clear();
  o.credentials = nullptr;
  EXPECT_EQ(open_s3_objects(o).error().code, Errc::kUsage);
}

class FaultyS3 : public ::testing::Test {
 protected:
  FaultyS3() {
    S3Options o = options(std::string("faulty-") + ::testing::UnitTest::GetInstance()->current_test_info()->name());
    o.endpoint = needed("ASSAY_TEST_S3_FAULTY");
    o.timeout = Milliseconds(1500);
    o.attempts_max = 4;
    o.part_bytes = 5 << 20;
    store_ = opened(o);
  }
  ~FaultyS3() override { faults(""); }
  static void faults(const std::string& words) { std::ofstream(needed("ASSAY_TEST_S3_FAULTS")) << words; }
  static std::string left() {
    std::ifstream file(needed("ASSAY_TEST_S3_FAULTS"));
    return {std::istreambuf_iterator<char>(file), {}};
  }
  std::unique_ptr<ObjectStore> store_;
};

TEST_F(FaultyS3, PassingFaultsAreTriedAgain) {
  for (const char* fault : {"500", "503", "drop", "slow", "half"}) {
    const std::string name = std::string("object-") + fault;
    faults(std::string(fault) + " ok " + fault);
    EXPECT_TRUE(put(*store_, name, "content of " + name)) << fault;
    faults(std::string(fault) + " " + fault);
    EXPECT_EQ(text(*store_, name), "content of " + name);
    EXPECT_EQ(left(), "") << "the faults were met";
    faults(fault);
    EXPECT_EQ(store_->get_range(name, 2, 4).value(), "nten") << fault;
    faults(fault);
    EXPECT_EQ(store_->list("object-" + std::string(fault)).value(), std::vector<std::string>{name});
  }
}

TEST_F(FaultyS3, WhatStaysAwayIsUnreachableAndNothingElse) {
  EXPECT_TRUE(put(*store_, "there", "text"));
  for (const char* fault : {"500", "503", "drop", "half"}) {
    std::string all;
    for (int n = 0; n < 12; ++n) all += std::string(fault) + " ";
    faults(all);
    auto content = store_->get("there");
    ASSERT_FALSE(content) << fault;
    EXPECT_EQ(content.error().code, Errc::kUnreachable) << content.error().message;
    EXPECT_NE(content.error().message.find("4 attempts"), std::string::npos) << content.error().message;
    faults(all);
    auto list = store_->list("");
    ASSERT_FALSE(list) << fault;
    EXPECT_EQ(list.error().code, Errc::kUnreachable) << list.error().message;
    if (std::string(fault) == "half") continue;  // an answer without a body has no half
    faults(all);
    EXPECT_EQ(store_->put_new("new", "x").error().code, Errc::kUnreachable);
  }
  faults("");
  EXPECT_EQ(store_->get("new").error().code, Errc::kNotFound);
}

// The answer to a write is lost: the second try finds it there, and it is what was to be stored.
TEST_F(FaultyS3, ALostAnswerStoresOnce) {
  faults("ok lost");
  EXPECT_FALSE(put(*store_, "once", "first")) << "who cannot tell says that it was there";
  EXPECT_EQ(text(*store_, "once"), "first");
  // The same for the last call of an upload in parts: HEAD, begin, two parts, complete.
  const std::string large = noise(7 << 20);
  faults("ok ok ok ok lost");
  (void)put(*store_, "large", large);  // whether a server knows an upload that is over, servers differ in
  EXPECT_EQ(left(), "");
  EXPECT_TRUE(text(*store_, "large") == large);
  // A server that does not: the retry is told that there is no such upload.
  faults("ok ok ok ok gone");
  EXPECT_FALSE(put(*store_, "larger", large));
  EXPECT_TRUE(text(*store_, "larger") == large);
}

// Another one stores between the look and the write: the condition holds it off.
TEST_F(FaultyS3, TheConditionGuardsTheRace) {
  EXPECT_TRUE(put(*store_, "raced", "theirs"));
  faults("absent");
  EXPECT_FALSE(put(*store_, "raced", "ours"));
  EXPECT_EQ(text(*store_, "raced"), "theirs");
  faults("absent");
  EXPECT_FALSE(put(*store_, "raced", noise(6 << 20)));
  EXPECT_EQ(text(*store_, "raced"), "theirs");
}

TEST_F(FaultyS3, APartThatFailsIsSentAgain) {
  const std::string large = noise(13 << 20);
  faults("ok ok 500 drop ok 503 ok lost");
  auto stored = store_->put_new("large", large);
  ASSERT_TRUE(stored) << stored.error().message;
  EXPECT_TRUE(text(*store_, "large") == large);
}

}  // namespace
}  // namespace assay::streams
