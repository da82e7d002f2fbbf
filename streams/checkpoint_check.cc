#include "streams/checkpoint_check.h"

#include "processors/merkle_proof.h"
#include "streams/archive_files.h"

namespace assay::streams {
namespace {

constexpr size_t kFindingsMax = 20;

Finding finding(std::string place, std::string check, std::string detail, Errc code = Errc::kTampered) {
  return {code, 0, {}, std::move(place), std::move(check), std::move(detail)};
}

std::string word_of(const std::string& name) { return name.starts_with("ids/") ? "index" : "tile"; }

}  // namespace

void CheckpointCheck::add_note(const std::string& place, std::string_view text, const NotePolicy& policy, bool strict) {
  auto refuse = [&](const std::string& check, const std::string& detail, Errc code = Errc::kTampered) {
    findings_.push_back(finding(place, check, detail, code));
  };
  Result<Note> note = Note::parse(text);
  if (!note) return refuse("checkpoint", note.error().message);
  Result<Checkpoint> checkpoint = Checkpoint::parse(note->text);
  if (!checkpoint) return refuse("checkpoint", checkpoint.error().message);
  const PolicyVerdict verdict = policy.judge(*note, strict);
  if (verdict.tampered) return refuse("checkpoint", verdict.fault);
  // A witness that did not answer takes nothing from the log's word; that there is no other chain is then not proven.
  Head head{place, checkpoint->origin, verdict.fault, checkpoint->root, 0, {}, 0};
  if (verdict.fault.empty()) {
    head.witnesses = verdict.witnesses.size();
    head.witnessed_s = verdict.witnessed_s;
    for (const std::string& name : verdict.witnesses) head.names += (head.names.empty() ? "" : ", ") + name;
  }
  heads_.emplace(checkpoint->size, std::move(head));
}

void CheckpointCheck::expect_files(std::string dir, const std::vector<std::string>& names, bool ids) {
  dir_ = std::move(dir);
  files_expected_ = true;
  ids_expected_ = ids;
  for (const std::string& name : names) files_.emplace(name, false);
}

Result<void> CheckpointCheck::made(const std::string& name, std::string_view bytes) {
  if (!files_expected_) return {};
  if (auto expected = files_.find(name); expected != files_.end()) expected->second = true;
  Result<MappedFile> file = MappedFile::open(dir_ + "/" + name);
  if (file && file->bytes() == bytes) return {};
  if (findings_.size() < kFindingsMax)
    findings_.push_back(file ? finding(name, word_of(name), "it is not the one that the rows make")
                             : finding(name, "missing", "the file is not there", Errc::kIncomplete));
  return {};
}

void CheckpointCheck::add_row(const Sha256Digest& hash, std::string_view event_id, int64_t created_at_us) {
  CHECK(tree_.add(processors::merkle_leaf(as_bytes(hash))));
  if (ids_expected_) CHECK(ids_.add(event_id));
  auto [begin, end] = heads_.equal_range(tree_.size());
  if (begin == end) return;
  const int64_t held_before = report_.checkpoint_rows;
  for (auto head = begin; head != end; ++head) judge(head->second, tree_.size(), event_id);
  if (report_.checkpoint_rows == held_before) return;
  held_id_ = event_id;
  held_hash_ = to_hex(as_bytes(hash));
  held_created_at_us_ = created_at_us;
}

void CheckpointCheck::judge(const Head& head, uint64_t size, std::string_view event_id) {
  const int64_t rows = static_cast<int64_t>(size);
  if (head.root == tree_.root()) {
    ++report_.checkpoints;
    counted_ = counted_ || head.fault.empty();
    if (rows >= report_.checkpoint_rows) {
      report_.checkpoint_rows = rows;
      if (head.witnesses > 0) {
        report_.witnessed_rows = rows;
        report_.witnessed_s = head.witnessed_s;
        report_.witnesses = head.names;
      }
    }
    return;
  }
  forged_ = true;
  if (findings_.size() >= kFindingsMax) return;
  findings_.push_back({Errc::kTampered, rows, std::string(event_id), head.place, "checkpoint",
                       "the rows up to it are not those that " + head.origin + " signed" +
                           (head.names.empty() ? "" : " and " + head.names + " cosigned") + ": one of rows " +
                           std::to_string(report_.checkpoint_rows + 1) + " to " + std::to_string(rows) + " was written anew"});
}

void CheckpointCheck::end(bool broken, bool wanted, const std::string& place) {
  const int64_t rows = static_cast<int64_t>(tree_.size());
  if (!broken && !heads_.empty() && heads_.rbegin()->first > tree_.size()) {  // the greatest says it for all
    const auto& [size, head] = *heads_.rbegin();
    findings_.push_back(finding(
        head.place, "checkpoint",
        "it was signed over " + std::to_string(size) + " rows; there are " + std::to_string(rows) + ": the tail was cut off"));
  } else if (!broken) {
    CHECK(tree_.write_partial());
    CHECK(ids_.write_partial());
    for (const auto& [name, made] : files_)
      if (!made && findings_.size() < kFindingsMax)
        findings_.push_back(finding(name, word_of(name), "there is none of that name for " + std::to_string(rows) + " rows"));
  }
  if (wanted && !broken && !counted_ && findings_.empty())
    findings_.push_back(finding(place, "checkpoint",
                                heads_.empty() ? "there is no checkpoint that the policy could count"
                                               : "the policy counts no checkpoint of these rows: " + heads_.rbegin()->second.fault,
                                Errc::kIncomplete));
  if (forged_) {  // rows that fit together, but are not those that were signed
    report_.rows = report_.checkpoint_rows;
    report_.last_id = held_id_;
    report_.head_hash = held_hash_;
    report_.last_created_at_us = held_created_at_us_;
  }
  report_.findings.insert(report_.findings.end(), findings_.begin(), findings_.end());
}

}  // namespace assay::streams
