// Speed and memory of proving an export: every signature, or hashes, links and checkpoints; and of proving single rows. One JSON
// line a figure on stdout; no test.
//   audit_verify_bench DIR ROWS ASSAY_VERIFY [links]     links: rows are not signed, and only what --links looks at is measured
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>

#include "processors/processor.h"
#include "streams/audit_archive.h"
#include "streams/audit_proof.h"
#include "streams/checkpointer.h"
#include "streams/witness.h"
#include "tests/bench/measure.h"

namespace assay::bench {
namespace {

using namespace streams;

// On two cores: 8 and 60 times the 2,750 rows a second of the original verifier.
constexpr double kSignaturesBar = 22'000, kLinksBar = 165'000;
constexpr double kMemoryBarMiB = 64;
constexpr double kProofsBar = 100;  // a second: 10 ms each
constexpr int64_t kStartMs = 1767225600000;
constexpr int64_t kSpacingMs = 250;

/// Row `n` of a made-up chain: a decision, as promotion writes it. Without a signer its signature is only of the right length.
SignedRow make_row(int64_t n, const std::string& signer_id, Signer* signer, processors::ChainState& state) {
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
  SignedRow row{std::get<processors::AuditRow>(std::move(step)), {}, signer_id};
  row.signature = to_base64(signer != nullptr ? must(signer->sign(row.row.hash))
                                              : std::string(as_bytes(row.row.hash)) + std::string(as_bytes(row.row.hash)));
  return row;
}

/// The made-up chain from its first row on.
StoredChain make_chain(int64_t rows, const SignerKey& key, Signer* signer) {
  constexpr int64_t kBlock = 1000;
  StoredChain chain;
  chain.complete = false;  // the head is what the lines tell
  must(chain.signers.add({key, {}, {}, false}));
  chain.lines = [=, state = processors::ChainState(), next = int64_t{0}]() mutable -> Result<std::vector<StoredLine>> {
    std::vector<StoredLine> block;
    for (; next < rows && std::ssize(block) < kBlock; ++next)
      block.push_back({audit_line(make_row(next, key.signer_id, signer, state)), "made", 0});
    return block;
  };
  return chain;
}

/// A checkpoint of all rows, cosigned, as a log and a witness make it.
void make_checkpoint(const std::string& dir, int64_t rows, const SignerKey& key) {
  const NoteSignerOptions log_key{dir + "/log.key", "bench/log", NoteKeyType::kLog, true};
  const std::shared_ptr<Witness> witness =
      must(Witness::open({dir + "/witness", {must(open_note_signer(log_key))->key()}, true},
                         must(open_note_signer({dir + "/witness.key", "bench/w1", NoteKeyType::kCosignature, true}))));
  CheckpointerOptions options;
  options.dir = dir + "/checkpoints";
  options.policy = NotePolicy::all_of({{"w1", witness->key(), "http://w1"}});
  options.ask = [&](const NotePolicy::Witness&, const std::string& body) -> Result<std::pair<int, std::string>> {
    const WitnessAnswer answer = witness->add_checkpoint(body, kStartMs / 1000);
    return std::pair(answer.status, answer.body);
  };
  const auto checkpointer = must(Checkpointer::open(std::move(options), must(open_note_signer(log_key))));
  const auto made = must(checkpointer->make([&](int64_t) { return Result(make_chain(rows, key, nullptr)); }));
  if (!made || made->cosignatures != 1) std::exit(1);
}

/// Runs a program as anybody does, and gives what it took of memory and of all cores.
rusage call(const std::string& program, std::vector<std::string> arguments) {
  arguments.insert(arguments.begin(), program);
  std::vector<char*> argv;
  for (std::string& argument : arguments) argv.push_back(argument.data());
  argv.push_back(nullptr);
  rusage usage{};
  int status = 0;
  const pid_t child = fork();
  if (child == 0) {
    if (std::freopen("/dev/null", "w", stdout) == nullptr) _exit(126);
    execv(argv[0], argv.data());
    _exit(127);
  }
  wait4(child, &status, 0, &usage);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
    std::fprintf(stderr, "%s ended with status %d\n", program.c_str(), status);
    std::exit(1);
  }
  return usage;
}

void verify(const std::string& program, const std::vector<std::string>& arguments, const std::string& what, int64_t rows,
            double bar) {
  rusage usage{};
  const Took took = measure([&] { usage = call(program, arguments); });
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  figure(what, "rows", static_cast<double>(rows), {took.wall_s, seconds(usage.ru_utime) + seconds(usage.ru_stime)}, bar);
  schemas::Json line = schemas::Json::object().set("what", what + ", memory").set("unit", "MiB");
  line.set("mebibytes", static_cast<double>(usage.ru_maxrss) / 1024).set("barMebibytes", kMemoryBarMiB);
  std::printf("%s\n", schemas::canonical(line).c_str());
  std::fflush(stdout);
}

/// Proofs of rows by their ids: by the library, and as a command from its start to its end.
void prove(const std::string& dir, const std::string& chain, int64_t rows, const std::string& assay) {
  constexpr int64_t kProofs = 500, kCommands = 50;
  const auto id_of = [](int64_t n) { return "av-" + derived_id(place_id("eval.scores.v1", 0, Offset(n)), "promotion", 0).hex(); };
  const auto nth = [&](int64_t i, int64_t of) { return (rows / of * i + i * 7919 % 1000) % rows; };
  const std::string note = must(directory_tiles(chain)(checkpoint_file(static_cast<uint64_t>(rows))));
  figure("prove a row by its id", "proofs", kProofs, measure([&] {
           for (int64_t i = 0; i < kProofs; ++i) {
             const FoundRow row = must(find_archive_row(chain, id_of(nth(i, kProofs)), chain));
             must(prove_inclusion(directory_tiles(chain), static_cast<uint64_t>(rows), row.sequence, row.line, note));
           }
         }),
         kProofsBar);
  figure("the same, each by a command", "proofs", kCommands, measure([&] {
           for (int64_t i = 0; i < kCommands; ++i)
             call(assay, {"--data-dir", dir + "/data", "audit", "prove", "--archive", chain, "--id", id_of(nth(i, kCommands))});
         }));
}

void run(const std::string& dir, int64_t rows, const std::string& program, bool signatures) {
  FileSignerOptions options;
  options.path = dir + "/signer.key";
  const auto signer = must(open_file_signer(options));
  const std::string chain = dir + "/export", keys = chain + "/signers.json", policy = dir + "/checkpoints/policy";
  const auto count = static_cast<double>(rows);
  figure("make, chain, and checkpoint with tree and index", "rows", count,
         measure([&] { make_checkpoint(dir, rows, signer->key()); }));
  figure(signatures ? "make, chain, sign and pack an export" : "make, chain and pack an export", "rows", count, measure([&] {
           must(export_archive(make_chain(rows, signer->key(), signatures ? signer.get() : nullptr), chain, *signer, {},
                               dir + "/checkpoints"));
         }));
  const std::vector<std::string> words = {chain, "--signers", keys, "--policy", policy};
  if (signatures) verify(program, words, "verify every signature", rows, kSignaturesBar);
  verify(program, {chain, "--signers", keys, "--policy", policy, "--links"}, "verify hashes, links, signed checkpoints", rows,
         kLinksBar);
  prove(dir, chain, rows, std::filesystem::path(program).parent_path() / "assay");
}

}  // namespace
}  // namespace assay::bench

int main(int argc, char** argv) {
  const bool links = argc == 5 && std::string(argv[4]) == "links";
  if (argc != 4 && !links) {
    std::fprintf(stderr, "usage: audit_verify_bench DIR ROWS ASSAY_VERIFY [links]\n");
    return 2;
  }
  const std::string dir = std::string(argv[1]) + "/audit_verify_bench";
  std::filesystem::remove_all(dir);
  std::filesystem::create_directories(dir);
  assay::bench::run(dir, std::atoll(argv[2]), argv[3], !links);
  std::filesystem::remove_all(dir);
}
