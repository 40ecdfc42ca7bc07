#include "text/jinja/character_class.h"

#include <utf8proc.h>

#include <algorithm>
#include <span>

#include "text/utf8.h"

namespace penstock::jinja {
namespace {

struct CharacterRange {
  char32_t first;
  char32_t last;
};

// Digits that are no Nd: superscripts, circled ones and the like.
constexpr CharacterRange kOtherDigits[] = {
    {0xB2, 0xB3},       {0xB9, 0xB9},       {0x1369, 0x1371},   {0x19DA, 0x19DA},
    {0x2070, 0x2070},   {0x2074, 0x2079},   {0x2080, 0x2089},   {0x2460, 0x2468},
    {0x2474, 0x247C},   {0x2488, 0x2490},   {0x24EA, 0x24EA},   {0x24F5, 0x24FD},
    {0x24FF, 0x24FF},   {0x2776, 0x277E},   {0x2780, 0x2788},   {0x278A, 0x2792},
    {0x10A40, 0x10A43}, {0x10E60, 0x10E68}, {0x11052, 0x1105A}, {0x1F100, 0x1F10A},
};

// Ideographs that are numbers.
constexpr CharacterRange kOtherNumerals[] = {
    {0x3405, 0x3405},   {0x3483, 0x3483},   {0x382A, 0x382A},   {0x3B4D, 0x3B4D},
    {0x4E00, 0x4E00},   {0x4E03, 0x4E03},   {0x4E07, 0x4E07},   {0x4E09, 0x4E09},
    {0x4E5D, 0x4E5D},   {0x4E8C, 0x4E8C},   {0x4E94, 0x4E94},   {0x4E96, 0x4E96},
    {0x4EBF, 0x4EC0},   {0x4EDF, 0x4EDF},   {0x4EE8, 0x4EE8},   {0x4F0D, 0x4F0D},
    {0x4F70, 0x4F70},   {0x5104, 0x5104},   {0x5146, 0x5146},   {0x5169, 0x5169},
    {0x516B, 0x516B},   {0x516D, 0x516D},   {0x5341, 0x5341},   {0x5343, 0x5345},
    {0x534C, 0x534C},   {0x53C1, 0x53C4},   {0x56DB, 0x56DB},   {0x58F1, 0x58F1},
    {0x58F9, 0x58F9},   {0x5E7A, 0x5E7A},   {0x5EFE, 0x5EFF},   {0x5F0C, 0x5F0E},
    {0x5F10, 0x5F10},   {0x62FE, 0x62FE},   {0x634C, 0x634C},   {0x67D2, 0x67D2},
    {0x6F06, 0x6F06},   {0x7396, 0x7396},   {0x767E, 0x767E},   {0x8086, 0x8086},
    {0x842C, 0x842C},   {0x8CAE, 0x8CAE},   {0x8CB3, 0x8CB3},   {0x8D30, 0x8D30},
    {0x9621, 0x9621},   {0x9646, 0x9646},   {0x964C, 0x964C},   {0x9678, 0x9678},
    {0x96F6, 0x96F6},   {0xF96B, 0xF96B},   {0xF973, 0xF973},   {0xF978, 0xF978},
    {0xF9B2, 0xF9B2},   {0xF9D1, 0xF9D1},   {0xF9D3, 0xF9D3},   {0xF9FD, 0xF9FD},
    {0x20001, 0x20001}, {0x20064, 0x20064}, {0x200E2, 0x200E2}, {0x20121, 0x20121},
    {0x2092A, 0x2092A}, {0x20983, 0x20983}, {0x2098C, 0x2098C}, {0x2099C, 0x2099C},
    {0x20AEA, 0x20AEA}, {0x20AFD, 0x20AFD}, {0x20B19, 0x20B19}, {0x22390, 0x22390},
    {0x22998, 0x22998}, {0x23B1B, 0x23B1B}, {0x2626D, 0x2626D}, {0x2F890, 0x2F890},
};

// Lowercase without being Ll.
constexpr CharacterRange kOtherLower[] = {
    {0xAA, 0xAA},       {0xBA, 0xBA},       {0x2B0, 0x2B8},     {0x2C0, 0x2C1},
    {0x2E0, 0x2E4},     {0x345, 0x345},     {0x37A, 0x37A},     {0x1D2C, 0x1D6A},
    {0x1D78, 0x1D78},   {0x1D9B, 0x1DBF},   {0x2071, 0x2071},   {0x207F, 0x207F},
    {0x2090, 0x209C},   {0x2170, 0x217F},   {0x24D0, 0x24E9},   {0x2C7C, 0x2C7D},
    {0xA69C, 0xA69D},   {0xA770, 0xA770},   {0xA7F8, 0xA7F9},   {0xAB5C, 0xAB5F},
    {0x10780, 0x10780}, {0x10783, 0x10785}, {0x10787, 0x107B0}, {0x107B2, 0x107BA},
};

// Uppercase without being Lu.
constexpr CharacterRange kOtherUpper[] = {
    {0x2160, 0x216F}, {0x24B6, 0x24CF}, {0x1F130, 0x1F149}, {0x1F150, 0x1F169}, {0x1F170, 0x1F189},
};

bool is_in(std::span<const CharacterRange> ranges, char32_t c) {
  const auto after = std::partition_point(
      ranges.begin(), ranges.end(), [c](const CharacterRange& range) { return range.last < c; });
  return after != ranges.end() && after->first <= c;
}

utf8proc_category_t category_of(char32_t c) {
  return utf8proc_category(static_cast<utf8proc_int32_t>(c));
}

enum class Case { kLower, kUpper };

// All letters that are in a case are in `wanted`, and there is one.
bool is_text_in(std::string_view text, Case wanted) {
  bool has_cased = false;
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_valid_utf8(text, position);
    const char32_t c = next.code_point;
    position += next.bytes;
    const bool lower = is_lower(c);
    const bool upper = is_upper(c);
    if (is_title(c) || (wanted == Case::kLower ? upper : lower)) return false;
    if (lower || upper) has_cased = true;
  }
  return has_cased;
}

}  // namespace

bool is_alpha(char32_t c) {
  const auto category = category_of(c);
  return category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO;
}

bool is_decimal(char32_t c) {
  return category_of(c) == UTF8PROC_CATEGORY_ND;
}

bool is_digit(char32_t c) {
  return is_decimal(c) || is_in(kOtherDigits, c);
}

bool is_numeric(char32_t c) {
  const auto category = category_of(c);
  const bool is_number = category == UTF8PROC_CATEGORY_ND || category == UTF8PROC_CATEGORY_NL ||
                         category == UTF8PROC_CATEGORY_NO;
  return is_number || is_in(kOtherNumerals, c);
}

bool is_lower(char32_t c) {
  return category_of(c) == UTF8PROC_CATEGORY_LL || is_in(kOtherLower, c);
}

bool is_upper(char32_t c) {
  return category_of(c) == UTF8PROC_CATEGORY_LU || is_in(kOtherUpper, c);
}

bool is_title(char32_t c) {
  return category_of(c) == UTF8PROC_CATEGORY_LT;
}

bool is_printable(char32_t c) {
  switch (category_of(c)) {
    case UTF8PROC_CATEGORY_CC:
    case UTF8PROC_CATEGORY_CF:
    case UTF8PROC_CATEGORY_CS:
    case UTF8PROC_CATEGORY_CO:
    case UTF8PROC_CATEGORY_CN:
    case UTF8PROC_CATEGORY_ZL:
    case UTF8PROC_CATEGORY_ZP: return false;
    case UTF8PROC_CATEGORY_ZS: return c == ' ';
    default: return true;
  }
}

bool is_lower_text(std::string_view text) {
  return is_text_in(text, Case::kLower);
}

bool is_upper_text(std::string_view text) {
  return is_text_in(text, Case::kUpper);
}

bool is_title_text(std::string_view text) {
  bool has_cased = false;
  bool after_cased = false;
  for (size_t position = 0; position < text.size();) {
    const Utf8Char next = decode_valid_utf8(text, position);
    const char32_t c = next.code_point;
    position += next.bytes;
    const bool begins = is_upper(c) || is_title(c);
    const bool follows = is_lower(c);
    if ((begins && after_cased) || (follows && !after_cased)) return false;
    after_cased = begins || follows;
    has_cased = has_cased || after_cased;
  }
  return has_cased;
}

}  // namespace penstock::jinja
