// Whose word makes a checkpoint count: logs, witnesses and a quorum of them. Source: C2SP tlog-policy.
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "streams/note.h"

namespace assay::streams {

/// What a policy says of one checkpoint.
struct PolicyVerdict {
  std::string fault;                   // why it does not count; empty: it does
  bool tampered = false;               // a signature of a known key is broken, or one of an unknown key stands where none may
  std::vector<std::string> witnesses;  // names of those that cosigned it
  int64_t witnessed_s = 0;             // the latest of their instants; 0: none
};

class NotePolicy {
 public:
  struct Log {
    NoteKey key;
    std::string url;
  };
  struct Witness {
    std::string name;
    NoteKey key;
    std::string url;
  };

  /// Errors: kCorrupt with the line.
  static Result<NotePolicy> parse(std::string_view text);
  /// A policy by which all of the witnesses must cosign; it names no log yet.
  static NotePolicy all_of(const std::vector<Witness>& witnesses);
  /// The same policy for that log besides.
  NotePolicy with_log(const NoteKey& log) const;

  std::string to_text() const;
  const std::vector<Log>& logs() const { return logs_; }
  const std::vector<Witness>& witnesses() const { return witnesses_; }
  const std::string& quorum() const { return quorum_; }

  /// `only_known`: every signature must be of a key that the policy names.
  PolicyVerdict judge(const Note& note, bool only_known = false) const;

 private:
  struct Group {
    std::string name;
    size_t needed = 0;
    std::vector<std::string> members;
  };
  bool satisfied(const std::string& name, const std::map<std::string, bool, std::less<>>& cosigned) const;

  std::vector<Log> logs_;
  std::vector<Witness> witnesses_;
  std::vector<Group> groups_;
  std::string quorum_ = "none";
};

}  // namespace assay::streams
