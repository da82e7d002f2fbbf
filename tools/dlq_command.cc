// assay dlq: look at dead letters, and send them back once their cause is gone.
#include "schemas/hash.h"
#include "tools/commands.h"
#include "tools/dead_letters.h"
#include "tools/open_log.h"

namespace assay::tools {
namespace {

struct Flags {
  DeadLetterFilter filter;
  int64_t limit = 0;
  std::string id;
  bool bytes = false, all = false;
};

Result<int> list(Context& context, const Flags& flags) {
  TRY_ASSIGN(auto log, open_log(context.settings, LogAccess::kRead));
  std::vector<Json> rows;
  TRY(read_dead_letters(*log, context.settings.topics.prefix, flags.filter, [&](const DeadRecord& dead) -> Result<bool> {
    rows.push_back(dead_letter_row(dead));
    return flags.limit <= 0 || static_cast<int64_t>(rows.size()) < flags.limit;
  }));
  context.out << render_rows(rows, context.format, {"id", "topic", "partition", "offset", "reason", "detail", "processor", "ts"});
  return 0;
}

Result<int> show(Context& context, const Flags& flags) {
  TRY_ASSIGN(auto log, open_log(context.settings, LogAccess::kRead));
  std::optional<DeadRecord> found;
  DeadLetterFilter filter;
  filter.ids = {flags.id};
  TRY(read_dead_letters(*log, context.settings.topics.prefix, filter, [&](const DeadRecord& dead) -> Result<bool> {
    found = dead;
    return false;
  }));
  if (!found) return Error{Errc::kUsage, "dlq show " + flags.id + ": there is no dead letter with this id in " + log->describe()};
  if (flags.bytes) {
    context.out << found->value.value_or("");
    return 0;
  }
  Json headers = Json::array();
  for (const Header& header : found->headers)
    headers.push_back(
        Json::object().set("name", printable(header.name)).set("value", header.value ? Json(printable(*header.value)) : Json()));
  Json row = dead_letter_row(*found);
  row.set("truncated", found->truncated)
      .set("key", found->key ? Json(printable(*found->key)) : Json())
      .set("headers", std::move(headers))
      .set("value", found->value ? Json(printable(*found->value)) : Json());
  if (context.format == Format::kJson) {
    row.set("keyBase64", found->key ? Json(to_base64(*found->key)) : Json());
    row.set("valueBase64", found->value ? Json(to_base64(*found->value)) : Json());
  }
  context.out << render_object(row, context.format);
  return 0;
}

Result<int> send_back(Context& context, const Flags& flags) {
  if (!flags.all && flags.filter.ids.empty() && flags.filter.reason.empty() && flags.filter.topic.empty())
    return Error{Errc::kUsage, "dlq redrive: name what to send back: ids, --reason, --topic, or --all"};
  TRY_ASSIGN(auto log, open_log(context.settings, LogAccess::kReadWrite));
  TRY_ASSIGN(Redriven result, redrive(*log, context.settings.topics.prefix, flags.filter, wall_now()));
  if (result.sent + result.refused == 0 && !flags.all)
    return Error{Errc::kUsage, "dlq redrive: no dead letter in " + log->describe() + " is meant by these ids and filters"};
  Json by_reason = Json::object();
  for (const auto& [reason, count] : result.by_reason) by_reason.set(reason, count);
  context.out << render_object(
      Json::object().set("sent", result.sent).set("refused", result.refused).set("byReason", std::move(by_reason)), context.format);
  return 0;
}

}  // namespace

void register_dlq(Command& root) {
  Command dlq = root.command("dlq", "Dead letters: records that could not be processed, with reason, place and original bytes");
  auto flags = std::make_shared<Flags>();

  Command listing = dlq.command("ls", "List dead letters");
  listing.example("assay dlq ls --reason BAD_TIMESTAMP -o json")
      .option("--topic", flags->filter.topic, "Only those from this topic (without prefix)")
      .option("--reason", flags->filter.reason, "Only those with this reason code")
      .option("--limit", flags->limit, "At most so many (0: all)");
  listing.run([flags](Context& context) { return list(context, *flags); });

  Command showing = dlq.command("show", "Show one dead letter whole");
  showing.example("assay dlq show 0f3c… --bytes > record.bin")
      .argument("ID", flags->id, "Id that ls printed")
      .required()
      .flag("--bytes", flags->bytes, "Write the original value to stdout, byte for byte");
  showing.run([flags](Context& context) { return show(context, *flags); });

  Command redriving = dlq.command("redrive", "Send original bytes, key and headers back to their source topic");
  redriving.example("assay dlq redrive --reason TIMESTAMP_IN_FUTURE")
      .argument("ID", flags->filter.ids, "Ids that ls printed")
      .option("--topic", flags->filter.topic, "Only those from this topic (without prefix)")
      .option("--reason", flags->filter.reason, "Only those with this reason code")
      .flag("--all", flags->all, "All of them");
  redriving.run([flags](Context& context) { return send_back(context, *flags); });
}

}  // namespace assay::tools
