#include "tools/audit_settings.h"

#include <algorithm>

#include "processors/personal.h"
#include "schemas/time.h"
#include "streams/note.h"

namespace assay::tools {
namespace {

void read_personal_fields(Members& personal, std::vector<std::string>& fields) {
  const Json* list = personal.take("fields");
  if (list == nullptr) return;
  const auto known = processors::personal_fields();
  fields.clear();
  if (!list->is_array()) return personal.mistyped("fields", "an array of strings", *list);
  for (const Json& field : list->as_array()) {
    if (field.is_string() && std::ranges::find(known, field.as_string()) != known.end()) {
      fields.push_back(field.as_string());
      continue;
    }
    std::string names;
    for (std::string_view name : known) names += (names.empty() ? "" : ", ") + std::string(name);
    personal.refuse("fields", "may name " + names +
                                  ", which people fill in; what processors write names agents by ids, which other" +
                                  " topics keep, is " + (field.is_string() ? quoted(field.as_string()) : canonical(field)));
  }
}

}  // namespace

void read_audit(Members& table, AuditSettings& audit) {
  table.choice("signer", audit.signer, {"file", "pkcs11", "proxy", "kms"});
  table.text("signer_id", audit.signer_id);
  if (audit.signer_id.empty() || audit.signer_id.size() > 256) table.refuse("signer_id", "must have 1 to 256 bytes");
  table.text("signer_key", audit.signer_key);
  table.table("pkcs11", [&](Members& pkcs11) {
    pkcs11.text("module", audit.pkcs11.module);
    pkcs11.text("token", audit.pkcs11.token);
    pkcs11.text("key", audit.pkcs11.key);
    pkcs11.text("pin", audit.pkcs11.pin);
    pkcs11.flag("create", audit.pkcs11.create);
    pkcs11.choice("algorithm", audit.pkcs11.algorithm, {"ed25519", "rsa-sha256"});
  });
  table.table("proxy", [&](Members& proxy) {
    proxy.text("url", audit.proxy.url);
    if (!audit.proxy.url.empty() && !audit.proxy.url.starts_with("https://"))
      proxy.refuse("url", "must be https://HOST:PORT, is " + quoted(audit.proxy.url));
    proxy.text("ca", audit.proxy.ca);
    proxy.text("cert", audit.proxy.cert);
    proxy.text("key", audit.proxy.key);
  });
  table.table("kms", [&](Members& kms) {
    kms.text("key_id", audit.kms.key_id);
    kms.text("region", audit.kms.region);
    kms.text("endpoint", audit.kms.endpoint);
    if (!audit.kms.endpoint.empty() && !audit.kms.endpoint.starts_with("https://") && !audit.kms.endpoint.starts_with("http://"))
      kms.refuse("endpoint", "must be https://HOST:PORT or empty for that of the region, is " + quoted(audit.kms.endpoint));
    kms.text("credentials", audit.kms.credentials);
  });
  table.table("emergency", [&](Members& emergency) {
    emergency.choice("signer", audit.emergency.signer, {"", "file", "pkcs11", "proxy", "kms"});
    emergency.text("signer_id", audit.emergency.signer_id);
    if (audit.emergency.signer_id.empty() || audit.emergency.signer_id == audit.signer_id)
      emergency.refuse("signer_id", "must be an id of its own, other than audit.signer_id");
    emergency.text("place", audit.emergency.place);
  });
  table.table("rotation", [&](Members& rotation) {
    rotation.duration("every", audit.rotation.every_ms);
    rotation.duration("overlap", audit.rotation.overlap_ms);
  });
  table.table("personal", [&](Members& personal) { read_personal_fields(personal, audit.personal_fields); });
  table.duration("sign_timeout", audit.sign_timeout_ms);
  if (audit.sign_timeout_ms < 1) table.refuse("sign_timeout", "must be longer than nothing, such as \"10s\"");
  table.count("sign_attempts", audit.sign_attempts);
  if (audit.sign_attempts < 1 || audit.sign_attempts > 20) table.refuse("sign_attempts", "must lie within 1 and 20");
  table.count("sign_threads", audit.sign_threads);
  if (audit.sign_threads < 1 || audit.sign_threads > 64) table.refuse("sign_threads", "must lie within 1 and 64");
  table.choice("eval_submit", audit.eval_submit, {"range", "each"});
  table.duration("checkpoint_interval", audit.checkpoint_interval_ms);
  if (audit.checkpoint_interval_ms != 0 && audit.checkpoint_interval_ms < 1000)
    table.refuse("checkpoint_interval", "must be \"0s\" or at least a second, such as \"10m\"");
  table.text("checkpoint_origin", audit.checkpoint_origin);
  if (!streams::is_note_name(audit.checkpoint_origin))
    table.refuse("checkpoint_origin", "must be a name without spaces and '+', such as \"audit.example.org/assay\"");
  table.choice("checkpoint_signer", audit.checkpoint_signer, {"file", "pkcs11"});
  table.text("checkpoint_key", audit.checkpoint_key);
  table.text("checkpoint_policy", audit.checkpoint_policy);
  table.text("kms_waiver_by", audit.kms_waiver_by);
  std::string until;
  table.text("kms_waiver_until", until);
  audit.kms_waiver_until_ms = parse_rfc3339_ms(until);
  if (!until.empty() && !audit.kms_waiver_until_ms)
    table.refuse("kms_waiver_until", "must be a time such as \"2026-05-01T12:00:00Z\", is " + quoted(until));
}

Json audit_settings_to_json(const AuditSettings& audit) {
  Json personal = Json::array();
  for (const std::string& field : audit.personal_fields) personal.push_back(field);
  return Json::object()
      .set("signer", audit.signer)
      .set("signer_id", audit.signer_id)
      .set("signer_key", audit.signer_key)
      .set("sign_timeout", format_duration_ms(audit.sign_timeout_ms))
      .set("sign_attempts", audit.sign_attempts)
      .set("sign_threads", audit.sign_threads)
      .set("eval_submit", audit.eval_submit)
      .set("checkpoint_interval", format_duration_ms(audit.checkpoint_interval_ms))
      .set("checkpoint_origin", audit.checkpoint_origin)
      .set("checkpoint_signer", audit.checkpoint_signer)
      .set("checkpoint_key", audit.checkpoint_key)
      .set("checkpoint_policy", audit.checkpoint_policy)
      .set("kms_waiver_by", audit.kms_waiver_by)
      .set("kms_waiver_until", audit.kms_waiver_until_ms ? format_rfc3339_ms(*audit.kms_waiver_until_ms) : "")
      .set("pkcs11", Json::object()
                         .set("module", audit.pkcs11.module)
                         .set("token", audit.pkcs11.token)
                         .set("key", audit.pkcs11.key)
                         .set("pin", audit.pkcs11.pin.empty() ? "" : "***")
                         .set("create", audit.pkcs11.create)
                         .set("algorithm", audit.pkcs11.algorithm))
      .set("proxy", Json::object()
                        .set("url", audit.proxy.url)
                        .set("ca", audit.proxy.ca)
                        .set("cert", audit.proxy.cert)
                        .set("key", audit.proxy.key))
      .set("kms", Json::object()
                      .set("key_id", audit.kms.key_id)
                      .set("region", audit.kms.region)
                      .set("endpoint", audit.kms.endpoint)
                      .set("credentials", audit.kms.credentials))
      .set("emergency", Json::object()
                            .set("signer", audit.emergency.signer)
                            .set("signer_id", audit.emergency.signer_id)
                            .set("place", audit.emergency.place))
      .set("rotation", Json::object()
                           .set("every", format_duration_ms(audit.rotation.every_ms))
                           .set("overlap", format_duration_ms(audit.rotation.overlap_ms)))
      .set("personal", Json::object().set("fields", std::move(personal)));
}

std::vector<std::string> signer_problems(const AuditSettings& audit, bool production) {
  std::vector<std::string> out;
  auto needs = [&](const std::string& value, const char* key, const char* cure) {
    if (value.empty()) out.push_back(std::string(key) + ": audit.signer = \"" + audit.signer + "\" needs it; " + cure);
  };
  if (audit.signer == "pkcs11") {
    needs(audit.pkcs11.module, "audit.pkcs11.module", "the vendor's shared library, such as /usr/lib/softhsm/libsofthsm2.so");
    needs(audit.pkcs11.token, "audit.pkcs11.token", "the label of the token");
    needs(audit.pkcs11.pin, "audit.pkcs11.pin", "AUDIT_SIGNER_PIN sets it");
  } else if (audit.signer == "proxy") {
    needs(audit.proxy.url, "audit.proxy.url", "SIGNING_PROXY_URL sets it");
    needs(audit.proxy.cert, "audit.proxy.cert", "the proxy asks for a client certificate");
    needs(audit.proxy.key, "audit.proxy.key", "the key of audit.proxy.cert");
  } else if (audit.signer == "kms") {
    needs(audit.kms.key_id, "audit.kms.key_id", "AUDIT_SIGNING_KMS_KEY_ID sets it");
    needs(audit.kms.region, "audit.kms.region", "AWS_REGION sets it");
    if (production && audit.kms.endpoint.starts_with("http://"))
      out.push_back("audit.kms.endpoint: production asks a KMS over https:// only, is " + audit.kms.endpoint);
  }
  return out;
}

}  // namespace assay::tools
