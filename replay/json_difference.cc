#include "replay/json_difference.h"

#include <algorithm>
#include <set>

#include "schemas/json_parse.h"

namespace assay::replay {
namespace {

constexpr size_t kShown = 200;

std::string shown(const Json* value) {
  if (value == nullptr) return "absent";
  std::string text = canonical(*value);
  if (text.size() <= kShown) return text;
  size_t cut = kShown;
  while (cut > 0 && (static_cast<unsigned char>(text[cut]) & 0xC0) == 0x80) --cut;  // not within a character
  return text.substr(0, cut) + "…";
}

std::string at(const std::string& path, const Json* a, std::string_view a_is, const Json* b, std::string_view b_is) {
  if (a != nullptr && b != nullptr && *a == *b) return {};
  if (a != nullptr && b != nullptr && a->is_object() && b->is_object()) {
    std::set<std::string> names;
    for (const Json* document : {a, b})
      for (const auto& [name, value] : document->as_object()) names.insert(name);
    for (const std::string& name : names)
      if (auto found = at(path.empty() ? name : path + "." + name, a->find(name), a_is, b->find(name), b_is); !found.empty())
        return found;
    return {};  // the same members in another order
  }
  if (a != nullptr && b != nullptr && a->is_array() && b->is_array()) {
    const Json::Array &x = a->as_array(), &y = b->as_array();
    for (size_t n = 0; n < std::max(x.size(), y.size()); ++n)
      if (auto found =
              at(path + "[" + std::to_string(n) + "]", n < x.size() ? &x[n] : nullptr, a_is, n < y.size() ? &y[n] : nullptr, b_is);
          !found.empty())
        return found;
    return {};
  }
  return (path.empty() ? "it" : path) + " is " + shown(a) + " " + std::string(a_is) + " and " + shown(b) + " " + std::string(b_is);
}

}  // namespace

std::string json_difference(const Json& a, std::string_view a_is, const Json& b, std::string_view b_is) {
  return at("", &a, a_is, &b, b_is);
}

std::string text_difference(std::string_view a, std::string_view a_is, std::string_view b, std::string_view b_is) {
  if (a == b) return {};
  auto left = parse_json(a), right = parse_json(b);
  if (left && right)
    if (auto found = json_difference(*left, a_is, *right, b_is); !found.empty()) return found;
  const size_t same = static_cast<size_t>(std::ranges::mismatch(a, b).in1 - a.begin());
  return "it has " + std::to_string(a.size()) + " bytes " + std::string(a_is) + " and " + std::to_string(b.size()) + " " +
         std::string(b_is) + ", and they part at byte " + std::to_string(same);
}

}  // namespace assay::replay
