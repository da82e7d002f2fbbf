#include "schemas/members.h"

#include <algorithm>
#include <cmath>

#include "schemas/nearest.h"
#include "schemas/time.h"

namespace assay::schemas {

std::string number_text(double value) {
  if (!std::isfinite(value)) return "not finite";
  std::string out;
  append_number(value, out);
  return out;
}

std::string quoted(std::string_view text) { return "\"" + std::string(text.substr(0, 200)) + "\""; }

std::string_view type_name(const Json& value) {
  if (value.is_null()) return "null";
  if (value.is_bool()) return "a boolean";
  if (value.is_number()) return "a number";
  if (value.is_string()) return "a string";
  return value.is_array() ? "an array" : "a table";
}

Members::Members(const Json& object, std::string path, std::vector<ConfigProblem>& problems)
    : object_(object), path_(std::move(path)), problems_(problems) {
  if (!object.is_object()) problems_.push_back({path_, "must be a table, is " + std::string(type_name(object))});
}

const Json* Members::take(std::string_view name) {
  known_.push_back(name);
  return object_.find(name);
}

std::string Members::key(std::string_view name) const {
  return path_.empty() ? std::string(name) : path_ + "." + std::string(name);
}

void Members::refuse(std::string_view name, std::string reason) { problems_.push_back({key(name), std::move(reason)}); }

void Members::mistyped(std::string_view name, std::string_view wanted, const Json& value) {
  refuse(name, "must be " + std::string(wanted) + ", is " + std::string(type_name(value)));
}

void Members::text(std::string_view name, std::string& field) {
  const Json* value = take(name);
  if (value == nullptr) return;
  if (!value->is_string()) return mistyped(name, "a string", *value);
  field = value->as_string();
}

void Members::number(std::string_view name, double& field) {
  const Json* value = take(name);
  if (value == nullptr) return;
  if (!value->is_number()) return mistyped(name, "a number", *value);
  field = value->as_number();
}

void Members::count(std::string_view name, int64_t& field) {
  if (const Json* value = take(name); value != nullptr) count_of(name, *value, field);
}

void Members::count_of(std::string_view name, const Json& value, int64_t& field) {
  if (!value.is_number()) return mistyped(name, "a whole number", value);
  const double number = value.as_number();
  if (number != std::floor(number) || std::abs(number) > static_cast<double>(kMaxCount))
    return refuse(name, "must be a whole number within 2^53, is " + number_text(number));
  field = static_cast<int64_t>(number);
}

void Members::flag(std::string_view name, bool& field) {
  const Json* value = take(name);
  if (value == nullptr) return;
  if (!value->is_bool()) return mistyped(name, "true or false", *value);
  field = value->as_bool();
}

void Members::duration(std::string_view name, int64_t& field_ms) {
  const Json* value = take(name);
  if (value == nullptr) return;
  if (!value->is_string()) return mistyped(name, "a duration in quotes, such as \"45m\"", *value);
  if (auto ms = parse_duration_ms(value->as_string())) {
    field_ms = *ms;
  } else {
    refuse(name, "must be a count and one unit of ms, s, m, h or d, such as \"45m\"; is " + quoted(value->as_string()));
  }
}

void Members::choice(std::string_view name, std::string& field, std::vector<std::string_view> choices) {
  std::string chosen = field;
  text(name, chosen);
  if (std::find(choices.begin(), choices.end(), chosen) != choices.end()) {
    field = chosen;
    return;
  }
  std::string wanted;
  for (size_t i = 0; i < choices.size(); ++i)
    wanted += (i == 0 ? "" : i + 1 == choices.size() ? " or " : ", ") + quoted(choices[i]);
  refuse(name, "must be " + wanted + ", is " + quoted(chosen));
}

void Members::tables(std::string_view name, const std::function<void(Members&)>& element) {
  const Json* value = take(name);
  if (value == nullptr) return;
  if (!value->is_array()) return mistyped(name, "an array of tables ([[" + key(name) + "]])", *value);
  for (size_t i = 0; i < value->as_array().size(); ++i) {
    Members members(value->as_array()[i], key(name) + "[" + std::to_string(i) + "]", problems_);
    element(members);
    members.done();
  }
}

void Members::table(std::string_view name, const std::function<void(Members&)>& section) {
  const Json* value = take(name);
  if (value == nullptr) return;
  Members members(*value, key(name), problems_);
  section(members);
  members.done();
}

void Members::done() {
  if (!object_.is_object()) return;
  for (const auto& [name, value] : object_.as_object())
    if (std::find(known_.begin(), known_.end(), name) == known_.end())
      refuse(name, "there is no such key" + nearest_hint(name, known_));
}

}  // namespace assay::schemas
