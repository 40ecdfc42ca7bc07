#include "support/faulty_storage.h"

#include <gtest/gtest.h>

#include <cerrno>

#include "support/sim_storage.h"

namespace penstock {
namespace {

TEST(FaultyStorage, gives_its_shares_of_errors_and_wrong_bits_and_only_for_the_named_files) {
  SimStorage real;
  for (const char* path : {"/experts.bin", "/other"}) {
    const std::vector<std::byte> zeros(4096);
    ASSERT_TRUE(real.open(path, OpenMode::kCreate).value()->write(0, zeros));
  }
  FaultyStorage disk(real, {.errors = 0.1, .flips = 0.05, .path_parts = {"experts"}});
  for (const bool is_named : {true, false}) {
    const auto file = disk.open(is_named ? "/experts.bin" : "/other", OpenMode::kRead).value();
    int errors = 0, flips = 0;
    for (int i = 0; i < 10'000; ++i) {
      std::vector<std::byte> bytes(4096);
      const int64_t got = file->try_read(0, bytes);
      errors += got == -EIO;
      int bits = 0;
      for (const std::byte byte : bytes) bits += __builtin_popcount(static_cast<unsigned>(byte));
      EXPECT_LE(bits, 1);
      flips += bits;
    }
    EXPECT_EQ(errors > 800 && errors < 1200, is_named) << errors;
    EXPECT_EQ(flips > 380 && flips < 620, is_named) << flips;
  }
}

}  // namespace
}  // namespace penstock
