#include "processors/processor.h"

#include "schemas/planted.h"

namespace assay::processors {

Rows::Rows(const state::Reader& stored, state::Digest digest, RowDigest row_digest)
    : stored_(stored), digest_(digest), row_digest_(row_digest) {}

std::optional<std::string> Rows::get(std::string_view key) const {
  if (auto it = staged_.find(key); it != staged_.end()) return it->second;
  auto value = stored_.get(key);
  if (!value && planted(Bug::kUnreadableIsAbsent)) return std::nullopt;
  if (!value) throw StateUnreadable{std::move(value.error())};
  return std::move(*value);
}

void Rows::put(std::string_view key, std::string value) {
  state::Digest change = row_digest_(key, value);
  if (auto old = get(key); old && !planted(Bug::kDigestNotUpdated)) change -= row_digest_(key, *old);
  put_known(key, std::move(value), change);
}

void Rows::erase(std::string_view key) {
  auto old = get(key);
  if (!old) return;
  state::Digest change;
  change -= row_digest_(key, *old);
  erase_known(key, change);
}

void Rows::put_known(std::string_view key, std::string value, state::Digest change) {
  digest_ += change;
  stage(key, std::move(value));
}

void Rows::erase_known(std::string_view key, state::Digest change) {
  digest_ += change;
  stage(key, std::nullopt);
}

void Rows::stage(std::string_view key, std::optional<std::string> value) {
  constexpr size_t kRowBytes = 160;  // a node of the map, its strings and what the allocator adds
  const size_t size = value ? value->size() : 0;
  auto [row, fresh] = staged_.try_emplace(std::string(key));
  staged_bytes_ += size + (fresh ? kRowBytes + key.size() : 0);
  staged_bytes_ -= row->second ? row->second->size() : 0;
  row->second = std::move(value);
}

void Rows::scan(std::string_view prefix, const std::function<bool(std::string_view, std::string_view)>& row) const {
  // Both sides are ordered: merge them, the staged row winning.
  auto staged = staged_.lower_bound(prefix);
  bool more = true;
  auto emit_staged_below = [&](std::optional<std::string_view> bound) {
    while (more && staged != staged_.end() && staged->first.starts_with(prefix) && (!bound || staged->first < *bound)) {
      if (staged->second) more = row(staged->first, *staged->second);
      ++staged;
    }
  };
  auto scanned = stored_.scan(prefix, [&](std::string_view key, std::string_view value) {
    emit_staged_below(key);
    if (!more) return false;
    if (staged != staged_.end() && staged->first == key) {
      if (staged->second) more = row(staged->first, *staged->second);
      ++staged;
    } else {
      more = row(key, value);
    }
    return more;
  });
  if (!scanned) throw StateUnreadable{std::move(scanned.error())};
  emit_staged_below(std::nullopt);
}

state::WriteBatch Rows::take_changes() {
  staged_bytes_ = 0;
  state::WriteBatch batch;
  batch.rows.reserve(staged_.size());
  while (!staged_.empty()) {
    auto row = staged_.extract(staged_.begin());
    batch.rows.emplace_back(std::move(row.key()), std::move(row.mapped()));
  }
  return batch;
}

Output audit_output(const Id& id, const Id& cause, std::string_view event_type, std::string_view actor, std::string_view ts_rfc3339,
                    Json source, Json data) {
  Json event = Json::object();
  event.set("id", "av-" + id.hex()).set("eventType", event_type).set("actor", actor).set("ts", ts_rfc3339);
  event.set("cause", cause.hex()).set("source", std::move(source)).set("data", std::move(data));
  return {Topic::kAudit, "av-" + id.hex(), canonical(event), id, cause};
}

}  // namespace assay::processors
