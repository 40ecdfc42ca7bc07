// Files on a simulated disk, and manifests that lie, for the tests of this room.
#pragma once

#include <gtest/gtest.h>

#include <span>
#include <string>
#include <string_view>

#include "format/text.h"
#include "io/checksum.h"
#include "support/sim_storage.h"

namespace penstock::test {

inline void store(SimStorage& disk, const std::string& path, std::span<const std::byte> bytes) {
  auto file = *disk.open(path, OpenMode::kCreate);
  file->write(0, bytes).value();
}
inline void store(SimStorage& disk, const std::string& path, std::string_view text) {
  store(disk, path, std::as_bytes(std::span(text)));
}

// `text` with `to` in place of `from`, and a sum that agrees.
inline std::string resealed(std::string text, std::string_view from, std::string_view to) {
  const size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos) << from;
  if (at != std::string::npos) text.replace(at, from.size(), to);
  text.resize(text.rfind(",\n\"checksum\": \""));
  const Hash128 sum = checksum(std::as_bytes(std::span(text)), 0);
  return text + ",\n\"checksum\": \"" + hex_text(sum) + "\"\n}\n";
}

}  // namespace penstock::test
