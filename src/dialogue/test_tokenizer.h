// The demo model's tokenizer, for the tests of this room.
#pragma once

#include <gtest/gtest.h>

#include <string>

#include "io/storage.h"
#include "text/tokenizer.h"

namespace penstock::test {

inline Tokenizer load_tokenizer() {
  const std::string path = PENSTOCK_TEST_DATA "/text/tokenizer.json";
  const Result<std::string> text = read_text(posix_storage(), path, 64 << 20);
  EXPECT_TRUE(text) << text.error().message;
  return Tokenizer::create(*text, path, 0).value();
}

}  // namespace penstock::test
