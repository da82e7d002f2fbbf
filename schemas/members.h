// Reads the members of a configuration table into fields, and names everything that is wrong with them.
#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "schemas/config.h"
#include "schemas/json.h"

namespace assay::schemas {

constexpr int64_t kMaxCount = int64_t{1} << 53;  // what a JSON number holds exactly

std::string number_text(double value);
std::string quoted(std::string_view text);  // at most 200 bytes of it
std::string_view type_name(const Json& value);

/// Takes the members of one object into fields (absent: the field stays) and notes what is wrong with each.
/// Requires: object and problems outlive it; names are literals.
class Members {
 public:
  Members(const Json& object, std::string path, std::vector<ConfigProblem>& problems);

  bool has(std::string_view name) const { return object_.find(name) != nullptr; }
  /// The member or nullptr; the name is known from here on.
  const Json* take(std::string_view name);

  void text(std::string_view name, std::string& field);
  void number(std::string_view name, double& field);
  void count(std::string_view name, int64_t& field);
  void flag(std::string_view name, bool& field);
  void duration(std::string_view name, int64_t& field_ms);
  /// A text that is one of the choices.
  void choice(std::string_view name, std::string& field, std::vector<std::string_view> choices);
  /// Calls `element` for each table of the array.
  void tables(std::string_view name, const std::function<void(Members&)>& element);
  /// Calls `section` for the table of that name, if there is one.
  void table(std::string_view name, const std::function<void(Members&)>& section);

  void count_of(std::string_view name, const Json& value, int64_t& field);
  void refuse(std::string_view name, std::string reason);
  void mistyped(std::string_view name, std::string_view wanted, const Json& value);
  std::string key(std::string_view name) const;
  std::vector<ConfigProblem>& problems() { return problems_; }

  /// Refuses the members that nobody took, each with the nearest name that somebody did.
  void done();

 private:
  const Json& object_;
  std::string path_;
  std::vector<ConfigProblem>& problems_;
  std::vector<std::string_view> known_;
};

}  // namespace assay::schemas
