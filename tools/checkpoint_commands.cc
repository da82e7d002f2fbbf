// assay audit checkpoint, prove, gap: heads that others have seen, proofs of single rows, and whether every record has its event.
#include "tools/checkpoint_commands.h"

#include <algorithm>
#include <chrono>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <map>
#include <thread>

#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "streams/archive_files.h"
#include "streams/audit_archive.h"
#include "streams/audit_proof.h"
#include "streams/checkpointer.h"
#include "streams/postgres_sink.h"
#include "streams/read_to_end.h"
#include "tools/audit_control.h"
#include "tools/checkpointing.h"
#include "tools/commands.h"
#include "tools/open_log.h"
#include "tools/projection.h"
#include "tools/session.h"

namespace assay::tools {
namespace {

namespace fs = std::filesystem;
using streams::NotePolicy;

constexpr int64_t kGapTimeoutMs = 600'000;         // it reads the whole chain
constexpr int64_t kCheckpointTimeoutMs = 600'000;  // a tree that was lost is made again from the first row

volatile std::sig_atomic_t stopping = 0;

struct Flags {
  CheckpointWishes wishes;  // checkpoint
  std::string every;
  std::string id, archive;  // prove
  std::optional<int64_t> sequence, from, to;
};

Result<std::string> read_file(const std::string& path, const std::string& attempt) {
  std::ifstream in(path, std::ios::binary);
  if (!in) return Error{Errc::kUsage, attempt + ": " + path + " cannot be read"};
  return std::string((std::istreambuf_iterator<char>(in)), {});
}

/// What stood in the process's way may be gone the next time.
bool lasting(const Error& error) {
  return error.code == Errc::kTampered || error.code == Errc::kRefused || error.code == Errc::kUsage ||
         error.code == Errc::kCorrupt;
}

Result<int> make_checkpoints(Context& context, const Flags& flags) {
  const Settings& settings = context.settings;
  std::optional<int64_t> every_ms;
  if (!flags.every.empty()) {
    every_ms = parse_duration_ms(flags.every);
    if (!every_ms || *every_ms < 1000)
      return Error{Errc::kUsage, "--every " + flags.every + ": a duration of a second or more, such as 10m"};
  }
  TRY_ASSIGN(const auto running, ask_running(settings, "/audit/checkpoint", Json::object(), kCheckpointTimeoutMs));
  if (running) {
    if (every_ms || !flags.wishes.origin.empty() || !flags.wishes.policy.empty() || !flags.wishes.publish.empty())
      return Error{
          Errc::kUsage,
          "making a checkpoint: the process that runs on " + settings.data_dir +
              " makes them as its configuration says (audit.checkpoint_…); give no --origin, --policy, --publish or --every"};
    context.out << render_object(*running, context.format);
    return 0;
  }
  TRY_ASSIGN(
      auto checkpointer,
      open_checkpointer(settings, flags.wishes, nullptr, nullptr, [&](const NotePolicy::Witness& witness, const std::string& what) {
        context.err << "assay: witness " << witness.name << " at " << witness.url << ": " << what << '\n';
      }));
  std::signal(SIGTERM, [](int) { stopping = 1; });
  std::signal(SIGINT, [](int) { stopping = 1; });
  while (true) {
    auto made = checkpointer->make([&](int64_t after) { return open_chain_after(settings, after); });
    if (!made && (!every_ms || lasting(made.error()))) return made.error();
    if (!made) context.err << "assay: " << made.error().message << "; trying again in " << flags.every << '\n';
    if (made && !checkpointer->newest() && !every_ms)
      return Error{Errc::kIncomplete, "making a checkpoint: the chain has no row yet"};
    if (made && checkpointer->newest() && (*made || !every_ms))
      context.out << render_object(describe_checkpoint(*checkpointer, made->has_value()), context.format) << std::flush;
    if (!every_ms) return 0;
    for (int64_t waited = 0; waited < *every_ms && stopping == 0; waited += 100)
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
    if (stopping != 0) return 0;
  }
}

/// The checkpoints of a directory by size. Errors: kIncomplete when there are none.
Result<std::map<int64_t, std::string>> notes_of(const std::string& dir) {
  std::map<int64_t, std::string> notes;
  if (auto names = streams::list_files(dir + "/checkpoints"))
    for (const std::string& name : *names)
      if (name.ends_with(".note")) notes[std::strtoll(name.c_str(), nullptr, 10)] = dir + "/checkpoints/" + name;
  if (notes.empty())
    return Error{Errc::kIncomplete, "proving from " + dir + ": there is no checkpoint; `assay audit checkpoint` makes one"};
  return notes;
}

Result<int> prove(Context& context, const Flags& flags) {
  const Settings& settings = context.settings;
  const bool exported = !flags.archive.empty();
  const std::string dir = exported ? flags.archive : checkpoints_of(settings);
  TRY_ASSIGN(auto notes, notes_of(dir));
  auto note_at = [&](int64_t size) -> Result<std::string> {
    auto note = notes.find(size);
    if (note == notes.end())
      return Error{Errc::kUsage, "proving from " + dir + ": there is no checkpoint of " + std::to_string(size) + " rows"};
    return read_file(note->second, "proving");
  };
  // An export has the tree of all its rows, whichever checkpoints came with it.
  auto grown_to = static_cast<uint64_t>(notes.rbegin()->first);
  if (exported) {
    TRY_ASSIGN(const streams::ArchiveManifest manifest, streams::read_archive_manifest(dir));
    grown_to = static_cast<uint64_t>(manifest.head.sequence);
  }
  Json proof;
  if (flags.from) {
    TRY_ASSIGN(std::string from, note_at(*flags.from));
    TRY_ASSIGN(std::string to, note_at(flags.to.value_or(notes.rbegin()->first)));
    TRY_ASSIGN(proof, streams::prove_consistency(streams::directory_tiles(dir), grown_to, from, to));
  } else {
    if (flags.sequence.has_value() == !flags.id.empty())
      return Error{Errc::kUsage, "give one of --sequence N, --id EVENT, and --from ROWS for two checkpoints"};
    const bool database = !exported && !settings.database.url.empty();
    const std::string rows_dir = exported ? dir : audit_dir(settings.data_dir);
    int64_t sequence = flags.sequence.value_or(0);
    std::string line;
    if (database) {
      if (!flags.sequence) {
        TRY_ASSIGN(sequence, streams::find_database_row(settings.database.url, flags.id));
      }
      TRY_ASSIGN(streams::StoredChain chain, streams::open_database_chain(settings.database.url, sequence - 1));
      TRY_ASSIGN(std::vector<streams::StoredLine> lines, chain.lines());
      if (sequence < 1 || lines.empty())
        return Error{Errc::kNotFound, "proving row " + std::to_string(sequence) + ": there is no such row"};
      bool canonical_text = true;
      TRY_ASSIGN(streams::SignedRow row, streams::parse_audit_line(lines.front().text, nullptr, &canonical_text));
      line = audit_line(row);
    } else if (flags.sequence) {
      TRY_ASSIGN(line, streams::read_archive_row(rows_dir, sequence));
    } else {
      TRY_ASSIGN(streams::FoundRow row, streams::find_archive_row(rows_dir, flags.id, dir));
      sequence = row.sequence;
      line = std::move(row.line);
    }
    // The newest checkpoint says it best: it covers the row, and most have seen it.
    TRY_ASSIGN(std::string note, note_at(flags.to.value_or(notes.rbegin()->first)));
    TRY_ASSIGN(proof, streams::prove_inclusion(streams::directory_tiles(dir), grown_to, sequence, line, note));
  }
  context.out << canonical(proof) << '\n';
  return 0;
}

/// Ranges of one partition that audit events speak of.
class Coverage {
 public:
  /// Says what the range shares with those before it, if anything.
  std::optional<std::pair<int64_t, int64_t>> add(int64_t from, int64_t to) {
    auto after = ranges_.upper_bound(from);
    std::optional<std::pair<int64_t, int64_t>> shared;
    if (after != ranges_.begin() && std::prev(after)->second > from) shared = {from, std::min(to, std::prev(after)->second)};
    if (!shared && after != ranges_.end() && after->first < to) shared = {after->first, std::min(to, after->second)};
    // Neighbours become one: a topic that is covered whole is one range, whatever its length.
    while (after != ranges_.end() && after->first <= to) {
      to = std::max(to, after->second);
      after = ranges_.erase(after);
    }
    if (after != ranges_.begin() && std::prev(after)->second >= from) {
      std::prev(after)->second = std::max(std::prev(after)->second, to);
    } else {
      ranges_.emplace(from, to);
    }
    return shared;
  }
  std::vector<std::pair<int64_t, int64_t>> holes(int64_t begin, int64_t end) const {
    std::vector<std::pair<int64_t, int64_t>> out;
    for (const auto& [from, to] : ranges_) {
      if (from > begin && begin < end) out.emplace_back(begin, std::min(from, end));
      begin = std::max(begin, to);
    }
    if (begin < end) out.emplace_back(begin, end);
    return out;
  }

 private:
  std::map<int64_t, int64_t> ranges_;  // [from, to), apart from one another
};

/// Records in a hole: commit markers and what compaction took are none.
Result<int64_t> records_between(streams::Log& log, const TopicPartition& tp, int64_t from, int64_t to) {
  constexpr size_t kBatch = 1000;
  TRY_ASSIGN(auto reader, log.open_reader({{tp, Offset(from)}}));
  int64_t records = 0;
  for (Offset next(from); next < Offset(to);) {
    TRY_ASSIGN(auto fetch, reader->poll(streams::Milliseconds(500), kBatch));
    if (!fetch) continue;
    records += std::ranges::count_if(fetch->records, [&](const RecordView& record) { return record.offset < Offset(to); });
    next = fetch->next;
    if (fetch->at_end) break;
  }
  return records;
}

Result<int> gap(Context& context) {
  TRY_ASSIGN(const Json found, ask_for_gaps(context));
  const Json::Array& gaps = found.find("gaps")->as_array();
  if (context.settings.audit.eval_submit == "each")
    context.err << "assay: " << static_cast<int64_t>(found.number_or("withoutEvent", 0))
                << " records have no event of their own: filtered ones and dead letters have none\n";
  context.out << render_rows(gaps, context.format, {"topic", "partition", "from", "to", "problem", "eventId"});
  auto is = [](std::string_view problem) { return [problem](const Json& row) { return row.string_or("problem", "") == problem; }; };
  if (std::ranges::all_of(gaps, is("reconciled"))) return 0;
  auto only_gone = [&](const Json& row) { return is("gone")(row) || is("reconciled")(row); };
  return exit_code(std::ranges::all_of(gaps, only_gone) ? Errc::kIncomplete : Errc::kUnhealthy);
}

}  // namespace

std::string checkpoint_dir(const Settings& settings) {
  const std::string dir = checkpoints_of(settings);
  return fs::exists(dir + "/checkpoint") ? dir : "";
}

Result<Json> find_gaps(const Settings& settings, streams::Log& log) {
  const bool each = settings.audit.eval_submit == "each";
  const std::string topic(topic_spec(Topic::kReports).name);
  const streams::TopicNames names = topic_names(settings);
  TRY_ASSIGN(int32_t partitions, log.partition_count(names.full(topic)));
  std::vector<TopicPartition> all;
  for (int32_t p = 0; p < partitions; ++p) all.push_back({names.full(topic), p});
  // What is committed must be covered; what came since may be on its way.
  TRY_ASSIGN(auto committed, log.committed(names.full("assay.scoring"), all));

  TRY_ASSIGN(streams::StoredChain chain, open_chain_after(settings, 0));
  std::map<int32_t, Coverage> covered;
  Json problems = Json::array();
  auto problem = [&](int32_t partition, int64_t from, int64_t to, const char* what, const std::string& event) {
    Json row = Json::object().set("topic", topic).set("partition", int64_t{partition});
    row.set("from", std::to_string(from)).set("to", std::to_string(to)).set("problem", what).set("eventId", event);
    problems.push_back(std::move(row));
  };
  processors::AuditCorrections corrections;  // as the rows tell
  while (true) {
    TRY_ASSIGN(std::vector<streams::StoredLine> lines, chain.lines());
    if (lines.empty()) break;
    for (const streams::StoredLine& line : lines) {
      const bool submit = line.text.find("\"eval.submit\"") != line.text.npos;
      if (!submit && line.text.find("\"audit.reconciliation\"") == line.text.npos) continue;
      Json payload;
      bool canonical_text = true;
      TRY_ASSIGN(streams::SignedRow row, streams::parse_audit_line(line.text, &payload, &canonical_text));
      if (row.row.event_type == "audit.reconciliation" && payload.find("data") != nullptr)
        (void)fold_correction(row.row.id, row.row.event_type, *payload.find("data"), corrections);
      const Json* source = payload.find("source");
      if (row.row.event_type != "eval.submit" || source == nullptr || source->string_or("topic", "") != topic) continue;
      const auto partition = static_cast<int32_t>(source->number_or("partition", -1));
      const int64_t from = std::strtoll(std::string(source->string_or("from", "")).c_str(), nullptr, 10);
      const int64_t to = std::strtoll(std::string(source->string_or("to", "")).c_str(), nullptr, 10);
      if (from >= to) {
        problem(partition, from, to, "empty", row.row.id);
      } else if (auto shared = covered[partition].add(from, to)) {
        problem(partition, shared->first, shared->second, "twice", row.row.id);
      }
    }
  }
  int64_t without_event = 0;
  for (const TopicPartition& tp : all) {
    TRY_ASSIGN(streams::OffsetRange range, log.range(tp));
    auto place = committed.find(tp);
    const int64_t end = place == committed.end() ? 0 : place->second.offset.value;
    Coverage& known = covered[tp.partition];
    for (const processors::Reconciled& one : corrections.reconciled) {
      if (one.topic != topic || one.partition != tp.partition) continue;
      if (auto shared = known.add(one.from, one.to)) problem(tp.partition, shared->first, shared->second, "twice", one.event_id);
      problem(tp.partition, one.from, one.to, "reconciled", one.event_id);
    }
    for (auto [from, to] : known.holes(0, end)) {
      if (const int64_t gone_to = std::min(to, range.start.value); from < gone_to) {
        problem(tp.partition, from, gone_to, "gone", "");
        from = gone_to;
      }
      if (from == to) continue;
      TRY_ASSIGN(int64_t records, records_between(log, tp, from, to));
      without_event += records;
      if (records > 0 && !each) problem(tp.partition, from, to, "missing", "");
    }
  }
  return Json::object().set("gaps", std::move(problems)).set("withoutEvent", without_event);
}

Result<Json> ask_for_gaps(Context& context) {
  const Settings& settings = context.settings;
  if (settings.kafka.brokers.empty()) {
    TRY_ASSIGN(std::optional<Json> answer, ask_running(settings, "/audit/gap", Json::object(), kGapTimeoutMs));
    if (answer) return std::move(*answer);
  }
  TRY_ASSIGN(auto log, open_log(settings, LogAccess::kRead));
  return find_gaps(settings, *log);
}

Result<void> trust_policy(const std::string& file, const std::string& dir, streams::VerifyOptions& options) {
  if (file.empty()) return {};
  TRY_ASSIGN(options.policy, read_note_policy(file));
  if (dir.empty()) return {};
  TRY_ASSIGN(auto notes, notes_of(dir));
  for (const auto& [size, path] : notes) {
    TRY_ASSIGN(std::string note, read_file(path, "verifying"));
    options.checkpoints.emplace_back(path, std::move(note));
  }
  return {};
}

Result<void> add_checkpoints(const std::vector<std::string>& places, streams::VerifyOptions& options) {
  if (!places.empty() && !options.policy)
    return Error{Errc::kUsage, "--checkpoint needs --policy: without keys anybody could have signed it"};
  for (const std::string& place : places) {
    std::vector<std::string> files{place};
    if (fs::is_directory(place)) {
      files.clear();
      TRY_ASSIGN(const std::vector<std::string> names, streams::list_files(place));
      for (const std::string& name : names)
        if (name.ends_with(".note")) files.push_back((fs::path(place) / name).string());
    }
    for (const std::string& file : files) {
      TRY_ASSIGN(std::string note, read_file(file, "verifying"));
      options.checkpoints.emplace_back(file, std::move(note));
    }
  }
  return {};
}

void register_checkpoints(Command& audit) {
  auto flags = std::make_shared<Flags>();
  Command making = audit.command("checkpoint", "Sign the head of the chain's Merkle tree and have witnesses cosign it");
  making.example("assay audit checkpoint")
      .example("assay audit checkpoint --policy witnesses.policy --every 10m --publish /mnt/worm")
      .option("--origin", flags->wishes.origin, "Name of this log (audit.checkpoint_origin)")
      .option("--policy", flags->wishes.policy,
              "Witnesses with their URLs, and the quorum, C2SP tlog-policy (audit.checkpoint_policy)")
      .option("--publish", flags->wishes.publish, "Place where each checkpoint is put, once, as well: DIR or s3://BUCKET/PREFIX")
      .option("--every", flags->every, "Stay, and make one this often while the chain grows");
  making.run([flags](Context& context) { return make_checkpoints(context, *flags); });

  Command proving =
      audit.command("prove", "A proof of one row, or that one checkpoint continues another, as JSON for assay-verify --proof");
  proving.example("assay audit prove --sequence 812")
      .example("assay audit prove --id av-815d43ddcd33a5767741423a6cb3e48e --archive chain")
      .example("assay audit prove --from 1000 --to 2000")
      .option("--sequence", flags->sequence, "The row's number")
      .option("--id", flags->id, "The row's event id")
      .option("--from", flags->from, "Rows of the earlier checkpoint")
      .option("--to", flags->to, "Rows of the later checkpoint, or of the one that covers the row (the newest)")
      .option("-a,--archive", flags->archive, "Exported chain (without it: the running one)");
  proving.run([flags](Context& context) { return prove(context, *flags); });

  Command gaps = audit.command("gap", "Whether every report that was committed is covered by exactly one audit event");
  gaps.example("assay audit gap -o json");
  gaps.run([](Context& context) { return gap(context); });
}

}  // namespace assay::tools
