// Recognises canonical JSON (RFC 8785) in one walk over the text, without building a document.
#pragma once

#include <cstddef>
#include <string_view>
#include <vector>

namespace assay::schemas {

/// A member of an object as it stands in the text: the name without its quotes, still escaped, and the whole value.
struct RawMember {
  std::string_view name, value;
};

/// The end of the canonical value that starts at `from`; npos: there is none, or it needs a closer look (parse_json and
/// canonical() give the last word on text that is refused here). With `members`, those of the value, if it is an object.
/// What is accepted here equals canonical(parse_json(it)). `depth`: of the values that the text around it has opened.  Pure.
size_t canonical_end(std::string_view text, size_t from, std::vector<RawMember>* members = nullptr, int depth = 0);

/// The end of the canonical string literal that starts at `from`; npos: as above.
size_t canonical_string_end(std::string_view text, size_t from);

}  // namespace assay::schemas
