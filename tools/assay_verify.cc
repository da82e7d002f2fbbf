// assay-verify: proves an exported audit chain with nothing but its files.
#include <CLI/CLI.hpp>
#include <cstdio>
#include <string>

#include "streams/audit_verify.h"

namespace {

using namespace assay::streams;

int fail(const Error& error) {
  std::fprintf(stderr, "assay-verify: %s\n", error.message.c_str());
  return exit_code(error.code);
}

}  // namespace

int main(int argc, char** argv) {
  CLI::App app(
      "Examples\n"
      "  assay-verify export                          every row, link, signature and file of the directory\n"
      "  assay-verify export --signers signers.json   the same, with keys that you trust from elsewhere\n"
      "  assay-verify export --json                   the verdict as one JSON document\n\n"
      "Proves an exported audit chain. Exit codes: 0 verified, 2 usage, 4 tampered, 8 evidence is missing.");
  std::string dir, signers;
  bool json = false;
  VerifyOptions options;
  app.add_option("DIR", dir, "directory with manifest.json, signers.json and audit-events/")->required();
  app.add_option("-s,--signers", signers, "file with the public keys to trust, instead of the directory's own")
      ->check(CLI::ExistingFile);
  app.add_flag("--json", json, "print the verdict as JSON");
  app.add_flag("--allow-empty", options.allow_empty, "accept a chain without a row");
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
  Result<VerifyReport> report = verify_archive(dir, options);
  if (!report) return fail(report.error());
  const std::string text = json ? canonical(to_json(*report)) + "\n" : to_text(*report);
  std::fwrite(text.data(), 1, text.size(), stdout);
  return report->exit_code();
}
