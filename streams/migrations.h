// The database's migrations, in order, as they stand in schemas/sql.
#pragma once

#include <span>
#include <string_view>

namespace assay::streams {

struct Migration {
  std::string_view name;  // "0001_audit"; the number is its version, from 1 without holes
  std::string_view sql;
};

std::span<const Migration> migrations();

}  // namespace assay::streams
