#include "replay/explain.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>
#include <vector>

#include "processors/allocation.h"
#include "processors/intake.h"
#include "processors/merkle.h"
#include "replay/backfill.h"
#include "replay/json_difference.h"
#include "replay/key_history.h"
#include "replay/trace.h"
#include "schemas/json_parse.h"
#include "schemas/time.h"
#include "state/encoding.h"
#include "streams/refold.h"
#include "streams/topology.h"

namespace assay::replay {
namespace {

/// A record of an internal topic, as it stands on the log.
struct Found {
  Topic topic = Topic::kScores;
  TopicPartition place;  // bare name
  Offset offset;
  std::string id, cause;  // hex
  std::string key, text;
  Json value;
};

/// What a trace made again: values by the id of their record.
using Remade = std::map<std::string, std::string>;

struct ReportPlace {
  Offset offset;
  std::string id;
  int64_t timestamp = 0;
};

class Explainer {
 public:
  Explainer(streams::Log& log, const streams::TopicNames& names, const processors::ScoringOptions& scoring)
      : log_(log), names_(names), plans_(streams::topology(names, scoring)) {}

  Result<Json> explain(const std::string& id) {
    if (id.starts_with("av-")) {
      TRY_ASSIGN(auto row, by_key(Topic::kAudit, id, [&](const Found& f) { return f.key == id; }));
      if (row) return audit(*row);
      return nothing(id);
    }
    if (const size_t last = id.rfind('/'); last != std::string::npos && last > 0)
      if (const size_t middle = id.rfind('/', last - 1); middle != std::string::npos) {
        const std::string agent = id.substr(0, middle), window = id.substr(middle + 1, last - middle - 1);
        const auto end = parse_rfc3339_ms(id.substr(last + 1));
        if (end && parse_window(window)) {
          TRY_ASSIGN(auto found, by_key(Topic::kScores, agent, [&](const Found& f) {
                       return f.value.string_or("window", "") == window &&
                              f.value.string_or("windowEnd", "") == format_rfc3339_ms(*end);
                     }));
          if (found) return score(*found);
          return Error{Errc::kUsage, "explaining " + id +
                                         ": eval.scores.v1 has no such closed window; `replay score` answers for any "
                                         "instant"};
        }
      }
    for (Topic topic : {Topic::kPromotions, Topic::kAllocations, Topic::kScores}) {
      TRY_ASSIGN(auto found,
                 anywhere(topic, [&](const Found& f) { return f.id == id || f.value.string_or("allocationId", "") == id; }));
      if (!found) continue;
      return topic == Topic::kPromotions ? promotion(*found) : topic == Topic::kAllocations ? allocation(*found) : score(*found);
    }
    TRY_ASSIGN(auto row, by_key(Topic::kAudit, "av-" + id, [&](const Found& f) { return f.key == "av-" + id; }));
    if (row) return audit(*row);
    return nothing(id);
  }

 private:
  using Wanted = std::function<bool(const Found&)>;

  Error nothing(const std::string& id) {
    return {Errc::kUsage,
            "explaining " + id + ": no promotion, allocation, audit row or score of " + log_.describe() + " has this id"};
  }

  static Found found(Topic topic, const TopicPartition& place, const RecordView& record) {
    Found f{topic,
            place,
            record.offset,
            std::string(record.header(kHeaderId).value_or("")),
            std::string(record.header(kHeaderCause).value_or("")),
            std::string(record.key.value_or("")),
            std::string(record.value.value_or("")),
            {}};
    if (auto value = parse_json(f.text)) f.value = std::move(*value);
    return f;
  }

  /// The last record of the key that is wanted.
  Result<std::optional<Found>> by_key(Topic topic, const std::string& key, const Wanted& wanted) {
    std::optional<Found> out;
    const TopicPartition place{std::string(topic_spec(topic).name), partition_of(key, names_.partitions(topic))};
    const TopicPartition tp{names_.full(topic), place.partition};
    TRY_ASSIGN(const streams::OffsetRange range, log_.range(tp));
    TRY(read_key(log_, tp, key, range.start, range.end, [&](const RecordView& record) -> Result<void> {
      if (Found f = found(topic, place, record); wanted(f)) out = std::move(f);
      return {};
    }));
    return out;
  }

  /// The last such record of the topic, whatever its key. Cost: reads all of it.
  Result<std::optional<Found>> anywhere(Topic topic, const Wanted& wanted) {
    std::optional<Found> out;
    for (int32_t p = 0; p < names_.partitions(topic); ++p) {
      const TopicPartition tp{names_.full(topic), p};
      auto range = log_.range(tp);
      if (!range && range.error().code == Errc::kNotFound) continue;
      if (!range) return range.error();
      streams::RangeReader ranges(log_);
      TRY(ranges.read(tp, range->start, range->end, [&](std::span<const RecordView> records) -> Result<void> {
        for (const RecordView& record : records)
          if (Found f = found(topic, {std::string(names_.bare(tp.topic)), p}, record); wanted(f)) out = std::move(f);
        return {};
      }));
    }
    return out;
  }

  static Json node(const char* kind, const Found& f, std::string says) {
    return Json::object()
        .set("kind", kind)
        .set("id", f.id)
        .set("topic", f.place.topic)
        .set("partition", int64_t{f.place.partition})
        .set("offset", std::to_string(f.offset.value))
        .set("says", std::move(says));
  }

  static void compare(Json& into, const Found& f, const Remade& remade) {
    const auto again = remade.find(f.id);
    if (again == remade.end()) {
      into.set("agrees", false).set("difference", "folding its cause again does not make this record");
    } else {
      into.set("agrees", again->second == f.text);
      if (again->second != f.text) into.set("difference", text_difference(f.text, "on the log", again->second, "folded again"));
    }
  }

  // ------------------------------------------------------------------------------------------------------------- scores

  struct AgentHistory {
    Remade scores;
    std::map<std::string, std::pair<size_t, ReportPlace>> closed_by;  // score id -> reports accepted before; the report that closed
    std::vector<ReportPlace> accepted;
    std::map<std::string, std::string> by_window;  // "1h/<end>" -> score id
  };

  static std::string window_name_of(const Json& score) {
    return std::string(score.string_or("window", "")) + "/" + std::string(score.string_or("windowEnd", ""));
  }

  Result<const AgentHistory*> agent(const std::string& id) {
    auto [it, fresh] = agents_.try_emplace(id);
    AgentHistory& history = it->second;
    if (!fresh) return &history;
    const int32_t partition = partition_of(id, names_.partitions());
    TRY_ASSIGN(const streams::TaskSpec spec, streams::find_task(plans_, names_, "scoring-" + std::to_string(partition)));
    Trace trace;
    trace.key = id;
    Offset at;
    trace.before = [&](const TracedRecord& r) { at = r.record.offset; };
    size_t before = 0;
    trace.accepted = [&](const EvalReport& report, std::string_view report_id) {
      before = history.accepted.size();
      history.accepted.push_back({at, std::string(report_id), report.timestamp.value});
    };
    trace.after = [&](const TracedRecord&, const processors::Outputs& outputs) {
      for (const processors::Output& output : outputs.records) {
        if (output.topic != Topic::kScores) continue;
        history.scores[output.id.hex()] = output.value;
        history.closed_by[output.id.hex()] = {before, history.accepted.back()};
        if (auto value = parse_json(output.value)) history.by_window[window_name_of(*value)] = output.id.hex();
      }
      return true;
    };
    TRY(trace_task(log_, names_, spec, trace));
    return &history;
  }

  Result<Json> score(const Found& f) {
    const Json& v = f.value;
    const std::string agent_id(v.string_or("agentId", f.key));
    const std::string window(v.string_or("window", ""));
    const bool correction = v.find("corrects") != nullptr;
    Json out = node(correction ? "correction" : "score", f, std::string(v.string_or("rationale", "")));
    out.set("agentId", agent_id).set("window", window);
    for (const char* member : {"windowStart", "windowEnd", "score", "lower", "upper", "samples", "configVersion"})
      if (const Json* value = v.find(member)) out.set(member, *value);
    TRY_ASSIGN(const AgentHistory* history, agent(agent_id));
    std::string folded = f.id;
    if (correction) {
      TRY(corrected(out, v, *history, folded));
    } else {
      compare(out, f, history->scores);
    }
    const auto closed = history->closed_by.find(folded);
    const auto start = parse_rfc3339_ms(v.string_or("windowStart", "")), end = parse_rfc3339_ms(v.string_or("windowEnd", ""));
    Json reports = Json::array();
    const int32_t partition = partition_of(agent_id, names_.partitions());
    auto place = [&](const ReportPlace& r) {
      return Json::object()
          .set("topic", topic_spec(Topic::kReports).name)
          .set("partition", int64_t{partition})
          .set("offset", std::to_string(r.offset.value))
          .set("id", r.id)
          .set("timestamp", format_rfc3339_ms(r.timestamp));
    };
    if (closed != history->closed_by.end() && start && end) {
      out.set("closedBy", place(closed->second.second));
      for (size_t n = 0; n < closed->second.first; ++n)
        if (const ReportPlace& r = history->accepted[n]; r.timestamp >= *start && r.timestamp < *end) reports.push_back(place(r));
    }
    return out.set("reports", std::move(reports));
  }

  /// A correction says what the fold says of that window now, unless it was made by rules of its own.
  Result<void> corrected(Json& into, const Json& correction, const AgentHistory& history, std::string& folded) {
    const auto found = history.by_window.find(window_name_of(correction));
    std::string again;
    if (found != history.by_window.end()) {
      folded = found->second;
      again = history.scores.at(folded);
    }
    auto now = parse_json(again);
    const bool withdrawn = correction.number_or("samples", 0) == 0;
    if (now && now->string_or("configVersion", "") != correction.string_or("configVersion", "")) {
      into.set("agrees", nullptr);
    } else if (!now || withdrawn) {
      into.set("agrees", !now && withdrawn);
    } else {
      const std::string here = score_content(correction), there = score_content(*now);
      into.set("agrees", here == there);
      if (here != there) into.set("difference", text_difference(here, "on the log", there, "folded again"));
    }
    const std::string of(correction.string_or("corrects", ""));
    if (of.empty()) return {};
    TRY_ASSIGN(auto original, by_key(Topic::kScores, std::string(correction.string_or("agentId", "")),
                                     [&](const Found& s) { return s.id == of; }));
    if (!original) return Error{Errc::kIncomplete, "explaining a correction: the score " + of + " that it corrects is gone"};
    Json causes = Json::array();
    TRY_ASSIGN(Json tree, score(*original));
    causes.push_back(std::move(tree));
    into.set("corrects", of).set("causes", std::move(causes));
    return {};
  }

  // --------------------------------------------------------------------------------------------------------- promotions

  struct EntityHistory {
    Remade records;
    std::map<std::string, Json> rules;  // event id -> the rules that it was decided by
  };

  Result<const EntityHistory*> entity(const std::string& id) {
    auto [it, fresh] = entities_.try_emplace(id);
    EntityHistory& history = it->second;
    if (!fresh) return &history;
    const int32_t partition = partition_of(id, names_.partitions());
    TRY_ASSIGN(const streams::TaskSpec spec, streams::find_task(plans_, names_, "promotion-" + std::to_string(partition)));
    Trace trace;
    trace.key = id;
    trace.after = [&](const TracedRecord& r, const processors::Outputs& outputs) {
      for (const processors::Output& output : outputs.records) {
        history.records[output.id.hex()] = output.value;
        if (output.topic != Topic::kPromotions) continue;
        Json rules = rules_to_json(r.rules, ConfigKind::kPromotion);
        history.rules[output.id.hex()] = rules.set("version", rules_version(r.rules, ConfigKind::kPromotion));
      }
      return true;
    };
    TRY(trace_task(log_, names_, spec, trace));
    return &history;
  }

  Result<Json> promotion(const Found& f) {
    const Json& v = f.value;
    const std::string entity_id(v.string_or("entityId", f.key));
    Json out = node("promotion", f, std::string(v.string_or("rationale", "")));
    for (const char* member : {"entityId", "divisionId", "action", "status", "score", "confidence", "ts", "policy"})
      if (const Json* value = v.find(member)) out.set(member, *value);
    TRY_ASSIGN(const EntityHistory* history, entity(entity_id));
    compare(out, f, history->records);
    if (auto rules = history->rules.find(f.id); rules != history->rules.end()) out.set("rules", rules->second);
    Json causes = Json::array();
    if (const Json* evidence = v.find("evidence")) {
      if (const Json* lower = evidence->find("lower24h")) out.set("lower24h", *lower);
      std::vector<std::string> ids;
      if (const Json* scores = evidence->find("scores"))
        for (const Json& one : scores->as_array()) ids.emplace_back(one.string_or("id", ""));
      if (const std::string_view day = evidence->string_or("lower24hId", ""); !day.empty()) ids.emplace_back(day);
      for (const std::string& id : ids) {
        TRY_ASSIGN(auto found, by_key(Topic::kScores, entity_id, [&](const Found& s) { return s.id == id; }));
        if (!found) return Error{Errc::kIncomplete, "explaining " + f.id + ": its score " + id + " is gone from eval.scores.v1"};
        TRY_ASSIGN(Json cause, score(*found));
        causes.push_back(std::move(cause));
      }
    }
    return out.set("causes", std::move(causes));
  }

  // -------------------------------------------------------------------------------------------------------- allocations

  struct Pools {
    Json before, after;  // the pool's row
  };

  static Result<Json> pool_row(const state::Reader& state, std::string_view pool) {
    TRY_ASSIGN(const Json rows, processors::pools_json(state));
    for (const Json& row : rows.as_array())
      if (row.string_or("pool", "") == pool) return row;
    return Json();
  }

  /// Folds all allocations again, and looks at the pool where the cause of that record is folded.
  Result<Remade> allocations(const std::string& cause, std::string_view pool, Pools& pools) {
    Remade remade;
    TRY_ASSIGN(const streams::TaskSpec spec, streams::find_task(plans_, names_, "allocation-0"));
    Result<void> failed;
    Trace trace;
    auto look = [&](const TracedRecord& r, Json& into) {
      if (processors::record_id(r.record).hex() != cause) return false;
      auto row = pool_row(r.state, pool);
      if (row)
        into = std::move(*row);
      else
        failed = row.error();
      return true;
    };
    trace.before = [&](const TracedRecord& r) { look(r, pools.before); };
    trace.after = [&](const TracedRecord& r, const processors::Outputs& outputs) {
      for (const processors::Output& output : outputs.records) remade[output.id.hex()] = output.value;
      return !look(r, pools.after);
    };
    TRY(trace_task(log_, names_, spec, trace));
    TRY(std::move(failed));
    return remade;
  }

  Result<Json> allocation(const Found& f) {
    const Json& v = f.value;
    Json out = node("allocation", f, std::string(v.string_or("state", "")) + ": " + std::string(v.string_or("reason", "")));
    for (const char* member : {"allocationId", "entityId", "divisionId", "pool", "cpu", "gpu", "memoryMB", "state", "reason", "ts"})
      if (const Json* value = v.find(member)) out.set(member, *value);
    const std::string cause(v.string_or("cause", f.cause));
    Pools pools;
    TRY_ASSIGN(const Remade remade, allocations(cause, v.string_or("pool", ""), pools));
    compare(out, f, remade);
    out.set("poolBefore", std::move(pools.before)).set("poolAfter", std::move(pools.after));
    Json causes = Json::array();
    const std::string request(v.string_or("allocationId", ""));
    TRY_ASSIGN(auto asked, anywhere(Topic::kPromotions, [&](const Found& p) {
                 auto id = Id::parse(p.id);
                 return id && derived_id(*id, "allocation-of-promotion", 0).hex() == request;
               }));
    if (asked) {
      TRY_ASSIGN(Json tree, promotion(*asked));
      causes.push_back(std::move(tree));
    }
    if (!asked || asked->id != cause) {  // it waited, and something else served it, or took it away
      TRY_ASSIGN(auto served, anywhere(Topic::kPromotions, [&](const Found& p) { return p.id == cause; }));
      if (served) {
        TRY_ASSIGN(Json tree, promotion(*served));
        causes.push_back(std::move(tree));
      } else {
        TRY_ASSIGN(Json tree, config(cause));
        causes.push_back(std::move(tree));
      }
    }
    return out.set("causes", std::move(causes));
  }

  Result<Json> config(const std::string& cause) {
    Json out;
    const TopicPartition tp{names_.full(Topic::kConfig), 0};
    TRY_ASSIGN(const streams::OffsetRange range, log_.range(tp));
    streams::RangeReader ranges(log_);
    TRY(ranges.read(tp, range.start, range.end, [&](std::span<const RecordView> records) -> Result<void> {
      for (const RecordView& record : records) {
        if (processors::record_id(record).hex() != cause) continue;
        Found f = found(Topic::kConfig, {std::string(topic_spec(Topic::kConfig).name), 0}, record);
        f.id = cause;
        out = node("config", f,
                   "rules of the kind " + std::string(f.value.string_or("kind", "?")) + ", version " +
                       std::string(f.value.string_or("version", "?")));
        out.set("agrees", nullptr);
      }
      return {};
    }));
    if (out.is_null())
      return Error{Errc::kIncomplete, "explaining an allocation: its cause " + cause + " is neither on " +
                                          std::string(topic_spec(Topic::kPromotions).name) + " nor on config.v1"};
    return out;
  }

  // ---------------------------------------------------------------------------------------------------------- audit rows

  Result<Json> audit(const Found& f) {
    const std::string type(f.value.string_or("eventType", ""));
    Json out = node("audit", f, type + " by " + std::string(f.value.string_or("actor", "")));
    out.set("id", f.key).set("eventType", type);
    for (const char* member : {"actor", "ts", "source"})
      if (const Json* value = f.value.find(member)) out.set(member, *value);
    const Json* source = f.value.find("source");
    const Json* data = f.value.find("data");
    if (source == nullptr || data == nullptr) return out.set("agrees", nullptr);
    if (source->find("from") != nullptr) return range_row(std::move(out), *source, *data);
    if (const Json* corrections = data->find("corrections"); corrections != nullptr && corrections->is_array())
      return corrections_row(std::move(out), static_cast<int32_t>(source->number_or("partition", -1)), *corrections, *data);

    // A decision's row is made beside the decision, so the same trace makes both.
    const std::string decision(data->string_or("requestId", data->string_or("id", "")));
    const std::string entity_id(data->string_or("entityId", ""));
    Json causes = Json::array();
    TRY_ASSIGN(auto event, by_key(Topic::kPromotions, entity_id, [&](const Found& p) { return p.id == decision; }));
    if (event) {
      TRY_ASSIGN(const EntityHistory* history, entity(entity_id));
      compare(out, f, history->records);
      TRY_ASSIGN(Json tree, promotion(*event));
      causes.push_back(std::move(tree));
      return out.set("causes", std::move(causes));
    }
    TRY_ASSIGN(auto grant, anywhere(Topic::kAllocations, [&](const Found& a) {
                 return a.id == decision || a.value.string_or("allocationId", "") == decision;
               }));
    if (!grant) return out.set("agrees", nullptr).set("causes", std::move(causes));
    Pools pools;
    TRY_ASSIGN(const Remade remade, allocations(f.cause, grant->value.string_or("pool", ""), pools));
    compare(out, f, remade);
    TRY_ASSIGN(Json tree, allocation(*grant));
    causes.push_back(std::move(tree));
    return out.set("causes", std::move(causes));
  }

  /// The row of a backfill: each correction that it names must stand there.
  Result<Json> corrections_row(Json out, int32_t partition, const Json& corrections, const Json& data) {
    std::set<std::string> missing;
    for (const Json& one : corrections.as_array()) missing.emplace(one.string_or("id", ""));
    const TopicPartition tp{names_.full(Topic::kScores), partition};
    TRY_ASSIGN(const streams::OffsetRange range, log_.range(tp));
    streams::RangeReader ranges(log_);
    TRY(ranges.read(tp, range.start, range.end, [&](std::span<const RecordView> records) -> Result<void> {
      for (const RecordView& record : records) missing.erase(std::string(record.header(kHeaderId).value_or("")));
      return {};
    }));
    out.set("agrees", missing.empty()).set("reason", std::string(data.string_or("reason", ""))).set("corrections", corrections);
    if (!missing.empty()) out.set("difference", "the correction " + *missing.begin() + " is not on " + to_string(tp));
    return out.set("causes", Json::array());
  }

  Result<Json> range_row(Json out, const Json& source, const Json& data) {
    const TopicPartition place{std::string(source.string_or("topic", "")), static_cast<int32_t>(source.number_or("partition", -1))};
    const TopicPartition tp{names_.full(place.topic), place.partition};
    const Offset from(std::stoll(std::string(source.string_or("from", "0")))),
        to(std::stoll(std::string(source.string_or("to", "0"))));
    processors::MerkleRoot merkle;
    Json reports = Json::array();
    int64_t count = 0;
    streams::RangeReader ranges(log_);
    TRY(ranges.read(tp, from, to, [&](std::span<const RecordView> records) -> Result<void> {
      for (const RecordView& record : records) {
        state::Encoder head;
        processors::append_merkle_leaf_head(record, head);
        merkle.add(head.str(), record.value.value_or(""));
        ++count;
        reports.push_back(Json::object()
                              .set("topic", place.topic)
                              .set("partition", int64_t{place.partition})
                              .set("offset", std::to_string(record.offset.value))
                              .set("id", place_id(place.topic, place.partition, record.offset).hex())
                              .set("timestamp", format_rfc3339_ms(record.timestamp.value)));
      }
      return {};
    }));
    std::string difference;
    if (data.find("merkleRoot") != nullptr) {
      const std::string root = count == 0 ? std::string() : to_hex(as_bytes(merkle.root()));
      if (data.string_or("merkleRoot", "") != root)
        difference =
            "the Merkle root of its records is " + root + ", the row says " + std::string(data.string_or("merkleRoot", ""));
      else if (data.number_or("delivered", -1) != static_cast<double>(count))
        difference = std::to_string(count) + " records are there, the row says " + canonical(*data.find("delivered"));
    } else if (count != 1) {
      difference = std::to_string(count) + " records are there instead of one";
    }
    out.set("agrees", difference.empty());
    if (!difference.empty()) out.set("difference", difference);
    for (const char* member : {"delivered", "accepted", "refused", "merkleRoot", "evalId", "agentId"})
      if (const Json* value = data.find(member)) out.set(member, *value);
    return out.set("reports", std::move(reports));
  }

  streams::Log& log_;
  const streams::TopicNames& names_;
  std::vector<streams::ProcessorPlan> plans_;
  std::map<std::string, AgentHistory> agents_;
  std::map<std::string, EntityHistory> entities_;
};

}  // namespace

Result<Json> explain(streams::Log& log, const streams::TopicNames& names, const processors::ScoringOptions& scoring,
                     const std::string& id) {
  return Explainer(log, names, scoring).explain(id);
}

bool agrees(const Json& tree) {
  if (!tree.bool_or("agrees", true)) return false;
  const Json* causes = tree.find("causes");
  return causes == nullptr || std::ranges::all_of(causes->as_array(), agrees);
}

}  // namespace assay::replay
