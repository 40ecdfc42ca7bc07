// Any bytes as a reference run of `eval --base`: as they are, and as what it tells of itself behind
// some positions, sealed with a right checksum. Refused, or all positions that it promises can be asked
// for, and those that it hands out can be compared with.

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "base/check.h"
#include "quality/base_file.h"
#include "quality/prediction.h"
#include "support/sim_storage.h"

namespace {

using namespace penstock;

constexpr const char* kPath = "/base";

void check(const std::string& bytes) {
  SimStorage disk;
  disk.open(kPath, OpenMode::kCreate).value()->write(0, std::as_bytes(std::span(bytes))).value();
  Result<BaseFile> base = BaseFile::open(disk, kPath);
  if (!base) {
    PENSTOCK_CHECK(base.error().message.find(kPath) != std::string::npos);
    return;
  }
  const BaseInfo& info = base->info();
  const uint64_t each = position_bytes(info.top);
  uint64_t all = 0;
  for (size_t text = 0; text < info.texts.size(); ++text) {
    const int64_t count = info.texts[text].predictions;
    all += static_cast<uint64_t>(count) * each;
    PENSTOCK_CHECK(all <= bytes.size());
    const auto positions = base->read(text, 0, count);
    if (!positions || info.vocab_size > 4096) continue;
    const std::vector<float> logits(static_cast<size_t>(info.vocab_size), 1.0f);
    for (int64_t i = 0; i < count; ++i) {
      const auto position = positions->subspan(static_cast<size_t>(i) * each, each);
      PENSTOCK_CHECK(compare_position(position, info.top, logits).rest <= 1);
    }
  }
}

// positions, then JSON, then the trailer that fits them.
std::string sealed(std::string bytes, size_t positions) {
  const std::string_view json = std::string_view(bytes).substr(positions);
  const Hash128 sum = checksum(std::as_bytes(std::span(json)), 0);
  const uint64_t numbers[] = {positions, json.size(), sum.low, sum.high};
  bytes.append(reinterpret_cast<const char*>(numbers), sizeof numbers);
  return bytes + "PNSTBASE";
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string bytes(reinterpret_cast<const char*>(data) + 1, size - 1);
  check(bytes);
  check(sealed(bytes, std::min(size_t{data[0]}, bytes.size())));
  return 0;
}
