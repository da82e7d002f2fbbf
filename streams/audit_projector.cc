#include "streams/audit_projector.h"

#include <algorithm>
#include <optional>
#include <thread>
#include <utility>
#include <vector>

#include "schemas/planted.h"

namespace assay::streams {

using processors::AuditRow;
using processors::ChainState;

namespace {

constexpr Milliseconds kPollWait{100};
constexpr Milliseconds kCommitEvery{1000};

/// What was folded since the last batch that went to the sink.
struct Batch {
  ChainState before, after;
  std::vector<SignedRow> rows;
  size_t bytes = 0;
  Milliseconds started{0};  // uptime of its first record
  bool empty() const { return before.next_offset == after.next_offset; }
};

/// A batch on its way into the sink, on a thread of its own.
struct Writing {
  Batch batch;
  Result<void> result;  // when the thread is done
  std::unique_ptr<Runtime::Thread> thread;
};

}  // namespace

class AuditProjector::Run {
 public:
  Run(AuditProjector& projector, const std::atomic<bool>& stop)
      : p_(projector), options_(projector.options_), runtime_(projector.runtime_), stop_(stop), partition_{options_.topic, 0} {}

  Result<void> operator()() {
    TRY_ASSIGN(ChainState state, retrying<ChainState>([&] { return p_.sink_.take_over(p_.signer_.key()); }));
    if (stop_) return {};
    batch_.before = batch_.after = state;
    TRY(retrying<void>([&] { return judge_place(state); }));
    TRY_ASSIGN(reader_, retrying<std::unique_ptr<LogReader>>([&] {
                 return p_.log_.open_reader({{partition_, state.next_offset}});
               }));
    p_.position_.store(state.next_offset.value, std::memory_order_release);
    Result<void> result;
    while (!stop_ && result) result = turn();
    // What is being stored comes to its end; what was only folded is read again by the next run.
    Result<void> stored = finish_writing();
    if (result) result = std::move(stored);
    commit_offsets();
    return result;
  }

 private:
  /// Calls `f` until it is not unreachable or the run is to stop. Stopped: the last error becomes a default value.
  template <class T, class F>
  Result<T> retrying(F&& f) {
    bool retried = false;
    for (Milliseconds wait = options_.retry_min;; wait = std::min(wait * 2, options_.retry_max)) {
      Result<T> result = f();
      if (result || result.error().code != Errc::kUnreachable) {
        if (retried && options_.on_recovered) options_.on_recovered();
        return result;
      }
      retried = true;
      p_.counters_.retries.fetch_add(1, std::memory_order_relaxed);
      if (options_.on_retry) options_.on_retry(result.error());
      for (const auto until = runtime_.uptime() + wait; runtime_.uptime() < until && !stop_;) runtime_.sleep(Milliseconds(10));
      if (stop_) {
        if constexpr (std::is_void_v<T>)
          return {};
        else
          return T{};
      }
    }
  }

  /// Whether the log is the one that the sink was filled from, and still holds what comes next.
  Result<void> judge_place(const ChainState& state) {
    const std::string where = to_string(partition_) + " of " + p_.log_.describe() + " into " + p_.sink_.describe();
    auto diverged = [&](const std::string& what) {
      return Error{Errc::kCorrupt, "LOG_DIVERGED: projecting " + where + ": " + what};
    };
    TRY_ASSIGN(OffsetRange range, p_.log_.range(partition_));
    const std::string next = std::to_string(state.next_offset.value);
    if (state.next_offset > range.end)
      return diverged("the chain continues at offset " + next + ", the log ends at " + std::to_string(range.end.value));
    if (state.next_offset < range.start)
      return Error{Errc::kOutOfRange, "OFFSETS_LOST: projecting " + where + ": the chain continues at offset " + next +
                                          ", the log starts at " + std::to_string(range.start.value)};
    if (state.last_offset < range.start) return {};  // no row yet, or its record was retained away
    TRY_ASSIGN(std::unique_ptr<LogReader> reader, p_.log_.open_reader({{partition_, state.last_offset}}));
    while (!stop_) {
      TRY_ASSIGN(std::optional<Fetch> fetch, reader->poll(kPollWait, 1));
      if (fetch && !fetch->records.empty()) {
        const RecordView& record = fetch->records.front();
        if (record.offset == state.last_offset && processors::anchor_of(record) == state.anchor) return {};
        return diverged("the record at offset " + std::to_string(state.last_offset.value) + " is not the one that became event " +
                        state.head_id);
      }
      if (fetch && fetch->at_end)
        return diverged("there is no record at offset " + std::to_string(state.last_offset.value) + ", which became event " +
                        state.head_id);
    }
    return {};
  }

  Result<void> turn() {
    if (!full()) TRY(read());
    if (writing_ != nullptr && (full() || writing_->thread->done())) {
      if (full()) TRY(sign(batch_));  // while the batch before is being stored
      TRY(finish_writing());
    }
    if (writing_ == nullptr && !batch_.empty() && (full() || runtime_.uptime() >= batch_.started + options_.linger)) TRY(store());
    if (writing_ == nullptr && batch_.empty() && end_ && end_->value > p_.position_.load(std::memory_order_relaxed))
      p_.position_.store(end_->value, std::memory_order_release);  // only markers lie in between
    const bool settled = writing_ == nullptr && batch_.empty();
    const Milliseconds pause = settled && !commit_failed_ ? Milliseconds(0) : kCommitEvery;
    if (!committed_at_ || runtime_.uptime() >= *committed_at_ + pause) commit_offsets();
    return {};
  }

  bool full() const { return batch_.rows.size() >= options_.batch_rows_max || batch_.bytes >= options_.batch_bytes_max; }

  Result<void> read() {
    const bool hurry = !batch_.empty() || writing_ != nullptr;
    TRY_ASSIGN(std::optional<Fetch> fetch, retrying<std::optional<Fetch>>([&] {
                 return reader_->poll(hurry ? std::min(options_.linger, kPollWait) : kPollWait,
                                      options_.batch_rows_max - batch_.rows.size());
               }));
    if (!fetch) return {};
    for (const RecordView& record : fetch->records) TRY(fold(record));
    end_ = fetch->at_end ? std::optional(fetch->next) : std::nullopt;
    return {};
  }

  Result<void> fold(const RecordView& record) {
    if (batch_.empty()) batch_.started = runtime_.uptime();
    std::optional<processors::WriterStamp> stamp;
    if (options_.writer_of) stamp = options_.writer_of(record);
    processors::ChainStep step = processors::fold_audit_record(record, stamp, batch_.after);
    if (AuditRow* row = std::get_if<AuditRow>(&step)) {
      batch_.bytes += row->payload.size();
      batch_.rows.push_back({std::move(*row), {}, {}});
      p_.counters_.folded.fetch_add(1, std::memory_order_relaxed);
    } else if (auto* refused = std::get_if<processors::Refused>(&step)) {
      p_.counters_.refused.fetch_add(1, std::memory_order_relaxed);
      return retrying<void>([&] { return options_.dead_letter(record, refused->reason, refused->detail); });
    } else if (auto* gap = std::get_if<processors::InputGap>(&step)) {
      return Error{Errc::kIncomplete, "INPUT_GAP: projecting " + to_string(partition_) + " at offset " +
                                          std::to_string(record.offset.value) + ": writer " + gap->writer + " sent record " +
                                          std::to_string(gap->found) + " where " + std::to_string(gap->expected) + " was due"};
    } else {
      p_.counters_.repeated.fetch_add(1, std::memory_order_relaxed);
    }
    return {};
  }

  /// Signs the rows that are not signed yet.
  Result<void> sign(Batch& batch) {
    std::vector<SignedRow*> unsigned_rows;
    std::vector<Sha256Digest> digests;
    for (SignedRow& row : batch.rows)
      if (row.signature.empty()) {
        unsigned_rows.push_back(&row);
        digests.push_back(row.row.hash);
      }
    if (digests.empty()) return {};
    return retrying<void>([&]() -> Result<void> {
      TRY_ASSIGN(std::vector<std::string> signatures, p_.signer_.sign_all(digests));
      for (size_t i = 0; i < digests.size(); ++i) {
        unsigned_rows[i]->signature = to_base64(signatures[i]);
        unsigned_rows[i]->signer_kid = p_.signer_.key().signer_id;
      }
      return {};
    });
  }

  /// Hands the batch to the sink and starts the next one.
  Result<void> store() {
    TRY(sign(batch_));
    if (stop_) return {};  // the signer may have been left before all was signed
    Batch next;
    next.before = next.after = batch_.after;
    writing_ = std::make_unique<Writing>();
    writing_->batch = std::exchange(batch_, std::move(next));
    writing_->thread = runtime_.spawn([this, w = writing_.get()] { w->result = append(w->batch); });
    return {};
  }

  Result<void> append(const Batch& batch) {
    bool stored = false;
    TRY(retrying<void>([&] {
      Result<void> result = p_.sink_.append(batch.rows, batch.before, batch.after);
      if (planted(Bug::kUnansweredRows) && !result && result.error().code == Errc::kUnreachable) result = {};
      stored = result.has_value();
      return result;
    }));
    if (!stored) return {};  // stopped before the sink came back
    p_.counters_.rows.fetch_add(std::ssize(batch.rows), std::memory_order_relaxed);
    p_.counters_.batches.fetch_add(1, std::memory_order_relaxed);
    p_.position_.store(batch.after.next_offset.value, std::memory_order_release);
    return {};
  }

  /// Waits for the batch that is on its way, if there is one.
  Result<void> finish_writing() {
    if (writing_ == nullptr) return {};
    writing_->thread->join();
    Result<void> result = std::move(writing_->result);
    writing_.reset();
    return result;
  }

  /// Lets standard tools see how far the chain is. The truth is in the sink, so a failure only counts.
  void commit_offsets() {
    const Offset position = p_.position();
    if (options_.group.empty() || position == committed_ || position.value < 0) return;
    committed_at_ = runtime_.uptime();
    Result<void> done = p_.log_.commit_offsets({options_.group, {{partition_, position}}}, options_.member);
    if (done && commit_failed_ && options_.on_recovered) options_.on_recovered();
    commit_failed_ = !done;
    if (done) {
      committed_ = position;
    } else {
      p_.counters_.commit_errors.fetch_add(1, std::memory_order_relaxed);
      if (options_.on_retry) options_.on_retry(done.error());
    }
  }

  AuditProjector& p_;
  const AuditProjectorOptions& options_;
  Runtime& runtime_;
  const std::atomic<bool>& stop_;
  const TopicPartition partition_;
  std::unique_ptr<LogReader> reader_;
  Batch batch_;
  std::optional<Offset> end_;  // of the log, when the last fetch reached it
  std::unique_ptr<Writing> writing_;
  Offset committed_{-1};
  bool commit_failed_ = false;
  std::optional<Milliseconds> committed_at_;  // uptime of the last attempt
};

AuditProjector::AuditProjector(Log& log, AuditSink& sink, Signer& signer, AuditProjectorOptions options, Runtime& runtime)
    : log_(log), sink_(sink), signer_(signer), options_(std::move(options)), runtime_(runtime) {
  CHECK(options_.dead_letter && options_.batch_rows_max > 0);
}

Result<void> AuditProjector::run(const std::atomic<bool>& stop) { return Run(*this, stop)(); }

}  // namespace assay::streams
