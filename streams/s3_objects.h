// Objects in a bucket of S3, or of anything that speaks as S3 does.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "streams/aws_sigv4.h"
#include "streams/https_client.h"
#include "streams/object_store.h"
#include "streams/runtime.h"

namespace assay::streams {

struct S3Options {
  std::string endpoint;  // "https://host[:port]"; empty: AWS's own of the region
  std::string region = "us-east-1";
  std::string bucket;
  std::string prefix;  // before every name, without '/' at its ends; may be empty
  std::function<Result<AwsCredentials>()> credentials;
  /// Object Lock of every object that is stored. The bucket must have been made with it.
  std::string lock_mode;  // behaviour: "GOVERNANCE", "COMPLIANCE"; empty: none
  Milliseconds lock_for{0};
  HttpsOptions https;                    // whom to trust; its limits are set from here
  Milliseconds timeout{60000};           // behaviour: of one request
  size_t part_bytes = size_t{16} << 20;  // performance: what is larger goes in parts of this size (S3 takes none below 5 MiB)
  int attempts_max = 5;                  // behaviour: of one request that got no answer, 429 or 5xx
  Milliseconds retry_min{200}, retry_max{5000};
};

/// Path style, signed with SigV4. Storing is conditional (If-None-Match), so that nothing is ever overwritten; that two wrote at
/// once shows at the second. Errors: kUsage (no bucket, no credentials, a URL that is none).
Result<std::unique_ptr<ObjectStore>> open_s3_objects(S3Options options, Runtime& runtime = machine_runtime());

}  // namespace assay::streams
