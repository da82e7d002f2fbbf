#include "processors/audit_corrections.h"

#include <algorithm>
#include <array>
#include <charconv>

#include "processors/personal.h"

namespace assay::processors {
namespace {

constexpr std::array<std::string_view, 5> kEvents = {"audit.reconciliation", "audit.hold_placed", "audit.hold_released",
                                                     "audit.erasure", "audit.erasure_refused"};

std::string text(const Json& data, std::string_view name) { return std::string(data.string_or(name, "")); }

std::optional<int64_t> decimal(const Json& data, std::string_view name) {
  const std::string_view digits = data.string_or(name, "");
  int64_t value = 0;
  const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (digits.empty() || error != std::errc() || end != digits.data() + digits.size() || value < 0) return std::nullopt;
  return value;
}

struct Range {
  int64_t from = 0, to = 0;
};
std::optional<Range> range_in(const Json& data) {
  const auto from = decimal(data, "from"), to = decimal(data, "to");
  if (!from || !to || *from >= *to) return std::nullopt;
  return Range{*from, *to};
}

std::optional<int32_t> partition_in(const Json& data) {
  const double number = data.number_or("partition", -1);
  if (!(number >= 0 && number <= INT32_MAX) || number != static_cast<double>(static_cast<int32_t>(number))) return std::nullopt;
  return static_cast<int32_t>(number);
}

bool is_scope(const Json& scope) {
  if (!scope.is_object()) return false;
  if (const Json* rows = scope.find("rows")) return scope.as_object().size() == 1 && range_in(*rows);
  if (const Json* all = scope.find("everything")) return scope.as_object().size() == 1 && *all == Json(true);
  if (!text(scope, "agent").empty()) return scope.as_object().size() == 1;
  if (!text(scope, "subject").empty()) return scope.as_object().size() == 1 && is_personal_reference(text(scope, "subject"));
  if (text(scope, "topic").empty()) return false;
  size_t members = 1;
  if (scope.find("partition") != nullptr) {
    if (!partition_in(scope)) return false;
    ++members;
  }
  if (scope.find("from") != nullptr || scope.find("to") != nullptr) {
    if (members == 1 || !range_in(scope)) return false;
    members += 2;
  }
  return scope.as_object().size() == members;
}

std::string place_text(std::string_view topic, int32_t partition, int64_t from, int64_t to) {
  return "offsets " + std::to_string(from) + " to " + std::to_string(to - 1) + " of " + std::string(topic) + "/" +
         std::to_string(partition);
}

using Ignored = std::optional<std::string>;

Ignored reconcile(std::string_view event_id, const Json& data, AuditCorrections& out) {
  const auto partition = partition_in(data);
  const auto range = range_in(data);
  Reconciled one{text(data, "topic"), partition.value_or(0), 0, 0, std::string(event_id), text(data, "reason")};
  if (one.topic.empty() || !partition || !range) return "it names no range of a topic";
  if (one.reason.empty() || text(data, "approvedBy").empty()) return "it does not say why, or who approved it";
  one.from = range->from;
  one.to = range->to;
  if (const Reconciled* before = find_reconciled(out, one.topic, one.partition, one.from, one.to))
    return place_text(before->topic, before->partition, before->from, before->to) + " were reconciled by event " + before->event_id;
  out.reconciled.push_back(std::move(one));
  return std::nullopt;
}

Ignored place_hold(std::string_view event_id, const Json& data, AuditCorrections& out) {
  const Json* scope = data.find("scope");
  Hold hold{text(data, "hold"), std::string(event_id), text(data, "reason"), scope == nullptr ? Json() : *scope};
  if (hold.id.empty() || hold.reason.empty()) return "it has no id, or does not say why";
  if (!is_scope(hold.scope)) return "it does not say what it holds";
  if (out.holds.contains(hold.id)) return "the hold " + hold.id + " is in force already";
  if (out.released.contains(hold.id)) return "there was a hold " + hold.id + " once; ids are never reused";
  std::string id = hold.id;
  out.holds.emplace(std::move(id), std::move(hold));
  return std::nullopt;
}

Ignored release_hold(const Json& data, AuditCorrections& out) {
  const auto hold = out.holds.find(text(data, "hold"));
  if (hold == out.holds.end()) return "there is no hold " + text(data, "hold");
  if (text(data, "reason").empty() || text(data, "approvedBy").empty()) return "it does not say why, or who approved it";
  out.released.insert(hold->first);
  out.holds.erase(hold);
  return std::nullopt;
}

/// Which rows a hold covers only the shell can know, which has the plaintexts. It says which holds it looked at; one that came in
/// between makes the erasure void, before anything is deleted.
Ignored erase(std::string_view event_id, const Json& data, AuditCorrections& out) {
  const Json* commitments = data.find("commitments");
  const Json* clear_of = data.find("clearOf");
  if (commitments == nullptr || !commitments->is_array() || clear_of == nullptr || !clear_of->is_array())
    return "it does not say what it erases";
  if (text(data, "reason").empty() || text(data, "approvedBy").empty()) return "it does not say why, or who approved it";
  for (const auto& [id, hold] : out.holds)
    if (std::ranges::find(clear_of->as_array(), Json(id)) == clear_of->as_array().end())
      return "the hold " + id + " was not looked at";
  out.last_erasure = event_id;
  return std::nullopt;
}

}  // namespace

bool is_correction_event(std::string_view event_type) { return std::ranges::find(kEvents, event_type) != kEvents.end(); }

std::optional<std::string> fold_correction(std::string_view event_id, std::string_view event_type, const Json& data,
                                           AuditCorrections& corrections) {
  CHECK(is_correction_event(event_type));
  if (!data.is_object()) return "its data is no object";
  if (event_type == "audit.reconciliation") return reconcile(event_id, data, corrections);
  if (event_type == "audit.hold_placed") return place_hold(event_id, data, corrections);
  if (event_type == "audit.hold_released") return release_hold(data, corrections);
  if (event_type == "audit.erasure") return erase(event_id, data, corrections);
  return std::nullopt;
}

const Reconciled* find_reconciled(const AuditCorrections& corrections, std::string_view topic, int32_t partition, int64_t from,
                                  int64_t to) {
  for (const Reconciled& one : corrections.reconciled)
    if (one.topic == topic && one.partition == partition && one.from < to && from < one.to) return &one;
  return nullptr;
}

const Hold* hold_against(const AuditCorrections& corrections, const ErasureRequest& request) {
  for (const auto& [id, hold] : corrections.holds) {
    if (hold.scope.find("everything") != nullptr) return &hold;
    if (const Json* rows = hold.scope.find("rows")) {
      const auto range = range_in(*rows);
      if (std::ranges::any_of(request.rows, [&](int64_t row) { return row >= range->from && row < range->to; })) return &hold;
    }
    const std::string subject = text(hold.scope, "subject");
    if (!subject.empty() && (request.references.contains(subject) || !request.known.contains(subject))) return &hold;
  }
  return nullptr;
}

const Hold* hold_on_records(const AuditCorrections& corrections) {
  for (const auto& [id, hold] : corrections.holds)
    if (hold.scope.find("everything") != nullptr || hold.scope.find("agent") != nullptr || hold.scope.find("topic") != nullptr)
      return &hold;
  return nullptr;
}

std::string scope_text(const Json& scope) {
  if (scope.find("everything") != nullptr) return "everything";
  if (const Json* rows = scope.find("rows")) {
    const Range range = range_in(*rows).value_or(Range{});
    return "rows " + std::to_string(range.from) + " to " + std::to_string(range.to - 1);
  }
  if (scope.find("agent") != nullptr) return "agent " + text(scope, "agent");
  if (scope.find("subject") != nullptr) return "subject " + text(scope, "subject");
  const std::string topic = text(scope, "topic");
  if (scope.find("partition") == nullptr) return "topic " + topic;
  const int32_t partition = partition_in(scope).value_or(0);
  if (const auto range = range_in(scope)) return place_text(topic, partition, range->from, range->to);
  return "topic " + topic + "/" + std::to_string(partition);
}

Json corrections_to_json(const AuditCorrections& corrections) {
  if (corrections == AuditCorrections()) return Json();
  Json out = Json::object();
  Json reconciled = Json::array(), holds = Json::array(), released = Json::array();
  for (const Reconciled& one : corrections.reconciled)
    reconciled.push_back(Json::object()
                             .set("topic", one.topic)
                             .set("partition", int64_t{one.partition})
                             .set("from", std::to_string(one.from))
                             .set("to", std::to_string(one.to))
                             .set("eventId", one.event_id)
                             .set("reason", one.reason));
  for (const auto& [id, hold] : corrections.holds)
    holds.push_back(
        Json::object().set("hold", id).set("eventId", hold.event_id).set("reason", hold.reason).set("scope", hold.scope));
  for (const std::string& id : corrections.released) released.push_back(id);
  return out.set("reconciled", std::move(reconciled))
      .set("holds", std::move(holds))
      .set("released", std::move(released))
      .set("lastErasure", corrections.last_erasure);
}

Result<AuditCorrections> corrections_from_json(const Json& document) {
  AuditCorrections out;
  if (document.is_null()) return out;
  Error bad{Errc::kCorrupt, "reading a chain state: \"corrections\" is not as it must be"};
  for (std::string_view name : {"reconciled", "holds", "released"})
    if (const Json* list = document.find(name); list == nullptr || !list->is_array()) return bad;
  for (const Json& one : document.find("reconciled")->as_array()) {
    const auto range = range_in(one);
    const auto partition = partition_in(one);
    if (!range || !partition) return bad;
    out.reconciled.push_back({text(one, "topic"), *partition, range->from, range->to, text(one, "eventId"), text(one, "reason")});
  }
  for (const Json& one : document.find("holds")->as_array()) {
    const Json* scope = one.find("scope");
    if (scope == nullptr || !is_scope(*scope)) return bad;
    out.holds.emplace(text(one, "hold"), Hold{text(one, "hold"), text(one, "eventId"), text(one, "reason"), *scope});
  }
  for (const Json& id : document.find("released")->as_array())
    if (id.is_string()) out.released.insert(id.as_string());
  out.last_erasure = text(document, "lastErasure");
  if (canonical(corrections_to_json(out)) != canonical(document)) return bad;
  return out;
}

}  // namespace assay::processors
