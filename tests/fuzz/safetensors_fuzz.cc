// Any bytes as a .safetensors file: refused with a sentence, or every tensor lies in the file.

#include <cstddef>
#include <cstdint>

#include "base/check.h"
#include "format/safetensors.h"
#include "support/sim_storage.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace penstock;
  SimStorage disk;
  disk.open("/f", OpenMode::kCreate)
      .value()
      ->write(0, std::as_bytes(std::span(data, size)))
      .value();
  const Result<SafetensorsFile> file = SafetensorsFile::open(disk, "/f");
  if (!file) {
    for (const char c : file.error().message) PENSTOCK_CHECK(static_cast<unsigned char>(c) >= ' ');
    return 0;
  }
  uint64_t end = 0;
  for (const TensorInfo& info : file->tensors()) {
    PENSTOCK_CHECK(end == 0 || info.offset == end);
    end = info.offset + info.bytes;
    PENSTOCK_CHECK(end <= size);
    PENSTOCK_CHECK(file->find(info.name) == &info);
    const auto values = file->read<float>(info.name);
    PENSTOCK_CHECK(values.has_value() == (info.type == "F32"));
  }
  PENSTOCK_CHECK(file->tensors().empty() || end == size);
  return 0;
}
