#include "replay/audit_parity.h"

#include <algorithm>

#include "processors/audit_chain.h"
#include "replay/json_difference.h"
#include "streams/refold.h"

namespace assay::replay {
namespace {

/// Rows of the chain as the topic makes them, one at a time.
class FoldedChain {
 public:
  FoldedChain(streams::LogReader& reader, Offset end) : reader_(reader), end_(end) {}

  Result<std::optional<processors::AuditRow>> next() {
    for (;;) {
      while (used_ < fetch_.records.size()) {
        const RecordView& record = fetch_.records[used_++];
        std::optional<processors::WriterStamp> stamp;
        if (auto text = record.header(kHeaderWriter))
          if (auto parsed = streams::WriterStamp::parse(*text))
            stamp = processors::WriterStamp{std::string(parsed->writer), static_cast<uint64_t>(parsed->n)};
        auto step = processors::fold_audit_record(record, stamp, state_);
        if (auto* row = std::get_if<processors::AuditRow>(&step)) return std::optional<processors::AuditRow>(std::move(*row));
        if (auto* gap = std::get_if<processors::InputGap>(&step))
          return Error{Errc::kIncomplete, "INPUT_GAP: folding audit-events at offset " + std::to_string(record.offset.value) +
                                              ": writer " + gap->writer + " continues with record " + std::to_string(gap->found) +
                                              " instead of " + std::to_string(gap->expected)};
      }
      if (fetch_.next >= end_) return std::optional<processors::AuditRow>();
      TRY_ASSIGN(auto fetch, reader_.poll(streams::Milliseconds(1000), 5000));
      if (!fetch) continue;
      fetch_ = std::move(*fetch);
      used_ = 0;
    }
  }

 private:
  streams::LogReader& reader_;
  Offset end_;
  streams::Fetch fetch_;
  size_t used_ = 0;
  processors::ChainState state_;
};

}  // namespace

Result<int64_t> compare_chain(streams::Log& log, const streams::TopicNames& names, const streams::StoredChain& chain,
                              bool log_is_behind, const std::atomic<bool>* stopping) {
  const TopicPartition tp{names.full(Topic::kAudit), 0};
  TRY_ASSIGN(streams::OffsetRange range, log.range(tp));
  if (range.start > Offset(0))
    return Error{Errc::kIncomplete,
                 to_string(tp) + " begins at " + std::to_string(range.start.value) + ": the chain cannot be folded from its start"};
  TRY_ASSIGN(auto reader, log.open_reader({{tp, range.start}}));
  FoldedChain folded(*reader, range.end);
  int64_t rows = 0;
  for (;;) {
    if (stopping != nullptr && *stopping)
      return Error{Errc::kIncomplete,
                   "comparing the chain with " + to_string(tp) + ": stopped after " + std::to_string(rows) + " rows"};
    TRY_ASSIGN(auto lines, chain.lines());
    if (lines.empty()) return rows;
    for (const streams::StoredLine& line : lines) {
      auto parsed = streams::parse_audit_line(line.text);
      if (!parsed) return Error{parsed.error().code, line.place + ": " + parsed.error().message};
      streams::SignedRow& stored = *parsed;
      TRY_ASSIGN(auto row, folded.next());
      if (!row && log_is_behind) return rows;
      if (!row) return Error{Errc::kParity, line.place + ": row " + stored.row.id + " has no record in " + to_string(tp)};
      stored.row.sequence = row->sequence;  // a line does not carry it
      if (!(stored.row == *row)) {
        const std::string payload = text_difference(stored.row.payload, "stored", row->payload, "folded again");
        return Error{Errc::kParity, line.place + ": row " + stored.row.id + " has hash " + to_hex(as_bytes(stored.row.hash)) +
                                        "; folded again it is " + row->id + " with hash " + to_hex(as_bytes(row->hash)) +
                                        (payload.empty() ? "" : "; of its payload " + payload)};
      }
      ++rows;
    }
  }
}

Result<Offset> chain_end(streams::Log& log, const ReplayOptions& options, const std::vector<ReplayedTask>& tasks) {
  const TopicPartition tp{options.names.full(Topic::kAudit), 0};
  TRY_ASSIGN(streams::OffsetRange range, log.range(tp));
  if (!options.until && options.until_offsets.empty()) return range.end;
  if (auto named = options.until_offsets.find(tp); named != options.until_offsets.end())
    range.end = std::clamp(named->second, range.start, range.end);
  auto left_out = [&](const RecordView& record) {
    const auto stamp = streams::WriterStamp::parse(record.header(kHeaderWriter).value_or(""));
    if (stamp)
      for (const ReplayedTask& task : tasks)
        if (stamp->writer.starts_with(task.task + "/"))
          return stamp->writer == task.task + "/" + task.lineage && stamp->n >= task.audit_records;
    return options.until && record.timestamp > *options.until;
  };
  std::optional<Offset> first;
  streams::RangeReader ranges(log);
  TRY(ranges.read(tp, range.start, range.end, [&](std::span<const RecordView> records) -> Result<void> {
    for (const RecordView& record : records)
      if (!first && left_out(record)) first = record.offset;
    return {};
  }));
  return first.value_or(range.end);
}

}  // namespace assay::replay
