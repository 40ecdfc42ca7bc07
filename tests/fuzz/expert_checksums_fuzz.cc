// Any bytes as the file of checksums that stands beside a checkpoint run in place, as they are and with
// a right checksum at their end, so that the counts behind it are reached: refused, or written again
// as the same bytes.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "store/expert_checksums.h"
#include "support/sim_storage.h"

namespace {

using namespace penstock;

constexpr Hash128 kModel = {1, 2};

void store(Storage& disk, const std::string& path, const std::string& bytes) {
  auto file = disk.open(path, OpenMode::kCreate).value();
  file->write(0, std::as_bytes(std::span(bytes))).value();
}

void check(const std::string& bytes) {
  SimStorage disk;
  disk.make_directory("/s").value();
  store(disk, "/s/sums", bytes);
  const Result<KeptChecksums> kept = load_checksums(disk, "/s/sums", kModel);
  if (!kept) {
    PENSTOCK_CHECK(kept.error().message.find("/s/sums") != std::string::npos);
    return;
  }
  uint64_t sums = 0;
  for (const auto& layer : kept->layers) sums += layer.size();
  PENSTOCK_CHECK(sums * sizeof(Hash128) < bytes.size());
  save_checksums(disk, "/s/again", kModel, *kept).value();
  PENSTOCK_CHECK(*read_text(disk, "/s/again", 1 << 30) == bytes);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  check(bytes);
  const Hash128 sum = checksum(std::as_bytes(std::span(bytes)), 0);
  bytes.append(reinterpret_cast<const char*>(&sum.low), sizeof(sum.low));
  bytes.append(reinterpret_cast<const char*>(&sum.high), sizeof(sum.high));
  check(bytes);
  return 0;
}
