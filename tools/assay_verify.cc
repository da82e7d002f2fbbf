// assay-verify: proves an audit chain with nothing but its files.
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iterator>
#include <string>

#include "streams/archive_files.h"
#include "streams/audit_proof.h"
#include "streams/audit_verify.h"
#include "tools/byte_source.h"

namespace {

using namespace assay::streams;

int fail(const Error& error) {
  std::fprintf(stderr, "assay-verify: %s\n", error.message.c_str());
  return exit_code(error.code);
}

bool is_directory(const std::string& path) {
  struct stat status {};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}

/// The text is the file's, or what was given itself when there is no such file.
std::string text_of(const std::string& given) {
  std::ifstream in(given, std::ios::binary);
  if (!in) return given;
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

Result<std::vector<assay::processors::PersonalRow>> read_personal(const std::string& file) {
  std::vector<assay::processors::PersonalRow> rows;
  std::ifstream in(file, std::ios::binary);
  for (std::string line; std::getline(in, line);) {
    auto row = assay::processors::PersonalRow::parse(line);
    if (!row) return Error{row.error().code, file + ":" + std::to_string(rows.size() + 1) + ": " + row.error().message};
    rows.push_back(std::move(*row));
  }
  return rows;
}

/// How far it is, once a second, on a terminal.
std::function<void(int64_t)> progress() {
  if (::isatty(STDERR_FILENO) == 0) return {};
  const auto start = std::chrono::steady_clock::now();
  return [start, next = start](int64_t rows) mutable {
    const auto now = std::chrono::steady_clock::now();
    if (now < next) return;
    next = now + std::chrono::seconds(1);
    const double took_s = std::max(0.001, std::chrono::duration<double>(now - start).count());
    std::fprintf(stderr, "\rassay-verify: %lld rows, %.0f a second ", static_cast<long long>(rows),
                 static_cast<double>(rows) / took_s);
  };
}

Result<VerifyReport> prove(const std::vector<std::string>& paths, const VerifyOptions& options) {
  if (paths.size() == 1 && (is_directory(paths.front()) || ::access(paths.front().c_str(), F_OK) != 0) && paths.front() != "-")
    return verify_archive(paths.front(), options);
  std::vector<LooseFile> files;
  for (const std::string& path : paths) {
    if (is_directory(path)) return Error{Errc::kUsage, path + " is a directory: it is proven alone, not among files"};
    const auto open = [path]() -> Result<ByteReader> {
      TRY_ASSIGN(std::shared_ptr<assay::tools::ByteSource> source, assay::tools::open_input(path));
      return ByteReader([source](char* into, size_t size) { return source->read(into, size); });
    };
    TRY_ASSIGN(ByteReader reader, open());
    struct stat status {};
    const bool again = ::stat(path.c_str(), &status) == 0 && S_ISREG(status.st_mode);  // a pipe comes by once
    files.push_back({path, std::move(reader), again ? open : std::function<Result<ByteReader>()>()});
  }
  return verify_files(std::move(files), options);
}

int check(const std::string& proof, const VerifyOptions& options, bool json) {
  const ProofVerdict verdict = check_proof(proof, *options.policy, options.pinned ? &*options.pinned : nullptr);
  const bool holds = verdict.fault.empty();
  if (json) {
    Json out = Json::object().set("verified", holds).set("sentence", holds ? Json(verdict.sentence) : Json());
    out.set("fault", holds ? Json() : Json(verdict.fault));
    std::printf("%s\n", canonical(out).c_str());
  } else {
    std::printf("%s\n  %s\n", holds ? "Proof verified" : "Proof NOT verified", (holds ? verdict.sentence : verdict.fault).c_str());
  }
  return verdict.exit_code();
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Examples\n"
      "  assay-verify export                                  every row, link, signature and file of the directory\n"
      "  assay-verify export --signers signers.json           the same, with keys that you trust from elsewhere\n"
      "  assay-verify export --links                          hashes and links only: ten times as fast\n"
      "  assay-verify chain.sql.zst --signers signers.json    a PostgreSQL dump, or lines of rows (.jsonl, .gz, .zst, - )\n"
      "  assay-verify export --head 812044:9f86…              and that it continues the chain that stood there once\n"
      "  assay-verify export --policy policy                  checkpoints by the log and the witnesses that you trust\n"
      "  assay-verify --proof proof.json --policy policy      what `assay audit prove` printed\n"
      "  assay-verify export --personal export.personal.jsonl and that the commitments fit their plaintexts\n"
      "  assay-verify export --json                           the verdict as one JSON document\n\n"
      "Proves an audit chain. Exit codes: 0 verified, 2 usage, 4 tampered, 8 evidence is missing.");
  std::vector<std::string> paths;
  std::string signers, head, policy, proof, personal;
  std::vector<std::string> checkpoints;
  bool json = false;
  VerifyOptions options;
  app.add_option("PATH", paths, "directory with manifest.json, signers.json and audit-events/; or files of rows, in chain order");
  app.add_option("-s,--signers", signers, "file with the public keys to trust, instead of the directory's own")
      ->check(CLI::ExistingFile);
  app.add_option("--head", head, "an earlier head: what `assay audit head -o json` printed (or its file), or ROWS:HASH");
  app.add_option("--policy", policy, "file with the keys of log and witnesses to trust, and the quorum (C2SP tlog-policy)")
      ->check(CLI::ExistingFile);
  app.add_option("--checkpoint", checkpoints, "checkpoints from elsewhere: files, or directories of .note; needs --policy")
      ->check(CLI::ExistingPath);
  app.add_option("--proof", proof, "a proof to check, instead of a chain; needs --policy")->check(CLI::ExistingFile);
  app.add_option("--personal", personal,
                 "plaintexts to hold the commitments against, as `audit export --with-personal` writes them")
      ->check(CLI::ExistingFile);
  app.add_flag("--links", options.links_only, "check each hash and each link, and no signature of a row");
  app.add_option("--from", options.from, "check signatures from this row on; every hash and link all the same")
      ->check(CLI::PositiveNumber);
  app.add_option("--to", options.to, "check signatures up to this row")->check(CLI::PositiveNumber);
  app.add_flag("--json", json, "print the verdict as JSON");
  app.add_flag("--allow-empty", options.allow_empty, "accept a chain without a row");
  app.add_option("--threads", options.threads, "threads (one per core)")->check(CLI::Range(1, 256));
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    return app.exit(error) == 0 ? 0 : 2;
  }
  if (!signers.empty()) {
    Result<SignerRegistry> pinned = SignerRegistry::load(signers);
    if (!pinned) return fail(pinned.error().code == Errc::kCorrupt ? Error{Errc::kUsage, pinned.error().message} : pinned.error());
    options.pinned = std::move(pinned).value();
  }
  if (!head.empty()) {
    Result<EarlierHead> earlier = parse_earlier_head(text_of(head));
    if (!earlier) return fail(earlier.error());
    options.earlier_head = std::move(earlier).value();
  }
  if (!policy.empty()) {
    Result<NotePolicy> trusted = NotePolicy::parse(text_of(policy));
    if (!trusted) return fail({Errc::kUsage, trusted.error().message});
    options.policy = std::move(trusted).value();
  }
  if (!personal.empty()) {
    Result<std::vector<assay::processors::PersonalRow>> rows = read_personal(personal);
    if (!rows) return fail(rows.error());
    options.personal = std::move(rows).value();
  }
  if (!options.policy && (!checkpoints.empty() || !proof.empty()))
    return fail({Errc::kUsage, "--checkpoint and --proof need --policy: without keys anybody could have signed them"});
  if (options.from && options.to && *options.from > *options.to)
    return fail({Errc::kUsage, "--from is behind --to: no row is left"});
  if (paths.empty() == proof.empty()) return fail({Errc::kUsage, "give a chain to prove (see --help), or --proof FILE"});
  if (!proof.empty()) return check(text_of(proof), options, json);
  for (const std::string& place : checkpoints) {
    std::vector<std::string> files{place};
    if (is_directory(place)) {
      files.clear();
      Result<std::vector<std::string>> names = list_files(place);
      if (!names) return fail(names.error());
      for (const std::string& name : *names)
        if (name.ends_with(".note")) files.push_back(place + "/" + name);
    }
    for (const std::string& file : files) options.checkpoints.emplace_back(file, text_of(file));
  }
  options.progress = progress();
  Result<VerifyReport> report = prove(paths, options);
  if (options.progress) std::fprintf(stderr, "\r%60s\r", "");
  if (!report) return fail(report.error());
  const std::string text = json ? canonical(to_json(*report)) + "\n" : to_text(*report);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return report->exit_code();
}
