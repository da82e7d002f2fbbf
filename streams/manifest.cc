#include "streams/manifest.h"

#include <charconv>

#include "schemas/json_parse.h"
#include "schemas/time.h"

namespace assay::streams {
namespace {

Json tp_json(const TopicPartition& tp) { return Json::object().set("topic", tp.topic).set("partition", int64_t{tp.partition}); }

std::optional<int64_t> parse_int(std::string_view text) {
  int64_t value = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

/// Reads members and remembers whether each was there.
class Members {
 public:
  explicit Members(const Json& object) : object_(object) {}
  std::string text(std::string_view key) {
    const Json* member = object_.find(key);
    if (member == nullptr || !member->is_string()) sound_ = false;
    return member != nullptr && member->is_string() ? member->as_string() : std::string();
  }
  int64_t decimal(std::string_view key) {
    auto value = parse_int(text(key));
    if (!value) sound_ = false;
    return value.value_or(0);
  }
  int64_t number(std::string_view key) {
    const Json* member = object_.find(key);
    if (member == nullptr || !member->is_number()) sound_ = false;
    return member != nullptr && member->is_number() ? static_cast<int64_t>(member->as_number()) : 0;
  }
  const Json::Array& array(std::string_view key) {
    static const Json::Array kNone;
    const Json* member = object_.find(key);
    if (member == nullptr || !member->is_array()) sound_ = false;
    return member != nullptr && member->is_array() ? member->as_array() : kNone;
  }
  TopicPartition tp() { return {text("topic"), static_cast<int32_t>(number("partition"))}; }
  bool sound() const { return sound_; }

 private:
  const Json& object_;
  bool sound_ = true;
};

}  // namespace

std::string Manifest::encode() const {
  Json::Array range_array;
  for (const InputRange& r : ranges)
    range_array.push_back(tp_json(r.tp).set("from", std::to_string(r.from.value)).set("to", std::to_string(r.to.value)));
  Json::Array output_array;
  for (const OutputCount& o : outputs)
    output_array.push_back(tp_json(o.tp).set("first", std::to_string(o.first)).set("count", std::to_string(o.count)));
  Json document = Json::object();
  document.set("task", task)
      .set("lineage", lineage)
      .set("sequence", std::to_string(sequence))
      .set("ranges", std::move(range_array));
  document.set("delivered", std::to_string(delivered)).set("instant", format_rfc3339_ms(instant.value));
  document.set("outputs", std::move(output_array)).set("outputHash", output_hash).set("stateDigest", state_digest.hex());
  document.set("previous", previous).set("codeVersion", code_version);
  return canonical(document);
}

Result<Manifest> Manifest::decode(std::string_view value) {
  const Error bad{Errc::kCorrupt, "decoding a manifest: a member is missing or has the wrong type"};
  TRY_ASSIGN(Json document, parse_json(value));
  Members in(document);
  Manifest m;
  m.task = in.text("task");
  m.lineage = in.text("lineage");
  m.sequence = in.decimal("sequence");
  m.delivered = in.decimal("delivered");
  auto instant_ms = parse_rfc3339_ms(in.text("instant"));
  m.output_hash = in.text("outputHash");
  auto digest = state::Digest::parse(in.text("stateDigest"));
  m.previous = in.text("previous");
  m.code_version = in.text("codeVersion");
  if (!instant_ms || !digest) return bad;
  m.instant = WallTime(*instant_ms);
  m.state_digest = *digest;
  for (const Json& r : in.array("ranges")) {
    Members range(r);
    m.ranges.push_back({range.tp(), Offset(range.decimal("from")), Offset(range.decimal("to"))});
    if (!range.sound()) return bad;
  }
  for (const Json& o : in.array("outputs")) {
    Members output(o);
    m.outputs.push_back({output.tp(), output.decimal("first"), output.decimal("count")});
    if (!output.sound()) return bad;
  }
  if (!in.sound()) return bad;
  return m;
}

std::string Manifest::hash(std::string_view encoded) { return to_hex(as_bytes(sha256(encoded))); }

std::string CommitMark::encode() const {
  return std::to_string(sequence) + ":" + std::to_string(manifest_offset.value) + ":" + manifest_hash;
}

Result<CommitMark> CommitMark::decode(std::string_view text) {
  const size_t first = text.find(':');
  const size_t second = first == std::string_view::npos ? first : text.find(':', first + 1);
  const Error bad{Errc::kCorrupt, "decoding committed metadata \"" + std::string(text) + "\": not sequence:manifest-offset:hash"};
  if (second == std::string_view::npos) return bad;
  auto sequence = parse_int(text.substr(0, first));
  auto offset = parse_int(text.substr(first + 1, second - first - 1));
  if (!sequence || !offset) return bad;
  return CommitMark{*sequence, Offset(*offset), std::string(text.substr(second + 1))};
}

}  // namespace assay::streams
