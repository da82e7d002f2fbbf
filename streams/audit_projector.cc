#include "streams/audit_projector.h"

#include <algorithm>
#include <map>
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
  bool staged = false;      // it goes to the sink without signatures
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
    TRY_ASSIGN(ChainState state, retrying<ChainState>([&] { return p_.sink_.take_over(p_.signer_->key()); }));
    if (stop_) return {};
    batch_.before = batch_.after = state;
    signed_ = p_.sink_.signed_state();
    TRY(retrying<void>([&] { return judge_place(state); }));
    p_.position_.store(state.next_offset.value, std::memory_order_release);
    publish();
    Result<void> result;
    while (!stop_ && result) result = turn();
    // What is being stored comes to its end; what was only folded is read again by the next run.
    Result<void> stored = finish_writing();
    if (result) result = std::move(stored);
    if (!commit_failed_) commit_offsets();  // who gave no answer just now keeps nobody who is to end
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
    if (held()) {
      if (batch_.empty()) TRY(look_for_resume());
    } else if (!full()) {
      TRY(read());
    }
    if (writing_ != nullptr && (full() || held() || writing_->thread->done())) {
      if (full()) TRY(sign(batch_));  // while the batch before is being stored
      TRY(finish_writing());
    }
    if (writing_ == nullptr && !batch_.empty() && (full() || held() || runtime_.uptime() >= batch_.started + options_.linger))
      TRY(store());
    if (writing_ == nullptr && signed_ && !held() && !stop_ && runtime_.uptime() >= sign_again_at_) TRY(sign_waiting());
    if (stop_) return {};  // what was on its way may have been left
    if (writing_ == nullptr && batch_.empty() && end_ && end_->value > p_.position_.load(std::memory_order_relaxed))
      p_.position_.store(end_->value, std::memory_order_release);  // only markers lie in between
    const bool settled = writing_ == nullptr && batch_.empty();
    const Milliseconds pause = settled && !commit_failed_ ? Milliseconds(0) : kCommitEvery;
    if (!committed_at_ || runtime_.uptime() >= *committed_at_ + pause) commit_offsets();
    return {};
  }

  bool full() const { return batch_.rows.size() >= options_.batch_rows_max || batch_.bytes >= options_.batch_bytes_max; }

  /// Whether the chain is paused here and no resumption is known of further on.
  bool held() const {
    return !options_.rebuild && batch_.after.control.paused && !(resume_at_ && batch_.after.next_offset <= *resume_at_);
  }

  bool safe_mode(const ChainState& state) const { return !options_.rebuild && !state.control.safe_mode.empty(); }

  Result<std::unique_ptr<LogReader>> open_reader() {
    return retrying<std::unique_ptr<LogReader>>([&] { return p_.log_.open_reader({{partition_, batch_.after.next_offset}}); });
  }

  /// Looks ahead, without folding anything, for the record that ends the pause.
  Result<void> look_for_resume() {
    reader_.reset();
    end_.reset();
    if (scout_ == nullptr) {
      TRY_ASSIGN(scout_, open_reader());
    }
    if (scout_ == nullptr) return {};  // stopped
    TRY_ASSIGN(std::optional<Fetch> fetch,
               retrying<std::optional<Fetch>>([&] { return scout_->poll(kPollWait, options_.batch_rows_max); }));
    if (!fetch) return {};
    for (const RecordView& record : fetch->records)
      if (!resume_at_ || record.offset > *resume_at_)
        if (record.value && record.value->find("\"eventType\":\"audit.resumed\"") != std::string_view::npos) {
          resume_at_ = record.offset;
          scout_.reset();  // should it not count when it is folded, the next look begins behind it
          return {};
        }
    return {};
  }

  Result<void> read() {
    if (reader_ == nullptr) {
      TRY_ASSIGN(reader_, open_reader());
    }
    if (reader_ == nullptr) return {};  // stopped
    const bool hurry = !batch_.empty() || writing_ != nullptr || signed_;
    TRY_ASSIGN(std::optional<Fetch> fetch, retrying<std::optional<Fetch>>([&] {
                 return reader_->poll(hurry ? std::min(options_.linger, kPollWait) : kPollWait,
                                      options_.batch_rows_max - batch_.rows.size());
               }));
    if (!fetch) return {};
    for (const RecordView& record : fetch->records) {
      if (held()) return {};  // read again when it goes on
      if (options_.until && record.offset >= *options_.until) {
        end_ = options_.until;
        return {};
      }
      TRY(fold(record, batch_.after, [&](AuditRow row) {
        batch_.bytes += row.payload.size();
        batch_.rows.push_back({std::move(row), {}, batch_.after.control.active});
        p_.counters_.folded.fetch_add(1, std::memory_order_relaxed);
      }));
    }
    end_ = fetch->at_end ? std::optional(std::min(fetch->next, options_.until.value_or(fetch->next))) : std::nullopt;
    return {};
  }

  /// Folds one record; `take` gets the row that it makes. The first time it is folded, what is refused goes to the dead letters.
  Result<void> fold(const RecordView& record, ChainState& state, const std::function<void(AuditRow)>& take) {
    const bool first_time = &state == &batch_.after;
    if (first_time && batch_.empty()) batch_.started = runtime_.uptime();
    std::optional<processors::WriterStamp> stamp;
    if (options_.writer_of) stamp = options_.writer_of(record);
    processors::ChainStep step = processors::fold_audit_record(record, stamp, state);
    if (AuditRow* row = std::get_if<AuditRow>(&step)) {
      if (options_.rebuild)
        if (auto own = state.control.keys.find(p_.signer_->key().signer_id); own != state.control.keys.end())
          own->second.first_sequence = own->second.last_sequence = std::nullopt;
      take(std::move(*row));
    } else if (auto* gap = std::get_if<processors::InputGap>(&step)) {
      return Error{Errc::kIncomplete, "INPUT_GAP: projecting " + to_string(partition_) + " at offset " +
                                          std::to_string(record.offset.value) + ": writer " + gap->writer + " sent record " +
                                          std::to_string(gap->found) + " where " + std::to_string(gap->expected) + " was due"};
    } else if (auto* refused = std::get_if<processors::Refused>(&step); refused != nullptr && first_time) {
      p_.counters_.refused.fetch_add(1, std::memory_order_relaxed);
      return retrying<void>([&] { return options_.dead_letter(record, refused->reason, refused->detail); });
    } else if (first_time) {
      p_.counters_.repeated.fetch_add(1, std::memory_order_relaxed);
    }
    return {};
  }

  /// The signer of a key; of "" the configured one.
  Result<std::shared_ptr<Signer>> signer_of(const processors::AuditControl& control, const std::string& id) {
    if (options_.rebuild || id.empty() || id == p_.signer_->key().signer_id || !options_.signer_of) return p_.signer_;
    if (auto known = signers_.find(id); known != signers_.end()) return known->second;
    auto standing = control.keys.find(id);
    CHECK(standing != control.keys.end());
    TRY_ASSIGN(std::shared_ptr<Signer> signer, options_.signer_of(standing->second));
    if (signer->key() != standing->second.key)
      return Error{Errc::kRefused, "signing with " + id + ": the key that was found is not the one that the chain names"};
    return signers_.emplace(id, std::move(signer)).first->second;
  }

  /// Signs those of the rows that are not signed yet: each by the key that was in use when it was made, or, when it comes late, by
  /// the one that may sign it now.
  Result<void> sign_rows(std::vector<SignedRow>& rows, const processors::AuditControl& control, bool late) {
    std::map<std::string, std::vector<SignedRow*>> by_key;
    for (SignedRow& row : rows)
      if (row.signature.empty())
        by_key[late ? signing_key(control, row.row.sequence, row.signer_kid) : row.signer_kid].push_back(&row);
    for (const auto& [id, mine] : by_key) {
      TRY_ASSIGN(std::shared_ptr<Signer> signer, signer_of(control, id));
      std::vector<Sha256Digest> digests;
      for (const SignedRow* row : mine) digests.push_back(row->row.hash);
      TRY_ASSIGN(std::vector<std::string> signatures, signer->sign_all(digests));
      for (size_t i = 0; i < mine.size(); ++i) {
        mine[i]->signature = to_base64(signatures[i]);
        mine[i]->signer_kid = signer->key().signer_id;
      }
    }
    return {};
  }

  /// Signs the batch, or makes it one that is staged: behind rows that wait, in safe mode, and when its signer does not sign.
  Result<void> sign(Batch& batch) {
    batch.staged = signed_.has_value() || safe_mode(batch.after);
    if (!batch.staged)
      if (Result<void> done = sign_rows(batch.rows, batch.after.control, false); !done) {
        batch.staged = true;
        not_signed(done.error());
      }
    if (!batch.staged) return {};
    for (SignedRow& row : batch.rows) {
      row.signature.clear();
      if (row.signer_kid.empty()) row.signer_kid = p_.signer_->key().signer_id;
    }
    return {};
  }

  void not_signed(const Error& error) {
    p_.counters_.retries.fetch_add(1, std::memory_order_relaxed);
    if (options_.on_retry) options_.on_retry(error);
    sign_wait_ = std::clamp(sign_wait_ * 2, options_.retry_min, options_.retry_max);
    sign_again_at_ = runtime_.uptime() + sign_wait_;
  }

  /// Signs the oldest rows that wait, as many as a batch holds. They are folded again from the log: what is signed is what was
  /// recorded there, whatever became of it in the sink.
  Result<void> sign_waiting() {
    if (safe_mode(batch_.before)) return {};
    const ChainState before = *signed_;
    ChainState after = before;
    std::vector<SignedRow> rows;
    TRY(retrying<void>([&] { return fold_again(before, after, rows); }));
    if (stop_) return {};
    if (after.sequence == batch_.before.sequence) {
      if (after.head_hash != batch_.before.head_hash)
        return Error{Errc::kCorrupt, "LOG_DIVERGED: signing the rows that wait in " + p_.sink_.describe() + ": row " +
                                         std::to_string(after.sequence) + " is not the one that " + to_string(partition_) + " of " +
                                         p_.log_.describe() + " makes"};
      after = batch_.before;
    }
    if (Result<void> done = sign_rows(rows, batch_.before.control, true); !done) {
      not_signed(done.error());
      return {};
    }
    TRY(show_active(batch_.before.control));
    TRY(retrying<void>([&] { return p_.sink_.sign(rows, before, after); }));
    if (stop_) return {};  // it may not have been done: the next run finds out
    p_.counters_.late.fetch_add(std::ssize(rows), std::memory_order_relaxed);
    signed_ = after;
    sign_wait_ = Milliseconds(0);
    if (after.sequence == batch_.before.sequence) {
      signed_.reset();
      if (options_.on_recovered) options_.on_recovered();
    }
    publish();
    return {};
  }

  /// The rows behind `before`, at most a batch of them and none that is not stored.
  Result<void> fold_again(const ChainState& before, ChainState& after, std::vector<SignedRow>& rows) {
    rows.clear();
    after = before;
    const std::string next = std::to_string(before.next_offset.value);
    TRY_ASSIGN(OffsetRange range, p_.log_.range(partition_));
    if (before.next_offset < range.start)
      return Error{Errc::kOutOfRange, "OFFSETS_LOST: signing the rows that wait in " + p_.sink_.describe() +
                                          ": they begin at offset " + next + " of " + to_string(partition_) +
                                          ", the log starts at " + std::to_string(range.start.value)};
    TRY_ASSIGN(std::unique_ptr<LogReader> reader, p_.log_.open_reader({{partition_, before.next_offset}}));
    while (!stop_) {
      TRY_ASSIGN(std::optional<Fetch> fetch, reader->poll(kPollWait, options_.batch_rows_max));
      if (!fetch) continue;
      for (const RecordView& record : fetch->records) {
        if (after.sequence == batch_.before.sequence || rows.size() >= options_.batch_rows_max) return {};
        TRY(fold(record, after, [&](AuditRow row) {
          const std::string& active = after.control.active;
          rows.push_back({std::move(row), {}, active});
        }));
      }
      if (after.sequence == batch_.before.sequence) return {};
      if (fetch->at_end)
        return Error{Errc::kCorrupt, "LOG_DIVERGED: signing the rows that wait in " + p_.sink_.describe() + ": the log makes " +
                                         std::to_string(after.sequence) + " rows, " + std::to_string(batch_.before.sequence) +
                                         " are stored"};
    }
    return {};
  }

  /// Lets the sink sign with the key that is in use.
  Result<void> show_active(const processors::AuditControl& control) {
    if (shown_ == control.active) return {};
    Result<std::shared_ptr<Signer>> signer = signer_of(control, control.active);
    if (!signer) return {};  // it is away: nothing that needs it is signed either
    p_.sink_.use_signer(*signer);
    shown_ = control.active;
    return {};
  }

  /// Hands the batch to the sink and starts the next one.
  Result<void> store() {
    TRY(sign(batch_));
    if (stop_) return {};  // the batch before may have been left
    if (!batch_.staged) TRY(show_active(batch_.after.control));
    if (batch_.staged && !signed_ && !batch_.rows.empty()) signed_ = batch_.before;
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
      Result<void> result = batch.staged ? p_.sink_.stage(batch.rows, batch.before, batch.after)
                                         : p_.sink_.append(batch.rows, batch.before, batch.after);
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

  /// Tells those who ask where the chain stands.
  void publish() {
    p_.counters_.unsigned_rows.store(signed_ ? batch_.before.sequence - signed_->sequence : 0, std::memory_order_relaxed);
    std::lock_guard lock(p_.control_mutex_);
    p_.control_ = batch_.before.control;
  }

  /// Waits for the batch that is on its way, if there is one.
  Result<void> finish_writing() {
    if (writing_ == nullptr) return {};
    writing_->thread->join();
    Result<void> result = std::move(writing_->result);
    writing_.reset();
    publish();
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
  std::optional<ChainState> signed_;          // where the signed rows end, while others wait behind them
  Milliseconds sign_wait_{0}, sign_again_at_{0};
  std::map<std::string, std::shared_ptr<Signer>> signers_;  // of keys that events put in use
  std::string shown_;                                       // the key that the sink itself signs with
  std::unique_ptr<LogReader> scout_;                        // looks for the end of a pause
  std::optional<Offset> resume_at_;                         // which it found there
};

AuditProjector::AuditProjector(Log& log, AuditSink& sink, std::shared_ptr<Signer> signer, AuditProjectorOptions options,
                               Runtime& runtime)
    : log_(log), sink_(sink), signer_(std::move(signer)), options_(std::move(options)), runtime_(runtime) {
  CHECK(signer_ && options_.dead_letter && options_.batch_rows_max > 0);
}

processors::AuditControl AuditProjector::control() const {
  std::lock_guard lock(control_mutex_);
  return control_;
}

Result<void> AuditProjector::run(const std::atomic<bool>& stop) { return Run(*this, stop)(); }

}  // namespace assay::streams
