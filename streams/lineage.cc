#include "streams/lineage.h"

#include <charconv>

#include "schemas/hash.h"
#include "schemas/json.h"
#include "schemas/json_parse.h"
#include "streams/read_to_end.h"

namespace assay::streams {
namespace {

constexpr std::string_view kPlanKey = "plan";
constexpr std::string_view kOpenedKey = "opened";
constexpr std::string_view kMapKey = "map/";

std::string place_key(const TopicPartition& tp) { return tp.topic + "/" + std::to_string(tp.partition); }

std::string hash_of(std::string_view text) { return to_hex(as_bytes(sha256(text))); }

template <class Int>
bool read_number(std::string_view text, Int& value) {
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  return error == std::errc() && end == text.data() + text.size() && value >= 0;
}

/// The statement that is signed.
Json statement(int64_t number, const std::string& plan, const std::map<std::string, std::string>& maps, const std::string& signer) {
  Json hashes = Json::object();
  for (const auto& [key, text] : maps) hashes.set(key, hash_of(text));
  Json out = Json::object();
  out.set("lineage", std::to_string(number)).set("plan", hash_of(plan)).set("maps", std::move(hashes)).set("signer", signer);
  return out;
}

OutRecord record_of(const std::string& prefix, std::string_view key, std::string value, WallTime now) {
  OutRecord out;
  out.to = {prefix + std::string(kLineageTopic), 0};
  out.timestamp = now;
  out.key = std::string(key);
  out.value = std::move(value);
  return out;
}

/// Whether the opening statement is about this plan and these maps, and signed.
Result<Lineage> read_opening(const std::string& text, const std::string& plan, const std::map<std::string, std::string>& maps) {
  auto tampered = [](const std::string& what) {
    return Error{Errc::kTampered, "reading the lineage of a restored log from " + std::string(kLineageTopic) + ": " + what};
  };
  auto document = parse_json(text);
  if (!document || !document->is_object()) return tampered("the opening statement is no JSON object");
  Lineage out;
  const std::string signer(document->string_or("signer", ""));
  if (!read_number(document->string_or("lineage", ""), out.number) || out.number == 0) return tampered("it names no lineage");
  const Json expected = statement(out.number, plan, maps, signer);
  const Json* hashes = document->find("maps");
  if (hashes == nullptr || !hashes->is_object()) return tampered("it names no position maps");
  for (const auto& [key, hash] : hashes->as_object()) {
    auto map = maps.find(key);
    if (map == maps.end()) return tampered("the position map of " + key + " is missing");
    if (!hash.is_string() || hash.as_string() != hash_of(map->second))
      return tampered("the position map of " + key + " is not the one that was signed");
  }
  auto registry = SignerRegistry::parse(document->string_or("signers", ""));
  if (!registry) return tampered(registry.error().message);
  if (auto wrong = registry->check(signer, 0, sha256(canonical(expected)), document->string_or("signature", "")))
    return tampered(*wrong);
  for (const auto& [key, value] : maps) {
    const size_t slash = key.rfind('/');
    TopicPartition tp{key.substr(0, slash), 0};
    auto map = PositionMap::decode(value);
    if (slash == std::string::npos || !read_number(std::string_view(key).substr(slash + 1), tp.partition) || !map)
      return tampered("the position map of " + key + " cannot be read");
    out.maps[tp] = std::move(*map);
  }
  return out;
}

}  // namespace

std::string place_text(const TopicPartition& bare, Offset place) {
  return std::to_string(lineage_of(place)) + "/" + place_key(bare) + "/" + std::to_string(offset_in(place).value);
}

std::optional<Offset> read_place(std::string_view text, const TopicPartition& bare) {
  const size_t first = text.find('/'), last = text.rfind('/');
  if (first == std::string_view::npos || last <= first) return std::nullopt;
  int64_t lineage = 0, offset = 0;
  if (text.substr(first + 1, last - first - 1) != place_key(bare)) return std::nullopt;
  if (!read_number(text.substr(0, first), lineage) || !read_number(text.substr(last + 1), offset)) return std::nullopt;
  return place_in(lineage, Offset(offset));
}

std::string PositionMap::encode() const {
  std::string text;
  for (const auto& [place, offset] : points)
    text += (text.empty() ? "" : " ") + std::to_string(place.value) + ":" + std::to_string(offset.value);
  Json out = Json::object();
  out.set("from", std::to_string(first.start.value)).set("to", std::to_string(first.end.value));
  out.set("next", std::to_string(next.value)).set("records", std::to_string(records)).set("points", text);
  return canonical(out);
}

Result<PositionMap> PositionMap::decode(std::string_view text) {
  const Error bad{Errc::kCorrupt, "decoding a position map: a member is missing or has the wrong type"};
  TRY_ASSIGN(const Json in, parse_json(text));
  if (!in.is_object()) return bad;
  PositionMap map;
  for (auto [name, to] : {std::pair{"from", &map.first.start.value}, std::pair{"to", &map.first.end.value},
                          std::pair{"next", &map.next.value}, std::pair{"records", &map.records}})
    if (!read_number(in.string_or(name, ""), *to)) return bad;
  const Json* points = in.find("points");
  if (points == nullptr || !points->is_string()) return bad;
  for (std::string_view rest = points->as_string(); !rest.empty();) {
    const size_t space = std::min(rest.find(' '), rest.size()), colon = rest.find(':');
    std::pair<Offset, Offset> point;
    if (colon >= space || !read_number(rest.substr(0, colon), point.first.value) ||
        !read_number(rest.substr(colon + 1, space - colon - 1), point.second.value))
      return bad;
    map.points.push_back(point);
    rest.remove_prefix(std::min(space + 1, rest.size()));
  }
  return map;
}

Result<LineageStatements> read_lineage(Log& log, const std::string& prefix) {
  const std::string topic = prefix + std::string(kLineageTopic);
  LineageStatements out;
  auto partitions = partitions_of(log, topic);
  if (!partitions && partitions.error().code == Errc::kNotFound) return out;
  if (!partitions) return partitions.error();
  std::string opened;
  std::map<std::string, std::string> maps;
  TRY(read_to_end(log, *partitions, [&](const TopicPartition&, const RecordView& record) -> Result<bool> {
    const std::string_view key = record.key.value_or("");
    std::string value(record.value.value_or(""));
    if (key == kPlanKey)
      out.plan = std::move(value);
    else if (key == kOpenedKey)
      opened = std::move(value);
    else if (key.starts_with(kMapKey))
      maps[std::string(key.substr(kMapKey.size()))] = std::move(value);
    return true;
  }));
  if (opened.empty()) return out;
  TRY_ASSIGN(out.opened, read_opening(opened, out.plan, maps));
  return out;
}

OutRecord plan_record(const std::string& prefix, const std::string& plan, WallTime now) {
  return record_of(prefix, kPlanKey, plan, now);
}

Result<std::vector<OutRecord>> opening_records(const std::string& prefix, const Lineage& lineage, const std::string& plan,
                                               Signer& signer, WallTime now) {
  std::vector<OutRecord> out;
  std::map<std::string, std::string> maps;
  for (const auto& [tp, map] : lineage.maps) {
    const std::string key = place_key(tp);
    maps[key] = map.encode();
    out.push_back(record_of(prefix, std::string(kMapKey) + key, maps[key], now));
  }
  Json opening = statement(lineage.number, plan, maps, signer.key().signer_id);
  TRY_ASSIGN(const std::string signature, signer.sign(sha256(canonical(opening))));
  SignerRegistry registry;
  TRY(registry.add({signer.key(), {}, {}, false}));
  opening.set("signature", to_base64(signature)).set("signers", registry.to_json());
  out.push_back(record_of(prefix, kOpenedKey, canonical(opening), now));
  return out;
}

}  // namespace assay::streams
