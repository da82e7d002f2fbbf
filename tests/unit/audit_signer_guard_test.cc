#include <gmock/gmock.h>

#include <thread>

#include "streams/signer_guard.h"
#include "tests/unit/audit_support.h"

namespace assay::testing {
namespace {

/// Time that passes only while somebody sleeps.
class SleepingRuntime : public Runtime {
 public:
  WallTime now() override { return WallTime(kNoonMs); }
  Milliseconds uptime() override { return uptime_; }
  void sleep(Milliseconds time) override {
    uptime_ += time;
    slept.push_back(time.count());
  }
  std::unique_ptr<Thread> spawn(std::function<void()>) override { return nullptr; }

  std::vector<int64_t> slept;

 private:
  Milliseconds uptime_{0};
};

/// Answers as it is told, then well.
class MoodySigner : public Signer {
 public:
  explicit MoodySigner(std::shared_ptr<Signer> inner) : inner_(std::move(inner)) {}
  Result<std::string> sign(const Sha256Digest& digest) override {
    ++calls;
    if (!faults.empty()) {
      const Errc code = faults.front();
      faults.pop_front();
      return Error{code, "away"};
    }
    return inner_->sign(forge ? sha256("another") : digest);
  }
  const SignerKey& key() const override { return inner_->key(); }

  std::deque<Errc> faults;
  std::atomic<int> calls{0};
  bool forge = false;

 private:
  std::shared_ptr<Signer> inner_;
};

class SignerGuard : public ::testing::Test {
 protected:
  void fail(int times, Errc code = Errc::kUnreachable) { moody_->faults.assign(static_cast<size_t>(times), code); }
  Result<std::string> sign() { return guarded_->sign(sha256("x")); }

  TempDir dir_;
  SleepingRuntime runtime_;
  std::shared_ptr<MoodySigner> moody_ = std::make_shared<MoodySigner>(test_signer(dir_));
  std::vector<std::string> told_;
  GuardOptions options_{3, Milliseconds(50),   Milliseconds(80),
                        3, Milliseconds(5000), [this](const Error& e) { told_.push_back(e.message); }};
  std::shared_ptr<Signer> guarded_ = guard_signer(moody_, options_, runtime_);
};

TEST_F(SignerGuard, TriesAgainWithLongerAndLongerWaits) {
  fail(2);
  ASSERT_TRUE(sign());
  EXPECT_EQ(moody_->calls, 3);
  EXPECT_THAT(runtime_.slept, ::testing::ElementsAre(50, 80));
  EXPECT_EQ(told_.size(), 2u);
  fail(3);
  EXPECT_EQ(sign().error().code, Errc::kUnreachable);
  EXPECT_EQ(moody_->calls, 6);
  fail(1, Errc::kRefused);
  EXPECT_EQ(sign().error().code, Errc::kRefused);
  EXPECT_EQ(moody_->calls, 7) << "a refusal is not repeated";
}

TEST_F(SignerGuard, OpensTheCircuitAndLetsOneCallThroughAfterAWhile) {
  fail(9);
  for (int i = 0; i < 3; ++i) EXPECT_FALSE(sign());
  EXPECT_EQ(moody_->calls, 9);
  const auto slept = runtime_.slept.size();
  Result<std::string> refused = sign();
  EXPECT_EQ(refused.error().code, Errc::kUnreachable);
  EXPECT_THAT(refused.error().message, ::testing::HasSubstr("failed 3 times in a row; the last time: away"));
  EXPECT_EQ(moody_->calls, 9) << "not asked";
  EXPECT_EQ(runtime_.slept.size(), slept) << "and no time lost";

  runtime_.sleep(Milliseconds(5000));
  fail(3);
  EXPECT_FALSE(sign());
  EXPECT_EQ(moody_->calls, 12) << "one call was let through";
  EXPECT_FALSE(sign());
  EXPECT_EQ(moody_->calls, 12) << "it failed: open again";

  runtime_.sleep(Milliseconds(5000));
  EXPECT_TRUE(sign());
  EXPECT_TRUE(sign());
  EXPECT_EQ(moody_->calls, 14) << "closed again";
}

TEST_F(SignerGuard, BelievesNoSignatureUnchecked) {
  moody_->forge = true;
  Result<std::string> forged = sign();
  EXPECT_EQ(forged.error().code, Errc::kRefused);
  EXPECT_THAT(forged.error().message, ::testing::HasSubstr("is not that of"));
}

TEST_F(SignerGuard, SpreadsDigestsAndKeepsTheirOrder) {
  std::vector<Sha256Digest> digests;
  for (int i = 0; i < 100; ++i) digests.push_back(sha256(std::to_string(i)));
  const std::vector<std::string> expected = moody_->sign_all(digests).value();
  for (size_t threads : {1u, 3u, 64u})
    for (size_t least : {1u, 7u, 1000u}) EXPECT_EQ(spread_signer(guarded_, threads, least)->sign_all(digests).value(), expected);
  EXPECT_TRUE(spread_signer(guarded_, 4, 1)->sign_all({}).value().empty());
  fail(1, Errc::kRefused);
  EXPECT_EQ(spread_signer(guarded_, 4, 1)->sign_all(digests).error().code, Errc::kRefused) << "all or an error";
}

}  // namespace
}  // namespace assay::testing
