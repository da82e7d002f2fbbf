#include "streams/audit_dump.h"

#include <algorithm>
#include <charconv>

#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "schemas/utf8.h"

namespace assay::streams {
namespace {

constexpr size_t kBlockBytes = 128 << 10;
constexpr size_t kLineBytesMax = 16 << 20;

using Fields = CopyFields;

/// A field of COPY's text form: what a backslash stands for undone. Nothing: NULL.
std::optional<std::string> copy_field(std::string_view text) {
  if (text == "\\N") return std::nullopt;
  std::string out;
  out.reserve(text.size());
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\' || i + 1 == text.size()) {
      out.push_back(text[i]);
      continue;
    }
    constexpr std::string_view kLetters = "bfnrtv", kMeant = "\b\f\n\r\t\v";
    const char c = text[++i];
    const size_t known = kLetters.find(c);
    out.push_back(known == kLetters.npos ? c : kMeant[known]);
  }
  return out;
}

Fields copy_fields(std::string_view line) {
  Fields fields;
  while (true) {
    const size_t tab = line.find('\t');
    fields.push_back(copy_field(line.substr(0, tab)));
    if (tab == line.npos) return fields;
    line.remove_prefix(tab + 1);
  }
}

/// "2026-05-01 14:00:00.5+02" as the line of a row has it; what cannot be read stays as it is.
std::string instant(const std::string& text) {
  // Fraction to six digits, the zone to hours and minutes.
  const size_t zone = text.find_last_of("+-");
  if (text.size() < 22 || text[10] != ' ' || zone == text.npos || zone < 19) return text;
  std::string fraction = text[19] == '.' ? text.substr(20, zone - 20) : "";
  if (fraction.size() > 6 || !std::ranges::all_of(fraction, [](char c) { return c >= '0' && c <= '9'; })) return text;
  fraction.append(6 - fraction.size(), '0');
  std::string offset = text.substr(zone);
  if (offset.size() == 3) offset += ":00";
  const std::optional<int64_t> ms = parse_rfc3339_ms(text.substr(0, 10) + "T" + text.substr(11, 8) + "." + fraction + offset);
  if (!ms || *ms < 0) return text;
  int64_t us = 0;
  for (char c : fraction.substr(3)) us = us * 10 + (c - '0');
  return format_rfc3339_us(*ms * 1000 + us);
}

void append_member(std::string_view name, const std::optional<std::string>& value, std::string& out) {
  out += name;
  if (value)
    append_string(*value, out);
  else
    out += "null";
}

/// "audit_log" of `public.audit_log`, `"audit"."audit_log"`.
std::string relation_name(std::string_view text) {
  text = text.substr(text.rfind('.') + 1);  // npos + 1 is 0
  std::string name(text);
  std::erase(name, '"');
  return name;
}

const std::vector<std::string> kViewColumns = {"id",   "event_type", "created_at", "payload", "prev_hash",
                                               "hash", "signature",  "signer_kid", "sequence"};

bool is_number(const std::optional<std::string>& text) {
  return text && !text->empty() && std::ranges::all_of(*text, [](char c) { return c >= '0' && c <= '9'; });
}

/// Relation and columns of "COPY public.audit_log (sequence, id, …) FROM stdin;".
Result<std::pair<std::string, std::vector<std::string>>> copy_statement(std::string_view statement) {
  const size_t open = statement.find(" ("), close = statement.find(") FROM stdin;");
  if (open == statement.npos || close == statement.npos || close < open)
    return Error{Errc::kCorrupt, "a COPY statement that cannot be read: " + schemas::printable(statement)};
  std::vector<std::string> columns;
  for (std::string_view list = statement.substr(open + 2, close - open - 2);;) {
    const size_t comma = list.find(", ");
    columns.push_back(relation_name(list.substr(0, comma)));
    if (comma == list.npos) return std::pair(relation_name(statement.substr(5, open - 5)), std::move(columns));
    list.remove_prefix(comma + 2);
  }
}

/// The field of a column; nothing: NULL, or there is no such column.
std::optional<std::string> field_of(const std::vector<std::string>& columns, const Fields& fields, std::string_view name) {
  const auto column = std::ranges::find(columns, name);
  return column == columns.end() ? std::nullopt : fields[static_cast<size_t>(column - columns.begin())];
}

std::optional<int64_t> number(const std::optional<std::string>& text) {
  int64_t value = 0;
  if (!is_number(text) || std::from_chars(text->data(), text->data() + text->size(), value).ec != std::errc()) return std::nullopt;
  return value;
}

}  // namespace

Result<std::optional<std::string>> LateSignatures::line() {
  while (true) {
    const size_t newline = buffer_.find('\n', taken_);
    if (newline != buffer_.npos) {
      std::string out = buffer_.substr(taken_, newline - taken_);
      taken_ = newline + 1;
      return std::optional(std::move(out));
    }
    if (ended_) return std::optional<std::string>();
    buffer_.erase(0, std::exchange(taken_, 0));
    if (buffer_.size() > kLineBytesMax) return Error{Errc::kCorrupt, "a line of it has no end"};
    const size_t kept = buffer_.size();
    buffer_.resize(kept + kBlockBytes);
    TRY_ASSIGN(const size_t got, read_(buffer_.data() + kept, kBlockBytes));
    buffer_.resize(kept + got);
    ended_ = got == 0;
  }
}

Result<void> LateSignatures::advance() {
  next_.reset();
  while (true) {
    TRY_ASSIGN(std::optional<std::string> text, line());
    if (!text) return {};
    if (text->ends_with('\r')) text->pop_back();
    if (!in_table_) {
      if (!text->starts_with("COPY ") || text->find("audit_signatures") == text->npos) continue;
      TRY_ASSIGN(auto statement, copy_statement(*text));
      in_table_ = statement.first == "audit_signatures";
      columns_ = std::move(statement.second);
    } else if (*text == "\\.") {
      in_table_ = false;
    } else {
      const Fields fields = copy_fields(*text);
      const std::optional<int64_t> sequence =
          fields.size() == columns_.size() ? number(field_of(columns_, fields, "sequence")) : std::nullopt;
      if (!sequence) return Error{Errc::kCorrupt, "a row of audit_signatures cannot be read: " + schemas::printable(*text, 80)};
      next_ = {*sequence,
               {field_of(columns_, fields, "signature").value_or(""), field_of(columns_, fields, "signer_kid").value_or("")}};
      return {};
    }
  }
}

Result<std::optional<LateSignatures::Late>> LateSignatures::find(int64_t sequence) {
  if (!next_ && !ended_) TRY(advance());
  while (next_ && next_->first < sequence) {
    passed_.insert(std::move(*next_));
    TRY(advance());
  }
  if (next_ && next_->first == sequence) {
    Late found = std::move(next_->second);
    TRY(advance());
    return std::optional(std::move(found));
  }
  while (next_) {  // the table is in another order, or the row has none: only its end tells
    passed_.insert(std::move(*next_));
    TRY(advance());
  }
  auto passed = passed_.extract(sequence);
  return passed ? std::optional(std::move(passed.mapped())) : std::nullopt;
}

LooseReader::LooseReader(std::string source, LineCutter::Take take, std::function<Result<ByteReader>()> again)
    : source_(source), take_(take), json_lines_(std::move(source), false, std::move(take)), again_(std::move(again)) {}

Result<void> LooseReader::add(std::string_view part) {
  while (!part.empty()) {
    if (form_ == Form::kJsonLines) return json_lines_.add(part);
    const size_t newline = part.find('\n');
    rest_ += part.substr(0, newline);
    if (form_ == Form::kUnknown && !rest_.empty() && rest_.front() == '{') {
      form_ = Form::kJsonLines;
      TRY(json_lines_.add(std::exchange(rest_, {})));
      if (newline == part.npos) return {};
      part.remove_prefix(newline);
      continue;
    }
    if (rest_.size() > kLineBytesMax) return Error{Errc::kCorrupt, "a line of it has no end"};
    if (newline == part.npos) return {};
    part.remove_prefix(newline + 1);
    TRY(line(std::exchange(rest_, {})));
  }
  return {};
}

Result<void> LooseReader::finish() {
  if (form_ == Form::kJsonLines) {
    json_lines_.finish();
    return {};
  }
  if (!rest_.empty()) TRY(line(std::exchange(rest_, {})));
  give();
  if (form_ == Form::kDump && table_ != Table::kNone) return Error{Errc::kCorrupt, "the dump ends inside a table"};
  return {};
}

Result<void> LooseReader::line(std::string_view text) {
  ++line_number_;
  if (text.ends_with('\r')) text.remove_suffix(1);
  if (form_ == Form::kUnknown) {
    if (text.empty()) return {};
    TRY(recognise(text));
    if (form_ == Form::kBareCopy && !columns_.empty() && text.find("payload\t") != text.npos) return {};  // a line of names
  }
  if (form_ == Form::kBareCopy) return copied(text);
  if (table_ == Table::kNone) {
    if (text.starts_with("COPY ")) return begin_table(text);
    if (text.starts_with("INSERT INTO ") && text.find("audit_log") != text.npos)
      return Error{Errc::kCorrupt, "the dump has INSERT statements; pg_dump without --inserts writes what can be read here"};
    return {};
  }
  if (text == "\\.") {
    give();
    table_ = Table::kNone;
    return {};
  }
  if (table_ == Table::kLate && waiting_ > 0 && !again_)
    return Error{Errc::kIncomplete,
                 "rows before have their signatures here, in audit_signatures, and they have passed; give the "
                 "dump as a file, not through a pipe"};
  return table_ == Table::kOther || table_ == Table::kLate ? Result<void>() : copied(text);
}

Result<void> LooseReader::recognise(std::string_view text) {
  if (text.starts_with("PGDMP"))
    return Error{Errc::kCorrupt, "a dump in pg_dump's own format; `pg_restore -f -` makes text of it, which can be read here"};
  for (std::string_view start : {"--", "SET ", "COPY ", "\\restrict", "SELECT "})
    if (text.starts_with(start)) {
      form_ = Form::kDump;
      return {};
    }
  const Fields fields = copy_fields(text);
  if (fields.size() < kViewColumns.size() - 1)
    return Error{Errc::kCorrupt,
                 "no rows of a chain: neither lines of JSON nor a dump of audit_log nor COPY text of audit_events (it begins \"" +
                     schemas::printable(text, 40) + "\")"};
  form_ = Form::kBareCopy;
  table_ = Table::kRows;
  if (std::ranges::find(fields, std::optional<std::string>("payload")) != fields.end()) {
    for (const auto& field : fields) columns_.push_back(field.value_or(""));
  } else {
    columns_ = kViewColumns;
    if (is_number(fields.front())) std::ranges::rotate(columns_, columns_.end() - 1);  // audit_log has its sequence first
    columns_.resize(std::min(fields.size(), columns_.size()));
  }
  return {};
}

Result<void> LooseReader::begin_table(std::string_view text) {
  TRY_ASSIGN(auto statement, copy_statement(text));
  const std::string& relation = statement.first;
  table_ = relation == "audit_log" || relation == "audit_events" ? Table::kRows
           : relation == "audit_chain_head"                      ? Table::kHead
           : relation == "audit_signatures"                      ? Table::kLate
                                                                 : Table::kOther;
  columns_ = std::move(statement.second);
  return {};
}

Result<void> LooseReader::copied(std::string_view text) {
  const Fields fields = copy_fields(text);
  if (fields.size() != columns_.size())
    return Error{Errc::kCorrupt, "line " + std::to_string(line_number_) + " has " + std::to_string(fields.size()) +
                                     " columns instead of " + std::to_string(columns_.size())};
  return table_ == Table::kHead ? state(fields) : row(fields);
}

/// A row's signature from audit_signatures; nothing: it has none there, and neither has one behind it.
Result<std::optional<LateSignatures::Late>> LooseReader::late_signature(const std::optional<std::string>& sequence) {
  const std::optional<int64_t> row = number(sequence);
  if (!again_ || !row || form_ != Form::kDump) return std::optional<LateSignatures::Late>();
  if (late_ == nullptr) {
    TRY_ASSIGN(ByteReader from_start, again_());
    late_ = std::make_unique<LateSignatures>(std::move(from_start));
  }
  TRY_ASSIGN(std::optional<LateSignatures::Late> late, late_->find(*row));
  if (!late && late_->more(*row)) late = LateSignatures::Late{};  // the relation shows such a row: it is for the proof to refuse it
  return late;
}

Result<void> LooseReader::row(const CopyFields& fields) {
  auto field = [&](std::string_view name) { return field_of(columns_, fields, name); };
  std::optional<std::string> signature = field("signature"), signer_kid = field("signer_kid");
  const std::optional<std::string> sequence = field("sequence");
  if (!signature && waiting_ == 0) {
    TRY_ASSIGN(std::optional<LateSignatures::Late> late, late_signature(sequence));
    if (late) {
      signature = std::move(late->signature);
      if (!late->signer_kid.empty()) signer_kid = std::move(late->signer_kid);
    }
  }
  if (!signature || waiting_ > 0) {  // what follows a row without a signature is not to be seen either
    ++waiting_;
    return {};
  }
  if (block_.rows() == 0) {
    block_.source = source_;
    block_.first_line = line_number_;
    block_.every_byte_counts = false;
  }
  std::string& out = block_.text;
  append_member("{\"created_at\":", instant(field("created_at").value_or("")), out);
  append_member(",\"event_type\":", field("event_type"), out);
  append_member(",\"hash\":", field("hash"), out);
  append_member(",\"id\":", field("id"), out);
  out += ",\"payload\":" + field("payload").value_or("null");
  append_member(",\"prev_hash\":", field("prev_hash"), out);
  append_member(",\"signature\":", signature, out);
  append_member(",\"signer_kid\":", signer_kid, out);
  out += '}';
  block_.ends.push_back(static_cast<uint32_t>(out.size()));
  out += '\n';
  if (sequence) {
    const std::optional<int64_t> stored = number(sequence);
    if (!stored) return Error{Errc::kCorrupt, "line " + std::to_string(line_number_) + ": its sequence is no number"};
    block_.sequences.push_back(*stored);
  }
  if (block_.sequences.size() != (sequence ? block_.rows() : 0))
    return Error{Errc::kCorrupt, "line " + std::to_string(line_number_) + ": a sequence where the rows before have none"};
  if (out.size() >= kBlockBytes) give();
  return {};
}

Result<void> LooseReader::state(const CopyFields& fields) {
  head_is_signed_ = std::ranges::find(columns_, "signed_state") != columns_.end();
  std::optional<std::string> text = field_of(columns_, fields, "signed_state");
  if (!text && std::ranges::find(columns_, "state") == columns_.end()) return {};
  if (!text) text = field_of(columns_, fields, "state");
  if (!text || text->empty()) return Error{Errc::kCorrupt, "audit_chain_head has no state"};
  TRY_ASSIGN(const Json document, parse_json(*text));
  TRY_ASSIGN(head_, processors::chain_state_from_json(document));
  return {};
}

void LooseReader::give() {
  if (block_.rows() > 0) take_(std::move(block_));
  block_ = {};
}

}  // namespace assay::streams
