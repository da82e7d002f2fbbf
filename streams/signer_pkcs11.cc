#include "streams/signer_pkcs11.h"

#include <dlfcn.h>
#include <p11-kit/pkcs11.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <shared_mutex>

namespace assay::streams {
namespace {

constexpr CK_ULONG kRsaBits = 3072;
/// DER of the curve's name as a PrintableString, "edwards25519": the CKA_EC_PARAMS that tokens of PKCS#11 3.0 take.
constexpr std::string_view kEdwards25519(
    "\x13\x0c"
    "edwards25519",
    14);
/// DER of DigestInfo for SHA-256 up to the digest itself (RFC 8017, 9.2).
constexpr std::string_view kSha256DigestInfo("\x30\x31\x30\x0d\x06\x09\x60\x86\x48\x01\x65\x03\x04\x02\x01\x05\x00\x04\x20", 19);

unsigned char* raw(std::string& text) { return reinterpret_cast<unsigned char*>(text.data()); }

std::string rv_name(CK_RV rv) {
  switch (rv) {
    case CKR_PIN_INCORRECT:
      return "CKR_PIN_INCORRECT";
    case CKR_PIN_LOCKED:
      return "CKR_PIN_LOCKED";
    case CKR_PIN_EXPIRED:
      return "CKR_PIN_EXPIRED";
    case CKR_DEVICE_ERROR:
      return "CKR_DEVICE_ERROR";
    case CKR_DEVICE_REMOVED:
      return "CKR_DEVICE_REMOVED";
    case CKR_GENERAL_ERROR:
      return "CKR_GENERAL_ERROR";
    case CKR_FUNCTION_FAILED:
      return "CKR_FUNCTION_FAILED";
    case CKR_KEY_HANDLE_INVALID:
      return "CKR_KEY_HANDLE_INVALID";
    case CKR_OBJECT_HANDLE_INVALID:
      return "CKR_OBJECT_HANDLE_INVALID";
    case CKR_KEY_FUNCTION_NOT_PERMITTED:
      return "CKR_KEY_FUNCTION_NOT_PERMITTED";
    case CKR_MECHANISM_INVALID:
      return "CKR_MECHANISM_INVALID";
    case CKR_SESSION_HANDLE_INVALID:
      return "CKR_SESSION_HANDLE_INVALID";
    case CKR_SESSION_CLOSED:
      return "CKR_SESSION_CLOSED";
    case CKR_TOKEN_NOT_PRESENT:
      return "CKR_TOKEN_NOT_PRESENT";
    case CKR_TOKEN_NOT_RECOGNIZED:
      return "CKR_TOKEN_NOT_RECOGNIZED";
    case CKR_USER_NOT_LOGGED_IN:
      return "CKR_USER_NOT_LOGGED_IN";
    case CKR_TOKEN_WRITE_PROTECTED:
      return "CKR_TOKEN_WRITE_PROTECTED";
    case CKR_CRYPTOKI_NOT_INITIALIZED:
      return "CKR_CRYPTOKI_NOT_INITIALIZED";
    default:
      return "CKR " + std::to_string(rv);
  }
}

/// What the answer of the token means to the caller.
Errc code_of(CK_RV rv) {
  switch (rv) {
    case CKR_PIN_INCORRECT:
    case CKR_PIN_LOCKED:
    case CKR_PIN_EXPIRED:
    case CKR_PIN_LEN_RANGE:
    case CKR_KEY_FUNCTION_NOT_PERMITTED:
    case CKR_TOKEN_WRITE_PROTECTED:
      return Errc::kRefused;
    case CKR_MECHANISM_INVALID:
    case CKR_TEMPLATE_INCONSISTENT:
      return Errc::kUsage;
    default:
      return Errc::kUnreachable;
  }
}

/// The module of a vendor, which a process starts once for all its signers. It stays loaded: libraries of this kind do not survive
/// being unloaded and loaded again. It can be started anew, because many of them, SoftHSM among them, look for their tokens only
/// then, and never again find one that was away.
class Module {
 public:
  static Result<Module*> load(const std::string& path) {
    static std::mutex mutex;
    static auto& loaded = *new std::map<std::string, Module*>;  // outlives every signer
    std::lock_guard lock(mutex);
    if (auto known = loaded.find(path); known != loaded.end()) return known->second;
    void* library = ::dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return Error{Errc::kUsage, "loading the PKCS#11 module " + path + ": " + ::dlerror()};
    auto get = reinterpret_cast<CK_C_GetFunctionList>(::dlsym(library, "C_GetFunctionList"));
    CK_FUNCTION_LIST* functions = nullptr;
    if (get == nullptr || get(&functions) != CKR_OK || functions == nullptr)
      return Error{Errc::kUsage, "loading the PKCS#11 module " + path + ": it has no C_GetFunctionList"};
    auto made = std::unique_ptr<Module>(new Module(functions));
    if (CK_RV rv = made->initialize(); rv != CKR_OK)
      return Error{code_of(rv), "starting the PKCS#11 module " + path + ": " + rv_name(rv)};
    return loaded.emplace(path, made.release()).first->second;
  }

  CK_FUNCTION_LIST* functions() const { return functions_; }
  /// Held while calls are made: sessions and handles mean something only to the start that they come from.
  std::shared_lock<std::shared_mutex> use() { return std::shared_lock(mutex_); }
  /// How often it was started. Requires: use().
  uint64_t starts() const { return starts_; }

  /// Starts it anew, unless somebody has since `seen`. Every session and handle of it is void then. One that does not start says so
  /// at the next call.
  void restart(uint64_t seen) {
    std::lock_guard lock(mutex_);
    if (starts_ != seen) return;
    ++starts_;
    functions_->C_Finalize(nullptr);
    initialize();
  }

 private:
  explicit Module(CK_FUNCTION_LIST* functions) : functions_(functions) {}

  CK_RV initialize() {
    CK_C_INITIALIZE_ARGS args{};
    args.flags = CKF_OS_LOCKING_OK;
    const CK_RV rv = functions_->C_Initialize(&args);
    return rv == CKR_CRYPTOKI_ALREADY_INITIALIZED ? CKR_OK : rv;
  }

  CK_FUNCTION_LIST* functions_;
  std::shared_mutex mutex_;
  uint64_t starts_ = 1;  // under mutex_
};

class Pkcs11Signer : public Signer {
 public:
  Pkcs11Signer(Module& module, Pkcs11Options options)
      : module_(module),
        p11_(module.functions()),
        options_(std::move(options)),
        label_(options_.key.empty() ? options_.signer_id : options_.key) {}

  ~Pkcs11Signer() override {
    {
      auto use = module_.use();
      if (start_ == module_.starts()) drop_idle();
    }
    std::fill(options_.pin.begin(), options_.pin.end(), '\0');
  }
  Pkcs11Signer(const Pkcs11Signer&) = delete;
  Pkcs11Signer& operator=(const Pkcs11Signer&) = delete;

  Result<void> open() {
    return with_token<void>([this] { return open_once(); });
  }

  Result<std::string> sign(const Sha256Digest& digest) override {
    // RSA takes the digest with the name of its kind before it; Ed25519 takes it as the message that it is.
    return signed_by_token((rsa_ ? std::string(kSha256DigestInfo) : std::string()) + std::string(as_bytes(digest)));
  }

  Result<std::string> sign_message(std::string_view message) override {
    return rsa_ ? Signer::sign_message(message) : signed_by_token(std::string(message));
  }

  const SignerKey& key() const override { return key_; }

 private:
  /// Calls `f`. A session that the token has closed meanwhile is no failure yet: the next one is new; nor is a token that was away
  /// and that the module has not looked for since.
  template <class T, class F>
  Result<T> with_token(F&& f) {
    for (int attempt = 1;; ++attempt) {
      uint64_t start = 0;
      {
        auto use = module_.use();
        start = module_.starts();
        forget_unless(start);
        if (attempt > 1) drop_idle();
        Result<T> result = f();
        if (result || result.error().code != Errc::kUnreachable || attempt == 3) return result;
      }
      if (attempt == 2) module_.restart(start);
    }
  }

  Result<void> open_once() {
    TRY_ASSIGN(CK_SESSION_HANDLE session, borrow());
    Result<void> found = find_key(session);
    if (!found && found.error().code == Errc::kNotFound && options_.create) {
      found = make_key(session);
      if (found) found = find_key(session);
    }
    give_back(session, found.has_value());
    return found;
  }

  Error failed(const std::string& what, CK_RV rv) const {
    return {code_of(rv), what + " in the PKCS#11 token \"" + options_.token + "\": " + rv_name(rv)};
  }

  Result<CK_SLOT_ID> find_slot() const {
    CK_ULONG count = 0;
    CK_RV rv = p11_->C_GetSlotList(CK_TRUE, nullptr, &count);
    std::vector<CK_SLOT_ID> slots(count);
    if (rv == CKR_OK) rv = p11_->C_GetSlotList(CK_TRUE, slots.data(), &count);
    if (rv != CKR_OK) return failed("listing slots", rv);
    slots.resize(count);
    for (CK_SLOT_ID slot : slots) {
      CK_TOKEN_INFO info{};
      if (p11_->C_GetTokenInfo(slot, &info) != CKR_OK) continue;
      std::string_view label(reinterpret_cast<const char*>(info.label), sizeof info.label);
      label = label.substr(0, label.find_last_not_of(' ') + 1);
      if (label == options_.token) return slot;
    }
    return Error{Errc::kUnreachable,
                 "looking for the PKCS#11 token \"" + options_.token + "\" of " + options_.module + ": it is in no slot"};
  }

  Result<CK_SESSION_HANDLE> borrow() {
    std::lock_guard lock(mutex_);
    if (!idle_.empty()) {
      const CK_SESSION_HANDLE session = idle_.back();
      idle_.pop_back();
      return session;
    }
    TRY_ASSIGN(CK_SLOT_ID slot, find_slot());
    CK_SESSION_HANDLE session = 0;
    const CK_FLAGS flags = CKF_SERIAL_SESSION | (options_.create ? CKF_RW_SESSION : 0);
    if (CK_RV rv = p11_->C_OpenSession(slot, flags, nullptr, nullptr, &session); rv != CKR_OK)
      return failed("opening a session", rv);
    std::string pin = options_.pin;
    const CK_RV rv = p11_->C_Login(session, CKU_USER, raw(pin), pin.size());
    std::fill(pin.begin(), pin.end(), '\0');
    if (rv != CKR_OK && rv != CKR_USER_ALREADY_LOGGED_IN) {
      p11_->C_CloseSession(session);
      return failed("logging in", rv);
    }
    return session;
  }

  void give_back(CK_SESSION_HANDLE session, bool sound) {
    std::lock_guard lock(mutex_);
    if (sound)
      idle_.push_back(session);
    else
      p11_->C_CloseSession(session);
  }

  /// Sessions and the handle of the key, when they come from another start of the module.
  void forget_unless(uint64_t start) {
    std::lock_guard lock(mutex_);
    if (start_ == start) return;
    start_ = start;
    idle_.clear();
    handle_ = 0;
  }

  void drop_idle() {
    std::lock_guard lock(mutex_);
    for (CK_SESSION_HANDLE session : idle_) p11_->C_CloseSession(session);
    idle_.clear();
  }

  /// The one object of that class and label; 0: there is none.
  Result<CK_OBJECT_HANDLE> find(CK_SESSION_HANDLE session, CK_OBJECT_CLASS object_class) const {
    std::string label = label_;
    CK_ATTRIBUTE wanted[] = {{CKA_CLASS, &object_class, sizeof object_class}, {CKA_LABEL, label.data(), label.size()}};
    CK_OBJECT_HANDLE found[2] = {0, 0};
    CK_ULONG count = 0;
    CK_RV rv = p11_->C_FindObjectsInit(session, wanted, 2);
    if (rv == CKR_OK) {
      rv = p11_->C_FindObjects(session, found, 2, &count);
      p11_->C_FindObjectsFinal(session);
    }
    if (rv != CKR_OK) return failed("looking for the key \"" + label_ + "\"", rv);
    if (count > 1)
      return Error{Errc::kUsage, "looking for the key \"" + label_ + "\" in the PKCS#11 token \"" + options_.token +
                                     "\": several have that label; give each its own"};
    return count == 0 ? CK_OBJECT_HANDLE{0} : found[0];
  }

  Result<std::string> attribute(CK_SESSION_HANDLE session, CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type) const {
    CK_ATTRIBUTE one{type, nullptr, 0};
    CK_RV rv = p11_->C_GetAttributeValue(session, object, &one, 1);
    std::string value;
    if (rv == CKR_OK && one.ulValueLen != CK_UNAVAILABLE_INFORMATION) {
      value.resize(one.ulValueLen);
      one.pValue = value.data();
      rv = p11_->C_GetAttributeValue(session, object, &one, 1);
    }
    if (rv != CKR_OK) return failed("reading the public key \"" + label_ + "\"", rv);
    return value;
  }

  Result<void> find_key(CK_SESSION_HANDLE session) {
    TRY_ASSIGN(CK_OBJECT_HANDLE own, find(session, CKO_PRIVATE_KEY));
    TRY_ASSIGN(CK_OBJECT_HANDLE shown, find(session, CKO_PUBLIC_KEY));
    if (own == 0 || shown == 0)
      return Error{Errc::kNotFound, "looking for the key \"" + label_ + "\" in the PKCS#11 token \"" + options_.token +
                                        "\": there is no " + (own == 0 ? "private" : "public") + " key of that label"};
    TRY_ASSIGN(std::string type_bytes, attribute(session, own, CKA_KEY_TYPE));
    CK_KEY_TYPE type = 0;
    if (type_bytes.size() == sizeof type) std::memcpy(&type, type_bytes.data(), sizeof type);
    if (type == CKK_RSA) {
      TRY_ASSIGN(std::string modulus, attribute(session, shown, CKA_MODULUS));
      TRY_ASSIGN(std::string exponent, attribute(session, shown, CKA_PUBLIC_EXPONENT));
      TRY_ASSIGN(RsaPublicKey key, RsaPublicKey::from_numbers(modulus, exponent));
      key_ = {options_.signer_id, key.pem(), std::string(kRsaSha256)};
    } else if (type == CKK_EC_EDWARDS) {
      TRY_ASSIGN(std::string point, attribute(session, shown, CKA_EC_POINT));
      if (point.size() == 34 && point.starts_with(std::string_view("\x04\x20", 2))) point.erase(0, 2);  // a DER octet string
      if (point.size() != 32) return Error{Errc::kUsage, "reading the public key \"" + label_ + "\": it is no Ed25519 key"};
      key_ = {options_.signer_id, to_base64(point), std::string(kEd25519)};
    } else {
      return Error{Errc::kUsage, "reading the key \"" + label_ + "\": it is neither Ed25519 nor RSA"};
    }
    handle_ = own;
    rsa_ = type == CKK_RSA;
    return {};
  }

  /// Makes the pair inside the token: sensitive, never extractable.
  Result<void> make_key(CK_SESSION_HANDLE session) const {
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    std::string label = label_, id = label_, curve(kEdwards25519);
    CK_ULONG bits = kRsaBits;
    CK_BYTE exponent[] = {1, 0, 1};
    std::vector<CK_ATTRIBUTE> shown = {{CKA_TOKEN, &yes, sizeof yes},
                                       {CKA_VERIFY, &yes, sizeof yes},
                                       {CKA_LABEL, label.data(), label.size()},
                                       {CKA_ID, id.data(), id.size()}};
    std::vector<CK_ATTRIBUTE> own = {{CKA_TOKEN, &yes, sizeof yes},     {CKA_PRIVATE, &yes, sizeof yes},
                                     {CKA_SENSITIVE, &yes, sizeof yes}, {CKA_EXTRACTABLE, &no, sizeof no},
                                     {CKA_SIGN, &yes, sizeof yes},      {CKA_LABEL, label.data(), label.size()},
                                     {CKA_ID, id.data(), id.size()}};
    CK_MECHANISM mechanism{CKM_EC_EDWARDS_KEY_PAIR_GEN, nullptr, 0};
    if (options_.algorithm == kRsaSha256) {
      mechanism.mechanism = CKM_RSA_PKCS_KEY_PAIR_GEN;
      shown.push_back({CKA_MODULUS_BITS, &bits, sizeof bits});
      shown.push_back({CKA_PUBLIC_EXPONENT, exponent, sizeof exponent});
    } else if (options_.algorithm == kEd25519) {
      shown.push_back({CKA_EC_PARAMS, curve.data(), curve.size()});
    } else {
      return Error{Errc::kUsage,
                   "making the key \"" + label_ + "\": the algorithm is ed25519 or rsa-sha256, not " + options_.algorithm};
    }
    CK_OBJECT_HANDLE public_key = 0, private_key = 0;
    if (CK_RV rv = p11_->C_GenerateKeyPair(session, &mechanism, shown.data(), shown.size(), own.data(), own.size(), &public_key,
                                           &private_key);
        rv != CKR_OK)
      return failed("making the key \"" + label_ + "\"", rv);
    return {};
  }

  Result<std::string> signed_by_token(std::string message) {
    return with_token<std::string>([&] { return sign_once(message); });
  }

  Result<std::string> sign_once(std::string& message) {
    TRY_ASSIGN(CK_SESSION_HANDLE session, borrow());
    std::string signature(1024, '\0');
    CK_ULONG size = signature.size();
    CK_MECHANISM mechanism{rsa_ ? CKM_RSA_PKCS : CKM_EDDSA, nullptr, 0};
    const CK_OBJECT_HANDLE known = handle_.load();
    CK_RV rv = known == 0 ? CKR_KEY_HANDLE_INVALID : p11_->C_SignInit(session, &mechanism, known);
    if (rv == CKR_KEY_HANDLE_INVALID || rv == CKR_OBJECT_HANDLE_INVALID) {
      // A token that was away may know its objects by other handles. That it is the same key is checked by who verifies.
      Result<CK_OBJECT_HANDLE> own = find(session, CKO_PRIVATE_KEY);
      if (own && *own != 0) {
        handle_ = *own;
        rv = p11_->C_SignInit(session, &mechanism, *own);
      }
    }
    if (rv == CKR_OK) rv = p11_->C_Sign(session, raw(message), message.size(), raw(signature), &size);
    give_back(session, rv == CKR_OK);
    if (rv != CKR_OK) return failed("signing with the key \"" + label_ + "\"", rv);
    signature.resize(size);
    return signature;
  }

  Module& module_;
  CK_FUNCTION_LIST* p11_;  // each call of it below use()
  Pkcs11Options options_;
  std::string label_;
  SignerKey key_;
  bool rsa_ = false;
  std::atomic<CK_OBJECT_HANDLE> handle_{0};
  std::mutex mutex_;
  uint64_t start_ = 0;                   // of the module, that the sessions and the handle come from; under mutex_
  std::vector<CK_SESSION_HANDLE> idle_;  // under mutex_
};

}  // namespace

Result<std::unique_ptr<Signer>> open_pkcs11_signer(const Pkcs11Options& options) {
  if (options.signer_id.empty()) return Error{Errc::kUsage, "opening a PKCS#11 signer: it needs a signer id"};
  TRY_ASSIGN(Module * module, Module::load(options.module));
  auto signer = std::make_unique<Pkcs11Signer>(*module, options);
  TRY(signer->open());
  return std::unique_ptr<Signer>(std::move(signer));
}

}  // namespace assay::streams
