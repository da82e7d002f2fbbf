#include "replay/backfill.h"

#include <algorithm>
#include <limits>
#include <map>
#include <memory>
#include <unordered_map>
#include <utility>
#include <vector>

#include "processors/intake.h"
#include "replay/key_history.h"
#include "replay/trace.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/manifest.h"
#include "streams/refold.h"
#include "streams/topology.h"

namespace assay::replay {
namespace {

constexpr std::string_view kWriter = "backfill";
constexpr size_t kBatchBytes = size_t{4} << 20;
constexpr int kAttempts = 10;  // of a commit whose answer was lost
constexpr int64_t kProgressEvery = 10'000;

/// One agent's window, which closes once.
struct ClosedWindow {
  std::string agent, window;
  int64_t end_ms = 0;
};

std::optional<ClosedWindow> window_of(const Json& score) {
  const auto end = parse_rfc3339_ms(score.string_or("windowEnd", ""));
  if (!end) return std::nullopt;
  return ClosedWindow{std::string(score.string_or("agentId", "")), std::string(score.string_or("window", "")), *end};
}

UInt128 key_of(const ClosedWindow& w) { return xxh3_128(w.agent, xxh3_64(w.window, static_cast<uint64_t>(w.end_ms))); }

struct KeyHash {
  size_t operator()(UInt128 key) const { return static_cast<size_t>(key); }
};

/// What stands for a window.
struct Standing {
  UInt128 text, content;  // hashes of its bytes, and of what it says
  Id id;
  Offset at;
  std::optional<double> score;
  bool by_this_code = false;  // an original, made before any other code had a part in it
  bool withdrawn = false;
  bool seen = false;
};

/// What the manifests of a scoring task say of its scores.
struct Made {
  int64_t manifests = 0;                                      // that there are
  int64_t first_other = std::numeric_limits<int64_t>::max();  // the first that other code made: from there on all may differ
  struct Counted {
    int64_t scores = 0;        // written in all
    int64_t by_this_code = 0;  // and before `first_other`
  };
  std::map<std::string, Counted, std::less<>> by_writer;  // "<task>/<lineage>"
};

class Backfill {
 public:
  Backfill(streams::Log& source, streams::Log* into, const BackfillOptions& options)
      : source_(source), into_(into), options_(options), names_(options.names), plans_(streams::topology(names_, {.live = false})) {
    if (options_.agents.find_first_of("*?") == std::string::npos) agent_ = options_.agents;
  }

  Result<Backfilled> run() {
    // First of all, so that no older backfill writes anything while this one looks.
    if (into_ != nullptr) TRY(open_writer());
    for (int32_t p = 0; p < names_.partitions(); ++p) {
      if (agent_ && partition_of(*agent_, names_.partitions()) != p) continue;
      TRY_ASSIGN(const auto range, whole_range(source_, full(Topic::kReports, p), "rescoring"));
      total_ += range.end - range.start;
    }
    for (int32_t p = 0; p < names_.partitions(); ++p)
      if (!agent_ || partition_of(*agent_, names_.partitions()) == p) TRY(partition(p));
    return done_;
  }

 private:
  TopicPartition full(Topic topic, int32_t partition) const { return {names_.full(topic), partition}; }

  bool wanted(const ClosedWindow& w) const {
    return (!options_.since_ms || w.end_ms >= *options_.since_ms) && (!options_.until_ms || w.end_ms < *options_.until_ms) &&
           (agent_ ? w.agent == *agent_ : glob_match(options_.agents, w.agent));
  }

  Result<void> partition(int32_t p) {
    partition_ = p;
    standing_.clear();
    made_ = {};
    writer_name_.clear();
    counters_.clear();
    TRY_ASSIGN(const streams::TaskSpec spec, streams::find_task(plans_, names_, "scoring-" + std::to_string(p)));
    TRY(read_manifests(spec));
    TRY(read_standing(spec));
    Trace trace;
    trace.key = agent_;
    if (options_.rules) trace.rules = &*options_.rules;
    Result<void> failed;
    trace.after = [&](const TracedRecord& r, const processors::Outputs& outputs) {
      if (r.manifest > made_.manifests) return false;  // committed since we looked
      if (r.place.topic == topic_spec(Topic::kReports).name && ++done_.reports % kProgressEvery == 0 && options_.progress)
        options_.progress(done_.reports, total_);
      for (const processors::Output& output : outputs.records)
        if (output.topic == Topic::kScores && failed) failed = compare(output, r.manifest);
      return failed.has_value();
    };
    TRY(trace_task(source_, names_, spec, trace));
    TRY(std::move(failed));
    TRY(withdraw());
    return flush();
  }

  Result<void> read_manifests(const streams::TaskSpec& spec) {
    const TopicPartition tp = full(Topic::kManifests, spec.manifest_partition);
    TRY_ASSIGN(const streams::OffsetRange range, whole_range(source_, tp, "rescoring"));
    const TopicPartition scores{std::string(topic_spec(Topic::kScores).name), partition_};
    streams::ManifestReader manifests(source_, names_, spec, 0, range);
    for (;;) {
      TRY_ASSIGN(auto next, manifests.next());
      if (!next) return {};
      const streams::Manifest& manifest = next->manifest;
      made_.manifests = manifest.sequence;
      if (manifest.code_version != streams::kCodeVersion) made_.first_other = std::min(made_.first_other, manifest.sequence);
      for (const streams::OutputCount& output : manifest.outputs) {
        if (output.tp != scores) continue;
        Made::Counted& counted = made_.by_writer[spec.name + "/" + manifest.lineage];
        counted.scores = output.first + output.count;
        if (manifest.sequence < made_.first_other) counted.by_this_code = counted.scores;
      }
    }
  }

  Result<void> read_standing(const streams::TaskSpec& spec) {
    const TopicPartition tp = full(Topic::kScores, partition_);
    TRY_ASSIGN(const streams::OffsetRange range, whole_range(source_, tp, "rescoring"));
    std::map<std::string, int64_t, std::less<>> last;  // of each writer
    auto each = [&](const RecordView& record) -> Result<void> {
      const auto stamp = streams::WriterStamp::parse(record.header(kHeaderWriter).value_or(""));
      const auto id = Id::parse(record.header(kHeaderId).value_or(""));
      if (!stamp || !id) return {};  // not of this system
      const auto counted = last.try_emplace(std::string(stamp->writer), -1).first;
      if (stamp->n <= counted->second) return {};  // written twice; the first stands
      counted->second = stamp->n;
      const bool original = stamp->writer.starts_with(spec.name + "/");
      const auto counted_by = made_.by_writer.find(stamp->writer);
      const Made::Counted made = counted_by == made_.by_writer.end() ? Made::Counted() : counted_by->second;
      if (original && stamp->n >= made.scores) return {};  // committed since we looked
      TRY_ASSIGN(const Json score, parse_json(record.value.value_or("")));
      const auto window = window_of(score);
      if (!window || !wanted(*window)) return {};
      Standing& s = standing_[key_of(*window)];
      s.text = xxh3_128(record.value.value_or(""));
      s.content = xxh3_128(score_content(score));
      s.id = *id;
      s.at = record.offset;
      s.score = processors::optional_number(score, "score");
      s.by_this_code = original && stamp->n < made.by_this_code;
      s.withdrawn = !original && score.number_or("samples", 0) == 0;
      return {};
    };
    if (agent_) return read_key(source_, tp, *agent_, range.start, range.end, each);
    streams::RangeReader ranges(source_);
    return ranges.read(tp, range.start, range.end, [&](std::span<const RecordView> records) -> Result<void> {
      for (const RecordView& record : records) TRY(each(record));
      return {};
    });
  }

  /// Of a score that comes out now.
  Result<void> compare(const processors::Output& output, int64_t manifest) {
    auto parsed = parse_json(output.value);
    CHECK(parsed.has_value());
    const auto window = window_of(*parsed);
    CHECK(window.has_value());
    if (!wanted(*window)) return {};
    ++done_.scores;
    const auto found = standing_.find(key_of(*window));
    if (found == standing_.end()) {
      if (manifest < made_.first_other && !options_.rules) return own_fault(*window, "it does not stand on eval.scores.v1");
      // The fold's own id may be another window's by now: mended code closes other windows at the same report.
      const Id id = derived_id(output.id, std::string(kWriter) + "/" + window->window + "/" + std::to_string(window->end_ms), 0);
      return correct(std::move(*parsed), {"added", id.hex(), "", window->agent, window->window, window->end_ms, {}, {}}, output.id);
    }
    Standing& standing = found->second;
    standing.seen = true;
    if (standing.text == xxh3_128(output.value) || standing.content == xxh3_128(score_content(*parsed))) return {};
    if (standing.by_this_code && !options_.rules)
      return own_fault(*window, "its score is " + number(processors::optional_number(*parsed, "score")) + ", on the log " +
                                    number(standing.score));
    return correct(std::move(*parsed),
                   {"changed",
                    derived_id(standing.id, kWriter, 0).hex(),
                    standing.id.hex(),
                    window->agent,
                    window->window,
                    window->end_ms,
                    standing.score,
                    {}},
                   standing.id);
  }

  /// What stands and did not come out.
  Result<void> withdraw() {
    std::vector<std::pair<Offset, const Standing*>> left;
    for (const auto& [key, standing] : standing_)
      if (!standing.seen && !standing.withdrawn) left.emplace_back(standing.at, &standing);
    std::ranges::sort(left);
    streams::RangeReader ranges(source_);
    for (const auto& [at, standing] : left) {
      std::optional<Json> score;
      TRY(ranges.read(full(Topic::kScores, partition_), at, at + 1, [&](std::span<const RecordView> records) -> Result<void> {
        for (const RecordView& record : records)
          if (auto parsed = parse_json(record.value.value_or(""))) score = std::move(*parsed);
        return {};
      }));
      if (!score)
        return Error{Errc::kIncomplete, "rescoring: record " + std::to_string(at.value) + " of " +
                                            to_string(full(Topic::kScores, partition_)) + " is gone"};
      const ClosedWindow window = *window_of(*score);
      if (standing->by_this_code && !options_.rules) return own_fault(window, "it does not come out again");
      for (const char* member : {"score", "lower", "upper", "confidence"}) score->set(member, nullptr);
      score->set("samples", 0).set("components", Json::array());
      score->set("rationale", "Withdrawn: no report that counts lies in this window.");
      TRY(correct(std::move(*score),
                  {"withdrawn",
                   derived_id(standing->id, kWriter, 0).hex(),
                   standing->id.hex(),
                   window.agent,
                   window.window,
                   window.end_ms,
                   standing->score,
                   {}},
                  standing->id));
    }
    return {};
  }

  static std::string number(const std::optional<double>& value) { return canonical(processors::optional_number(value)); }

  Error own_fault(const ClosedWindow& w, const std::string& what) const {
    return {Errc::kParity, "rescoring " + w.agent + ", " + w.window + " that ends at " + format_rfc3339_ms(w.end_ms) + ": " + what +
                               ", although this very code (version " + std::string(streams::kCodeVersion) +
                               ") made it; nothing was mended, `assay replay verify` says what is wrong"};
  }

  Result<void> correct(Json score, Correction correction, const Id& cause) {
    correction.is = processors::optional_number(score, "score");
    ++(correction.change == "changed" ? done_.changed : correction.change == "added" ? done_.added : done_.withdrawn);
    score.set("computedAt", format_rfc3339_ms(options_.now.value));
    score.set("corrects", correction.corrects.empty() ? Json() : Json(correction.corrects));
    streams::OutRecord record;
    record.to = full(Topic::kScores, partition_);
    record.timestamp = options_.now;
    record.key = correction.agent;
    record.value = canonical(score);
    record.headers = {{std::string(kHeaderId), correction.id}, {std::string(kHeaderCause), cause.hex()}};
    bytes_ += record.value->size();
    if (into_ != nullptr) records_.push_back(std::move(record));
    batch_.push_back(std::move(correction));
    return batch_.size() >= options_.batch_records || bytes_ >= kBatchBytes ? flush() : Result<void>();
  }

  Result<void> flush() {
    if (batch_.empty()) return {};
    if (into_ != nullptr) {
      // Counters begin anew under a name that no other run can have: what a run has written once stands, and is not written again.
      if (writer_name_.empty()) writer_name_ = std::string(kWriter) + "/" + batch_.front().id.substr(0, 16) + "/";
      records_.push_back(audit_record());
      for (streams::OutRecord& record : records_)
        record.headers.push_back({std::string(kHeaderWriter), writer_name_ + std::to_string(counters_[record.to.topic]++)});
      TRY(write({std::move(records_), std::nullopt, nullptr, nullptr}));
      ++done_.audit_rows;
    }
    if (options_.each)
      for (const Correction& correction : batch_) options_.each(correction);
    batch_.clear();
    records_.clear();
    bytes_ = 0;
    return {};
  }

  streams::OutRecord audit_record() const {
    const auto first = Id::parse(batch_.front().id);
    CHECK(first.has_value());
    Json corrections = Json::array();
    for (const Correction& c : batch_)
      corrections.push_back(Json::object()
                                .set("id", c.id)
                                .set("corrects", c.corrects.empty() ? Json() : Json(c.corrects))
                                .set("change", c.change)
                                .set("agentId", c.agent)
                                .set("window", c.window)
                                .set("windowEnd", format_rfc3339_ms(c.end_ms))
                                .set("was", processors::optional_number(c.was))
                                .set("is", processors::optional_number(c.is)));
    Json data = Json::object().set("reason", options_.reason).set("codeVersion", streams::kCodeVersion);
    if (options_.rules) data.set("rules", rules_to_json(*options_.rules, ConfigKind::kScoring));
    data.set("corrections", std::move(corrections));
    const processors::Output made = processors::audit_output(
        derived_id(*first, std::string(kWriter) + ".audit", 0), *first, "eval.scores.corrected", options_.actor,
        format_rfc3339_ms(options_.now.value),
        Json::object().set("topic", topic_spec(Topic::kScores).name).set("partition", partition_).set("id", batch_.front().id),
        std::move(data));
    return {full(Topic::kAudit, 0),
            options_.now,
            made.key,
            made.value,
            {{std::string(kHeaderId), made.id.hex()}, {std::string(kHeaderCause), made.cause.hex()}}};
  }

  Result<void> open_writer() {
    writer_.reset();
    TRY_ASSIGN(writer_, into_->open_writer(names_.full("assay." + std::string(kWriter))));
    return {};
  }

  /// Writes all of it, once.
  Result<void> write(const streams::Transaction& transaction) {
    const TopicPartition tp = full(Topic::kScores, partition_);
    for (int attempt = 0;; ++attempt) {
      TRY_ASSIGN(const streams::OffsetRange before, into_->range(tp));
      TRY(writer_->prepare(transaction));
      const auto places = writer_->commit();
      if (places) return {};
      if (places.error().code != Errc::kAmbiguous || attempt == kAttempts) return places.error();
      // A new writer ends what the old one left open; then the log says whether it counts.
      TRY(open_writer());
      TRY_ASSIGN(const streams::OffsetRange after, into_->range(tp));
      bool there = false;
      streams::RangeReader ranges(*into_);
      TRY(ranges.read(tp, before.end, after.end, [&](std::span<const RecordView> records) -> Result<void> {
        for (const RecordView& record : records) there |= record.header(kHeaderId) == batch_.front().id;
        return {};
      }));
      if (there) return {};
    }
  }

  streams::Log& source_;
  streams::Log* into_;
  const BackfillOptions& options_;
  const streams::TopicNames& names_;
  std::vector<streams::ProcessorPlan> plans_;
  std::optional<std::string> agent_;  // when one alone is meant
  std::unique_ptr<streams::LogWriter> writer_;
  Backfilled done_;
  int64_t total_ = 0;

  // Of the partition at hand.
  int32_t partition_ = 0;
  Made made_;
  std::unordered_map<UInt128, Standing, KeyHash> standing_;
  std::string writer_name_;
  std::map<std::string, int64_t> counters_;  // by topic
  std::vector<Correction> batch_;
  std::vector<streams::OutRecord> records_;
  size_t bytes_ = 0;
};

}  // namespace

Result<Backfilled> backfill(streams::Log& source, streams::Log* into, const BackfillOptions& options) {
  return Backfill(source, into, options).run();
}

std::string score_content(const Json& score) {
  Json said = Json::object();
  for (const auto& [name, value] : score.as_object())
    if (name != "computedAt" && name != "configVersion" && name != "rationale" && name != "corrects") said.set(name, value);
  return canonical(said);
}

}  // namespace assay::replay
