// Any bytes as TARGET.in-place, the record of a source that `pack --in-place` consumes, behind its magic
// and with a right checksum at their end, so that the numbers between are reached: refused by name, or
// files that are all gone.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "io/checksum.h"
#include "pack/shrinking_source.h"
#include "support/sim_storage.h"

namespace {

using namespace penstock;

void check(const std::string& bytes) {
  SimStorage disk;
  disk.make_directory("/s").value();
  auto file = disk.open("/s/model.in-place", OpenMode::kCreate).value();
  file->write(0, std::as_bytes(std::span(bytes))).value();
  const auto source = ShrinkingSource::open(disk, "/s/model");
  const auto nothing_gone = ShrinkingSource::check_nothing_consumed(disk, "/s/model");
  if (!source) {
    PENSTOCK_CHECK(!nothing_gone);
    return;
  }
  PENSTOCK_CHECK((*source)->has_record());
  uint64_t paths = 0, gone = 0;
  for (const ShrinkingSource::File& recorded : (*source)->recorded_files()) {
    paths += recorded.path.size();
    gone += recorded.is_gone;
  }
  PENSTOCK_CHECK(paths < bytes.size());
  PENSTOCK_CHECK(nothing_gone.has_value() == (gone == 0));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string bytes(reinterpret_cast<const char*>(data), size);
  check(bytes);
  bytes.insert(0, "PSSOURCE");
  const Hash128 sum = checksum(std::as_bytes(std::span(bytes)), 0);
  bytes.append(reinterpret_cast<const char*>(&sum.low), sizeof(sum.low));
  bytes.append(reinterpret_cast<const char*>(&sum.high), sizeof(sum.high));
  check(bytes);
  return 0;
}
