// The vocabulary of failure: Result<T> for operations that can fail, CHECK for a programmer's error.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <variant>

namespace assay::schemas {

/// What a caller can react to; an enumerator exists only if some caller does something different on it.
enum class Errc {
  kUnexpected,   // exit 1
  kUsage,        // exit 2: bad flags or configuration
  kUnhealthy,    // exit 3
  kTampered,     // exit 4
  kRefused,      // exit 5: locked directory, production guard, fenced on start
  kUnreachable,  // exit 6: broker, database or process cannot be had
  kParity,       // exit 7
  kIncomplete,   // exit 8: evidence or a partition is missing
  kFenced,       // a newer owner took over: stop, never retry
  kAborted,      // the transaction did not happen: drop what is staged, seek back, fold again
  kAmbiguous,    // the transaction may or may not have happened: open a new writer before looking
  kCorrupt,      // stored bytes fail their checksum or cannot be decoded
  kTooLarge,     // the log does not take a record of this size
  kNotFound,     // topic, file or row does not exist
  kOutOfRange,   // an offset that retention took or that does not exist yet
};

/// Exit code of a process that ends with this error (0 fine … 8 evidence incomplete; README.md names them).
int exit_code(Errc code);

/// What was attempted, on what, and what came back.
struct Error {
  Errc code = Errc::kUnexpected;
  std::string message;
};

/// A value or an Error; member names are std::expected's.
template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : storage_(std::in_place_index<0>, std::move(value)) {}
  Result(Error error) : storage_(std::in_place_index<1>, std::move(error)) {}

  bool has_value() const { return storage_.index() == 0; }
  explicit operator bool() const { return has_value(); }
  T& value() & { return std::get<0>(storage_); }
  const T& value() const& { return std::get<0>(storage_); }
  T&& value() && { return std::get<0>(std::move(storage_)); }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }
  Error& error() { return std::get<1>(storage_); }
  const Error& error() const { return std::get<1>(storage_); }
  T value_or(T fallback) const { return has_value() ? value() : std::move(fallback); }

 private:
  std::variant<T, Error> storage_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), failed_(true) {}

  bool has_value() const { return !failed_; }
  explicit operator bool() const { return !failed_; }
  Error& error() { return error_; }
  const Error& error() const { return error_; }

 private:
  Error error_;
  bool failed_ = false;
};

[[noreturn]] inline void check_failed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "CHECK failed: %s at %s:%d\n", condition, file, line);
  std::abort();
}

}  // namespace assay::schemas

/// Aborts when a programmer's assumption does not hold; stays on in every build.
#define CHECK(condition)                                                              \
  do {                                                                                \
    if (!(condition)) ::assay::schemas::check_failed(#condition, __FILE__, __LINE__); \
  } while (false)

#define ASSAY_CONCAT_INNER(a, b) a##b
#define ASSAY_CONCAT(a, b) ASSAY_CONCAT_INNER(a, b)

/// TRY(expr): returns the error of a Result<void>; TRY_ASSIGN(auto x, expr): binds the value or returns the error.
#define TRY(expression)                                                                                \
  do {                                                                                                 \
    if (auto try_result = (expression); !try_result.has_value()) return std::move(try_result.error()); \
  } while (false)
#define TRY_ASSIGN_INNER(result, declaration, expression)    \
  auto result = (expression);                                \
  if (!result.has_value()) return std::move(result.error()); \
  declaration = std::move(result).value()
#define TRY_ASSIGN(declaration, expression) TRY_ASSIGN_INNER(ASSAY_CONCAT(try_result_, __LINE__), declaration, expression)
