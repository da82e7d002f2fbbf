#include "processors/rules.h"

#include <algorithm>

#include "processors/intake.h"
#include "schemas/json_parse.h"

namespace assay::processors {
namespace {

std::string row_key(ConfigKind kind) { return "rules/" + std::string(config_kind_name(kind)); }

Result<void> restore(std::string_view value, ConfigKind kind, Rules& rules) {
  TRY_ASSIGN(ConfigKind found, fold_config_event(value, rules));
  if (found != kind)
    return Error{Errc::kCorrupt, "the row " + row_key(kind) + " holds rules of the kind " + std::string(config_kind_name(found))};
  return {};
}

}  // namespace

FoldedRules::FoldedRules(Rows& rows, std::vector<ConfigKind> kinds) : rows_(rows), kinds_(std::move(kinds)) {
  for (ConfigKind kind : kinds_)
    if (auto value = rows_.get(row_key(kind))) {
      auto restored = restore(*value, kind, rules_);
      if (!restored) std::fprintf(stderr, "rules unreadable: %s\n", restored.error().message.c_str());
      CHECK(restored.has_value());  // deciding by other rules than those in force would be worse than to stop
    }
}

std::optional<ConfigKind> FoldedRules::fold(const Input& input, Outputs& outputs) {
  CHECK(input.topic == Topic::kConfig);
  const RecordView& record = *input.record;
  auto refuse = [&](Reason reason, std::string detail) {
    dead_letter(input, {reason, std::move(detail)}, outputs);
    return std::nullopt;
  };
  if (!record.value || record.value->empty()) return refuse(Reason::kEmpty, "the record has no value");
  Rules next = rules_;
  auto kind = fold_config_event(*record.value, next);
  if (!kind) {
    bool json = parse_json(*record.value).has_value();
    return refuse(json ? Reason::kWrongType : Reason::kNotJson, kind.error().message);
  }
  accepted(outputs);
  if (std::find(kinds_.begin(), kinds_.end(), *kind) == kinds_.end()) return std::nullopt;
  rules_ = std::move(next);
  // Written anew rather than as it came: equal rules are equal rows, however their producer spelled them.
  rows_.put(row_key(*kind), encode_config_event(rules_, *kind));
  return *kind;
}

Result<Rules> FoldedRules::read(const state::Reader& reader, std::span<const ConfigKind> kinds) {
  Rules rules = default_rules();
  for (ConfigKind kind : kinds) {
    TRY_ASSIGN(std::optional<std::string> value, reader.get(row_key(kind)));
    if (value) TRY(restore(*value, kind, rules));
  }
  return rules;
}

}  // namespace assay::processors
