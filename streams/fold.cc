#include "streams/fold.h"

#include <algorithm>
#include <charconv>

#include "processors/audit_chain.h"
#include "processors/intake.h"
#include "schemas/json_parse.h"
#include "schemas/planted.h"
#include "schemas/time.h"
#include "streams/topic_admin.h"

namespace assay::streams {
namespace {

constexpr size_t kOutputBytes = 700;  // of one beside its key and value: the record, its headers and what the allocator adds

constexpr size_t kKeptOfTooLarge = 64 * 1024;
constexpr size_t kDeadLetterHeaderRoom = 4096;  // reason, detail, source and the like

/// The dead letter as a record: original key, value and headers, and why. What does not fit is kept as size, hash and head.
OutRecord dead_letter_record(const processors::DeadLetter& letter, const TaskSpec& spec, const TopicNames& names,
                             WallTime instant) {
  OutRecord out;
  const std::string_view topic = topic_spec(letter.topic).name;
  out.to = {names.full(dlq_of(topic)), letter.partition};
  out.timestamp = instant;
  out.key = letter.key;
  out.value = letter.value;
  size_t size = letter.key.value_or("").size() + letter.value.value_or("").size() + kDeadLetterHeaderRoom;
  for (const Header& h : letter.headers) size += h.name.size() + h.value.value_or("").size();
  if (size > static_cast<size_t>(kMaxDeadLetterBytes)) {
    const std::string whole = letter.value.value_or("");
    out.headers.push_back({"assay-truncated", "1"});
    out.headers.push_back({"assay-original-size", std::to_string(whole.size())});
    out.headers.push_back({"assay-original-sha256", to_hex(as_bytes(sha256(whole)))});
    out.value = whole.substr(0, kKeptOfTooLarge);
    if (out.key) out.key = out.key->substr(0, kKeptOfTooLarge);
  } else {
    out.headers = letter.headers;
  }
  out.headers.push_back({std::string(kHeaderReason), std::string(reason_code(letter.reason))});
  out.headers.push_back({std::string(kHeaderDetail), letter.detail});
  out.headers.push_back({std::string(kHeaderSource),
                         std::string(topic) + "/" + std::to_string(letter.partition) + "/" + std::to_string(letter.offset.value)});
  out.headers.push_back({"assay-source-timestamp", std::to_string(letter.timestamp.value)});
  out.headers.push_back({"assay-processor", spec.processor});
  return out;
}

}  // namespace

int32_t TopicNames::partitions(Topic topic) const {
  switch (topic_spec(topic).partitions) {
    case Partitions::kConfigured:
      return partitions_;
    case Partitions::kOne:
      return 1;
    case Partitions::kPerTask:
      return manifest_partitions(partitions_);
  }
  return 1;
}

std::optional<WriterStamp> WriterStamp::parse(std::string_view text) {
  const size_t slash = text.rfind('/');
  if (slash == std::string_view::npos) return std::nullopt;
  WriterStamp stamp{text.substr(0, slash), 0};
  const std::string_view digits = text.substr(slash + 1);
  auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), stamp.n);
  if (error != std::errc() || end != digits.data() + digits.size() || stamp.n < 0) return std::nullopt;
  return stamp;
}

std::string TaskMeta::encode() const {
  auto place = [](const TopicPartition& tp) { return tp.topic + "/" + std::to_string(tp.partition); };
  Json positions_json = Json::object(), began_json = Json::object(), anchors_json = Json::object();
  Json written_json = Json::object(), upstream_json = Json::object(), refused = Json::object();
  for (const auto& [tp, offset] : positions) positions_json.set(place(tp), std::to_string(offset.value));
  for (const auto& [tp, offset] : began) began_json.set(place(tp), std::to_string(offset.value));
  for (const auto& [tp, anchor] : anchors) anchors_json.set(place(tp), std::to_string(anchor.at.value) + ":" + anchor.hash);
  for (const auto& [tp, n] : written) written_json.set(place(tp), std::to_string(n));
  for (const auto& [writer, n] : upstream) upstream_json.set(writer, std::to_string(n));
  for (size_t r = 0; r < kReasonCount; ++r)
    if (tally.refused[r] > 0) refused.set(reason_code(static_cast<Reason>(r)), std::to_string(tally.refused[r]));
  Json document = Json::object();
  document.set("lineage", lineage)
      .set("sequence", std::to_string(sequence))
      .set("manifestOffset", std::to_string(manifest_offset.value));
  document.set("manifestHash", manifest_hash).set("instant", std::to_string(instant.value)).set("digest", digest.hex());
  document.set("positions", std::move(positions_json))
      .set("began", std::move(began_json))
      .set("anchors", std::move(anchors_json))
      .set("written", std::move(written_json))
      .set("upstream", std::move(upstream_json));
  if (!earlier.empty()) {
    Json earlier_json = Json::object();
    for (const auto& [tp, n] : earlier) earlier_json.set(place(tp), std::to_string(n));
    document.set("earlier", std::move(earlier_json));
  }
  document.set("delivered", std::to_string(tally.delivered)).set("accepted", std::to_string(tally.accepted));
  document.set("unknownFields", std::to_string(tally.unknown_fields)).set("refused", std::move(refused));
  return canonical(document);
}

Result<TaskMeta> TaskMeta::decode(std::string_view value) {
  TRY_ASSIGN(Json document, parse_json(value));
  bool sound = true;
  auto number = [&](std::string_view text) {
    int64_t n = 0;
    auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), n);
    sound = sound && error == std::errc() && end == text.data() + text.size() && !text.empty();
    return n;
  };
  auto texts = [&](std::string_view key, const std::function<void(const std::string&, std::string_view)>& each) {
    const Json* object = document.find(key);
    sound = sound && object != nullptr && object->is_object();
    if (!sound) return;
    for (const auto& [name, member] : object->as_object()) each(name, member.is_string() ? member.as_string() : "");
  };
  auto members = [&](std::string_view key, const std::function<void(const std::string&, int64_t)>& each) {
    texts(key, [&](const std::string& name, std::string_view text) { each(name, number(text)); });
  };
  auto place = [&](const std::string& text) {
    const size_t slash = text.rfind('/');
    sound = sound && slash != std::string::npos;
    return sound ? TopicPartition{text.substr(0, slash), static_cast<int32_t>(number(text.substr(slash + 1)))} : TopicPartition{};
  };
  TaskMeta meta;
  meta.lineage = document.string_or("lineage", "");
  meta.sequence = number(document.string_or("sequence", ""));
  meta.manifest_offset = Offset(number(document.string_or("manifestOffset", "")));
  meta.manifest_hash = document.string_or("manifestHash", "");
  meta.instant = WallTime(number(document.string_or("instant", "")));
  TRY_ASSIGN(meta.digest, state::Digest::parse(document.string_or("digest", "")));
  members("positions", [&](const std::string& name, int64_t n) { meta.positions[place(name)] = Offset(n); });
  members("began", [&](const std::string& name, int64_t n) { meta.began[place(name)] = Offset(n); });
  texts("anchors", [&](const std::string& name, std::string_view text) {
    const size_t colon = std::min(text.find(':'), text.size());
    sound = sound && colon + 1 < text.size();
    if (sound) meta.anchors[place(name)] = {Offset(number(text.substr(0, colon))), std::string(text.substr(colon + 1))};
  });
  members("written", [&](const std::string& name, int64_t n) { meta.written[place(name)] = n; });
  if (document.find("earlier") != nullptr)
    members("earlier", [&](const std::string& name, int64_t n) { meta.earlier[place(name)] = n; });
  members("upstream", [&](const std::string& name, int64_t n) { meta.upstream[name] = n; });
  meta.tally.delivered = static_cast<uint64_t>(number(document.string_or("delivered", "")));
  meta.tally.accepted = static_cast<uint64_t>(number(document.string_or("accepted", "")));
  meta.tally.unknown_fields = static_cast<uint64_t>(number(document.string_or("unknownFields", "")));
  members("refused", [&](const std::string& name, int64_t n) {
    for (size_t r = 0; r < kReasonCount; ++r)
      if (reason_code(static_cast<Reason>(r)) == name) meta.tally.refused[r] = static_cast<uint64_t>(n);
  });
  if (!sound) return Error{Errc::kCorrupt, "decoding the meta row of a store: a member is missing or has the wrong type"};
  return meta;
}

std::string said_of(const RecordView& record) {
  std::string value(record.value.value_or(""));
  const std::string instant = format_rfc3339_ms(record.timestamp.value);
  for (size_t at = value.find(instant); at != std::string::npos; at = value.find(instant, at)) value.erase(at, instant.size());
  Sha256 hash;
  for (std::string_view part : {record.key.value_or(""), record.header(kHeaderReason).value_or(""), std::string_view(value)}) {
    hash.add(std::to_string(part.size()) + ":");
    hash.add(part);
  }
  return to_hex(as_bytes(hash.done()));
}

Result<TaskMeta> read_meta(const state::Reader& store) {
  TRY_ASSIGN(auto row, store.get(kMetaKey));
  if (!row) return TaskMeta{};
  return TaskMeta::decode(*row);
}

Result<state::Digest> recompute_digest(const state::Reader& store, const TaskSpec& spec) {
  state::Digest digest;
  TRY(store.scan("", [&](std::string_view key, std::string_view value) {
    if (key != kMetaKey) digest += spec.row_digest(key, value);
    return true;
  }));
  return digest;
}

Result<std::unique_ptr<Fold>> Fold::open(const TaskSpec& spec, const TopicNames& names, state::Store& store) {
  TRY_ASSIGN(TaskMeta meta, read_meta(store));
  try {
    return std::unique_ptr<Fold>(new Fold(spec, names, store, std::move(meta)));
  } catch (processors::StateUnreadable& unreadable) {
    return std::move(unreadable.error);
  }
}

/// Runs what calls the processor.
Result<void> Fold::guarded(const std::function<Result<void>()>& work) {
  try {
    return work();
  } catch (processors::StateUnreadable& unreadable) {
    store_error_ = unreadable.error;
    return std::move(unreadable.error);
  }
}

Fold::Fold(const TaskSpec& spec, const TopicNames& names, state::Store& store, TaskMeta meta)
    : spec_(spec), names_(names), store_(store), meta_(std::move(meta)) {
  rows_ = std::make_unique<processors::Rows>(store_, meta_.digest, spec_.row_digest);
  processor_ = spec_.make(*rows_);
  for (auto [topic, partition] : spec_.inputs) {
    const TopicPartition full{names_.full(topic), partition};
    inputs_[full] = {topic, bare(full)};
  }
  const TopicPartition config{names_.full(Topic::kConfig), 0};
  inputs_[config] = {Topic::kConfig, bare(config)};
}

const std::pair<Topic, TopicPartition>& Fold::input_of(const TopicPartition& tp) {
  if (last_input_ == nullptr || last_tp_ != tp) {
    auto it = inputs_.find(tp);
    CHECK(it != inputs_.end());
    last_tp_ = tp;
    last_input_ = &it->second;
  }
  return *last_input_;
}

std::optional<Offset> Fold::position(const TopicPartition& tp) const {
  auto it = meta_.positions.find(bare(tp));
  return it == meta_.positions.end() ? std::nullopt : std::optional<Offset>(it->second);
}

void Fold::set_position(const TopicPartition& tp, Offset to) {
  meta_.positions[bare(tp)] = to;
  if (to > Offset(0)) meta_.began[bare(tp)] = to;
}

void Fold::enter(const std::string& lineage) {
  if (meta_.lineage == lineage) return;
  CHECK(!begun_);
  for (const auto& [tp, n] : std::exchange(meta_.written, {})) meta_.earlier[tp] += n;
  meta_.lineage = lineage;
}

WallTime Fold::begin(WallTime now) {
  if (!begun_) {
    begun_ = true;
    instant_ = planted(Bug::kInstantBackwards) ? now : std::max(now, meta_.instant);
    processor_->begin(instant_);
  }
  return instant_;
}

Result<void> Fold::add(const TopicPartition& tp, std::span<const RecordView> records) {
  CHECK(begun_);
  if (records.empty()) return {};
  const auto& [topic, place] = input_of(tp);
  auto added = guarded([&, &topic = topic, &place = place]() -> Result<void> {
    for (const RecordView& record : records) TRY(add_one(topic, place, record));
    return {};
  });
  if (!added) return added;
  // Of the input: compaction may take a record of config.v1.
  if (topic != Topic::kConfig) meta_.anchors[place] = {records.back().offset, processors::anchor_of(records.back())};
  return {};
}

/// Whether the record was folded before: a lost answer made its writer write it twice.
Result<bool> Fold::is_repeated(const TopicPartition& place, const RecordView& record) {
  const auto text = record.header(kHeaderWriter);
  const auto stamp = text ? WriterStamp::parse(*text) : std::nullopt;
  if (!stamp) return false;
  auto gap = [&](const std::string& after) {
    return Error{Errc::kIncomplete, "INPUT_GAP: folding " + to_string(place) + " at offset " + std::to_string(record.offset.value) +
                                        ": writer " + std::string(stamp->writer) + " continues with record " +
                                        std::to_string(stamp->n) + " after " + after};
  };
  const auto [last, first] = meta_.upstream.try_emplace(to_string(place) + "|" + std::string(stamp->writer), stamp->n - 1);
  // A writer's first records may lie before the place where this input begins. Nothing lies before offset 0.
  if (!planted(Bug::kGapAccepted)) {
    if (first && stamp->n > 0 && !meta_.began.contains(place)) return gap("none: its first ones are missing");
    if (stamp->n > last->second + 1) return gap("record " + std::to_string(last->second));
  }
  if (stamp->n <= last->second && !planted(Bug::kRepeatAccepted)) return true;
  last->second = stamp->n;
  return false;
}

Result<void> Fold::add_one(Topic topic, const TopicPartition& place, const RecordView& record) {
  processors::Input input{topic, place.partition, &record, {}};
  if (topic == Topic::kConfig) {
    input.cause = processors::record_id(record);
    const processors::Tally before = outputs_.tally;
    processor_->process(input, outputs_);
    outputs_.tally = before;  // the accounts are of the input, and every task reads config.v1
  } else {
    if (topic != Topic::kReports) {  // reports come from outside: whatever their headers say, it is no counter of ours
      TRY_ASSIGN(const bool repeated, is_repeated(place, record));
      if (repeated) {
        repeats_.push_back({{names_.full(place.topic), place.partition},
                            record.offset,
                            std::string(*record.header(kHeaderWriter)),
                            said_of(record)});
        return {};
      }
      input.cause = processors::record_id(record);
    }
    processor_->process(input, outputs_);
  }
  ++delivered_;
  ++staged_records_;
  for (; measured_outputs_ < outputs_.records.size(); ++measured_outputs_) {
    const processors::Output& output = outputs_.records[measured_outputs_];
    output_bytes_ += kOutputBytes + output.key.size() + output.value.size();
  }
  for (; measured_letters_ < outputs_.dead_letters.size(); ++measured_letters_) {
    const processors::DeadLetter& letter = outputs_.dead_letters[measured_letters_];
    output_bytes_ += kOutputBytes + letter.key.value_or("").size() + letter.value.value_or("").size() + letter.detail.size();
    for (const Header& h : letter.headers) output_bytes_ += h.name.size() + h.value.value_or("").size();
  }
  return {};
}

size_t Fold::staged_bytes() const { return output_bytes_ + rows_->staged_bytes() + processor_->held().commit; }

void Fold::advance(const TopicPartition& tp, Offset next) {
  const TopicPartition& place = input_of(tp).second;
  Offset& position = meta_.positions[place];
  if (next <= position) return;
  CHECK(begun_);
  if (!ranges_.empty() && ranges_.back().tp == place)
    ranges_.back().to = next;
  else
    ranges_.push_back({place, position, next});
  position = next;
}

Result<Commit> Fold::finish() {
  CHECK(begun_);
  auto ended = guarded([&]() -> Result<void> {
    processor_->before_commit(instant_, outputs_);
    return {};
  });
  if (!ended) return ended.error();

  Commit commit;
  Manifest& m = commit.manifest;
  std::vector<OutRecord>& records = commit.transaction.records;
  std::map<TopicPartition, OutputCount> counts;
  Sha256 hash;  // of the outputs
  const std::string writer = spec_.name + "/" + meta_.lineage + "/";
  TopicPartition last_to;  // records for one partition mostly follow each other
  std::pair<int64_t*, OutputCount*> last;
  auto stamp = [&](OutRecord& out) {
    if (last.first == nullptr || out.to != last_to) {
      last_to = out.to;
      const TopicPartition place = bare(out.to);
      int64_t& n = meta_.written[place];
      last = {&n, &counts.try_emplace(place, OutputCount{place, n, 0}).first->second};
    }
    ++last.second->count;
    out.headers.push_back({std::string(kHeaderWriter), writer + std::to_string((*last.first)++)});
  };
  auto hash_part = [&](std::string_view part) {
    char size[24];
    char* const end = std::to_chars(size, size + sizeof size - 1, part.size()).ptr;
    *end = ':';
    hash.add({size, static_cast<size_t>(end + 1 - size)});
    hash.add(part);
  };
  records.reserve(outputs_.records.size() + outputs_.dead_letters.size() + 1);
  for (processors::Output& output : outputs_.records) {
    OutRecord out;
    out.to.topic = names_.full(output.topic);
    out.to.partition = output.partition ? *output.partition : partition_of(output.key, names_.partitions(output.topic));
    out.timestamp = instant_;
    hash_part(names_.bare(out.to.topic));
    hash_part(output.key);
    hash_part(output.value);
    out.key = std::move(output.key);
    out.value = std::move(output.value);
    out.headers.reserve(3);
    out.headers.push_back({std::string(kHeaderId), output.id.hex()});
    out.headers.push_back({std::string(kHeaderCause), output.cause.hex()});
    hash_part(*out.headers[0].value);
    stamp(out);
    records.push_back(std::move(out));
  }
  for (const processors::DeadLetter& letter : outputs_.dead_letters) {
    OutRecord out = dead_letter_record(letter, spec_, names_, instant_);
    hash_part(names_.bare(out.to.topic));
    hash_part(out.value.value_or(""));
    hash_part(reason_code(letter.reason));
    stamp(out);
    records.push_back(std::move(out));
  }

  m.task = spec_.name;
  m.lineage = meta_.lineage;
  m.sequence = meta_.sequence + 1;
  m.ranges = std::move(ranges_);
  m.delivered = delivered_;
  m.instant = instant_;
  for (auto& [tp, count] : counts) m.outputs.push_back(count);
  m.output_hash = to_hex(as_bytes(hash.done()));
  m.state_digest = rows_->digest();
  m.previous = meta_.manifest_hash;
  m.code_version = kCodeVersion;

  OutRecord record;
  record.to = {names_.full(Topic::kManifests), spec_.manifest_partition};
  record.timestamp = instant_;
  record.key = spec_.name;
  record.value = m.encode();
  commit.manifest_hash = Manifest::hash(*record.value);
  records.push_back(std::move(record));

  OffsetCommit offsets{spec_.group, {}};
  for (const auto& [full, input] : inputs_)
    if (input.first != Topic::kConfig)
      if (auto it = meta_.positions.find(input.second); it != meta_.positions.end()) offsets.offsets[full] = it->second;
  commit.transaction.offsets = std::move(offsets);
  commit.transaction.metadata = [sequence = m.sequence, hash = commit.manifest_hash](std::span<const Offset> places) {
    return CommitMark{sequence, places.back(), hash}.encode();
  };

  processors::Tally& total = meta_.tally;
  const processors::Tally& part = outputs_.tally;
  total.delivered += part.delivered;
  total.accepted += part.accepted;
  total.unknown_fields += part.unknown_fields;
  for (size_t r = 0; r < kReasonCount; ++r) total.refused[r] += part.refused[r];
  return commit;
}

Result<void> Fold::persist(const Commit& commit, Offset manifest_offset) {
  meta_.sequence = commit.manifest.sequence;
  meta_.manifest_offset = manifest_offset;
  meta_.manifest_hash = commit.manifest_hash;
  meta_.instant = instant_;
  meta_.digest = rows_->digest();
  state::WriteBatch batch = rows_->take_changes();
  batch.put(std::string(kMetaKey), meta_.encode());
  if (auto written = store_.write(batch); !written && !planted(Bug::kFullDiskIgnored)) {
    store_error_ = written.error();
    return written;
  }
  processor_->after_commit();
  outputs_.clear();
  ranges_.clear();
  delivered_ = 0;
  staged_records_ = 0;
  output_bytes_ = measured_outputs_ = measured_letters_ = 0;
  repeats_.clear();
  begun_ = false;
  return {};
}

}  // namespace assay::streams
