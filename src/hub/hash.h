// SHA-256 of a file's bytes, and the SHA-1 under which git keeps a small file. One file per system
// (hash_linux.cc, hash_macos.cc): the system's library.
//
// Threads  one per object
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

namespace penstock {

class BlobHash {
 public:
  enum class Kind {
    kSha256,
    kGitBlob,  // SHA-1 over "blob N\0" and the N bytes
  };

  BlobHash(Kind kind, uint64_t bytes);
  ~BlobHash();
  BlobHash(const BlobHash&) = delete;
  BlobHash& operator=(const BlobHash&) = delete;

  void add(std::span<const std::byte> bytes);
  std::string finish();  // hexadecimal, small letters; once

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace penstock
