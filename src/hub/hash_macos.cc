// By CommonCrypto, which is part of the system's library. Its calls are declared here, as
// CommonCrypto/CommonDigest.h has them: a cross-compiler need not have that header.

#include <algorithm>
#include <array>

#include "base/check.h"
#include "format/text.h"
#include "hub/hash.h"

extern "C" {
struct CC_SHA1_CTX {
  uint32_t h[5], low, high;
  uint32_t data[16];
  int num;
};
struct CC_SHA256_CTX {
  uint32_t count[2], hash[8], buffer[16];
};
int CC_SHA1_Init(CC_SHA1_CTX* context);
int CC_SHA1_Update(CC_SHA1_CTX* context, const void* data, uint32_t bytes);
int CC_SHA1_Final(unsigned char* digest, CC_SHA1_CTX* context);
int CC_SHA256_Init(CC_SHA256_CTX* context);
int CC_SHA256_Update(CC_SHA256_CTX* context, const void* data, uint32_t bytes);
int CC_SHA256_Final(unsigned char* digest, CC_SHA256_CTX* context);
}

namespace penstock {

struct BlobHash::State {
  Kind kind;
  CC_SHA1_CTX sha1;
  CC_SHA256_CTX sha256;
};

BlobHash::BlobHash(Kind kind, uint64_t bytes) : state_(std::make_unique<State>()) {
  state_->kind = kind;
  CC_SHA1_Init(&state_->sha1);
  CC_SHA256_Init(&state_->sha256);
  if (kind == Kind::kSha256) return;
  const std::string head = "blob " + std::to_string(bytes) + '\0';
  add(std::as_bytes(std::span(head)));
}

BlobHash::~BlobHash() = default;

void BlobHash::add(std::span<const std::byte> bytes) {
  constexpr size_t kStepBytes = 1 << 30;  // the calls count in 32 bits
  while (!bytes.empty()) {
    const auto step = bytes.first(std::min(bytes.size(), kStepBytes));
    const auto size = static_cast<uint32_t>(step.size());
    if (state_->kind == Kind::kSha256) {
      CC_SHA256_Update(&state_->sha256, step.data(), size);
    } else {
      CC_SHA1_Update(&state_->sha1, step.data(), size);
    }
    bytes = bytes.subspan(step.size());
  }
}

std::string BlobHash::finish() {
  std::array<unsigned char, 32> digest{};
  const bool is_long = state_->kind == Kind::kSha256;
  if (is_long) {
    CC_SHA256_Final(digest.data(), &state_->sha256);
  } else {
    CC_SHA1_Final(digest.data(), &state_->sha1);
  }
  return hex_text(std::span(digest).first(is_long ? 32 : 20));
}

}  // namespace penstock
