// "Did you mean": the known word that a mistyped one is closest to.
#pragma once

#include <span>
#include <string>
#include <string_view>

namespace assay::schemas {

/// Edits (insert, erase, replace, swap of neighbours) between two words, case ignored. Cost: |a| x |b|.
size_t edit_distance(std::string_view a, std::string_view b);

/// The known word with the fewest edits to `word` (the first of equals), or empty when none shares enough with it to be meant.
std::string_view nearest_word(std::string_view word, std::span<const std::string_view> known);

/// "; did you mean \"grace\"?" or, when nothing is near, "; known: a, b, c".
std::string nearest_hint(std::string_view word, std::span<const std::string_view> known);

}  // namespace assay::schemas
