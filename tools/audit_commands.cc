// assay audit: export the chain, archive it, prove it, say where it stands.
#include <filesystem>

#include "streams/archive_files.h"
#include "streams/audit_archive.h"
#include "streams/audit_verify.h"
#include "streams/audit_window.h"
#include "streams/postgres_sink.h"
#include "tools/audit_control.h"
#include "tools/audit_uploading.h"
#include "tools/checkpoint_commands.h"
#include "tools/commands.h"
#include "tools/progress.h"
#include "tools/projection.h"

namespace assay::tools {
namespace {

struct Flags {
  std::string out, archive, signers, head, policy, place;
  std::string from_row, to_row;  // the part to export
  std::optional<int64_t> signed_from, signed_to;
  std::vector<std::string> checkpoints;
  bool allow_empty = false, links = false, json = false, personal = false;
};

Result<streams::RowWindow> window_of(const Flags& flags) {
  streams::RowWindow window;
  if (!flags.from_row.empty()) {
    TRY_ASSIGN(window.from, streams::parse_row_bound("--from", flags.from_row));
  }
  if (!flags.to_row.empty()) {
    TRY_ASSIGN(window.to, streams::parse_row_bound("--to", flags.to_row));
  }
  return window;
}

/// Beside the export, not in it: that stands when the plaintexts have to go.
Result<void> export_personal(const Settings& settings, const std::string& out) {
  TRY_ASSIGN(const std::vector<processors::PersonalRow> rows, open_personal(settings)->rows());
  std::filesystem::path path(out);
  if (!path.has_filename()) path = path.parent_path();
  std::string text;
  for (const processors::PersonalRow& row : rows) text += row.to_line() + "\n";
  const std::filesystem::path dir = path.has_parent_path() ? path.parent_path() : std::filesystem::path(".");
  return streams::write_file(dir.string(), path.filename().string() + ".personal.jsonl", text, true, 0600);
}

Result<int> export_chain(Context& context, const Flags& flags) {
  TRY_ASSIGN(const streams::RowWindow window, window_of(flags));
  TRY_ASSIGN(streams::StoredChain chain,
             streams::open_window(
                 [&](int64_t after) { return open_stored_chain(context.settings, context.settings.data_dir, after); }, window));
  TRY_ASSIGN(auto signer, open_active_signer(context.settings, chain.head.control));
  if (flags.personal) TRY(export_personal(context.settings, flags.out));
  Progress progress("export", "rows", context);
  const auto total = static_cast<double>((chain.last > 0 ? chain.last : chain.head.sequence) - chain.first + 1);
  TRY_ASSIGN(
      streams::ArchiveManifest manifest,
      streams::export_archive(
          std::move(chain), flags.out, *signer,
          [&](int64_t rows) { progress.update(static_cast<uint64_t>(rows), total > 0 ? static_cast<double>(rows) / total : 1.0); },
          checkpoint_dir(context.settings)));
  progress.finish();
  Json summary = Json::object();
  summary.set("directory", flags.out).set("files", static_cast<int64_t>(manifest.files.size())).set("rows", manifest.rows());
  summary.set("headHash", to_hex(as_bytes(manifest.head.head_hash)));
  context.out << render_object(summary, context.format);
  return 0;
}

Result<int> upload(Context& context, const Flags& flags) {
  const std::string place = flags.place.empty() ? audit_archive_place(context.settings) : flags.place;
  if (place.empty())
    return Error{Errc::kUsage,
                 "archiving the audit chain: neither archive.url nor archive.audit_url is set; --to PLACE names where it goes"};
  TRY_ASSIGN(const auto last, upload_chain(context.settings, place));
  Json summary = Json::object().set("place", place).set("rows", last ? last->last_sequence() : 0);
  summary.set("headHash", last ? Json(last->file.last_hash) : Json()).set("lastFile", last ? Json(last->file.name) : Json());
  context.out << render_object(summary, context.format);
  return 0;
}

Result<int> verify(Context& context, const Flags& flags) {
  streams::VerifyOptions options;
  options.allow_empty = flags.allow_empty;
  options.links_only = flags.links;
  options.from = flags.signed_from;
  options.to = flags.signed_to;
  if (flags.signed_from.value_or(1) < 1 || flags.signed_to.value_or(1) < flags.signed_from.value_or(1))
    return Error{Errc::kUsage, "--from and --to are numbers of rows, the second not before the first"};
  if (!flags.head.empty()) {
    TRY_ASSIGN(options.earlier_head, streams::parse_earlier_head(flags.head));
  }
  TRY(trust_policy(flags.policy, flags.archive.empty() ? checkpoint_dir(context.settings) : std::string(), options));
  TRY(add_checkpoints(flags.checkpoints, options));
  if (!flags.signers.empty()) {
    TRY_ASSIGN(options.pinned, streams::SignerRegistry::load(flags.signers));
  }
  if (flags.personal) {
    TRY_ASSIGN(options.personal, open_personal(context.settings)->rows());
  }
  Progress progress("verify", "rows", context);
  options.progress = [&](int64_t rows) { progress.update(static_cast<uint64_t>(rows)); };
  streams::VerifyReport report;
  if (!flags.archive.empty() || context.settings.database.url.empty()) {
    TRY_ASSIGN(report,
               streams::verify_archive(flags.archive.empty() ? audit_dir(context.settings.data_dir) : flags.archive, options));
  } else {
    TRY_ASSIGN(streams::StoredChain chain, streams::open_database_chain(context.settings.database.url));
    TRY_ASSIGN(report, streams::verify_chain(chain, options));
  }
  if (context.format == Format::kJson || flags.json)
    context.out << render_object(streams::to_json(report), Format::kJson);
  else
    context.out << streams::to_text(report);
  return report.exit_code();
}

Result<int> head(Context& context) {
  TRY_ASSIGN(ChainStanding standing, read_chain_standing(context.settings, context.settings.data_dir));
  Json row = Json::object();
  row.set("rows", standing.state.sequence).set("headHash", to_hex(as_bytes(standing.state.head_hash)));
  row.set("headId", standing.state.head_id).set("signedThrough", std::to_string(standing.signed_through));
  context.out << render_object(row, context.format);
  return 0;
}

}  // namespace

void register_audit(Command& root) {
  auto flags = std::make_shared<Flags>();
  Command audit = root.command("audit", "The audit chain: export, upload, verify, head, checkpoint, prove, gap; who signs it");

  Command exporting = audit.command("export", "Write the chain as files that anyone can verify offline");
  exporting.example("assay --database-url postgresql://… audit export --out chain")
      .example("assay audit export --out april --from 2026-04-01T00:00:00Z --to 2026-05-01T00:00:00Z")
      .option("--out", flags->out, "Directory to make")
      .required()
      .option("--from", flags->from_row, "First row: its number, or what was created at that time or later")
      .option("--to", flags->to_row, "Last row: its number, or what was created before that time")
      .flag("--with-personal", flags->personal,
            "Personal data as well, to OUT.personal.jsonl, for assay-verify --personal; with a database, as the auditor");
  exporting.run([flags](Context& context) { return export_chain(context, *flags); });

  Command uploading =
      audit.command("upload", "Archive what is signed and not in the archive yet, as `assay run` does all the time");
  uploading.example("assay --config assay.toml audit upload")
      .example("assay --database-url postgresql://… audit upload --to s3://audit-archive/prod")
      .option("--to", flags->place, "DIR, file:///DIR or s3://BUCKET/PREFIX (archive.audit_url, or \"audit\" below archive.url)");
  uploading.run([flags](Context& context) { return upload(context, *flags); });

  Command verifying = audit.command("verify", "Prove every row, link and signature");
  verifying.example("assay audit verify --archive chain --signers signers.json")
      .example("assay --database-url postgresql://… audit verify --signers signers.json")
      .option("-a,--archive", flags->archive, "Exported chain (without it: the database, else DIR/audit)")
      .option("-s,--signers", flags->signers, "Public keys to trust; without it those that came with the rows")
      .option("--head", flags->head, "An earlier head that the chain must continue: ROWS:HASH")
      .option("--policy", flags->policy,
              "Keys of log and witnesses to trust (C2SP tlog-policy): DIR/checkpoints is held against the rows")
      .option("--checkpoint", flags->checkpoints,
              "A checkpoint from elsewhere, or a directory of them; may be given often, needs --policy")
      .option("--from", flags->signed_from, "Check signatures from this row on; every hash and link all the same")
      .option("--to", flags->signed_to, "Check signatures up to this row")
      .flag("--json", flags->json, "The same as -o json")
      .flag("--links", flags->links, "Hashes and links only, no signature of a row")
      .flag("--with-personal", flags->personal, "Hold the commitments against the personal data; with a database, as the auditor")
      .flag("--allow-empty", flags->allow_empty, "An empty chain is no failure");
  verifying.run([flags](Context& context) { return verify(context, *flags); });

  Command heading = audit.command("head", "Rows, head hash and how far the chain is signed");
  heading.example("assay audit head -o json");
  heading.run([](Context& context) { return head(context); });

  register_audit_control(audit);
  register_corrections(audit);
  register_checkpoints(audit);
}

}  // namespace assay::tools
