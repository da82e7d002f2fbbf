// Runs the simulator over many seeds, shrinks what fails, and prints the command that repeats it.
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <set>
#include <vector>

#ifdef ASSAY_PLANTED_BUGS
#include "tests/simulation/planted_bugs.h"
#endif
#include "tests/simulation/judge.h"

namespace assay::simulation {
namespace {

using replay::FaultEvent;
using replay::FaultMask;
using replay::SimOutcome;
using Events = std::set<FaultEvent>;

struct Options {
  uint64_t from = 1;
  uint64_t seeds = 1000;
  double minutes = 0;  // 0: no limit
  FaultMask faults = replay::kAllFaults;
  std::optional<Events> only;   // of what the seed chose; nothing: all
  size_t reports = 0;           // 0: the seed decides
  unsigned jobs = 0;            // 0: one per core
  std::optional<int> standbys;  // nothing: the seed decides
  bool trace = false;
  bool one = false;
  std::string bug;          // that was planted
  bool first_only = false;  // ends with the first seed that fails
};

constexpr unsigned kRunSecondsMax = 60;  // a run that takes longer goes round in circles
constexpr size_t kShownFailures = 5;

size_t reports_of(const Options& options, uint64_t seed) {
  return options.reports != 0 ? options.reports : seed % 32 == 0 ? 60 : 4 + seed % 12;
}

SimOutcome run(const Options& options, uint64_t seed, const std::optional<Events>& only, size_t reports, bool trace) {
  static streams::Metrics metrics;
  return replay::simulate({seed, options.faults, only, options.standbys, trace}, make_work(seed, reports), metrics, judge);
}

std::string names_of(const Events& events) {
  std::string out;
  for (const FaultEvent& event : events) out += (out.empty() ? "" : ",") + replay::to_string(event);
  return out.empty() ? "none" : out;
}

/// Reads what names_of() writes.
std::optional<Events> parse_events(std::string_view text) {
  Events out;
  for (size_t at = 0; text != "none" && at <= text.size();) {
    const size_t comma = std::min(text.find(',', at), text.size());
    const auto event = replay::parse_fault_event(text.substr(at, comma - at));
    if (!event) return std::nullopt;
    out.insert(*event);
    at = comma + 1;
  }
  return out;
}

/// A run in a process of its own, so that one that ends itself is a finding like any other.
struct Finding {
  bool failed = false;
  std::string failure, trace;
  Events struck;
};
Finding run_apart(const Options& options, uint64_t seed, const std::optional<Events>& only, size_t reports, bool trace = false) {
  int ends[2];
  CHECK(::pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  CHECK(child >= 0);
  if (child == 0) {
    ::close(ends[0]);
    ::alarm(kRunSecondsMax);
    const SimOutcome outcome = run(options, seed, only, reports, trace);
    std::string failure = outcome.failure.value_or("");
    std::ranges::replace(failure, '\n', ' ');
    const std::string text = names_of({outcome.struck.begin(), outcome.struck.end()}) + "\n" + failure + "\n" + outcome.trace;
    for (size_t at = 0; at < text.size();) {
      const ssize_t n = ::write(ends[1], text.data() + at, text.size() - at);
      CHECK(n > 0);
      at += static_cast<size_t>(n);
    }
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
  const size_t first = text.find('\n');
  if (const size_t second = first == std::string::npos ? first : text.find('\n', first + 1); second != std::string::npos) {
    out.struck = parse_events(text.substr(0, first)).value();
    out.failure = text.substr(first + 1, second - first - 1);
    out.trace = text.substr(second + 1);
  }
  out.failed = !(WIFEXITED(status) && WEXITSTATUS(status) == 0);
  if (WIFSIGNALED(status))
    out.failure = std::string("the process ended by signal ") + std::to_string(WTERMSIG(status)) +
                  (WTERMSIG(status) == SIGALRM ? ": it went round in circles" : "");
  return out;
}

/// Takes away faults, in ever smaller parts, and reports, as long as it still fails; prints what is left, its trace and the command
/// that repeats it.
void report_failure(uint64_t seed, const Options& options) {
  size_t reports = reports_of(options, seed);
  Finding found = run_apart(options, seed, options.only, reports);
  std::printf("seed %llu fails: %s\n", static_cast<unsigned long long>(seed), found.failure.c_str());
  if (!found.failed) {
    std::printf("  but not when it runs alone: it is not deterministic\n");
    return;
  }
  std::optional<Events> only = options.only;
  // One that ends itself does not tell what struck it, and is shrunk by its reports alone.
  if (!found.struck.empty()) {
    only = found.struck;
    auto without = [&](const Events& these) {
      Events less;
      std::ranges::set_difference(*only, these, std::inserter(less, less.end()));
      Finding again = run_apart(options, seed, less, reports);
      if (!again.failed) return false;
      // Without those, some of the others may have had no chance to strike.
      only = again.struck.empty() ? less : again.struck;
      found = std::move(again);
      return true;
    };
    for (size_t part = only->size(); part > 0; part = part == 1 ? 0 : (part + 1) / 2)
      for (size_t at = 0; at < only->size();) {
        const auto begin = std::next(only->begin(), static_cast<ptrdiff_t>(at));
        const auto end = std::next(begin, static_cast<ptrdiff_t>(std::min(part, only->size() - at)));
        if (!without(Events(begin, end))) at += part;
      }
  }
  for (size_t less = reports / 2; less >= 2; less = reports / 2) {
    Finding again = run_apart(options, seed, only, less);
    if (!again.failed) break;
    found = std::move(again);
    reports = less;
  }
  const Finding last = run_apart(options, seed, only, reports, true);
  std::string chosen = only ? " --only " + names_of(*only) : "";
  if (options.standbys) chosen += " --standbys " + std::to_string(*options.standbys);
  const std::string planted = options.bug.empty() ? "" : " --plant " + options.bug;
  std::printf("  shrunk to %zu reports%s: %s\n%s  repeat: %s --seed %llu --reports %zu%s%s --trace\n", reports,
              only ? (" and " + names_of(*only)).c_str() : "", last.failure.c_str(), last.trace.c_str(),
              options.bug.empty() ? "./run sim" : "simulator_with_bugs", static_cast<unsigned long long>(seed), reports,
              chosen.c_str(), planted.c_str());
}

struct Totals {
  uint64_t seeds = 0, steps = 0, halted = 0;
  double cpu_s = 0;
  std::map<std::string, int64_t> reached;
  std::vector<uint64_t> failed;
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
    ::alarm(kRunSecondsMax);
    const SimOutcome outcome = run(options, seed, options.only, reports_of(options, seed), false);
    for (const auto& [name, count] : outcome.reached) totals.reached[name] += count;
    totals.halted += outcome.halted ? 1 : 0;
    totals.steps += outcome.steps;
    ++totals.seeds;
    if (!outcome.failure) continue;
    std::fprintf(to, "!%llu\n", static_cast<unsigned long long>(seed));
    if (options.first_only) break;
  }
  for (const auto& [name, count] : totals.reached) std::fprintf(to, "+%lld %s\n", static_cast<long long>(count), name.c_str());
  std::fprintf(to, ">%llu %llu %llu\n", static_cast<unsigned long long>(totals.seeds),
               static_cast<unsigned long long>(totals.steps), static_cast<unsigned long long>(totals.halted));
  std::fclose(to);
  ::_exit(0);
}

/// Runs the seeds in so many worker processes.
Totals run_seeds(const Options& options, unsigned jobs) {
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
  for (auto& [child, from] : workers) {
    char line[512];
    unsigned long long last = 0;
    bool whole = false;
    while (std::fgets(line, sizeof line, from) != nullptr) {
      unsigned long long a = 0, b = 0, c = 0;
      if (line[0] == '?') {
        last = std::strtoull(line + 1, nullptr, 10);
      } else if (line[0] == '!') {
        totals.failed.push_back(std::strtoull(line + 1, nullptr, 10));
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
    struct rusage used = {};
    CHECK(::wait4(child, &status, 0, &used) == child);
    totals.cpu_s += static_cast<double>(used.ru_utime.tv_sec + used.ru_stime.tv_sec) +
                    static_cast<double>(used.ru_utime.tv_usec + used.ru_stime.tv_usec) / 1e6;
    if (!whole) totals.failed.push_back(last);  // it ended itself there
  }
  return totals;
}

int run_many(const Options& options) {
  const unsigned jobs = options.jobs != 0 ? options.jobs : static_cast<unsigned>(::sysconf(_SC_NPROCESSORS_ONLN));
  const auto began = std::chrono::steady_clock::now();
  Totals totals = run_seeds(options, jobs);
  const double took_s = std::chrono::duration<double>(std::chrono::steady_clock::now() - began).count();
  std::printf("%llu seeds in %.1f s on %u cores: %.0f seeds per second of a core, %.0f steps a seed, %llu halted by name\n",
              static_cast<unsigned long long>(totals.seeds), took_s, jobs,
              static_cast<double>(totals.seeds) / std::max(totals.cpu_s, 0.001),
              static_cast<double>(totals.steps) / static_cast<double>(std::max<uint64_t>(1, totals.seeds)),
              static_cast<unsigned long long>(totals.halted));
  for (size_t i = 0; i < replay::kFaultCount; ++i)
    totals.reached.try_emplace(std::string(fault_name(static_cast<replay::Fault>(i))), 0);
  for (const auto& [name, count] : totals.reached)
    std::printf("  %-28s %10lld%s\n", name.c_str(), static_cast<long long>(count), count == 0 ? "   never" : "");
  std::fflush(stdout);
  const size_t shown = std::min(totals.failed.size(), kShownFailures);
  for (size_t i = 0; i < shown; ++i) report_failure(totals.failed[i], options);
  if (totals.failed.size() > shown) std::printf("%zu more seeds fail\n", totals.failed.size() - shown);
  return totals.failed.empty() ? 0 : 1;
}

#ifdef ASSAY_PLANTED_BUGS
/// Plants one bug after the other and looks for the first seed that shows it.
int find_planted_bugs(Options options) {
  options.first_only = true;
  int missed = 0;
  for (const PlantedBug& bug : planted_bugs()) {
    if (options.bug != "all" && options.bug != bug.name) continue;
    schemas::planted_bug = bug.bug;
    const Totals totals = run_seeds(options, 1);
    if (totals.failed.empty()) {
      ++missed;
      std::printf("%-24s NOT FOUND in %llu seeds\n", bug.name, static_cast<unsigned long long>(options.seeds));
    } else {
      const uint64_t seed = totals.failed.front();
      const Finding found = run_apart(options, seed, options.only, reports_of(options, seed));
      std::printf("%-24s %5llu seeds  %s\n", bug.name, static_cast<unsigned long long>(seed - options.from + 1),
                  found.failure.substr(0, 160).c_str());
      if (options.bug == bug.name) report_failure(seed, options);
    }
    std::fflush(stdout);
  }
  return missed == 0 ? 0 : 1;
}
#endif

int usage() {
  std::fprintf(stderr,
               "usage: simulator [--seeds N] [--from S] [--seed S] [--minutes M] [--faults a,b|none|all] [--only a@1,b@2|none] "
               "[--reports N]\n"
               "                 [--standbys N] [--trace] [-j N]\n");
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
    } else if (flag == "--standbys") {
      options.standbys = static_cast<int>(std::strtol(value.c_str(), nullptr, 10));
    } else if (flag == "--reports") {
      options.reports = std::strtoull(value.c_str(), nullptr, 10);
    } else if (flag == "--only") {
      options.only = parse_events(value);
      if (!options.only) {
        std::fprintf(stderr, "simulator: --only takes strikes such as lost_answer@17, comma between them, or none; it is \"%s\"\n",
                     value.c_str());
        return 2;
      }
#ifdef ASSAY_PLANTED_BUGS
    } else if (flag == "--plant") {
      options.bug = value;
#endif
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
#ifdef ASSAY_PLANTED_BUGS
  for (const PlantedBug& bug : planted_bugs())
    if (options.bug == bug.name) schemas::planted_bug = bug.bug;
  if (!options.bug.empty() && options.bug != "all" && schemas::planted_bug == schemas::Bug::kNone) return usage();
  if (!options.bug.empty() && !options.one) return find_planted_bugs(options);
#endif
  if (!options.one) return run_many(options);
  const SimOutcome outcome = run(options, options.from, options.only, reports_of(options, options.from), options.trace);
  std::fputs(outcome.trace.c_str(), stdout);
  std::printf("seed %llu, struck by %s: %s\n", static_cast<unsigned long long>(options.from),
              names_of({outcome.struck.begin(), outcome.struck.end()}).c_str(),
              outcome.failure  ? outcome.failure->c_str()
              : outcome.halted ? "halted by name"
                               : "everything holds");
  return outcome.failure ? 1 : 0;
}

}  // namespace
}  // namespace assay::simulation

int main(int argc, char** argv) { return assay::simulation::main(argc, argv); }
