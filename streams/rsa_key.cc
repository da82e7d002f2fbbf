#include "streams/rsa_key.h"

#include <openssl/bn.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/param_build.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <openssl/x509.h>

namespace assay::streams {
namespace {

constexpr int kBitsMin = 2048;

template <class T, void (*kFree)(T*)>
struct Freed {
  void operator()(T* p) const { kFree(p); }
};
using Bio = std::unique_ptr<BIO, Freed<BIO, BIO_free_all>>;
using Context = std::unique_ptr<EVP_PKEY_CTX, Freed<EVP_PKEY_CTX, EVP_PKEY_CTX_free>>;
using Number = std::unique_ptr<BIGNUM, Freed<BIGNUM, BN_free>>;
using Builder = std::unique_ptr<OSSL_PARAM_BLD, Freed<OSSL_PARAM_BLD, OSSL_PARAM_BLD_free>>;
using Parameters = std::unique_ptr<OSSL_PARAM, Freed<OSSL_PARAM, OSSL_PARAM_free>>;

const unsigned char* raw(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

Error bad(const char* what) { return {Errc::kCorrupt, std::string("not an RSA public key: ") + what}; }

}  // namespace

Result<RsaPublicKey> RsaPublicKey::from_key(void* key) {
  RsaPublicKey out;
  out.key_ = std::shared_ptr<void>(key, [](void* p) { EVP_PKEY_free(static_cast<EVP_PKEY*>(p)); });
  auto* pkey = static_cast<EVP_PKEY*>(key);
  if (EVP_PKEY_get_base_id(pkey) != EVP_PKEY_RSA) return bad("another kind of key");
  if (EVP_PKEY_get_bits(pkey) < kBitsMin) return bad("fewer than 2048 bits");
  Bio bio(BIO_new(BIO_s_mem()));
  if (bio == nullptr || PEM_write_bio_PUBKEY(bio.get(), pkey) != 1) return bad("it cannot be written as PEM");
  char* text = nullptr;
  const long size = BIO_get_mem_data(bio.get(), &text);
  out.pem_.assign(text, static_cast<size_t>(size));
  return out;
}

Result<RsaPublicKey> RsaPublicKey::parse(std::string_view text) {
  EVP_PKEY* key = nullptr;
  if (text.starts_with("-----BEGIN")) {
    Bio bio(BIO_new_mem_buf(text.data(), static_cast<int>(text.size())));
    key = bio == nullptr ? nullptr : PEM_read_bio_PUBKEY(bio.get(), nullptr, nullptr, nullptr);
  } else {
    const unsigned char* at = raw(text);
    key = d2i_PUBKEY(nullptr, &at, static_cast<long>(text.size()));
    if (key != nullptr && at != raw(text) + text.size()) {
      EVP_PKEY_free(key);
      key = nullptr;
    }
  }
  if (key == nullptr) return bad("neither PEM nor DER of a SubjectPublicKeyInfo");
  return from_key(key);
}

Result<RsaPublicKey> RsaPublicKey::from_numbers(std::string_view modulus, std::string_view exponent) {
  Number n(BN_bin2bn(raw(modulus), static_cast<int>(modulus.size()), nullptr));
  Number e(BN_bin2bn(raw(exponent), static_cast<int>(exponent.size()), nullptr));
  Builder builder(OSSL_PARAM_BLD_new());
  if (n == nullptr || e == nullptr || builder == nullptr ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_N, n.get()) != 1 ||
      OSSL_PARAM_BLD_push_BN(builder.get(), OSSL_PKEY_PARAM_RSA_E, e.get()) != 1)
    return bad("its numbers cannot be taken");
  Parameters parameters(OSSL_PARAM_BLD_to_param(builder.get()));
  Context context(EVP_PKEY_CTX_new_from_name(nullptr, "RSA", nullptr));
  EVP_PKEY* key = nullptr;
  if (parameters == nullptr || context == nullptr || EVP_PKEY_fromdata_init(context.get()) != 1 ||
      EVP_PKEY_fromdata(context.get(), &key, EVP_PKEY_PUBLIC_KEY, parameters.get()) != 1)
    return bad("its numbers make no key");
  return from_key(key);
}

bool RsaPublicKey::verify(const Sha256Digest& digest, std::string_view signature) const {
  Context context(EVP_PKEY_CTX_new(static_cast<EVP_PKEY*>(key_.get()), nullptr));
  return context != nullptr && EVP_PKEY_verify_init(context.get()) == 1 &&
         EVP_PKEY_CTX_set_rsa_padding(context.get(), RSA_PKCS1_PADDING) == 1 &&
         EVP_PKEY_CTX_set_signature_md(context.get(), EVP_sha256()) == 1 &&
         EVP_PKEY_verify(context.get(), raw(signature), signature.size(), digest.data(), digest.size()) == 1;
}

}  // namespace assay::streams
