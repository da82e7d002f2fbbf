// A signer whose key never leaves a PKCS#11 token: an HSM, or SoftHSM on a developer's machine.
#pragma once

#include <memory>
#include <string>

#include "streams/signer.h"

namespace assay::streams {

struct Pkcs11Options {
  std::string module;                 // shared library of the vendor, such as /usr/lib/softhsm/libsofthsm2.so
  std::string token;                  // label of the token
  std::string key;                    // label of the key pair; empty: the signer's id
  std::string pin;                    // of the user
  std::string signer_id;              // as it stands in the registry
  bool create = false;                // behaviour: make the pair in the token when there is none
  std::string algorithm = "ed25519";  // behaviour: of a pair that is made; else the one that is found says it
};

/// Opens the key pair of that label. Ed25519 signs by CKM_EDDSA, RSA by CKM_RSA_PKCS over the DigestInfo of the digest.
/// A token that was away is looked for and logged in to again; for that the module is started anew, which the process's other signers
/// of it do not notice. How long a call may take is the module's own setting.
/// Errors: kUnreachable (no such token, a device error), kRefused (PIN), kNotFound (no such key), kUsage (module, algorithm).
Result<std::unique_ptr<Signer>> open_pkcs11_signer(const Pkcs11Options& options);

}  // namespace assay::streams
