// Personal data beside a chain that is kept in files.
#include <algorithm>
#include <chrono>
#include <filesystem>
#include <thread>

#include "streams/archive_files.h"
#include "streams/personal_store.h"

namespace assay::streams {
namespace {

namespace fs = std::filesystem;
using processors::PersonalRow;

constexpr const char* kFile = "rows.jsonl";

class PersonalFiles : public PersonalStore {
 public:
  explicit PersonalFiles(std::string dir) : dir_(std::move(dir)) {}

  std::string describe() const override { return dir_; }

  Result<void> add(const std::vector<PersonalRow>& added) override {
    TRY_ASSIGN(const DirectoryLock lock, take());
    TRY_ASSIGN(std::vector<PersonalRow> all, rows());
    all.insert(all.end(), added.begin(), added.end());
    return write(all);
  }

  Result<std::vector<PersonalKey>> keys() override {
    TRY_ASSIGN(std::vector<PersonalRow> all, rows());
    std::vector<PersonalKey> out;
    for (PersonalRow& row : all) out.push_back({std::move(row.reference), std::move(row.event_id), std::move(row.subject)});
    return out;
  }

  Result<std::vector<PersonalRow>> rows() override {
    std::vector<PersonalRow> out;
    Result<MappedFile> file = MappedFile::open(dir_ + "/" + kFile);
    if (!file && file.error().code == Errc::kNotFound) return out;
    if (!file) return file.error();
    for (std::string_view rest = file->bytes(); !rest.empty();) {
      const size_t end = rest.find('\n');
      Result<PersonalRow> row = PersonalRow::parse(rest.substr(0, end));
      if (!row) return Error{row.error().code, dir_ + "/" + kFile + ": " + row.error().message};
      out.push_back(std::move(*row));
      rest.remove_prefix(end == rest.npos ? rest.size() : end + 1);
    }
    std::ranges::sort(out, {}, &PersonalRow::reference);
    return out;
  }

  Result<int64_t> erase(const std::set<std::string, std::less<>>& references) override {
    TRY_ASSIGN(const DirectoryLock lock, take());
    TRY_ASSIGN(std::vector<PersonalRow> all, rows());
    const auto erased = std::erase_if(all, [&](const PersonalRow& row) { return references.contains(row.reference); });
    TRY(write(all));
    return static_cast<int64_t>(erased);
  }

 private:
  /// Commands of several people may come at once, each for a moment.
  Result<DirectoryLock> take() {
    for (int tries = 0;; ++tries) {
      Result<DirectoryLock> lock = DirectoryLock::take(dir_);
      if (lock) {
        std::error_code error;
        fs::permissions(dir_, fs::perms::owner_all, error);
        if (error) return Error{Errc::kUnexpected, "keeping others out of " + dir_ + ": " + error.message()};
      }
      if (lock || lock.error().code != Errc::kRefused || tries == 50) return lock;
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
    }
  }

  Result<void> write(const std::vector<PersonalRow>& rows) {
    std::string text;
    for (const PersonalRow& row : rows) text += row.to_line() + "\n";
    return replace_file(dir_, kFile, text, true);
  }

  std::string dir_;
};

}  // namespace

std::unique_ptr<PersonalStore> open_personal_files(const std::string& dir) { return std::make_unique<PersonalFiles>(dir); }

}  // namespace assay::streams
