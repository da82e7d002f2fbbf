// The verdict on a chain in words: what was proven, what was not, and what did not hold.
#include <algorithm>

#include "schemas/time.h"
#include "streams/audit_verify.h"

namespace assay::streams {
namespace {

/// 812,044
std::string grouped(int64_t n) {
  const std::string digits = std::to_string(n);
  std::string out;
  for (size_t i = 0; i < digits.size(); ++i) {
    if (i > 0 && (digits.size() - i) % 3 == 0) out.push_back(',');
    out.push_back(digits[i]);
  }
  return out;
}

std::string quoted_row(int64_t sequence, const std::string& id) {
  return "row " + std::to_string(sequence) + (id.empty() ? " (its event id cannot be read)" : ", event " + id);
}

std::string range_text(const processors::Reconciled& one) {
  const std::string of = " of " + one.topic + "/" + std::to_string(one.partition);
  return one.to - one.from == 1 ? "offset " + std::to_string(one.from) + of
                                : "offsets " + std::to_string(one.from) + " to " + std::to_string(one.to - 1) + of;
}

/// What the chain says of evidence that is not there, so that nobody takes it for whole.
std::string absences_text(const VerifyReport& report) {
  std::string out;
  for (const processors::Reconciled& one : report.reconciled)
    out +=
        "  Reconciled, not whole: " + range_text(one) + " missing for good, says event " + one.event_id + ": " + one.reason + ".\n";
  for (const std::string& id : report.holds) out += "  Legal hold " + id + " is in force.\n";
  if (report.personal_references == 0) return out;
  out += "  Personal data: " + grouped(report.personal_references) + " commitments, ";
  if (!report.personal_checked) {
    out += "which were not held against their plaintexts";
    return out + (report.personal_erased > 0 ? "; " + grouped(report.personal_erased) + " were erased.\n" : ".\n");
  }
  out += grouped(report.personal_plaintexts) + " fit their plaintexts, " +
         grouped(report.personal_references - report.personal_plaintexts) + " have no plaintext";
  return out + (report.personal_erased > 0 ? " (" + grouped(report.personal_erased) + " were erased).\n" : ".\n");
}

std::string rows_text(const VerifyReport& report) {
  const std::string first = grouped(report.first_row);
  return report.rows == 1 ? "row " + first + " is" : "rows " + first + " to " + grouped(report.last_row()) + " are";
}

}  // namespace

int VerifyReport::exit_code() const {
  if (findings.empty()) return 0;
  const bool tampered = std::ranges::any_of(findings, [](const Finding& finding) { return finding.code == Errc::kTampered; });
  return schemas::exit_code(tampered ? Errc::kTampered : Errc::kIncomplete);
}

std::string sentence(const VerifyReport& report) {
  if (report.rows == 0) return "No row was proven.";
  std::string out = rows_text(report);
  out[0] = 'R';
  const bool part = report.signatures_checked && (report.signed_from > 0 || report.signed_to > 0);
  out += report.signatures_checked && !part ? " whole and signed" : " whole and linked";
  if (part)
    out += "; signed are rows " + grouped(std::max(report.signed_from, report.first_row)) + " to " +
           grouped(report.signed_to > 0 ? report.signed_to : report.last_row()) +
           ", the others were not looked at for that, as was asked for";
  else if (report.links_only)
    out += "; that each of them is signed was not looked at, as was asked for";
  else if (!report.signatures_checked)
    out += "; that they are signed is not proven: there are no keys";
  if (report.first_row > 1) out += "; what stands before row " + grouped(report.first_row) + " was not looked at";
  if (report.earlier_head_reached) out += "; they continue the chain of the earlier head";
  if (!report.reconciled.empty())
    out += "; records of " + grouped(std::ssize(report.reconciled)) +
           (report.reconciled.size() == 1 ? " range that they should cover are" : " ranges that they should cover are") +
           " missing for good and reconciled, of which nothing is proven";
  const bool seen = report.witnessed_rows > 0;
  const std::string by =
      seen ? " was witnessed by " + report.witnesses + " at " + format_rfc3339_ms(report.witnessed_s * 1000) : "";
  if (report.verified() && seen && report.witnessed_rows == report.last_row())
    return out + "; that row " + grouped(report.last_row()) + " was then the last" + by + ".";
  out += "; that nothing follows row " + grouped(report.last_row()) + " is not proven: ";
  if (report.checkpoint_rows == 0)
    out += "no checkpoint after it";
  else if (report.checkpoint_rows == report.last_row())
    out += "the checkpoint of that row is not cosigned by enough witnesses";
  else
    out += "no checkpoint after it, the last one is of row " + grouped(report.checkpoint_rows);
  if (seen) out += "; row " + grouped(report.witnessed_rows) + by;
  if (report.manifest_checked) out += "; there is the word of the manifest's signer";
  return out + ".";
}

std::string to_text(const VerifyReport& report) {
  std::string out;
  auto proven = [&](const char* label, const char* unit) {
    out += label + std::to_string(report.rows) + unit;
    if (report.rows > 0) {
      out += "\n  first      " + format_rfc3339_us(report.first_created_at_us) + "  " + report.first_id;
      out += "\n  last       " + format_rfc3339_us(report.last_created_at_us) + "  " + report.last_id;
      out += "\n  head hash  " + report.head_hash;
    }
    out += '\n';
  };
  if (report.verified()) {
    out += "Audit chain verified\n";
    proven("  rows       ", "");
  } else {
    out += report.exit_code() == schemas::exit_code(Errc::kTampered) ? "Audit chain NOT verified: tampered with\n"
                                                                     : "Audit chain NOT verified: evidence is missing\n";
    for (const Finding& finding : report.findings) {
      out +=
          "  " + (finding.sequence > 0 ? quoted_row(finding.sequence, finding.event_id) + ", at " : std::string()) + finding.place;
      out += ": check \"" + finding.check + "\" failed: " + finding.detail + '\n';
    }
    proven("Still proven, from the first row: ", report.rows == 1 ? " row" : " rows");
  }
  if (report.equivalent_rows > 0)
    out += "  Equivalent: " + grouped(report.equivalent_rows) + (report.equivalent_rows == 1 ? " row is" : " rows are") +
           " written otherwise than signed, with the same meaning (the canonical form is equal); the first: event " +
           report.first_equivalent + ".\n";
  out += absences_text(report);
  out += "  " + sentence(report) + '\n';
  if (!report.signatures_checked && !report.links_only)
    out += "  No signature was checked: there are no keys to check them with.\n";
  else if (!report.keys_pinned && !report.links_only)
    out += "  The keys were not pinned: they came with the rows. --signers FILE gives keys that you trust.\n";
  if (report.witnessed_rows > 0 && !report.policy_pinned)  // of others nothing is believed
    out += "  The keys of log and witnesses were not pinned: they came with the rows. --policy FILE gives those that you trust.\n";
  return out;
}

Json to_json(const VerifyReport& report) {
  Json findings = Json::array();
  for (const Finding& finding : report.findings) {
    Json one = Json::object();
    one.set("place", finding.place).set("check", finding.check).set("detail", finding.detail);
    if (finding.sequence > 0) one.set("sequence", std::to_string(finding.sequence)).set("eventId", finding.event_id);
    one.set("verdict", finding.code == Errc::kTampered ? "tampered" : "missing");
    findings.push_back(std::move(one));
  }
  const bool any = report.rows > 0;
  Json out = Json::object();
  out.set("verified", report.verified()).set("rows", std::to_string(report.rows));
  out.set("firstRow", std::to_string(report.first_row));
  out.set("firstId", any ? Json(report.first_id) : Json()).set("lastId", any ? Json(report.last_id) : Json());
  out.set("firstCreatedAt", any ? Json(format_rfc3339_us(report.first_created_at_us)) : Json());
  out.set("lastCreatedAt", any ? Json(format_rfc3339_us(report.last_created_at_us)) : Json());
  out.set("headHash", any ? Json(report.head_hash) : Json()).set("keysPinned", report.keys_pinned);
  out.set("signaturesChecked", report.signatures_checked).set("findings", std::move(findings));
  out.set("signedFrom", report.signed_from > 0 ? Json(std::to_string(report.signed_from)) : Json());
  out.set("signedTo", report.signed_to > 0 ? Json(std::to_string(report.signed_to)) : Json());
  out.set("mode", report.links_only ? "links" : "signatures").set("equivalentRows", std::to_string(report.equivalent_rows));
  out.set("checkpoints", std::to_string(report.checkpoints)).set("checkpointRows", std::to_string(report.checkpoint_rows));
  out.set("witnessedRows", std::to_string(report.witnessed_rows)).set("witnesses", report.witnesses);
  out.set("witnessedAt", report.witnessed_rows > 0 ? Json(format_rfc3339_ms(report.witnessed_s * 1000)) : Json());
  Json reconciled = Json::array();
  for (const processors::Reconciled& one : report.reconciled)
    reconciled.push_back(Json::object()
                             .set("topic", one.topic)
                             .set("partition", int64_t{one.partition})
                             .set("from", std::to_string(one.from))
                             .set("to", std::to_string(one.to))
                             .set("eventId", one.event_id)
                             .set("reason", one.reason));
  Json holds = Json::array();
  for (const std::string& id : report.holds) holds.push_back(id);
  out.set("reconciled", std::move(reconciled)).set("holds", std::move(holds));
  out.set("personal", Json::object()
                          .set("commitments", report.personal_references)
                          .set("checked", report.personal_checked)
                          .set("fitting", report.personal_plaintexts)
                          .set("erased", report.personal_erased));
  out.set("policyPinned", report.policy_pinned)
      .set("earlierHeadReached", report.earlier_head_reached)
      .set("sentence", sentence(report));
  return out;
}

}  // namespace assay::streams
