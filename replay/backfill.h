// Rescoring: every closed score is made again, and what comes out otherwise goes onto the log as an event that names what it
// corrects.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "replay/base.h"
#include "schemas/config.h"
#include "schemas/json.h"
#include "streams/fold.h"
#include "streams/log.h"

namespace assay::replay {

/// One closed window that is to be told otherwise than it stands.
struct Correction {
  std::string change;    // "changed" | "added": no such window stands | "withdrawn": none comes out
  std::string id;        // of the correcting record
  std::string corrects;  // id of the record that it takes the place of; empty for an added one
  std::string agent, window;
  int64_t end_ms = 0;
  std::optional<double> was, is;  // the score
};

struct BackfillOptions {
  streams::TopicNames names;
  std::string agents = "*";                     // behaviour: a glob; one agent's records are found by the index of an archive
  std::optional<int64_t> since_ms, until_ms;    // behaviour: only windows with since <= end < until
  std::optional<Rules> rules;                   // behaviour: these throughout; nothing: those in force when each window closed
  std::string reason, actor;                    // of the audit rows
  WallTime now;                                 // of the corrections
  size_t batch_records = 500;                   // performance: corrections of one transaction and audit row, at most 1000
  std::function<void(const Correction&)> each;  // told of each, once it is written
  std::function<void(int64_t done, int64_t total)> progress;  // in reports
};

struct Backfilled {
  int64_t reports = 0, scores = 0;  // folded again; compared
  int64_t changed = 0, added = 0, withdrawn = 0;
  int64_t audit_rows = 0;
};

/// Folds the reports of `source` again, in the order and by the rules that the manifests say, with this code, and compares each
/// closed score with what stands for its window: the last record of eval.scores.v1, an earlier correction or the original.
/// Each difference goes onto eval.scores.v1 of `into`: the score as it is now, with "corrects", the id of what it takes the place
/// of (null: nothing stood there). A window that does not come out again is withdrawn: no score, no samples. Some hundreds of
/// corrections and the audit row that names each of them are one transaction, so a backfill that was killed is run again and
/// writes what is missing; one that was done finds nothing.
///
/// `source` reaches the end of `into`; without `into` nothing is written. Only what manifests have folded is compared.
/// Errors: kParity when a score comes out otherwise that this very code made: then the log is wrong, not a rule that was mended;
/// kIncomplete when reports, manifests or scores are gone; kFenced when another backfill began; those of the logs.
/// Cost: folds all reports; 150 bytes a score of one partition.
Result<Backfilled> backfill(streams::Log& source, streams::Log* into, const BackfillOptions& options);

/// What a score says, without when, by which version of the rules and in which words.
std::string score_content(const Json& score);

}  // namespace assay::replay
