#include "tools/produce.h"

#include <iostream>

#include "schemas/eval_report.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "schemas/topics.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/progress.h"

namespace assay::tools {
namespace {

/// The text at "a.b.c" of a document, or nothing.
const std::string* text_at(const Json& document, std::string_view path) {
  const Json* at = &document;
  while (at != nullptr && !path.empty()) {
    const size_t dot = std::min(path.find('.'), path.size());
    at = at->find(path.substr(0, dot));
    path.remove_prefix(std::min(dot + 1, path.size()));
  }
  return at != nullptr && at->is_string() ? &at->as_string() : nullptr;
}

/// Turns lines into records, one at a time.
class RecordMaker {
 public:
  RecordMaker(const ProduceOptions& options, const std::function<WallTime()>& now) : options_(options), now_(now) {}

  /// The record of the line, or the reason why there is none.
  Result<streams::OutRecord> make(const Line& line, std::string& reason) {
    streams::OutRecord record;
    record.to = {options_.topic, -1};
    RecordView view;
    view.value = line.text;
    Reject reject{Reason::kTooLarge, ""};
    const EvalReport* report = line.truncated ? nullptr : decoder_.decode(view, &reject);
    if (report == nullptr && (!options_.raw || line.truncated)) return refuse(reject.reason, reason);
    if (report != nullptr) record.key = std::string(report->agent_id);
    std::optional<Json> document;
    if (options_.record_time != "now" || report == nullptr) document = parsed(line.text);
    if (report == nullptr && document) record.key = agent_of(*document);
    if (options_.record_time == "now") {
      record.timestamp = now_();
    } else if (auto ms = document ? time_of(*document) : std::nullopt) {
      last_ = WallTime(*ms);
      record.timestamp = *last_;
    } else if (options_.raw) {
      record.timestamp = last_ ? *last_ : now_();  // the order of arrival, which is the log's
    } else {
      return refuse(Reason::kBadTimestamp, reason);
    }
    record.value = std::string(line.text);
    if (options_.format != "json" && report != nullptr) {
      TRY_ASSIGN(record.value, eval_report_to_protobuf(line.text, options_.format == "confluent"));
    }
    const int64_t size_bytes = static_cast<int64_t>(record.value->size() + (record.key ? record.key->size() : 0));
    if (!options_.raw && size_bytes > kMaxRecordBytes) return refuse(Reason::kTooLarge, reason);
    return record;
  }

 private:
  static Error refuse(Reason why, std::string& reason) {
    reason = reason_code(why);
    return Error{Errc::kUsage, ""};
  }
  static std::optional<Json> parsed(std::string_view text) {
    auto document = parse_json(text);
    return document ? std::optional<Json>(std::move(*document)) : std::nullopt;
  }
  static std::optional<std::string> agent_of(const Json& document) {
    for (const char* name : {"agentId", "agent_id"})
      if (const std::string* agent = text_at(document, name)) return *agent;
    return std::nullopt;
  }
  std::optional<int64_t> time_of(const Json& document) const {
    const std::string* text = text_at(document, options_.record_time);
    return text == nullptr ? std::nullopt : parse_rfc3339_ms(*text);
  }

  const ProduceOptions& options_;
  const std::function<WallTime()>& now_;
  EvalReportDecoder decoder_;
  std::optional<WallTime> last_;
};

}  // namespace

Result<ProduceCounts> produce_lines(LineReader& lines, streams::LogProducer& producer, const ProduceOptions& options,
                                    const std::function<WallTime()>& now, const std::function<void(uint64_t)>& progress) {
  RecordMaker maker(options, now);
  ProduceCounts counts;
  auto refuse = [&](std::string_view reason) {
    ++counts.refused;
    ++counts.by_reason[std::string(reason)];
  };
  for (;;) {
    TRY_ASSIGN(std::optional<Line> line, lines.next());
    if (!line) break;
    std::string reason;
    auto record = maker.make(*line, reason);
    if (!record && reason.empty()) return std::move(record.error());
    // A line without a key goes where its bytes say, so that the same input lies the same way on every log.
    if (record && !record->key) record->to.partition = partition_of(record->value.value_or(""), options.partitions);
    if (!record) {
      refuse(reason);
    } else if (auto sent = producer.send(std::move(*record)); sent) {
      ++counts.sent;
    } else if (sent.error().code == Errc::kTooLarge) {
      refuse(reason_code(Reason::kTooLarge));
    } else {
      return Error{sent.error().code, "line " + std::to_string(line->number) + ": " + sent.error().message};
    }
    progress(counts.sent + counts.refused);
  }
  TRY(producer.flush());
  return counts;
}

namespace {

struct Flags {
  ProduceOptions options;
  std::string input = "-";
};

Result<int> produce(Context& context, Flags flags) {
  TRY_ASSIGN(auto source, open_input(flags.input));
  LineReader lines(std::move(source));
  TRY_ASSIGN(auto log, open_log(context.settings, LogAccess::kReadWrite));
  TRY(ensure_topics(context.settings, *log));
  TRY_ASSIGN(auto producer, log->open_producer());
  flags.options.topic = context.settings.topics.prefix + std::string(topic_spec(Topic::kReports).name);
  TRY_ASSIGN(flags.options.partitions, log->partition_count(flags.options.topic));
  Progress progress("produce", "reports", context);
  TRY_ASSIGN(ProduceCounts counts, produce_lines(lines, *producer, flags.options, wall_now,
                                                 [&](uint64_t count) { progress.update(count, lines.share()); }));
  progress.finish();
  Json by_reason = Json::object();
  for (const auto& [reason, count] : counts.by_reason) by_reason.set(reason, count);
  context.out << render_object(
      Json::object().set("sent", counts.sent).set("refused", counts.refused).set("byReason", std::move(by_reason)), context.format);
  return 0;
}

}  // namespace

void register_produce(Command& root) {
  auto flags = std::make_shared<Flags>();
  Command command = root.command("produce", "Send reports, one JSON object a line, onto eval.reports.v1");
  command.example("assay produce --input fleet.jsonl")
      .example("zstd -dc reports.jsonl.zst | assay produce --record-time metadata.arrivedAt -o json")
      .option("--input", flags->input, "File to read; .zst and .gz are recognised; - is standard input")
      .choice("--format", flags->options.format, {"json", "protobuf", "confluent"}, "Encoding of the records")
      .option("--record-time", flags->options.record_time,
              "now, or the field that becomes the record's timestamp (metadata.arrivedAt)")
      .flag("--raw", flags->options.raw, "Send lines as they are, broken ones too");
  command.run([flags](Context& context) { return produce(context, *flags); });
}

}  // namespace assay::tools
