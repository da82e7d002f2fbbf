// Objects that are written once: a directory or a bucket, as archives need them.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "streams/base.h"

namespace assay::streams {

/// How the name of a file begins that is not whole yet: what a killed process leaves of an object in a directory.
inline constexpr std::string_view kUnnamedObject = ".tmp-";

/// Names are paths with '/' between the parts. Thread-safe.
class ObjectStore {
 public:
  virtual ~ObjectStore() = default;
  virtual std::string describe() const = 0;  // "directory /var/lib/assay/archive" | "s3://bucket/prefix"

  /// Stores the object, whole and durable, unless there is one of that name already; says whether it did.
  /// Errors: kUnreachable (trying again may help), kRefused (not allowed).
  virtual Result<bool> put_new(const std::string& name, std::string_view content) = 0;
  /// Errors: kNotFound, kUnreachable.
  virtual Result<std::string> get(const std::string& name) = 0;
  /// Bytes [from, from + size). Errors: kNotFound, kCorrupt (the object is shorter), kUnreachable.
  virtual Result<std::string> get_range(const std::string& name, uint64_t from, uint64_t size) = 0;
  /// Names below the prefix, sorted; none is no error. Errors: kUnreachable.
  virtual Result<std::vector<std::string>> list(const std::string& prefix) = 0;
};

/// Objects as files below a directory, which is made when it is not there and `create` is set. Errors: kNotFound, kUnreachable (no
/// room, for instance), kRefused, kUnexpected.
Result<std::unique_ptr<ObjectStore>> open_directory_objects(const std::string& dir, bool create);

}  // namespace assay::streams
