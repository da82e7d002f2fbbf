// Results for people and for programs: rows as a table, one JSON document or CSV.
#pragma once

#include <ostream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "tools/base.h"

namespace assay::tools {

enum class Format { kTable, kJson, kCsv };

/// Rows (objects whose members stand in the order of the columns). JSON: one array with all members. Table and CSV: the
/// columns named, or all members of all rows in the order they first appear.
std::string render_rows(std::span<const Json> rows, Format format, std::vector<std::string> columns = {});

/// One object. JSON: one document. Table: a line for each member. CSV: a head and a row.
std::string render_object(const Json& object, Format format);

/// JSON text on one line with members in the order they were set.
std::string ordered(const Json& document);

/// Columns that a terminal gives the text: wide characters two, combining ones none.
size_t display_width(std::string_view utf8);

/// Bytes that need not be UTF-8 or printable as text that is: \xNN for what is not, and the backslash itself.
std::string printable(std::string_view bytes);

}  // namespace assay::tools
