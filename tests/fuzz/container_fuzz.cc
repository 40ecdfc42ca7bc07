// Any bytes as the manifest of a model, sealed with the right checksum so that the parser behind it
// is reached: refused, or consistent in itself and readable again from its own text.

#include <cstddef>
#include <cstdint>
#include <string>

#include "base/check.h"
#include "format/container.h"
#include "format/text.h"
#include "support/sim_storage.h"

namespace {

using namespace penstock;

void check_consistent(const Manifest& manifest) {
  uint64_t end = 0;
  for (const ResidentTensor& tensor : manifest.tensors) {
    PENSTOCK_CHECK(tensor.offset == end && tensor.bytes > 0);
    end = align_file(tensor.offset + tensor.bytes);
  }
  PENSTOCK_CHECK(end == manifest.resident_bytes);
  std::vector<RecordForms> forms;
  for (const ExpertRecord& record : manifest.experts.layers) forms.push_back(record.forms);
  PENSTOCK_CHECK(lay_out_experts(manifest.experts, forms) == manifest.experts);
  PENSTOCK_CHECK(manifest.experts.file_bytes() <= static_cast<uint64_t>(INT64_MAX));
  const Result<Manifest> again = parse_manifest(manifest_text(manifest), "again");
  PENSTOCK_CHECK(again.has_value());
  PENSTOCK_CHECK(again->tensors == manifest.tensors && again->experts == manifest.experts);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  std::string text(reinterpret_cast<const char*>(data), size);
  const Hash128 sum = checksum(std::as_bytes(std::span(text)), 0);
  text += ",\n\"checksum\": \"" + hex_text(sum) + "\"\n}\n";
  const Result<Manifest> manifest = parse_manifest(text, "penstock.json");
  if (manifest) check_consistent(*manifest);

  // The files it speaks of are not there, so nothing may be allocated for them either.
  SimStorage disk;
  disk.make_directory("/m").value();
  auto file = disk.open("/m/penstock.json", OpenMode::kCreate).value();
  file->write(0, std::as_bytes(std::span(text))).value();
  PENSTOCK_CHECK(!Container::open(disk, "/m").has_value());
  return 0;
}
