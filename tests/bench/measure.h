// What the benchmarks share: time and processor time of a piece of work, and one JSON line for each figure.
#pragma once

#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <string>

#include "schemas/json.h"
#include "schemas/result.h"

namespace assay::bench {

template <class T>
T must(schemas::Result<T> result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
  return std::move(result).value();
}
inline void must(const schemas::Result<void>& result) {
  if (!result) {
    std::fprintf(stderr, "%s\n", result.error().message.c_str());
    std::exit(1);
  }
}

struct Took {
  double wall_s = 0;
  double cpu_s = 0;  // of all threads of this process
};

inline double cpu_seconds() {
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  auto seconds = [](const timeval& t) { return static_cast<double>(t.tv_sec) + static_cast<double>(t.tv_usec) / 1e6; };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

inline Took measure(const std::function<void()>& work) {
  const double cpu = cpu_seconds();
  const auto start = std::chrono::steady_clock::now();
  work();
  const auto end = std::chrono::steady_clock::now();
  return {std::chrono::duration<double>(end - start).count(), cpu_seconds() - cpu};
}

/// Prints one figure as a line of JSON. `bar`: what it must reach, per second of wall time; 0: it is there to compare with.
inline void figure(const std::string& what, const std::string& unit, double count, Took took, double bar = 0) {
  schemas::Json line = schemas::Json::object();
  line.set("what", what).set("unit", unit).set("count", count).set("wallSeconds", took.wall_s).set("cpuSeconds", took.cpu_s);
  line.set("perSecond", count / took.wall_s).set("perCpuSecond", count / took.cpu_s);
  if (bar > 0) line.set("bar", bar);
  std::printf("%s\n", schemas::canonical(line).c_str());
  std::fflush(stdout);
}

}  // namespace assay::bench
