#include "replay/archive.h"

#include <charconv>
#include <cstdio>

#include "schemas/json_parse.h"
#include "schemas/time.h"

namespace assay::replay {
namespace {

constexpr int kFormat = 1;
constexpr std::string_view kRoot = "archive.json";

std::string digits(int64_t n, int width) {
  char text[32];
  std::snprintf(text, sizeof text, "%0*lld", width, static_cast<long long>(n));
  return text;
}

std::string folder(std::string_view kind, const TopicPartition& tp) {
  return std::string(kind) + "/" + tp.topic + "/" + std::to_string(tp.partition) + "/";
}

std::string entry_name(const TopicPartition& tp, int64_t sequence) {
  return folder("entries", tp) + digits(sequence, 12) + ".json";
}

/// "<kind>/<topic>/<partition>/…" taken apart.
std::optional<TopicPartition> partition_in(std::string_view name) {
  const size_t a = name.find('/'), b = name.find('/', a + 1), c = name.find('/', b + 1);
  if (a == std::string_view::npos || b == std::string_view::npos || c == std::string_view::npos) return std::nullopt;
  TopicPartition tp{std::string(name.substr(a + 1, b - a - 1)), 0};
  const std::string_view number = name.substr(b + 1, c - b - 1);
  auto [end, error] = std::from_chars(number.data(), number.data() + number.size(), tp.partition);
  if (error != std::errc() || end != number.data() + number.size() || tp.partition < 0) return std::nullopt;
  return tp;
}

Error at(const streams::ObjectStore& objects, const std::string& name, Errc code, const std::string& what) {
  return {code, "reading " + name + " of the archive in " + objects.describe() + ": " + what};
}

}  // namespace

std::string record_anchor(const RecordView& record) {
  std::string text = std::to_string(record.timestamp.value) + "|";
  for (const auto& part : {record.key, record.value}) {
    text += part ? std::to_string(part->size()) + ":" : "-";
    if (part) text += *part;
  }
  const UInt128 hash = xxh3_128(text);
  std::string bytes;
  for (int shift = 120; shift >= 0; shift -= 8) bytes.push_back(static_cast<char>(static_cast<uint8_t>(hash >> shift)));
  return to_hex(bytes);
}

std::string ArchiveEntry::encode(bool with_signature) const {
  Json out = Json::object();
  auto number = [](int64_t n) { return std::to_string(n); };
  out.set("cluster", cluster).set("sequence", number(sequence)).set("topic", segment.topic).set("partition", segment.partition);
  out.set("first", number(segment.first.value)).set("next", number(segment.next.value)).set("records", number(segment.records));
  out.set("rawBytes", number(segment.raw_bytes)).set("minTimestamp", number(segment.min_timestamp.value));
  out.set("maxTimestamp", number(segment.max_timestamp.value)).set("indexSha256", segment.index_sha256).set("object", object);
  out.set("bytes", number(bytes)).set("sha256", sha256).set("anchor", anchor).set("previous", previous).set("signer", signer);
  if (with_signature) out.set("signature", signature);
  return canonical(out);
}

Result<ArchiveEntry> ArchiveEntry::decode(std::string_view text) {
  TRY_ASSIGN(const Json in, parse_json(text));
  std::string wrong;
  auto word = [&](std::string_view key) {
    const Json* member = in.find(key);
    if (member == nullptr || !member->is_string()) {
      wrong = key;
      return std::string();
    }
    return member->as_string();
  };
  auto number = [&](std::string_view key) {
    const std::string digits = word(key);
    int64_t n = 0;
    auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), n);
    if (error != std::errc() || end != digits.data() + digits.size()) wrong = key;
    return n;
  };
  ArchiveEntry e;
  e.cluster = word("cluster");
  e.sequence = number("sequence");
  e.segment.topic = word("topic");
  e.segment.partition = static_cast<int32_t>(in.number_or("partition", -1));
  e.segment.first = Offset(number("first"));
  e.segment.next = Offset(number("next"));
  e.segment.records = number("records");
  e.segment.raw_bytes = number("rawBytes");
  e.segment.min_timestamp = WallTime(number("minTimestamp"));
  e.segment.max_timestamp = WallTime(number("maxTimestamp"));
  e.segment.index_sha256 = word("indexSha256");
  e.object = word("object");
  e.bytes = number("bytes");
  e.sha256 = word("sha256");
  e.anchor = word("anchor");
  e.previous = word("previous");
  e.signer = word("signer");
  e.signature = word("signature");
  if (!wrong.empty())
    return Error{Errc::kCorrupt, "decoding an archive entry: member " + wrong + " is missing or has the wrong type"};
  if (e.encode() != text) return Error{Errc::kCorrupt, "decoding an archive entry: it is not in canonical form"};
  return e;
}

Result<std::unique_ptr<Archive>> Archive::open(std::shared_ptr<streams::ObjectStore> objects) {
  auto root = objects->get(std::string(kRoot));
  if (!root && root.error().code == Errc::kNotFound)
    return Error{Errc::kIncomplete, "opening the archive in " + objects->describe() + ": there is none"};
  if (!root) return root.error();
  auto document = parse_json(*root);
  if (!document) return at(*objects, std::string(kRoot), Errc::kCorrupt, document.error().message);
  if (const double format = document->number_or("format", 0); format != kFormat)
    return at(*objects, std::string(kRoot), format > kFormat ? Errc::kRefused : Errc::kCorrupt,
              "its format is " + canonical(Json(format)) + ", this version reads " + std::to_string(kFormat));
  std::unique_ptr<Archive> archive(new Archive(std::move(objects), std::string(document->string_or("cluster", ""))));
  TRY(archive->read_signers());
  return archive;
}

Result<std::unique_ptr<Archive>> Archive::open_for(std::shared_ptr<streams::ObjectStore> objects, const std::string& cluster,
                                                   WallTime now) {
  const std::string root =
      canonical(Json::object().set("format", kFormat).set("cluster", cluster).set("created", format_rfc3339_ms(now.value)));
  TRY(objects->put_new(std::string(kRoot), root));
  TRY_ASSIGN(auto archive, open(std::move(objects)));
  if (archive->cluster_ != cluster)
    return Error{Errc::kRefused, "archiving into " + archive->objects_->describe() + ": it belongs to cluster " +
                                     archive->cluster_ + ", the log is that of cluster " + cluster +
                                     "; give each log an archive of its own"};
  return archive;
}

Result<void> Archive::read_signers() {
  TRY_ASSIGN(const auto names, objects_->list("signers/"));
  for (const std::string& name : names) {
    TRY_ASSIGN(const std::string text, objects_->get(name));
    TRY_ASSIGN(const auto one, streams::SignerRegistry::parse(text));
    for (const auto& [id, entry] : one.entries()) TRY(signers_.add(entry));
  }
  return {};
}

Result<std::map<std::string, int32_t>> Archive::topics() {
  std::map<std::string, int32_t> out;
  TRY_ASSIGN(const auto names, objects_->list("topics/"));
  for (const std::string& name : names) {
    TRY_ASSIGN(const std::string text, objects_->get(name));
    TRY_ASSIGN(const Json document, parse_json(text));
    out[std::string(document.string_or("topic", ""))] = static_cast<int32_t>(document.number_or("partitions", 0));
  }
  return out;
}

Result<void> Archive::note_topic(const std::string& bare, int32_t partitions) {
  const std::string name = "topics/" + bare + ".json";
  const std::string text = canonical(Json::object().set("topic", bare).set("partitions", partitions));
  TRY_ASSIGN(const bool stored, objects_->put_new(name, text));
  if (stored) return {};
  TRY_ASSIGN(const std::string before, objects_->get(name));
  if (before != text)
    return at(*objects_, name, Errc::kRefused,
              "the topic has " + std::to_string(partitions) + " partitions now, archived was " + before);
  return {};
}

Result<void> Archive::note_signer(const streams::SignerKey& key) {
  streams::SignerRegistry one;
  TRY(one.add({key, {}, {}, false}));
  TRY(objects_->put_new("signers/" + key.signer_id + ".json", one.to_json()));
  return signers_.add({key, {}, {}, false});
}

Result<ArchiveEntry> Archive::read_entry(const std::string& name, const TopicPartition& tp, const ArchiveEntry* before,
                                         const streams::SignerRegistry& signers) {
  auto text = objects_->get(name);
  if (!text && text.error().code == Errc::kNotFound) return at(*objects_, name, Errc::kIncomplete, "the entry is missing");
  if (!text) return text.error();
  auto entry = ArchiveEntry::decode(*text);
  if (!entry) return at(*objects_, name, Errc::kTampered, entry.error().message);
  const int64_t expected = before == nullptr ? 1 : before->sequence + 1;
  if (entry->segment.topic != tp.topic || entry->segment.partition != tp.partition || entry->sequence != expected)
    return at(*objects_, name, Errc::kTampered,
              "it is entry " + std::to_string(entry->sequence) + " of " + entry->segment.topic + "-" +
                  std::to_string(entry->segment.partition));
  if (entry->cluster != cluster_)
    return at(*objects_, name, Errc::kTampered, "it is of cluster " + entry->cluster + ", the archive of " + cluster_);
  if (auto wrong = signers.check(entry->signer, 0, schemas::sha256(entry->encode(false)), entry->signature))
    return at(*objects_, name, Errc::kTampered, *wrong);
  if (entry->previous != (before == nullptr ? std::string() : to_hex(as_bytes(schemas::sha256(before->encode())))))
    return at(*objects_, name, Errc::kTampered, "it does not follow the entry before");
  if (before != nullptr && entry->segment.first != before->segment.next)
    return at(*objects_, name, Errc::kTampered,
              "it begins at offset " + std::to_string(entry->segment.first.value) + ", the entry before ends at " +
                  std::to_string(before->segment.next.value));
  return entry;
}

Result<ArchiveChain> Archive::chain(const TopicPartition& bare, const streams::SignerRegistry* pinned, ArchiveChain* proven) {
  TRY_ASSIGN(const auto names, objects_->list(folder("entries", bare)));
  ArchiveChain chain;
  for (size_t n = 0; n < names.size(); ++n) {
    const auto sequence = static_cast<int64_t>(n) + 1;
    if (names[n] != entry_name(bare, sequence))
      return at(*objects_, entry_name(bare, sequence), Errc::kIncomplete, "the entry is missing, " + names[n] + " is there");
    TRY_ASSIGN(ArchiveEntry entry,
               read_entry(names[n], bare, chain.empty() ? nullptr : &chain.back(), pinned != nullptr ? *pinned : signers_));
    if (proven != nullptr) proven->push_back(entry);
    chain.push_back(std::move(entry));
  }
  return chain;
}

Result<std::map<TopicPartition, ArchiveChain>> Archive::chains(const streams::SignerRegistry* pinned) {
  std::map<TopicPartition, ArchiveChain> out;
  TRY_ASSIGN(const auto names, objects_->list("entries/"));
  for (const std::string& name : names) {
    auto tp = partition_in(name);
    if (!tp) return at(*objects_, name, Errc::kTampered, "no entry has such a name");
    if (out.contains(*tp)) continue;
    TRY_ASSIGN(out[*tp], chain(*tp, pinned));
  }
  return out;
}

Result<std::optional<ArchiveEntry>> Archive::append(const std::string& file, const SegmentInfo& segment, const std::string& anchor,
                                                    const ArchiveEntry* before, streams::Signer& signer) {
  const TopicPartition tp{segment.topic, segment.partition};
  ArchiveEntry entry;
  entry.cluster = cluster_;
  entry.sequence = before == nullptr ? 1 : before->sequence + 1;
  entry.segment = segment;
  entry.bytes = static_cast<int64_t>(file.size());
  entry.sha256 = to_hex(as_bytes(schemas::sha256(file)));
  entry.object = folder("segments", tp) + digits(segment.first.value, 20) + "-" + digits(segment.next.value, 20) + "-" +
                 entry.sha256.substr(0, 16) + ".seg";
  entry.anchor = anchor;
  entry.previous = before == nullptr ? std::string() : to_hex(as_bytes(schemas::sha256(before->encode())));
  entry.signer = signer.key().signer_id;
  TRY_ASSIGN(const std::string signature, signer.sign(schemas::sha256(entry.encode(false))));
  entry.signature = to_base64(signature);
  // The segment first: an entry never names what is not there. That the name is taken means the same bytes, by their hash.
  TRY(objects_->put_new(entry.object, file));
  TRY_ASSIGN(const bool stored, objects_->put_new(entry_name(tp, entry.sequence), entry.encode()));
  if (!stored) return std::optional<ArchiveEntry>();
  return std::optional<ArchiveEntry>(std::move(entry));
}

Result<SegmentReader> Archive::segment(const ArchiveEntry& entry) {
  auto reader = SegmentReader::open(
      static_cast<uint64_t>(entry.bytes),
      [objects = objects_, name = entry.object](uint64_t from, uint64_t size) { return objects->get_range(name, from, size); });
  if (!reader && reader.error().code == Errc::kNotFound)
    return at(*objects_, entry.object, Errc::kIncomplete, "the segment is missing");
  if (!reader) return at(*objects_, entry.object, reader.error().code, reader.error().message);
  if (reader->info() != entry.segment) return at(*objects_, entry.object, Errc::kTampered, "it is not the segment that was signed");
  return reader;
}

Result<SegmentReader> Archive::whole_segment(const ArchiveEntry& entry) {
  auto file = objects_->get(entry.object);
  if (!file && file.error().code == Errc::kNotFound)
    return at(*objects_, entry.object, Errc::kIncomplete, "the segment is missing");
  if (!file) return file.error();
  if (to_hex(as_bytes(schemas::sha256(*file))) != entry.sha256)
    return at(*objects_, entry.object, Errc::kTampered, "it is not the segment that was signed");
  auto bytes = std::make_shared<const std::string>(std::move(*file));
  return SegmentReader::open(bytes->size(), [bytes](uint64_t from, uint64_t size) -> Result<std::string> {
    if (from > bytes->size() || size > bytes->size() - from) return Error{Errc::kCorrupt, "the segment ends before"};
    return bytes->substr(from, size);
  });
}

}  // namespace assay::replay
