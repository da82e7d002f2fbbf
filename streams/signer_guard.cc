#include "streams/signer_guard.h"

#include <algorithm>
#include <future>
#include <mutex>

namespace assay::streams {
namespace {

class GuardedSigner : public Signer {
 public:
  GuardedSigner(std::shared_ptr<Signer> signer, GuardOptions options, Runtime& runtime)
      : signer_(std::move(signer)), options_(std::move(options)), runtime_(runtime) {
    CHECK(options_.attempts > 0 && options_.failures_to_open > 0);
    CHECK(registry_.add({signer_->key(), {}, {}, false}).has_value());
  }

  Result<std::string> sign(const Sha256Digest& digest) override {
    TRY_ASSIGN(std::vector<std::string> signatures, sign_all(std::span(&digest, 1)));
    return std::move(signatures.front());
  }

  Result<std::vector<std::string>> sign_all(std::span<const Sha256Digest> digests) override {
    std::vector<std::string> out;
    out.reserve(digests.size());
    const size_t step = std::max<size_t>(1, batch_max());
    for (size_t done = 0; done < digests.size(); done += step) {
      TRY_ASSIGN(std::vector<std::string> part, call(digests.subspan(done, std::min(step, digests.size() - done))));
      std::ranges::move(part, std::back_inserter(out));
    }
    return out;
  }

  size_t batch_max() const override { return signer_->batch_max(); }
  const SignerKey& key() const override { return signer_->key(); }

 private:
  /// One call of the service, with its further attempts.
  Result<std::vector<std::string>> call(std::span<const Sha256Digest> digests) {
    TRY(enter());
    Milliseconds wait = options_.wait_min;
    for (int attempt = 1;; ++attempt) {
      Result<std::vector<std::string>> signatures = signer_->sign_all(digests);
      if (signatures) signatures = checked(digests, std::move(signatures).value());
      if (signatures) {
        leave(nullptr);
        return signatures;
      }
      if (options_.on_failure) options_.on_failure(signatures.error());
      if (attempt == options_.attempts || signatures.error().code != Errc::kUnreachable) {
        leave(&signatures.error());
        return signatures.error();
      }
      runtime_.sleep(wait);
      wait = std::min(wait * 2, options_.wait_max);
    }
  }

  Result<std::vector<std::string>> checked(std::span<const Sha256Digest> digests, std::vector<std::string> signatures) const {
    CHECK(signatures.size() == digests.size());
    for (size_t i = 0; i < digests.size(); ++i)
      if (auto fault = registry_.check(key().signer_id, 1, digests[i], to_base64(signatures[i])))
        return Error{Errc::kRefused, "checking what signer " + key().signer_id + " gave: " + *fault};
    return signatures;
  }

  Result<void> enter() {
    std::lock_guard lock(mutex_);
    if (failures_ < options_.failures_to_open) return {};
    const Milliseconds now = runtime_.uptime();
    if (now >= closed_until_ && !probing_) {
      probing_ = true;
      return {};
    }
    return Error{Errc::kUnreachable, "signing with " + key().signer_id + ": not asked, since it failed " +
                                         std::to_string(failures_) + " times in a row; the last time: " + last_error_};
  }

  void leave(const Error* error) {
    std::lock_guard lock(mutex_);
    probing_ = false;
    if (error == nullptr) {
      failures_ = 0;
      return;
    }
    ++failures_;
    last_error_ = error->message;
    if (failures_ >= options_.failures_to_open) closed_until_ = runtime_.uptime() + options_.open_for;
  }

  std::shared_ptr<Signer> signer_;
  GuardOptions options_;
  Runtime& runtime_;
  SignerRegistry registry_;
  std::mutex mutex_;
  int failures_ = 0;              // calls in a row; under mutex_, as is all below
  bool probing_ = false;          // one call is on its way through the open circuit
  Milliseconds closed_until_{0};  // uptime from which one is let through
  std::string last_error_;
};

class SpreadSigner : public Signer {
 public:
  SpreadSigner(std::shared_ptr<Signer> signer, size_t threads, size_t digests_min)
      : signer_(std::move(signer)), threads_(std::max<size_t>(1, threads)), digests_min_(std::max<size_t>(1, digests_min)) {}

  Result<std::string> sign(const Sha256Digest& digest) override { return signer_->sign(digest); }

  Result<std::vector<std::string>> sign_all(std::span<const Sha256Digest> digests) override {
    const size_t parts = std::clamp<size_t>(digests.size() / digests_min_, 1, threads_);
    std::vector<std::future<Result<std::vector<std::string>>>> others;
    auto part = [&](size_t i) {
      const size_t begin = digests.size() * i / parts, end = digests.size() * (i + 1) / parts;
      return digests.subspan(begin, end - begin);
    };
    for (size_t i = 1; i < parts; ++i)
      others.push_back(std::async(std::launch::async, [this, slice = part(i)] { return signer_->sign_all(slice); }));
    Result<std::vector<std::string>> all = signer_->sign_all(part(0));
    for (auto& other : others) {
      Result<std::vector<std::string>> more = other.get();
      if (!all) continue;
      if (!more)
        all = more.error();
      else
        std::ranges::move(*more, std::back_inserter(*all));
    }
    return all;
  }

  size_t batch_max() const override { return signer_->batch_max(); }
  const SignerKey& key() const override { return signer_->key(); }

 private:
  std::shared_ptr<Signer> signer_;
  size_t threads_, digests_min_;
};

}  // namespace

std::shared_ptr<Signer> guard_signer(std::shared_ptr<Signer> signer, const GuardOptions& options, Runtime& runtime) {
  return std::make_shared<GuardedSigner>(std::move(signer), options, runtime);
}

std::shared_ptr<Signer> spread_signer(std::shared_ptr<Signer> signer, size_t threads, size_t digests_min) {
  return std::make_shared<SpreadSigner>(std::move(signer), threads, digests_min);
}

}  // namespace assay::streams
