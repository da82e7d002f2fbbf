#include "tools/dead_letters.h"

#include <algorithm>
#include <charconv>

#include "schemas/hash.h"
#include "schemas/time.h"
#include "schemas/topics.h"
#include "streams/read_to_end.h"
#include "tools/output.h"

namespace assay::tools {
namespace {

/// What was put beside the original's headers; a task's own records carry the last three, which the next writer makes anew.
constexpr std::string_view kOwnHeaders[] = {kHeaderReason,
                                            kHeaderDetail,
                                            kHeaderSource,
                                            kHeaderProcessor,
                                            kHeaderTruncated,
                                            "assay-original-size",
                                            "assay-original-sha256",
                                            "assay-source-timestamp",
                                            kHeaderId,
                                            kHeaderCause,
                                            kHeaderWriter};

std::string text_of(const RecordView& record, std::string_view header) { return printable(record.header(header).value_or("")); }

/// Partition and offset of "<topic>/<partition>/<offset>".
bool parse_place(std::string_view text, DeadRecord& into) {
  const size_t last = text.rfind('/');
  const size_t middle = last == std::string_view::npos || last == 0 ? std::string_view::npos : text.rfind('/', last - 1);
  if (middle == std::string_view::npos) return false;
  auto number = [](std::string_view digits, auto& value) {
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
    return error == std::errc() && end == digits.data() + digits.size() && value >= 0;
  };
  int32_t partition = 0;
  int64_t offset = 0;
  if (!number(text.substr(middle + 1, last - middle - 1), partition) || !number(text.substr(last + 1), offset)) return false;
  into.partition = partition;
  into.offset = Offset(offset);
  return true;
}

DeadRecord dead_record(const TopicPartition& from, const std::string& prefix, const RecordView& record) {
  DeadRecord dead;
  const std::string_view id = record.header(kHeaderId).value_or("");
  dead.id = Id::parse(id) ? std::string(id)
                          : place_id(std::string_view(from.topic).substr(prefix.size()), from.partition, record.offset).hex();
  // The topic that a dead letter stands in says where it came from; a header could say anything.
  dead.topic = from.topic.substr(prefix.size(), from.topic.size() - prefix.size() - kDlqSuffix.size());
  if (!parse_place(record.header(kHeaderSource).value_or(""), dead)) {
    dead.partition = from.partition;
    dead.offset = record.offset;
  }
  dead.reason = text_of(record, kHeaderReason);
  dead.detail = text_of(record, kHeaderDetail);
  dead.processor = text_of(record, kHeaderProcessor);
  dead.truncated = record.header(kHeaderTruncated).has_value();
  dead.timestamp = record.timestamp;
  if (record.key) dead.key = std::string(*record.key);
  if (record.value) dead.value = std::string(*record.value);
  for (const HeaderView& header : record.headers)
    if (std::find(std::begin(kOwnHeaders), std::end(kOwnHeaders), header.name) == std::end(kOwnHeaders))
      dead.headers.push_back({std::string(header.name), header.value ? std::optional(std::string(*header.value)) : std::nullopt});
  return dead;
}

bool passes(const DeadLetterFilter& filter, const DeadRecord& dead) {
  if (!filter.reason.empty() && dead.reason != filter.reason) return false;
  return filter.ids.empty() || std::find(filter.ids.begin(), filter.ids.end(), dead.id) != filter.ids.end();
}

}  // namespace

Result<void> read_dead_letters(streams::Log& log, const std::string& prefix, const DeadLetterFilter& filter,
                               const std::function<Result<bool>(const DeadRecord&)>& take) {
  TRY_ASSIGN(std::vector<streams::TopicConfig> topics, log.topics());
  std::sort(topics.begin(), topics.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  for (const TopicSpec& spec : topic_catalogue()) {
    if (!filter.topic.empty() && filter.topic != spec.name) continue;
    const std::string name = dlq_of(prefix + std::string(spec.name));
    if (std::none_of(topics.begin(), topics.end(), [&](const auto& topic) { return topic.name == name; })) continue;
    TRY_ASSIGN(std::vector<TopicPartition> partitions, streams::partitions_of(log, name));
    // One after the other: a broker's partitions come interleaved as they please, and a list must not change by itself.
    for (const TopicPartition& tp : partitions) {
      bool more = true;
      TRY(streams::read_to_end(log, {tp}, [&](const TopicPartition& from, const RecordView& record) -> Result<bool> {
        const DeadRecord dead = dead_record(from, prefix, record);
        if (!passes(filter, dead)) return true;
        TRY_ASSIGN(more, take(dead));
        return more;
      }));
      if (!more) return {};
    }
  }
  return {};
}

Result<Redriven> redrive(streams::Log& log, const std::string& prefix, const DeadLetterFilter& filter, WallTime now) {
  TRY_ASSIGN(auto producer, log.open_producer());
  Redriven result;
  auto refuse = [&](const char* why) {
    ++result.refused;
    ++result.by_reason[why];
  };
  TRY(read_dead_letters(log, prefix, filter, [&](const DeadRecord& dead) -> Result<bool> {
    if (dead.truncated) {
      refuse("TRUNCATED");
      return true;
    }
    // A keyed record goes where its key belongs; one without a key goes back to the partition it stood in.
    streams::OutRecord record{{prefix + dead.topic, dead.key ? -1 : dead.partition}, now, dead.key, dead.value, dead.headers};
    auto sent = producer->send(std::move(record));
    if (!sent && sent.error().code != Errc::kTooLarge) return std::move(sent.error());
    if (sent)
      ++result.sent;
    else
      refuse("TOO_LARGE");
    return true;
  }));
  TRY(producer->flush());
  return result;
}

Json dead_letter_row(const DeadRecord& dead) {
  return Json::object()
      .set("id", dead.id)
      .set("topic", dead.topic)
      .set("partition", static_cast<int64_t>(dead.partition))
      .set("offset", std::to_string(dead.offset.value))
      .set("reason", dead.reason)
      .set("detail", dead.detail)
      .set("processor", dead.processor)
      .set("ts", format_rfc3339_ms(dead.timestamp.value));
}

}  // namespace assay::tools
