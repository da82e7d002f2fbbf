#include "schemas/nearest.h"

#include <algorithm>
#include <vector>

namespace assay::schemas {
namespace {

// ASCII only, so that no locale has a say.
char lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

constexpr size_t kMaxWordBytes = 256;  // longer words are nobody's typing error; the table stays small

}  // namespace

size_t edit_distance(std::string_view a, std::string_view b) {
  a = a.substr(0, kMaxWordBytes);
  b = b.substr(0, kMaxWordBytes);
  std::vector<size_t> before(b.size() + 1), above(b.size() + 1), row(b.size() + 1);
  for (size_t j = 0; j <= b.size(); ++j) row[j] = j;
  for (size_t i = 1; i <= a.size(); ++i) {
    std::swap(before, above);
    std::swap(above, row);
    row[0] = i;
    for (size_t j = 1; j <= b.size(); ++j) {
      const bool same = lower(a[i - 1]) == lower(b[j - 1]);
      row[j] = std::min({above[j] + 1, row[j - 1] + 1, above[j - 1] + (same ? 0 : 1)});
      if (i > 1 && j > 1 && lower(a[i - 1]) == lower(b[j - 2]) && lower(a[i - 2]) == lower(b[j - 1]))
        row[j] = std::min(row[j], before[j - 2] + 1);
    }
  }
  return row[b.size()];
}

std::string_view nearest_word(std::string_view word, std::span<const std::string_view> known) {
  std::string_view best;
  size_t fewest = 0;
  for (std::string_view candidate : known) {
    const size_t edits = edit_distance(word, candidate);
    if (best.empty() || edits < fewest) {
      best = candidate;
      fewest = edits;
    }
  }
  // More than half of the letters changed is another word, not a slip.
  return 2 * fewest <= std::max(word.size(), best.size()) ? best : std::string_view();
}

std::string nearest_hint(std::string_view word, std::span<const std::string_view> known) {
  if (std::string_view near = nearest_word(word, known); !near.empty()) return "; did you mean \"" + std::string(near) + "\"?";
  std::string hint = "; known:";
  const char* comma = " ";
  for (std::string_view name : known) {
    hint += comma;
    hint += name;
    comma = ", ";
  }
  return hint;
}

}  // namespace assay::schemas
