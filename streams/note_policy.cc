#include "streams/note_policy.h"

#include <algorithm>
#include <charconv>
#include <optional>
#include <set>

#include "schemas/utf8.h"

namespace assay::streams {
namespace {

constexpr size_t kLinesMax = 1000;
constexpr std::string_view kNone = "none";

std::vector<std::string> words_of(std::string_view line) {
  std::vector<std::string> words;
  while (true) {
    const size_t begin = line.find_first_not_of(" \t");
    if (begin == line.npos) return words;
    const size_t end = std::min(line.find_first_of(" \t", begin), line.size());
    words.emplace_back(line.substr(begin, end - begin));
    line.remove_prefix(end);
  }
}

}  // namespace

Result<NotePolicy> NotePolicy::parse(std::string_view text) {
  NotePolicy policy;
  std::set<std::string, std::less<>> names{std::string(kNone)}, used;
  bool has_quorum = false;
  size_t number = 0;
  std::string_view line;
  auto fail = [&](const std::string& what) {
    return Error{Errc::kCorrupt,
                 "reading a policy, line " + std::to_string(number) + " (" + schemas::printable(line, 60) + "): " + what};
  };
  while (!text.empty()) {
    const size_t end = text.find('\n');
    line = text.substr(0, end);
    ++number;
    if (end == text.npos) return fail("it does not end in a newline");
    text.remove_prefix(end + 1);
    if (number > kLinesMax) return fail("there are too many lines");
    for (char c : line)
      if ((static_cast<unsigned char>(c) < 0x20 && c != '\t') || c == 0x7f) return fail("it holds a control character");
    const std::vector<std::string> words = words_of(line);
    if (words.empty() || words[0].starts_with('#')) continue;
    if (words[0] == "log" && (words.size() == 2 || words.size() == 3)) {
      TRY_ASSIGN(NoteKey key, NoteKey::parse(words[1]));
      if (key.type != NoteKeyType::kLog) return fail("a log's key is of type 1");
      if (std::ranges::any_of(policy.logs_, [&](const Log& log) { return log.key.public_key == key.public_key; }))
        return fail("the key stands twice");
      policy.logs_.push_back({std::move(key), words.size() == 3 ? words[2] : ""});
    } else if (words[0] == "witness" && (words.size() == 3 || words.size() == 4)) {
      TRY_ASSIGN(NoteKey key, NoteKey::parse(words[2]));
      if (key.type != NoteKeyType::kCosignature) return fail("a witness's key is of type 4");
      if (!names.insert(words[1]).second) return fail("the name stands twice");
      if (std::ranges::any_of(policy.witnesses_, [&](const Witness& w) { return w.key.public_key == key.public_key; }))
        return fail("the key stands twice");
      policy.witnesses_.push_back({words[1], std::move(key), words.size() == 4 ? words[3] : ""});
    } else if (words[0] == "group" && words.size() >= 4) {
      Group group{words[1], 0, {words.begin() + 3, words.end()}};
      for (const std::string& member : group.members)
        if (member == kNone || !names.contains(member) || !used.insert(member).second)
          return fail("\"" + member + "\" is no witness or group above that is in no other group");
      auto [stop, error] = std::from_chars(words[2].data(), words[2].data() + words[2].size(), group.needed);
      if (words[2] == "all")
        group.needed = group.members.size();
      else if (words[2] == "any")
        group.needed = 1;
      else if (error != std::errc() || stop != words[2].data() + words[2].size())
        return fail("neither \"all\" nor \"any\" nor a number");
      if (group.needed < 1 || group.needed > group.members.size()) return fail("a group asks for 1 to all of its members");
      if (!names.insert(group.name).second) return fail("the name stands twice");
      policy.groups_.push_back(std::move(group));
    } else if (words[0] == "quorum" && words.size() == 2) {
      if (has_quorum) return fail("there is a quorum already");
      if (!names.contains(words[1])) return fail("no witness or group above has that name");
      has_quorum = true;
      policy.quorum_ = words[1];
    } else {
      return fail("neither log, witness, group nor quorum");
    }
  }
  if (!has_quorum) return fail("there is no quorum");
  return policy;
}

NotePolicy NotePolicy::all_of(const std::vector<Witness>& witnesses) {
  NotePolicy policy;
  policy.witnesses_ = witnesses;
  if (witnesses.empty()) return policy;
  Group all{"all-witnesses", witnesses.size(), {}};
  for (const Witness& witness : witnesses) all.members.push_back(witness.name);
  policy.quorum_ = all.name;
  policy.groups_.push_back(std::move(all));
  return policy;
}

NotePolicy NotePolicy::with_log(const NoteKey& log) const {
  NotePolicy policy = *this;
  if (std::ranges::none_of(logs_, [&](const Log& known) { return known.key == log; })) policy.logs_.push_back({log, ""});
  return policy;
}

std::string NotePolicy::to_text() const {
  auto behind = [](const std::string& url) { return url.empty() ? "\n" : " " + url + "\n"; };
  std::string out;
  for (const Log& log : logs_) out += "log " + log.key.to_text() + behind(log.url);
  for (const Witness& witness : witnesses_) out += "witness " + witness.name + " " + witness.key.to_text() + behind(witness.url);
  for (const Group& group : groups_) {
    out += "group " + group.name + " " + std::to_string(group.needed);
    for (const std::string& member : group.members) out += " " + member;
    out += "\n";
  }
  return out + "quorum " + quorum_ + "\n";
}

bool NotePolicy::satisfied(const std::string& name, const std::map<std::string, bool, std::less<>>& cosigned) const {
  if (name == kNone) return true;
  if (auto witness = cosigned.find(name); witness != cosigned.end()) return witness->second;
  for (const Group& group : groups_)
    if (group.name == name) {
      size_t count = 0;
      for (const std::string& member : group.members) count += satisfied(member, cosigned) ? 1 : 0;
      return count >= group.needed;
    }
  return false;
}

PolicyVerdict NotePolicy::judge(const Note& note, bool only_known) const {
  PolicyVerdict verdict;
  auto broken = [&](const std::string& name) {
    verdict.fault = "the signature of " + name + " is not that of the text";
    verdict.tampered = true;
    return verdict;
  };
  const std::string origin = note.text.substr(0, note.text.find('\n'));
  size_t known = 0;
  bool logged = false;
  for (const Log& log : logs_) {
    if (log.key.name != origin) continue;
    const Signed is = signed_by(note, log.key);
    if (is == Signed::kBroken) return broken(log.key.name);
    known += is == Signed::kHolds ? 1 : 0;
    logged = logged || is == Signed::kHolds;
  }
  std::map<std::string, bool, std::less<>> cosigned;
  for (const Witness& witness : witnesses_) {
    int64_t time_s = 0;
    const Signed is = signed_by(note, witness.key, &time_s);
    if (is == Signed::kBroken) return broken(witness.key.name);
    cosigned[witness.name] = is == Signed::kHolds;
    if (is != Signed::kHolds) continue;
    ++known;
    verdict.witnesses.push_back(witness.name);
    verdict.witnessed_s = std::max(verdict.witnessed_s, time_s);
  }
  if (!logged) {
    verdict.fault = "no log that the policy names has signed it";
    verdict.tampered = true;
  } else if (only_known && known != note.signatures.size()) {
    verdict.fault = "it bears a signature of a key that the policy does not name";
    verdict.tampered = true;
  } else if (!satisfied(quorum_, cosigned)) {
    verdict.fault = "too few witnesses have cosigned it";
  }
  return verdict;
}

}  // namespace assay::streams
