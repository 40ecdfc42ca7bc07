#include "text/vocabulary.h"

#include <algorithm>
#include <array>
#include <bit>

#include "base/check.h"
#include "text/byte_hash.h"
#include "text/utf8.h"

namespace penstock {
namespace {

constexpr char32_t kSpellingsEnd = 0x144;  // 68 bytes are spelled U+0100 to U+0143

// Bytes that are printable in Latin-1 are spelled by the character of the same number.
constexpr bool spells_itself(uint32_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

struct Alphabet {
  std::array<char32_t, 256> character_of{};
  std::array<int16_t, kSpellingsEnd> byte_of{};  // -1: not in the alphabet
};

constexpr Alphabet make_alphabet() {
  Alphabet alphabet;
  for (int16_t& byte : alphabet.byte_of) byte = -1;
  char32_t next_other = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const char32_t character = spells_itself(byte) ? byte : next_other++;
    alphabet.character_of[byte] = character;
    alphabet.byte_of[character] = static_cast<int16_t>(byte);
  }
  return alphabet;
}

constexpr Alphabet kAlphabet = make_alphabet();

}  // namespace

std::optional<std::string> bytes_of_spelling(std::string_view spelling) {
  std::string bytes;
  bytes.reserve(spelling.size());
  for (size_t position = 0; position < spelling.size();) {
    const Utf8Char next = decode_utf8(spelling, position);
    if (next.code_point >= kSpellingsEnd) return std::nullopt;
    const int16_t byte = kAlphabet.byte_of[next.code_point];
    if (byte < 0) return std::nullopt;
    bytes += static_cast<char>(static_cast<uint8_t>(byte));
    position += next.bytes;
  }
  return bytes;
}

std::string spelling_of_byte(uint8_t byte) {
  std::string spelling;
  append_utf8(kAlphabet.character_of[byte], spelling);
  return spelling;
}

Vocabulary::Vocabulary(int64_t id_count, size_t token_count)
    : spans_(static_cast<size_t>(id_count), Span{kNoToken, 0}),
      slots_(std::bit_ceil(std::max<size_t>(token_count * 2, 16)), kFree) {}

size_t Vocabulary::slot_of(std::string_view bytes) const {
  size_t index = hash_bytes(bytes) & (slots_.size() - 1);
  while (slots_[index] != kFree && bytes_of(slots_[index]) != bytes) {
    index = (index + 1) & (slots_.size() - 1);
  }
  return index;
}

bool Vocabulary::add(TokenId id, std::string_view bytes) {
  Span& span = spans_[id];
  if (span.begin != kNoToken) return false;
  PENSTOCK_CHECK(blob_.size() + bytes.size() < kNoToken);
  span = {static_cast<uint32_t>(blob_.size()), static_cast<uint32_t>(bytes.size())};
  blob_ += bytes;
  TokenId& slot = slots_[slot_of(bytes)];
  if (slot == kFree) slot = id;
  return true;
}

std::string_view Vocabulary::bytes_of(TokenId id) const {
  if (!has(id)) return {};
  return std::string_view(blob_).substr(spans_[id].begin, spans_[id].bytes);
}

bool Vocabulary::has(TokenId id) const {
  return id >= 0 && id < id_count() && spans_[id].begin != kNoToken;
}

std::optional<TokenId> Vocabulary::find(std::string_view bytes) const {
  const TokenId id = slots_[slot_of(bytes)];
  if (id == kFree) return std::nullopt;
  return id;
}

int64_t Vocabulary::memory_bytes() const {
  return static_cast<int64_t>(blob_.capacity() + spans_.capacity() * sizeof(Span) +
                              slots_.capacity() * sizeof(TokenId));
}

}  // namespace penstock
