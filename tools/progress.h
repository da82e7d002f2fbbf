// How far a long command is: a bar on a terminal, a line every few seconds elsewhere, nothing when quiet.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <ostream>
#include <string>

namespace assay::tools {

struct Context;

enum class ProgressForm { kBar, kLines, kSilent };

class Progress {
 public:
  using Clock = std::function<int64_t()>;  // milliseconds that only rise

  /// `label` says what is done, `unit` what is counted ("reports").
  Progress(std::string label, std::string unit, std::ostream& err, ProgressForm form, Clock clock = {});
  Progress(std::string label, std::string unit, Context& context);
  ~Progress();  // ends the line of a bar that was not finished

  /// `count` units are done; `share` of the whole (0 to 1), when the whole is known. Cheap: call it for every unit.
  void update(uint64_t count, std::optional<double> share = std::nullopt);
  /// Prints the end: the count and the rate over all.
  void finish();

 private:
  void print(int64_t now_ms, bool last);

  std::string label_, unit_;
  std::ostream& err_;
  ProgressForm form_;
  Clock clock_;
  int64_t started_ms_, printed_ms_;
  uint64_t count_ = 0;
  uint64_t calls_until_look_ = 0;
  std::optional<double> share_;
  bool open_line_ = false;
};

/// "1,234,567"
std::string grouped(uint64_t count);

}  // namespace assay::tools
