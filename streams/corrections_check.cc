#include "streams/corrections_check.h"

#include "schemas/json_parse.h"

namespace assay::streams {

CorrectionsCheck::CorrectionsCheck(const VerifyOptions& options, VerifyReport& report) : options_(options), report_(report) {
  report_.personal_checked = options.personal.has_value();
  if (!options.personal) return;
  for (const processors::PersonalRow& row : *options.personal)
    if (!plaintexts_.emplace(row.reference, row).second) fault(Errc::kTampered, 0, row.event_id, row.reference + " is there twice");
}

void CorrectionsCheck::fault(Errc code, int64_t sequence, std::string_view event_id, std::string detail) {
  report_.findings.push_back({code, sequence, std::string(event_id), "the personal data", "personal", std::move(detail)});
}

void CorrectionsCheck::add(int64_t sequence, std::string_view event_id, std::string_view event_type, std::string_view payload) {
  const Result<Json> event = parse_json(payload);
  if (!event) return;  // a proven row's payload is one
  for (const processors::PersonalPlace& place : processors::personal_places(*event)) judge(sequence, event_id, place);
  const Json* data = event->find("data");
  if (data == nullptr || !processors::is_correction_event(event_type)) return;
  const std::string before = corrections_.last_erasure;
  (void)fold_correction(event_id, event_type, *data, corrections_);
  if (corrections_.last_erasure == before) return;
  for (const Json& one : data->find("commitments")->as_array())
    if (one.is_string()) erased_.emplace(one.as_string(), event_id);
}

void CorrectionsCheck::judge(int64_t sequence, std::string_view event_id, const processors::PersonalPlace& place) {
  ++report_.personal_references;
  if (!options_.personal) return;
  const auto given = plaintexts_.find(place.reference);
  if (given == plaintexts_.end()) {
    without_[place.reference] = {sequence, std::string(event_id)};
    return;
  }
  const processors::PersonalRow row = std::move(given->second);
  plaintexts_.erase(given);
  with_[place.reference] = {sequence, std::string(event_id)};
  if (row.event_id == event_id && row.field == place.field && processors::fits(row))
    ++report_.personal_plaintexts;
  else
    fault(Errc::kTampered, sequence, event_id,
          "what is given as the plaintext of its \"" + place.field + "\" is not what the row commits to");
}

void CorrectionsCheck::end(bool broken) {
  report_.reconciled = corrections_.reconciled;
  for (const auto& [id, hold] : corrections_.holds) report_.holds.push_back(id);
  report_.personal_erased = std::ssize(erased_);
  if (broken || !options_.personal) return;
  for (const auto& [reference, at] : without_)
    if (!erased_.contains(reference))
      fault(Errc::kIncomplete, at.sequence, at.event_id,
            "its " + reference + " has no plaintext, and no event says that it was erased");
  for (const auto& [reference, at] : with_)
    if (auto erased = erased_.find(reference); erased != erased_.end())
      fault(Errc::kIncomplete, at.sequence, at.event_id,
            "the plaintext of its " + reference + " is still there, which event " + erased->second +
                " says is erased: `assay audit erase` did not come to its end, run it again");
  for (const auto& [reference, row] : plaintexts_)
    fault(Errc::kTampered, 0, row.event_id, "there is a plaintext for " + reference + ", which no row holds");
}

}  // namespace assay::streams
