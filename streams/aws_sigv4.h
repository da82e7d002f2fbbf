// AWS Signature Version 4: what makes a request to an AWS service, or to one that speaks as they do, one of ours.
#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "schemas/hash.h"
#include "streams/base.h"

namespace assay::streams {

struct AwsCredentials {
  std::string access_key, secret, session_token;  // the last one only with temporary credentials
};

struct AwsRequest {
  std::string method = "GET";
  std::string host;                                          // with its port, as it is sent
  std::string path = "/";                                    // decoded, as bytes
  std::vector<std::pair<std::string, std::string>> query;    // decoded
  std::vector<std::pair<std::string, std::string>> headers;  // more headers to sign; host, date and token come by themselves
  std::string payload_sha256;                                // hex of the body's SHA-256, or "UNSIGNED-PAYLOAD"
};

struct AwsScope {
  std::string region, service;     // "us-east-1", "kms"
  bool path_encoded_twice = true;  // behaviour: S3 alone takes the path as it is sent, encoded once
  bool payload_header = false;     // behaviour: S3 wants the payload's hash as a header
  /// What S3 asks for.
  static AwsScope s3(std::string region) { return {std::move(region), "s3", false, true}; }
};

/// The headers to send besides those of the request: Authorization, X-Amz-Date, where they apply X-Amz-Security-Token and
/// X-Amz-Content-Sha256.  Pure.
std::vector<std::pair<std::string, std::string>> sign_aws_request(const AwsRequest& request, const AwsScope& scope,
                                                                  const AwsCredentials& credentials, WallTime now);

/// The target to ask for: path and query, encoded as the signature took them.  Pure.
std::string aws_target(const AwsRequest& request);

/// HMAC with SHA-256 (RFC 2104).  Pure.
Sha256Digest hmac_sha256_digest(std::string_view key, std::string_view message);

}  // namespace assay::streams
