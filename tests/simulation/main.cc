// Runs the simulator over many seeds, shrinks what fails, and prints the command that repeats it.
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "tests/simulation/judge.h"

namespace assay::simulation {
namespace {

using replay::FaultMask;
using replay::SimOutcome;

struct Options {
  uint64_t from = 1;
  uint64_t seeds = 1000;
  double minutes = 0;  // 0: no limit
  FaultMask faults = replay::kAllFaults;
  size_t reports = 0;  // 0: the seed decides
  unsigned jobs = 0;   // 0: one per core
  bool trace = false;
  bool one = false;
};

size_t reports_of(const Options& options, uint64_t seed) { return options.reports != 0 ? options.reports : seed % 16 == 0 ? 60 : 6 + seed % 16; }

SimOutcome run(uint64_t seed, FaultMask faults, size_t reports, bool trace) {
  static streams::Metrics metrics;
  return replay::simulate({seed, faults, trace}, make_work(seed, reports), metrics, judge);
}

/// A run in a process of its own, so that one that ends itself is a finding like any other.
struct Finding {
  bool failed = false;
  std::string failure;
  FaultMask chosen = 0;
};
Finding run_apart(uint64_t seed, FaultMask faults, size_t reports) {
  int ends[2];
  CHECK(::pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    ::alarm(20);
    const SimOutcome outcome = run(seed, faults, reports, false);
    std::string text(reinterpret_cast<const char*>(&outcome.chosen), sizeof outcome.chosen);
    text += outcome.failure.value_or("");
    CHECK(::write(ends[1], text.data(), text.size()) == static_cast<ssize_t>(text.size()));
    ::_exit(outcome.failure ? 1 : 0);
  }
  ::close(ends[1]);
  std::string text;
  char buffer[4096];
  for (ssize_t n; (n = ::read(ends[0], buffer, sizeof buffer)) > 0;) text.append(buffer, static_cast<size_t>(n));
  ::close(ends[0]);
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  Finding out;
  if (text.size() >= sizeof out.chosen) {
    std::memcpy(&out.chosen, text.data(), sizeof out.chosen);
    out.failure = text.substr(sizeof out.chosen);
  }
  out.failed = !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  if (WIFSIGNALED(status)) out.failure = "the process ended by signal " + std::to_string(WTERMSIG(status));
  return out;
}

std::string names_of(FaultMask mask) {
  std::string out;
  for (size_t i = 0; i < replay::kFaultCount; ++i)
    if (const auto fault = static_cast<replay::Fault>(i); (mask & replay::fault_bit(fault)) != 0)
      out += (out.empty() ? "" : ",") + std::string(fault_name(fault));
  return out.empty() ? "none" : out;
}

/// Takes away faults one by one and reports half by half, as long as it still fails; prints what is left.
void report_failure(uint64_t seed, const Options& options) {
  size_t reports = reports_of(options, seed);
  Finding found = run_apart(seed, options.faults, reports);
  std::printf("seed %llu fails: %s\n", static_cast<unsigned long long>(seed), found.failure.c_str());
  if (!found.failed) {
    std::printf("  but not when it runs alone: it is not deterministic\n");
    return;
  }
  FaultMask mask = found.chosen != 0 ? found.chosen : options.faults;
  for (size_t i = 0; i < replay::kFaultCount; ++i) {
    const FaultMask less = mask & ~(FaultMask{1} << i);
    if (less == mask) continue;
    if (Finding again = run_apart(seed, less, reports); again.failed) mask = less, found = again;
  }
  for (size_t less = reports / 2; less >= 2; less = std::min(less - 1, less / 2)) {
    if (Finding again = run_apart(seed, mask, less); again.failed) reports = less, found = again;
  }
  std::printf("  shrunk to faults %s and %zu reports: %s\n  repeat: ./run sim --seed %llu --faults %s --reports %zu --trace\n",
              names_of(mask).c_str(), reports, found.failure.c_str(), static_cast<unsigned long long>(seed), names_of(mask).c_str(),
              reports);
}

struct Totals {
  uint64_t seeds = 0, steps = 0, halted = 0;
  std::map<std::string, int64_t> reached;
};

/// Runs every jobs-th seed; writes "+name count" lines of what was reached, "!seed" when one fails, and ">seeds steps".
void work(const Options& options, unsigned job, unsigned jobs, int out, const std::chrono::steady_clock::time_point deadline) {
  Totals totals;
  std::map<std::string, int64_t> sent;
  std::FILE* to = ::fdopen(out, "w");
  for (uint64_t seed = options.from + job; seed < options.from + options.seeds; seed += jobs) {
    if (options.minutes > 0 && std::chrono::steady_clock::now() >= deadline) break;
    std::fprintf(to, "?%llu\n", static_cast<unsigned long long>(seed));
    std::fflush(to);
    const SimOutcome outcome = run(seed, options.faults, reports_of(options, seed), false);
    for (const auto& [name, count] : outcome.reached) totals.reached[name] += count;
    totals.halted += outcome.halted ? 1 : 0;
    totals.steps += outcome.steps;
    ++totals.seeds;
    if (outcome.failure) std::fprintf(to, "!%llu\n", static_cast<unsigned long long>(seed));
  }
  for (const auto& [name, count] : totals.reached) std::fprintf(to, "+%lld %s\n", static_cast<long long>(count), name.c_str());
  std::fprintf(to, ">%llu %llu %llu\n", static_cast<unsigned long long>(totals.seeds),
               static_cast<unsigned long long>(totals.steps), static_cast<unsigned long long>(totals.halted));
  std::fclose(to);
  ::_exit(0);
}

int run_many(const Options& options) {
  const unsigned jobs = options.jobs != 0 ? options.jobs : static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_ONLN));
  const auto began = std::chrono::steady_clock::now();
  const auto deadline = began + std::chrono::milliseconds(static_cast<int64_t>(options.minutes * 60000));
  std::vector<std::pair<pid_t, std::FILE*>> workers;
  for (unsigned job = 0; job < jobs; ++job) {
    int ends[2];
    CHECK(::pipe(ends) == 0);
    std::fflush(nullptr);
    const pid_t child = ::fork();
    CHECK(child >= 0);
    if (child == 0) {
      ::close(ends[0]);
      work(options, job, jobs, ends[1], deadline);
    }
    ::close(ends[1]);
    workers.emplace_back(child, ::fdopen(ends[0], "r"));
  }
  Totals totals;
  std::vector<uint64_t> failed;
  for (auto& [child, from] : workers) {
    char line[512];
    unsigned long long last = 0;
    bool whole = false;
    while (std::fgets(line, sizeof line, from) != nullptr) {
      unsigned long long a = 0, b = 0, c = 0;
      if (line[0] == '?') {
        last = std::strtoull(line + 1, nullptr, 10);
      } else if (line[0] == '!') {
        failed.push_back(std::strtoull(line + 1, nullptr, 10));
      } else if (line[0] == '+') {
        char* name = nullptr;
        const int64_t count = std::strtoll(line + 1, &name, 10);
        totals.reached[std::string(name + 1, std::strlen(name + 1) - 1)] += count;
      } else if (std::sscanf(line, ">%llu %llu %llu", &a, &b, &c) == 3) {
        totals.seeds += a, totals.steps += b, totals.halted += c;
        whole = true;
      }
    }
    std::fclose(from);
    int status = 0;
    CHECK(::waitpid(child, &status, 0) == child);
    if (!whole) {
      std::printf("a worker ended itself at seed %llu, status %d\n", last, status);
      failed.push_back(last);
    }
  }
  const double took_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf("%llu seeds in %.1f s on %u cores: %.0f seeds/s/core, %.0f steps a seed, %llu halted by name\n",
              static_cast<unsigned long long>(totals.seeds), took_s, jobs, static_cast<double>(totals.seeds) / took_s / jobs,
              static_cast<double>(totals.steps) / static_cast<double>(std::max<uint64_t>(1, totals.seeds)),
              static_cast<unsigned long long>(totals.halted));
  for (size_t i = 0; i < replay::kFaultCount; ++i)
    totals.reached.try_emplace(std::string(fault_name(static_cast<replay::Fault>(i))), 0);
  for (const auto& [name, count] : totals.reached)
    std::printf("  %-28s %10lld%s\n", name.c_str(), static_cast<long long>(count), count == 0 ? "   never" : "");
  std::fflush(stdout);
  const size_t shown = std::min<size_t>(failed.size(), 5);
  for (size_t i = 0; i < shown; ++i) report_failure(failed[i], options);
  if (failed.size() > shown) std::printf("%zu more seeds fail\n", failed.size() - shown);
  return failed.empty() ? 0 : 1;
}

int usage() {
  std::fprintf(
      stderr,
      "usage: simulator [--seeds N] [--from S] [--seed S] [--minutes M] [--faults a,b|none|all] [--reports N] [--trace] [-j N]\n");
  return 2;
}

int main(int argc, char** argv) {
  Options options;
  for (int i = 1; i < argc; ++i) {
    const std::string flag = argv[i];
    if (flag == "--trace") {
      options.trace = true;
      continue;
    }
    if (i + 1 == argc) return usage();
    const std::string value = argv[++i];
    if (flag == "--seeds") {
      options.seeds = std::strtoull(value.c_str(), nullptr, 10);
    } else if (flag == "--from" || flag == "--seed") {
      options.from = std::strtoull(value.c_str(), nullptr, 10);
      options.one = options.one || flag == "--seed";
    } else if (flag == "--minutes") {
      options.minutes = std::strtod(value.c_str(), nullptr);
    } else if (flag == "--reports") {
      options.reports = std::strtoull(value.c_str(), nullptr, 10);
    } else if (flag == "-j") {
      options.jobs = static_cast<unsigned>(std::strtoul(value.c_str(), nullptr, 10));
    } else if (flag == "--faults") {
      options.faults = value == "all" ? replay::kAllFaults : 0;
      for (size_t at = 0; value != "all" && value != "none" && at <= value.size();) {
        const size_t comma = std::min(value.find(',', at), value.size());
        const auto fault = replay::parse_fault(value.substr(at, comma - at));
        if (!fault) {
          std::fprintf(stderr, "simulator: no fault \"%s\"\n", value.substr(at, comma - at).c_str());
          return 2;
        }
        options.faults |= replay::fault_bit(*fault);
        at = comma + 1;
      }
    } else {
      return usage();
    }
  }
  if (!options.one) return run_many(options);
  const SimOutcome outcome = run(options.from, options.faults, reports_of(options, options.from), options.trace);
  std::fputs(outcome.trace.c_str(), stdout);
  std::printf("seed %llu, faults %s: %s\n", static_cast<unsigned long long>(options.from), names_of(outcome.chosen).c_str(),
              outcome.failure  ? outcome.failure->c_str()
              : outcome.halted ? "halted by name"
                               : "everything holds");
  return outcome.failure ? 1 : 0;
}

}  // namespace
}  // namespace assay::simulation

int main(int argc, char** argv) { return assay::simulation::main(argc, argv); }
