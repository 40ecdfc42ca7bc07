// By OpenSSL's libcrypto, which uses what the processor has for it.

#include <openssl/evp.h>

#include <array>

#include "base/check.h"
#include "format/text.h"
#include "hub/hash.h"

namespace penstock {

struct BlobHash::State {
  EVP_MD_CTX* context = nullptr;

  ~State() { EVP_MD_CTX_free(context); }
};

BlobHash::BlobHash(Kind kind, uint64_t bytes) : state_(std::make_unique<State>()) {
  state_->context = EVP_MD_CTX_new();
  PENSTOCK_CHECK(state_->context != nullptr);
  const EVP_MD* algorithm = kind == Kind::kSha256 ? EVP_sha256() : EVP_sha1();
  PENSTOCK_CHECK(EVP_DigestInit_ex(state_->context, algorithm, nullptr) == 1);
  if (kind == Kind::kSha256) return;
  const std::string head = "blob " + std::to_string(bytes) + '\0';
  add(std::as_bytes(std::span(head)));
}

BlobHash::~BlobHash() = default;

void BlobHash::add(std::span<const std::byte> bytes) {
  PENSTOCK_CHECK(EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1);
}

std::string BlobHash::finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest{};
  unsigned int size = 0;
  PENSTOCK_CHECK(EVP_DigestFinal_ex(state_->context, digest.data(), &size) == 1);
  return hex_text(std::span(digest).first(size));
}

}  // namespace penstock
