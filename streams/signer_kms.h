// A signer whose key is in AWS KMS: an RSA key pair for SIGN_VERIFY, asked for RSASSA_PKCS1_V1_5_SHA_256 over digests.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "streams/aws_sigv4.h"
#include "streams/https_client.h"
#include "streams/signer.h"

namespace assay::streams {

struct KmsOptions {
  std::string key_id;    // key id, ARN or alias
  std::string region;    // "eu-central-1"
  std::string endpoint;  // "https://host:port"; empty: that of the region
  std::string signer_id;
  std::function<Result<AwsCredentials>()> credentials;  // asked at each call: temporary ones change. Required.
  std::function<WallTime()> now;                        // signatures hold for 5 minutes around it. Required.
  HttpsOptions https;
};

/// Asks for the public key first, so that a key that cannot sign is found at the start.
/// The role needs kms:Sign and kms:GetPublicKey on this key, and nothing else.
/// Errors: kUnreachable, kRefused (no access, a disabled key), kUsage (no such key, one of another kind).
Result<std::unique_ptr<Signer>> open_kms_signer(KmsOptions options);

}  // namespace assay::streams
