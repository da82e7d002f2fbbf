// Opens the keys that the chain is signed with, wherever they are, with what stands around a signer that can fail.
#pragma once

#include <functional>
#include <memory>
#include <string>

#include "streams/note.h"
#include "streams/signer.h"
#include "tools/settings.h"

namespace assay::tools {

/// Where a key is. The service's own settings are those of [audit].
struct KeyPlace {
  std::string kind;       // "file" | "pkcs11" | "proxy" | "kms"
  std::string signer_id;  // as it stands in the rows and the registry
  std::string place;      // file, label of the pair, or KMS key; empty: the usual one of that id
  bool create = false;    // behaviour: make the key when there is none (file, pkcs11)
};

using SignerFailure = std::function<void(const Error&)>;

/// Every signature is checked before it is believed; a call that fails is tried again, and one that keeps failing is not made for
/// a while. `on_failure` is told of each attempt that failed, from several threads.
/// Errors: kUsage (settings that are missing), kUnreachable, kRefused, kNotFound.
Result<std::shared_ptr<streams::Signer>> open_key(const Settings& settings, const KeyPlace& place,
                                                  const SignerFailure& on_failure = {});

/// The signer of the settings; in development its key file is made on first use. Errors: as open_key().
Result<std::shared_ptr<streams::Signer>> open_signer(const Settings& settings, const SignerFailure& on_failure = {});

/// The signer of a key that is known, opened when it is first needed: meanwhile it may be away.
/// Errors of the calls: those of `open`; kRefused (it has another key).
std::shared_ptr<streams::Signer> late_signer(SignerKey key, std::function<Result<std::shared_ptr<streams::Signer>>()> open);

/// The Ed25519 key that signs checkpoints, for an origin; empty: that of the settings. Errors: as open_key().
Result<std::unique_ptr<streams::NoteSigner>> open_checkpoint_signer(const Settings& settings, const std::string& origin = {});

/// Where the signer of the settings is.
KeyPlace configured_key(const AuditSettings& audit);

/// Makes a signature that nobody needs, to see that it holds. Errors: the signer's.
Result<void> probe_signer(streams::Signer& signer);

}  // namespace assay::tools
