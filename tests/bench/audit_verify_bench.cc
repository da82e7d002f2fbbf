// Speed and memory of proving an export: every signature, and hashes with links alone. One JSON line a figure on stdout; no test.
//   audit_verify_bench DIR ROWS ASSAY_VERIFY
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "processors/processor.h"
#include "streams/audit_archive.h"
#include "tests/bench/measure.h"

namespace assay::bench {
namespace {

using namespace streams;

// On two cores: 8 and 60 times the 2,750 rows a second of the original verifier.
constexpr double kSignaturesBar = 22'000, kLinksBar = 165'000;
constexpr double kMemoryBarMiB = 64;
constexpr int64_t kStartMs = 1767225600000;
constexpr int64_t kSpacingMs = 250;

/// Row `n` of a made-up chain: a decision, as promotion writes it.
SignedRow make_row(int64_t n, Signer& signer, processors::ChainState& state) {
  const Id cause = place_id("eval.scores.v1", 0, Offset(n));
  schemas::Json source = schemas::Json::object().set("topic", "eval.scores.v1").set("id", cause.hex());
  schemas::Json data = schemas::Json::object();
  data.set("entityId", "agent-" + std::to_string(n % 42)).set("action", "promote").set("score", 0.8731).set("confidence", 0.976);
  data.set("rationale", "Score at least 0.85 at three hours in a row, and the lower bound of the day at least 0.85.");
  const processors::Output out =
      processors::audit_output(derived_id(cause, "promotion", 0), cause, "promotion.applied", "service:eval-engine",
                               "2026-01-01T00:00:00.000Z", std::move(source), std::move(data));
  const RecordView record{Offset(n), WallTime(kStartMs + n * kSpacingMs), out.key, out.value, {}};
  processors::ChainStep step = processors::fold_audit_record(record, std::nullopt, state);
  SignedRow row{std::get<processors::AuditRow>(std::move(step)), {}, signer.key().signer_id};
  row.signature = to_base64(must(signer.sign(row.row.hash)));
  return row;
}

void make_export(const std::string& dir, int64_t rows, Signer& signer) {
  constexpr int64_t kBlock = 1000;
  processors::ChainState state;
  int64_t next = 0;
  StoredChain chain;
  chain.complete = false;  // the head is what the lines tell
  must(chain.signers.add({signer.key(), {}, {}, false}));
  chain.lines = [&]() -> Result<std::vector<StoredLine>> {
    std::vector<StoredLine> block;
    for (; next < rows && std::ssize(block) < kBlock; ++next)
      block.push_back({audit_line(make_row(next, signer, state)), "made", 0});
    return block;
  };
  must(export_archive(std::move(chain), dir, signer));
}

/// Runs the verifier as anybody does, and gives what it took of time, of all cores and of memory.
void verify(const std::string& program, std::vector<std::string> arguments, const std::string& what, int64_t rows, double bar) {
  arguments.insert(arguments.begin(), program);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  rusage usage{};
  int status = 0;
  const Took took = measure([&] {
    const pid_t child = fork();
    if (child == 0) {
      if (std::freopen("/dev/null", "w", stdout) == nullptr) _exit(126);
      execv(argv[0], argv.data());
      _exit(127);
    }
    wait4(child, &status, 0, &usage);
  });
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::fprintf(stderr, "%s ended with status %d\n", what.c_str(), status);
    std::exit(1);
  }
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  figure(what, "rows", static_cast<double>(rows), {took.wall_s, seconds(usage.ru_utime) + seconds(usage.ru_stime)}, bar);
  schemas::Json line = schemas::Json::object().set("what", what + ", memory").set("unit", "MiB");
  line.set("mebibytes", static_cast<double>(usage.ru_maxrss) / 1024).set("barMebibytes", kMemoryBarMiB);
  std::printf("%s\n", schemas::canonical(line).c_str());
  std::fflush(stdout);
}

void run(const std::string& dir, int64_t rows, const std::string& program) {
  FileSignerOptions options;
  options.path = dir + "/signer.key";
  const auto signer = must(open_file_signer(options));
  const std::string chain = dir + "/export", keys = chain + "/signers.json";
  figure("make, chain, sign and pack an export", "rows", static_cast<double>(rows),
         measure([&] { make_export(chain, rows, *signer); }));
  verify(program, {chain, "--signers", keys}, "verify every signature", rows, kSignaturesBar);
  verify(program, {chain, "--signers", keys, "--links"}, "verify hashes, links and what is signed around", rows, kLinksBar);
}

}  // namespace
}  // namespace assay::bench

int main(int argc, char** argv) {
  if (argc != 4) {
    std::fprintf(stderr, "usage: audit_verify_bench DIR ROWS ASSAY_VERIFY\n");
    return 2;
  }
  const std::string dir = std::string(argv[1]) + "/audit_verify_bench";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  assay::bench::run(dir, std::atoll(argv[2]), argv[3]);
  std::filesystem::remove_all(dir);
}
