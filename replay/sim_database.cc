#include "replay/sim_database.h"

#include <utility>

namespace assay::replay {
namespace {

class SimSink final : public streams::AuditSink {
 public:
  SimSink(SimDatabase& database, SimConnection connection) : database_(database), connection_(std::move(connection)) {}

  std::string describe() const override { return "simulated database"; }

  Result<processors::ChainState> take_over(const SignerKey&) override {
    if (!connection_.there()) return unreachable("taking over");
    epoch_ = ++database_.epoch;
    const processors::ChainState head = database_.head;
    signed_state_ = database_.signed_state;
    if (!connection_.back()) return unreachable("taking over");
    return head;
  }

  std::optional<processors::ChainState> signed_state() const override { return signed_state_; }

  Result<void> append(std::span<const streams::SignedRow> rows, const processors::ChainState& before,
                      const processors::ChainState& after) override {
    return store(rows, before, after, false);
  }

  Result<void> stage(std::span<const streams::SignedRow> rows, const processors::ChainState& before,
                     const processors::ChainState& after) override {
    return store(rows, before, after, !rows.empty());
  }

  Result<void> sign(std::span<const streams::SignedRow> rows, const processors::ChainState& before,
                    const processors::ChainState& after) override {
    TRY(begin("signing"));
    if (database_.signed_state && database_.signed_state->sequence == before.sequence) {
      for (const streams::SignedRow& row : rows) {
        streams::SignedRow& kept = database_.rows.at(static_cast<size_t>(row.row.sequence - 1));
        kept.signature = row.signature;
        kept.signer_kid = row.signer_kid;
      }
      database_.signed_state = after.sequence < database_.head.sequence ? std::optional(after) : std::nullopt;
    } else if (database_.signed_state && database_.signed_state->sequence < after.sequence) {
      return Error{Errc::kCorrupt, "signing in the simulated database: the signed rows end at " +
                                       std::to_string(database_.signed_state->sequence) + ", these follow " +
                                       std::to_string(before.sequence)};
    }
    return end("signing");
  }

 private:
  Result<void> begin(const std::string& attempt) {
    if (!connection_.there()) return unreachable(attempt);
    if (database_.epoch != epoch_)
      return Error{Errc::kFenced, attempt + " in the simulated database with epoch " + std::to_string(epoch_) +
                                      ": a newer writer has epoch " + std::to_string(database_.epoch)};
    return {};
  }

  Result<void> end(const std::string& attempt) { return connection_.back() ? Result<void>() : Result<void>(unreachable(attempt)); }

  Result<void> store(std::span<const streams::SignedRow> rows, const processors::ChainState& before,
                     const processors::ChainState& after, bool staged) {
    TRY(begin("appending"));
    if (database_.head == before) {
      database_.rows.insert(database_.rows.end(), rows.begin(), rows.end());
      database_.head = after;
      if (staged && !database_.signed_state) database_.signed_state = before;
    } else if (database_.head != after) {
      return Error{Errc::kCorrupt, "appending to the simulated database: its chain stands at sequence " +
                                       std::to_string(database_.head.sequence) + ", the batch follows " +
                                       std::to_string(before.sequence)};
    }
    return end("appending");
  }

  static Error unreachable(const std::string& attempt) {
    return {Errc::kUnreachable, attempt + " in the simulated database: server closed the connection unexpectedly"};
  }

  SimDatabase& database_;
  SimConnection connection_;
  int64_t epoch_ = 0;
  std::optional<processors::ChainState> signed_state_;
};

std::string fake_signature(const Sha256Digest& digest) {
  const UInt128 sum = xxh3_128(as_bytes(digest));
  std::string out(64, '\0');
  for (size_t i = 0; i < out.size(); ++i) out[i] = static_cast<char>(static_cast<uint8_t>(sum >> (i % 16 * 8)));
  return out;
}

class SimSigner final : public streams::Signer {
 public:
  explicit SimSigner(std::function<bool()> reachable) : reachable_(std::move(reachable)) {
    key_.signer_id = "simulated";
    key_.public_key = std::string(43, 'A') + "=";
  }
  Result<std::string> sign(const Sha256Digest& digest) override {
    if (!reachable_()) return Error{Errc::kUnreachable, "signing: the simulated signer does not answer"};
    return fake_signature(digest);
  }
  const SignerKey& key() const override { return key_; }

 private:
  std::function<bool()> reachable_;
  SignerKey key_;
};

}  // namespace

std::unique_ptr<streams::AuditSink> open_sim_sink(SimDatabase& database, SimConnection connection) {
  return std::make_unique<SimSink>(database, std::move(connection));
}

std::unique_ptr<streams::Signer> make_sim_signer(std::function<bool()> reachable) {
  return std::make_unique<SimSigner>(std::move(reachable));
}

bool signed_by_sim_signer(const streams::SignedRow& row) {
  return row.signer_kid == "simulated" && row.signature == to_base64(fake_signature(row.row.hash));
}

}  // namespace assay::replay
