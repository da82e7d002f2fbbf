#include "tools/progress.h"

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <iostream>

#include "tools/cli.h"

namespace assay::tools {
namespace {

constexpr int64_t kBarIntervalMs = 100;
constexpr int64_t kLineIntervalMs = 5000;
constexpr uint64_t kCallsPerLook = 256;  // reading the clock for every unit would cost more than the unit
constexpr int kBarWidth = 24;
constexpr double kLeastShareToTell = 0.01;  // before it, the time left is a guess that frightens

ProgressForm form_of(const Context& context) {
  if (context.quiet) return ProgressForm::kSilent;
  return &context.err == &std::cerr && isatty(STDERR_FILENO) == 1 ? ProgressForm::kBar : ProgressForm::kLines;
}

int64_t steady_ms() {
  return std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

std::string clock_text(int64_t seconds) {
  auto two = [](int64_t n) { return (n < 10 ? "0" : "") + std::to_string(n); };
  const std::string minutes = two(seconds / 60 % 60) + ":" + two(seconds % 60);
  return seconds < 3600 ? minutes : std::to_string(seconds / 3600) + ":" + minutes;
}

}  // namespace

std::string grouped(uint64_t count) {
  std::string digits = std::to_string(count);
  for (size_t i = digits.size(); i > 3; i -= 3) digits.insert(i - 3, ",");
  return digits;
}

Progress::Progress(std::string label, std::string unit, std::ostream& err, ProgressForm form, Clock clock)
    : label_(std::move(label)),
      unit_(std::move(unit)),
      err_(err),
      form_(form),
      clock_(clock ? std::move(clock) : Clock(steady_ms)) {
  started_ms_ = printed_ms_ = clock_();
}

Progress::Progress(std::string label, std::string unit, Context& context)
    : Progress(std::move(label), std::move(unit), context.err, form_of(context)) {}

Progress::~Progress() {
  if (open_line_) err_ << "\n" << std::flush;
}

void Progress::update(uint64_t count, std::optional<double> share) {
  count_ = count;
  share_ = share;
  if (form_ == ProgressForm::kSilent || calls_until_look_-- > 0) return;
  calls_until_look_ = kCallsPerLook - 1;
  const int64_t now_ms = clock_();
  if (now_ms - printed_ms_ < (form_ == ProgressForm::kBar ? kBarIntervalMs : kLineIntervalMs)) return;
  // Slow units: look at every one of them.
  if (count_ < kCallsPerLook) calls_until_look_ = 0;
  print(now_ms, false);
}

void Progress::finish() {
  if (form_ != ProgressForm::kSilent) print(clock_(), true);
  form_ = ProgressForm::kSilent;
}

void Progress::print(int64_t now_ms, bool last) {
  printed_ms_ = now_ms;
  const int64_t took_ms = std::max<int64_t>(now_ms - started_ms_, 1);
  const uint64_t rate = static_cast<uint64_t>(static_cast<double>(count_) * 1000 / static_cast<double>(took_ms));
  std::string text = label_;
  const double share = std::clamp(share_.value_or(0), 0.0, 1.0);
  if (form_ == ProgressForm::kBar && share_ && !last) {
    const int full = static_cast<int>(share * kBarWidth);
    text += " [" + std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(kBarWidth - full), ' ') + "]";
  }
  if (share_ && !last) text += " " + std::to_string(static_cast<int>(share * 100)) + "%";
  text += "  " + grouped(count_) + " " + unit_ + "  " + grouped(rate) + "/s";
  if (last) {
    text += "  in " + clock_text(took_ms / 1000);
  } else if (share >= kLeastShareToTell) {
    text += "  " + clock_text(static_cast<int64_t>(static_cast<double>(took_ms) * (1 - share) / share) / 1000) + " left";
  }
  if (form_ == ProgressForm::kBar) {
    err_ << "\r\x1b[K" << text << std::flush;  // the line is cleared first: the text before may have been longer
    open_line_ = !last;
    if (last) err_ << "\n" << std::flush;
  } else {
    err_ << text << "\n" << std::flush;
  }
}

}  // namespace assay::tools
