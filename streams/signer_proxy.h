// A signer behind a signing proxy: a service of one's own that holds the keys and asks for a client certificate.
//
//   GET  URL/keys/ID   → {"signerId","publicKey","algorithm"}: as it stands in signers.json
//   POST URL/sign      {"signerId","digests":[64 hex digits, …]}  at most 256
//                      → {"signerId","signatures":[base64, …]}: of the digests, in their order
//
// Both over HTTPS with mutual TLS. 429 and 5xx: try again; any other status: refused, a person must look. What went wrong may be
// said as {"ok":false,"error":{"code","message"}}.
#pragma once

#include <memory>
#include <string>

#include "streams/https_client.h"
#include "streams/signer.h"

namespace assay::streams {

struct ProxyOptions {
  std::string url;        // "https://signer.internal:8443"
  std::string signer_id;  // empty: refused
  HttpsOptions https;     // with a client certificate
};

/// Asks for the public key first. Errors: kUnreachable, kRefused, kUsage.
Result<std::unique_ptr<Signer>> open_proxy_signer(ProxyOptions options);

}  // namespace assay::streams
