// Keys and pastes as terminals send them, in pieces: no end of line inside of a paste, no control
// characters but those that keys stand for, never more characters than a key's longest meaning allows.

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "base/check.h"
#include "cli/typed_characters.h"

namespace {

using namespace penstock;

// The bytes, of which at most `piece` come at once.
class FuzzedBytes final : public TypedBytes {
 public:
  FuzzedBytes(std::span<const uint8_t> bytes, size_t piece) : bytes_(bytes), piece_(piece) {}

 private:
  Arrived fill(std::span<char> room, Patience patience, size_t& got) override {
    got = std::min({room.size(), bytes_.size(), piece_});
    if (got == 0) return patience == Patience::kAMoment ? Arrived::kByte : Arrived::kEnd;
    std::memcpy(room.data(), bytes_.data(), got);
    bytes_ = bytes_.subspan(got);
    return Arrived::kByte;
  }

  std::span<const uint8_t> bytes_;
  const size_t piece_;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  FuzzedBytes bytes(std::span(data + 1, size - 1), data[0] % 16 + 1u);
  TypedCharacters characters(bytes);
  size_t count = 0;
  wchar_t character = 0;
  while (characters.next(character) == Arrived::kByte) {
    constexpr wchar_t kQuote = 0x16;
    PENSTOCK_CHECK(static_cast<uint32_t>(character) <= 0x10ffff);
    if (characters.is_pasting()) {
      PENSTOCK_CHECK(character >= 0x20 || character == kQuote || character == L'\t');
    }
    PENSTOCK_CHECK(++count <= 6 * size);  // ESC [ x -> at most six
  }
  return 0;
}
