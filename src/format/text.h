// Small text helpers of the parsers: foreign names made printable, ids and sums as hex.
//
// Names in model files come from strangers: an error that prints one raw could move the cursor,
// hide itself or fill the screen.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "io/checksum.h"

namespace penstock {

// Of a small file beside a model's weights: a configuration, a tokenizer.
inline constexpr uint64_t kModelTextBytesMax = 256 << 20;

// Of a tensor's name, whichever format it comes from.
inline constexpr size_t kTensorNameBytesMax = 512;

bool has_control_characters(std::string_view name);

// In double quotes; control characters, quotes, backslashes and bytes above 0x7e as \xNN; what is
// longer than 120 bytes is cut and its length told.
std::string escaped(std::string_view name);

// 1 to 255 characters of [A-Za-z0-9._-], not starting with a dot: a name that cannot leave its
// folder.
bool is_plain_file_name(std::string_view name);

std::string hex_text(uint64_t value);        // 16 digits
std::string hex_text(const Hash128& value);  // 32 digits, high half first
std::string hex_text(std::span<const unsigned char> bytes);
std::optional<uint64_t> parse_hex64(std::string_view text);
std::optional<Hash128> parse_hex128(std::string_view text);

// What a file that is not what it should be looks like, from its first bytes: "an HTML page",
// "a Git LFS pointer, not the file itself". Empty when nothing is recognised.
std::string looks_like(std::string_view first_bytes);

}  // namespace penstock
