// Ed25519 by libsodium: the key file of development, and verification.
#include <fcntl.h>
#include <sodium.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "streams/signer.h"

namespace assay::streams {
namespace {

static_assert(crypto_sign_SEEDBYTES == 32 && crypto_sign_PUBLICKEYBYTES == 32 && crypto_sign_BYTES == 64);
constexpr std::string_view kLabel = "ed25519-seed:";

std::string_view bytes_of(const unsigned char* data, size_t size) { return {reinterpret_cast<const char*>(data), size}; }
const unsigned char* raw(std::string_view text) { return reinterpret_cast<const unsigned char*>(text.data()); }

class FileSigner : public Signer {
 public:
  FileSigner(std::string_view seed, std::string signer_id) {
    unsigned char public_key[crypto_sign_PUBLICKEYBYTES];
    crypto_sign_seed_keypair(public_key, secret_, raw(seed));
    const std::string_view key = bytes_of(public_key, sizeof public_key);
    if (signer_id.empty()) signer_id = "ed25519-" + to_hex(as_bytes(sha256(key))).substr(0, 16);
    key_ = {std::move(signer_id), to_base64(key), "ed25519"};
  }
  ~FileSigner() override { sodium_memzero(secret_, sizeof secret_); }
  FileSigner(const FileSigner&) = delete;
  FileSigner& operator=(const FileSigner&) = delete;

  Result<std::string> sign(const Sha256Digest& digest) override { return sign_message(as_bytes(digest)); }
  Result<std::string> sign_message(std::string_view message) override {
    std::string signature(crypto_sign_BYTES, '\0');
    crypto_sign_detached(reinterpret_cast<unsigned char*>(signature.data()), nullptr, raw(message), message.size(), secret_);
    return signature;
  }
  const SignerKey& key() const override { return key_; }

 private:
  unsigned char secret_[crypto_sign_SECRETKEYBYTES];
  SignerKey key_;
};

Error failed(const std::string& path, const std::string& what, Errc code = Errc::kUnexpected) {
  return {code, "opening the signing key " + path + ": " + what};
}

/// Makes the file whole or not at all; of two processes that do so at once, the first wins.
Result<void> create_key_file(const std::string& path) {
  std::string seed(crypto_sign_SEEDBYTES, '\0');
  randombytes_buf(seed.data(), seed.size());
  std::string text = std::string(kLabel) + to_base64(seed) + "\n";
  std::string temporary = path + "." + std::to_string(::getpid()) + ".tmp";
  int fd = ::open(temporary.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (fd < 0) return failed(path, std::string("cannot create it: ") + std::strerror(errno));
  const bool written = ::write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()) && ::fsync(fd) == 0;
  const int write_error = errno;
  ::close(fd);
  sodium_memzero(seed.data(), seed.size());
  sodium_memzero(text.data(), text.size());
  const bool linked = written && (::link(temporary.c_str(), path.c_str()) == 0 || errno == EEXIST);
  const int link_error = errno;
  ::unlink(temporary.c_str());
  if (!written) return failed(path, std::string("cannot write it: ") + std::strerror(write_error));
  if (!linked) return failed(path, std::string("cannot create it: ") + std::strerror(link_error));
  return {};
}

/// The seed in the key file, which is made first when there is none and `create` is set. Whoever takes it wipes it.
Result<std::string> read_seed(const std::string& path, bool create) {
  if (sodium_init() < 0) return failed(path, "libsodium does not start");
  int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (fd < 0 && errno == ENOENT && create) {
    TRY(create_key_file(path));
    fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  }
  if (fd < 0) return failed(path, std::strerror(errno), errno == ENOENT ? Errc::kNotFound : Errc::kUnexpected);
  struct stat status {};
  char text[128];
  const bool known = ::fstat(fd, &status) == 0;
  const ssize_t size = ::read(fd, text, sizeof text);
  ::close(fd);
  if (!known || size < 0) return failed(path, std::string("cannot read it: ") + std::strerror(errno));
  if ((status.st_mode & 077) != 0) return failed(path, "others may read it; chmod 600 it", Errc::kRefused);
  std::string_view line(text, static_cast<size_t>(size));
  while (line.ends_with('\n') || line.ends_with('\r')) line.remove_suffix(1);
  Result<std::string> seed = line.starts_with(kLabel) ? from_base64(line.substr(kLabel.size())) : Error{};
  sodium_memzero(text, sizeof text);
  if (!seed || seed->size() != crypto_sign_SEEDBYTES)
    return failed(path, "it is not the line \"ed25519-seed:\" and base64 of 32 bytes", Errc::kCorrupt);
  return seed;
}

}  // namespace

Result<std::unique_ptr<Signer>> open_file_signer(const FileSignerOptions& options) {
  if (options.production)
    return failed(options.path, "a key in a file is for development; production signs with PKCS#11, a signing proxy or a KMS",
                  Errc::kRefused);
  TRY_ASSIGN(std::string seed, read_seed(options.path, options.create));
  std::unique_ptr<Signer> signer = std::make_unique<FileSigner>(seed, options.signer_id);
  sodium_memzero(seed.data(), seed.size());
  return signer;
}

bool ed25519_verify(std::string_view public_key, std::string_view message, std::string_view signature) {
  if (sodium_init() < 0) return false;
  if (public_key.size() != crypto_sign_PUBLICKEYBYTES || signature.size() != crypto_sign_BYTES) return false;
  return crypto_sign_verify_detached(raw(signature), raw(message), message.size(), raw(public_key)) == 0;
}

}  // namespace assay::streams
