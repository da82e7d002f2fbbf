#include "processors/rules.h"

#include <algorithm>

#include "processors/intake.h"
#include "schemas/json_parse.h"

namespace assay::processors {
namespace {

std::string row_key(ConfigKind kind) { return "rules/" + std::string(config_kind_name(kind)); }

Result<std::shared_ptr<const ConfigEvent>> restore(std::string_view value, ConfigKind kind) {
  TRY_ASSIGN(auto event, read_config_event(value));
  if (event->kind != kind)
    return Error{Errc::kCorrupt,
                 "the row " + row_key(kind) + " holds rules of the kind " + std::string(config_kind_name(event->kind))};
  return event;
}

}  // namespace

FoldedRules::FoldedRules(Rows& rows, std::vector<ConfigKind> kinds) : rows_(rows), kinds_(std::move(kinds)) {
  for (ConfigKind kind : kinds_)
    if (auto value = rows_.get(row_key(kind))) {
      auto restored = restore(*value, kind);
      if (!restored) std::fprintf(stderr, "rules unreadable: %s\n", restored.error().message.c_str());
      CHECK(restored.has_value());  // deciding by other rules than those in force would be worse than to stop
      take(std::move(*restored));
    }
}

void FoldedRules::take(std::shared_ptr<const ConfigEvent> event) {
  set_rules(event->rules, event->kind, rules_);
  events_[event->kind] = std::move(event);
}

const std::string& FoldedRules::version(ConfigKind kind) const {
  static const std::map<ConfigKind, std::string> defaults = [] {
    std::map<ConfigKind, std::string> versions;
    for (ConfigKind each : kConfigKinds) versions[each] = rules_version(default_rules(), each);
    return versions;
  }();
  auto event = events_.find(kind);
  return event != events_.end() ? event->second->version : defaults.at(kind);
}

std::optional<ConfigKind> FoldedRules::fold(const Input& input, Outputs& outputs) {
  CHECK(input.topic == Topic::kConfig);
  const RecordView& record = *input.record;
  auto refuse = [&](Reason reason, std::string detail) {
    dead_letter(input, {reason, std::move(detail)}, outputs);
    return std::nullopt;
  };
  if (!record.value || record.value->empty()) return refuse(Reason::kEmpty, "the record has no value");
  auto event = read_config_event(*record.value);
  if (!event) {
    bool json = parse_json(*record.value).has_value();
    return refuse(json ? Reason::kWrongType : Reason::kNotJson, event.error().message);
  }
  accepted(outputs);
  const ConfigKind kind = (*event)->kind;
  if (std::find(kinds_.begin(), kinds_.end(), kind) == kinds_.end()) return std::nullopt;
  // Written anew rather than as it came: equal rules are equal rows, however their producer spelled them.
  rows_.put(row_key(kind), (*event)->text);
  take(std::move(*event));
  return kind;
}

Result<Rules> FoldedRules::read(const state::Reader& reader, std::span<const ConfigKind> kinds) {
  Rules rules = default_rules();
  for (ConfigKind kind : kinds) {
    TRY_ASSIGN(std::optional<std::string> value, reader.get(row_key(kind)));
    if (!value) continue;
    TRY_ASSIGN(const auto event, restore(*value, kind));
    set_rules(event->rules, kind, rules);
  }
  return rules;
}

}  // namespace assay::processors
