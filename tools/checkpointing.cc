#include "tools/checkpointing.h"

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "streams/audit_archive.h"
#include "streams/https_client.h"
#include "streams/logging.h"
#include "streams/postgres_sink.h"
#include "streams/read_to_end.h"
#include "streams/topic_admin.h"
#include "tools/open_log.h"
#include "tools/projection.h"
#include "tools/replay_source.h"
#include "tools/session.h"
#include "tools/signers.h"

namespace assay::tools {
namespace {

namespace fs = std::filesystem;
using streams::Checkpoint;
using streams::NotePolicy;

constexpr streams::Milliseconds kWitnessTimeout{3000};
constexpr int64_t kFirstAfterMs = 60'000, kRetryMs = 60'000;
constexpr int64_t kHeardMax = 1000;  // records at the end of the topic: whoever writes there has written the newest last

const char* error_word(const Error& error) {
  switch (error.code) {
    case Errc::kTampered:
      return "tampered";
    case Errc::kRefused:
      return "refused";
    case Errc::kUnreachable:
      return "unreachable";
    default:
      return "other";
  }
}

/// POST add-checkpoint to the witness's URL.
Result<std::pair<int, std::string>> ask_witness(streams::HttpsClient& client, const NotePolicy::Witness& witness,
                                                const std::string& body) {
  std::string url = witness.url;
  while (url.ends_with('/')) url.pop_back();
  TRY_ASSIGN(streams::HttpsResponse answer,
             client.call({"POST", url + "/add-checkpoint", {{"Content-Type", "text/plain; charset=utf-8"}}, body}));
  return std::pair(answer.status, answer.body);
}

using PutNote = std::function<Result<void>(const Checkpoint& checkpoint, const std::string& note)>;

/// Objects are never overwritten: a note that got a cosignature later stands beside the one without.
PutNote put_object(const Settings& settings, const std::string& place) {
  auto objects = std::make_shared<std::shared_ptr<streams::ObjectStore>>();
  return [&settings, place, objects](const Checkpoint& checkpoint, const std::string& note) -> Result<void> {
    if (*objects == nullptr) {
      TRY_ASSIGN(*objects, open_objects(settings, place, true));
    }
    TRY((*objects)->put_new(streams::checkpoint_object(checkpoint.size, note), note));
    return {};
  };
}

PutNote put_record(streams::Log& log, const std::string& topic) {
  return [&log, topic](const Checkpoint& checkpoint, const std::string& note) -> Result<void> {
    TRY_ASSIGN(auto producer, log.open_producer());
    OutRecord record;
    record.to = {topic, 0};
    record.timestamp = wall_now();
    record.key = checkpoint.origin;
    record.value = note;
    TRY(producer->send(std::move(record)));
    return producer->flush();
  };
}

}  // namespace

std::string checkpoints_of(const Settings& settings) { return (fs::path(settings.data_dir) / "checkpoints").string(); }

Result<NotePolicy> read_note_policy(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{Errc::kUsage, "reading a policy: " + path + " cannot be read"};
  Result<NotePolicy> policy = NotePolicy::parse(std::string((std::istreambuf_iterator<char>(in)), {}));
  if (!policy) return Error{Errc::kUsage, policy.error().message + " (" + path + ")"};
  return policy;
}

Result<streams::StoredChain> open_chain_after(const Settings& settings, int64_t after) {
  if (!settings.database.url.empty()) return streams::open_database_chain(settings.database.url, after);
  return streams::open_archive_chain(audit_dir(settings.data_dir), after);
}

Result<std::unique_ptr<streams::Checkpointer>> open_checkpointer(
    const Settings& settings, const CheckpointWishes& wishes, streams::Log* log, const std::atomic<bool>* stopping,
    std::function<void(const NotePolicy::Witness& witness, const std::string& what)> on_absent) {
  streams::CheckpointerOptions options;
  options.dir = checkpoints_of(settings);
  if (const std::string& file = wishes.policy.empty() ? settings.audit.checkpoint_policy : wishes.policy; !file.empty()) {
    TRY_ASSIGN(options.policy, read_note_policy(file));
  }
  streams::HttpsOptions over;
  over.plain_http = true;  // a witness on this machine; what it says is signed
  over.connect_timeout = over.timeout = kWitnessTimeout;
  TRY_ASSIGN(std::shared_ptr<streams::HttpsClient> client, streams::HttpsClient::open(over));
  options.ask = [client, stopping](const NotePolicy::Witness& witness,
                                   const std::string& body) -> Result<std::pair<int, std::string>> {
    if (stopping != nullptr && *stopping) return Error{Errc::kUnreachable, "it was not asked: this process ends"};
    return ask_witness(*client, witness, body);
  };
  options.on_absent = std::move(on_absent);
  if (log != nullptr) options.places.push_back(put_record(*log, topic_names(settings).full(streams::kCheckpointTopic)));
  if (!settings.archive.url.empty()) options.places.push_back(put_object(settings, settings.archive.url));
  if (!wishes.publish.empty()) options.places.push_back(put_object(settings, wishes.publish));
  TRY_ASSIGN(auto signer, open_checkpoint_signer(settings, wishes.origin));
  return streams::Checkpointer::open(std::move(options), std::move(signer));
}

Json describe_checkpoint(const streams::Checkpointer& checkpointer, bool made) {
  const auto& newest = checkpointer.newest();
  CHECK(newest.has_value());
  const Result<streams::Note> note = streams::Note::parse(newest->note);
  CHECK(note.has_value());
  const streams::PolicyVerdict verdict = checkpointer.policy().judge(*note);
  Json row = Json::object();
  row.set("origin", newest->checkpoint.origin).set("rows", std::to_string(newest->checkpoint.size));
  row.set("root", to_base64(as_bytes(newest->checkpoint.root))).set("new", made);
  row.set("cosignatures", static_cast<int64_t>(newest->cosignatures)).set("quorum", verdict.fault.empty());
  return row.set("logKey", checkpointer.policy().logs().back().key.to_text());
}

Checkpointing::Checkpointing(const Settings& settings, streams::Log& log, streams::Metrics& metrics)
    : settings_(settings), log_(log), metrics_(metrics) {}

Result<std::unique_ptr<Checkpointing>> Checkpointing::open(const Settings& settings, streams::Log& log, streams::Metrics& metrics) {
  std::unique_ptr<Checkpointing> out(new Checkpointing(settings, log, metrics));
  for (const char* error : {"tampered", "refused", "unreachable", "other"})
    metrics.touch(streams::Metric::kAuditCheckpointErrors, {error});
  if (!settings.audit.checkpoint_policy.empty()) {
    TRY_ASSIGN(const NotePolicy policy, read_note_policy(settings.audit.checkpoint_policy));
    for (const NotePolicy::Witness& witness : policy.witnesses())
      metrics.touch(streams::Metric::kAuditWitnessFailures, {witness.name});
  }
  out->thread_ = std::thread([checkpointing = out.get()] { checkpointing->run(); });
  return out;
}

Checkpointing::~Checkpointing() {
  stopping_ = true;
  { std::lock_guard lock(waiting_); }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

streams::Projection Checkpointing::watch(streams::Projection projection) {
  projection.run = [this, run = std::move(projection.run)](const streams::Membership* member, const std::atomic<bool>& stop) {
    ++ownership_;
    owned_ = true;
    Result<void> result = run(member, stop);
    owned_ = false;
    until_the_end_ = result.has_value();
    return result;
  };
  return projection;
}

/// What others have made of this log meanwhile: the chain must go on from there.
Result<void> Checkpointing::hear_topic() {
  const TopicPartition tp{topic_names(settings_).full(streams::kCheckpointTopic), 0};
  Result<streams::OffsetRange> range = log_.range(tp);
  if (!range && range.error().code == Errc::kNotFound) return {};
  if (!range) return range.error();
  range->start = std::max(range->start, range->end - kHeardMax);
  TRY(streams::read_ranges(log_, {{tp, *range}}, [&](const TopicPartition&, const RecordView& record) -> Result<bool> {
    if (stopping_) return false;
    if (!record.value || record.key.value_or("") != checkpointer_->policy().logs().back().key.name) return true;
    Result<void> heard = checkpointer_->hear(std::string(*record.value));
    if (!heard && heard.error().code != Errc::kCorrupt) return heard.error();
    if (!heard)
      streams::log_warning("audit.checkpoint_unread", {{"offset", record.offset.value}, {"detail", heard.error().message}});
    return true;
  }));
  return {};
}

Result<Json> Checkpointing::make(bool ours_no_more) {
  std::lock_guard lock(making_);
  if (checkpointer_ == nullptr) {
    TRY_ASSIGN(
        checkpointer_,
        open_checkpointer(settings_, {}, &log_, &stopping_, [this](const NotePolicy::Witness& witness, const std::string& what) {
          metrics_.increment(streams::Metric::kAuditWitnessFailures, {witness.name});
          streams::log_warning("audit.witness_absent", {{"witness", witness.name}, {"url", witness.url}, {"detail", what}});
        }));
    heard_for_ = 0;
  }
  const uint64_t ownership = ownership_;
  if (heard_for_ != ownership) TRY(hear_topic());
  heard_for_ = ownership;
  auto ours = [this, ownership, ours_no_more]() -> Result<void> {
    if (!stopping_ && ownership == ownership_ && (owned_ || ours_no_more)) return {};
    return Error{Errc::kFenced, "making a checkpoint: the chain is not this process's any more"};
  };
  const auto made = checkpointer_->make([&](int64_t after) -> Result<streams::StoredChain> {
    TRY(ours());
    TRY_ASSIGN(streams::StoredChain chain, open_chain_after(settings_, after));
    chain.lines = [&ours, lines = std::move(chain.lines)]() -> Result<std::vector<streams::StoredLine>> {
      TRY(ours());
      return lines();
    };
    return chain;
  });
  if (const auto& newest = checkpointer_->newest())
    metrics_.set(streams::Metric::kAuditCheckpointRows, static_cast<double>(newest->checkpoint.size));
  if (!made) return made.error();
  if (!checkpointer_->newest()) return Error{Errc::kIncomplete, "making a checkpoint: the chain has no row yet"};
  if (*made) {
    metrics_.increment(streams::Metric::kAuditCheckpoints);
    streams::log_info("audit.checkpoint", {{"rows", static_cast<int64_t>((*made)->checkpoint.size)},
                                           {"cosignatures", static_cast<int64_t>((*made)->cosignatures)}});
  }
  return describe_checkpoint(*checkpointer_, made->has_value());
}

void Checkpointing::note(const Error& error) {
  // No chain yet is no error, nor is one that is somebody else's by now.
  if (error.code == Errc::kIncomplete || error.code == Errc::kFenced) return;
  metrics_.increment(streams::Metric::kAuditCheckpointErrors, {error_word(error)});
  if (error.code == Errc::kTampered)
    streams::log_error("audit.checkpoint_refused", "audit_checkpoint_errors", {{"detail", error.message}});
  else
    streams::log_warning("audit.checkpoint_retrying", {{"error", error_word(error)}, {"detail", error.message}});
}

void Checkpointing::run() {
  using std::chrono::milliseconds;
  const int64_t interval_ms = settings_.audit.checkpoint_interval_ms;
  int64_t pause_ms = std::min(interval_ms, kFirstAfterMs);
  std::unique_lock lock(waiting_);
  while (!stopping_) {
    if (wake_.wait_for(lock, milliseconds(pause_ms), [this] { return stopping_.load(); })) return;
    pause_ms = interval_ms;
    if (!owned_) continue;
    lock.unlock();
    if (auto made = make(false); !made) {
      note(made.error());
      pause_ms = std::min(interval_ms, kRetryMs);
    }
    lock.lock();
  }
}

Result<Json> Checkpointing::make_now() {
  if (!owned_) return Error{Errc::kRefused, "making a checkpoint: another process owns the audit chain; ask that one"};
  return make(false);
}

Result<void> Checkpointing::finish() {
  if (!until_the_end_) return {};
  auto made = make(true);
  if (made) return {};
  note(made.error());
  const Errc code = made.error().code;
  return code == Errc::kTampered || code == Errc::kRefused ? Result<void>(made.error()) : Result<void>();
}

}  // namespace assay::tools
