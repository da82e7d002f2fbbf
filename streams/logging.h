// Structured log lines for the shell: `2026-05-01T12:00:00.000Z info checkpoint.committed task=scoring-3 took_ms=12`.
#pragma once

#include <concepts>
#include <cstdint>
#include <functional>
#include <initializer_list>
#include <string>
#include <string_view>
#include <variant>

#include "streams/base.h"

namespace assay::streams {

enum class LogLevel : uint8_t { kDebug, kInfo, kWarning, kError };
std::string_view log_level_name(LogLevel level);  // "debug" "info" "warning" "error"

/// One name=value. Text is not copied: a field lives as long as the call that logs it.
class LogField {
 public:
  using Value = std::variant<std::string_view, int64_t, uint64_t, double, bool>;

  LogField(std::string_view name, const char* text) : name_(name), value_(std::string_view(text)) {}
  LogField(std::string_view name, std::string_view text) : name_(name), value_(text) {}
  LogField(std::string_view name, const std::string& text) : name_(name), value_(std::string_view(text)) {}
  LogField(std::string_view name, bool yes) : name_(name), value_(yes) {}
  LogField(std::string_view name, double number) : name_(name), value_(number) {}
  template <std::signed_integral T>
  LogField(std::string_view name, T number) : name_(name), value_(static_cast<int64_t>(number)) {}
  template <std::unsigned_integral T>
  LogField(std::string_view name, T number) : name_(name), value_(static_cast<uint64_t>(number)) {}
  template <class Tag>
  LogField(std::string_view name, StrongInt<Tag> number) : name_(name), value_(number.value) {}

  std::string_view name() const { return name_; }
  const Value& value() const { return value_; }

 private:
  std::string_view name_;
  Value value_;
};

using LogFields = std::initializer_list<LogField>;

struct LogOptions {
  LogLevel level = LogLevel::kInfo;  // lines below it are not written
  bool json = false;                 // one JSON object a line instead of key=value
  std::string file = {};             // empty: stderr
  std::function<void(LogLevel, std::string_view line)> sink =
      {};  // instead of both, for tests and the simulator; one call at a time
};

/// Sets where lines go and how they look. Without a call: key=value on stderr from kInfo on.
/// Errors: kUsage when the file cannot be opened (the earlier settings stay).
Result<void> configure_logging(LogOptions options);

/// Writes one line; safe from any thread, and never fails its caller.
/// `event` is a thing that happened: "checkpoint.committed". A field's name is snake_case; other bytes become '_'.
void log_debug(std::string_view event, LogFields fields = {});
void log_info(std::string_view event, LogFields fields = {});
void log_warning(std::string_view event, LogFields fields = {});
/// An error asks a person to act, so the line carries runbook=runbooks/<runbook>.md.
void log_error(std::string_view event, std::string_view runbook, LogFields fields = {});

/// Lines of level error written since the process began; a simulation with one has failed.
uint64_t errors_logged();

/// The line as it is written, without its newline. No input can make a second line, end a quote, or reach a terminal's controls:
/// values are quoted when they are not plain, bytes that are not printable UTF-8 are escaped, 4 KiB of a value are kept.
/// Pure.
std::string format_log_line(WallTime at, LogLevel level, std::string_view event, LogFields fields, bool json);

}  // namespace assay::streams
