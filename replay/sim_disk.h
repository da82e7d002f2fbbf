// The disk of a simulated machine: stores whose last batches a power loss takes, whose bytes rot, and which may be full or slow.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "replay/sim_runtime.h"
#include "state/store.h"

namespace assay::replay {

class SimDisk {
 public:
  explicit SimDisk(uint64_t seed) : dice_(seed) {}

  /// Opens (or creates) the store of a task. `wait` takes as long as a write does. Errors: kRefused while another holder has it
  /// open.
  Result<std::shared_ptr<state::Store>> open(const std::string& task, std::function<void()> wait);

  /// Batches that were not synced are lost from some place on, as a log with a torn tail is read. Returns how many.
  /// Requires: nothing is open.
  size_t lose_power();
  /// Removes the store of a task, if there is one. Requires: it is not open.
  void remove(const std::string& task) { files_.erase(task); }
  std::vector<std::string> tasks() const;
  /// Spoils a row. Its checksum will tell whoever reads it. Returns false when there is none.
  bool flip_bit();
  /// For a referee, who looks at what was written and not at what can be read.
  void unspoil() {
    for (auto& [task, file] : files_) file->spoilt.clear();
  }
  bool full = false;

 private:
  friend class SimStore;
  using Table = std::map<std::string, std::string, std::less<>>;
  using Keys = std::set<std::string, std::less<>>;
  struct Copy {
    std::string note;
    Table rows;
    Keys spoilt;
  };
  struct File {
    Table rows;
    Table synced;
    std::vector<state::WriteBatch> unsynced;
    Keys spoilt;
    std::map<int64_t, Copy> copies;
    bool open = false;
  };

  SimDice dice_;
  std::map<std::string, std::shared_ptr<File>> files_;
};

}  // namespace assay::replay
