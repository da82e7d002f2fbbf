// Where plaintexts and salts lie beside the chain, and the only place from which something of the evidence can be deleted.
#pragma once

#include <memory>
#include <set>
#include <string>
#include <vector>

#include "processors/personal.h"

namespace assay::streams {

/// A row as those see it who may erase it, but not read it.
struct PersonalKey {
  std::string reference, event_id, subject;
};

class PersonalStore {
 public:
  virtual ~PersonalStore() = default;
  virtual std::string describe() const = 0;

  /// Adds rows, all or none, durably. Errors: kUnreachable, kRefused (the role may not).
  virtual Result<void> add(const std::vector<processors::PersonalRow>& rows) = 0;
  /// All there are, without what they say. Errors: as add().
  virtual Result<std::vector<PersonalKey>> keys() = 0;
  /// All there are, in the order of their references, whole: for the auditor. Errors: as add().
  virtual Result<std::vector<processors::PersonalRow>> rows() = 0;
  /// Deletes rows for good; says how many there were. Errors: kRefused (the role may not, or a legal hold covers one),
  /// kUnreachable.
  virtual Result<int64_t> erase(const std::set<std::string, std::less<>>& references) = 0;
};

/// The table audit_personal of the chain's database; connects lazily.
std::unique_ptr<PersonalStore> open_postgres_personal(const std::string& url);

/// DIR/rows.jsonl, which nobody but its owner can read: where there is no database there are no roles.
std::unique_ptr<PersonalStore> open_personal_files(const std::string& dir);

}  // namespace assay::streams
