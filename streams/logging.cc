#include "streams/logging.h"

#include <spdlog/logger.h>
#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <array>
#include <atomic>
#include <charconv>
#include <chrono>
#include <cmath>
#include <memory>
#include <mutex>

#include "schemas/time.h"
#include "schemas/utf8.h"

namespace assay::streams {

namespace {

constexpr size_t kMaxValueBytes = 4096;

char32_t decode(std::string_view sequence) {
  static constexpr unsigned char kLeadBits[] = {0, 0x7F, 0x1F, 0x0F, 0x07};
  char32_t c = static_cast<unsigned char>(sequence[0]) & kLeadBits[sequence.size()];
  for (size_t i = 1; i < sequence.size(); ++i) c = (c << 6) | (static_cast<unsigned char>(sequence[i]) & 0x3F);
  return c;
}

// Controls move a terminal's cursor; separators break lines in some viewers; bidi marks let a line show something else than it
// says.
bool is_unprintable(char32_t c) {
  return c < 0x20 || (c >= 0x7F && c <= 0x9F) || c == 0x2028 || c == 0x2029 || c == 0x061C || c == 0x200E || c == 0x200F ||
         (c >= 0x202A && c <= 0x202E) || (c >= 0x2066 && c <= 0x2069) || c == 0xFEFF;
}

void append_hex(uint32_t value, int digits, std::string& out) {
  for (int shift = 4 * (digits - 1); shift >= 0; shift -= 4) out.push_back("0123456789abcdef"[(value >> shift) & 15]);
}

// The text between the quotes. Both forms escape alike, except bytes that are no UTF-8: JSON has no way to say them.
void append_escaped(std::string_view text, bool json, std::string& out) {
  const size_t total = text.size();
  bool cut = false;
  if (text.size() > kMaxValueBytes) {
    size_t keep = kMaxValueBytes;
    while (keep > kMaxValueBytes - 4 && (static_cast<unsigned char>(text[keep]) & 0xC0) == 0x80) --keep;
    text = text.substr(0, keep);
    cut = true;
  }
  while (!text.empty()) {
    size_t n = utf8_sequence(text);
    if (n == 0) {
      if (json) {
        out += "\\ufffd";
      } else {
        out += "\\x";
        append_hex(static_cast<unsigned char>(text[0]), 2, out);
      }
      text.remove_prefix(1);
      continue;
    }
    char32_t c = decode(text.substr(0, n));
    if (c == '"' || c == '\\') {
      out.push_back('\\');
      out.push_back(static_cast<char>(c));
    } else if (c == '\n') {
      out += "\\n";
    } else if (c == '\t') {
      out += "\\t";
    } else if (c == '\r') {
      out += "\\r";
    } else if (is_unprintable(c)) {
      out += "\\u";
      append_hex(c, 4, out);
    } else {
      out.append(text.substr(0, n));
    }
    text.remove_prefix(n);
  }
  if (cut) out += "… (" + std::to_string(total) + " bytes)";
}

bool is_plain(std::string_view text) {
  if (text.empty() || text.size() > kMaxValueBytes) return false;
  for (unsigned char c : text)
    if (c <= 0x20 || c >= 0x7F || c == '"' || c == '=' || c == '\\') return false;
  return true;
}

void append_text(std::string_view text, bool json, std::string& out) {
  if (!json && is_plain(text)) {
    out.append(text);
    return;
  }
  out.push_back('"');
  append_escaped(text, json, out);
  out.push_back('"');
}

template <class Number>
void append_plain_number(Number number, std::string& out) {
  char text[32];
  auto [end, error] = std::to_chars(text, text + sizeof text, number);
  CHECK(error == std::errc());
  out.append(text, end);
}

void append_value(const LogField::Value& value, bool json, std::string& out) {
  std::visit(
      [&](const auto& v) {
        using T = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<T, std::string_view>) {
          append_text(v, json, out);
        } else if constexpr (std::is_same_v<T, bool>) {
          out += v ? "true" : "false";
        } else if constexpr (std::is_same_v<T, double>) {
          if (!std::isfinite(v)) {
            append_text(std::isnan(v) ? "nan" : v > 0 ? "inf" : "-inf", json, out);  // no JSON number says these
          } else {
            append_plain_number(v, out);
          }
        } else {
          append_plain_number(v, out);
        }
      },
      value);
}

// Field and event names: the caller's constants, but a line must hold whatever they are.
void append_name(std::string_view name, bool dots, std::string& out) {
  if (name.empty()) out.push_back('_');
  for (char c : name.substr(0, 64)) {
    bool fine =
        (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || (dots && (c == '.' || c == '-'));
    out.push_back(fine ? c : '_');
  }
}

bool is_reserved(std::string_view name) { return name == "ts" || name == "level" || name == "event"; }

void append_field(const LogField& field, bool json, std::string& out) {
  out += json ? ",\"" : " ";
  if (json && is_reserved(field.name())) out.push_back('_');  // a reader must not take it for the line's own
  append_name(field.name(), false, out);
  out += json ? "\":" : "=";
  append_value(field.value(), json, out);
}

std::string format_with_runbook(WallTime at, LogLevel level, std::string_view event, std::string_view runbook, LogFields fields,
                                bool json) {
  std::string out;
  out.reserve(160);
  if (json) {
    out += "{\"ts\":\"";
    out += format_rfc3339_ms(at.value);
    out += "\",\"level\":\"";
    out += log_level_name(level);
    out += "\",\"event\":\"";
    append_name(event, true, out);
    out.push_back('"');
  } else {
    out += format_rfc3339_ms(at.value);
    out.push_back(' ');
    out += log_level_name(level);
    out.push_back(' ');
    append_name(event, true, out);
  }
  for (const LogField& field : fields) append_field(field, json, out);
  if (!runbook.empty()) {
    std::string page = "runbooks/" + std::string(runbook) + ".md";
    append_field(LogField("runbook", page), json, out);
  }
  if (json) out.push_back('}');
  return out;
}

class FunctionSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  explicit FunctionSink(std::function<void(LogLevel, std::string_view)> f) : f_(std::move(f)) {}

 protected:
  void sink_it_(const spdlog::details::log_msg& message) override {
    LogLevel level = message.level >= spdlog::level::err    ? LogLevel::kError
                     : message.level >= spdlog::level::warn ? LogLevel::kWarning
                     : message.level >= spdlog::level::info ? LogLevel::kInfo
                                                            : LogLevel::kDebug;
    f_(level, std::string_view(message.payload.data(), message.payload.size()));
  }
  void flush_() override {}

 private:
  std::function<void(LogLevel, std::string_view)> f_;
};

spdlog::level::level_enum spdlog_level(LogLevel level) {
  static constexpr spdlog::level::level_enum kLevels[] = {spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                                                          spdlog::level::err};
  return kLevels[static_cast<size_t>(level)];
}

struct Logging {
  std::shared_ptr<spdlog::logger> logger;
  bool json = false;
};

std::shared_ptr<const Logging> make_logging(spdlog::sink_ptr sink, LogLevel level, bool json) {
  auto logger = std::make_shared<spdlog::logger>("assay", std::move(sink));
  logger->set_pattern("%v");  // the line is complete; the library only carries it
  logger->set_level(spdlog_level(level));
  logger->flush_on(spdlog::level::debug);  // what was logged before a kill -9 is what one looks for after it
  return std::make_shared<const Logging>(Logging{std::move(logger), json});
}

std::mutex current_mutex;

std::shared_ptr<const Logging>& current_slot() {
  static std::shared_ptr<const Logging> slot =
      make_logging(std::make_shared<spdlog::sinks::stderr_sink_mt>(), LogLevel::kInfo, false);
  return slot;
}

std::atomic<uint64_t> error_count{0};

void write(LogLevel level, std::string_view event, std::string_view runbook, LogFields fields) {
  std::shared_ptr<const Logging> logging;
  {
    std::lock_guard lock(current_mutex);
    logging = current_slot();
  }
  if (level == LogLevel::kError) error_count.fetch_add(1, std::memory_order_relaxed);
  if (!logging->logger->should_log(spdlog_level(level))) return;
  auto now = std::chrono::duration_cast<std::chrono::milliseconds>(std::chrono::system_clock::now().time_since_epoch()).count();
  std::string line = format_with_runbook(WallTime(now), level, event, runbook, fields, logging->json);
  logging->logger->log(spdlog_level(level), spdlog::string_view_t(line.data(), line.size()));
}

}  // namespace

std::string_view log_level_name(LogLevel level) {
  static constexpr std::string_view kNames[] = {"debug", "info", "warning", "error"};
  return kNames[static_cast<size_t>(level)];
}

Result<void> configure_logging(LogOptions options) {
  spdlog::sink_ptr sink;
  if (options.sink) {
    sink = std::make_shared<FunctionSink>(std::move(options.sink));
  } else if (!options.file.empty()) {
    try {
      sink = std::make_shared<spdlog::sinks::basic_file_sink_mt>(options.file);
    } catch (const std::exception& e) {
      return Error{Errc::kUsage, "open log file " + options.file + ": " + e.what()};
    }
  } else {
    sink = std::make_shared<spdlog::sinks::stderr_sink_mt>();
  }
  auto logging = make_logging(std::move(sink), options.level, options.json);
  std::lock_guard lock(current_mutex);
  current_slot() = std::move(logging);
  return {};
}

void log_debug(std::string_view event, LogFields fields) { write(LogLevel::kDebug, event, {}, fields); }
void log_info(std::string_view event, LogFields fields) { write(LogLevel::kInfo, event, {}, fields); }
void log_warning(std::string_view event, LogFields fields) { write(LogLevel::kWarning, event, {}, fields); }
void log_error(std::string_view event, std::string_view runbook, LogFields fields) {
  write(LogLevel::kError, event, runbook, fields);
}

uint64_t errors_logged() { return error_count.load(std::memory_order_relaxed); }

std::string format_log_line(WallTime at, LogLevel level, std::string_view event, LogFields fields, bool json) {
  return format_with_runbook(at, level, event, {}, fields, json);
}

}  // namespace assay::streams
